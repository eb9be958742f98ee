"""Divides the queries of a workload into splits, and checks that no query is in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, count
from typing import Literal

from pytest_pilotscope.errors import WorkloadError, counted
from pytest_pilotscope.queries.queries import SPLITS, Query, Split, Workload
from pytest_pilotscope.queries.templates import normalized, same_queries, template_of

SHARES: Mapping[Split, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""The share of the queries (or, by template, of the templates) that each split gets."""


def divide(workload: Workload, how: Literal["random", "template"], seed: int) -> Workload:
    """
    Divide all queries of a workload anew, by seed and text only. A query that occurs twice is kept once.

    Raises `WorkloadError` if there are too few queries, or templates, for three splits.
    """
    queries = list({normalized(query.sql): query for split in reversed(SPLITS) for query in workload.of(split)}.values())
    group = (lambda query: query.sql) if how == "random" else (lambda query: template_of(query.sql))
    groups: dict[str, list[Query]] = {}
    for query in queries:
        groups.setdefault(group(query), []).append(query)
    if len(groups) < len(SPLITS):
        what = "queries" if how == "random" else "templates"
        raise WorkloadError(f"{workload.dataset}: {len(groups)} different {what} cannot be divided into training, validation and test")
    dealt = _dealt(sorted(groups, key=lambda text: _drawn(seed, text)))
    order = {query.id: position for position, query in enumerate(queries)}
    chosen = {
        split: sorted((query for text in texts for query in groups[text]), key=lambda query: order[query.id])
        for split, texts in dealt.items()
    }
    return replace(workload.with_splits({split: list(_distinct(found)) for split, found in chosen.items()}), origin=None)


def seen_and_unseen(workload: Workload, share: float, seed: int) -> tuple[Workload, Workload]:
    """
    Divide a workload by templates: one that is trained and measured on some of them, and one on the others, a `share` of all.

    The templates are those of test queries that training queries have, too; test queries of others are left out. With a share of 0 both
    workloads have all training queries, and the test queries are dealt at random. Raise `WorkloadError` if there is too little to divide.
    """
    trained = {template_of(query.sql) for query in workload.train}
    templates = {query.sql: template_of(query.sql) for query in workload.test}
    test = [query for query in workload.test if templates[query.sql] in trained]
    texts = sorted({templates[query.sql] if share else query.sql for query in test}, key=lambda text: _drawn(seed, text))
    if len(texts) < 2:
        found = counted(len(texts), "template") if share else counted(len(texts), "query", "queries")
        raise WorkloadError(
            f"{workload.dataset}: a drift of templates divides at least 2 that training and test queries have in common, found {found} in "
            f"{counted(len(workload.test), 'test query', 'test queries')}; divide all queries anew with --split random"
        )
    unseen = set(texts[: min(max(1, round((share or 0.5) * len(texts))), len(texts) - 1)])

    def part(later: bool) -> Workload:
        def kept(queries: Sequence[Query]) -> list[Query]:
            return [query for query in queries if not share or (template_of(query.sql) in unseen) == later]

        chosen = [query for query in test if ((templates[query.sql] if share else query.sql) in unseen) == later]
        return replace(
            workload.with_splits({"train": kept(workload.train), "validation": kept(workload.validation), "test": chosen}), origin=None
        )

    return part(False), part(True)


def _drawn(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()


def check_disjoint(workload: Workload) -> None:
    """Raise `WorkloadError` when the same query is in two splits: measuring a query that was trained on proves nothing."""
    for one, other in combinations(SPLITS, 2):
        for first, second in same_queries(workload.of(one), workload.of(other)):
            raise WorkloadError(
                f"{workload.dataset}: query {second.id!r} of {other} is the same as {first.id!r} of {one}; "
                "remove one of them, or have the queries divided anew with --split random"
            )


def without_test_queries(workload: Workload) -> Workload:
    """Leave out training and validation queries that are test queries too: published workloads have some. `origin` has their number."""
    repeated = {normalized(query.sql) for query in workload.test}
    train, validation = (
        tuple(query for query in part if normalized(query.sql) not in repeated) for part in (workload.train, workload.validation)
    )
    dropped = len(workload.train) + len(workload.validation) - len(train) - len(validation)
    if not dropped:
        return workload
    origin = f"{len(train)} training ({dropped} more are test queries too and are left out)"
    return replace(workload, train=train, validation=validation, origin=origin)


def _dealt(texts: Sequence[str]) -> dict[Split, Sequence[str]]:
    """Give each split its share, at least one text, and training the rest."""
    test = max(1, round(SHARES["test"] * len(texts)))
    validation = max(1, round(SHARES["validation"] * len(texts)))
    return {"test": texts[:test], "validation": texts[test : test + validation], "train": texts[test + validation :]}


def _distinct(queries: Iterable[Query]) -> Iterator[Query]:
    """Give a query whose id another one of the split has a number: queries of different files may have one id."""
    seen: set[str] = set()
    for query in queries:
        id_ = next(name for name in chain([query.id], (f"{query.id}-{number}" for number in count(2))) if name not in seen)
        seen.add(id_)
        yield replace(query, id=id_)
