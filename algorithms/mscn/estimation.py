"""A trained model, from a query or its text to the rows of its subplans; it needs no database."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import SubprocessError
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.model_files import one_line
from pytest_pilotscope.algorithms.mscn.compiled import CompiledForward
from pytest_pilotscope.algorithms.mscn.featurize import Featurizer, Floats
from pytest_pilotscope.algorithms.mscn.forward import Elements, Forward
from pytest_pilotscope.algorithms.mscn.vocabulary import PredicateElement, Vocabulary
from pytest_pilotscope.algorithms.table_samples import Samples
from pytest_pilotscope.errors import ModelError, PilotscopeError, UnsupportedQuery
from pytest_pilotscope.queries.joins import JoinQuery, Relation, Subplan
from pytest_pilotscope.queries.plainparser import MOST_ENUMERATED, PlainQuery
from pytest_pilotscope.queries.plaintemplates import PlainParser

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.mscn.model import MscnNetwork
    from pytest_pilotscope.postgres.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fixed:
    """
    The part of a query's elements that does not depend on its constants.

    `encodings` are (K, H), of all joins, and of the tables whose encoding does not depend on predicates; `filtered` are the aliases of the
    other tables, `tables` their positions. `needs` and `sets` are those of all these elements. `bits` are the masks of the aliases.
    """

    masks: npt.NDArray[np.int64]
    encodings: Floats
    filtered: tuple[str, ...]
    tables: npt.NDArray[np.int64]
    needs: tuple[int, ...]
    sets: tuple[int, ...]
    bits: dict[str, int]


@dataclass(slots=True, kw_only=True)
class TrainedModel:
    """
    A network, its vocabulary, and the sample rows of its bitmaps (None: no bitmaps).

    It estimates on one thread of the CPU: in C, or in NumPy if there is no C compiler; `path` says which, and why.
    """

    vocabulary: Vocabulary
    samples: Samples | None
    network: MscnNetwork

    featurizer: Featurizer = field(init=False)
    path: str = field(init=False)
    _forward: Forward = field(init=False)
    _parser: PlainParser = field(init=False)
    _encodings: dict[Hashable, Floats] = field(default_factory=dict, init=False)
    _fixed: WeakKeyDictionary[object, tuple[_Fixed, tuple[Subplan, ...]]] = field(default_factory=WeakKeyDictionary, init=False)

    def __post_init__(self) -> None:
        self.featurizer = Featurizer(self.vocabulary, self.samples)
        self._parser = PlainParser(self.vocabulary.schema)
        rows = 0 if self.samples is None else self.samples.rows
        sizes = [0 if self.samples is None else self.samples.tables[table].size for table in self.vocabulary.tables]
        try:
            self._forward = CompiledForward(self.network, sizes, rows)
            self.path = "compiled"
        except (PilotscopeError, OSError, SubprocessError) as error:  # no compiler, a cache that cannot be written, a hanging compiler
            self.use_numpy(one_line(error))

    def use_numpy(self, why: str) -> None:
        """Estimate with NumPy from now on."""
        self._forward, self.path = Forward(self.network), f"NumPy: {why}"
        self._encodings.clear()
        self._fixed.clear()

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
        return self.estimate_all(self.parse(sql))

    def parse(self, sql: str) -> PlainQuery:
        """Parse a plain query by its text and the model's own schema; `ModelError` gives the reason for any other query."""
        try:
            query = self._parser.read(sql)
            if not query.masks:
                raise UnsupportedQuery(f"it has {len(query.relations)} relations, more than {MOST_ENUMERATED}", sql)
        except UnsupportedQuery as error:
            raise ModelError(
                f"mscn cannot estimate this query without a database: {error.reason}; the query: {' '.join(sql.split())[:300]}"
            ) from error
        return query

    def plain(self, sql: str) -> PlainQuery | None:
        """Parse a plain query by its text; None for any other query."""
        return self._parser.parse(sql)

    def estimate_all(self, query: PlainQuery) -> dict[Subplan, float]:
        """Estimate the rows of every subplan of a parsed query."""
        found = self._fixed.get(query.template)
        if found is None:
            found = self._fixed[query.template] = (self._fixed_of(query, query.masks), query.subplans())
        fixed, subplans = found
        return dict(zip(subplans, self._rows(query, fixed).tolist(), strict=True))

    def rows(self, query: JoinQuery, masks: Sequence[int]) -> npt.NDArray[np.float64]:
        """Estimate the (S,) rows of subplans given as masks of relations, at least 1 each."""
        return self._rows(query, self._fixed_of(query, masks))

    def _rows(self, query: JoinQuery, fixed: _Fixed) -> npt.NDArray[np.float64]:
        predicates: list[PredicateElement] = []
        needs: list[int] = []
        for alias, bit in fixed.bits.items():
            relation = query.relations[alias]
            for one in relation.predicates:
                found = self.featurizer.predicate(relation.table, one.sql, one.condition)
                predicates += found
                needs += [bit] * len(found)
        return self._forward.rows(
            Elements(
                masks=fixed.masks,
                needs=np.array([*fixed.needs, *needs], dtype=np.int64),
                sets=np.array([*fixed.sets, *[2] * len(needs)], dtype=np.int64),
                encodings=fixed.encodings,
                tables=fixed.tables,
                bits=self.featurizer.bitmaps([query.relations[alias] for alias in fixed.filtered]),
                features=self.featurizer.predicate_features(predicates),
            )
        )

    def _fixed_of(self, query: JoinQuery, masks: Sequence[int]) -> _Fixed:
        """Encode the elements that do not depend on the constants of a query; `ModelError` for one without features."""
        write = self.featurizer
        elements = write.elements(query, masks)
        needs = elements.needs.tolist()
        bits = {relation.alias: need for relation, need in zip(elements.relations, needs, strict=False)}
        filtered = [relation for relation in elements.relations if relation.predicates and self.samples is not None]
        others = [relation for relation in elements.relations if relation not in filtered]
        known = [self._encoding(0, one.table, partial(write.table_features, [_unfiltered(one)])) for one in others]
        known += [self._encoding(1, pair, partial(write.join_features, [pair])) for pair in elements.joins]
        joined = needs[len(elements.relations) : len(elements.relations) + len(elements.joins)]
        return _Fixed(
            masks=np.array(masks, dtype=np.int64),
            encodings=np.concatenate([*known, np.zeros((0, self._forward.width), dtype=np.float32)]),
            filtered=tuple(relation.alias for relation in filtered),
            tables=np.array([self.vocabulary.table(relation) for relation in filtered], dtype=np.int64),
            needs=(*(bits[one.alias] for one in others), *joined, *(bits[one.alias] for one in filtered)),
            sets=(*[0] * len(others), *[1] * len(joined), *[0] * len(filtered)),
            bits=bits,
        )

    def _encoding(self, number: int, key: Hashable, features: Callable[[], Floats]) -> Floats:
        """Encode an element that many queries have by itself, so that its encoding does not depend on the query, and once."""
        if (number, key) not in self._encodings:
            self._encodings[number, key] = self._forward.encode(number, features())
        return self._encodings[number, key]


def _unfiltered(relation: Relation) -> Relation:
    return Relation(alias=relation.table, table=relation.table, predicates=())
