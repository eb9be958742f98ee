"""Plans as arrays."""

from __future__ import annotations

from math import log1p

import numpy as np
import pytest

from pytest_pilotscope.algorithms.plans.featurize import (
    OPERATORS,
    DistinctNodes,
    Featurizer,
    OwnRows,
    PlanArrays,
    Scales,
    merged,
    scales_of,
)
from pytest_pilotscope.postgres.planning import RawPlan
from pytest_pilotscope.postgres.subplans import LeveledSubplan

from .lero_example import SUBPLANS, TABLES, join, node, plans, scan

SCALES = Scales(rows=(0.0, log1p(9999.0)), width=(0.0, log1p(99.0)))
FEATURIZER = Featurizer(TABLES, SCALES)


def row_of(arrays: PlanArrays, tree: int, position: int) -> dict[str, float]:
    """The features of a node, by name; nodes of a tree are counted from the root, the inner side of a join before the outer one."""
    names = [*OPERATORS, *TABLES, "rows", "width", "parallel"]
    values = arrays.features[arrays.trees[tree, position]]
    return {name: float(value) for name, value in zip(names, values, strict=True) if value}


def test_a_node_has_operator_tables_rows_and_width() -> None:
    """One operator, every table at or below it, and logarithms of rows and width between the model's smallest and largest."""
    arrays = FEATURIZER.arrays([join("Nested Loop", scan("u", parallel_aware=True), scan("p"), rows=300.0)], SUBPLANS)
    assert arrays.features.dtype == np.float32
    assert arrays.features.shape == (3, FEATURIZER.width)
    assert row_of(arrays, 0, 0) == pytest.approx(
        {"Nested Loop": 1, "posts": 1, "users": 1, "rows": log1p(300) / log1p(9999), "width": log1p(8) / log1p(99)}
    )
    assert row_of(arrays, 0, 2) == pytest.approx(
        {"Seq Scan": 1, "users": 1, "rows": log1p(100) / log1p(9999), "width": log1p(8) / log1p(99), "parallel": 1}
    )


def test_joins_have_postgresqls_own_rows() -> None:
    """Whatever was injected to get a plan, its joins and what passes their rows on have the estimate that PostgreSQL itself had."""
    injected = join("Hash Join", scan("c"), join("Nested Loop", scan("u"), scan("p"), rows=3.0), rows=9.0)
    arrays = FEATURIZER.arrays([injected], SUBPLANS)
    rows = [row_of(arrays, 0, position)["rows"] * log1p(9999) for position in range(6)]
    assert np.expm1(rows) == pytest.approx([2500, 300, 300, 1000, 100, 5000], rel=1e-5)


def test_rows_above_an_aggregate_are_the_plans() -> None:
    """Nodes above an aggregate do not have the rows of the join below it."""
    aggregate = node("Sort", node("Aggregate", join("Nested Loop", scan("u"), scan("p"), rows=3.0), rows=7.0), rows=7.0)
    arrays = FEATURIZER.arrays([aggregate], SUBPLANS)
    rows = [row_of(arrays, 0, position)["rows"] * log1p(9999) for position in range(3)]
    assert np.expm1(rows) == pytest.approx([7, 7, 300], rel=1e-5)


def test_equal_subtrees_of_a_query_are_kept_once() -> None:
    """Four plans of 24 nodes share their scans, and the scaled joins of both shapes are equal to the unscaled ones."""
    arrays = FEATURIZER.arrays(plans(), SUBPLANS)
    assert sum(size(plan) for plan in plans()) == 30
    assert len(arrays.features) == len({tuple(row) for row in np.c_[arrays.features, arrays.left, arrays.right].tolist()})
    assert len(arrays.features) == 18


def size(plan: RawPlan) -> int:
    """The number of nodes."""
    return 1 + sum(size(child) for child in plan.get("Plans", ()))


def test_children_are_rows_of_the_arrays() -> None:
    """Left is the outer, right the inner side; a node with one child has it on the left; -1 is no child."""
    arrays = FEATURIZER.arrays([join("Hash Join", scan("u"), scan("p"), rows=300.0)], SUBPLANS)
    root, hashed, inner, outer = arrays.trees[0]
    assert (arrays.left[root], arrays.right[root]) == (outer, hashed)
    assert (arrays.left[hashed], arrays.right[hashed]) == (inner, -1)
    assert (arrays.left[inner], arrays.right[inner]) == (-1, -1)


def test_more_than_two_children_are_chained() -> None:
    """An Append of four scans has the first on the left, and on the right what holds the second and the rest."""
    arrays = FEATURIZER.arrays([node("Append", *(scan(alias, width=5) for alias in "upc"), node("Result"), rows=6101.0)], SUBPLANS)
    root = arrays.trees[0, 0]
    first = arrays.right[root]
    assert "more children" in {OPERATORS[position] for position in np.flatnonzero(arrays.features[first])[:1]}
    second = arrays.right[first]
    assert np.flatnonzero(arrays.features[second])[0] == OPERATORS.index("more children")
    assert np.flatnonzero(arrays.features[arrays.right[second]])[0] == OPERATORS.index("Result")
    assert row_of(arrays, 0, 0).keys() >= {"Append", "comments", "posts", "users"}


def test_an_unknown_operator_and_an_unknown_table_have_a_place() -> None:
    """A node type of a later PostgreSQL, a function and a table that was made afterwards are featurized without an error."""
    later = node("Quantum Join", scan("u"), node("Function Scan", alias="g"), rows=1.0, join_type="Inner")
    arrays = FEATURIZER.arrays([later, node("Seq Scan", relation_name="made_later", alias="m")], SUBPLANS)
    assert "unknown" in row_of(arrays, 0, 0)
    assert row_of(arrays, 1, 0).keys() == {"Seq Scan", "rows", "width"}


def test_values_beyond_the_scales_are_cut_off() -> None:
    """More rows than any training plan had count as the most, and an empty result as the fewest."""
    arrays = FEATURIZER.arrays([node("Seq Scan", rows=1e9, width=10**6), node("Result", rows=0.0, width=0)], SUBPLANS)
    assert row_of(arrays, 0, 0) == {"Seq Scan": 1, "rows": 1, "width": 1}
    assert row_of(arrays, 1, 0) == {"Result": 1}


def test_scales_cover_the_training_plans() -> None:
    """The smallest and the largest logarithm, with PostgreSQL's own rows in the joins."""
    found = scales_of([(plans(), SUBPLANS)])
    assert found.rows == pytest.approx((log1p(1.0), log1p(7000.0)))
    assert found.width == pytest.approx((log1p(8), log1p(8)))
    constant = Featurizer(TABLES, found).arrays(plans(), SUBPLANS)
    assert np.isfinite(constant.features).all()


def test_merged_arrays_are_the_arrays() -> None:
    """Side by side, every node keeps its features and its children, and every plan its nodes."""
    parts = [FEATURIZER.arrays(some, SUBPLANS) for some in (plans()[:2], [scan("u")], plans()[2:])]
    together = merged(parts)
    trees = [arrays.features[arrays.trees[number]] for arrays in parts for number in range(len(arrays.trees))]
    for found, wanted in zip(together.trees, trees, strict=True):
        assert {tuple(row) for row in together.features[found].tolist()} == {tuple(row) for row in wanted.tolist()}
    offset = len(parts[0].features) + 1
    kept = together.left[offset:] - offset
    assert np.array_equal(np.where(kept < 0, -1, kept), parts[2].left)


def test_a_plan_is_padded_with_its_own_root() -> None:
    """The rows beyond a plan's own are its root again, which no maximum notices."""
    arrays = FEATURIZER.arrays([scan("u"), plans()[0]], SUBPLANS)
    assert set(arrays.trees[0]) == {arrays.trees[0, 0]}


def test_aliases_of_several_levels() -> None:
    """Of two query levels with the same aliases, the first one's rows count; a set that was not enumerated keeps the plan's."""
    own = OwnRows.of({LeveledSubplan(1, ["a", "b"]): 5.0, LeveledSubplan(2, ["a", "b"]): 9.0, LeveledSubplan(2, ["b"]): 2.0})
    distinct = DistinctNodes({}, own)
    for inner in ("a", "z"):
        distinct.add(node("Nested Loop", node("Seq Scan", alias="b", rows=2.0), node("Seq Scan", alias=inner), rows=44.0))
    assert [key[3] for key in distinct.nodes if key[0] == OPERATORS.index("Nested Loop")] == [5.0, 44.0]


def test_costs_are_features_only_if_they_have_a_scale() -> None:
    """Lero leaves them out; hintset has them, without the amount that PostgreSQL before 18 adds for a disabled node."""
    cheap, dear, disabled = (node("Seq Scan", rows=5.0) | {"Total Cost": cost} for cost in (10.0, 1000.0, 1e10 + 1000.0))
    plans = [cheap, dear, disabled]
    without, costs = Featurizer(TABLES, scales_of([(plans, {})])), Featurizer(TABLES, scales_of([(plans, {})], costs=True))
    assert costs.width == without.width + 1
    assert len(without.arrays(plans, {}).features) == 1
    arrays = costs.arrays(plans, {})
    assert arrays.trees[:, 0].tolist() == [0, 1, 1]
    assert arrays.features[:, -1].tolist() == [0.0, 1.0]
    assert np.array_equal(arrays.features[0, :-1], without.arrays([cheap], {}).features[0])
