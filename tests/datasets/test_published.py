"""STATS-CEB and the data of the Join Order Benchmark, in every published layout."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pilotscope.datasets.published import PublishedDataset, dump
from pytest_pilotscope.datasets.published.dataset import SOURCES
from pytest_pilotscope.datasets.published.download import sha256_of
from pytest_pilotscope.errors import DatasetError, MissingWorkload, UsageError
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.session import Session
from tests.datasets.web import Web, serving

DUMP = """--
-- PostgreSQL database dump
--
""" + "".join(
    f"CREATE TABLE public.{table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())});\n"
    for table, columns in SOURCES["stats"].tables.items()
)
"""An empty STATS database."""


def archive_of(folder: Path, name: str, content: bytes) -> Path:
    """Return a .tar.gz with one file."""
    path = folder / "copy.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return path


def rows_of(session: Session, table: str) -> list[tuple[object, ...]]:
    """Return all rows, by id."""
    return session.execute(f"SELECT * FROM {table} ORDER BY id")


def indexes(session: Session) -> set[tuple[str, str]]:
    """Return (table, column) of every index."""
    rows = session.execute("SELECT tablename, substring(indexdef from '\\((\\w+)') FROM pg_indexes WHERE schemaname = 'public'")
    return {(str(table), str(column)) for table, column in rows}


def fails(make: Callable[[], object], message: str, kind: type[Exception] = DatasetError) -> None:
    """Check that calling it raises exactly this."""
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        make()


def csv_folder(folder: Path, name: str, rows: dict[str, str]) -> Path:
    """Make a folder with a CSV file for each table, empty but for the given rows."""
    source = SOURCES[name]
    for table, columns in source.tables.items():
        header = ",".join(column.upper() for column in columns) + "\n" if source.header else ""
        (folder / f"{table.upper() if source.header else table}.csv").write_text(header + rows.get(table, ""), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("name", "rows"), [("stats", 10_295), ("imdb", 15_158)])
def test_the_small_real_dumps(name: str, rows: int, shared_data: Path, newest_scratch: Session) -> None:
    """Each row of the reference dump is there, and every key of the published schema leads an index."""
    dataset = PublishedDataset(name=name, data_dir=shared_data / f"{name}_tiny")
    dataset.load(newest_scratch)
    counts = [newest_scratch.scalar(f"SELECT count(*) FROM {table}") for table in dataset.source.tables]
    assert sum(counts) == rows
    assert indexes(newest_scratch) >= {*dataset.references, *((table, "id") for table in dataset.source.tables)}


def test_the_queries_beside_the_data(shared_data: Path) -> None:
    """JOB's ids are file names; STATS-CEB's training queries that are test queries too are left out, and that is said."""
    job = PublishedDataset(name="imdb", data_dir=shared_data / "imdb_tiny").workload()
    assert (len(job.test), job.test[0].id, len(job.train)) == (59, "1a", 0)
    stats = PublishedDataset(name="stats", data_dir=shared_data / "stats_tiny").workload()
    assert len(stats.test) == 146
    assert stats.origin == f"{len(stats.train)} training ({1000 - len(stats.train)} more are test queries too and are left out)"


def test_no_queries() -> None:
    """Data without queries says where they are."""
    message = (
        "dataset 'imdb' comes without queries: name yours with --queries-dir; JOB's 113 queries are the files 1a.sql to 33c.sql of "
        "https://github.com/gregrahn/join-order-benchmark"
    )
    fails(PublishedDataset(name="imdb").workload, message, MissingWorkload)


def test_imdb_csv(tmp_path: Path, newest_scratch: Session) -> None:
    """The CSV files of JOB have no header, and backslashes before quotes."""
    folder = csv_folder(tmp_path, "imdb", {"keyword": '1,"a \\"b\\", c",A1\n2,plain,\n', "kind_type": "1,movie\n"})
    PublishedDataset(name="imdb", data_dir=folder).load(newest_scratch)
    assert rows_of(newest_scratch, "keyword") == [(1, 'a "b", c', "A1"), (2, "plain", None)]


def test_imdb_csv_with_a_schema(tmp_path: Path, newest_scratch: Session) -> None:
    """A schema beside the files wins over ours."""
    schema = "".join(
        f"CREATE TABLE {table} ({', '.join(f'{name} text' if name != 'id' else 'id bigint' for name in columns)});\n"
        for table, columns in SOURCES["imdb"].tables.items()
    )
    csv_folder(tmp_path, "imdb", {"kind_type": "1,movie\n"})
    (tmp_path / "schematext.sql").write_text(schema)
    PublishedDataset(name="imdb", data_dir=tmp_path).load(newest_scratch)
    assert (
        newest_scratch.scalar("SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'kind_type'::regclass AND attnum = 1")
        == "bigint"
    )


def test_conditions_of_a_schema_run_without_rights(tmp_path: Path, newest_scratch: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL checks a schema's conditions for every row of a CSV file; that runs no function of a superuser, even an unnoticed one."""
    monkeypatch.setattr(dump, "code_in", lambda session: None)
    schema = "".join(
        f"CREATE TABLE {table} ({', '.join(f'{name} text' for name in columns)}, CHECK (pg_read_file('/etc/passwd') <> ''));\n"
        for table, columns in SOURCES["imdb"].tables.items()
    )
    csv_folder(tmp_path, "imdb", {"kind_type": "1,movie\n"})
    (tmp_path / "schematext.sql").write_text(schema)
    with pytest.raises(DatasetError, match=r"permission denied for function pg_read_file \[42501\]"):
        PublishedDataset(name="imdb", data_dir=tmp_path).load(newest_scratch)


def test_stats_csv(tmp_path: Path, newest_scratch: Session) -> None:
    """The CSV files of STATS have a header, in any order and case, and timestamps."""
    folder = csv_folder(tmp_path, "stats", {})
    (folder / "BADGES.csv").write_text("Id,Date,UserId\n1,2010-07-19 19:39:07,5\n")
    PublishedDataset(name="stats", data_dir=folder).load(newest_scratch)
    assert newest_scratch.execute("SELECT id, userid, date::text FROM badges") == [(1, 5, "2010-07-19 19:39:07")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Id,Number\n", "the first line of {path} names id, number; table 'tags' has id, count, excerptpostid"),
        (b"\xff\xfeI\0d\0", "{path}: byte 0xff is not UTF-8; save the file as UTF-8"),
        (
            b"Id,Count,ExcerptPostId\n1,many,2\n",
            "{path} does not fit table 'tags' (id, count, excerptpostid): statement failed: invalid input syntax for type integer: "
            '"many" [22P02]: COPY "tags" ("id", "count", "excerptpostid") FROM STDIN WITH (FORMAT csv, HEADER true)',
        ),
    ],
)
def test_broken_csv(content: bytes, message: str, tmp_path: Path, newest_scratch: Session) -> None:
    """A wrong header, other characters and a row that does not fit are named with their file."""
    path = csv_folder(tmp_path, "stats", {}) / "TAGS.csv"
    path.write_bytes(content)
    fails(lambda: PublishedDataset(name="stats", data_dir=tmp_path).load(newest_scratch), message.format(path=path))


@pytest.mark.parametrize("schema", [False, True])
def test_missing_csv(schema: bool, tmp_path: Path, newest_scratch: Session, caplog: pytest.LogCaptureFixture) -> None:
    """Tables without a file are named and not there, also if a schema makes them; the others load, with their keys and indexes."""
    folder = csv_folder(tmp_path, "stats", {"badges": "1,5,2010-07-19 19:39:07\n"})
    (folder / "TAGS.csv").unlink()
    (folder / "POSTLINKS.csv").unlink()
    if schema:
        made = (
            f"CREATE TABLE {table} ({', '.join(map(' '.join, columns.items()))});" for table, columns in SOURCES["stats"].tables.items()
        )
        (folder / "schema.sql").write_text("\n".join(made))
    dataset = PublishedDataset(name="stats", data_dir=folder)
    dataset.load(newest_scratch)
    assert caplog.messages == [
        f"dataset 'stats': 6 of 8 CSV files found in {folder}; these tables are not there, and a query that needs one is refused: "
        "postlinks, tags"
    ]
    assert set(read_schema(newest_scratch)) == {"badges", "comments", "posthistory", "posts", "users", "votes"}
    assert newest_scratch.scalar("SELECT count(*) FROM badges") == 1
    assert ("votes", "postid") in indexes(newest_scratch)


def test_an_archive(tmp_path: Path, newest_scratch: Session, cache: Path) -> None:
    """A dump inside a tar.gz is restored, and what was unpacked is gone afterwards."""
    path = archive_of(tmp_path, "stats/stats.sql", DUMP.encode())
    PublishedDataset(name="stats", data_dir=path).load(newest_scratch)
    assert ("votes", "postid") in indexes(newest_scratch)
    assert [entry for entry in cache.iterdir() if entry.is_dir() and entry.name.startswith("stats")] == []


def test_the_public_archive_is_fetched_into_the_cache(
    tmp_path: Path, newest_scratch: Session, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a local copy the archive comes from the web, or from a mirror of it, and stays in the cache."""
    path = archive_of(tmp_path, "stats.sql", DUMP.encode())
    with serving(Web(path.read_bytes())) as web:
        monkeypatch.setenv("PILOTSCOPE_MIRROR", web.url)
        dataset = PublishedDataset(name="stats")
        dataset.source = replace(dataset.source, sha256=sha256_of(path))
        dataset.load(newest_scratch)
    assert ("votes", "postid") in indexes(newest_scratch)
    assert (cache / "downloads" / "postgres_stats.tar.gz").read_bytes() == path.read_bytes()
    assert dataset.key == f"stats-v1-{sha256_of(path)}"


def test_offline(newest_scratch: Session, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no server answers, the error says what to fetch, with its checksum, and where to put it."""
    monkeypatch.setenv("PILOTSCOPE_MIRROR", "http://127.0.0.1:1")
    source = SOURCES["imdb"]
    message = (
        "dataset 'imdb' is missing: http://127.0.0.1:1/postgres_imdb.tar.gz cannot be fetched: [Errno 111] Connection refused. Fetch "
        f"{source.url} where there is a network (SHA-256 {source.sha256}) and put it to {cache / 'downloads' / 'postgres_imdb.tar.gz'}, or "
        "name a copy of the data with --data-dir"
    )
    fails(lambda: PublishedDataset(name="imdb").load(newest_scratch), message)


def test_a_wrong_copy_of_the_archive(tmp_path: Path) -> None:
    """A file that has the archive's name must be the archive."""
    path = archive_of(tmp_path, "stats.sql", DUMP.encode()).rename(tmp_path / "postgres_stats.tar.gz")
    source = SOURCES["stats"]
    message = (
        f"{path} is not the published archive: its SHA-256 is {sha256_of(path)}, expected {source.sha256}; fetch it again from "
        f"{source.url}, or give it another name if it is meant to be different"
    )
    fails(lambda: PublishedDataset(name="stats", data_dir=tmp_path).key, message)


def test_what_is_not_there(tmp_path: Path) -> None:
    """A wrong place, an empty folder, two copies and a strange file are told apart."""
    place = tmp_path / "none"
    message = f"dataset 'stats': there is no {place}; --data-dir names a file or a folder with the data"
    fails(lambda: PublishedDataset(name="stats", data_dir=place), message)
    message = (
        f"dataset 'stats': nothing to load in {tmp_path}; it may hold postgres_stats.tar.gz, a dump of PostgreSQL (.sql, .sql.gz, .dump), "
        "or the files users.csv, posts.csv, ... of all 8 tables"
    )
    fails(lambda: PublishedDataset(name="stats", data_dir=tmp_path).key, message)
    (tmp_path / "a.sql").write_text(DUMP)
    shutil.copy(tmp_path / "a.sql", tmp_path / "b.sql")
    message = (
        f"dataset 'stats': {tmp_path} holds more than one copy of the data; name one of these with --data-dir: {tmp_path / 'a.sql'}, "
        f"{tmp_path / 'b.sql'}"
    )
    fails(lambda: PublishedDataset(name="stats", data_dir=tmp_path).key, message)
    (tmp_path / "c.txt").write_text("hello")
    message = f"dataset 'stats': {tmp_path / 'c.txt'} is neither a dump of PostgreSQL nor a tar archive with one or with CSV files in it"
    fails(lambda: PublishedDataset(name="stats", data_dir=tmp_path / "c.txt").key, message)


def test_another_database(tmp_path: Path, newest_scratch: Session) -> None:
    """A dump of something else is noticed."""
    (tmp_path / "x.sql").write_text("-- PostgreSQL database dump\nCREATE TABLE t (id int);\n")
    message = "dataset 'stats': the loaded files have no table 'users'; name other ones with --data-dir"
    fails(lambda: PublishedDataset(name="stats", data_dir=tmp_path).load(newest_scratch), message)


def test_one_size() -> None:
    """Published data cannot be scaled."""
    message = "dataset 'imdb' has one size, so it takes no --scale; stats_synthetic and tpch can be made in any size"
    fails(lambda: PublishedDataset(name="imdb", scale=0.5), message, UsageError)
