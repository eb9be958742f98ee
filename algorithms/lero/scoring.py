"""A trained model, from the plans of a query to their scores; it needs no database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from pytest_pilotscope.algorithms.devices import one_thread
from pytest_pilotscope.algorithms.lero.featurize import Featurizer
from pytest_pilotscope.algorithms.lero.model import LeroNetwork, Trees
from pytest_pilotscope.errors import AlgorithmError, counted

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.lero.policy import Policy
    from pytest_pilotscope.learning.algorithm import Cardinalities
    from pytest_pilotscope.postgres.planning import RawPlan

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A network on the CPU, the featurizer of its input, and the policy of looking for and taking another plan."""

    featurizer: Featurizer
    network: LeroNetwork
    policy: Policy

    def scores(self, plans: Sequence[RawPlan], subplans: Cardinalities) -> npt.NDArray[np.float32]:
        """Score the plans of one query in one batch: (T,), a smaller score predicts a faster plan. AlgorithmError for NaN and infinity."""
        arrays = self.featurizer.arrays(plans, subplans)
        with one_thread(), torch.inference_mode():
            scores: npt.NDArray[np.float32] = self.network(Trees.of(arrays, _CPU)).numpy()
        if not np.isfinite(scores).all():
            bad, of = scores[~np.isfinite(scores)][0], counted(len(plans), "plan")
            raise AlgorithmError(f"lero gave the score {bad} to one of {of}; train it again")
        return scores
