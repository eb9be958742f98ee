"""Datasets that can be made at any scale, and their loading, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options.progress import ShowProgress, silent


class ScaledDataset:
    """
    A dataset of a scale from `smallest` (or any above 0) to `largest`, `usual_scale` if none is given.

    `data_dir` is accepted, as by every dataset, and not used.
    """

    usual_name: ClassVar[str]
    usual_scale: ClassVar[float]
    smallest: ClassVar[float] = 0.0
    largest: ClassVar[float]

    def __init__(self, *, name: str | None = None, scale: float | None = None, seed: int = 0, data_dir: Path | None = None) -> None:
        self.name = self.usual_name if name is None else name
        self.scale = self.usual_scale if scale is None else scale
        if not (self.smallest <= self.scale <= self.largest and self.scale > 0):
            within = f"between {self.smallest} and" if self.smallest else "above 0, up to"
            raise UsageError(f"scale {self.scale:g} of dataset {self.name!r} is out of range; choose one {within} {self.largest:g}")
        self.seed = seed
        self.show_progress: ShowProgress = silent

    @property
    def database(self) -> str:
        """The name of the dataset, so that it is recognised in psql."""
        return self.name

    def take(self, steps: Sequence[Callable[[], object]]) -> None:
        """Take the steps of loading one after the other, and show the progress."""
        with self.show_progress(f"loading {self.name} at scale {self.scale:g}", len(steps)) as advance:
            for step in steps:
                step()
                advance(1)
