"""The texts after `--variant`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options.commandline import settings
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.options.variants import FORM, Variant, variant
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.runs.cases import cases_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("geqo:geqo_threshold=2", Variant(name="geqo", settings={"geqo_threshold": "2"})),
        ("a.b-1: JIT = on , work_mem=64 MB", Variant(name="a.b-1", settings={"jit": "on", "work_mem": "64 MB"})),
        ("path:search_path=a, b,jit=on", Variant(name="path", settings={"search_path": "a, b", "jit": "on"})),
        ("empty:search_path=", Variant(name="empty", settings={"search_path": ""})),
        ("pg16@/usr/lib/postgresql/16/bin", Variant(name="pg16", bindir=Path("/usr/lib/postgresql/16/bin"))),
        ("other@postgresql://me:p@w@db/x?a=b", Variant(name="other", dsn=Dsn("postgresql://me:p@w@db/x?a=b"))),
        ("other@host=db password=a:b", Variant(name="other", dsn=Dsn("host=db password=a:b"))),
    ],
)
def test_a_variant_is_settings_a_folder_or_a_dsn(text: str, expected: Variant) -> None:
    """The first colon or @ ends the name; a comma begins a setting only if a name and = follow."""
    assert variant(text) == expected
    assert Settings(variants=(text,)).variants == (expected,)  # type: ignore[arg-type]  # texts are read


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("geqo", "expected {}, got the name 'geqo' and nothing that is different about it"),
        ("geqo:", "expected {}, got the name 'geqo' and nothing that is different about it"),
        ("pg16@ ", "expected {}, got the name 'pg16' and nothing that is different about it"),
        ("geqo:jit", "expected {}, got 'jit' as a setting of 'geqo'"),
        ("geqo:=on", "expected {}, got '=on' as a setting of 'geqo'"),
        ("geqo:jit=on,JIT=off", "expected each setting once, got JIT twice for 'geqo'"),
        ("postgresql://me:hunter2@db/x", "expected {}, got 'postgresql://me:***@db/x' without a name"),
    ],
)
def test_what_is_no_variant_is_refused(text: str, found: str) -> None:
    """The message has the whole form and what was found, without a password."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{re.escape(found.format(FORM))}$"):
        variant(text)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "é", "-x", ".x", "a+b", "x" * 61, "host=db password=hunter2"])
def test_a_name_may_name_a_file(name: str) -> None:
    """It becomes part of the names of files and experiments."""
    with pytest.raises(argparse.ArgumentTypeError, match=r"^expected NAME:.* got the name '.*'$") as error:
        variant(f"{name}:jit=on")
    assert "hunter2" not in str(error.value)


def test_a_name_is_given_once(pytester: pytest.Pytester) -> None:
    """Two variants of one name, also in other case, would share files; the command line and Python refuse them alike."""
    message = "^--variant A is given twice: jit=on and jit=off; give each variant a name of its own$"
    with pytest.raises(UsageError, match=message):
        Settings(variants=("a:jit=on", "A:jit=off"))  # type: ignore[arg-type]
    with pytest.raises(pytest.UsageError, match=message):
        settings(pytester.parseconfig("-p", "pytest_pilotscope.plugin", "--variant", "a:jit=on", "--variant", "A:jit=off"))
    with pytest.raises(UsageError, match=r"^variants: expected NAME:.*, got the name 'a' and nothing that is different about it$"):
        Settings(variants="a")  # type: ignore[arg-type]


def test_the_ini_file_has_a_variant_on_each_line(pytester: pytest.Pytester) -> None:
    """Commas belong to a variant, so that lines separate several."""
    pytester.makeini("[pytest]\npilotscope_variant =\n  geqo:geqo_threshold=2,geqo=on\n  jit:jit=on\n")
    found = settings(pytester.parseconfig("-p", "pytest_pilotscope.plugin")).variants
    assert [str(one) for one in found] == ["geqo_threshold=2,geqo=on", "jit=on"]


@pytest.mark.parametrize(
    ("algorithms", "variants", "compare", "expected"),
    [
        (("baseline",), ("a:jit=on",), False, [("a",)]),
        (("baseline",), ("a:jit=on", "b:jit=on"), False, [("a", "b")]),
        (("mscn",), ("a:jit=on", "b:jit=on"), False, [("mscn",), ("a", "b")]),
        (("baseline", "mscn"), ("a:jit=on",), True, [("baseline", "mscn", "a")]),
    ],
)
def test_variants_share_a_run(
    algorithms: tuple[str, ...], variants: tuple[str, ...], compare: bool, expected: list[tuple[str, ...]]
) -> None:
    """All variants take turns in one run; with `--compare` the algorithms are in it, too. The baseline alone has no other run then."""
    chosen = Settings(algorithms=algorithms, variants=variants, compare=compare)  # type: ignore[arg-type]
    assert [case.algorithms for case in cases_of(chosen)] == expected
