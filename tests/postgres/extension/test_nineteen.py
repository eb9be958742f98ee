"""
PostgreSQL 19: the library compiles against its declarations, and steers a server of it where there is one.

No pip package has 19 yet. Until a server is found, the declarations that the library needs and that changed with 19 are put into the
headers of 18. They are as in REL_19 of PostgreSQL: `planner_hook` gets an ExplainState (optimizer/planner.h); `build_simple_rel_hook`
(optimizer/pathnode.h) takes the place of `get_relation_info_hook`; the planner's switches become a mask of each relation, `pgs_mask`
(nodes/pathnodes.h); eager aggregation has grouped relations (optimizer/paths.h). The tests of steering also run on 18, so that they
themselves are known to be right.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.postgres.binaries import available_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension.build import build_library, compile_command, find_headers
from pytest_pilotscope.postgres.extension.compiling import find_compiler
from pytest_pilotscope.postgres.session import Session

SCANS = ("SEQSCAN", "INDEXSCAN", "INDEXONLYSCAN", "BITMAPSCAN", "TIDSCAN", "CONSIDER_INDEXONLY")
JOINS = ("MERGEJOIN_PLAIN", "MERGEJOIN_MATERIALIZE", "NESTLOOP_PLAIN", "NESTLOOP_MATERIALIZE", "NESTLOOP_MEMOIZE", "HASHJOIN")
CHANGES = {
    "optimizer/planner.h": (
        (r"#include \"nodes/plannodes.h\"", '#include "nodes/plannodes.h"\ntypedef struct ExplainState ExplainState;'),
        (r"(\(\*planner_hook_type\)[^;]*ParamListInfo boundParams)\)", r"\1, ExplainState *es)"),
        (r"(standard_planner\([^;]*ParamListInfo boundParams)\)", r"\1, ExplainState *es)"),
    ),
    "optimizer/plancat.h": ((r"typedef void \(\*get_relation_info_hook_type\)[^;]*;\s*extern[^;]*;", ""),),
    "optimizer/pathnode.h": (
        (
            r"(#include \"nodes/pathnodes.h\")",
            r"\1\ntypedef void (*build_simple_rel_hook_type) (PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte);\n"
            r"extern PGDLLIMPORT build_simple_rel_hook_type build_simple_rel_hook;",
        ),
    ),
    "optimizer/paths.h": (
        (
            r"(#include \"nodes/pathnodes.h\")",
            r"\1\nextern void generate_grouped_paths(PlannerInfo *root, RelOptInfo *grouped_rel, RelOptInfo *rel);",
        ),
    ),
    "nodes/pathnodes.h": (
        (
            r"(typedef Bitmapset \*Relids;)",
            r"\1\n#define IS_GROUPED_REL(rel) ((rel)->agg_info != NULL)\n"
            + r"\n".join(f"#define PGS_{name} ((uint64) 1 << {bit})" for bit, name in enumerate((*SCANS, *JOINS))),
        ),
        (r"(typedef struct RelOptInfo\s*\{)", r"\1\n\tuint64 pgs_mask;\n\tstruct RelOptInfo *grouped_rel;\n\tstruct RelAggInfo *agg_info;"),
    ),
}
"""Header -> pairs of a pattern in 18 and the text of 19 in its place."""


def _changed(headers: Path, folder: Path) -> Path:
    """Return a copy of the headers of 18 with these declarations of 19."""
    copy = folder / "server"
    shutil.copytree(headers, copy)
    for name, changes in CHANGES.items():
        text = (copy / name).read_text(encoding="utf-8")
        for pattern, replacement in changes:
            text, count = re.subn(pattern, replacement, text)
            assert count == 1, (name, pattern)
        (copy / name).write_text(text, encoding="utf-8")
    for path in copy.glob("pg_config*.h"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(#define PG_VERSION_NUM) \d+", r"\1 190000", text), encoding="utf-8")
    return copy


def test_the_sources_compile_against_the_declarations_of_19(tmp_path: Path) -> None:
    """Without a word under -Wall -Wextra, and no hook that 19 has removed is named."""
    eighteen = next((binaries for binaries in available_binaries() if binaries.major == 18), None)
    if eighteen is None:
        pytest.skip("no PostgreSQL 18 on this machine, whose headers are changed for this test")
    headers = _changed(find_headers(eighteen.bindir).folder, tmp_path)
    command = [*compile_command(find_compiler(), headers, tmp_path / "x.so"), "-Wall", "-Wextra"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    symbols = subprocess.run(["nm", "-D", "--undefined-only", tmp_path / "x.so"], capture_output=True, text=True, check=True).stdout.split()
    assert "build_simple_rel_hook" in symbols
    assert "get_relation_info_hook" not in symbols


@pytest.fixture(scope="module", params=[18, 19])
def steerable(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Give a session with the library on a version of PostgreSQL, in a database with two tables."""
    found = next((binaries for binaries in available_binaries() if binaries.major == request.param), None)
    if found is None:
        pytest.skip(f"no PostgreSQL {request.param} on this machine: install one, with its headers, to try the library on it")
    with EmbeddedServer(found, libraries=(build_library(found.bindir),), why="for the tests") as server, server.connect() as session:
        session.execute("CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, k int); CREATE INDEX b_k ON b (k)")
        session.execute("INSERT INTO a SELECT i, i % 9 FROM generate_series(1, 3000) i")
        session.execute("INSERT INTO b SELECT i, i % 3000 FROM generate_series(1, 9000) i")
        session.execute("VACUUM ANALYZE")
        yield session


JOINED = "SELECT count(*) FROM a JOIN b ON a.id = b.k WHERE a.v = 1"


def test_rows_are_injected(steerable: Session) -> None:
    """Of a table and of a join; the planner reports both sets."""
    assert set(steerable.subplans(JOINED)) == {frozenset("a"), frozenset("b"), frozenset("ab")}
    with steerable.cardinalities({frozenset("a"): 77, frozenset("ab"): 1234}):
        nodes = list(steerable.explain(JOINED).nodes())
    assert {node.rows for node in nodes if node.alias == "a"} == {77}
    assert {node.rows for node in nodes if node.is_join} == {1234}


@pytest.mark.parametrize(("method", "operation"), [("hashjoin", "Hash Join"), ("mergejoin", "Merge Join"), ("nestloop", "Nested Loop")])
def test_methods_of_joins_and_scans_are_obeyed(steerable: Session, method: str, operation: str) -> None:
    """The masks of relations do what the switches of the session did until 18."""
    for scan, scanned in (("seqscan", {"Seq Scan"}), ("bitmapscan", {"Bitmap Heap Scan"}), ("indexscan", {"Index Scan"})):
        with steerable.hints(join_order="(a b)", methods={"a b": method, "b": scan}):
            plan = steerable.explain(f"{JOINED} AND b.k > 10")
        assert [node.node_type for node in plan.nodes() if node.is_join] == [operation]
        assert {node.node_type for node in plan.nodes() if node.alias == "b"} == scanned


def test_indexes_are_hidden(steerable: Session) -> None:
    """The hook that takes the place of `get_relation_info_hook` removes them before paths are made."""
    query = "SELECT * FROM b WHERE k = 7"
    assert "b_k" in {node.index for node in steerable.explain(query).nodes()}
    with steerable.hidden_indexes(["b_k"]):
        assert "b_k" not in {node.index for node in steerable.explain(query).nodes()}


def test_eager_aggregation_leaves_the_sets_alone(steerable: Session) -> None:
    """A grouped relation has the relations of a set, but its own rows: injected rows are those of the join."""
    query = "SELECT b.k, count(*) FROM a JOIN b ON a.id = b.k GROUP BY b.k"
    if steerable.server_version >= 190000:
        steerable.execute("SET min_eager_agg_group_size = 0")
    with steerable.cardinalities({frozenset("ab"): 1234}), steerable.hints(join_order="(a b)"):
        assert {node.rows for node in steerable.explain(query).nodes() if node.is_join and node.partial_mode is None} <= {1234}
