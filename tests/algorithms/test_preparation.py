"""The record says what an algorithm has prepared: it is found in the database, so no algorithm has to tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pytest_pilotscope.algorithms.knob.trial_server import prepared_database
from pytest_pilotscope.measurement.preparation import preparation_of
from pytest_pilotscope.postgres.indexes import Index, create_index
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.record.results import ChangedSetting, Preparation

BY_AMOUNT = "CREATE INDEX orders_by_amount ON public.orders USING btree (amount)"


def found(database: Database, prepared: Database) -> Preparation:
    """Compare two databases as a run does."""
    with database.measuring_session() as session, prepared.measuring_session() as its_session:
        return preparation_of("mine", session, its_session, own=prepared, database=database)


def test_indexes_of_a_copy_have_their_size_and_their_cost(shop: Database) -> None:
    """New and dropped indexes are told by PostgreSQL's own definitions; only what a btree over columns costs is measured."""
    with shop.copy() as copy:
        with copy.session() as session:
            create_index(session, Index("orders", ("customer",)))
            session.execute("CREATE INDEX half ON customers (city) WHERE city < 50")
            session.execute("DROP INDEX orders_by_amount")
        preparation = found(shop, copy)
        with copy.session() as session:
            assert session.scalar("SELECT count(*) FROM pg_class WHERE relname LIKE 'pilotscope_write_cost%'") == 0
    by_name = {index.name: index for index in preparation.indexes}
    ours = Index("orders", ("customer",)).name
    assert set(by_name) == {ours, "half"}
    assert by_name[ours].definition == f"CREATE INDEX {ours} ON public.orders USING btree (customer)"
    assert (by_name[ours].schema, by_name[ours].table) == ("public", "orders")
    assert by_name[ours].size_bytes >= 8192
    assert by_name[ours].inserted_rows == 1000
    assert len(by_name[ours].insert_ms) == len(by_name[ours].insert_with_index_ms) == 5
    assert (by_name["half"].inserted_rows, by_name["half"].wal_bytes) == (None, None)
    assert (preparation.dropped, preparation.settings) == ((BY_AMOUNT,), ())


def test_settings_have_their_level_and_their_old_value(shop: Database) -> None:
    """Settings of sessions are told as PostgreSQL shows them, with a unit."""
    with prepared_database(shop, {"work_mem": "65536", "enable_hashjoin": "off"}) as prepared:
        assert found(shop, prepared) == Preparation(
            side="mine",
            settings=(
                ChangedSetting(name="enable_hashjoin", value="off", level="session"),
                ChangedSetting(name="work_mem", value="64MB", level="session"),
            ),
        )
    changed: Mapping[str, str] = {**shop.report.settings, "work_mem": "8MB"}
    with prepared_database(shop, {"work_mem": "65536"}) as prepared:
        (setting,) = found(replace(shop, report=replace(shop.report, settings=changed)), prepared).settings
    assert setting == ChangedSetting(name="work_mem", value="64MB", level="session", before="8MB")


def test_nothing_prepared_is_recorded_as_nothing(shop: Database) -> None:
    """An algorithm that changed nothing has an empty line, so that a reader can tell it from an older record."""
    assert found(shop, shop) == Preparation(side="mine")
