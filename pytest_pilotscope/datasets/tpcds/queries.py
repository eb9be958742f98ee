"""The 99 queries of TPC-DS; a seed moves their years and months."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

from pytest_pilotscope.queries.queries import Query, Workload

FIRST_YEAR, LAST_YEAR = 1998, 2002
"""The years in which the generated shops sell."""

_YEAR = re.compile(r"\b(?:199[89]|200[0-2])\b")
_MONTH = re.compile(r"(\bd_moy\s*=\s*)(\d{1,2})\b", re.IGNORECASE)


def make_workload(dataset: str, texts: Mapping[int, str], *, seed: int) -> Workload:
    """
    Return the queries as test queries; the ids are `q01` to `q99`.

    Seed 0 leaves the parameters of DuckDB. Another seed moves all years of a query by the same number, within the years of the data, and
    draws the months that it compares for equality.
    """
    made = []
    for number, text in sorted(texts.items()):
        sql = text.strip().rstrip(";").rstrip()
        made.append(Query(id=f"q{number:02}", sql=sql if seed == 0 else _moved(sql, random.Random(f"{seed}/{number}"))))  # noqa: S311 - not for secrets
    return Workload(dataset=dataset, test=tuple(made))


def _moved(sql: str, draw: random.Random) -> str:
    years = [int(year) for year in _YEAR.findall(sql)]
    offset = draw.randint(FIRST_YEAR - min(years), LAST_YEAR - max(years)) if years else 0
    months: dict[str, str] = {}

    def month(match: re.Match[str]) -> str:
        return match[1] + months.setdefault(match[2], str(draw.randint(1, 12)))

    return _MONTH.sub(month, _YEAR.sub(lambda match: str(int(match[0]) + offset), sql))
