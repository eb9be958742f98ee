"""`pilotscope workload from-log`: make a workload from the log of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from pytest_pilotscope.commands.output import show_json
from pytest_pilotscope.datasets.logs import extract
from pytest_pilotscope.errors import WorkloadError
from pytest_pilotscope.places.privatefiles import private_folder, write_private
from pytest_pilotscope.queries.queries import SPLITS
from pytest_pilotscope.queries.splitting import divide


def from_log(
    log: Path, output: Path, *, split: Literal["random", "template"], database: str | None, per_template: int, seed: int, as_json: bool
) -> None:
    """Extract and divide the queries, write one file each to the folders `train`, `validation` and `test`, and show the counts."""
    if output.exists() and any(output.iterdir()):
        raise WorkloadError(f"{output}: there is something in this folder already; name another one with --output")
    found = extract(log, database=database, per_template=per_template)
    workload = divide(found.workload, split, seed)
    for part in SPLITS:
        private_folder(output / part)
        for query in workload.of(part):
            write_private(output / part / f"{query.id}.sql", f"{query.sql};\n")
    counts = {part: len(workload.of(part)) for part in SPLITS}
    if as_json:
        show_json(
            {
                "folder": str(output),
                "statements": found.read,
                "templates": len(found.templates),
                "left_out": dict(found.left_out),
                **counts,
                "test_templates_seen": workload.templates_seen,
            }
        )
        return
    click.echo(f"{found.read} statements of {len(found.templates)} templates in {log}")
    for reason, count in found.left_out.most_common():
        click.echo(f"  {count} left out: {reason}")
    listed = ", ".join(f"{count} {part}" for part, count in counts.items())
    click.echo(f"{output}: {listed} queries; {workload.templates_seen or 0:.0%} of the test templates are trained on")
    click.echo(f"measure them with: pytest benchmarks --server postgresql://... --queries-dir {output}")
