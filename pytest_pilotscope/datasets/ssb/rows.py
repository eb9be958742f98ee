"""The rows of the Star Schema Benchmark, as its specification says: uniform, dates and places with hierarchies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np

from pytest_pilotscope.datasets.stats.draws import Draws, Ints
from pytest_pilotscope.datasets.tpch.parameters import COLORS, CONTAINERS, REGION_OF, SEGMENTS, SHIP_MODES, TYPES

FIRST_DAY, LAST_DAY = date(1992, 1, 1), date(1998, 12, 31)
LAST_ORDER = date(1998, 8, 2)
PRIORITIES = ("1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW")

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

Columns = Mapping[str, Any]
"""Column -> its values, in the order of the rows."""

_LETTERS = np.frombuffer(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ, ", dtype="S1")
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_SEASONS = ("Winter", "Winter", "Winter", "Spring", "Summer", "Summer", "Summer", "Summer", "Fall", "Fall", "Christmas", "Christmas")
_HOLIDAYS = ((1, 1), (2, 20), (4, 20), (5, 20), (7, 20), (8, 20), (9, 20), (10, 20), (11, 20), (12, 24))


def generate(scale: float) -> dict[str, Columns]:
    """Return all tables by name; they are a function of the scale alone."""
    parts = int(200_000 * (1 + math.floor(math.log2(scale)))) if scale >= 1 else int(200_000 * scale)
    customers, suppliers = int(30_000 * scale), max(1, int(2_000 * scale))
    return {
        "date": _dates(),
        "part": _parts(parts),
        "supplier": _places("s", "supp", "Supplier", suppliers),
        "customer": _places("c", "cust", "Customer", customers)
        | {"c_mktsegment": _chosen(SEGMENTS, Draws(0, "segment").below(len(SEGMENTS), customers))},
        "lineorder": _lines(int(1_500_000 * scale), customers=customers, parts=parts, suppliers=suppliers),
    }


def city(nation: str, digit: int) -> str:
    """Return the name of one of the ten cities of a nation: its first nine characters and a digit."""
    return f"{nation[:9]:9}{digit}"


def _chosen(values: Sequence[str], at: Ints) -> Any:
    return np.array(values)[at]


def _days() -> Iterator[date]:
    return (FIRST_DAY + timedelta(days=number) for number in range((LAST_DAY - FIRST_DAY).days + 1))


def _key_of(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


def _dates() -> Columns:
    rows = [
        {
            "d_datekey": _key_of(day),
            "d_date": f"{MONTHS[day.month - 1]} {day.day}, {day.year}",
            "d_dayofweek": _WEEKDAYS[day.isoweekday() % 7],
            "d_month": MONTHS[day.month - 1],
            "d_year": day.year,
            "d_yearmonthnum": day.year * 100 + day.month,
            "d_yearmonth": f"{MONTHS[day.month - 1][:3]}{day.year}",
            "d_daynuminweek": day.isoweekday() % 7 + 1,
            "d_daynuminmonth": day.day,
            "d_daynuminyear": day.timetuple().tm_yday,
            "d_monthnuminyear": day.month,
            "d_weeknuminyear": (day.timetuple().tm_yday - 1) // 7 + 1,
            "d_sellingseason": _SEASONS[day.month - 1],
            "d_lastdayinweekfl": int(day.isoweekday() == 6),
            "d_lastdayinmonthfl": int((day + timedelta(days=1)).day == 1),
            "d_holidayfl": int((day.month, day.day) in _HOLIDAYS),
            "d_weekdayfl": int(day.isoweekday() < 6),
        }
        for day in _days()
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _parts(count: int) -> Columns:
    draws = Draws(0, "part")
    first, second, maker, category, brand = (draws.below(limit, count) for limit in (len(COLORS), len(COLORS), 5, 5, 40))
    types = [" ".join((a, b, c)) for a in TYPES[0] for b in TYPES[1] for c in TYPES[2]]
    containers = [f"{a} {b}" for a in CONTAINERS[0] for b in CONTAINERS[1]]
    makers = [f"MFGR#{number}" for number in range(1, 6)]
    categories = [f"{one}{number}" for one in makers for number in range(1, 6)]
    brands = [f"{one}{number}" for one in categories for number in range(1, 41)]
    names = [f"{one} {other}"[:22] for one, other in zip(_chosen(COLORS, first), _chosen(COLORS, second), strict=True)]
    return {
        "p_partkey": np.arange(1, count + 1),
        "p_name": names,
        "p_mfgr": _chosen(makers, maker),
        "p_category": _chosen(categories, maker * 5 + category),
        "p_brand1": _chosen(brands, (maker * 5 + category) * 40 + brand),
        "p_color": _chosen(COLORS, first),
        "p_type": _chosen(types, draws.below(len(types), count)),
        "p_size": 1 + draws.below(50, count),
        "p_container": _chosen(containers, draws.below(len(containers), count)),
    }


def _places(prefix: str, key: str, title: str, count: int) -> dict[str, Any]:
    """Return the columns that suppliers and customers share."""
    draws = Draws(0, title)
    nations = sorted(REGION_OF)
    nation, digit = draws.below(len(nations), count), draws.below(10, count)
    lengths, letters = 10 + draws.below(16, count), _LETTERS[draws.below(len(_LETTERS), 25 * count)].reshape(count, 25)
    phones = zip(nation + 10, *(draws.below(900, count) + 100 for _ in range(2)), draws.below(9000, count) + 1000, strict=True)
    return {
        f"{prefix}_{key}key": np.arange(1, count + 1),
        f"{prefix}_name": [f"{title}#{number:09}" for number in range(1, count + 1)],
        f"{prefix}_address": [row[:length].tobytes().decode() for row, length in zip(letters, lengths, strict=True)],
        f"{prefix}_city": _chosen([city(one, number) for one in nations for number in range(10)], nation * 10 + digit),
        f"{prefix}_nation": _chosen([one[:15] for one in nations], nation),
        f"{prefix}_region": _chosen([REGION_OF[one] for one in nations], nation),
        f"{prefix}_phone": ["-".join(map(str, numbers)) for numbers in phones],
    }


def _lines(orders: int, *, customers: int, parts: int, suppliers: int) -> Columns:
    """Return lineorder: one to seven lines of each order; the keys of orders are the first 8 of every 32 numbers."""
    draws, days = Draws(0, "lineorder"), np.array([_key_of(day) for day in _days()], dtype=np.int64)
    lines = 1 + draws.below(7, orders)
    order = np.repeat(np.arange(orders), lines)
    count = len(order)
    ordered = draws.below((LAST_ORDER - FIRST_DAY).days + 1, orders)
    part, quantity, discount, tax = (low + draws.below(limit, count) for low, limit in ((1, parts), (1, 50), (0, 11), (0, 9)))
    price = 90_000 + part // 10 % 20_001 + 100 * (part % 1_000)
    extended = quantity * price
    total = np.zeros(orders, dtype=np.int64)
    np.add.at(total, order, extended * (100 - discount) // 100 * (100 + tax) // 100)
    return {
        "lo_orderkey": order // 8 * 32 + order % 8 + 1,
        "lo_linenumber": np.arange(count) - np.repeat(np.cumsum(lines) - lines, lines) + 1,
        "lo_custkey": (1 + draws.below(customers, orders))[order],
        "lo_partkey": part,
        "lo_suppkey": 1 + draws.below(suppliers, count),
        "lo_orderdate": days[ordered[order]],
        "lo_orderpriority": _chosen(PRIORITIES, draws.below(5, orders))[order],
        "lo_shippriority": np.full(count, "0"),
        "lo_quantity": quantity,
        "lo_extendedprice": extended,
        "lo_ordtotalprice": total[order],
        "lo_discount": discount,
        "lo_revenue": extended * (100 - discount) // 100,
        "lo_supplycost": 6 * price // 10,
        "lo_tax": tax,
        "lo_commitdate": days[ordered[order] + 30 + draws.below(61, count)],
        "lo_shipmode": _chosen(SHIP_MODES, draws.below(len(SHIP_MODES), count)),
    }
