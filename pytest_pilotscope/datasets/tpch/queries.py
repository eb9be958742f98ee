"""The queries, split: parameters differ between all of them, and every template is in every split."""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib.resources import files

from pytest_pilotscope.queries.queries import Query, Workload

from .parameters import RULES, Draw

COUNTS = {"test": 1, "validation": 1, "train": 10}
"""Queries of each template, in the order in which parameters are dealt out: q18 has only 4 different ones."""

_ATTEMPTS = 200


def make_workload(dataset: str, *, scale: float, seed: int) -> Workload:
    """
    Return up to 10 training, 1 validation and 1 test query of each of the 22 templates; the ids are `q01-1` and so on.

    They are a function of scale and seed. Query 15 is the variant without a view (appendix B); the fraction of query 11 follows the scale.
    """
    splits: dict[str, list[Query]] = {split: [] for split in COUNTS}
    for number in RULES:
        texts = _different(number, scale, seed, sum(COUNTS.values()))
        made = [Query(id=f"q{number:02}-{position}", sql=sql) for position, sql in enumerate(texts, 1)]
        for split, count in COUNTS.items():
            splits[split] += made[:count]
            made = made[count:]
    return Workload(dataset=dataset, train=tuple(splits["train"]), validation=tuple(splits["validation"]), test=tuple(splits["test"]))


def query_sql(number: int, *, scale: float, draw: Draw) -> str:
    """Return one query with parameters drawn for it."""
    text = (files(__package__) / "sql" / f"{number:02}.sql").read_text(encoding="utf-8")
    return text.strip().format(fraction=f"{0.0001 / scale:.10f}", **RULES[number](draw))


def _different(number: int, scale: float, seed: int, wanted: int) -> Iterator[str]:
    draw = Draw(random.Random(f"{seed}/{number}"))  # noqa: S311 - not for secrets
    seen: set[str] = set()
    for _ in range(_ATTEMPTS):
        sql = query_sql(number, scale=scale, draw=draw)
        if sql not in seen:
            seen.add(sql)
            yield sql
        if len(seen) == wanted:
            return
