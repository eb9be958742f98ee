"""Describe, list, create, drop and measure indexes; ask for the cost of a plan and the indexes in it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.queries.predicates import quote_identifier
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

PREFIX = "pilotscope_"
"""Prefix of the name of every index created here."""

TOO_LONG = "54000"
"""The SQLSTATE of PostgreSQL's refusal to index a value that does not fit into a third of a page."""

_NAME_LIMIT_BYTES = 63
_TOTAL_COST = re.compile(r"^ +Total Cost: (.+)$", re.MULTILINE)
_INDEX_NAME = re.compile(r'^ +Index Name: (".+")$', re.MULTILINE)
_EXISTING = """
    SELECT i.indexrelid::regclass::text, c.relname, x.relname, pg_get_indexdef(i.indexrelid),
           EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid) OR i.indisunique,
           i.indpred IS NULL AND i.indexprs IS NULL AND m.amname = 'btree' AND i.indisvalid,
           (SELECT array_agg(a.attname::text ORDER BY p.n) FROM unnest(i.indkey) WITH ORDINALITY AS p(attnum, n)
            JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = p.attnum WHERE p.n <= i.indnkeyatts),
           coalesce((SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree(i.indexrelid)), pg_relation_size(i.indexrelid))::bigint,
           n.nspname
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indrelid
    JOIN pg_class AS x ON x.oid = i.indexrelid
    JOIN pg_am AS m ON m.oid = x.relam
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
      AND pg_table_is_visible(c.oid) AND NOT EXISTS (SELECT FROM pg_inherits AS h WHERE h.inhrelid = i.indexrelid)
    ORDER BY c.relname, x.relname
"""


@dataclass(frozen=True, slots=True, order=True)
class Index:
    """A btree index by what it is on; the order of the columns matters."""

    table: str
    columns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.table}({', '.join(self.columns)})"

    @property
    def name(self) -> str:
        """The name of the index when it is built: letters and digits only, within PostgreSQL's 63 bytes, different for every index."""
        digest = hashlib.sha256(repr((self.table, self.columns)).encode()).hexdigest()[:8]
        readable = re.sub(r"[^a-z0-9_]", "_", f"{PREFIX}{self.table}_{'_'.join(self.columns)}".lower())
        return f"{readable[: _NAME_LIMIT_BYTES - 9]}_{digest}"

    @property
    def target(self) -> str:
        """`"table" ("column", ...)`, as it stands after ON."""
        return f"{quote_identifier(self.table)} ({', '.join(map(quote_identifier, self.columns))})"

    @property
    def statement(self) -> str:
        """The statement that makes it, under a name of PostgreSQL's choice."""
        return f"CREATE INDEX ON {self.target}"

    def is_prefix_of(self, other: Index) -> bool:
        """Tell whether `other` starts with all of these columns, in this order, and so serves every query that this one serves."""
        return self.table == other.table and other.columns[: len(self.columns)] == self.columns


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingIndex:
    """
    An index that is built. `qualified` is its quoted name, with the schema where it is needed; `name` is the one in a plan.

    `constraint` marks primary keys, unique indexes and exclusion constraints, which are never dropped. `index` is None unless it is a valid
    btree on columns, without expressions or a predicate.
    """

    qualified: str
    name: str
    table: str
    definition: str
    constraint: bool
    index: Index | None
    size_bytes: int
    schema: str


def existing_indexes(session: Session) -> tuple[ExistingIndex, ...]:
    """List the indexes of all tables that a query finds without a schema name; those of partitions go with their parent's."""
    return tuple(
        ExistingIndex(
            qualified=qualified,
            name=name,
            table=table,
            definition=definition,
            constraint=constraint,
            index=Index(table, tuple(columns)) if plain else None,
            size_bytes=size_bytes,
            schema=schema,
        )
        for qualified, table, name, definition, constraint, plain, columns, size_bytes, schema in session.execute(_EXISTING)
    )


def create_index(session: Session, index: Index) -> None:
    """Build an index under its own name; raise StatementFailed when it exists, and with `TOO_LONG` when a value is too long for a btree."""
    session.execute(f"CREATE INDEX {quote_identifier(index.name)} ON {index.target}")


def match_indexes(source: Session, target: Session) -> bool:
    """
    Give the tables of `target`, a copy of the same data, the indexes of `source`; tell whether anything was changed.

    ANALYZE reads the tables that got an index, for the statistics of its expressions.
    """
    wanted, found = ({index.definition: index for index in existing_indexes(session)} for session in (source, target))
    for definition in found.keys() - wanted.keys():
        drop_index(target, found[definition].qualified)
    for definition in wanted.keys() - found.keys():
        target.execute(definition)
    for table in sorted({wanted[definition].table for definition in wanted.keys() - found.keys()}):
        target.execute(f"ANALYZE {quote_identifier(table)}")
    return wanted.keys() != found.keys()


def has_fixed_length(session: Session, index: Index) -> bool:
    """Tell whether the values of each column are all equally long, so that none can be too long."""
    statement = "SELECT bool_and(attlen > 0) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = ANY (%s)"
    return bool(session.scalar(statement, (quote_identifier(index.table), list(index.columns))))


def is_partitioned(session: Session, table: str) -> bool:
    """Tell whether the table is partitioned: an index on it is one on each partition. Plans name those, and it has no size of its own."""
    return bool(session.scalar("SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass", (quote_identifier(table),)))


def drop_index(session: Session, qualified: str) -> None:
    """Drop an index by its quoted name, as `ExistingIndex.qualified` has it."""
    session.execute(f"DROP INDEX {qualified}")


def index_size_bytes(session: Session, index: Index) -> int:
    """Return the size of an index that `create_index` made."""
    return int(session.scalar("SELECT pg_relation_size(%s::regclass)", (quote_identifier(index.name),)))


class HiddenIndexes:
    """
    The costs in one session whose planner does not see some of the indexes that `create_index` built.

    Raises `MissingExtension` where the pilotscope library is not loaded. Closing it shows all indexes again.
    """

    def __init__(self, session: Session) -> None:
        if not has_extension(session):
            raise MissingExtension(f"indexes cannot be hidden in {session.dsn}: the pilotscope library is not loaded; see docs/steering.md")
        self._session = session
        self._hidden: tuple[str, ...] | None = None

    def cost(self, sql: str, indexes: frozenset[Index], built: Mapping[Index, str]) -> tuple[float, frozenset[Index]]:
        """Return the planner's cost of `sql` when it sees only `indexes` of those `built` (with names), and those that are in the plan."""
        shown = {built[index]: index for index in indexes if index in built}
        hidden = tuple(name for name in built.values() if name not in shown)
        before = "" if hidden == self._hidden else f"SET pilotscope.hidden_indexes = '{', '.join(hidden)}'; "
        cost, names = explain_cost(self._session, sql, before=before)
        self._hidden = hidden
        return cost, frozenset(shown[name] for name in names if name in shown)

    def close(self) -> None:
        """Show all indexes again."""
        if not self._session.closed:
            self._session.execute("RESET pilotscope.hidden_indexes")


def explain_cost(session: Session, sql: str, *, before: str = "") -> tuple[float, frozenset[str]]:
    """
    Return the planner's total cost of `sql`, in its own units, and the names of the indexes in the plan.

    YAML has each property on a line of its own and texts as JSON; reading all of the plan takes twice as long.
    `before` is SQL that is sent along and run first, ending in a semicolon. The statement is planned anew each time: a prepared EXPLAIN
    keeps its plan and does not see hypothetical indexes.
    """
    ((plan,),) = session.execute(f"{before}EXPLAIN (FORMAT YAML) {single(sql)}")
    return float(next(_TOTAL_COST.finditer(plan))[1]), frozenset(map(json.loads, _INDEX_NAME.findall(plan)))
