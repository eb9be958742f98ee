"""A trained model: from the plans of a query to their scores. Knows no database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from algorithms.devices import one_blas_thread
from algorithms.lero.featurize import Featurizer, Floats
from algorithms.lero.forward import Forward
from algorithms.lero.model import LeroNetwork
from pytest_pilotscope.errors import AlgorithmError

if TYPE_CHECKING:
    from algorithms.lero.policy import Policy
    from pytest_pilotscope.algorithm import Cardinalities
    from pytest_pilotscope.postgres.planning import RawPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A network, what turns plans into its input, and when to look for and when to take another plan. Scores are computed on one thread."""

    featurizer: Featurizer
    network: LeroNetwork
    policy: Policy

    _forward: Forward = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_forward", Forward(self.network))

    def scores(self, plans: Sequence[RawPlan], subplans: Cardinalities) -> Floats:
        """Score the plans of one query in one batch: (T,), smaller is predicted to be faster. AlgorithmError for NaN and infinity."""
        forest = self.featurizer.forest(plans, subplans)
        with one_blas_thread():
            scores = self._forward.scores(forest)
        if not np.isfinite(scores).all():
            raise AlgorithmError(f"lero gave the score {scores[~np.isfinite(scores)][0]} to one of {len(plans)} plans; train it again")
        return scores
