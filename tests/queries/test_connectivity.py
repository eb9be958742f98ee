"""The subsets of a join graph that an optimizer considers, against their definitions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.queries.connectivity import connected_subsets, is_connected, planner_subsets


@st.composite
def graphs(draw: st.DrawFn) -> list[int]:
    """Neighbour masks of an undirected graph with up to 7 nodes."""
    size = draw(st.integers(1, 7))
    neighbours = [0] * size
    for a in range(size):
        for b in range(a):
            if draw(st.booleans()):
                neighbours[a] |= 1 << b
                neighbours[b] |= 1 << a
    return neighbours


def reaches_all(mask: int, neighbours: list[int]) -> bool:
    """Tell by definition whether a mask is connected: every node is reached from the lowest one without leaving the mask."""
    nodes = {node for node in range(len(neighbours)) if mask >> node & 1}
    reached, todo = set(), [min(nodes)]
    while todo:
        node = todo.pop()
        reached.add(node)
        todo += [other for other in nodes - reached if neighbours[node] >> other & 1]
    return reached == nodes


@settings(deadline=None)
@given(graphs())
def test_each_connected_subset_once_and_in_order(neighbours: list[int]) -> None:
    """The enumeration equals a test of all subsets, sorted by size and mask."""
    expected = [mask for mask in range(1, 1 << len(neighbours)) if reaches_all(mask, neighbours)]
    assert connected_subsets(neighbours) == sorted(expected, key=lambda mask: (mask.bit_count(), mask))
    assert all(is_connected(mask, neighbours) for mask in expected)


@settings(deadline=None)
@given(graphs())
def test_the_planner_reaches_the_whole_query(neighbours: list[int]) -> None:
    """Connected subsets are always among the planner's, the whole query is the last, and nothing else is added to a connected graph."""
    found = planner_subsets(neighbours)
    assert set(connected_subsets(neighbours)) <= set(found)
    assert found[-1] == (1 << len(neighbours)) - 1
    assert len(found) == len(set(found))
    if is_connected(found[-1], neighbours):
        assert found == connected_subsets(neighbours)


def test_a_clique_of_seventeen_is_enumerated_completely() -> None:
    """Every non-empty subset of a clique is connected."""
    everything = (1 << 17) - 1
    assert len(connected_subsets([everything & ~(1 << node) for node in range(17)])) == everything
