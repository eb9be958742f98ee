"""Labels within a bound of memory: blocks, parts, and PostgreSQL for what does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pytest_pilotscope.errors import LabelError
from pytest_pilotscope.labels import memory
from pytest_pilotscope.labels.exact import Counts, counts, dot
from pytest_pilotscope.labels.memory import Bounded
from pytest_pilotscope.labels.source import _LineBlocks, _parse_copy
from pytest_pilotscope.labels.vectors import Vector, summed
from tests.labels.sqlite_rows import SqliteSource
from tests.labels.test_collect import QUERIES, ROWS, SCHEMA, exact, labelled, rows

_CHILD = """
import json, resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from pytest_pilotscope.labels import cardinalities
from pytest_pilotscope.queries.queries import Query
from tests.labels.statements import built

SCHEMA = {"u": {"id": "integer"}, "v": {"u": "integer", "w": "integer"}, "w": {"id": "integer", "n": "integer"}}
ROWS = {"u": 1_500_000, "v": 3_000_000, "w": 1_500_000}

class Source:
    def statement(self, sql, timeout_ms): return built(sql, SCHEMA)
    def settings(self): return {}
    def digest(self, table): return ROWS[table.strip('"')], "same"
    def count(self, sql, timeout_ms): return -1
    def rows(self, table, expressions, take):
        size = ROWS[table.strip('"')]
        for start in range(0, size, 1 << 16):
            at = np.arange(start, min(start + (1 << 16), size))
            made = {'"id"': at, '"u"': at * 7919 % 1_500_000, '"w"': at * 104729 % 1_500_000, '"n"': at % 100}
            take([pa.array(made[one.sql]) for one in expressions])

queries = [
    Query(id=f"q{n}", sql=f"SELECT 1 FROM u, v, w WHERE u.id = v.u AND v.w = w.id AND w.n >= {n} AND v.u > {n}") for n in range(12)
]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
labels = cardinalities(Source(), queries, schema=SCHEMA, fingerprint="", cache_dir=Path(sys.argv[1]), memory_bytes=int(sys.argv[2]) << 20)
found = [[label.rows for label in labels[query.id].values()] for query in queries]
print(json.dumps([found, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10]))
"""


def counted_in_a_child(folder: Path, memory_mb: int) -> tuple[list[list[int]], int]:
    """Label in a process of its own; return the counts, and the MB by which its largest memory grew."""
    here = Path(__file__).parents[2]
    told = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder), str(memory_mb)],
        check=True,
        capture_output=True,
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(here), "OPENBLAS_NUM_THREADS": "1"},
    )
    found, grown_mb = json.loads(told.stdout)
    return found, grown_mb


@pytest.mark.slow
def test_memory_stays_within_the_bound(tmp_path: Path) -> None:
    """A small and a large bound give the same labels, and a process does not grow by more than its bound."""
    small, small_mb = counted_in_a_child(tmp_path / "small", 256)
    large, _ = counted_in_a_child(tmp_path / "large", 2048)
    assert small == large
    assert min(map(min, small)) > 0
    assert small_mb < 256


def test_what_does_not_fit_is_counted_by_the_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The labels are the same, and a line says how many sets it was."""
    source = SqliteSource(SCHEMA, ROWS)
    labels = labelled(source, tmp_path, memory_bytes=100)
    assert rows(labels) == exact(source)
    by_database = {name for found in labels.values() for name, label in found.items() if label.source == "postgres"}
    assert by_database == {frozenset("ab"), frozenset("bc"), frozenset("abc")}
    sets = len(source.counted)
    assert caplog.messages == [
        f"{sets} sets of relations take more memory than --label-memory (0 MB) or too many steps: counted by PostgreSQL"
    ]
    source.close()


def test_blocks_of_rows_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are the same however few rows are read at once."""
    for module in ("memory", "counting", "domains", "filtered"):
        monkeypatch.setattr(f"pytest_pilotscope.labels.{module}.BLOCK_ROWS", 8)
    assert list(memory.blocks(20)) == [slice(0, 8), slice(8, 16), slice(16, 20)]
    source = SqliteSource(SCHEMA, ROWS)
    assert rows(labelled(source, tmp_path, QUERIES)) == exact(source)
    source.close()


def test_a_value_that_is_too_large_is_not_held() -> None:
    """Values that fit stay, and the one that was not used for longest goes first."""
    held: Bounded[bytes] = Bounded(10, len)
    held.put("large", b"12345678901")
    held.put("a", b"12345")
    held.put("b", b"12345")
    held.get("a")
    held.put("c", b"12345")
    assert [held.get(key) for key in ("large", "a", "b", "c")] == [None, b"12345", None, b"12345"]


def _as_vector(values: list[int]) -> Vector:
    return summed([(np.repeat(np.arange(len(values)), values),)], [], len(values))


@pytest.mark.parametrize("left", [[0] * 40, [3, *[0] * 39], [1, 2] * 20, [0] * 37 + [5, 0, 2]])
@pytest.mark.parametrize("right", [[0] * 40, [2, *[0] * 38, 7], [4, 0] * 20])
def test_products_of_listed_and_full_vectors(left: list[int], right: list[int]) -> None:
    """They are those of the numbers, whether a vector lists the codes with rows or has a count for every code."""
    both = _as_vector(left).times(_as_vector(right))
    assert both.all().values.tolist() == [a * b for a, b in zip(left, right, strict=True)]
    assert both.total() == _as_vector(left).dot(_as_vector(right)) == sum(a * b for a, b in zip(left, right, strict=True))


def test_sums_of_blocks_are_exact_beyond_64_bits() -> None:
    """A sum is widened when it may exceed 63 bits, and not before."""
    large = counts(np.full(3, 2**61, dtype=np.int64))
    codes, places = np.array([0, 1, 1]), np.arange(3)
    once, often = (summed([(codes, places)] * times, [large], 2).all() for times in (1, 5))
    assert (once.values.tolist(), often.values.tolist()) == ([2**61, 2**62], [5 * 2**61, 10 * 2**61])
    assert often.values.dtype == object
    wide = Counts(np.array([*[2**61] * 3, 2**70, 1, 1], dtype=object), 2**70)
    assert summed([(codes, places), (codes, places + 3)], [wide], 2).all().values.tolist() == [2**61 + 2**70, 2**62 + 2]
    assert dot(often, often) == (5 * 2**61) ** 2 + (10 * 2**61) ** 2


def test_a_row_may_be_longer_than_a_block() -> None:
    """A text of two million characters is read as any other."""
    [texts] = _parse_copy(b"x" * 2_000_000 + b"\ny\n", ["text"])
    assert [len(text) for text in texts.to_pylist()] == [2_000_000, 1]


def test_lines_are_never_cut() -> None:
    """Blocks end with a line, whatever the pieces; an error of the taker is raised at the end, and nothing more is taken."""
    taken: list[bytes] = []
    with _LineBlocks(taken.append) as lines:
        for piece in (b"a\tb", b"c\nd", b"", b"e\nf\n", b"\n"):
            lines.add(memoryview(piece))
    assert taken == [b"a\tbc\n", b"de\nf\n", b"\n"]

    def refuse(content: bytes) -> None:
        taken.append(content)
        raise LabelError("full")

    taken.clear()
    lines = _LineBlocks(refuse)
    for piece in (b"a\n", b"b\n"):
        lines.add(memoryview(piece))
    with pytest.raises(LabelError, match=r"^full$"):
        lines.__exit__(None, None, None)
    assert taken == [b"a\n"]
