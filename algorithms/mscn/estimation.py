"""A trained model, from a query or its text to the rows of its subplans; it needs no database."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.devices import one_blas_thread
from pytest_pilotscope.algorithms.mscn.featurize import Featurizer, Floats, QueryElements
from pytest_pilotscope.algorithms.mscn.forward import Forward
from pytest_pilotscope.algorithms.mscn.model import MscnNetwork
from pytest_pilotscope.algorithms.mscn.vocabulary import Vocabulary
from pytest_pilotscope.algorithms.table_samples import Samples
from pytest_pilotscope.errors import ModelError, UnsupportedQuery
from pytest_pilotscope.queries.joins import JoinQuery, Relation, Subplan
from pytest_pilotscope.queries.plainparser import MOST_ENUMERATED, read_plain

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

Key = TypeVar("Key", bound=Hashable)


@dataclass(slots=True, kw_only=True)
class TrainedModel:
    """
    A network, its vocabulary, and the sample rows of its bitmaps (None: no bitmaps).

    It estimates on one thread of the CPU.
    """

    vocabulary: Vocabulary
    samples: Samples | None
    network: MscnNetwork

    featurizer: Featurizer = field(init=False)
    _forward: Forward = field(init=False)
    _kept: tuple[dict[Hashable, Floats], dict[Hashable, Floats]] = field(init=False)

    def __post_init__(self) -> None:
        self.featurizer = Featurizer(self.vocabulary, self.samples)
        self._forward = Forward(self.network)
        self._kept = ({}, {})

    @classmethod
    def load(cls, folder: Path, *, session: Session | None = None) -> TrainedModel:
        """Load a model that `Mscn.save` wrote; only predicates that PostgreSQL has to evaluate need a `session`."""
        from pytest_pilotscope.algorithms.mscn.saved_network import read_model

        return read_model(folder, session=session)

    def estimate(self, sql: str) -> dict[Subplan, float]:
        """
        Estimate the rows of every subplan of a query, single relations included.

        ModelError for a query that is no conjunction of predicates over tables, and for a table, column or join that is not in the
        vocabulary: the message names it.
        """
        query = self.parse(sql)
        return dict(zip(query.subplans(), self.rows(query, query.masks).tolist(), strict=True))

    def parse(self, sql: str) -> JoinQuery:
        """Parse a plain query by its text and the model's own schema; `ModelError` gives the reason for any other query."""
        try:
            query = read_plain(sql, self.vocabulary.schema)
            if not query.masks:
                raise UnsupportedQuery(f"it has {len(query.relations)} relations, more than {MOST_ENUMERATED}", sql)
        except UnsupportedQuery as error:
            raise ModelError(
                f"mscn cannot estimate this query without a database: {error.reason}; the query: {' '.join(sql.split())[:300]}"
            ) from error
        return query

    def rows(self, query: JoinQuery, masks: Sequence[int]) -> npt.NDArray[np.float64]:
        """Estimate the (S,) rows of subplans given as masks of relations, at least 1 each."""
        elements = self.featurizer.elements(query, masks)
        averages = elements.averages(np.array(masks, dtype=np.int64))
        with one_blas_thread():
            logarithms = self._forward.rows(self._encoded(elements), averages)
        return np.exp(logarithms.astype(np.float64))

    def _encoded(self, elements: QueryElements) -> list[Floats]:
        """Encode all elements, in order; keep the encodings of joins and of tables without predicates, which are few."""
        write, encode = self.featurizer, self._forward.encode

        def unfiltered(table: str) -> Floats:
            return write.table_features([Relation(alias=table, table=table, predicates=())])

        tables = self._once(0, [relation.table for relation in elements.relations], unfiltered)
        if self.samples is not None:
            filtered = [position for position, relation in enumerate(elements.relations) if relation.predicates]
            encoded = encode(0, write.table_features([elements.relations[position] for position in filtered]))
            for position, column in zip(filtered, encoded.T, strict=True):
                tables[position] = column[:, None]
        joins = self._once(1, elements.joins, lambda pair: write.join_features([pair]))
        predicates = encode(2, write.predicate_features(elements.predicates))
        return [*tables, *joins, predicates]

    def _once(self, number: int, keys: Sequence[Key], features: Callable[[Key], Floats]) -> list[Floats]:
        """Encode each new element of a set by itself, so that its encoding does not depend on the query."""
        kept = self._kept[number]
        for key in keys:
            if key not in kept:
                kept[key] = self._forward.encode(number, features(key))
        return [kept[key] for key in keys]
