"""Steering from Python: settings for the length of a block, errors with a remedy, and what a plan made of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pilotscope.errors import MissingExtension, StatementFailed, SteeringError
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import LeveledSubplan, has_extension
from pytest_pilotscope.postgres.subplans import alias_text, key_text
from tests.conftest import LibraryOf

_SQL = "SELECT count(*) FROM t AS a, r AS b, t AS c WHERE a.id = b.id AND b.k = c.k AND a.k < 3"
_ALL = "pilotscope.cardinalities", "pilotscope.join_order", "pilotscope.methods", "pilotscope.hidden_indexes"


@pytest.fixture
def stock(newest_scratch: Session) -> Session:
    """Open a session without the library, with two tables."""
    newest_scratch.execute("CREATE TABLE t AS SELECT g AS id, g % 10 AS k FROM generate_series(1, 1000) AS g")
    newest_scratch.execute("CREATE TABLE r AS TABLE t; CREATE UNIQUE INDEX t_id ON t (id); ANALYZE")
    return newest_scratch


@pytest.fixture
def steered(stock: Session, newest_server: EmbeddedServer, library_of: LibraryOf) -> Session:
    """Open the same session with the library."""
    stock.execute(f"LOAD '{library_of(newest_server)}'")
    return stock


def _settings(session: Session) -> list[str]:
    return [str(session.scalar(f"SHOW {name}")) for name in _ALL]


def test_without_the_library_nothing_is_steered(stock: Session) -> None:
    """Cardinalities, hints, hidden indexes, subplans and clocks need the library; a setting of the same name is not taken for it."""
    stock.execute("SET pilotscope.subplans = 'something'")
    assert not has_extension(stock)
    message = (
        f"{stock.dsn} cannot be steered: the pilotscope library is not loaded; use the embedded server (--server embedded), "
        "or build the library on the server's machine and load it with session_preload_libraries (see docs/steering.md)"
    )
    for block in (stock.cardinalities({frozenset("a"): 1}), stock.hints(join_order="(a b)"), stock.hidden_indexes(["t_id"])):
        with pytest.raises(MissingExtension, match=f"^{re.escape(message)}$"), block:
            pass
    for ask in (stock.timed, stock.subplans):
        with pytest.raises(MissingExtension, match=f"^{re.escape(message)}$"):
            ask("SELECT 1")


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
        with steered.hints(methods=methods):
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


def test_library_sources_are_packaged() -> None:
    """The C sources lie beside the code that builds them."""
    from pytest_pilotscope.postgres.extension import build

    assert {"base_rows.c", "join_orders.c", "join_rows.c", "report.c", "settings.c", "state.c", "pilotscope.h"} <= {
        path.name for path in Path(build.__file__).parent.glob("*.[ch]")
    }


def test_a_refused_hint_leaves_the_first_one_nowhere(steered: Session) -> None:
    """The join order was set before the methods were refused; it is put back."""
    before = _settings(steered)
    with (
        pytest.raises(SteeringError, match=r"^PostgreSQL did not take pilotscope\.methods: "),
        steered.hints(join_order="((a b) c)", methods={"a b": "guessing"}),
    ):
        pass
    assert _settings(steered) == before
