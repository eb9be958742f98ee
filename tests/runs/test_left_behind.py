"""A whole comparison with algorithms that hang, or leave behind what would steer the other sides."""

from __future__ import annotations

import re

import pytest

from tests.projects import measure, record_lines

HARMFUL = """
    import time

    from pytest_pilotscope import Decision

    class Fair:
        name = "fair"

        def train(self, training):
            self.training = training
            self.taught(training.session)
            return training.report()

        def decide(self, query, session):
            self.decided(session)
            return Decision()

        def taught(self, session):
            pass

        decided = taught

    class Setter(Fair):
        def decided(self, session):
            session.execute("SET enable_hashjoin = off")

    class Learner(Fair):
        def taught(self, session):
            session.execute("SELECT set_config('enable_nestloop', 'off', false)")

    class Opener(Fair):
        def decided(self, session):
            session.execute("BEGIN")

    class Keeper(Fair):
        def taught(self, session):
            self.other = self.training.database.session()
            self.other.execute("BEGIN; SELECT count(*) FROM users")

    class Clockmaker(Fair):
        def decided(self, session):
            time.perf_counter_ns = lambda: 0

    class Unlocker(Fair):
        def decided(self, session):
            session.execute("SET default_transaction_read_only = off")

    class Writer(Fair):
        def taught(self, session):
            with self.training.database.session() as other:
                other.execute("UPDATE users SET reputation = 0")

    class Analyst(Fair):
        def taught(self, session):
            with self.training.database.session() as other:
                other.execute("SET default_statistics_target = 1; ANALYZE")

    class Sleeper(Fair):
        def decided(self, session):
            try:
                time.sleep(600)
            except Exception:
                time.sleep(600)

    class Student(Fair):
        def taught(self, session):
            session.execute("SELECT pg_sleep(600)")

    def pytest_pilotscope_register(registry):
        for algorithm in (Fair, *Fair.__subclasses__()):
            algorithm.name = algorithm.__name__.lower()
            registry.add_algorithm(algorithm.name, algorithm, origin=__name__)
"""
_DECIDING = r"{} left 1 change behind after its decision on query '\w+', so the sides would not be independent: "
_TRAINING = "{} left 1 change behind after its training, so the sides would not be independent: "
EXPECTED = {
    "setter": _DECIDING + "setting enable_hashjoin = off; ",
    "learner": _TRAINING + "setting enable_nestloop = off; ",
    "opener": _DECIDING + "an open transaction; ",
    "keeper": _TRAINING + r"process \d+ kept a transaction open; ",
    "clockmaker": _DECIDING + r"time\.perf_counter_ns was replaced; ",
    "unlocker": "a statement made its read-only session able to write; leave it out of the workload: SET default_transaction_read_only",
    "writer": _TRAINING + r"the data of database '\w+' changed; ",
    "analyst": _TRAINING + r"the statistics of database '\w+' changed; ",
    "sleeper": r"{} has not decided on query '\w+' after 1000 ms; give it more time with --steer-timeout-ms, or make it faster",
    "student": "{} has trained for 5 s; give it more time with --training-timeout-s, or less data",
}


@pytest.mark.slow
@pytest.mark.usefixtures("cache")
def test_what_harms_other_sides_ends_its_own_side_only(pytester: pytest.Pytester) -> None:
    """Each is named in the end of the record with the reason, and the side that did nothing is measured to the end."""
    limits = ("--steer-timeout-ms", "1000", "--training-timeout-s", "5")
    chosen = ("--compare", "--algo", ",".join(("fair", *EXPECTED)), "--limit", "2", "--no-mlflow", *limits)
    result = measure(pytester, *chosen, conftest=HARMFUL)
    assert result.ret == pytest.ExitCode.TESTS_FAILED, result.stdout.str()
    lines = record_lines(pytester.path)
    failures = lines[-1]["failures"]
    assert failures.keys() == EXPECTED.keys()
    for name, expected in EXPECTED.items():
        assert re.search(expected.format(name), failures[name]), failures[name]
    measured = {line["side"] for line in lines if line["kind"] == "query_run" and line["repetition"] == 2}
    assert measured == {"baseline", "fair"}
