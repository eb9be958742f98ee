"""Facts of the catalog about the functions, aggregates, operators and tables of a query tree."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

# Stable functions are the same within one statement; these are others in the next one: the clock, the transaction, the backend, files.
_FUNCTIONS = """
    SELECT p.oid, p.proname, p.proretset,
        CASE WHEN p.provolatile = 'v' THEN true WHEN p.provolatile = 'i' OR p.prokind <> 'f' THEN false
        ELSE p.pronargs = 0 OR p.oid >= 16384 OR p.proname ~ '^(pg|txid|inet)_' OR p.proname = 'age' AND p.pronargs = 1 END,
        p.prokind = 'a' AND coalesce(a.aggkind = 'n' AND a.aggsortop = 0 AND p.prorettype::regtype::text !~ 'range'
            AND (p.oid >= 16384 OR t.typcategory NOT IN ('N', 'B', 'V', 'T')), true),
        p.prokind = 'a' AND a.aggsortop = 0 AND a.aggkind = 'n' AND p.prorettype IN (700, 701)
            AND p.proargtypes::oid[] && ARRAY[700, 701]::oid[],
        p.prokind = 'a' AND coalesce(a.aggsortop <> 0 OR a.aggkind = 'o', false)
    FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_type AS t ON t.oid = p.prorettype
    LEFT JOIN pg_catalog.pg_aggregate AS a ON a.aggfnoid = p.oid
    WHERE p.oid = ANY(%s::oid[])
"""
_KEYS = """
    SELECT i.indrelid, (i.indkey::int2[])[0:i.indnkeyatts - 1] FROM pg_catalog.pg_index AS i
    WHERE i.indrelid = ANY(%s::oid[]) AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = i.indrelid
            AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND (NOT a.attnotnull OR EXISTS (
                SELECT FROM pg_catalog.pg_constraint AS n
                WHERE n.conrelid = a.attrelid AND n.contype = 'n' AND n.conkey = ARRAY[a.attnum] AND NOT n.convalidated)))
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = i.indrelid AND c.relkind = 'r' AND c.relhassubclass)
"""
# Btree's support function 4 says where equal values are the same bytes. Numbers are left out: they are compared by value.
_LOOSE_TYPES = """
    SELECT t.oid FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_range AS r ON r.rngtypid = t.oid
    JOIN pg_catalog.pg_opclass AS c ON c.opcdefault AND c.opcmethod = (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'btree')
        AND c.opcintype = coalesce(r.rngsubtype, nullif(CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE t.typbasetype END, 0), t.oid)
    WHERE t.oid = ANY(%s::oid[]) AND c.opcintype NOT IN (700, 701, 1700) AND NOT EXISTS (SELECT FROM pg_catalog.pg_amproc AS p
        WHERE p.amprocfamily = c.opcfamily AND p.amproclefttype = c.opcintype AND p.amprocrighttype = c.opcintype AND p.amprocnum = 4)
"""
_LOOSE_COLLATIONS = "SELECT oid FROM pg_catalog.pg_collation WHERE oid = ANY(%s::oid[]) AND NOT collisdeterministic"
_EQUALITIES = "SELECT oid FROM pg_catalog.pg_operator WHERE oid = ANY(%s::oid[]) AND oprname = '=' AND (oprcanmerge OR oprcanhash)"


class Function(NamedTuple):
    """
    One function or aggregate. It `varies` if two executions of a statement may get other values.

    An aggregate that is `ordered` depends on the order of its rows; one that is `inexact` does so in the last digits. One that `chooses`
    returns one of its arguments, so one of several equal ones.
    """

    name: str
    returns_set: bool
    varies: bool
    ordered: bool
    inexact: bool
    chooses: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """
    The functions by OID, the unique keys of tables (positions of columns that are never NULL), and the operators of equality.

    Equal values of `loose` types and collations may be written differently, such as the intervals `1 day` and `24:00:00`.
    """

    functions: dict[int, Function] = field(default_factory=dict)
    keys: dict[int, list[frozenset[int]]] = field(default_factory=dict)
    equalities: frozenset[int] = frozenset()
    loose: frozenset[int] = frozenset()


def read_facts(
    session: Session,
    *,
    functions: Collection[int],
    tables: Collection[int],
    operators: Collection[int],
    types: Collection[int],
    collations: Collection[int],
) -> Facts:
    """Ask the catalog about these OIDs."""
    keys: dict[int, list[frozenset[int]]] = {}
    for table, columns in session.execute(_KEYS, (list(tables),)):
        keys.setdefault(table, []).append(frozenset(columns))
    return Facts(
        functions={oid: Function(*rest) for oid, *rest in session.execute(_FUNCTIONS, (list(functions),))},
        keys=keys,
        equalities=frozenset(oid for (oid,) in session.execute(_EQUALITIES, (list(operators),))),
        loose=frozenset(
            oid
            for query, oids in ((_LOOSE_TYPES, types), (_LOOSE_COLLATIONS, collations))
            for (oid,) in session.execute(query, (list(oids),))
        ),
    )
