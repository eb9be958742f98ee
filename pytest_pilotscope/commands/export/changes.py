"""The indexes and settings of a run that made queries faster beyond noise, as statements with their reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from pytest_pilotscope.commands.export.outcomes import Won, is_plain, listed, times_as_fast
from pytest_pilotscope.commands.output import size
from pytest_pilotscope.errors import counted, named
from pytest_pilotscope.queries.predicates import quote_identifier, quote_text
from pytest_pilotscope.record.results import BuiltIndex, ChangedSetting, Preparation

_CREATE = re.compile(r"^CREATE (UNIQUE )?INDEX ")
_ONLY = " ON ONLY "
"""The definition of an index on a partitioned table has this, and such an index cannot be built concurrently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A statement with its reasons and the statement that undoes it; without a statement, the reasons why nothing is exported."""

    reasons: tuple[str, ...]
    statement: str = ""
    undo: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The role or the database, or both, for which settings of sessions are set."""

    database: str | None
    role: str | None

    @property
    def sql(self) -> str:
        """The beginning of the statement."""
        if self.role is None:
            return f"ALTER DATABASE {quote_identifier(self.database or '')}"
        within = f" IN DATABASE {quote_identifier(self.database)}" if self.database is not None else ""
        return f"ALTER ROLE {quote_identifier(self.role)}{within}"


def index_changes(won: Won, preparation: Preparation) -> Iterator[Change]:
    """Yield a change for each index, and one that names the indexes that the run had dropped."""
    for index in preparation.indexes:
        yield _index_change(won, index)
    if preparation.dropped:
        dropped = "; ".join(preparation.dropped)
        yield Change(reasons=(f"measured without these indexes, but nothing shows that dropping them made a query faster: {dropped}",))


def _index_change(won: Won, index: BuiltIndex) -> Change:
    label = f"{index.name} on {index.schema}.{index.table}"
    if not (_CREATE.match(index.definition) and is_plain(index.definition)):
        return Change(reasons=(f"not exported: {label}: its definition is no CREATE INDEX: {index.definition}",))
    used = [query_id for query_id in won.ratios if _uses(won, query_id, index.name)]
    faster, slower = won.queries("win", used), won.queries("loss", used)
    if not faster:
        partitioned = "; a plan names the indexes of partitions instead" if _ONLY in index.definition and not used else ""
        lost = f"; slower with it: {listed(slower)}" if slower else ""
        return Change(reasons=(f"not exported: {label}: in the plan of no query that is faster beyond noise{partitioned}{lost}",))
    total = won.total(used)
    summary = f"the {counted(len(used), 'query', 'queries')} with it in the plan: {times_as_fast(total)} in total"
    details = [f"faster: {listed(faster)}", *([f"slower: {listed(slower)}"] if slower else [])]
    if slower and total.low <= 1:
        return Change(reasons=(f"not exported: {label}: {summary}, which is not faster beyond noise", *details))
    reasons = (f"{label}: {summary}", *details, f"space: {size(index.size_bytes)}", _write_cost(index))
    undo = f"DROP INDEX CONCURRENTLY IF EXISTS {quote_identifier(index.schema)}.{quote_identifier(index.name)};"
    if _ONLY in index.definition:
        reasons += ("the table is partitioned: this locks it for writing; or build each partition's index concurrently, and attach it",)
        return Change(reasons=reasons, statement=f"{index.definition.replace(_ONLY, ' ON ', 1)};", undo=undo.replace(" CONCURRENTLY", ""))
    return Change(reasons=reasons, statement=f"{_CREATE.sub(_concurrently, index.definition)};", undo=undo)


def _concurrently(found: re.Match[str]) -> str:
    return f"CREATE {found[1] or ''}INDEX CONCURRENTLY "


def _uses(won: Won, query_id: str, index: str) -> bool:
    report = won.reports.get(query_id)
    return report is not None and report.plan is not None and any(node.index == index for _, node in report.plan.nodes())


def _write_cost(index: BuiltIndex) -> str:
    rows = index.inserted_rows
    if not rows or not index.insert_ms or len(index.insert_ms) != len(index.insert_with_index_ms):
        return "cost of writing: not measured"
    more = sorted(
        1000 * (with_index - without) / rows for without, with_index in zip(index.insert_ms, index.insert_with_index_ms, strict=True)
    )
    wal = f", and {index.wal_bytes / rows:.0f} bytes more WAL" if index.wal_bytes is not None else ""
    return (
        f"cost of writing: {median(more):+.2f} µs for each inserted row [{more[0]:+.2f}, {more[-1]:+.2f}; the smallest and the largest of "
        f"{counted(len(more), 'round')}], which takes {1000 * median(index.insert_ms) / rows:.2f} µs without any index{wal}; "
        f"{rows} rows inserted into a table of their own"
    )


def setting_changes(won: Won, settings: Sequence[ChangedSetting], scope: Scope) -> Iterator[Change]:
    """Yield a change for each setting if the workload is faster beyond noise in total, because settings were measured together."""
    if shared := [setting.name for setting in settings if setting.baseline_too]:
        yield Change(reasons=(f"not exported: {', '.join(shared)}: the baseline had the same value, so it was not measured",))
    own = [setting for setting in settings if not setting.baseline_too]
    if not own:
        return
    speedup = won.workload() if won.ratios else None
    together = f"{counted(len(own), 'setting')} measured together: the workload is {times_as_fast(speedup)} in total" if speedup else ""
    if speedup is None or speedup.low <= 1:
        why = f"{together}, which is not faster beyond noise" if together else "no query was measured on both sides"
        yield Change(reasons=(f"not exported: {', '.join(setting.name for setting in own)}: {why}",))
        return
    slower = won.queries("loss")
    yield Change(reasons=(together, *([f"slower: {listed(slower)}"] if slower else [])))
    for setting in own:
        yield _setting_change(setting, scope, times_as_fast(speedup))
    if whole := [setting for setting in own if setting.level != "session"]:
        restarted = [setting.name for setting in whole if setting.level == "restart"]
        restart = (f"restart the server for {named(restarted, len(restarted))}",) if restarted else ()
        yield Change(reasons=restart, statement="SELECT pg_reload_conf();", undo="SELECT pg_reload_conf();")


def _setting_change(setting: ChangedSetting, scope: Scope, speedup: str) -> Change:
    start = scope.sql if setting.level == "session" else "ALTER SYSTEM"
    name = quote_identifier(setting.name)
    before = "the default" if setting.before is None else setting.before
    return Change(
        reasons=(f"{setting.name}: {before} before; together with the others {speedup}",),
        statement=f"{start} SET {name} = {quote_text(setting.value)};",
        undo=f"{start} RESET {name};",
    )
