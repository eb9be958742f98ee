"""
The pairs that Lero learns from: batches of whole queries, a plan scored once, pairs formed on the scores.

A plan takes part in many pairs. Both of a pair's scores come from the same pass over the batch, so its cost is that of its plans,
not of its pairs. Which queries share a batch is drawn once; the order of the batches is drawn for every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pytest_pilotscope.algorithms.plans.featurize import PlanArrays, merged
from pytest_pilotscope.algorithms.plans.fitting import HyperParameters, Learned, Objective, fit
from pytest_pilotscope.algorithms.plans.network import PlanNetwork, Trees
from pytest_pilotscope.errors import AlgorithmError, counted


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPlans:
    """The plans of one query and their (P, 2) pairs with a known order, the faster plan first."""

    arrays: PlanArrays
    pairs: Sequence[tuple[int, int]]


class PairBatch(NamedTuple):
    """Some queries: their plans as tensors, and their pairs as (P,) numbers of the faster and the slower plan."""

    trees: Trees
    faster: Tensor
    slower: Tensor


def learn(
    queries: Sequence[RankedPlans],
    validation: Sequence[RankedPlans],
    *,
    parameters: HyperParameters,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
    start: PlanNetwork | None = None,
) -> Learned:
    """Train a network on pairs, see `fit`; `validation_share` is that of pairs in the right order. AlgorithmError if there are no pairs."""
    if not any(query.pairs for query in queries):
        several = counted(len(queries), "training query has", "training queries have")
        raise AlgorithmError(
            f"lero has no pair of plans to learn from: {several} several plans, and in none it is known that one is faster; collect more "
            "queries (--collection-size), or queries with more joins"
        )
    return fit(
        OBJECTIVE,
        queries[0].arrays.features.shape[1],
        lambda shuffler: batched(queries, parameters.batch_size, device, shuffler),
        batched(validation, 32 * parameters.batch_size, device),
        parameters=parameters,
        device=device,
        advance=advance,
        start=start,
    )


def batched(
    queries: Sequence[RankedPlans], batch_size: int, device: torch.device, shuffler: np.random.Generator | None = None
) -> list[PairBatch]:
    """Make batches of at least `batch_size` pairs from queries that have pairs, in random order if there is a shuffler."""
    useful = [query for query in queries if query.pairs]
    order = range(len(useful)) if shuffler is None else shuffler.permutation(len(useful))
    batches: list[PairBatch] = []
    chosen: list[RankedPlans] = []
    for position in order:
        chosen.append(useful[position])
        if sum(len(query.pairs) for query in chosen) >= batch_size:
            batches.append(_batch(chosen, device))
            chosen = []
    if chosen:
        batches.append(_batch(chosen, device))
    return batches


def _batch(queries: Sequence[RankedPlans], device: torch.device) -> PairBatch:
    offsets = np.cumsum([0, *(len(query.arrays.trees) for query in queries[:-1])])
    pairs = np.concatenate([np.array(query.pairs, dtype=np.int64) + offset for query, offset in zip(queries, offsets, strict=True)])
    faster, slower = (torch.from_numpy(np.ascontiguousarray(pairs[:, side])).to(device) for side in (0, 1))
    return PairBatch(Trees.of(merged([query.arrays for query in queries]), device), faster, slower)


def pair_losses(scores: Tensor, batch: PairBatch) -> Tensor:
    """
    Return the (P,) binary cross-entropies: -log of the predicted probability that the faster plan is the faster one.

    That probability is the sigmoid of the difference of the scores.
    """
    return functional.softplus(scores.index_select(0, batch.faster) - scores.index_select(0, batch.slower))


OBJECTIVE = Objective(algorithm="lero", losses=pair_losses, good=math.log(2))
