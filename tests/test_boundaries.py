"""Files are made and programs are started in one way each, so that no new one is open to others or gets a secret."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.test_import_directions import ROOT, modules

MAKING = ("mkdir", "makedirs", "write_text", "write_bytes", "touch", "mkdtemp")
WRITING = re.compile(r"[wax]b?\+?|r\+b?|a\+b")
WITHOUT_HELP = {
    "pytest_pilotscope/places/privatefiles.py": "the helper itself",
    "pytest_pilotscope/postgres/watchdog.py": "a script that imports nothing of ours",
    "pytest_pilotscope/postgres/embedded.py": "configuration and libraries, which the account of the server has to read",
}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls in a module, by the last part of the name of what is called."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2], node


def test_files_are_made_private() -> None:
    """No module makes a file or a folder but by `privatefiles`, a temporary one of Python's, or the watchdog."""
    found = [
        f"{path}:{call.lineno}: {name}"
        for path in modules()
        if str(path) not in WITHOUT_HELP
        for name, call in calls(path)
        if name in MAKING or (name == "open" and any(WRITING.fullmatch(str(getattr(value, "value", ""))) for value in call.args))
    ]
    assert found == []


def test_programs_get_an_environment() -> None:
    """No program inherits the environment of the run: each is started with variables that somebody chose."""
    found = [
        f"{path}:{call.lineno}"
        for path in modules()
        if "subprocess" in (ROOT / path).read_text(encoding="utf-8") and path.name != "watchdog.py"  # it has such an environment itself
        for name, call in calls(path)
        if name in ("run", "Popen", "check_output") and "subprocess" in ast.unparse(call.func)
        if not {"env"} & {keyword.arg for keyword in call.keywords}
    ]
    assert found == []
