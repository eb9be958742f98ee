"""The network in C and in NumPy: the same numbers as PyTorch's, and the record says which one computed."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pytest_pilotscope.algorithms.devices import seeded
from pytest_pilotscope.algorithms.mscn import compiled
from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.estimator import Mscn
from pytest_pilotscope.algorithms.mscn.featurize import Featurizer
from pytest_pilotscope.algorithms.mscn.model import MscnNetwork, TensorBags
from pytest_pilotscope.algorithms.mscn.vocabulary import Vocabulary
from pytest_pilotscope.algorithms.table_samples import Samples, TableSample
from pytest_pilotscope.errors import MissingExtension, ServerError
from pytest_pilotscope.postgres.extension.compiling import find_compiler
from pytest_pilotscope.queries.joins import JoinQuery
from pytest_pilotscope.queries.plainparser import read_plain
from tests.algorithms.mscn_example import RANGES, SAMPLE_ROWS, SCHEMA, queries, samples

JOINED = "SELECT 1 FROM users u, posts p, votes v, users w WHERE u.id = p.userid AND p.id = v.postid AND w.id = v.userid"
MANY = f"{JOINED} AND u.age IN (1, 5, 900)"
QUERIES = (
    "SELECT 1 FROM users",
    "SELECT 1 FROM posts WHERE score < -1000",  # no sample row passes
    "SELECT 1 FROM posts WHERE score > -1000 AND id >= 0",  # nearly all pass
    MANY,
    f"{MANY} AND u.age > 3 AND u.age < 90 AND u.name <> 'a' AND p.score BETWEEN -5 AND 60 AND v.id < 100 AND w.id > 150 AND w.age <> 7",
)


def model(hidden: int, *, bitmaps: bool, empty: bool = False) -> TrainedModel:
    """A model with random weights; `empty` tables have no sample rows."""
    kept = samples()
    if empty:
        kept = Samples(
            {**kept.tables, "posts": TableSample("posts", SCHEMA["posts"], dict.fromkeys(SCHEMA["posts"], ()))}, rows=SAMPLE_ROWS
        )
    vocabulary = Vocabulary(schema=SCHEMA, ranges=RANGES)
    with seeded(hidden):
        network = MscnNetwork(Featurizer(vocabulary, kept if bitmaps else None).widths, hidden=hidden)
    network.set_label_range(0.0, 14.0, 6.0)
    return TrainedModel(vocabulary=vocabulary, samples=kept if bitmaps else None, network=network)


def by_torch(of: TrainedModel, query: JoinQuery) -> list[float]:
    """The rows by the network that was trained."""
    write = of.featurizer
    elements = write.elements(query, query.masks)
    weights = elements.averages(np.array(query.masks))
    parts = (write.table_features(elements.relations), write.join_features(elements.joins), write.predicate_features(elements.predicates))
    rows, columns = weights.nonzero()
    sizes = np.bincount(rows, minlength=len(weights))
    bags = (columns, weights[rows, columns], np.cumsum([0, *sizes[:-1]]))
    there = TensorBags(*map(torch.from_numpy, bags))
    with torch.no_grad():
        found: list[float] = of.network([torch.from_numpy(part) for part in parts], there, there).exp().tolist()
    return found


def parsed() -> Iterator[JoinQuery]:
    """Queries with up to 4 relations and 11 predicates, self-joins among them."""
    yield from queries(40)
    yield from (read_plain(sql, SCHEMA) for sql in QUERIES)


@pytest.mark.parametrize("hidden", [1, 8, 16, 33, 256])
@pytest.mark.parametrize(("bitmaps", "empty"), [(True, False), (True, True), (False, False)], ids=["bitmaps", "an empty table", "none"])
def test_all_ways_give_the_same_rows(hidden: int, bitmaps: bool, empty: bool) -> None:
    """Compiled, NumPy and PyTorch differ by rounding only, for every width and whatever share of the sample passes."""
    own, numpy = (model(hidden, bitmaps=bitmaps, empty=empty) for _ in range(2))
    assert own.path == "compiled"
    numpy.use_numpy("for the test")
    for query in parsed():
        expected = by_torch(own, query)
        assert own.rows(query, query.masks) == pytest.approx(expected, rel=2e-5)
        assert numpy.rows(query, query.masks) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("weight", ["sets.tables.first.weight", "sets.predicates.merge.weight", "output.bias"])
def test_a_broken_network_does_not_look_whole(weight: str) -> None:
    """A weight that is no number spoils the rows, as in PyTorch, wherever it is; C would leave it out where it is multiplied by 0."""
    whole = model(8, bitmaps=True)
    whole.network.state_dict()[weight].view(-1)[-1] = float("nan")
    broken = TrainedModel(vocabulary=whole.vocabulary, samples=whole.samples, network=whole.network)
    assert broken.path == "NumPy: the network has weights that are no numbers, and C skips those that are multiplied by 0"
    query = read_plain(f"{JOINED} AND u.age > 3", SCHEMA)
    assert np.isnan(broken.rows(query, query.masks)).any()
    assert np.isnan(by_torch(broken, query)).any()


def test_another_query_of_a_template_gives_what_a_new_model_gives() -> None:
    """Nothing of one query's constants is left in the next."""
    known = model(16, bitmaps=True)
    texts = [
        f"SELECT 1 FROM users u, posts p WHERE u.id = p.userid AND u.age < {age} AND p.score IN ({age}, 3)" for age in range(-3, 100, 7)
    ]
    for text in [*texts, *texts[::-1]]:
        assert known.estimate(text) == pytest.approx(model(16, bitmaps=True).estimate(text), rel=1e-6)


def test_without_a_compiler_numpy_computes_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record has the way as a parameter, so that two runs with different ways are not taken for the same."""
    expected = model(8, bitmaps=True).estimate(MANY)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    compiled._library.cache_clear()
    mscn = Mscn()
    mscn.model = model(8, bitmaps=True)
    assert mscn.inference == (
        "NumPy: the network of mscn cannot be built: there is neither a C compiler (cc) nor the ziglang package; "
        "install one, for instance with: pip install ziglang"
    )
    assert mscn.model.estimate(MANY) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (MissingExtension("it could not be compiled\n(exit status 1)"), "it could not be compiled (exit status 1)"),
        (ServerError("the library is not used: it belongs to eve"), "the library is not used: it belongs to eve"),
        (PermissionError(13, "Permission denied", "cache"), "[Errno 13] Permission denied: 'cache'"),
        (subprocess.TimeoutExpired("cc", 300), "Command 'cc' timed out after 300 seconds"),
    ],
)
def test_a_library_that_cannot_be_had_is_no_reason_to_fail(error: Exception, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A served model may have neither a compiler nor a cache; the reason is on one line."""

    def refused(*_: object) -> Path:
        raise error

    monkeypatch.setattr(compiled, "load_compiled", refused)
    compiled._library.cache_clear()
    assert model(8, bitmaps=True).path == f"NumPy: {why}"


def test_no_compiler_warnings(tmp_path: Path) -> None:
    """The source compiles without a word under -Wall -Wextra."""
    command = [*find_compiler(), "-O3", "-fPIC", "-shared", "-Wall", "-Wextra", "-o", str(tmp_path / "x.so"), str(compiled._SOURCE), "-lm"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
