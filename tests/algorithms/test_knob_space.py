"""The space of settings: bounds from the machine, special and conditional values, and what is refused. No server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pilotscope.algorithms.knob.catalogue import CATALOGUE, GB, MB, REFUSED, Machine
from pytest_pilotscope.algorithms.knob.machine import machine_behind, this_machine, within
from pytest_pilotscope.algorithms.knob.objective import Target
from pytest_pilotscope.algorithms.knob.space import SPECIAL_SHARE, KnobSpace, knob_space
from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.postgres.knobs import LEVELS, KnobRow

MACHINE = Machine(memory_bytes=8 * GB, cpus=4)
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "algorithms" / "knob.md"


def row(name: str, value: str, **other: Any) -> KnobRow:
    """A row of pg_settings."""
    known = {"unit": None, "kind": "integer", "level": "session", "low": 0.0, "high": 2147483647.0, "choices": ()}
    return KnobRow(name=name, value=value, **{**known, **other})


ROWS = {
    knob.name: knob
    for knob in (
        row("shared_buffers", "16384", unit="8kB", level="restart", low=16.0, high=1073741823.0),
        row("work_mem", "4096", unit="kB", low=64.0),
        row("hash_mem_multiplier", "2", kind="real", low=1.0, high=1000.0),
        row("random_page_cost", "4", kind="real", high=1.79769e308),
        row("cpu_operator_cost", "0.0025", kind="real", high=1.79769e308),
        row("bgwriter_lru_maxpages", "100", level="reload", high=1073741823.0),
        row("bgwriter_delay", "200", unit="ms", level="reload", low=10.0, high=10000.0),
        row("geqo", "on", kind="bool", low=None, high=None, choices=("on", "off")),
        row("geqo_threshold", "12", low=2.0),
        row("max_parallel_workers_per_gather", "0", high=1024.0),
        row("parallel_setup_cost", "1000", kind="real", high=1.79769e308),
        row("parallel_leader_participation", "on", kind="bool", low=None, high=None, choices=("on", "off")),
    )
}


@pytest.fixture
def space() -> KnobSpace:
    """The space of the rows above, everything allowed."""
    return knob_space(ROWS, MACHINE, LEVELS)


def limits(space: KnobSpace, name: str) -> tuple[float, float]:
    """The bounds of one knob in its own unit."""
    knob = next(knob for knob in space.knobs if knob.name == name)
    return knob.low, knob.high


def test_memory_is_bounded_by_the_machine(space: KnobSpace) -> None:
    """shared_buffers at most 40 % (and 4 times the data), work_mem a sixteenth of the memory, each in its own unit."""
    assert limits(space, "shared_buffers") == (16 * MB / 8192, int(8 * GB * 0.4 / 8192))
    assert limits(space, "work_mem") == (1024, 8 * GB / 16 / 1024)
    few = knob_space(ROWS, Machine(memory_bytes=8 * GB, cpus=4, data_bytes=100 * MB), LEVELS)
    assert limits(few, "shared_buffers") == (16 * MB / 8192, 400 * MB / 8192)
    assert limits(space, "max_parallel_workers_per_gather") == (1, 4)


def test_postgresqls_limits_and_the_value_in_force_hold_besides() -> None:
    """A bound is never outside of what the server takes, and the default is always inside."""
    rows = {"work_mem": row("work_mem", "9000000", unit="kB", low=2048.0), "geqo_effort": row("geqo_effort", "5", low=1.0, high=8.0)}
    space = knob_space(rows, MACHINE, LEVELS)
    assert limits(space, "work_mem") == (2048, 9000000)


def test_levels_decide_what_is_tuned() -> None:
    """Without a restart no shared_buffers; without a reload only what a session can set."""
    names = {
        level: {k.name for k in knob_space(ROWS, MACHINE, levels).knobs}
        for level, levels in zip("ab", (LEVELS[:2], LEVELS[:1]), strict=True)
    }
    assert set(ROWS) - names["a"] == {"shared_buffers"}
    assert set(ROWS) - names["b"] == {"shared_buffers", "bgwriter_lru_maxpages", "bgwriter_delay"}


def test_a_child_of_a_knob_that_is_not_tuned_stays_where_it_matters() -> None:
    """geqo_threshold is tuned while geqo is on for good, and left out while it is off."""
    assert [k.name for k in knob_space(ROWS, MACHINE, LEVELS, names=["geqo_threshold"]).knobs] == ["geqo_threshold"]
    off = {**ROWS, "geqo": row("geqo", "off", kind="bool", choices=("on", "off"))}
    assert len(knob_space(off, MACHINE, LEVELS, names=["geqo_threshold"])) == 0
    assert len(knob_space(ROWS, MACHINE, LEVELS, names=["parallel_setup_cost"])) == 0
    assert len(knob_space({"geqo_threshold": ROWS["geqo_threshold"]}, MACHINE, LEVELS)) == 0


def test_what_has_no_choice_is_left_out() -> None:
    """With one processor there is nothing to choose for parallel plans."""
    space = knob_space(ROWS, Machine(memory_bytes=8 * GB, cpus=1), LEVELS)
    assert not {"max_parallel_workers_per_gather", "parallel_setup_cost"} & {knob.name for knob in space.knobs}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_durability_is_refused(name: str) -> None:
    """With the reason, and never in the catalogue."""
    assert name not in CATALOGUE
    with pytest.raises(UsageError, match=f"^{re.escape(f'{name} is not tuned: {REFUSED[name]}')}$"):
        knob_space(ROWS, MACHINE, LEVELS, names=["work_mem", name])


def test_unknown_knobs_are_named() -> None:
    """With the near matches."""
    with pytest.raises(UnknownName, match=r"^unknown knob 'work_men'; did you mean 'work_mem'\? known: "):
        knob_space(ROWS, MACHINE, LEVELS, names=["work_men"])


def test_values_that_do_not_matter_are_the_default(space: KnobSpace) -> None:
    """geqo off: its threshold; no parallel workers: what they would cost; two levels deep if need be."""
    assert space.complete({}) == space.defaults
    chosen = space.complete(
        {"geqo": "off", "geqo_threshold": "3", "parallel_setup_cost": "5", "bgwriter_lru_maxpages": "0", "bgwriter_delay": "11"}
    )
    assert space.changed(chosen) == {"geqo": "off", "bgwriter_lru_maxpages": "0"}
    chosen = space.complete({"max_parallel_workers_per_gather": "2", "parallel_setup_cost": "50"})
    assert space.changed(chosen) == {"max_parallel_workers_per_gather": "2", "parallel_setup_cost": "50"}


def test_positions(space: KnobSpace) -> None:
    """The ends of the unit interval are the bounds; the special value has the first fifth; logarithmic knobs are halved in the middle."""
    knobs = {knob.name: knob for knob in space.knobs}
    assert (knobs["work_mem"].at(0), knobs["work_mem"].at(1)) == ("1024", "524288")
    assert float(knobs["work_mem"].at(0.5)) == pytest.approx((1024 * 524288) ** 0.5, rel=1e-3)
    assert [knobs["bgwriter_lru_maxpages"].at(p) for p in (0, SPECIAL_SHARE - 1e-9, SPECIAL_SHARE, 1)] == ["0", "0", "10", "1000"]
    assert [knobs["geqo"].at(p) for p in (0, 0.49, 0.5, 1)] == ["on", "on", "off", "off"]


def test_what_needs_a_restart_is_coarse(space: KnobSpace) -> None:
    """shared_buffers is the default, halved and doubled within the bounds, so that most proposals near each other share it."""
    knob = next(knob for knob in space.knobs if knob.name == "shared_buffers")
    assert {knob.at(position / 1000) for position in range(1001)} == {str(2048 * 2**n) for n in range(8)}
    assert knob.text(16384) == "16384"


@given(positions=st.lists(st.floats(0, 1), min_size=12, max_size=12))
def test_every_point_is_a_value_that_is_read_back_as_it_was_written(positions: list[float]) -> None:
    """Within bounds; reals have the six digits that PostgreSQL shows, so cpu_operator_cost never becomes 0.0."""
    space = knob_space(ROWS, MACHINE, LEVELS)
    values = space.at(positions)
    for knob in space.knobs:
        value = values[knob.name]
        if knob.kind == "choice":
            assert value in knob.choices
        elif not knob.is_special(value):
            assert knob.low * (1 - 1e-5) <= float(value) <= knob.high * (1 + 1e-5)
            assert f"{float(value):.6g}" == value or knob.kind == "integer"
            assert float(value) != 0
    assert space.complete(values) == values


def test_the_machine() -> None:
    """Ours by its memory and processors; one behind a connection by what it was set up for."""
    assert this_machine().memory_bytes > 256 * MB
    assert this_machine().cpus >= 1
    assert machine_behind(ROWS) == Machine(memory_bytes=GB, cpus=2)
    big = {**ROWS, "shared_buffers": row("shared_buffers", str(2 * GB // 8192), unit="8kB")}
    assert machine_behind(big).memory_bytes == 8 * GB
    assert machine_behind({}) == Machine(memory_bytes=GB, cpus=2)


def test_the_documentation_has_every_knob_with_its_reason() -> None:
    """The table of docs/algorithms/knob.md and the catalogue say the same."""
    text = DOCUMENTATION.read_text()
    for name, entry in CATALOGUE.items():
        assert re.search(rf"^\| `{name}` \|.*\| {re.escape(entry.why)} \|$", text, re.MULTILINE), name
    for name, reason in REFUSED.items():
        assert re.search(rf"^\| `{name}` \| {re.escape(reason)} \|$", text, re.MULTILINE), name
    listed = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) - set(get_args(Target))
    assert listed <= {*CATALOGUE, *REFUSED}


def test_limits_of_a_container() -> None:
    """They bound the machine and never enlarge it; half a processor is one that is there half of the time."""
    machine = Machine(memory_bytes=8 * GB, cpus=4)
    assert within(machine, 2 * GB, 1.5) == Machine(memory_bytes=2 * GB, cpus=1)
    assert within(machine, None, 0.5) == Machine(memory_bytes=8 * GB, cpus=1)
    assert within(machine, 16 * GB, 8) == within(machine, None, None) == machine
