"""`pilotscope install-library`: build the library for a server of the user's, and print the commands that load it there."""

from __future__ import annotations

import platform
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pytest_pilotscope.commands.given_server import given_server
from pytest_pilotscope.commands.output import show_json
from pytest_pilotscope.errors import MissingExtension, StatementFailed
from pytest_pilotscope.queries.predicates import quote_identifier, quote_text

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_HERE = ("localhost", "127.0.0.1", "::1")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Other names of processors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """
    The `library` for the server, and the two `commands` that an administrator runs on its machine; neither if it is `loaded` already.

    The server is on another machine, `host`, or on this one.
    """

    server: str
    loaded: bool
    library: Path | None = None
    host: str | None = None
    commands: tuple[str, ...] = ()


def install_library(address: str, bindir: Path | None) -> Installation:
    """
    Build the library for the server of a connection string, and change nothing there. `bindir` has the PostgreSQL whose headers to use.

    Raise `UsageError` for a text that is no connection string, `ServerError` if nothing answers, and `MissingExtension` if there are no
    headers of the server's version, no compiler, or another kind of machine.
    """
    from pytest_pilotscope.postgres.extension.build import build_with, find_headers, headers_of
    from pytest_pilotscope.postgres.steering import has_extension

    server = given_server(address)
    with server.connect() as session:
        if has_extension(session):
            return Installation(server=str(server.dsn), loaded=True)
        _check_machine(str(session.scalar("SELECT version()")))
        major = session.server_version // 10_000
        headers = find_headers(bindir) if bindir is not None else headers_of(major)
        if headers.major != major:
            raise MissingExtension(f"the server is PostgreSQL {major}, that of --pg-bindir {bindir} is {headers.major}; name another one")
        library, host = build_with(headers), session.parameters.get("host", "")
        here = not host or host.startswith("/") or host in _HERE
        commands = _commands(session, library if here else Path(library.name))
        return Installation(server=str(server.dsn), loaded=False, library=library, host=None if here else host, commands=commands)


def show_installation(made: Installation, *, as_json: bool) -> None:
    """Show the commands, and the one that checks their success."""
    if as_json:
        show_json(made)
        return
    if made.loaded:
        click.echo(f"the pilotscope library is loaded already on {made.server}")
        return
    click.echo(f"built {made.library}")
    if made.host is not None:
        click.echo(f"copy it to {made.host}, for instance with: scp {shlex.quote(str(made.library))} {made.host}:")
    click.echo("an administrator of the server runs there, in the folder of the file and as a superuser of PostgreSQL:")
    for command in made.commands:
        click.echo(f"  {command}")
    click.echo(f"new sessions have it then; check it with: pilotscope doctor --server {shlex.quote(made.server)}")


def _commands(session: Session, library: Path) -> tuple[str, str]:
    """Return the command that puts the library into PostgreSQL's folder, and the one that loads it into every new session of a database."""
    folder = _asked(session, "SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR'")
    target = shlex.quote(f"{folder}/pilotscope.so") if folder else '"$(pg_config --pkglibdir)/pilotscope.so"'
    loaded = [part.strip().strip('"') for part in (_asked(session, "SHOW session_preload_libraries") or "").split(",") if part.strip()]
    named = ", ".join(map(quote_text, [*loaded, "pilotscope"]))
    port = _asked(session, "SHOW port")
    at = f" --port={port}" if port not in (None, "5432") else ""
    statement = f"ALTER DATABASE {quote_identifier(session.database)} SET session_preload_libraries = {named}"
    return (
        f"sudo install -m 755 {shlex.quote(str(library))} {target}",
        f"psql{at} --dbname={shlex.quote(session.database)} --command={shlex.quote(statement)}",
    )


def _asked(session: Session, sql: str) -> str | None:
    """Return a setting of the server; None if the role may not see it."""
    try:
        with session.rolled_back():
            return str(session.scalar(sql))
    except StatementFailed:
        return None


def _check_machine(version: str) -> None:
    """Raise `MissingExtension` if a library that is built here cannot be loaded by a server with this text of `version()`."""
    built = re.search(r" on (\S+?),", version)
    theirs = built[1] if built else "another system"
    machine = _MACHINES.get(platform.machine(), platform.machine())
    system = "darwin" if sys.platform == "darwin" else "linux"
    musl = system == "linux" and platform.libc_ver()[0] != "glibc"
    fits = theirs.startswith(machine) and system in theirs and ("musl" in theirs) == musl
    if not fits:
        raise MissingExtension(
            f"the server runs on {theirs}, and this machine is {machine} with {system}: a library that is built here does not load there; "
            "run this command on the server's machine"
        )
