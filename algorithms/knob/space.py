"""
The space of settings: the catalogue's knobs as a server has them, within the bounds of its machine.

A value is always the text that PostgreSQL gets, in the knob's own unit, and exactly the value that is measured: reals are rounded to the
six digits that PostgreSQL shows.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_pilotscope.algorithms.knob.catalogue import CATALOGUE, REFUSED, Bound, Entry, Machine
from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.postgres.knobs import KnobRow, Level

Values = Mapping[str, str]
"""Knob -> value as text."""

SPECIAL_SHARE = 0.2
"""Share of draws that give a special value, as in LlamaTune (Kanellis et al., PVLDB 15(11), 2022, section 4)."""

_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """
    One dimension of the space. Numbers are in the knob's own unit (`unit`, such as 8kB); `low` and `high` belong to it.

    The knob has no effect unless `parent` has the value `active`, or, if that is None, any value but its special one. A `coarse` knob is
    the default, halved or doubled any number of times.
    """

    name: str
    level: Level
    kind: Literal["integer", "real", "choice"]
    default: str
    why: str
    unit: str | None = None
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    coarse: bool = False
    special: int | None = None
    choices: tuple[str, ...] = ()
    parent: str | None = None
    active: str | None = None

    def text(self, value: float) -> str:
        """Return a number as text for PostgreSQL, within the bounds."""
        value = self._doubled(value) if self.coarse else min(max(value, self.low), self.high)
        return str(round(value)) if self.kind == "integer" else f"{value:.{_DIGITS}g}"

    def at(self, position: float) -> str:
        """Return the value at a position in 0..1; a special value takes the first fifth."""
        if self.kind == "choice":
            return self.choices[min(int(position * len(self.choices)), len(self.choices) - 1)]
        if self.special is not None:
            if position < SPECIAL_SHARE:
                return str(self.special)
            position = (position - SPECIAL_SHARE) / (1 - SPECIAL_SHARE)
        if self.log:
            return self.text(math.exp(math.log(self.low) + position * (math.log(self.high) - math.log(self.low))))
        return self.text(self.low + position * (self.high - self.low))

    def _doubled(self, value: float) -> float:
        """Return the nearest of the default's halves and doubles within the bounds."""
        default = float(self.default)
        least, most = math.ceil(math.log2(self.low / default)), math.floor(math.log2(self.high / default))
        return float(default * 2 ** min(max(round(math.log2(value / default)), least), most))

    def is_special(self, value: str) -> bool:
        """Tell whether a value is the special one."""
        return self.special is not None and float(value) == self.special


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobSpace:
    """All knobs, parents before their children."""

    knobs: tuple[Knob, ...]

    def __len__(self) -> int:
        return len(self.knobs)

    @property
    def defaults(self) -> dict[str, str]:
        """The settings that the server has by default."""
        return {knob.name: knob.default for knob in self.knobs}

    @property
    def description(self) -> list[dict[str, object]]:
        """Everything that distinguishes two spaces, for records."""
        fields = ("name", "level", "kind", "unit", "low", "high", "log", "coarse", "special", "choices", "parent", "active", "default")
        return [{field: getattr(knob, field) for field in fields} for knob in self.knobs]

    def active(self, knob: Knob, values: Values) -> bool:
        """Tell whether a knob has an effect when the others have these values."""
        if knob.parent is None:
            return True
        parent = next(other for other in self.knobs if other.name == knob.parent)
        if not self.active(parent, values):
            return False
        value = values[parent.name]
        return value == knob.active if knob.active is not None else not parent.is_special(value)

    def complete(self, values: Values) -> dict[str, str]:
        """Return a value for every knob: those that are missing or have no effect get their default."""
        chosen = {**self.defaults, **values}
        return {knob.name: chosen[knob.name] if self.active(knob, chosen) else knob.default for knob in self.knobs}

    def at(self, positions: Sequence[float]) -> dict[str, str]:
        """Return the values at a point of the unit cube, one coordinate per knob."""
        return self.complete({knob.name: knob.at(position) for knob, position in zip(self.knobs, positions, strict=True)})

    def changed(self, values: Values) -> dict[str, str]:
        """Return the values that differ from the default."""
        defaults = self.defaults
        return {name: value for name, value in values.items() if value != defaults[name]}


def knob_space(
    rows: Mapping[str, KnobRow], machine: Machine, levels: Collection[Level], *, names: Iterable[str] | None = None
) -> KnobSpace:
    """
    Make the space of the catalogue's knobs, or of the named ones, that a server has and that can be changed at one of `levels`.

    A knob with a single value on this machine is left out, and its children with it. UsageError for a refused knob, UnknownName for one
    that is not in the catalogue.
    """
    wanted = tuple(CATALOGUE) if names is None else tuple(names)
    for name in wanted:
        _check(name)
    knobs: dict[str, Knob] = {}
    for name, entry in CATALOGUE.items():
        row = rows.get(name)
        if name in wanted and row is not None and row.level in levels and _parent_can_matter(entry, knobs, rows):
            knob = _knob(row, entry, machine, parent=entry.parent if entry.parent in knobs else None)
            if knob.choices or knob.low < knob.high:
                knobs[name] = knob
    return KnobSpace(knobs=tuple(knobs.values()))


def _check(name: str) -> None:
    if name in REFUSED:
        raise UsageError(f"{name} is not tuned: {REFUSED[name]}")
    if name not in CATALOGUE:
        raise UnknownName("knob", name, CATALOGUE)


def _parent_can_matter(entry: Entry, knobs: Mapping[str, Knob], rows: Mapping[str, KnobRow]) -> bool:
    """Tell whether the parent is tuned, or has a value under which the child has an effect."""
    if entry.parent is None or entry.parent in knobs:
        return True
    row = rows.get(entry.parent)
    if row is None:
        return False
    special = CATALOGUE[entry.parent].special
    return row.value == entry.active if entry.active is not None else special is None or row.value != str(special)


def _knob(row: KnobRow, entry: Entry, machine: Machine, *, parent: str | None) -> Knob:
    common = {"name": row.name, "level": row.level, "default": row.value, "why": entry.why, "unit": row.unit, "parent": parent}
    active = entry.active if parent is not None else None
    if entry.low is None or entry.high is None:
        return Knob(**common, kind="choice", choices=row.choices, active=active)  # type: ignore[arg-type]
    low, high = _limits(row, entry.low, entry.high, machine)
    if entry.special is None or float(row.value) != entry.special:  # the value in force is always a point of the space
        low, high = min(low, float(row.value)), max(high, float(row.value))
    kind: Literal["integer", "real"] = "integer" if row.kind == "integer" else "real"
    log = entry.log and low > 0
    return Knob(**common, kind=kind, low=low, high=high, log=log, coarse=entry.coarse, special=entry.special, active=active)  # type: ignore[arg-type]


def _limits(row: KnobRow, low: Bound, high: Bound, machine: Machine) -> tuple[float, float]:
    """Return our bounds in the knob's own unit, within PostgreSQL's."""
    unit_bytes = row.unit_bytes or 1
    ours = (low(machine) / unit_bytes, high(machine) / unit_bytes)
    if row.kind == "integer":
        ours = (float(math.ceil(ours[0])), float(math.floor(ours[1])))
    return max(ours[0], row.low or 0.0), min(ours[1], row.high if row.high is not None else math.inf)
