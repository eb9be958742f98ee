"""The 13 queries of the Star Schema Benchmark, with the parameters of the specification or drawn ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from pytest_pilotscope.datasets.tpch.parameters import REGION_OF, REGIONS
from pytest_pilotscope.queries.queries import Query, Workload

from .rows import MONTHS, city

TRAINING = 10
"""Training queries of each of the 13; one more is for validation, and one for the test."""

Parameters: TypeAlias = Mapping[str, str | int]
_Draw: TypeAlias = random.Random

_FLIGHTS: Mapping[str, str] = {
    "1": "SELECT sum(lo_extendedprice * lo_discount) AS revenue FROM lineorder, date WHERE lo_orderdate = d_datekey AND {filters} "
    "AND lo_discount BETWEEN {discount} AND {discount_end} AND {quantities}",
    "2": "SELECT sum(lo_revenue), d_year, p_brand1 FROM lineorder, date, part, supplier WHERE lo_orderdate = d_datekey "
    "AND lo_partkey = p_partkey AND lo_suppkey = s_suppkey AND {filters} AND s_region = '{region}' "
    "GROUP BY d_year, p_brand1 ORDER BY d_year, p_brand1",
    "3": "SELECT {groups}, d_year, sum(lo_revenue) AS revenue FROM customer, lineorder, supplier, date WHERE lo_custkey = c_custkey "
    "AND lo_suppkey = s_suppkey AND lo_orderdate = d_datekey AND {filters} GROUP BY {groups}, d_year ORDER BY d_year, revenue DESC",
    "4": "SELECT {groups}, sum(lo_revenue - lo_supplycost) AS profit FROM date, customer, supplier, part, lineorder "
    "WHERE lo_custkey = c_custkey AND lo_suppkey = s_suppkey AND lo_partkey = p_partkey AND lo_orderdate = d_datekey "
    "AND c_region = '{region}' AND {filters} GROUP BY {groups} ORDER BY {groups}",
}
_YEARS = "d_year >= {year} AND d_year <= {last_year}"
_CITIES = "(c_city = '{city1}' OR c_city = '{city2}') AND (s_city = '{city1}' OR s_city = '{city2}')"
_TWO_YEARS = "(d_year = {year1} OR d_year = {year2})"
_MAKERS = "s_region = '{region}' AND (p_mfgr = 'MFGR#{maker1}' OR p_mfgr = 'MFGR#{maker2}')"
_PLACES = {"groups": "c_city, s_city"}
_QUANTITIES = {"quantities": "lo_quantity BETWEEN {quantity} AND {quantity_end}"}

TEMPLATES: Mapping[str, Mapping[str, str]] = {
    "1.1": {"filters": "d_year = {year}", "quantities": "lo_quantity < {quantity}"},
    "1.2": {"filters": "d_yearmonthnum = {month}", **_QUANTITIES},
    "1.3": {"filters": "d_weeknuminyear = {week} AND d_year = {year}", **_QUANTITIES},
    "2.1": {"filters": "p_category = 'MFGR#{category}'"},
    "2.2": {"filters": "p_brand1 BETWEEN 'MFGR#{brand}' AND 'MFGR#{brand_end}'"},
    "2.3": {"filters": "p_brand1 = 'MFGR#{brand}'"},
    "3.1": {"filters": f"c_region = '{{region}}' AND s_region = '{{region2}}' AND {_YEARS}", "groups": "c_nation, s_nation"},
    "3.2": {"filters": f"c_nation = '{{nation}}' AND s_nation = '{{nation}}' AND {_YEARS}", **_PLACES},
    "3.3": {"filters": f"{_CITIES} AND {_YEARS}", **_PLACES},
    "3.4": {"filters": f"{_CITIES} AND d_yearmonth = '{{yearmonth}}'", **_PLACES},
    "4.1": {"filters": _MAKERS, "groups": "d_year, c_nation"},
    "4.2": {"filters": f"{_TWO_YEARS} AND {_MAKERS}", "groups": "d_year, s_nation, p_category"},
    "4.3": {
        "filters": f"s_nation = '{{nation}}' AND {_TWO_YEARS} AND p_category = 'MFGR#{{category}}'",
        "groups": "d_year, s_city, p_brand1",
    },
}
"""Query -> the conditions and groups that it adds to its flight."""

_UNITED_KINGDOM = {"city1": "UNITED KI1", "city2": "UNITED KI5"}
_SIX_YEARS = {"year": 1992, "last_year": 1997}
SPECIFIED: Mapping[str, Parameters] = {
    "1.1": {"year": 1993, "discount": 1, "discount_end": 3, "quantity": 25},
    "1.2": {"month": 199401, "discount": 4, "discount_end": 6, "quantity": 26, "quantity_end": 35},
    "1.3": {"week": 6, "year": 1994, "discount": 5, "discount_end": 7, "quantity": 26, "quantity_end": 35},
    "2.1": {"category": 12, "region": "AMERICA"},
    "2.2": {"brand": 2221, "brand_end": 2228, "region": "ASIA"},
    "2.3": {"brand": 2221, "region": "EUROPE"},
    "3.1": {"region": "ASIA", "region2": "ASIA", **_SIX_YEARS},
    "3.2": {"nation": "UNITED STATES", **_SIX_YEARS},
    "3.3": {**_UNITED_KINGDOM, **_SIX_YEARS},
    "3.4": {**_UNITED_KINGDOM, "yearmonth": "Dec1997"},
    "4.1": {"region": "AMERICA", "maker1": 1, "maker2": 2},
    "4.2": {"region": "AMERICA", "maker1": 1, "maker2": 2, "year1": 1997, "year2": 1998},
    "4.3": {"region": "AMERICA", "nation": "UNITED STATES", "year1": 1997, "year2": 1998, "category": 14},
}
"""The parameters of the specification."""


def _discount(draw: _Draw) -> Parameters:
    low = draw.randint(1, 8)
    return {"discount": low, "discount_end": low + 2}


def _quantity(draw: _Draw) -> Parameters:
    low = draw.randint(1, 41)
    return {"quantity": low, "quantity_end": low + 9, **_discount(draw)}


def _category(draw: _Draw) -> int:
    return 10 * draw.randint(1, 5) + draw.randint(1, 5)


def _brands(draw: _Draw) -> Parameters:
    first = 100 * _category(draw) + 10 * draw.randint(1, 3) + draw.randint(0, 2)
    return {"brand": first, "brand_end": first + 7, "region": draw.choice(REGIONS)}


def _years(draw: _Draw) -> Parameters:
    first = draw.randint(1992, 1994)
    return {"year": first, "last_year": draw.randint(first + 2, 1998)}


def _cities(draw: _Draw) -> Parameters:
    nation = draw.choice(sorted(REGION_OF))
    first, second = sorted(draw.sample(range(10), 2))
    return {"city1": city(nation, first), "city2": city(nation, second)}


def _two_years(draw: _Draw) -> Parameters:
    first = draw.randint(1992, 1997)
    return {"year1": first, "year2": first + 1}


def _makers(draw: _Draw) -> Parameters:
    first, second = sorted(draw.sample(range(1, 6), 2))
    return {"region": draw.choice(REGIONS), "maker1": first, "maker2": second}


def _nation(draw: _Draw) -> Parameters:
    nation = draw.choice(sorted(REGION_OF))
    return {"region": REGION_OF[nation], "nation": nation, "category": _category(draw), **_two_years(draw)}


RULES: Mapping[str, Callable[[_Draw], Parameters]] = {
    "1.1": lambda draw: {"year": draw.randint(1992, 1998), "quantity": draw.randint(20, 30), **_discount(draw)},
    "1.2": lambda draw: {"month": 100 * draw.randint(1992, 1997) + draw.randint(1, 12), **_quantity(draw)},
    "1.3": lambda draw: {"year": draw.randint(1992, 1997), "week": draw.randint(1, 52), **_quantity(draw)},
    "2.1": lambda draw: {"category": _category(draw), "region": draw.choice(REGIONS)},
    "2.2": _brands,
    "2.3": lambda draw: {"brand": 100 * _category(draw) + draw.randint(10, 40), "region": draw.choice(REGIONS)},
    "3.1": lambda draw: {"region": draw.choice(REGIONS), "region2": draw.choice(REGIONS), **_years(draw)},
    "3.2": lambda draw: {"nation": draw.choice(sorted(REGION_OF)), **_years(draw)},
    "3.3": lambda draw: {**_cities(draw), **_years(draw)},
    "3.4": lambda draw: {**_cities(draw), "yearmonth": f"{draw.choice(MONTHS)[:3]}{draw.randint(1992, 1997)}"},
    "4.1": _makers,
    "4.2": lambda draw: {**_makers(draw), **_two_years(draw)},
    "4.3": _nation,
}
"""Query -> how other parameters of it are drawn, for selectivities near the specified ones."""


def query_sql(number: str, parameters: Parameters) -> str:
    """Return the text of a query."""
    text = _FLIGHTS[number[0]]
    for name, part in TEMPLATES[number].items():
        text = text.replace(f"{{{name}}}", part)
    return text.format(**parameters)


def make_workload(dataset: str, *, seed: int) -> Workload:
    """
    Return 10 training, 1 validation and 1 test query of each of the 13, all different; the ids are `q1.1-1` (the test query) and so on.

    With seed 0 the test queries have the parameters of the specification.
    """
    made: dict[str, Sequence[Query]] = {}
    for number, specified in SPECIFIED.items():
        draw = random.Random(f"{seed}/{number}")  # noqa: S311 - not for secrets
        texts = {query_sql(number, specified): None} if seed == 0 else {}
        while len(texts) < TRAINING + 2:
            texts[query_sql(number, RULES[number](draw))] = None
        made[number] = [Query(id=f"q{number}-{position}", sql=sql) for position, sql in enumerate(texts, 1)]
    return Workload(
        dataset=dataset,
        train=tuple(query for queries in made.values() for query in queries[2:]),
        validation=tuple(queries[1] for queries in made.values()),
        test=tuple(queries[0] for queries in made.values()),
    )
