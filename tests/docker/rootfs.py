"""
The base of an image, made from this machine's own Debian packages: no registry, no download.

What is in it: PostgreSQL 15 with its server headers and HypoPG, a shell with the usual tools, a C compiler, and `apt-get` with the list of
installed packages, to which everything that is installed here is installed there as well. So a Dockerfile's `apt-get install` of these
packages runs as written and finds nothing left to do.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

MAJOR = 15
POSTGRES = Path(f"/usr/lib/postgresql/{MAJOR}")
ENTRYPOINT = Path(__file__).with_name("entrypoint.sh")

_TOOLS = (
    *("sh", "bash", "env", "cat", "ls", "mkdir", "chown", "chmod", "id", "rm", "cp", "mv", "ln", "sed", "grep", "head", "sleep", "printf"),
    *("setpriv", "locale", "apt-get", "apt-config", "dpkg", "dpkg-deb", "gcc", "as", "ld", "true", "test"),
)
_FOLDERS = (
    *(POSTGRES, Path(f"/usr/share/postgresql/{MAJOR}"), Path(f"/usr/include/postgresql/{MAJOR}"), Path("/usr/lib/gcc")),
    *(Path("/usr/lib/apt"), Path("/etc/apt/apt.conf.d"), Path("/usr/share/zoneinfo/Etc"), Path("/usr/share/dpkg")),
)
_C_HEADERS = re.compile(r"^/usr/include/([^/]+|linux/.*|asm-generic/.*|[^/]*-linux-gnu/(a|s|b|g).*)\.h$")
_LEFT_OUT = re.compile(r"/bitcode/|llvmjit|/lto1$|/cc1plus$|/lto-wrapper$|(?<!/libgcc)\.a$|/libgccjit|/libsan|san\.so|/f951$|/internal/")
_LINKED = ("crt1.o", "crti.o", "crtn.o", "Scrt1.o", "libc.so", "libc_nonshared.a", "libm.so", "libmvec.so", "libpthread.a", "libgcc_s.so.1")
_ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n_apt:x:42:65534::/nonexistent:/bin/false\n"
_GROUPS = "root:x:0:\npostgres:x:999:\nnogroup:x:65534:\n"
_EMPTY = (
    *("tmp", "run", "proc", "sys", "dev", "root", "var/tmp", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"),
    *("var/log/apt", "var/lib/dpkg/updates", "var/lib/dpkg/info", "docker-entrypoint-initdb.d", "var/lib/postgresql/data"),
)


def missing() -> list[str]:
    """Return the programs that this machine lacks to make the base."""
    paths = [POSTGRES / "bin" / "postgres", Path(f"/usr/include/postgresql/{MAJOR}/server/postgres.h"), Path("/var/lib/dpkg/status")]
    return [str(path) for path in paths if not path.exists()] + [name for name in (*_TOOLS, "ldd") if shutil.which(name) is None]


def write_rootfs(target: Path) -> None:
    """Write the tar file of the root file system."""
    named = [Path(shutil.which(name) or name) for name in _TOOLS]
    wanted = [*named, *_files(_FOLDERS), *_c_library()]
    libraries = _libraries(path for path in wanted if path.parent != POSTGRES / "lib" and _is_elf(path))  # those need what postgres needs
    with tarfile.open(target, "w") as archive:
        for name, to in (*((name, f"usr/{name}") for name in ("bin", "sbin", "lib", "lib64")), ("var/run", "/run")):
            _link(archive, name, to)
        for name in _EMPTY:
            _folder(archive, name, mode=0o1777 if name.endswith("tmp") else 0o755)
        everything = [*wanted, *libraries, Path("/usr/share/zoneinfo/UTC")]
        for path in sorted({link for one in everything for link in _chain(one)}):
            archive.add(path, arcname=str(path).lstrip("/"), recursive=False)
        for name, text, mode in (
            ("etc/passwd", _ACCOUNTS, 0o644),
            ("etc/group", _GROUPS, 0o644),
            ("var/lib/dpkg/status", Path("/var/lib/dpkg/status").read_text(), 0o644),
            ("usr/local/bin/docker-entrypoint.sh", ENTRYPOINT.read_text(), 0o755),
        ):
            _file(archive, name, text.encode(), mode)


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for root, _, names in os.walk(folder):
            yield from (path for name in names if not _LEFT_OUT.search(str(path := Path(root, name))))


def _c_library() -> list[Path]:
    """Return the files that a C program is compiled against, and linked with."""
    headers = [path for path in _files([Path("/usr/include")]) if _C_HEADERS.match(str(path))]
    return headers + [path for name in _LINKED if (path := Path(f"/usr/lib/{_multiarch()}") / name).exists()]


def _multiarch() -> str:
    return subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()


def _is_elf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _libraries(programs: Iterable[Path]) -> list[Path]:
    found = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    return [Path(path) for path in set(re.findall(r"(?:=> |^\t)(/\S+) \(", found, re.MULTILINE))]


def _chain(path: Path) -> Iterator[Path]:
    """A file in its real folder, and, when it is a link, what it leads to."""
    real = Path(os.path.realpath(path.parent)) / path.name
    yield real
    if real.is_symlink():
        yield from _chain(real.parent / os.readlink(real))


def _link(archive: tarfile.TarFile, name: str, to: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    archive.addfile(member)


def _folder(archive: tarfile.TarFile, name: str, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    archive.addfile(member)


def _file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))
