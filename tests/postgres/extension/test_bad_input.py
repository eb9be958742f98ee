"""Bad values are refused at SET, with a reason, and nothing makes the server fall."""

from __future__ import annotations

import json
import random
import re

import pytest

from pytest_pilotscope.errors import StatementFailed, SteeringError
from pytest_pilotscope.postgres.session import Session

from .corpora import chance

_METHODS = "nestloop, mergejoin, hashjoin, seqscan, indexscan, indexonlyscan, bitmapscan or tidscan"


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("cardinalities", '{"a": -1}', "rows must be a number from 0 to 1e100, not -1"),
        ("cardinalities", '{"a": 1e101}', "rows must be a number from 0 to 1e100, not 1e101"),
        ("cardinalities", '{"a": 1e999}', "rows must be a number from 0 to 1e100, not 1e999"),
        ("cardinalities", '{"a": "5"}', "rows must be a number from 0 to 1e100, not 5"),
        ("cardinalities", '{"a": null}', "rows must be a number from 0 to 1e100, not null"),
        ("cardinalities", '{"a": [1]}', "an array is not expected here"),
        ("cardinalities", '{"a": {"b": 1}}', "objects cannot be nested"),
        ("cardinalities", "[1]", "an array is not expected here"),
        ("cardinalities", "5", "an object is expected"),
        ("cardinalities", '{"": 1}', 'key "": a name is expected, found ""'),
        ("cardinalities", '{"a,b": 1}', 'key "a,b": aliases are separated by blanks, found ",b"'),
        ("cardinalities", '{"a | b": 1}', 'key "a | b": a name is expected, found "| b"'),
        ("cardinalities", '{"0:a": 1}', 'key "0:a": levels are numbered from 1'),
        ("cardinalities", '{"\\"a": 1}', 'key ""a": a double quote is not closed'),
        ("cardinalities", '{"a": NaN}', 'Token "NaN" is invalid.'),
        ("cardinalities", '{"a": 1', "The input string ended unexpectedly."),
        ("methods", '{"a b": "hash"}', f"a method must be one of {_METHODS}, not hash"),
        ("methods", '{"a b": 1}', f"a method must be one of {_METHODS}, not 1"),
        ("methods", '{"a": "hashjoin"}', "hashjoin does not fit the number of relations in its key"),
        ("methods", '{"a b": "seqscan"}', "seqscan does not fit the number of relations in its key"),
        ("join_order", "a b", 'a tree starts with a parenthesis, found "a b"'),
        ("join_order", "(a b", 'a join has two sides or more and a closing parenthesis, found ""'),
        ("join_order", "((a b c d)", 'a join has two sides or more and a closing parenthesis, found ""'),
        ("join_order", "((a b c) d", 'a join has two sides or more and a closing parenthesis, found ""'),
        ("join_order", "()", 'a name is expected, found ")"'),
        ("join_order", "(a)", 'a name is expected, found ")"'),
        ("join_order", "(a (b a))", '"a" occurs twice in one tree'),
        ("join_order", "(a b))", 'a tree starts with a parenthesis, found ")"'),
        ("join_order", "0:(a b)", "levels are numbered from 1"),
        ("hidden_indexes", "a b", 'names are separated by commas, found "b"'),
        ("hidden_indexes", "a,,b", 'a name is expected, found ",b"'),
        ("hidden_indexes", 'a, "b', "a double quote is not closed"),
    ],
)
def test_refused_at_set(steered: Session, setting: str, value: str, reason: str) -> None:
    """Each mistake is an ERROR at SET that says what is wrong, and the setting keeps its value."""
    message = rf"^statement failed: invalid value for parameter \"pilotscope\.{setting}\": .* \({re.escape(reason)}\) \[22023\]: "
    with pytest.raises(StatementFailed, match=message):
        steered.execute("SELECT set_config(%s, %s, false)", (f"pilotscope.{setting}", value))
    assert steered.scalar(f"SHOW pilotscope.{setting}") == ""


def test_python_side_says_the_reason(steered: Session) -> None:
    """SteeringError names the setting and the reason, and not the whole value."""
    message = "PostgreSQL did not take pilotscope.cardinalities: rows must be a number from 0 to 1e100, not -1.0"
    with pytest.raises(SteeringError, match=f"^{re.escape(message)}$"), steered.cardinalities({frozenset("a"): -1.0}):
        pass


def test_unknown_aliases_are_a_warning(steered: Session) -> None:
    """A key whose aliases the statement does not have is a WARNING that names the first one; the rest holds."""
    steered.execute("CREATE TABLE t (i int)")
    with steered.cardinalities({frozenset({"a"}): 7, frozenset({"a", "zz"}): 3}):
        assert steered.explain("SELECT * FROM t AS a").rows == 7
    assert steered.take_notices() == [
        'WARNING:  pilotscope.cardinalities: 1 of 2 keys name no relations of this statement, the first is "a zz"'
    ]


def test_results_cannot_be_set(steered: Session) -> None:
    """Users can set neither the library's reports nor settings that it does not have."""
    with pytest.raises(StatementFailed, match=r'parameter "pilotscope\.subplans" cannot be changed'):
        steered.execute("SET pilotscope.subplans = '[]'")


def test_aliases_with_any_characters(steered: Session) -> None:
    """Aliases with blanks, quotes, colons, commas and letters of any script are written and read back."""
    steered.execute("CREATE TABLE t (i int)")
    for alias in ("a b", 'x"y', "2:z", "p|q", "r,s", "größe", "表", "(t)"):
        quoted = '"' + alias.replace('"', '""') + '"'
        sql = f"SELECT * FROM t AS {quoted} JOIN t AS other USING (i)"
        assert frozenset({alias, "other"}) in steered.subplans(sql)
        with steered.cardinalities({frozenset({alias, "other"}): 99}):
            assert steered.explain(sql).rows == 99
    assert steered.take_notices() == []


def test_huge_values(steered: Session) -> None:
    """A megabyte of cardinalities is taken, a megabyte of brackets is refused."""
    steered.execute("CREATE TABLE t (i int)")
    value = json.dumps({f"a{number} b{number}": number for number in range(50_000)})
    assert len(value) > 1_000_000
    steered.execute("SELECT set_config('pilotscope.cardinalities', %s, false)", (value,))
    assert steered.explain("SELECT * FROM t AS a5 JOIN t AS b5 USING (i)").rows == 5
    steered.execute("RESET pilotscope.cardinalities")
    for setting, nested in (("cardinalities", "[" * 1_000_000), ("join_order", "(" * 1_000_000), ("methods", '{"a":' * 200_000)):
        with pytest.raises(StatementFailed, match=r"stack depth|not expected|nested"):
            steered.execute("SELECT set_config(%s, %s, false)", (f"pilotscope.{setting}", nested))
    assert steered.scalar("SELECT 1") == 1


_SEEDS = {
    "cardinalities": ['{"a": 5, "a b": 7.5, "2:x y": 1e3}', '{"\\"a b\\"": 0, "c": 12}', "{}"],
    "methods": ['{"a b": "hashjoin", "a": "indexscan"}', '{"1:b": "seqscan"}'],
    "join_order": ["((a b) c)", "2:(a b) 1:((a b) (c d))", '("a b" c)'],
    "hidden_indexes": ["t_pkey, other", '"x y", public.t_i_idx'],
}
_PIECES = "\"\\{}[]():,| \t\n.0123456789eE+-abct_'$é表\x01\x7f"


def _mutated(value: str, dice: random.Random) -> str:
    for _ in range(dice.randint(1, 6)):
        at = dice.randint(0, len(value))
        kind = dice.randrange(4)
        if kind == 0:
            value = value[:at] + dice.choice(_PIECES) + value[at:]
        elif kind == 1:
            value = value[:at] + value[at + dice.randint(1, 3) :]
        elif kind == 2:
            value = value[:at] + value[at : at + dice.randint(1, 10)] * dice.randint(2, 4) + value[at:]
        else:
            value = value[:at] + dice.choice(_PIECES) + value[at + 1 :]
    return value


def _refused(session: Session, setting: str, value: str) -> bool:
    """Tell whether PostgreSQL refuses the value as such; any other failure fails the test."""
    try:
        session.execute("SELECT set_config(%s, %s, false)", (f"pilotscope.{setting}", value))
    except StatementFailed as error:
        if error.sqlstate != "22023":
            raise
        return True
    return False


def test_mutated_values_never_crash(steered: Session) -> None:
    """10,000 mutated values: each is taken or refused as an invalid value, and what is taken plans and runs."""
    steered.execute(
        "CREATE TABLE t (i int PRIMARY KEY, j int); CREATE INDEX ON t (j); INSERT INTO t SELECT g, g FROM generate_series(1, 9) AS g"
    )
    sql = (
        "SELECT count(*) FROM t AS a JOIN t AS b ON a.i = b.j JOIN t AS c ON c.i = b.i "
        "WHERE a.i IN (SELECT max(x.i) FROM t AS x JOIN t AS y USING (i))"
    )
    expected = steered.execute(sql)
    dice = chance(1)
    backend = steered.backend_pid
    taken = 0
    steered.execute("SET client_min_messages = error; SET pilotscope.enumerate = on; SET pilotscope.enumerate_sql = on")
    for number in range(10_000):
        setting = dice.choice(sorted(_SEEDS))
        value = _mutated(dice.choice(_SEEDS[setting]), dice)
        if _refused(steered, setting, value):
            continue
        taken += 1
        if number % 20 == 0:
            assert steered.execute(sql) == expected, value
    assert (steered.backend_pid, steered.closed) == (backend, False)
    assert taken > 500
