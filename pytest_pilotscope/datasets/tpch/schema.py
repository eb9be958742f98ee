"""The TPC-H schema (specification 3.0.1, clause 1.4): tables, keys, and an index on every foreign key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

_MONEY = "numeric(15, 2)"

TABLES: Mapping[str, str] = {
    "region": "r_regionkey integer, r_name char(25), r_comment varchar(152)",
    "nation": "n_nationkey integer, n_name char(25), n_regionkey integer, n_comment varchar(152)",
    "part": "p_partkey integer, p_name varchar(55), p_mfgr char(25), p_brand char(10), p_type varchar(25), p_size integer, "
    f"p_container char(10), p_retailprice {_MONEY}, p_comment varchar(23)",
    "supplier": "s_suppkey integer, s_name char(25), s_address varchar(40), s_nationkey integer, s_phone char(15), "
    f"s_acctbal {_MONEY}, s_comment varchar(101)",
    "partsupp": f"ps_partkey integer, ps_suppkey integer, ps_availqty integer, ps_supplycost {_MONEY}, ps_comment varchar(199)",
    "customer": "c_custkey integer, c_name varchar(25), c_address varchar(40), c_nationkey integer, c_phone char(15), "
    f"c_acctbal {_MONEY}, c_mktsegment char(10), c_comment varchar(117)",
    "orders": f"o_orderkey bigint, o_custkey integer, o_orderstatus char(1), o_totalprice {_MONEY}, o_orderdate date, "
    "o_orderpriority char(15), o_clerk char(15), o_shippriority integer, o_comment varchar(79)",
    "lineitem": f"l_orderkey bigint, l_partkey integer, l_suppkey integer, l_linenumber integer, l_quantity {_MONEY}, "
    f"l_extendedprice {_MONEY}, l_discount {_MONEY}, l_tax {_MONEY}, l_returnflag char(1), l_linestatus char(1), l_shipdate date, "
    "l_commitdate date, l_receiptdate date, l_shipinstruct char(25), l_shipmode char(10), l_comment varchar(44)",
}
"""Table -> its columns, none of which may be NULL; parents before their children."""

PRIMARY_KEYS: Mapping[str, Sequence[str]] = {
    "region": ("r_regionkey",),
    "nation": ("n_nationkey",),
    "part": ("p_partkey",),
    "supplier": ("s_suppkey",),
    "partsupp": ("ps_partkey", "ps_suppkey"),
    "customer": ("c_custkey",),
    "orders": ("o_orderkey",),
    "lineitem": ("l_orderkey", "l_linenumber"),
}

FOREIGN_KEYS: Mapping[str, Mapping[tuple[str, ...], str]] = {
    "nation": {("n_regionkey",): "region"},
    "supplier": {("s_nationkey",): "nation"},
    "partsupp": {("ps_partkey",): "part", ("ps_suppkey",): "supplier"},
    "customer": {("c_nationkey",): "nation"},
    "orders": {("o_custkey",): "customer"},
    "lineitem": {("l_orderkey",): "orders", ("l_partkey", "l_suppkey"): "partsupp"},
}
"""Table -> its columns -> the table whose primary key they refer to."""


def definition(table: str) -> str:
    """Return the columns of a table for CREATE TABLE, without keys: those are cheaper to add after loading."""
    columns = ", ".join(f"{column} NOT NULL" for column in TABLES[table].replace("(15, 2)", "(15;2)").split(", "))
    return columns.replace(";", ", ")


def constraints() -> Iterator[str]:
    """Yield the statements that add primary keys, then foreign keys with an index each, and one on (l_suppkey)."""
    for table, columns in PRIMARY_KEYS.items():
        yield f"ALTER TABLE {table} ADD PRIMARY KEY ({', '.join(columns)})"
    for table, keys in FOREIGN_KEYS.items():
        for key, parent in keys.items():
            listed = ", ".join(key)
            yield f"ALTER TABLE {table} ADD FOREIGN KEY ({listed}) REFERENCES {parent}"
            if PRIMARY_KEYS[table][: len(key)] != key:
                yield f"CREATE INDEX ON {table} ({listed})"
    yield "CREATE INDEX ON lineitem (l_suppkey)"
