"""The schema of the Star Schema Benchmark (O'Neil, O'Neil, Chen, revision 3, 2009): tables, keys, and an index on every foreign key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def _columns(prefix: str, text: str) -> str:
    """Read `name:length` separated by blanks, a text of at most so many characters; a name alone is an integer."""
    written = (word.partition(":") for word in text.split())
    return ", ".join(f"{prefix}_{name} {f'varchar({length})' if length else 'integer'} NOT NULL" for name, _, length in written)


TABLES: Mapping[str, str] = {
    "date": _columns(
        "d",
        "datekey date:18 dayofweek:9 month:9 year yearmonthnum yearmonth:7 daynuminweek daynuminmonth daynuminyear monthnuminyear "
        "weeknuminyear sellingseason:12 lastdayinweekfl lastdayinmonthfl holidayfl weekdayfl",
    ),
    "part": _columns("p", "partkey name:22 mfgr:6 category:7 brand1:9 color:11 type:25 size container:10"),
    "supplier": _columns("s", "suppkey name:25 address:25 city:10 nation:15 region:12 phone:15"),
    "customer": _columns("c", "custkey name:25 address:25 city:10 nation:15 region:12 phone:15 mktsegment:10"),
    "lineorder": _columns(
        "lo",
        "orderkey linenumber custkey partkey suppkey orderdate orderpriority:15 shippriority:1 quantity extendedprice ordtotalprice "
        "discount revenue supplycost tax commitdate shipmode:10",
    ),
}
"""Table -> its columns, none of which may be NULL; parents before their children. Amounts of money are in cents."""

PRIMARY_KEYS: Mapping[str, str] = {
    "date": "d_datekey",
    "part": "p_partkey",
    "supplier": "s_suppkey",
    "customer": "c_custkey",
    "lineorder": "lo_orderkey, lo_linenumber",
}

FOREIGN_KEYS: Mapping[str, str] = {
    "lo_custkey": "customer",
    "lo_partkey": "part",
    "lo_suppkey": "supplier",
    "lo_orderdate": "date",
    "lo_commitdate": "date",
}
"""Column of lineorder -> the table whose primary key it refers to."""


def constraints() -> Iterator[str]:
    """Yield the statements that add primary keys, then foreign keys with an index each."""
    for table, columns in PRIMARY_KEYS.items():
        yield f"ALTER TABLE {table} ADD PRIMARY KEY ({columns})"
    for column, parent in FOREIGN_KEYS.items():
        yield f"ALTER TABLE lineorder ADD FOREIGN KEY ({column}) REFERENCES {parent}"
        yield f"CREATE INDEX ON lineorder ({column})"
