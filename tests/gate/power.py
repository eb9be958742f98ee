"""
The power of the gate on the noise of recorded A/A runs.

`python -m tests.gate.power` prints the table of docs/gate.md. `python -m tests.gate.power RECORD.jsonl TEXT` prints the noise of an A/A run
(`pytest benchmarks --algo baseline --scale 0.05 --limit 40 --rounds 10`) as a file for `noise.recorded`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pytest_pilotscope.gate.exact_figures import Regression
from pytest_pilotscope.gate.noise import Noise
from pytest_pilotscope.gate.power import BETWEEN_SESSIONS, sees_enough
from pytest_pilotscope.gate.rules import Policy, gate_pairs
from pytest_pilotscope.record.record import read_record
from pytest_pilotscope.record.results import BASELINE_AGAIN
from pytest_pilotscope.runs.rounds import next_rounds
from pytest_pilotscope.statistics.pairs import Floats, Pairs, pairs_of
from tests.gate.noise import a_against_a, recorded

MOST_ROUNDS = 80
"""The most rounds of `auto` in these simulations, in place of a limit of time."""

CHANGES = {"nothing changed": (1.0, 1.0), "5 % slower": (1.05, 1.0), "10 % slower": (1.1, 1.0), "one query doubled": (1.0, 2.0)}
"""The true ratios of the workload, and of one query besides."""


def sessions(noise: Noise, number: int, random: np.random.Generator) -> Iterator[Pairs]:
    """Yield long A/A sessions with this noise and the luck of a connection."""
    for luck in random.normal(0, BETWEEN_SESSIONS, number):
        yield replace(noise, rounds=MOST_ROUNDS).session(random, np.full(len(noise.times_ms), luck))


def first(session: Pairs, rounds: int) -> Pairs:
    """Return the first rounds of a session."""
    return a_against_a(session.baseline_ms[:, :rounds], session.candidate_ms[:, :rounds])


def auto(session: Pairs) -> Pairs:
    """Return the rounds that `--rounds auto` would have measured."""
    rounds, policy = 5, Policy()
    while rounds < MOST_ROUNDS and not sees_enough(first(session, rounds), policy.delta, policy.query_delta):
        rounds = min(rounds + next_rounds(rounds), MOST_ROUNDS)
    return first(session, rounds)


def alarm(now: Pairs, before: Pairs, slowdown: float, slow_query: float) -> bool:
    """Tell whether the gate catches these true ratios."""
    ratios: Floats = np.full((len(now.query_ids), 1), slowdown)
    ratios[len(ratios) // 2] *= slow_query
    slower = a_against_a(now.baseline_ms, now.candidate_ms * ratios)
    return any(isinstance(found, Regression) for found in gate_pairs("again", slower, before, Policy()))


def _rows(name: str, number: int) -> Iterator[str]:
    random, noise = np.random.default_rng(7), Noise.of(recorded(name))
    drawn = [(now, before) for now, before in zip(sessions(noise, number, random), sessions(noise, number, random), strict=True)]
    for title, cut in (("5", lambda one: first(one, 5)), ("10", lambda one: first(one, 10)), ("auto", auto)):
        measured = [(cut(now), cut(before)) for now, before in drawn]
        rounds = np.median([now.rounds for now, _ in measured])
        caught = [f"{sum(alarm(now, before, *change) for now, before in measured)} of {number}" for change in CHANGES.values()]
        yield f"| {name.split('_')[0]} | {title}{f' ({rounds:.0f})' if title == 'auto' else ''} | {' | '.join(caught)} |"


def _noise_of(path: Path, text: str) -> str:
    pairs = pairs_of(read_record(path), BASELINE_AGAIN)
    times_ms = np.stack([pairs.baseline_ms, pairs.candidate_ms], axis=1)
    medians_ms = np.median(times_ms, axis=(1, 2))
    relative = (times_ms / medians_ms[:, None, None]).round(4).tolist()
    unit = "relative_times[query][side][round] is a time divided by the median time of its query"
    return json.dumps({"what": text, "unit": unit, "median_ms": medians_ms.round(3).tolist(), "relative_times": relative})


if __name__ == "__main__":
    if len(sys.argv) == 3:
        sys.stdout.write(_noise_of(Path(sys.argv[1]), sys.argv[2]) + "\n")
    else:
        sys.stdout.write(f"| machine | rounds | {' | '.join(CHANGES)} |\n|---|---|{'---|' * len(CHANGES)}\n")
        for recording in ("quiet_noise", "loaded_noise"):
            for row in _rows(recording, 200):
                sys.stdout.write(row + "\n")
