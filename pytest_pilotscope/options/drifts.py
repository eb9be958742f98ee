"""`--drift`: what changes between the training of an algorithm and its measurement: the data, or the templates of the queries."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from pytest_pilotscope.options.values import shown

FORM = "insert:PERCENT|delete:PERCENT|skew:POWER|time[:PERCENT[:COLUMN]]|template[:PERCENT]"
MOST_POWER = 100.0
DEFAULTS = {"time": "70%", "template": "50%"}


@dataclass(frozen=True, slots=True)
class Drift:
    """
    A drift: `amount` is a share of each table's rows (0.3 is 30%), the power of `skew`, the share of the dated rows that are the past of
    `time`, or the share of the templates that training has not seen. `column` is the one that dates the rows, if the user names it.
    """

    kind: Literal["insert", "delete", "skew", "time", "template"]
    amount: float
    column: str | None = None

    def __str__(self) -> str:
        amount = f"{self.amount:g}" if self.kind == "skew" else f"{100 * self.amount:g}%"
        return ":".join((self.kind, amount, *([self.column] if self.column else [])))

    @property
    def changes_data(self) -> bool:
        """False if only the queries are others."""
        return self.kind != "template"

    @property
    def has_other_past(self) -> bool:
        """True if what is measured before the drift is not the dataset as it is: its past, or the queries of some templates."""
        return self.kind in ("time", "template")


def drift(text: str) -> Drift:
    """Read a text of this `FORM`."""
    kind, _, rest = text.partition(":")
    amount, colon, column = (rest or DEFAULTS.get(kind, "")).partition(":")
    try:
        number = float(amount.removesuffix("%"))
    except ValueError:
        number = -1.0
    percent = amount.endswith("%")
    if kind == "time" and percent and 0 < number <= 100 and bool(colon) == bool(column):
        return Drift("time", number / 100, column or None)
    if kind == "skew" and isfinite(number) and 0 < number <= MOST_POWER and not percent and not colon:
        return Drift("skew", number)
    if kind == "insert" and percent and 0 <= number <= 100 and not colon:
        return Drift("insert", number / 100)
    if kind == "delete" and percent and 0 <= number < 100 and not colon:
        return Drift("delete", number / 100)
    if kind == "template" and percent and 0 <= number < 100 and not colon:
        return Drift("template", number / 100)
    raise argparse.ArgumentTypeError(
        f"expected {FORM}, such as insert:30%, delete:20%, skew:2, time:70%, time:70%:orderdate or template:50% (inserts and the past "
        f"up to 100%, deletes and templates below 100%, a power above 0 up to {MOST_POWER:g}), got {shown(text)}"
    )
