"""The network: tree convolution as products and gathering, equal to its definition."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pytest_pilotscope.algorithms.devices import one_thread, seeded
from pytest_pilotscope.algorithms.plans.featurize import Featurizer, PlanArrays, merged, scales_of
from pytest_pilotscope.algorithms.plans.network import PlanNetwork, Trees

from .lero_example import SUBPLANS, TABLES, node, plans, random_plans, scan

CPU = torch.device("cpu")
FEATURIZER = Featurizer(TABLES, scales_of([(random_plans(30), SUBPLANS)]))


def network(seed: int = 1) -> PlanNetwork:
    """A network with random weights, biases and norms too."""
    with seeded(seed):
        made = PlanNetwork(FEATURIZER.width)
        for parameter in made.parameters():
            parameter.data = torch.randn_like(parameter) * 0.2
    return made


def defined(net: PlanNetwork, arrays: PlanArrays, plan: int) -> Tensor:
    """The score of one plan as the paper defines it: node by node, with zeros for a child that is not there."""
    weights = dict(net.named_parameters())
    features = torch.from_numpy(arrays.features)
    nodes: list[int] = []

    def collect(row: int) -> None:
        nodes.append(row)
        for side in (arrays.left, arrays.right):
            if side[row] >= 0:
                collect(int(side[row]))

    collect(int(arrays.trees[plan, 0]))
    values = {row: features[row] for row in nodes}
    layers = (
        (weights["first.weight"].chunk(3, dim=1), weights["first.bias"]),
        (weights["second.weights.weight"].chunk(3, dim=0), weights["second.bias"]),
        (weights["third.weights.weight"].chunk(3, dim=0), weights["third.bias"]),
    )
    for (matrices, bias), norm in zip(layers, net.norms, strict=True):
        values = {row: functional.leaky_relu(norm(_filtered(values, row, arrays, matrices) + bias)) for row in nodes}
    pooled = torch.stack([values[row] for row in nodes]).amax(dim=0)
    score: Tensor = net.output(functional.leaky_relu(net.hidden(pooled)))
    return score


def _filtered(values: dict[int, Tensor], row: int, arrays: PlanArrays, matrices: tuple[Tensor, ...]) -> Tensor:
    own, left, right = matrices
    summed: Tensor = own @ values[row]
    if arrays.left[row] >= 0:
        summed = summed + left @ values[int(arrays.left[row])]
    if arrays.right[row] >= 0:
        summed = summed + right @ values[int(arrays.right[row])]
    return summed


def test_network_computes_what_the_paper_defines() -> None:
    """Shared subtrees, products before gathering and edges instead of padding change nothing, gradients included."""
    net = network()
    some = [*plans(), *random_plans(6), scan("u"), node("Append", scan("u"), scan("p"), scan("c"))]
    arrays = FEATURIZER.arrays(some, SUBPLANS)
    with one_thread():
        found = net(Trees.of(arrays, CPU))
        wanted = torch.cat([defined(net, arrays, plan) for plan in range(len(some))])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    weights = torch.arange(len(some)) - 3.0
    gradients = torch.autograd.grad((found * weights).sum(), list(net.parameters()))
    for gradient, other in zip(gradients, torch.autograd.grad((wanted * weights).sum(), list(net.parameters())), strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-3)


def test_a_score_does_not_depend_on_the_plans_beside_it() -> None:
    """Alone, among the candidates of its query, and in a batch with larger plans of other queries, a plan has the same score."""
    net = network()
    large = node("Limit", *(node("Sort", plan) for plan in random_plans(9)))
    some = [*plans(), scan("c")]
    parts = [FEATURIZER.arrays([plan], SUBPLANS) for plan in some]
    with one_thread(), torch.no_grad():
        alone = torch.cat([net(Trees.of(arrays, CPU)) for arrays in parts])
        together = net(Trees.of(FEATURIZER.arrays(some, SUBPLANS), CPU))
        batch = net(Trees.of(merged([FEATURIZER.arrays([large], SUBPLANS), *parts]), CPU))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(batch[1:], alone, rtol=1e-5, atol=1e-6)
    assert len(set(alone.tolist())) == len(some)


def test_a_score_depends_on_sides_order_and_rows() -> None:
    """Swapped sides, another operator deep below, or other rows of a scan make another score."""
    net = network()
    base = node("Hash Join", scan("u"), node("Hash", scan("p")), rows=300.0)
    changed = [
        node("Hash Join", node("Hash", scan("p")), scan("u"), rows=300.0),
        node("Hash Join", scan("u", "Index Scan"), node("Hash", scan("p")), rows=300.0),
        node("Hash Join", scan("u"), node("Hash", scan("p") | {"Plan Rows": 2.0}), rows=300.0),
    ]
    with torch.no_grad():
        scores = net(Trees.of(FEATURIZER.arrays([base, *changed], SUBPLANS), CPU))
    assert len(set(scores.tolist())) == 4
