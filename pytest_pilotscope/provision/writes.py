"""Read the scripts of `--writes`, and try them in a copy of the database before anything is measured."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import ServerError, UsageError
from pytest_pilotscope.places.givenfiles import read_given
from pytest_pilotscope.postgres.writing import script_scale, write, writing
from pytest_pilotscope.queries.scripts import Script, Writes, parse_script

if TYPE_CHECKING:
    from pytest_pilotscope.options.settings import Settings
    from pytest_pilotscope.provision.database import Database


def given_writes(settings: Settings) -> Writes | None:
    """
    Read the scripts of `--writes`; None without any.

    Raise `UsageError` for a file or a weight that cannot be read, `WorkloadError` for a script.
    """
    if not settings.writes:
        return None
    scripts = tuple(map(_script, settings.writes))
    if not any(script.weight for script in scripts):
        raise UsageError(f"--writes {','.join(settings.writes)}: all weights are 0, so that no script would run; give one a weight above 0")
    return Writes(scripts=scripts, per_query=settings.writes_per_query)


def _script(given: str) -> Script:
    name, at, weight = given.rpartition("@")
    name = name if at else given
    if at and not weight.isdecimal():
        raise UsageError(f"--writes {given}: expected FILE or FILE@WEIGHT, where WEIGHT is a whole number of at least 0, got {weight!r}")
    try:
        text = read_given(Path(name)).decode()
    except OSError as error:
        raise UsageError(f"--writes {name}: the script cannot be read: {error.strerror}; name a file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--writes {name}: the script is not in UTF-8 (byte {error.start}); convert it") from error
    return parse_script(text, name, int(weight) if at else 1)


def try_writes(database: Database, writes: Writes, settings: Settings) -> None:
    """Run each script once in a copy of the database. Raise `UsageError` for one that fails."""
    with database.copy() as copy, copy.session() as session, writing(session, settings.query_timeout_ms):
        variables = {"scale": script_scale(session), "client_id": 0}
        for script in writes.scripts:
            try:
                write(session, script.rendered(Random(settings.seed), variables))  # noqa: S311  # no secret
            except ServerError as error:
                raise UsageError(str(error)) from error
