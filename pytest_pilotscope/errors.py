"""
The exceptions that this project raises on purpose.

    PilotscopeError
    ├── UsageError              the user's input is wrong; pytest exits with 4
    │   ├── UnknownName         an algorithm, dataset or query is not registered
    │   ├── WorkloadError       a query file cannot be read (file and line are in the message)
    │   └── MissingWorkload     a dataset or database has no queries
    ├── ServerError             PostgreSQL could not be found, started, reached or restarted
    │   ├── MissingServer       there are no binaries and no Docker daemon to start a server with
    │   ├── MissingExtension    the server cannot be steered: the library is not loaded
    │   ├── CannotConnect       a connection fails for a reason that stays, so that trying again does not help
    │   ├── StatementFailed     PostgreSQL refused a statement; its message and SQLSTATE are kept
    │   ├── LockHeld            a statement waited too long for a lock of another session
    │   ├── LeftTransaction     a query ended the read-only transaction that it ran in
    │   └── QueryTimeout        a statement ran into the statement timeout; a result, not a failure
    ├── DatasetError            data cannot be generated, fetched or loaded
    ├── SteeringError           PostgreSQL rejected a cardinality or hint
    ├── UnsupportedQuery        an algorithm leaves a query to PostgreSQL
    ├── LabelError              a true cardinality cannot be computed
    ├── AlgorithmError          a learned component broke its contract; its run is FAILED
    │   ├── InvalidEstimate     NaN, infinite or negative rows, or no number at all
    │   ├── SideFailed          one side of a comparison broke; the others go on
    │   ├── TooManyLeft         a side left more queries to PostgreSQL than --max-unsteered allows
    │   └── ModelError          a model file cannot be loaded, or belongs to other data
    ├── DifferentAnswer         a steered query returned other rows than PostgreSQL without steering
    ├── RecordError             a record cannot be read or written (file and line are in the message)
    │   └── RecordExists        its file is there already
    └── TrackingError           the tracking store could not be read or written
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Literal

_LONGEST_NAME = 200  # characters of a name in a message


class PilotscopeError(Exception):
    """The base of all exceptions that this project raises on purpose."""


class UsageError(PilotscopeError):
    """The user's input is wrong; nothing was started."""


class UnknownName(UsageError):
    """
    A name is not registered. The message has near matches and all known names, and `otherwise` another possible meaning.

    The name of a `kind` such as "metric of the run" follows its noun.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, otherwise: str = "") -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(repr(n) for n in near)}? " if near else ""
        shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."
        noun, of, owner = kind.partition(" of ")
        super().__init__(f"unknown {noun} {shown!r}{of}{owner}; {hint}known: {', '.join(names)}{f'; {otherwise}' if otherwise else ''}")


class WorkloadError(UsageError):
    """A query file cannot be read; the message starts with `file:line`."""


class MissingWorkload(UsageError):
    """There are no queries: the data has none, and the user named none."""


class ServerError(PilotscopeError):
    """PostgreSQL could not be found, started, reached or restarted."""


class MissingServer(ServerError):
    """There are no binaries and no Docker daemon to start a server with."""


class MissingExtension(ServerError):
    """The server cannot be steered because the pilotscope library is not loaded."""


class CannotConnect(ServerError):
    """A connection fails for a reason that stays (not that nobody answers yet), so that trying again does not help."""


class StatementFailed(ServerError):
    """PostgreSQL refused a statement for a `reason`; `sqlstate` is its five-letter code, empty if the connection broke."""

    def __init__(self, sql: str, *, reason: str, sqlstate: str = "") -> None:
        code = f" [{sqlstate}]" if sqlstate else ""
        super().__init__(f"statement failed: {reason}{code}: {shortened(sql)}")
        self.reason = reason
        self.sqlstate = sqlstate

    @property
    def about_a_row(self) -> bool:
        """True if the values of a row are the reason, as in a division by zero (class 22 in src/backend/utils/errcodes.txt)."""
        return self.sqlstate.startswith("22")


class LockHeld(ServerError):
    """A statement waited too long for a lock; `holders` are the sessions that may hold it, as sentences."""

    def __init__(self, sql: str, *, holders: Sequence[str]) -> None:
        self.sql = sql
        self.holders = "; ".join(holders) or "another session holds it"
        super().__init__(
            f"a statement waited too long for a lock: {self.holders}; end that session, or run again when it has ended; the statement: "
            f"{shortened(sql)}"
        )


class LeftTransaction(ServerError):
    """A query ended the read-only transaction that it ran in."""


class QueryTimeout(ServerError):
    """A statement ran into the statement timeout of `timeout_ms`: a result of its own kind, not a failure."""

    def __init__(self, sql: str, *, timeout_ms: int) -> None:
        super().__init__(f"statement cut off after {timeout_ms} ms: {shortened(sql)}")
        self.timeout_ms = timeout_ms


def shortened(sql: str, *, limit: int = 200) -> str:
    """Return a statement on one line, cut to `limit` characters."""
    line = " ".join(sql.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def reason_of(error: Exception) -> str:
    """Return the message of an error; that of an error which is not ours begins with its type."""
    return str(error) if isinstance(error, PilotscopeError) else f"{type(error).__name__}: {error}"


def recorded(message: str, *, limit: int = 4000) -> str:
    """Return a message of anybody's error as a record can hold it: without NUL, and cut to `limit` characters."""
    text = message.replace("\0", "\\0")
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


class DatasetError(PilotscopeError):
    """Data cannot be generated, fetched or loaded."""


class SteeringError(PilotscopeError):
    """PostgreSQL rejected a cardinality, hint or index name."""


class UnsupportedQuery(PilotscopeError):
    """An algorithm cannot decide on a query and leaves it to PostgreSQL, for a `reason`: it has no relations, for instance."""

    def __init__(self, reason: str, sql: str) -> None:
        super().__init__(f"this query has no subplans to estimate or count: {reason}; query: {shortened(sql, limit=303)}")
        self.reason = reason
        self.sql = sql

    def __reduce__(self) -> tuple[type[UnsupportedQuery], tuple[str, str]]:
        return (type(self), (self.reason, self.sql))


class LabelError(PilotscopeError):
    """A true cardinality cannot be computed."""


class AlgorithmError(PilotscopeError):
    """A learned component broke its contract; its run is FAILED."""


class InvalidEstimate(AlgorithmError):
    """An estimator returned NaN, an infinite or a negative number of rows, or no number at all; then `rows` is its `repr`."""

    def __init__(self, algorithm: str, *, query_id: str, subplan: Iterable[str], rows: float | str) -> None:
        super().__init__(
            f"{algorithm} estimated {rows} rows for subplan {{{' '.join(sorted(subplan))}}} of query {query_id!r}; "
            "a cardinality must be a finite number >= 0"
        )


class ModelError(AlgorithmError):
    """A model file cannot be loaded, or belongs to another schema or other data."""


class SideFailed(AlgorithmError):
    """An algorithm raised an error in a comparison; `side` is its name, `reason` the error."""

    def __init__(self, side: str, error: Exception) -> None:
        self.side = side
        self.reason = f"{type(error).__name__}: {error}"
        super().__init__(f"{place_of(error) or f'{side} failed'}: {self.reason}")


class TooManyLeft(AlgorithmError):
    """A side left more queries to PostgreSQL than `--max-unsteered` allows."""


class DifferentAnswer(PilotscopeError):
    """On `side`, a steered query returned other rows than PostgreSQL without steering; its run is FAILED."""

    def __init__(self, message: str, *, side: str) -> None:
        super().__init__(message)
        self.side = side


class RecordError(PilotscopeError):
    """A record cannot be read or written; the message starts with the file."""


class RecordExists(RecordError):
    """The file of a new record is there already."""


class TrackingError(PilotscopeError):
    """The tracking store could not be read or written."""


def interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interrupt that an error is, or that it replaced when it was raised while the interrupt ended something."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def raise_interrupt_behind(error: BaseException) -> None:
    """Raise KeyboardInterrupt if this error replaced one. Whoever goes on after an error calls this first, so that none is lost."""
    interrupt = interrupt_behind(error)
    if interrupt is not None and interrupt is not error:
        raise KeyboardInterrupt(*interrupt.args) from error


def ends_as(error: BaseException) -> Literal["FAILED", "KILLED"]:
    """Return the status of a run that an error ends: KILLED by an interrupt, FAILED by everything else."""
    return "FAILED" if interrupt_behind(error) is None else "KILLED"


_RUNNERS_OWN = frozenset({"_pytest.outcomes.Exit", "unittest.case.SkipTest"})
"""Errors to which pytest gives a meaning of its own: the end of the session, a test that is skipped."""


_PLACE = "pilotscope_place"
"""The attribute of an error for its algorithm, and the query or the step at which it was raised."""


def place_of(error: BaseException) -> str | None:
    """Return what `errors_of` noted on an error, such as `mscn failed on query 'q001'`; None without a note."""
    place: str | None = getattr(error, _PLACE, None)
    return place


def error_text(error: BaseException) -> str:
    """Return the type and the message of an error, after the algorithm and the query that it is of."""
    place = place_of(error)
    return f"{f'{place}: ' if place else ''}{type(error).__name__}: {error}"


@contextmanager
def errors_of(algorithm: str, at: str) -> Iterator[None]:
    """
    Note on an error that is not ours whose it is: of an algorithm, `at` ("on query 'q001'", "in training").

    Raise `AlgorithmError` for what its code raises to end more than itself: `sys.exit()`, `pytest.skip()`, `pytest.exit()`. Whatever it
    raises is its failure, and nothing else; only an interrupt comes from somebody else.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        kind = type(error)
        if isinstance(error, Exception) and f"{kind.__module__}.{kind.__qualname__}" not in _RUNNERS_OWN:
            if not isinstance(error, PilotscopeError) and place_of(error) is None:
                with suppress(AttributeError):  # an error of which nobody can set attributes
                    setattr(error, _PLACE, f"{algorithm} failed {at}")
            raise
        raise_interrupt_behind(error)
        raise AlgorithmError(
            f"{algorithm} raised {kind.__name__}: {error}; an algorithm cannot end or skip a test or the process"
        ) from error


def named(names: Iterable[str], limit: int = 5) -> str:
    """Return names for a sentence, at most `limit` of them: `q1, q2 and 3 more`."""
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: `1 query`, `2 queries`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
