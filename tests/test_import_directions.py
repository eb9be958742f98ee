"""The direction of imports: nothing flows back, heavy libraries stay behind one door each, and a plain pytest stays fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = "pytest_pilotscope"

EVERYTHING = frozenset({"*"})
MAY_IMPORT: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "places": frozenset({"errors"}),
    "options": frozenset({"places", "errors"}),
    "registry": frozenset({"options", "errors"}),
    "hookspecs": frozenset({"registry"}),
    "queries": frozenset({"errors"}),
    "record": frozenset({"queries", "places", "errors"}),
    "statistics": frozenset({"record", "errors"}),
    "postgres": frozenset({"record", "queries", "places", "errors"}),
    "datasets": frozenset({"postgres", "queries", "options", "places", "errors"}),
    "provision": frozenset({"datasets", "postgres", "queries", "options", "places", "builtins", "errors"}),
    "labels": frozenset({"postgres", "queries", "places", "errors"}),
    "learning": frozenset({"labels", "provision", "postgres", "record", "queries", "options", "places", "errors"}),
    "measurement": frozenset({"learning", "postgres", "record", "queries", "errors"}),
    "tracking": frozenset({"statistics", "record", "places", "errors"}),
    "gate": frozenset({"statistics", "record", "options", "places", "errors"}),
    "report": frozenset({"statistics", "record", "options", "places", "errors"}),
    "algorithms": frozenset({"learning", "labels", "postgres", "statistics", "record", "queries", "options", "places", "errors"}),
    "presets": frozenset({"runs", "builtins", "errors"}),
    "builtins": frozenset({"algorithms", "datasets", "registry"}),
    "pyfunc": frozenset({"builtins", "postgres", "errors"}),
    "runs": EVERYTHING - {"plugin", "commands", "notebook"},
    "notebook": EVERYTHING - {"plugin", "commands"},
    "commands": EVERYTHING - {"plugin"},
    "testing": EVERYTHING,
    "plugin": EVERYTHING,
    "benchmarks": EVERYTHING,
    "": EVERYTHING,
}
"""
The rooms that each room, and each file at the root of the package, may import besides itself; `*` is all of them.

`presets` is `algorithms/__init__.py`, which starts runs; "" is `pytest_pilotscope/__init__.py`, which names what is public.
"""

DOORS = {
    "psycopg2": ("pytest_pilotscope/postgres/",),
    "mlflow": ("pytest_pilotscope/tracking/",),
    "pytest": tuple(f"{PACKAGE}/{name}.py" for name in ("plugin", "options/commandline", "hookspecs", "testing")),
    "_pytest": tuple(f"{PACKAGE}/{name}.py" for name in ("plugin", "options/commandline", "hookspecs", "testing")),
}
"""The only places that may import a library."""

HEAVY = ("torch", "mlflow", "pandas", "sqlglot", "psycopg2", "smac", "sklearn", "matplotlib", "scipy")


def modules() -> Iterator[Path]:
    """Yield every module of the package, relative to the repository; `algorithms/` lies beside it and is linked into it."""
    for package in (PACKAGE, "algorithms"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if not any(folder.is_symlink() for folder in path.parents):
                yield path.relative_to(ROOT)


def imported(path: Path) -> Iterator[str]:
    """The absolute names a module imports when it runs, also within functions; what only the type checker imports is left out."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(path.parts[:-1][: len(path.parts) - node.level]) + "." if node.level else ""
            yield from (f"{above}{node.module or ''}.{alias.name}".replace("..", ".") for alias in node.names)
        pending.extend(ast.iter_child_nodes(node))


def room_of(name: str) -> str | None:
    """Return the room that a dotted name belongs to, None outside of the package."""
    words = name.split(".")
    if words[0] == "algorithms":
        words = [PACKAGE, *words]
    if words[0] != PACKAGE:
        return None
    if words[1:2] == ["algorithms"] and len(words) == 2:
        return "presets"
    return words[1] if len(words) > 1 else ""


def dotted(path: Path) -> str:
    """Return the module name of a path."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def test_every_file_has_a_rule() -> None:
    """A new file at the root, or a new room, needs a rule of what it may import."""
    assert sorted({str(path) for path in modules() if room_of(dotted(path)) not in MAY_IMPORT}) == []


def test_imports_flow_one_way() -> None:
    """A module imports its own room and those its room may import, nothing else of ours."""
    wrong = [f"{path} imports {name}" for path in modules() for name in imported(path) if not may_import(room_of(dotted(path)), name)]
    assert wrong == []


def test_training_does_not_reach_into_the_store() -> None:
    """Who starts a run hands in the folder of its model."""
    assert [name for name in imported(Path(PACKAGE, "runs", "learn.py")) if room_of(name) == "tracking"] == []


def may_import(room: str | None, name: str) -> bool:
    """Tell whether a module of this room may import this name; a public name of the package itself counts as its room."""
    other = room_of(name)
    allowed = MAY_IMPORT[room or ""]
    return other in (None, room) or other in allowed or "*" in allowed


def test_each_library_has_one_door() -> None:
    """The database driver, the tracking client and pytest are imported in their own places only."""
    wrong = [
        f"{path} imports {name}, which only {', '.join(DOORS[library])} may"
        for path in modules()
        for name in imported(path)
        if (library := name.split(".")[0]) in DOORS and not path.as_posix().startswith(DOORS[library])
    ]
    assert not wrong


def test_every_import_is_declared() -> None:
    """Whatever the product imports belongs to a distribution that pyproject.toml names, so no other package has to bring it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(one for extra in extras.keys() - {"test", "lint", "type"} for one in extras[extra])]
    declared = {canonicalize_name(Requirement(requirement).name) for requirement in requirements}
    of_library = packages_distributions()
    ours = sys.stdlib_module_names | {PACKAGE, "algorithms"}
    imports = {(str(path), library) for path in modules() for name in imported(path) if (library := name.split(".")[0]) not in ours}
    assert [one for one in sorted(imports) if not declared & {canonicalize_name(name) for name in of_library.get(one[1], one[1:])}] == []


def test_no_algorithm_imports_another() -> None:
    """An algorithm can change without a look at the others; `plans` has what several share, and imports none of them."""
    folders = {path.parts[1] for path in modules() if path.parts[0] == "algorithms" and len(path.parts) > 2}
    wrong = [
        f"{path} imports {name}"
        for path in modules()
        if path.parts[0] == "algorithms" and path.parts[1] in folders
        for name in imported(path)
        if name.startswith(f"{PACKAGE}.algorithms.") and name.split(".")[2] in folders - {path.parts[1], "plans"}
    ]
    assert not wrong


def test_the_plugin_imports_nothing_heavy() -> None:
    """A plain pytest in an environment with the plugin installed loads neither learning, tracking, data frame nor database libraries."""
    assert (ROOT / PACKAGE / "plugin.py").exists()
    code = f"import sys, {PACKAGE}.plugin; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_collecting_tests_imports_nothing_heavy() -> None:
    """`pytest --co` checks names and options, and needs neither MLflow nor learning, plotting or data frame libraries."""
    heavy = set(HEAVY) - {"psycopg2"}
    algorithms = "baseline,oracle,mscn,lero,hintset,trees"
    arguments = ["--co", "-q", "benchmarks", "--algo", algorithms, "--db", "stats_tiny", "-p", "no:cacheprovider"]
    code = f"import pytest, sys; pytest.main({arguments!r}); print(*sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    *_, collected, loaded = done.stdout.splitlines()
    assert collected.startswith("18 tests collected"), done.stdout + done.stderr
    assert loaded == ""


def test_python_without_pytest_does_not_load_it() -> None:
    """Configuring a server and making a scheduler is for programs that test nothing."""
    code = (
        "import sys; from pytest_pilotscope import PostgreSQLConfig; from pytest_pilotscope.algorithms import get_index_preset_scheduler; "
        "get_index_preset_scheduler(PostgreSQLConfig('stats_tiny', scale=0.01), use_mlflow=False); print('pytest' in sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["False"]


def test_values_need_nothing_but_numpy_scipy_and_sqlglot() -> None:
    """Values and arithmetic can be used, and tested, without a server, a tracking store or pytest."""
    known = sys.stdlib_module_names | {PACKAGE, "numpy", "scipy", "sqlglot"}
    wrong = {
        f"{path}: {name}"
        for path in modules()
        if room_of(dotted(path)) in ("queries", "record", "statistics")
        for name in imported(path)
        if name.split(".")[0] not in known
    }
    assert not wrong
