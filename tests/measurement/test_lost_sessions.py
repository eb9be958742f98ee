"""A server that breaks a session off while it is measured."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_pilotscope.runs.single import BenchmarkRun
from tests.lost import measure_and_lose


def terminate(run: BenchmarkRun) -> None:
    """End the baseline's session, as the server does with all when one of them crashes."""
    with run.database.server.connect() as admin:
        assert admin.scalar("SELECT pg_terminate_backend(%s, 10000)", (run.sides[0].session.backend_pid,))


def close(run: BenchmarkRun) -> None:
    """Close the session as an algorithm can that is given it."""
    run.sides[0].session.close()


def test_a_session_that_an_algorithm_closes_is_no_fault_of_the_server(tmp_path: Path) -> None:
    """The error says what happened, and does not send the reader to the log of the server."""
    expected = (
        "the session of the sides was closed while query 'q2' was measured, and the other queries are not measured: an algorithm must not "
        "close the session that it is given"
    )
    finished = measure_and_lose(tmp_path, "embedded", close, expected=f"^{re.escape(expected)}$")
    assert finished.record.end is not None
    assert (finished.record.status, finished.record.end.error) == ("FAILED", f"AlgorithmError: {expected}")


def test_a_broken_session_ends_the_run(tmp_path: Path) -> None:
    """The query that it happened to has failed, the rest is not tried, and the record says why."""
    expected = (
        "PostgreSQL closed a session while query 'q3' was measured, and accepts connections again; its log has the reason. "
        "The other queries are not measured"
    )
    finished = measure_and_lose(tmp_path, "embedded", terminate, expected=f"^{re.escape(expected)}$")
    assert finished.record.end is not None
    assert (finished.record.status, finished.record.end.error) == ("FAILED", f"ServerError: {expected}")
    assert {run.query_id for run in finished.record.runs} == {"q2", "q3"}
