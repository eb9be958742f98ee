"""The training of lero: batches, the loss, what it learns, determinism, early stopping."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from pytest_pilotscope.algorithms.devices import device, one_thread, seeded
from pytest_pilotscope.algorithms.lero.learning import RankedPlans, batched, learn, pair_losses
from pytest_pilotscope.algorithms.lero.pairs import ordered_pairs
from pytest_pilotscope.algorithms.plans.featurize import Featurizer, scales_of
from pytest_pilotscope.algorithms.plans.fitting import HyperParameters
from pytest_pilotscope.algorithms.plans.network import PlanNetwork, Trees
from pytest_pilotscope.algorithms.plans.timing import Outcome
from pytest_pilotscope.errors import AlgorithmError, UsageError
from pytest_pilotscope.postgres.planning import RawPlan

from .lero_example import SUBPLANS, TABLES, random_plans

CPU = torch.device("cpu")
FEATURIZER = Featurizer(TABLES, scales_of([(random_plans(200), SUBPLANS)]))
FEW = HyperParameters(epochs=8, seed=3)


def made_up_ms(plan: RawPlan) -> float:
    """Nested loops are slow, and the more so the higher up; index scans are fast."""
    below = sum(made_up_ms(child) for child in plan.get("Plans", ()))
    return 1 + below * {"Nested Loop": 3, "Merge Join": 1.5}.get(plan["Node Type"], 1) * (0.5 if plan["Node Type"] == "Index Scan" else 1)


def ranked(count: int, *, seed: int = 0, plans: int = 6) -> list[RankedPlans]:
    """Queries with random plans whose times follow from their operators."""
    made = []
    for number in range(count):
        some = random_plans(plans, seed=1000 * seed + number)
        pairs = ordered_pairs([Outcome(times_ms=(made_up_ms(plan),)) for plan in some])
        made.append(RankedPlans(arrays=FEATURIZER.arrays(some, SUBPLANS), pairs=pairs))
    return made


def test_it_learns_which_plan_is_faster() -> None:
    """On queries that it has not seen it orders nearly all pairs, and the loss has fallen."""
    learned = learn(ranked(60), ranked(20, seed=1), parameters=replace(FEW, epochs=15), device=CPU)
    assert learned.validation_share[learned.best_epoch] > 0.9
    assert learned.train_loss[-1] < 0.5 * learned.train_loss[0]


def test_a_pairs_loss_is_the_cross_entropy_of_the_difference() -> None:
    """-log(sigmoid(score of the slower - score of the faster)), whoever else is in the batch."""
    queries = ranked(3)
    with seeded(1), one_thread(), torch.no_grad():
        network = PlanNetwork(FEATURIZER.width)
        (batch,) = batched(queries, 10_000, CPU)
        losses = pair_losses(network(batch.trees), batch).tolist()
        wanted = []
        for query in queries:
            scores = network(Trees.of(query.arrays, CPU)).tolist()
            wanted += [-math.log(1 / (1 + math.exp(scores[fast] - scores[slow]))) for fast, slow in query.pairs]
    assert losses == pytest.approx(wanted, rel=1e-4)


def test_batches_hold_every_pair_once() -> None:
    """Whole queries are put together until there are enough pairs; queries without pairs are not in any batch."""
    queries = [*ranked(10), RankedPlans(arrays=FEATURIZER.arrays(random_plans(1), SUBPLANS), pairs=[])]
    batches = batched(queries, 25, CPU, np.random.default_rng(0))
    sizes = [len(batch.faster) for batch in batches]
    assert sum(sizes) == sum(len(query.pairs) for query in queries)
    assert all(size >= 25 for size in sizes[:-1])
    assert sum(len(batch.trees.plans) for batch in batches) == 60


def test_same_seed_same_weights() -> None:
    """Training is repeatable on a CPU, leaves PyTorch's random numbers alone, and depends on the seed."""
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (learn(ranked(8), [], parameters=replace(FEW, epochs=2, seed=seed), device=CPU) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), before)
    assert all(torch.equal(first.weights[name], again.weights[name]) for name in first.weights)
    assert first.train_loss == again.train_loss != other.train_loss


def test_the_best_epoch_is_kept_and_training_stops_early() -> None:
    """Validation pairs that are the wrong way round get worse from the first epoch on: it is kept, and patience ends the rest."""
    queries = ranked(20)
    contrary = [replace(query, pairs=[(slow, fast) for fast, slow in query.pairs]) for query in queries]
    learned = learn(queries, contrary, parameters=replace(FEW, epochs=50, patience=3), device=CPU)
    assert learned.best_epoch == 0
    assert len(learned.train_loss) == len(learned.validation_loss) == len(learned.validation_share) == 4
    first = learn(queries, [], parameters=replace(FEW, epochs=1), device=CPU)
    assert all(torch.equal(first.weights[name], learned.weights[name]) for name in first.weights)


def test_without_validation_the_last_epoch_is_kept() -> None:
    """There is nothing to choose by, so all epochs are trained."""
    learned = learn(ranked(4), [], parameters=FEW, device=CPU)
    assert (learned.best_epoch, len(learned.train_loss), learned.validation_share) == (7, 8, [])


def test_it_goes_on_from_a_network() -> None:
    """An update begins where the last training ended."""
    queries = ranked(30)
    parameters = replace(FEW, epochs=10)
    first = learn(queries, [], parameters=parameters, device=CPU)
    network = PlanNetwork(FEATURIZER.width)
    network.load_state_dict(first.weights)
    further = learn(queries, [], parameters=replace(parameters, epochs=1), device=CPU, start=network)
    assert further.train_loss[0] < 0.7 * first.train_loss[0]


@pytest.mark.parametrize(
    ("count", "counted"), [(0, "0 training queries have"), (1, "1 training query has"), (2, "2 training queries have")]
)
def test_no_pairs_is_an_error(count: int, counted: str) -> None:
    """A workload without a single pair cannot be learned from, and it is said what to do."""
    text = (
        f"lero has no pair of plans to learn from: {counted} several plans, and in none it is known that one is faster; collect more "
        "queries (--collection-size), or queries with more joins"
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(text)}$"):
        learn([replace(query, pairs=[]) for query in ranked(count)], [], parameters=FEW, device=CPU)


def test_a_loss_that_is_no_number_is_an_error() -> None:
    """It is not trained on, and no model comes of it."""
    queries = ranked(2)
    queries[0].arrays.features[0, 0] = np.nan
    with pytest.raises(AlgorithmError, match=r"^the training loss of lero became nan; look at the collected times$"):
        learn(queries, [], parameters=FEW, device=CPU)


def test_devices() -> None:
    """An unknown device and a missing GPU are usage errors; auto is always something."""
    assert device("auto").type in ("cpu", "cuda")
    with pytest.raises(UsageError, match=r"^unknown device 'tpu'; known: auto, cpu, cuda$"):
        device("tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")
def test_a_gpu_learns_the_same() -> None:
    """The losses of each epoch are those of the CPU, to three digits."""
    cpu, gpu = (learn(ranked(30), ranked(10), parameters=FEW, device=torch.device(name)) for name in ("cpu", "cuda"))
    assert gpu.train_loss == pytest.approx(cpu.train_loss, rel=1e-3)
    assert gpu.validation_loss == pytest.approx(cpu.validation_loss, rel=1e-3)
