"""A trained model: from a query, or its text, to the rows of its subplans. Knows no database unless it is given a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from algorithms.mscn.device import one_thread
from algorithms.mscn.featurize import Featurizer, QueryElements, averages
from algorithms.mscn.model import Forward, MscnNetwork
from algorithms.mscn.samples import Samples
from algorithms.mscn.vocabulary import Vocabulary
from pytest_pilotscope.core.joins import JoinQuery, Subplan, parse
from pytest_pilotscope.errors import ModelError, UnsupportedQuery

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session


@dataclass(slots=True, kw_only=True)
class TrainedModel:
    """
    A network, the vocabulary it was trained with, and the sample rows that its bitmaps are about (None: no bitmaps).

    Estimates are computed on one thread of the CPU.
    """

    vocabulary: Vocabulary
    samples: Samples | None
    network: MscnNetwork

    _featurizer: Featurizer = field(init=False)
    _forward: Forward = field(init=False)

    def __post_init__(self) -> None:
        self._featurizer = Featurizer(self.vocabulary, self.samples)
        self._forward = Forward(self.network)

    @classmethod
    def load(cls, folder: Path, *, session: Session | None = None) -> TrainedModel:
        """Load what `Mscn.save` wrote, without a database; `session` is only needed for predicates that PostgreSQL has to evaluate."""
        from algorithms.mscn.storage import read_model

        return read_model(folder, session=session)

    def estimate(self, sql: str) -> dict[Subplan, float]:
        """
        Estimate the rows of every subplan of a query, single relations included.

        ModelError for a query without subplans or with a table, column or join that is not in the vocabulary: the message
        names it.
        """
        query = self.parse(sql)
        return dict(zip(query.subplans(), self.rows(query, query.masks).tolist(), strict=True))

    def parse(self, sql: str) -> JoinQuery:
        """Take a query apart by the model's own schema."""
        try:
            return parse(sql, self.vocabulary.schema)
        except UnsupportedQuery as error:
            raise ModelError(f"mscn cannot estimate this query: {error.reason}; the query: {' '.join(sql.split())[:300]}") from error

    def rows(self, query: JoinQuery, masks: Sequence[int]) -> npt.NDArray[np.float64]:
        """Estimate the (S,) rows of subplans given as masks of relations, at least 1 each."""
        elements = self._featurizer.elements(query)
        members = elements.members(np.array(masks, dtype=np.int64))
        with one_thread(), torch.inference_mode():
            features = self._features(elements)
            sets = [(part, torch.from_numpy(averages(member))) for part, member in zip(features, members, strict=True)]
            logarithms = self._forward(sets).numpy()
        return np.exp(logarithms.astype(np.float64))

    def _features(self, elements: QueryElements) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        write = self._featurizer
        return (
            torch.from_numpy(write.table_features(elements.relations)),
            torch.from_numpy(write.join_features(elements.joins)),
            torch.from_numpy(write.predicate_features(elements.predicates)),
        )
