"""A trained model, from the plans of a query to their scores; it needs no database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.plans.featurize import Featurizer

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.lero.policy import Policy, Scores
    from pytest_pilotscope.algorithms.plans.network import PlanNetwork
    from pytest_pilotscope.learning.algorithm import Cardinalities
    from pytest_pilotscope.postgres.planning import RawPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A network on the CPU, the featurizer of its input, and the policy of looking for and taking another plan."""

    featurizer: Featurizer
    network: PlanNetwork
    policy: Policy

    def scores(self, plans: Sequence[RawPlan], subplans: Cardinalities) -> Scores:
        """Score the plans of one query in one batch: (T,), a smaller score predicts a faster plan. AlgorithmError for NaN and infinity."""
        return self.network.evaluated(self.featurizer.arrays(plans, subplans), algorithm="lero")
