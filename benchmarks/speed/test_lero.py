"""
Speed of Lero's learning and choosing, beside the usual implementation of tree convolution, rewritten here in a few lines.

    pytest benchmarks/speed/test_lero.py

The usual implementation: a plan is a nested tuple of float64 vectors; for every batch of pairs both plans of each pair are flattened and
padded to the largest plan of the batch, and all of them go through the network. Ours is `algorithms/lero`. Both train the same layers, on
the same pairs of plans of the generated workload, on one thread, in turns. Times are processor times, so that other processes matter less;
ratios are ratios of medians. On a busy machine a median measures the other processes, too, so the report also has the shortest times.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from time import process_time_ns
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.speed.conftest import provisioned, workload_of
from pytest_pilotscope.algorithms.devices import one_thread, seeded
from pytest_pilotscope.algorithms.lero.candidates import Candidates, all_slots, explore, look
from pytest_pilotscope.algorithms.lero.learning import OBJECTIVE, RankedPlans, batched
from pytest_pilotscope.algorithms.lero.policy import Policy
from pytest_pilotscope.algorithms.lero.scoring import TrainedModel
from pytest_pilotscope.algorithms.plans.featurize import OPERATORS, Featurizer, scales_of
from pytest_pilotscope.algorithms.plans.fitting import HyperParameters, Stepper, no_denormals
from pytest_pilotscope.algorithms.plans.network import PlanNetwork
from pytest_pilotscope.algorithms.plans.saved_features import CHANNELS, HIDDEN_UNITS
from pytest_pilotscope.postgres.planning import RawPlan

PLANS = 490
PER_QUERY = 13
BATCH_PAIRS = 64
FACTORS = (0.01, 0.1, 10.0, 100.0)
KNOWN_BATCHES = 6
TURNS = 5

Tree = tuple[Any, ...]


@pytest.fixture(scope="module")
def explored() -> Iterator[list[Candidates]]:
    """Return the candidates of queries of `stats_tiny` that have many, 490 plans in all."""
    found: list[Candidates] = []
    with provisioned() as database, database.session() as session:
        for query in workload_of(database).train:
            if sum(len(each.plans) for each in found) >= PLANS:
                break
            seen = look(session, query.sql)
            if seen.largest >= 5:
                candidates = explore(session, query.sql, seen, all_slots(seen.subplans, FACTORS), max_candidates=PER_QUERY)
                if len(candidates.plans) >= PER_QUERY - 4:
                    found.append(candidates)
        yield found


class KnownWay(nn.Module):
    """Layers of the same sizes over padded trees, channels first, in float64; each layer is a convolution over (node, left, right)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [width, *CHANNELS]
        self.filters = nn.ModuleList(nn.Conv1d(before, after, 3, stride=3) for before, after in zip(sizes, CHANNELS, strict=False))
        self.hidden, self.output = nn.Linear(CHANNELS[-1], HIDDEN_UNITS), nn.Linear(HIDDEN_UNITS, 1)
        self.double()

    def forward(self, trees: Sequence[Tree]) -> Tensor:
        """Map T nested tuples to (T,) scores."""
        nodes, indices = padded(trees)  # (T, F, 1 + N), (T, 3N)
        for layer in self.filters:
            triples = nodes.gather(2, indices[:, None, :].expand(-1, nodes.shape[1], -1))  # (T, F, 3N)
            nodes = functional.pad(layer(triples), (1, 0))
            spread = nodes.std(dim=(1, 2), keepdim=True) + 1e-5
            nodes = functional.leaky_relu((nodes - nodes.mean(dim=(1, 2), keepdim=True)) / spread)
        scores: Tensor = self.output(functional.leaky_relu(self.hidden(nodes.amax(dim=2)))).squeeze(1)
        return scores


def padded(trees: Sequence[Tree]) -> tuple[Tensor, Tensor]:
    """Flatten nested tuples: column 0 of each tree and the columns after its nodes are zeros."""
    flat = [flattened(tree) for tree in trees]
    longest = max(len(vectors) for vectors, _ in flat)
    nodes = np.zeros((len(trees), 1 + longest, len(flat[0][0][0])))
    indices = np.zeros((len(trees), longest, 3), dtype=np.int64)
    for number, (vectors, triples) in enumerate(flat):
        nodes[number, 1 : len(vectors) + 1] = vectors
        indices[number, : len(vectors)] = triples
    return torch.from_numpy(nodes.swapaxes(1, 2).copy()), torch.from_numpy(indices).flatten(1)


def flattened(tree: Tree) -> tuple[list[Any], list[tuple[int, int, int]]]:
    """Return the vectors of the nodes in pre-order, and for each the rows of itself and its children, from 1."""
    vectors: list[Any] = []
    triples: list[tuple[int, int, int]] = []

    def visit(node: Tree) -> int:
        row = len(vectors)
        vectors.append(node[0])
        triples.append((0, 0, 0))
        children = [visit(child) for child in node[1:]]
        left, right = [*children, 0, 0][:2]
        triples[row] = (row + 1, left, right)
        return row + 1

    visit(tree)
    return vectors, triples


def nested(plan: RawPlan, featurizer: Featurizer, below: set[str]) -> Tree:
    """Return a plan as a nested tuple of new vectors."""
    tables: set[str] = {plan["Relation Name"]} if "Relation Name" in plan else set()
    children = [nested(child, featurizer, tables) for child in plan.get("Plans", ())[:2]]
    below |= tables
    one_hot = np.zeros(len(OPERATORS))
    one_hot[OPERATORS.index(plan["Node Type"])] = 1
    rest = [float(table in tables) for table in featurizer.tables]
    numbers = [np.log(plan["Plan Rows"] + 1) / 20, np.log(plan["Plan Width"] + 1) / 10, float(plan["Parallel Aware"])]
    return (np.concatenate((one_hot, rest, numbers)), *children)


def featurizer_of(explored: Sequence[Candidates]) -> Featurizer:
    """Make a featurizer of all tables in the plans."""
    tables = {alias for candidates in explored for plan in candidates.plans for alias in tables_of(plan)}
    return Featurizer(sorted(tables), scales_of((each.plans, each.look.subplans) for each in explored))


def tables_of(plan: RawPlan) -> set[str]:
    """Return the tables that a plan scans."""
    own = {plan["Relation Name"]} if "Relation Name" in plan else set()
    return own.union(*(tables_of(child) for child in plan.get("Plans", ())))


def test_training(explored: list[Candidates], benchmark: BenchmarkFixture, show: Callable[[str], None]) -> None:
    """Both ways train an epoch over all pairs; the report has their pairs per second."""
    featurizer = featurizer_of(explored)
    queries = [
        RankedPlans(arrays=featurizer.arrays(each.plans, each.look.subplans), pairs=list(combinations(range(len(each.plans)), 2)))
        for each in explored
    ]
    pairs = sum(len(query.pairs) for query in queries)
    with seeded(0), one_thread(), no_denormals():
        stepper = Stepper(PlanNetwork(featurizer.width), HyperParameters(), OBJECTIVE)
        batches = batched(queries, BATCH_PAIRS, torch.device("cpu"), np.random.default_rng(0))
        known = known_steps(explored, featurizer)
        times_s: list[tuple[float, float]] = []

        def turn() -> None:
            started_ns = process_time_ns()
            for batch in batches:
                stepper.step(batch)
            ours_ns = process_time_ns()
            for _ in range(KNOWN_BATCHES):
                next(known)
            times_s.append(((ours_ns - started_ns) / 1e9, (process_time_ns() - ours_ns) / 1e9))

        turn()
        times_s.clear()
        benchmark.pedantic(turn, rounds=TURNS)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    ours = pairs / statistics.median(ours for ours, _ in times_s)
    theirs = KNOWN_BATCHES * BATCH_PAIRS / statistics.median(known for _, known in times_s)
    benchmark.extra_info.update(plans=sum(len(each.plans) for each in explored), pairs=pairs, pairs_per_s=ours, known_pairs_per_s=theirs)
    show(
        f"lero: {pairs} pairs of {sum(len(each.plans) for each in explored)} plans of {len(explored)} queries: {ours:,.0f} pairs/s; "
        f"the known way {theirs:,.0f} pairs/s; ratio {ours / theirs:.0f} (goal 40)",
    )


def known_steps(explored: Sequence[Candidates], featurizer: Featurizer) -> Iterator[None]:
    """Train the usual implementation without end, a batch at a time."""
    network = KnownWay(featurizer.width)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    trees = [[nested(plan, featurizer, set()) for plan in each.plans] for each in explored]
    pairs = [(plans[fast], plans[slow]) for plans in trees for fast, slow in combinations(range(len(plans)), 2)]
    shuffler = np.random.default_rng(0)
    while True:
        chosen = [pairs[position] for position in shuffler.choice(len(pairs), BATCH_PAIRS, replace=False)]
        faster, slower = network([fast for fast, _ in chosen]), network([slow for _, slow in chosen])
        loss = functional.softplus(faster - slower).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield


def test_featurizing(explored: list[Candidates], benchmark: BenchmarkFixture, show: Callable[[str], None]) -> None:
    """Ours makes arrays of every plan once; the usual implementation makes nested tuples of it, once per pair."""
    featurizer = featurizer_of(explored)
    plans = sum(len(each.plans) for each in explored)
    pairs = sum(len(each.plans) * (len(each.plans) - 1) // 2 for each in explored)

    def ours() -> None:
        for each in explored:
            featurizer.arrays(each.plans, each.look.subplans)

    def theirs() -> None:
        for each in explored:
            for plan in each.plans:
                nested(plan, featurizer, set())

    ours_us, theirs_us, least_us = (1e6 * seconds / plans for seconds in in_turns(ours, theirs, turns=20))
    benchmark.pedantic(ours, rounds=TURNS)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    times = 2 * pairs / plans
    benchmark.extra_info.update(us_per_plan=ours_us, known_us_per_plan=theirs_us, times_per_plan=times)
    show(
        f"lero: featurizing: {ours_us:.0f} us a plan, at least {least_us:.0f}, once (goal 30); the known way {theirs_us:.0f} us, "
        f"{times:.1f} times; ratio {theirs_us / ours_us:.1f}, of all work {times * theirs_us / ours_us:.0f} (goal 10)",
    )


def test_scoring(explored: list[Candidates], benchmark: BenchmarkFixture, show: Callable[[str], None]) -> None:
    """Both ways score 15 plans of a query, from EXPLAIN's decoded JSON."""
    featurizer = featurizer_of(explored)
    most = max(explored, key=lambda each: len(each.plans))
    plans = [*most.plans, *most.plans][:15]
    with seeded(0):
        network, known = PlanNetwork(featurizer.width).eval(), KnownWay(featurizer.width).eval()
    model = TrainedModel(featurizer=featurizer, network=network, policy=Policy(factors=FACTORS, max_candidates=20))

    def ours() -> None:
        model.scores(plans, most.look.subplans)

    def theirs() -> None:
        with torch.no_grad(), one_thread():
            known([nested(plan, featurizer, set()) for plan in plans])

    ours_ms, theirs_ms, least_ms = (1e3 * seconds for seconds in in_turns(ours, theirs, turns=50))
    benchmark.pedantic(ours, rounds=50)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    benchmark.extra_info.update(ms_per_query=ours_ms, known_ms_per_query=theirs_ms)
    show(
        f"lero: scoring 15 plans from JSON: {ours_ms:.2f} ms, at least {least_ms:.2f} (goal 2.2); the known way {theirs_ms:.2f} ms; "
        f"ratio {theirs_ms / ours_ms:.1f}",
    )


def in_turns(one: Callable[[], None], other: Callable[[], None], *, turns: int) -> tuple[float, float, float]:
    """Run two ways in turns; return the medians of their times, and the shortest time of the first, in s."""
    times: list[tuple[float, float]] = []
    for _ in range(turns + 1):
        started_ns = process_time_ns()
        one()
        between_ns = process_time_ns()
        other()
        times.append(((between_ns - started_ns) / 1e9, (process_time_ns() - between_ns) / 1e9))
    first, second = zip(*times[1:], strict=True)
    return statistics.median(first), statistics.median(second), min(first)
