"""The training of mscn: batches, the loss, equality with the padded network of the paper, determinism, early stopping."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pytest_pilotscope.algorithms.devices import device, one_thread, seeded
from pytest_pilotscope.algorithms.mscn.featurize import SETS
from pytest_pilotscope.algorithms.mscn.learning import LARGEST_BATCH, HyperParameters, batch_size_for, estimated, learn, loss, loss_of
from pytest_pilotscope.algorithms.mscn.model import MscnNetwork, SetEncoder
from pytest_pilotscope.algorithms.mscn.ragged import Bags, Batch, Features, LabelledSubplans, labelled, spans
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import AlgorithmError, UsageError

from .mscn_example import counted, featurizer, queries, training_set

CPU = torch.device("cpu")


def chosen(**parameters: Any) -> HyperParameters:
    """The default options of mscn with some other ones."""
    return HyperParameters(
        **{"epochs": 100, "seed": 0, **builtin_registry().options("mscn", {}), "batch_size": LARGEST_BATCH, **parameters}
    )


def widths(samples: LabelledSubplans) -> dict[str, int]:
    """Features per element of each set."""
    return {name: part.shape[1] for name, part in zip(SETS, samples.features, strict=True)}


def padded(batch: Batch, number: int) -> tuple[Tensor, Tensor]:
    """One set of every sample as (B, S, F) with zeros beyond its elements, and the (B, S, 1) mask of its elements."""
    features = batch.features[number]
    first = sum(map(len, batch.features[:number]))
    sets = [part[(part >= first) & (part < first + len(features))] - first for part in np.split(batch.bags.members, batch.bags.offsets[1:])]
    elements = torch.zeros(len(sets), max(map(len, sets)), features.shape[1])
    mask = torch.zeros(len(sets), elements.shape[1], 1)
    for sample, members in enumerate(sets):
        elements[sample, : len(members)] = torch.from_numpy(features[members])
        mask[sample, : len(members)] = 1
    return elements, mask


def paper(network: MscnNetwork, batch: Batch) -> Tensor:
    """The network as the paper writes it: every element of every sample, averaged, concatenated, output MLP."""
    averages: list[Tensor] = []
    blocks: list[Tensor] = []
    bias = torch.zeros(())
    for number, encoder in enumerate(network.sets.values()):
        assert isinstance(encoder, SetEncoder)
        elements, mask = padded(batch, number)
        encoded = torch.relu(encoder.second(torch.relu(encoder.first(elements)))) * mask
        averages.append(encoded.sum(dim=1) / mask.sum(dim=1).clamp(min=1))
        blocks.append(encoder.merge.weight)
        bias = encoder.merge.bias if number == 0 else bias
    hidden = torch.relu(torch.cat(averages, dim=1) @ torch.cat(blocks, dim=1).T + bias)
    return network.lowest + torch.sigmoid(network.output(hidden)).squeeze(1) * (network.highest - network.lowest)


def test_network_computes_what_the_paper_writes() -> None:
    """Encoding distinct elements once and merging before the average changes nothing, gradients included."""
    samples = training_set(20)
    with seeded(3):
        network = MscnNetwork(widths(samples), hidden=16)
    network.set_label_range(0.0, 12.0, 5.0)
    [batch] = samples.batches(2048, np.arange(20))
    with one_thread():
        found, wanted = estimated(network, batch), paper(network, batch)
        gradients = [torch.autograd.grad(result.square().sum(), list(network.parameters())) for result in (found, wanted)]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_loss_is_the_mean_q_error_up_to_the_bend() -> None:
    """Below the bend it is the mean q-error; above, each further factor of e adds the q-error of the bend."""
    true = torch.log(torch.tensor([10.0, 10.0]))
    assert loss(torch.log(torch.tensor([20.0, 5.0])), true, math.e).item() == pytest.approx(2.0)
    far = torch.log(torch.tensor([10.0 * math.e**3]))
    assert loss(far, true[:1], math.e).item() == pytest.approx(3 * math.e)


def test_loss_of_an_absurd_estimate_is_finite() -> None:
    """An untrained network may be wrong by a factor of 10^100; the loss and its gradient stay numbers."""
    estimated = torch.tensor([230.0], requires_grad=True)
    value = loss(estimated, torch.zeros(1), math.e)
    [gradient] = torch.autograd.grad(value, [estimated])
    assert (value.item(), gradient.item()) == pytest.approx((230 * math.e, math.e))


def test_same_seed_same_weights() -> None:
    """Two trainings with the same seed give bit-equal weights, and another seed gives others."""
    samples, validation = training_set(12), training_set(4, seed=9)
    first, second, third = (
        learn(samples, validation, widths=widths(samples), parameters=chosen(epochs=3, hidden_units=8, seed=seed), device=CPU)
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert first.train_loss == second.train_loss != third.train_loss


def test_training_leaves_threads_and_random_numbers_alone() -> None:
    """Learning sets one thread and a seed for itself only."""
    samples = training_set(5)
    torch.manual_seed(7)
    wanted, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(7)
    learn(samples, samples, widths=widths(samples), parameters=chosen(epochs=1, hidden_units=4), device=CPU)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.rand(3), wanted)


def test_learns_from_fewer_samples_than_a_batch() -> None:
    """A handful of queries is one batch per epoch, and the loss falls."""
    samples = training_set(10)
    assert len(list(samples.batches(2048, np.arange(10)))) == 1
    parameters = chosen(epochs=60, hidden_units=32, learning_rate=0.01)
    found = learn(samples, samples, widths=widths(samples), parameters=parameters, device=CPU)
    assert found.train_loss[-1] - 1 < 0.3 * (found.train_loss[0] - 1)


def test_one_query_is_enough() -> None:
    """Training on a single query works."""
    samples = training_set(1)
    found = learn(samples, samples, widths=widths(samples), parameters=chosen(epochs=2, hidden_units=4), device=CPU)
    assert len(found.train_loss) == 2


def test_stops_early_and_keeps_the_best_epoch() -> None:
    """With validation labels that training only moves away from, it stops after `patience` epochs and keeps the best weights."""
    samples = training_set(10)
    validation = replace(samples, labels=np.full_like(samples.labels, samples.labels.mean()))
    parameters = chosen(epochs=80, hidden_units=32, patience=3)
    found = learn(samples, validation, widths=widths(samples), parameters=parameters, device=CPU)
    assert found.best_epoch == int(np.argmin(found.validation_loss))
    assert len(found.train_loss) == found.best_epoch + 1 + parameters.patience < parameters.epochs
    network = MscnNetwork(widths(samples), hidden=32)
    network.load_state_dict(found.weights)
    with torch.no_grad():
        estimates = torch.cat([estimated(network, batch) for batch in validation.batches(2048, np.arange(10))])
    assert float((estimates - torch.from_numpy(validation.labels)).abs().mean()) == pytest.approx(
        found.validation_loss[found.best_epoch], 1e-5
    )


def test_without_validation_the_last_epoch_is_kept() -> None:
    """No validation samples: all epochs run, and there are no validation figures."""
    samples, nothing = training_set(5), training_set(0)
    found = learn(samples, nothing, widths=widths(samples), parameters=chosen(epochs=4, hidden_units=4), device=CPU)
    assert (len(found.train_loss), found.best_epoch, found.validation_qerror_p50) == (4, 3, [])


def test_validation_figures_are_quantiles_of_the_q_error() -> None:
    """p95 is at least p50, and both are at least 1, one of each per epoch."""
    samples = training_set(10)
    found = learn(samples, samples, widths=widths(samples), parameters=chosen(epochs=2, hidden_units=4), device=CPU)
    assert len(found.validation_qerror_p50) == len(found.validation_qerror_p95) == 2
    assert all(1 <= low <= high for low, high in zip(found.validation_qerror_p50, found.validation_qerror_p95, strict=True))


def test_nothing_to_learn_from_is_an_error() -> None:
    """No labelled subplan: nothing is trained."""
    nothing = training_set(0)
    message = "mscn has no labelled subplan to learn from; give it training queries whose subplans can be counted"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        learn(nothing, nothing, widths=widths(nothing), parameters=chosen(), device=CPU)


def test_loss_that_is_not_a_number_is_an_error() -> None:
    """A NaN in the features ends training instead of making a model of NaNs."""
    samples = training_set(5)
    samples.features[0][0, 0] = np.nan
    message = "the training loss of mscn became nan; lower the learning rate or look at the labels"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        learn(samples, samples, widths=widths(samples), parameters=chosen(epochs=1, hidden_units=4), device=CPU)


def test_progress_is_told_per_epoch() -> None:
    """`advance` is called once per epoch."""
    samples, steps = training_set(3), list[int]()
    learn(samples, samples, widths=widths(samples), parameters=chosen(epochs=3, hidden_units=4), device=CPU, advance=steps.append)
    assert steps == [1, 1, 1]


@pytest.mark.parametrize(("subplans", "batch_size"), [(1, 32), (640, 64), (1100, 64), (21_921, 2048), (10**6, 2048)])
def test_an_epoch_has_ten_steps(subplans: int, batch_size: int) -> None:
    """Few subplans are learned from in small batches; a batch is never smaller than 32 and never larger than 2048."""
    assert batch_size_for(subplans) == batch_size


@pytest.mark.parametrize(("epochs", "rate"), [(2, 2e-3), (4, 1e-3), (10, 5e-4)])
def test_a_loss_that_still_falls_is_named(caplog: pytest.LogCaptureFixture, epochs: int, rate: float) -> None:
    """The warning says how far it fell last, and what helps; a training that has settled is silent."""
    samples = training_set(30)
    learn(samples, samples, widths=widths(samples), parameters=chosen(epochs=epochs, learning_rate=rate), device=CPU)
    assert re.fullmatch(
        rf"mscn ended after {epochs} epochs while its validation loss still fell \([\d.]+ to [\d.]+ in the last 1\); "
        "let it learn on with more --epochs",
        caplog.messages[-1],
    )
    caplog.clear()
    learn(samples, samples, widths=widths(samples), parameters=chosen(epochs=epochs, learning_rate=1e-12), device=CPU)
    assert caplog.messages == []


def test_batches_hold_whole_queries_and_every_sample_once() -> None:
    """The samples of a query stay together, and an epoch sees each sample once."""
    samples = training_set(30)
    numbered = replace(samples, labels=np.arange(len(samples), dtype=np.float32))
    batches = list(numbered.batches(20, np.random.default_rng(0).permutation(30)))
    assert sorted(np.concatenate([batch.labels for batch in batches])) == list(range(len(samples)))
    assert max(len(batch.labels) for batch in batches) <= 20
    query_of = np.searchsorted(samples.queries, np.arange(len(samples)), side="right")
    seen: set[int] = set()
    for batch in batches:
        here = set(query_of[batch.labels.astype(int)].tolist())
        assert not here & seen
        seen |= here


def test_query_larger_than_a_batch_is_cut() -> None:
    """Only a query that does not fit is split, and nothing of it is lost."""
    samples = training_set(3)
    sizes = [len(batch.labels) for batch in samples.batches(2, np.arange(3))]
    assert max(sizes) == 2
    assert sum(sizes) == len(samples)


def test_batch_holds_the_distinct_elements_of_its_samples() -> None:
    """Gathering gives each sample its own elements of each set, each distinct one once."""
    samples = training_set(6)
    [batch] = samples.batches(2048, np.array([4, 2]))
    drawn = [sample for query in (4, 2) for sample in range(samples.queries[query], samples.queries[query + 1])]
    everything, here = np.concatenate([np.ones(len(part)) for part in samples.features]), sum(map(len, batch.features))
    assert here < everything.size
    ends = np.append(batch.bags.offsets, len(batch.bags.members))
    for position, sample in enumerate(drawn):
        theirs = slice(samples.offsets[sample], samples.offsets[sample + 1])
        ours = slice(ends[position], ends[position + 1])
        assert batch.bags.weights[ours].tolist() == samples.weights[theirs].tolist()
        for member, wanted in zip(batch.bags.members[ours], samples.members[theirs], strict=True):
            assert row(batch.features, member) == row(samples.features, wanted)
    assert sorted(set(batch.bags.members.tolist())) == list(range(here))


def row(features: Features, number: int) -> tuple[int, list[float]]:
    """The set and the features of an element, by its number through all sets."""
    for position, part in enumerate(features):
        if number < len(part):
            return position, part[number].tolist()
        number -= len(part)
    raise IndexError(number)


def test_weights_average_each_set() -> None:
    """The weights of a sample's tables sum to 1, and so do those of its joins and predicates where it has any."""
    samples = training_set(5)
    ends = np.cumsum([len(part) for part in samples.features])
    for first, last in zip(samples.offsets[:-1], samples.offsets[1:], strict=True):
        of_set = np.searchsorted(ends, samples.members[first:last], side="right")
        sums = np.bincount(of_set, weights=samples.weights[first:last], minlength=3)
        assert sums[0] == pytest.approx(1)
        assert all(total == 0 or total == pytest.approx(1) for total in sums[1:])


def test_transposed_sums_go_back() -> None:
    """The transpose sends each sum's gradient to the rows that it was made of, and rows in no sum get nothing."""
    bags = Bags(np.array([2, 0, 2, 3]), np.array([0.5, 0.25, 1.0, 2.0], dtype=np.float32), np.array([0, 0, 2]))
    back = bags.transposed(5)
    matrix = np.zeros((3, 5))
    matrix[[1, 1, 2, 2], bags.members] = bags.weights
    ends = np.append(back.offsets, 4)
    found = np.zeros((3, 5))
    for number in range(5):
        here = slice(ends[number], ends[number + 1])
        found[back.members[here], number] = back.weights[here]
    assert found.tolist() == matrix.tolist()


def test_spans_concatenate_ranges() -> None:
    """`spans` is arange for several starts at once, empty ones included."""
    assert spans(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert spans(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist() == []


def test_subplans_without_a_label_are_left_out() -> None:
    """A count that did not finish is no sample; zero rows count as one."""
    [(query, rows)] = counted(queries(1))
    [first, *others] = rows
    del rows[first]
    rows[others[0]] = 0
    found = labelled(featurizer(), [(query, rows)])
    assert len(found) == len(others)
    assert found.labels[0] == 0


def test_everything_of_a_step_is_on_the_device_of_the_network() -> None:
    """
    Forward, loss and gradient mix no devices: on PyTorch's "meta" device, which computes nothing, an operand on the CPU is an error.

    It stands in for CUDA, which is treated in the same way: arrays of a batch go to the device of the network.
    """
    samples = training_set(4)
    network = MscnNetwork(featurizer().widths, hidden=4).to("meta")
    (batch,) = samples.batches(len(samples), np.arange(4))
    estimates = estimated(network, batch)
    assert estimates.device.type == "meta"
    loss_of(network, batch, 2.0).backward()  # type: ignore[no-untyped-call]
    assert {parameter.grad.device.type for parameter in network.parameters() if parameter.grad is not None} == {"meta"}


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--device cuda` never falls back to the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = "--device cuda was asked for, but this installation of PyTorch finds no CUDA device; use --device cpu or auto"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        device("cuda")
    assert device("auto") == device("cpu") == CPU


def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` prefers CUDA, `cpu` does not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (device("auto").type, device("cuda").type, device("cpu").type) == ("cuda", "cuda", "cpu")


def test_unknown_device_is_named() -> None:
    """A typo is an error with the known names."""
    with pytest.raises(UsageError, match=r"^unknown device 'gpu'; known: auto, cpu, cuda$"):
        device("gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device here")
def test_a_gpu_learns_the_same() -> None:
    """The losses of each epoch are those of the CPU, to three digits."""
    samples, validation = training_set(60), training_set(20, seed=1)
    parameters = chosen(epochs=10, batch_size=64)
    cpu, gpu = (
        learn(samples, validation, widths=widths(samples), parameters=parameters, device=torch.device(name)) for name in ("cpu", "cuda")
    )
    assert gpu.train_loss == pytest.approx(cpu.train_loss, rel=1e-3)
    assert gpu.validation_loss == pytest.approx(cpu.validation_loss, rel=1e-3)
    assert all(weights.device.type == "cpu" for weights in gpu.weights.values())
