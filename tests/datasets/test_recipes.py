"""The commands of the docs for published workloads, on small imitations of the folders as they were published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pilotscope.datasets.files import load_workload_files
from pytest_pilotscope.datasets.published import PublishedDataset
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from tests.datasets.test_published import csv_folder

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^pytest benchmarks (.*)$", DOCS.split("## Published workloads")[1].split("\n## ")[0], re.MULTILINE)

ONE = "SELECT min(t.title) FROM title AS t, movie_info AS mi WHERE t.id = mi.movie_id AND mi.info ILIKE '%{0}%'"
"""A query of IMDB's tables."""

LAYOUTS: dict[str, dict[str, str]] = {
    "learnedcardinalities/workloads/job-light.csv": {
        "": "title t,movie_companies mc#t.id=mc.movie_id#mc.company_type_id,=,2,t.production_year,>,2010#7\ntitle t##t.kind_id,=,1#3\n",
    },
    "imdb_pg_dataset/job_extended": {
        "README.md": "# SELECT is a word here",
        "e1a.sql": f"--- about the query\n{ONE.format('a')};\n\n-- AND mi.info::int > 1000;\n-- order by mi.info LIMIT 100;\n",
        "e2b.sql": f"{ONE.format('b')}\n;\n",
        "e10a.sql": f"{ONE.format('c')};\n",
    },
    "JOB-Complex/JOB-Complex.sql": {"": f"{ONE.format('a')};\nSELECT count(*)\nFROM title t\nWHERE t.title LIKE '%;%';\n"},
    "imdb_pg_dataset/ceb-imdb-13k": {
        "1a/0052dae8.sql": f"{ONE.format('a')}\nGROUP BY t.title\n",
        "1a/e1bfab29.sql": f"{ONE.format('b')}\n",
        "10a/0052dae8.sql": f"{ONE.format('c')}\n",
    },
    "dsb_queries/1": {
        "query013_spj/query013_spj_0.sql": "\n-- start query013_spj.tpl\nselect min(ss_quantity)\nfrom store_sales\n;\n\n",
        "query013_spj/query013_spj_1.sql": "-- start\n select min(ss_quantity) from store_sales where ss_quantity > 1;\n-- end\n",
        "query102_spj/query102_spj_0.sql": "select min(ws_order_number) from web_sales\n    ;\n",
    },
    "SQLStorm/v1.0/tpch/queries": {"10000.sql": "WITH a AS (SELECT 1) SELECT * FROM a;\n", "9.sql": "SELECT count(*) FROM orders\n"},
}
LAYOUTS |= {f"SQLStorm/v1.0/{name}/queries": LAYOUTS["SQLStorm/v1.0/tpch/queries"] for name in ("tpcds", "job", "stackoverflow")}

IDS = {
    "job-light.csv": ["q001", "q002"],
    "job_extended": ["e1a", "e2b", "e10a"],
    "JOB-Complex.sql": ["q001", "q002"],
    "ceb-imdb-13k": ["1a-0052dae8", "10a-0052dae8", "e1bfab29"],
    "1": ["query013_spj_0", "query013_spj_1", "query102_spj_0"],
    "queries": ["9", "10000"],
}
"""The last part of a path -> the ids of the imitation's queries."""


def imitated(folder: Path, path: str) -> Path:
    """Write an imitation of a layout; return the path that `--queries-dir` names."""
    for name, text in LAYOUTS[path].items():
        file = folder / path / name if name else folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder / path


def queries_of(command: str) -> str:
    """Return the path after `--queries-dir`."""
    return command.split("--queries-dir ")[1].split()[0]


def test_every_layout_has_a_command() -> None:
    """The docs have one line for each layout that is imitated here, and no other."""
    assert sorted(queries_of(command) for command in COMMANDS) == sorted(LAYOUTS)


@pytest.mark.parametrize("command", COMMANDS, ids=queries_of)
def test_a_command_reads_its_layout(command: str, tmp_path: Path) -> None:
    """Every query of the layout is found, in order and with its own id, and nothing is left out."""
    path = imitated(tmp_path, queries_of(command))
    found = load_workload_files(path, "any", None)
    assert [query.id for query in found.test] == IDS[path.name]
    assert found.unmeasured == ()


def test_queries_of_imdb_are_planned(newest_server: EmbeddedServer, tmp_path: Path) -> None:
    """PostgreSQL plans what was read of the layouts of IMDB's workloads, on the tables that `--db imdb` makes."""
    (tmp_path / "data").mkdir()
    data = csv_folder(tmp_path / "data", "imdb", {})
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE recipes_test")
        with newest_server.connect("recipes_test") as session:
            PublishedDataset(name="imdb", data_dir=data).load(session)
            for path in (queries_of(command) for command in COMMANDS if "--db imdb" in command and "SQLStorm" not in command):
                for query in load_workload_files(imitated(tmp_path, path), "imdb", None).test:
                    assert session.explain(query.sql).rows >= 1, query.id
        administrator.execute("DROP DATABASE recipes_test WITH (FORCE)")


def test_many_files_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of each file is looked at a few times, however many there are: CEB has 13,644."""
    for number in range(300):
        (tmp_path / f"{number}.sql").write_text(f"SELECT {number}", encoding="utf-8")
    looked: list[Path] = []

    def counting(path: Path) -> str:
        looked.append(path)
        return path.name.removesuffix(".sql")

    monkeypatch.setattr(type(tmp_path), "stem", property(counting))
    assert len(load_workload_files(tmp_path, "any", None).test) == 300
    assert len(looked) <= 300 * 10
