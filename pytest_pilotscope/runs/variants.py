"""The sides of `--variant`: PostgreSQL left alone on a database that is ready before anything is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_pilotscope.record.results import TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.options.variants import Variant
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.registry import Registry


@dataclass(frozen=True, slots=True)
class VariantSide:
    """An algorithm that learns nothing, and whose database is that of a variant. Called, it returns itself, as a class would."""

    variant: Variant
    learns = False

    def __call__(self) -> VariantSide:
        """Return this side, which has no state."""
        return self

    @property
    def name(self) -> str:
        """The name of the variant."""
        return self.variant.name

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing, in no time; say in the parameters what is different."""
        return replace(training.report(parameters={"variant": str(self.variant)}), duration_s=0.0)

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """Give the database of another server, or this one, which another algorithm may have prepared, with the settings."""
        if self.variant.settings:
            yield replace(database, session_settings={**database.session_settings, **self.variant.settings})
        else:
            yield database.variants[self.name]


def register_variants(registry: Registry, variants: Iterable[Variant]) -> None:
    """Make variants known by their names. Raise `UsageError` for the name of an algorithm."""
    for variant in variants:
        registry.add_algorithm(variant.name, VariantSide(variant), origin=f"--variant {variant.name}")
