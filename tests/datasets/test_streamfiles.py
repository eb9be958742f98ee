"""The description of a stream, from a TOML file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pilotscope.datasets.stats import StatsDataset
from pytest_pilotscope.datasets.streamfiles import read_stream
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.queries.streams import StreamSpec, described_stream, drawn_stream


def test_a_stream_is_read_from_its_file(tmp_path: Path) -> None:
    """It is called after the file; a file of statements lies beside it, and is split as psql does."""
    (tmp_path / "w.sql").write_text("INSERT INTO t VALUES (1, 'a;b');\n-- then\nANALYZE;")
    path = tmp_path / "day.toml"
    path.write_text('queries = 200\nrepeated = 0.7\nexact = 0.5\nseed = 4\n[writes]\nevery = 20\nfile = "w.sql"')
    expected = StreamSpec(name="day", queries=200, repeated=0.7, exact=0.5, seed=4, write_every=20)
    assert read_stream(path) == StreamSpec(
        **{name: getattr(expected, name) for name in expected.__slots__ if name != "writes"},
        writes=("INSERT INTO t VALUES (1, 'a;b')", "ANALYZE"),
    )
    path.write_text('queries = 2\nrepeated = 1\n[writes]\nevery = 1\nstatements = ["ANALYZE; DELETE FROM t", "VACUUM"]')
    assert read_stream(path) == StreamSpec(name="day", queries=2, repeated=1, write_every=1, writes=("ANALYZE", "DELETE FROM t", "VACUUM"))


SHARES = "queries = 10\nrepeated = 0.5\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("queries = ", "it cannot be read as TOML (Invalid value (at end of document))"),
        ("repeated = 0.5", "queries is missing"),
        ("queries = 10", "repeated is missing"),
        ("queries = 10\nrepeats = 0.5", "unknown repeats; known: queries, repeated, exact, seed"),
        ("queries = 1\nrepeated = 0.5", "expected queries to be at least 2, got 1"),
        ("queries = true\nrepeated = 0.5", "expected queries to be a whole number, got True"),
        ("queries = 2.5\nrepeated = 0.5", "expected queries to be a whole number, got 2.5"),
        ("queries = 10\nrepeated = 1.5", "expected repeated to be from 0 to 1, got 1.5"),
        ("queries = 10\nrepeated = nan", "expected repeated to be from 0 to 1, got nan"),
        ('queries = 10\nrepeated = "70%"', "expected repeated to be a number, got '70%'"),
        (f"{SHARES}exact = -1", "expected exact to be from 0 to 1, got -1"),
        (f"{SHARES}seed = -1", "expected seed to be at least 0, got -1"),
        (f"{SHARES}writes = 3", "expected a table [writes], got 3"),
        (f"{SHARES}[writes]\nevery = 0\nstatements = ['ANALYZE']", "expected writes.every to be at least 1, got 0"),
        (f"{SHARES}[writes]\nstatements = ['ANALYZE']", "writes.every is missing"),
        (f"{SHARES}[writes]\nevery = 2", "expected either writes.statements or writes.file"),
        (f"{SHARES}[writes]\nevery = 2\nfile = 'x'\nstatements = []", "expected either writes.statements or writes.file"),
        (f"{SHARES}[writes]\nevery = 2\nstatement = 'x'", "unknown writes.statement; known: writes.every, writes.statements, writes.file"),
        (f"{SHARES}[writes]\nevery = 2\nstatements = [1]", "expected writes.statements to be a list of statements, got [1]"),
        (f"{SHARES}[writes]\nevery = 2\nstatements = 'x'", "expected writes.statements to be a list of statements, got 'x'"),
        (f"{SHARES}[writes]\nevery = 2\nstatements = [' ; ']", "there is no statement in the writes of {path}"),
        (
            f'{SHARES}[writes]\nevery = 2\nstatements = ["DELETE FROM t WHERE a = \'x"]',
            "the writes in {path} cannot be read (a literal is opened here and never closed)",
        ),
        (
            f"{SHARES}[writes]\nevery = 2\nstatements = ['ANALYZE', 'begin work']",
            "each write is a transaction of its own, so 'begin work' would change nothing; leave it out",
        ),
        (f"{SHARES}[writes]\nevery = 2\nfile = 'none.sql'", "the writes in {folder}/none.sql cannot be read (No such file or directory)"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """The message names the file, the key, what was expected and what was found."""
    path = tmp_path / "day.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as found:
        read_stream(path)
    assert str(found.value) == f"--stream {path}: {problem.format(path=path, folder=tmp_path)}"


def test_a_missing_description_is_refused(tmp_path: Path) -> None:
    """So is what is no file, and what is no text."""
    for path, reason in ((tmp_path / "none.toml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError) as found:
            read_stream(path)
        assert str(found.value) == f"--stream {path}: it cannot be read as TOML ({reason})"
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="it cannot be read as TOML"):
        read_stream(tmp_path / "b.toml")


@pytest.mark.slow
def test_the_stream_of_the_documentation_can_be_drawn(tmp_path: Path) -> None:
    """Its queries are in stats_tiny, which the command of the page names, and its numbers are those that the page explains."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "stream.md").read_text(encoding="utf-8")
    (path := tmp_path / "day.toml").write_text(text.split("```toml\n")[1].split("```")[0])
    spec = read_stream(path)
    steps = drawn_stream(spec, StatsDataset(name="stats_tiny").workload().test, "stats_tiny", seed=0)
    assert f"stream: stats_tiny+stream:day, {described_stream(steps)}\n" in text
    counts = spec.counts
    assert f"Here {counts['new']} queries are new, each the first of its template, {counts['exact']} were there before, and " in text
