"""`--drift`: how the data change between the training of an algorithm and its measurement."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from pytest_pilotscope.options.values import shown

FORM = "insert:PERCENT|delete:PERCENT|skew:POWER"
MOST_POWER = 100.0


@dataclass(frozen=True, slots=True)
class Drift:
    """A drift of data: `amount` is a share of each table's rows (0.3 is 30%), or the power of `skew`."""

    kind: Literal["insert", "delete", "skew"]
    amount: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.amount:g}" if self.kind == "skew" else f"{self.kind}:{100 * self.amount:g}%"


def drift(text: str) -> Drift:
    """Read a text of this `FORM`: inserts up to 100%, deletes below 100%, a power above 0."""
    kind, _, rest = text.partition(":")
    try:
        number = float(rest.removesuffix("%"))
    except ValueError:
        number = -1.0
    if kind == "skew" and isfinite(number) and 0 < number <= MOST_POWER and not rest.endswith("%"):
        return Drift("skew", number)
    if kind == "insert" and rest.endswith("%") and 0 <= number <= 100:
        return Drift("insert", number / 100)
    if kind == "delete" and rest.endswith("%") and 0 <= number < 100:
        return Drift("delete", number / 100)
    raise argparse.ArgumentTypeError(
        f"expected {FORM}, such as insert:30%, delete:20% or skew:2 (inserts up to 100%, deletes below 100%, a power above 0 up to "
        f"{MOST_POWER:g}), got {shown(text)}"
    )
