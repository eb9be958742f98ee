"""SMAC on the space of settings: points and settings belong together, what is known is used, nothing is left on disk or in the log."""

from __future__ import annotations

import json
import logging
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest

from pytest_pilotscope.algorithms.knob.geometry import DirectGeometry, Geometry, ProjectedGeometry, projected_dimensions
from pytest_pilotscope.algorithms.knob.importance import importances
from pytest_pilotscope.algorithms.knob.search import RandomSearch, SmacSearch
from pytest_pilotscope.algorithms.knob.space import KnobSpace, Values, knob_space
from pytest_pilotscope.algorithms.knob.trials import Proposal, Trial
from pytest_pilotscope.postgres.knobs import LEVELS
from tests.algorithms.test_knob_space import MACHINE, ROWS


@pytest.fixture
def space() -> KnobSpace:
    """Twelve knobs with special and conditional values."""
    return knob_space(ROWS, MACHINE, LEVELS)


def cost(values: Values) -> float:
    """A smooth bowl in three knobs with a step in a fourth; its minimum is 10."""
    memory = math.log(float(values["work_mem"]) / 100_000) ** 2
    pages = 2 * math.log(float(values["random_page_cost"]) / 1.1) ** 2
    return 10 + memory + pages + abs(math.log(int(values["shared_buffers"]) / 200_000)) + (3 if values["geqo"] == "off" else 0)


def test_the_default_is_a_point_of_smacs_space(space: KnobSpace) -> None:
    """The search can tell SMAC the server's settings exactly, special and inactive values included."""
    geometry = DirectGeometry(space, 0)
    point = geometry.point(space.defaults)
    assert geometry.values(point) == space.defaults
    assert point["max_parallel_workers_per_gather.mode"] == "special"
    assert dict(geometry.configurations.get_default_configuration())["work_mem"] == 4096
    changed = space.complete({"geqo": "off", "bgwriter_lru_maxpages": "0", "work_mem": "77777", "cpu_operator_cost": "0.00123457"})
    assert geometry.values(geometry.point(changed)) == changed


def test_smac_knows_which_knobs_do_not_matter(space: KnobSpace) -> None:
    """Children and numbers beside a special value are inactive in SMAC's configurations, not just ignored."""
    geometry = DirectGeometry(space, 0)
    for configuration in geometry.configurations.sample_configuration(200):
        point = dict(configuration)
        assert ("geqo_threshold" in point) == (point["geqo"] == "on")
        number = point["max_parallel_workers_per_gather.mode"] == "number"
        assert ("max_parallel_workers_per_gather" in point) == ("parallel_setup_cost" in point) == number
        values = geometry.values(point)
        assert space.complete(values) == values
        if not number:
            assert (values["max_parallel_workers_per_gather"], values["parallel_setup_cost"]) == ("0", "1000")


def test_the_projection_follows_few_dimensions(space: KnobSpace) -> None:
    """Six dimensions move twelve knobs, every knob over its whole range, specials included; the same seed gives the same projection."""
    assert projected_dimensions(space) == 6
    geometry: Geometry = ProjectedGeometry(space, 3, 6)
    again = ProjectedGeometry(space, 3, 6)
    point = {f"d{n}": 0.3 for n in range(6)}
    assert geometry.values(point) == again.values(point)
    assert geometry.point(space.defaults) is None
    for knob, row in zip(space.knobs, again.rows, strict=True):
        ends = {geometry.values({**point, f"d{row}": end})[knob.name] for end in (0.0, 1.0)}
        assert knob.parent is not None or ends == {knob.at(0), knob.at(1)}


@pytest.mark.slow
def test_smac_learns(space: KnobSpace) -> None:
    """On a bowl SMAC ends clearly nearer to the minimum than chance with the same number of trials, for three seeds."""
    found: dict[str, list[float]] = {"smac": [], "random": []}
    for seed in range(3):
        smac, chance = SmacSearch(space, trials=40, seed=seed), RandomSearch(space, seed=seed)
        smac.tell(space.defaults, cost(space.defaults))
        for name, search in (("smac", smac), ("random", chance)):
            costs = []
            for _ in range(40):
                proposal = search.ask()
                costs.append(cost(proposal.values))
                search.tell(proposal.values, costs[-1], point=proposal.point)
            found[name].append(min(costs))
    assert np.mean(found["smac"]) < np.mean(found["random"])


def test_the_same_seed_asks_the_same(space: KnobSpace) -> None:
    """Two searches that are told the same propose the same, through the initial design and beyond."""
    sequences = []
    for _ in range(2):
        search = SmacSearch(space, trials=20, seed=5)
        asked = []
        for _ in range(8):
            proposal = search.ask()
            asked.append(proposal)
            search.tell(proposal.values, cost(proposal.values), point=proposal.point)
        sequences.append(asked)
    assert sequences[0] == sequences[1]
    assert len({json.dumps(p.values, sort_keys=True) for p in sequences[0]}) == 8


def test_a_search_goes_on_from_what_it_is_told(space: KnobSpace) -> None:
    """Points that went through JSON are taken, none is proposed again, and a Sobol point that is known is passed over."""
    first = SmacSearch(space, trials=20, seed=1)
    known = []
    for _ in range(7):
        proposal = first.ask()
        known.append(proposal)
        first.tell(proposal.values, cost(proposal.values), point=proposal.point)
    second = SmacSearch(space, trials=20, seed=1)
    for proposal in known:
        second.tell(proposal.values, cost(proposal.values), point=json.loads(json.dumps(proposal.point)))
    fresh = [second.ask() for _ in range(3)]
    assert not [proposal for proposal in fresh if proposal in known]


def test_importance_finds_the_knobs_that_matter(space: KnobSpace) -> None:
    """The shares sum to 1 and the two knobs that make the bowl come first, whoever proposed the trials."""
    chance = RandomSearch(space, seed=0)
    proposals = [chance.ask() for _ in range(150)]
    shares = importances(space, [tried(proposal, cost(proposal.values)) for proposal in proposals], seed=0)
    assert sum(shares.values()) == pytest.approx(1)
    assert set(shares) == {knob.name for knob in space.knobs}
    assert sorted(shares, key=lambda name: -shares[name])[:2] == ["work_mem", "random_page_cost"]
    assert importances(space, [tried(Proposal(space.defaults, {}), 10.0)] * 10, seed=0) == {}
    assert importances(space, [tried(proposal, cost(proposal.values)) for proposal in proposals[:9]], seed=0) == {}


def tried(proposal: Proposal, seconds: float) -> Trial:
    """A trial that took so long."""
    return Trial(number=0, values=proposal.values, status="ok", cost=seconds, applied=None, apply_s=0.0, search_s=0.0, elapsed_s=seconds)


def test_nothing_is_left_behind(space: KnobSpace, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No smac3_output in the current folder, no folder elsewhere, and the program's logging stays as it is.

    SMAC's folder is gone before the first trial; a watchdog deletes it if this process is killed before.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    handlers, level = list(logging.root.handlers), logging.root.level
    search = SmacSearch(space, trials=5, seed=0)
    proposal = search.ask()
    search.tell(proposal.values, 1.0, point=proposal.point)
    assert list(tmp_path.iterdir()) == []
    assert list(cache.iterdir()) == []
    assert (list(logging.root.handlers), logging.root.level) == (handlers, level)


def test_the_batch_selector_chooses_what_smacs_own_does(space: KnobSpace) -> None:
    """Predicting all points at once gives the same best point as predicting one after the other."""
    from smac.main.config_selector import ConfigSelector

    search = SmacSearch(space, trials=20, seed=2)
    for _ in range(8):
        proposal = search.ask()
        search.tell(proposal.values, cost(proposal.values), point=proposal.point)
    search.ask()
    selector = search._smac._config_selector
    points = search._smac._runhistory_encoder.get_configurations(budget_subset=[None])
    ours, theirs = selector._get_x_best(points), ConfigSelector._get_x_best(selector, points)
    assert ours[1] == pytest.approx(theirs[1], rel=1e-6)
    assert np.array_equal(np.nan_to_num(ours[0]), np.nan_to_num(theirs[0]))
