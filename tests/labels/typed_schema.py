"""Small tables with a column of every built-in type, keys of every kind, partitions and inheritance, for statements drawn at random."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TypeAlias

_HALVES = ("0.5", "1.5", "2.5", "3.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """
    A column of the tables.

    `values` are its values as text. Columns of one `family` can be compared with each other; columns of different `type` then need an
    operator for both. `comparison` are the operators that the type has for itself, `hashed` tells that its equality can be hashed.
    """

    name: str
    type: str
    values: tuple[str, ...]
    family: str = ""
    comparison: tuple[str, ...] = ("=", "<>", "<", "<=", ">", ">=")
    hashed: bool = True

    def literal(self, draw: random.Random) -> str:
        """Return one of the values as SQL; the first ones, which more rows have, more often."""
        values = self.values[:1] if draw.random() < 0.5 else self.values
        return f"'{draw.choice(values)}'::{self.type}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """A relation that conditions can refer to."""

    alias: str
    columns: tuple[Column, ...]

    def sortable(self) -> list[str]:
        """Return the columns that have an order, with their alias."""
        return [f"{self.alias}.{column.name}" for column in self.columns if len(column.comparison) == 6]


Scope: TypeAlias = tuple[Visible, ...]


def _made(name: str, type_: str, pattern: str, count: int = 4, **more: object) -> Column:
    values = tuple(pattern.replace("#", str(number)) for number in range(count))
    return Column(name=name, type=type_, values=values, **more)  # type: ignore[arg-type]


_EQUALITY = ("=", "<>")

COLUMNS: tuple[Column, ...] = (
    _made("i2", "smallint", "#", 5, family="number"),
    _made("i4", "integer", "#", 7, family="number"),
    _made("i8", "bigint", "#", 6, family="number"),
    _made("nu", "numeric", "#.0", 4, family="number"),
    _made("nd", "numeric(6,2)", "#.5", 3),
    _made("r4", "real", "#", 5, family="float"),
    _made("f8", "double precision", "#", 6, family="float"),
    _made("dn", "whole", "#", 5, family="number"),
    Column(name="mo", type="money", values=("0", "1.5", "2"), hashed=False),
    Column(name="tx", type="text", values=("k0", "k1", "K2", "", "a%b", "k 4"), family="text"),
    Column(name="vc", type="varchar(9)", values=("k0", "k1", "K2", "x"), family="text"),
    Column(name="ch", type="char(4)", values=("k0", "k1", "K2"), family="character"),
    Column(name="nm", type="name", values=("k0", "k1", "K2", "n"), family="text"),
    Column(name="dt", type="word", values=("k0", "k1", "w")),
    _made("cx", '"char"', "#", 4),
    _made("bb", "bytea", r"\x0#", 4),
    Column(name="bo", type="boolean", values=("t", "f")),
    _made("da", "date", "2020-01-1#", 5, family="date"),
    _made("ts", "timestamp", "2020-01-1# 00:00:00", 4, family="date"),
    _made("tz", "timestamptz", "2020-01-1# 00:00:00+00", 4, family="date"),
    _made("tm", "time", "0#:30:00", 4),
    _made("ti", "timetz", "0#:30:00+00", 3),
    _made("iv", "interval", "# days", 4),
    _made("ip", "inet", "10.0.0.#", 4, family="net"),
    _made("ci", "cidr", "10.0.#.0/24", 3, family="net"),
    _made("ma", "macaddr", "08:00:2b:01:02:0#", 4),
    _made("m8", "macaddr8", "08:00:2b:01:02:03:04:0#", 3),
    _made("bt", "bit(4)", "000#", 2, family="bit", hashed=False),
    _made("vb", "varbit", "000#", 2, family="bit", hashed=False),
    _made("uu", "uuid", "00000000-0000-0000-0000-00000000000#", 5),
    _made("jb", "jsonb", '{"k": #}', 4),
    _made("ra", "int4range", "[0,#]", 4),
    _made("mr", "int4multirange", "{[0,#]}", 3),
    _made("nr", "numrange", "[0.5,#.5]", 3),
    _made("dr", "daterange", "[2020-01-01,2020-02-1#)", 3),
    _made("ar", "integer[]", "{#}", 4),
    _made("at", "text[]", "{k#,x}", 3),
    Column(name="en", type="mood", values=("lo", "mid", "hi")),
    _made("pa", "pair", "(#,k#)", 3),
    _made("oi", "oid", "#", 4),
    _made("xi", "xid", "#", 3, comparison=_EQUALITY),
    _made("x8", "xid8", "#", 4),
    _made("ls", "pg_lsn", "0/#", 4),
    _made("tv", "tsvector", "k#", 3, hashed=False),
    _made("tq", "tsquery", "k#", 3, hashed=False),
    _made("ov", "oidvector", "# 1", 3),
    Column(name="rc", type="regtype", values=("integer", "text"), comparison=_EQUALITY),
    _made("js", "json", '{"k": #}', 3, comparison=()),
    _made("po", "point", "(#,0)", 3, comparison=()),
    _made("bx", "box", "((0,0),(#,1))", 3, comparison=()),
    _made("li", "line", "{1,#,1}", 3, comparison=()),
    _made("ce", "circle", "<(0,0),#>", 3, comparison=()),
    _made("po2", "polygon", "((0,0),(#,1))", 3, comparison=()),
    _made("pt", "path", "((0,0),(#,1))", 3, comparison=()),
    _made("sg", "lseg", "[(0,0),(#,1)]", 3, comparison=()),
    _made("jp", "jsonpath", "$.k#", 3, comparison=()),
    _made("tid_", "tid", "(0,#)", 3, comparison=_EQUALITY),
)
"""A column of every built-in type that a table can have, but xml: it depends on how PostgreSQL was built."""

KEYS = (
    Column(name="id", type="integer", values=tuple(map(str, range(1, 25))), family="number"),
    Column(name="uk", type="bigint", values=tuple(map(str, range(1, 25))), family="number"),
    Column(name="fk", type="integer", values=tuple(map(str, range(1, 21))), family="number"),
)

TABLES = {"a": 30, "b": 24, "c": 20, "d": 40, "e": 0, "p": 36, "h": 16, "h1": 10, "h2": 8}
"""Table -> rows. `e` is empty, `p` has partitions, h1 and h2 inherit from h."""

READABLE = (*("a", "b", "c", "d", "p") * 5, *("h", "h", "va", "va", "h1", "ONLY h", "vb", "e"))
"""FROM items to draw from; va and vb are views."""

VIEW_COLUMNS = ("id", "uk", "fk", "i4", "tx", "da", "en", "bo")

_TYPES = """
    CREATE TYPE mood AS ENUM ('lo', 'mid', 'hi'); CREATE TYPE pair AS (x integer, y text);
    CREATE DOMAIN whole AS integer; CREATE DOMAIN word AS text CHECK (value <> 'never');
"""
_KEYS = """
    CREATE INDEX ON a (i4); CREATE INDEX ON a (tx); CREATE INDEX ON b (lower(tx)); CREATE INDEX ON b (fk, i8); CREATE INDEX ON d (en, i4);
    CREATE INDEX ON c (fk); CREATE INDEX ON d (fk); CREATE INDEX ON p (i4); CREATE UNIQUE INDEX ON c (uk, i2); CREATE INDEX ON h1 (id);
    ALTER TABLE b ADD FOREIGN KEY (fk) REFERENCES a (id); ALTER TABLE c ADD FOREIGN KEY (fk) REFERENCES b (id);
    ALTER TABLE d ADD FOREIGN KEY (fk) REFERENCES a (id); ALTER TABLE p ADD FOREIGN KEY (fk) REFERENCES c (id);
"""
_VIEWS = f"""
    CREATE VIEW va AS SELECT {", ".join(f"va_a.{name}" for name in VIEW_COLUMNS)}
        FROM a AS va_a LEFT JOIN b AS va_b ON va_a.id = va_b.fk AND va_b.i4 > 0 WHERE va_a.bo IS NOT FALSE;
    CREATE VIEW vb AS SELECT {", ".join(f"max({name}) AS {name}" for name in VIEW_COLUMNS[:-2])}, en, bool_or(bo) AS bo
        FROM d AS vb_d GROUP BY en;
"""


def schema_sql(seed: int = 0) -> str:
    """Return the statements that make and fill the tables; the rows depend on `seed` only."""
    draw = random.Random(seed)  # noqa: S311  # rows of a test
    columns = ", ".join(f"{column.name} {column.type}" for column in COLUMNS)
    made = [f"CREATE TABLE {table} (id integer PRIMARY KEY, uk bigint UNIQUE, fk integer, {columns});" for table in "abcdeh"]
    made.append(f"CREATE TABLE p (id integer PRIMARY KEY, uk bigint, fk integer, {columns}) PARTITION BY RANGE (id);")
    made += ["CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (11);", "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (11) TO (21);"]
    made += ["CREATE TABLE p3 PARTITION OF p DEFAULT;", "CREATE TABLE h1 (more integer) INHERITS (h); CREATE TABLE h2 () INHERITS (h);"]
    made += [_rows(draw, table, rows) for table, rows in TABLES.items() if rows]
    # With a histogram of a "char", PostgreSQL 18 fails to plan comparisons: cache lookup failed for collation 0.
    made += [f"ALTER TABLE {table} ALTER cx SET STATISTICS 0;" for table in (*TABLES, "p1", "p2", "p3")]
    return "\n".join([_TYPES, *made, _KEYS, _VIEWS])


def _rows(draw: random.Random, table: str, count: int) -> str:
    keys = draw.sample(range(1, count + 9), count)
    rows = [
        f"({number}, {_uk(draw, keys, number)}, {_nullable(draw, str(draw.randint(1, 20)))}, {_values(draw)})"
        for number in range(1, count + 1)
    ]
    names = ", ".join(column.name for column in COLUMNS)
    return f"INSERT INTO {table} (id, uk, fk, {names}) VALUES\n" + ",\n".join(rows) + ";"


def _uk(draw: random.Random, keys: list[int], number: int) -> str:
    return _nullable(draw, str(keys[number - 1]))


def _values(draw: random.Random) -> str:
    return ", ".join(_nullable(draw, f"'{_skewed(draw, column.values)}'") for column in COLUMNS)


def _skewed(draw: random.Random, values: tuple[str, ...]) -> str:
    """Draw a value; the first ones are drawn more often."""
    return values[min(int(draw.expovariate(1.2)), len(values) - 1)] if draw.random() < 0.5 else draw.choice(values)


def _nullable(draw: random.Random, sql: str) -> str:
    return "NULL" if draw.random() < 0.12 else sql
