"""How the sending of records is shown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from pytest_pilotscope.commands.output import MISSING, Column, show_json, show_table
from pytest_pilotscope.tracking.find import SHORT_ID
from pytest_pilotscope.tracking.sync import Sent


def show_sent(sent: Iterable[Sent], results: Path, *, as_json: bool) -> bool:
    """One line for each record; whether none failed."""
    done = list(sent)
    if as_json:
        show_json(done)
    elif not done:
        click.echo(f"no records in {results}")
    else:
        columns = (Column("record"), Column("result"), Column("run"), Column("status"), Column("experiment"))
        show_table(columns, [_row(one) for one in done])
        counts = {state: sum(one.state == state for one in done) for state in dict.fromkeys(one.state for one in done)}
        click.echo(f"\n{', '.join(f'{count} {state}' for state, count in counts.items())}")
    for one in done:
        if one.reason:
            click.echo(f"{one.path.name}: {one.reason}", err=True)
        if one.missing:
            click.echo(f"{one.path.name}: sent without artifacts that are gone: {', '.join(one.missing)}", err=True)
    return all(one.state != "failed" for one in done)


def _row(one: Sent) -> tuple[str, ...]:
    return (one.path.stem, one.state, (one.run_id or MISSING)[:SHORT_ID], one.status or MISSING, one.experiment or MISSING)
