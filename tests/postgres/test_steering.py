"""Steering from Python: settings for the length of a block, errors with a remedy, and what a plan made of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pilotscope.errors import MissingExtension, StatementFailed, UnsupportedQuery
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.explain import Plan
from pytest_pilotscope.postgres.extension.build import build_library
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import LeveledSubplan, has_extension, verify
from pytest_pilotscope.postgres.subplans import alias_text, key_text

_SQL = "SELECT count(*) FROM t AS a, r AS b, t AS c WHERE a.id = b.id AND b.k = c.k AND a.k < 3"
_ALL = "pilotscope.cardinalities", "pilotscope.join_order", "pilotscope.methods", "pilotscope.hidden_indexes"


@pytest.fixture
def stock(newest_scratch: Session) -> Session:
    """A session without the library, and two tables."""
    newest_scratch.execute("CREATE TABLE t AS SELECT g AS id, g % 10 AS k FROM generate_series(1, 1000) AS g")
    newest_scratch.execute("CREATE TABLE r AS TABLE t; CREATE UNIQUE INDEX t_id ON t (id); ANALYZE")
    return newest_scratch


@pytest.fixture
def steered(stock: Session, newest_server: EmbeddedServer) -> Session:
    """The same session with the library."""
    stock.execute(f"LOAD '{build_library(newest_server.binaries.bindir)}'")
    return stock


def _settings(session: Session) -> list[str]:
    return [str(session.scalar(f"SHOW {name}")) for name in _ALL]


def test_without_the_library_estimates_are_asked_for(stock: Session, newest_server: EmbeddedServer) -> None:
    """Stock PostgreSQL gives the same subplans and rows, one EXPLAIN each, as the library does at once."""
    asked = stock.subplans(_SQL)
    assert sorted(" ".join(sorted(key)) for key in asked) == ["a", "a b", "a b c", "b", "b c", "c"]
    stock.execute(f"LOAD '{build_library(newest_server.binaries.bindir)}'")
    assert has_extension(stock)
    assert stock.subplans(_SQL) == asked


def test_without_the_library_a_new_table_is_found(stock: Session) -> None:
    """The schema is read again when a query has a table that was not there."""
    stock.subplans(_SQL)
    stock.execute("CREATE TABLE later (id int)")
    assert set(stock.subplans("SELECT * FROM later, t WHERE later.id = t.id")) == {
        frozenset({"later"}),
        frozenset({"t"}),
        frozenset({"later", "t"}),
    }


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("SELECT * FROM t AS a WHERE a.id IN (SELECT max(k) FROM r GROUP BY id)", "select"),
        ("SELECT * FROM t AS a WHERE EXISTS (SELECT 1 FROM r AS b WHERE b.k = a.k)", "exists"),
        ("SELECT * FROM t AS a FULL JOIN r AS b ON a.k = b.k", "full"),
    ],
)
def test_without_the_library_other_statements_are_refused(stock: Session, sql: str, what: str) -> None:
    """What cannot be asked for one subset at a time says so."""
    expected = (
        f"this query has no subplans to estimate or count: {what!r} has no place in a plain conjunction over tables, so that only "
        f"PostgreSQL knows its meaning; query: {sql}"
    )
    with pytest.raises(UnsupportedQuery, match=f"^{re.escape(expected)}$"):
        stock.subplans(sql)


def test_without_the_library_nothing_is_steered(stock: Session) -> None:
    """Cardinalities, hints, hidden indexes and clocks need the library; a setting of the same name is not taken for it."""
    stock.execute("SET pilotscope.subplans = 'something'")
    assert not has_extension(stock)
    message = (
        f"{stock.dsn} cannot be steered: the pilotscope library is not loaded; use the embedded server (--server embedded), "
        "or build the library on the server's machine and load it with session_preload_libraries (see docs/steering.md)"
    )
    for block in (stock.cardinalities({frozenset("a"): 1}), stock.hints(join_order="(a b)"), stock.hidden_indexes(["t_id"])):
        with pytest.raises(MissingExtension, match=f"^{re.escape(message)}$"), block:
            pass
    with pytest.raises(MissingExtension, match=f"^{re.escape(message)}$"):
        stock.timed("SELECT 1")


def test_blocks_nest_and_put_back(steered: Session) -> None:
    """On leaving a block, also by an exception, what the outer block had set holds again."""
    with steered.cardinalities({frozenset("a"): 5}), steered.hints(join_order="(a b)", methods={"a b": "hashjoin"}):
        outer = _settings(steered)
        with pytest.raises(StatementFailed, match="division by zero"), steered.cardinalities({frozenset("a"): 6}):
            steered.execute("SELECT 1 / 0")
        assert _settings(steered) == outer
        with steered.cardinalities({frozenset("a"): 7}), steered.hidden_indexes(["t_id"]):
            assert _settings(steered) == ['{"a": 7.0}', *outer[1:3], "t_id"]
        assert _settings(steered) == outer == ['{"a": 5.0}', "(a b)", '{"a b": "hashjoin"}', ""]
    assert _settings(steered) == ["", "", "", ""]


def test_failing_statement_in_a_transaction(steered: Session) -> None:
    """A block that ends inside a failed transaction leaves nothing behind, and its exception is the statement's."""
    with pytest.raises(StatementFailed, match="division by zero"), steered.rolled_back(), steered.cardinalities({frozenset("a"): 5}):
        steered.execute("SELECT 1 / 0")
    assert _settings(steered) == ["", "", "", ""]


def test_failing_statement_leaves_enumeration_off(steered: Session) -> None:
    """Asking for the subplans of a statement with a mistake fails as the statement does, and switches nothing on."""
    with pytest.raises(StatementFailed, match='relation "nowhere" does not exist'):
        steered.subplans("SELECT * FROM nowhere")
    assert steered.scalar("SHOW pilotscope.enumerate") == "off"
    steered.subplans(_SQL)
    assert steered.scalar("SHOW pilotscope.enumerate") == "off"


@pytest.mark.parametrize("sql", [_SQL + ";", _SQL + " -- and a comment", f"  {_SQL} ;\n", "/* first */ " + _SQL])
def test_statements_as_people_write_them(steered: Session, sql: str) -> None:
    """A semicolon, blanks and comments around a statement do not matter."""
    assert len(steered.subplans(sql)) == 6


def test_injected_rows_are_read_back(steered: Session) -> None:
    """Within the block the subplans have the rows injected, each rounded to a whole number of at least one."""
    with steered.cardinalities({frozenset("a"): 0, frozenset({"a", "b"}): 12.6}):
        found = steered.subplans(_SQL)
    assert (found[frozenset("a")], found[frozenset({"a", "b"})]) == (1, 13)


def test_methods_by_sets(steered: Session) -> None:
    """Methods can be given by sets of aliases as well as by text."""
    for methods in ({"a b": "mergejoin"}, {frozenset({"a", "b"}): "mergejoin"}):
        with steered.hints(methods=methods):  # type: ignore[arg-type]  # the session's signature names text only
            plan = steered.explain("SELECT * FROM t AS a JOIN r AS b ON a.id = b.id")
        assert plan.node_type == "Merge Join"


def test_leveled_subplans_are_sets_of_their_level() -> None:
    """A leveled subplan is a set of aliases that equals only one of the same level."""
    key = LeveledSubplan(2, ["x", "y"])
    assert "x" in key
    assert len(key) == 2
    assert key == LeveledSubplan(2, {"y", "x"})
    assert key != LeveledSubplan(1, {"x", "y"})
    assert key != frozenset({"x", "y"})
    assert frozenset({"x", "y"}) != key
    assert len({key, frozenset({"x", "y"}), LeveledSubplan(2, "xy")}) == 2
    assert repr(key) == "LeveledSubplan(2, ['x', 'y'])"
    assert (key_text(key), key_text(frozenset({"b", "a"}))) == ("2:x y", "a b")


@pytest.mark.parametrize(("alias", "text"), [("a", "a"), ("größe", "größe"), ("a b", '"a b"'), ('x"y', '"x""y"'), ("2:x", '"2:x"')])
def test_aliases_are_quoted_when_needed(alias: str, text: str) -> None:
    """Only aliases with characters of the notation are put in double quotes."""
    assert alias_text(alias) == text


def _scan(alias: str, rows: float, **fields: object) -> Plan:
    return Plan(node_type="Seq Scan", relation="t", alias=alias, rows=rows, **fields)  # type: ignore[arg-type]  # fields of Plan


def _join(rows: float, outer: Plan, inner: Plan, kind: str = "Hash Join", **fields: object) -> Plan:
    from dataclasses import replace

    sides = (replace(outer, relationship="Outer"), replace(inner, relationship="Inner"))
    return Plan(node_type=kind, join_type="Inner", rows=rows, children=sides, **fields)  # type: ignore[arg-type]  # fields of Plan


_INJECTED = {frozenset("a"): 10.4, frozenset("b"): 20.0, frozenset("ab"): 0.0}


def test_verify_counts_nodes_that_carry_their_value() -> None:
    """The ratio is over the nodes with an injected value, rounded and clamped as the planner does."""
    adherence = verify(_join(1, _scan("a", 10), _scan("b", 20)), _INJECTED)
    assert (adherence.steered_ratio, adherence.compared, adherence.reasons, adherence.explained) == (1.0, 3, (), ())


def test_verify_names_each_node_that_does_not() -> None:
    """Every other node is named with what it should have had and what it has."""
    adherence = verify(_join(7, _scan("a", 10), _scan("b", 21)), _INJECTED)
    assert adherence.steered_ratio == pytest.approx(1 / 3)
    assert adherence.reasons == ("Seq Scan b: injected 20 rows, the plan has 21", "Hash Join a b: injected 1 rows, the plan has 7")


def test_verify_ignores_what_was_not_injected() -> None:
    """Nodes without an injected value do not count, and with none at all the plan is steered as far as it was asked to be."""
    assert verify(_scan("z", 5), _INJECTED).steered_ratio == 1.0
    assert verify(_scan("z", 5), _INJECTED).compared == 0


def test_verify_knows_parameterized_scans() -> None:
    """The inner side of a nested loop has rows per execution when a condition of it refers to the other side, not otherwise."""
    referring = _scan("b", 2, conditions={"Index Cond": "(k = a.id)"})
    plan = _join(1, _scan("a", 10), referring, "Nested Loop")
    assert verify(plan, _INJECTED).reasons == ()
    assert verify(plan, _INJECTED).explained == ("Seq Scan b: rows are per execution of the inner side of a nested loop",)
    quoting = _scan("b", 2, conditions={"Filter": "(v = 'a.id')"})
    assert verify(_join(1, _scan("a", 10), quoting), _INJECTED).reasons == ("Seq Scan b: injected 20 rows, the plan has 2",)
    too_many = _scan("b", 21, conditions={"Index Cond": "(k = a.id)"})
    assert verify(_join(1, _scan("a", 10), too_many, "Nested Loop"), _INJECTED).reasons == (
        "Seq Scan b: injected 20 rows, the plan has 21",
    )


def test_verify_knows_processes_that_share_rows() -> None:
    """Below a Gather of 2 workers each process has 1 / 2.4 of the rows, above it there are all of them."""
    shared = Plan(node_type="Gather", rows=20, workers=2, children=(_scan("b", 8, relationship="Outer", parallel_aware=True),))
    assert verify(shared, _INJECTED).steered_ratio == 1.0
    assert verify(_scan("b", 8), _INJECTED).steered_ratio == 0.0


def test_verify_knows_partitions() -> None:
    """The partitions of a table have a share of its rows, the node above them has all."""
    members = tuple(_scan(f"b_{number}", 10, relationship="Member") for number in (1, 2))
    adherence = verify(Plan(node_type="Append", rows=20, children=members), _INJECTED)
    assert (adherence.steered_ratio, adherence.compared, len(adherence.explained)) == (1.0, 1, 2)


def test_library_sources_are_packaged() -> None:
    """The C sources lie beside the code that builds them."""
    from pytest_pilotscope.postgres.extension import build

    assert {path.name for path in Path(build.__file__).parent.glob("*.[ch]")} == {
        *("base.c", "hints.c", "joins.c", "report.c", "settings.c", "state.c", "pilotscope.h")
    }
