"""
`skew`: the popularity of every value is raised to a power, so that references and attributes concentrate on fewer values.

The rows of a column are put in the order of the popularity of their values, and get new values in the same order. So a row keeps its value
or gets a more popular one, columns that were correlated stay so, and the power 1 changes nothing. A power below 1 makes values more equal.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.postgres.drift.rows import drawing_order, unique_columns
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.tables import ForeignKey, Table

_UNDEFINED_FUNCTION = "42883"
_NEW_VALUES = sql.SQL("""
    CREATE TEMP TABLE {new} ON COMMIT DROP AS
    WITH counted AS (SELECT {column} AS value, count(*) AS rows FROM {table} WHERE {column} IS NOT NULL GROUP BY 1),
    weighed AS (  -- as shares of the most popular value, since powers of counts leave the range of numbers
        SELECT value, rows, exp(greatest({power} * ln(rows::float8 / max(rows) OVER ()), -700)) AS weight FROM counted
    ),
    grown AS (
        SELECT value, rows, sum(rows) OVER popular AS old_end, sum(rows) OVER () * sum(weight) OVER popular / sum(weight) OVER () AS new_end
        FROM weighed WINDOW popular AS (ORDER BY rows DESC, value::text COLLATE "C")
    ),
    ranked AS (
        SELECT t.tableoid AS relation, t.ctid AS place, t.{column} AS value,
            (old_end - rows + row_number() OVER (PARTITION BY g.value ORDER BY {order}))::bigint AS rank
        FROM {table} AS t JOIN grown AS g ON g.value = t.{column}
    ),
    given AS (
        SELECT value, generate_series(
            floor(coalesce(lag(new_end) OVER popular, 0) + 0.5)::bigint + 1, floor(new_end + 0.5)::bigint) AS rank
        FROM grown WINDOW popular AS (ORDER BY rows DESC, value::text COLLATE "C")
    )
    SELECT relation, place, g.value FROM ranked AS r JOIN given AS g ON g.rank = r.rank WHERE g.value <> r.value
""")
_CHANGE = sql.SQL("UPDATE {table} AS t SET {set} FROM (SELECT * FROM {joined}) AS v WHERE t.tableoid = v.relation AND t.ctid = v.place")


def skew_values(session: Session, tables: Sequence[Table], keys: Sequence[ForeignKey], power: float, seed: int) -> None:
    """
    Raise the popularity of the values of each column to a power.

    Columns of unique indexes, of references with several columns, and of types without equality or order (json, point) stay as they are.
    """
    for table in tables:
        kept = {column for columns in unique_columns(session, table) for column in columns}
        kept |= {column for key in keys if key.child == table and len(key.columns) > 1 for column in key.columns}
        changed = {
            column: sql.Identifier("pg_temp", f"pilotscope_{table.oid}_{number}")
            for number, column in enumerate(table.columns)
            if column not in kept and _is_comparable(session, table, column)
        }
        for column, new in changed.items():
            session.execute(
                _NEW_VALUES.format(
                    new=new, column=sql.Identifier(column), table=table.source, power=sql.Literal(power), order=drawing_order(table, seed)
                )
            )
        if changed:
            session.execute(_change(table, changed))


def _change(table: Table, changed: dict[str, sql.Identifier]) -> sql.Composable:
    """Return one UPDATE for all columns, so that no row gets several new versions."""
    values = [sql.Identifier(f"value_{number}") for number in range(len(changed))]
    news = [
        sql.SQL("(SELECT relation, place, value AS {} FROM {}) AS n{}").format(value, new, sql.SQL(str(number)))
        for number, (value, new) in enumerate(zip(values, changed.values(), strict=True))
    ]
    setting = [
        sql.SQL("{0} = coalesce(v.{1}, t.{0})").format(sql.Identifier(column), value) for column, value in zip(changed, values, strict=True)
    ]
    joined = sql.SQL(" ").join([news[0], *(sql.SQL("FULL JOIN {} USING (relation, place)").format(new) for new in news[1:])])
    return _CHANGE.format(table=table.source, set=sql.SQL(", ").join(setting), joined=joined)


def _is_comparable(session: Session, table: Table, column: str) -> bool:
    tried = sql.SQL("SELECT {0} FROM {1} WHERE {0} <> {0} GROUP BY 1 ORDER BY 1 LIMIT 0").format(sql.Identifier(column), table.source)
    session.execute("SAVEPOINT comparable")
    try:
        session.execute(tried)
    except StatementFailed as error:
        if error.sqlstate != _UNDEFINED_FUNCTION:
            raise
        return False
    finally:
        session.execute("ROLLBACK TO SAVEPOINT comparable")
    return True
