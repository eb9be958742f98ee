"""Which columns of a query an index can help: searched, joined or sorted by, wherever they stand."""

from __future__ import annotations

import re

import pytest

from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery, indexed_query
from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.postgres.indexes import Index
from pytest_pilotscope.queries.queries import Query

SCHEMA = {
    "customer": {"c_custkey": "integer", "c_name": "text", "c_phone": "text"},
    "orders": {"o_orderkey": "integer", "o_custkey": "integer", "o_orderdate": "date", "o_comment": "text", "o_totalprice": "numeric"},
    "lineitem": {"l_orderkey": "integer", "l_partkey": "integer", "l_suppkey": "integer", "l_quantity": "numeric", "l_shipdate": "date"},
    "supplier": {"s_suppkey": "integer", "s_name": "text", "s_nationkey": "integer"},
    "nation": {"n_nationkey": "integer", "n_name": "text"},
    "part": {"p_partkey": "integer", "p_brand": "text", "p_flag": "boolean"},
    "Mixed": {"Id": "integer", "id": "integer"},
}


def read(sql: str, *, covering: bool = False) -> IndexedQuery:
    """A query against the schema above."""
    return indexed_query(Query(id="q", sql=sql), SCHEMA, covering=covering)


def columns(sql: str) -> set[str]:
    """The columns of a query that an index can help, as table.column."""
    return {f"{table}.{column}" for table, names in read(sql).indexable.items() for column in names}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("o_orderdate < date '1995-01-01'", {"orders.o_orderdate"}),
        ("5 <= o.o_totalprice", {"orders.o_totalprice"}),
        ("(o_custkey) = 3", {"orders.o_custkey"}),
        ("o_custkey BETWEEN 1 AND 9", {"orders.o_custkey"}),
        ("o_custkey IN (1, 2)", {"orders.o_custkey"}),
        ("o_custkey = -1 OR o_orderkey = 2", {"orders.o_custkey", "orders.o_orderkey"}),
        ("o_comment IS NULL", {"orders.o_comment"}),
        ("o_comment LIKE 'abc%'", {"orders.o_comment"}),
        ("o_comment LIKE '%abc'", set()),
        ("o_comment NOT LIKE 'abc%'", set()),
        ("o_custkey <> 3", set()),
        ("NOT (o_custkey = 3)", set()),
        ("o_comment IS NOT NULL", set()),
        ("o_custkey + 1 = 3", set()),
        ("lower(o_comment) = 'a'", set()),
        ("o_orderdate + interval '1' day < date '1995-01-01'", set()),
    ],
)
def test_sargable_conditions(condition: str, expected: set[str]) -> None:
    """A column counts where it is the bare operand of what a btree can search for, and only there."""
    assert columns(f"SELECT count(*) FROM orders AS o WHERE {condition}") == expected


def test_output_columns_do_not_count_unless_covering_is_asked_for() -> None:
    """A column of the select list is read, but an index on it finds nothing."""
    sql = "SELECT o_comment, o_totalprice FROM orders WHERE o_custkey = 1"
    assert read(sql).indexable == {"orders": {"o_custkey"}}
    assert read(sql).referenced == {"orders": {"o_custkey", "o_comment", "o_totalprice"}}
    assert read(sql, covering=True).indexable == {"orders": {"o_custkey", "o_comment", "o_totalprice"}}


def test_unqualified_columns_are_resolved_by_the_catalog() -> None:
    """As in TPC-H, where no column names its table: joins, filters, a correlated subquery."""
    sql = """
        SELECT sum(l_quantity) FROM lineitem, part
        WHERE p_partkey = l_partkey AND p_brand = 'B'
        AND l_quantity < (SELECT 0.2 * avg(l_quantity) FROM lineitem WHERE l_partkey = p_partkey)
    """
    assert columns(sql) == {"part.p_partkey", "part.p_brand", "lineitem.l_partkey", "lineitem.l_quantity"}


def test_subqueries_with_and_outer_joins() -> None:
    """Outer joins and subqueries can be indexed, too; columns of a derived table belong to no table."""
    derived = """
        SELECT c_count, count(*) FROM (SELECT c_custkey, count(o_orderkey) FROM customer
        LEFT JOIN orders ON c_custkey = o_custkey AND o_totalprice > 1 GROUP BY c_custkey) AS x (c_custkey, c_count)
        GROUP BY c_count ORDER BY c_count
    """
    assert columns(derived) == {"customer.c_custkey", "orders.o_custkey", "orders.o_totalprice"}
    named = "WITH r AS (SELECT o_custkey AS k FROM orders WHERE o_orderkey > 4) SELECT * FROM customer, r WHERE c_custkey = k"
    assert columns(named) == {"orders.o_orderkey", "customer.c_custkey"}
    assert read(named).referenced["customer"] == {"c_custkey", "c_name", "c_phone"}


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            """
            SELECT o_comment, count(*) FROM orders WHERE o_orderdate >= date '1993-07-01'
            AND o_orderdate < date '1993-07-01' + interval '3' month
            AND EXISTS (SELECT * FROM lineitem WHERE l_orderkey = o_orderkey AND l_quantity < l_partkey)
            GROUP BY o_comment ORDER BY o_comment
            """,
            "orders.o_orderdate orders.o_orderkey orders.o_comment lineitem.l_orderkey lineitem.l_quantity lineitem.l_partkey",
        ),
        (
            """
            SELECT supp, year, sum(volume) FROM (
                SELECT n1.n_name AS supp, n2.n_name AS cust, extract(year FROM l_shipdate) AS year, l_quantity AS volume
                FROM supplier, lineitem, nation n1, nation n2 WHERE s_suppkey = l_suppkey AND s_nationkey = n1.n_nationkey
                AND (n1.n_name = 'FRANCE' AND n2.n_name = 'GERMANY' OR n1.n_name = 'GERMANY' AND n2.n_name = 'FRANCE')
                AND l_shipdate BETWEEN date '1995-01-01' AND date '1996-12-31') AS shipping
            GROUP BY supp, year ORDER BY supp, year
            """,
            "supplier.s_suppkey supplier.s_nationkey nation.n_nationkey nation.n_name lineitem.l_suppkey lineitem.l_shipdate",
        ),
        (
            """
            WITH revenue (supplier_no, total) AS (
                SELECT l_suppkey, sum(l_quantity) FROM lineitem WHERE l_shipdate >= date '1996-01-01' GROUP BY l_suppkey)
            SELECT s_suppkey, s_name FROM supplier, revenue WHERE s_suppkey = supplier_no AND total = (SELECT max(total) FROM revenue)
            ORDER BY s_suppkey
            """,
            "lineitem.l_shipdate lineitem.l_suppkey supplier.s_suppkey",
        ),
        (
            """
            SELECT c_name, sum(l_quantity) FROM customer, orders, lineitem
            WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem GROUP BY l_orderkey HAVING sum(l_quantity) > 300)
            AND c_custkey = o_custkey AND o_orderkey = l_orderkey GROUP BY c_name ORDER BY o_totalprice DESC LIMIT 100
            """,
            "orders.o_orderkey orders.o_custkey orders.o_totalprice lineitem.l_orderkey customer.c_custkey customer.c_name",
        ),
        (
            """
            SELECT s_name, count(*) AS numwait FROM supplier, lineitem l1 WHERE s_suppkey = l1.l_suppkey AND EXISTS (
                SELECT * FROM lineitem l2 WHERE l2.l_orderkey = l1.l_orderkey AND l2.l_suppkey <> l1.l_suppkey)
            AND NOT EXISTS (SELECT * FROM lineitem l3 WHERE l3.l_orderkey = l1.l_orderkey AND l3.l_shipdate > date '1996-01-01')
            GROUP BY s_name ORDER BY numwait DESC, s_name
            """,
            "supplier.s_suppkey supplier.s_name lineitem.l_suppkey lineitem.l_orderkey lineitem.l_shipdate",
        ),
    ],
    ids=["exists", "nested", "with", "in", "self-joins"],
)
def test_queries_shaped_like_those_of_tpch(sql: str, expected: str) -> None:
    """Columns without a table's name, in subqueries of every kind, each found in the right table."""
    assert columns(sql) == set(expected.split())


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT o_custkey, count(*) FROM orders GROUP BY o_custkey", {"orders.o_custkey"}),
        ("SELECT o_custkey, o_comment FROM orders GROUP BY 1, 2 ORDER BY 2 DESC", {"orders.o_custkey", "orders.o_comment"}),
        ("SELECT o_custkey AS who FROM orders ORDER BY who", {"orders.o_custkey"}),
        ("SELECT -o_custkey AS o_comment FROM orders ORDER BY o_comment", set()),
        ("SELECT 1 FROM orders ORDER BY o_orderdate, o_totalprice + 1", {"orders.o_orderdate"}),
        ("SELECT count(*) FROM orders JOIN customer ON o_custkey = c_custkey", {"orders.o_custkey", "customer.c_custkey"}),
        ("SELECT count(*) FROM lineitem a JOIN lineitem b USING (l_orderkey)", {"lineitem.l_orderkey"}),
        ('SELECT 1 FROM "Mixed" AS "M" WHERE "M"."Id" = 1', {"Mixed.Id"}),
        ("SELECT sum(o_totalprice) FROM orders HAVING sum(o_totalprice) > 3", set()),
        ("SELECT 1 FROM unknown WHERE a = 3 UNION ALL SELECT 1 FROM part WHERE p_brand = 'x'", {"part.p_brand"}),
    ],
)
def test_other_clauses(sql: str, expected: set[str]) -> None:
    """ORDER BY, GROUP BY, JOIN .. ON, USING, positions and output names."""
    assert columns(sql) == expected


def test_an_index_touches_a_query_that_reads_one_of_its_columns() -> None:
    """Or that only counts the rows of its table, which any index can do."""
    query = read("SELECT count(*) FROM orders, customer, part WHERE o_custkey = c_custkey AND o_orderkey = 1")
    assert query.touched_by(Index("orders", ("o_comment", "o_custkey")))
    assert not query.touched_by(Index("orders", ("o_comment",)))
    assert query.touched_by(Index("part", ("p_brand",)))
    assert not query.touched_by(Index("lineitem", ("l_partkey",)))


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT FROM WHERE (", r"sqlglot cannot read it: .+"),
        (f"SELECT {'(' * 300}1{')' * 300}", r"sqlglot cannot read it: it is nested too deeply"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused(sql: str, reason: str) -> None:
    """It is not a query that silently has no columns."""
    with pytest.raises(UnsupportedQuery) as refused:
        read(sql)
    assert re.fullmatch(reason, refused.value.reason)


@pytest.mark.parametrize("covering", [False, True])
def test_only_what_is_possible_counts(covering: bool) -> None:
    """Columns that cannot have an index are read, and are no candidates, also if every other column is one."""
    query = Query(id="q", sql="SELECT p_flag FROM part, nation WHERE p_partkey = n_nationkey AND p_brand = 'x'")
    found = indexed_query(query, SCHEMA, possible={"part": {"p_partkey": "integer"}}, covering=covering)
    assert found.indexable == {"part": {"p_partkey"}}
    assert found.referenced == {"part": {"p_partkey", "p_brand", "p_flag"}, "nation": {"n_nationkey"}}
