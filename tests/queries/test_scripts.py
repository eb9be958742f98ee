"""Scripts of pgbench: their syntax, their values, and what is refused."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from pytest_pilotscope.errors import WorkloadError
from pytest_pilotscope.queries.expressions import parse_expression
from pytest_pilotscope.queries.scripts import Script, Writes, parse_script

TPCB = r"""\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
INSERT INTO pgbench_history (bid, aid, delta, mtime) VALUES (:bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
"""


def seeded(seed: int) -> Random:
    """Return a generator of random numbers."""
    return Random(seed)  # noqa: S311  # no secret


def values(text: str, seed: int = 0, **variables: int) -> str:
    """Return the statements of one run, joined."""
    return "; ".join(parse_script(text, "s.sql").rendered(seeded(seed), variables).statements)


def test_a_script_of_pgbench() -> None:
    """Variables are drawn anew for each run, within their bounds, and the same seed draws the same."""
    script = parse_script(TPCB, "tpcb.sql")
    runs = Writes(scripts=(script,), per_query=1).draw(300, seeded(4), {"scale": 2})
    assert runs == Writes(scripts=(script,), per_query=1).draw(300, seeded(4), {"scale": 2})
    accounts = [int(run.statements[1].rpartition(" ")[2]) for run in runs]
    assert 1 <= min(accounts) < 10_000
    assert 190_000 < max(accounts) <= 200_000
    assert {run.statements[0] for run in runs} == {"BEGIN"}
    for run in runs:
        found = re.search(r"VALUES \((\d), (\d+), (-?\d+),", run.statements[2])
        assert found is not None
        assert found[2] == run.statements[1].rpartition(" ")[2]
        assert f"abalance + {found[3]} " in run.statements[1]


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SELECT 1", "SELECT 1"),
        ("\\set a 2\n\\set b :a * 3 - 1\nSELECT :b, :a;", "SELECT 5, 2"),
        ("SELECT 1;\n  \\set a 7\nSELECT ':a', a[1::a], x::int FROM :b", "SELECT 1; SELECT '7', a[1::a], x::int FROM :b"),
        ("-- a comment; with a semicolon\nSELECT 1; /* \\set */ SELECT\n  2;", "SELECT 1; SELECT\n  2"),
        ("\\set a 1 \\\n  + 2\nSELECT :a", "SELECT 3"),
        ("\\set a :client_id\nSELECT :a, :client_id", "SELECT 3, 3"),
        ("\\set A 1\n\\set a 2\nSELECT :A, :a", "SELECT 1, 2"),
    ],
)
def test_variables_stand_in_statements(text: str, statements: str) -> None:
    """A cast is no variable, an unknown name stays, a variable in quotes is put in (all as pgbench does in its simple protocol)."""
    assert values(text, client_id=3) == statements


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("mod(7, 4)", 3),
        ("7.0 / 2", 3.5),
        ("least(3, 1, 2) + greatest(3, 1, 2)", 4),
        ("abs(-4) + int(2.9)", 6),
        ("+3 - -3", 6),
        ("RANDOM(5, 5)", 5),
    ],
)
def test_expressions(expression: str, value: float) -> None:
    """Whole numbers are divided towards zero, as in PostgreSQL."""
    found = parse_expression(expression, ()).value({}, seeded(0))
    assert (found, type(found)) == (value, type(value))


def test_distributions() -> None:
    """All stay within their bounds; a gaussian is highest in the middle, the two others at their beginning."""
    shapes = {}
    for function in ("random(1, 10)", "random_gaussian(1, 10, 4)", "random_exponential(1, 10, 3)", "random_zipfian(1, 10, 1.5)"):
        expression, rng = parse_expression(function, ()), seeded(1)
        shapes[function] = Counter(expression.value({}, rng) for _ in range(3000))
        assert set(shapes[function]) <= set(range(1, 11))
    uniform, gaussian, exponential, zipfian = shapes.values()
    assert min(uniform.values()) > 220
    assert min(gaussian[5], gaussian[6]) > 2 * max(gaussian[2], gaussian[9])
    assert exponential[1] > 2 * exponential[5] > 2 * exponential[10] > 0
    assert zipfian[1] > 2 * zipfian[2] > 2 * zipfian[3] > 0


KNOWN = (
    "known are numbers, :variables, + - * / %, and random, random_gaussian, random_exponential, random_zipfian, abs, int, mod, least, "
    "greatest"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\\sleep 1 s\nSELECT 1", "s.sql:2: the meta command \\sleep is none of those that are known here: \\set name expression"),
        ("\\ \nSELECT 1", "s.sql:1: the meta command \\ is none of those that are known here: \\set name expression"),
        ("\\set a\nSELECT 1", "s.sql:1: expected \\set name expression, got \\set a"),
        ("\\set 1a 2\nSELECT 1", "s.sql:1: expected \\set name expression, got \\set 1a 2"),
        ("\\set a :b\nSELECT 1", "s.sql:1: \\set a: variable 'b' has no value yet; put its \\set before"),
        ("\\set a random(1)\nSELECT 1", "s.sql:1: \\set a: random takes 2 arguments, got 1"),
        ("\\set a random_zipfian(1)\nSELECT 1", "s.sql:1: \\set a: random_zipfian takes 3 arguments, got 1"),
        ("\\set a least()\nSELECT 1", "s.sql:1: \\set a: least takes at least 1 arguments, got 0"),
        ("\\set a __import__('os')\nSELECT 1", f"s.sql:1: \\set a: \"__import__('os')\" cannot be read; {KNOWN}"),
        ("\\set a 'text'\nSELECT 1", f"s.sql:1: \\set a: \"'text'\" cannot be read; {KNOWN}"),
        ("\\set a 1 +\nSELECT 1", f"s.sql:1: \\set a: '1 +' cannot be read; {KNOWN}"),
        ("\\set a _b\nSELECT 1", f"s.sql:1: \\set a: '_b' cannot be read; {KNOWN}"),
        ("\\set a 2 ** 9\nSELECT 1", f"s.sql:1: \\set a: '2 ** 9' cannot be read; {KNOWN}"),
        ("\\set a 1; DROP TABLE x\nSELECT 1", f"s.sql:1: \\set a: '1; DROP TABLE x' cannot be read; {KNOWN}"),
        ("SELECT 1;\nDROP TABLE x;", "s.sql:2: a script reads and changes rows only; leave this statement out: DROP TABLE x"),
        (
            "ALTER SYSTEM SET fsync = off",
            "s.sql:1: a script reads and changes rows only; leave this statement out: ALTER SYSTEM SET fsync = off",
        ),
        ("(SELECT 1)", "s.sql:1: a script reads and changes rows only; leave this statement out: (SELECT 1)"),
        ("SELECT 1;\nSELECT 'x", "s.sql:2: a literal is opened here and never closed"),
        ("\\set a 1\n-- nothing", "s.sql:1: the script has no statement; write at least one, such as an INSERT or an UPDATE"),
        ("", "s.sql:1: the script has no statement; write at least one, such as an INSERT or an UPDATE"),
    ],
)
def test_what_cannot_be_run_is_refused(text: str, message: str) -> None:
    """The message has the file, the line, what was found and what is possible."""
    with pytest.raises(WorkloadError) as found:
        parse_script(text, "s.sql")
    assert str(found.value) == message


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("1 / 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("1.5 % 2", "% needs whole numbers"),
        ("random(2, 1)", "the upper bound of a random number is below the lower one: 1 < 2"),
        ("random(1, 2.5)", "the bounds of a random number must be whole, got 1 and 2.5"),
        ("random_gaussian(1, 9, 1)", "the parameter of random_gaussian must be at least 2, got 1"),
        ("random_exponential(1, 9, 0)", "the parameter of random_exponential must be above 0, got 0"),
        ("random_zipfian(1, 9, 1)", "the parameter of random_zipfian must be from 1.001 to 1000, got 1"),
    ],
)
def test_a_value_that_does_not_exist(expression: str, reason: str) -> None:
    """The message names the script, the line and the variable."""
    script = parse_script(f"SELECT 1;\n\\set a {expression}\nSELECT :a", "s.sql")
    with pytest.raises(WorkloadError) as found:
        script.rendered(seeded(0), {})
    assert str(found.value) == f"s.sql:2: \\set a: {reason}"


def test_scripts_are_drawn_by_weight() -> None:
    """Three to one; a script of weight 0 never. The count follows the queries, and the fingerprint what the scripts do."""
    scripts = tuple(parse_script(f"SELECT {weight}", f"{weight}.sql", weight) for weight in (3, 1, 0))
    writes = Writes(scripts=scripts, per_query=2.5)
    drawn = Counter(run.script for run in writes.draw(4000, seeded(2), {}))
    assert set(drawn) == {"3.sql", "1.sql"}
    assert drawn["3.sql"] / drawn["1.sql"] == pytest.approx(3, rel=0.2)
    assert [writes.count(queries) for queries in (1, 2, 4)] == [2, 5, 10]
    renamed = Script(name="other", weight=3, commands=scripts[0].commands)
    assert Writes(scripts=(renamed, *scripts[1:]), per_query=2.5).fingerprint == writes.fingerprint
    assert Writes(scripts=scripts, per_query=2).fingerprint != writes.fingerprint
