"""
Comparison of the generated STATS data with the real one, as a Markdown table.

    python benchmarks/fidelity.py 0.3 1.0

A column for each scale, beside the real figures: fan-outs, join amplifications (the size of a join over a common parent, over what
independent and uniform fan-outs predict), rank correlations, and the q-error of PostgreSQL's own estimates on all non-empty subplans of the
test queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import click
import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from pytest_pilotscope.datasets.stats import Table, generate
from pytest_pilotscope.labels import cardinalities, read_schema
from pytest_pilotscope.learning.training import labels_folder
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from pytest_pilotscope.statistics.accuracy import q_error

Floats = npt.NDArray[np.float64]

CHILDREN: Mapping[str, tuple[str, str, str]] = {
    "badges": ("badges", "userid", "users"),
    "posts": ("posts", "owneruserid", "users"),
    "last edits": ("posts", "lasteditoruserid", "users"),
    "votes": ("votes", "userid", "users"),
    "comments": ("comments", "userid", "users"),
    "history": ("posthistory", "userid", "users"),
    "votes of a post": ("votes", "postid", "posts"),
    "comments of a post": ("comments", "postid", "posts"),
    "links": ("postlinks", "postid", "posts"),
    "links to a post": ("postlinks", "relatedpostid", "posts"),
}

SIZE_BIASED: Mapping[str, float] = {
    "badges": 19.3,
    "posts": 165,
    "last edits": 807,
    "votes": 90.3,
    "votes of a post": 16.2,
    "links to a post": 8.34,
}
"""Mean fan-out over the children, sum n^2 / sum n, in the real data."""

AMPLIFICATIONS: Mapping[str, float] = {
    "badges * posts": 20.79,
    "posts * last edits": 157.1,
    "posts * votes": 35.02,
    "posts * comments": 151.2,
    "comments * comments": 493.7,
    "history * last edits": 316.8,
    "badges * posts * votes * comments * history": 4.225e9,
    "votes of a post * comments of a post": 1.392,
    "links to a post * votes of a post": 7.986,
    "links to a post * links to a post": 69.1,
}

CORRELATIONS: Mapping[tuple[str, str], float] = {("badges", "reputation"): 0.64, ("badges", "views"): 0.63, ("badges", "posts"): 0.73}
"""Spearman's, over users."""


def fanout(tables: Mapping[str, Table], name: str) -> Floats:
    """Return the number of children of a kind for each parent."""
    table, column, parent = CHILDREN[name]
    keys = tables[table][column]
    rows = np.searchsorted(tables[parent]["id"].values, keys.values[keys.present()])
    return np.bincount(rows, minlength=tables[parent].rows).astype(np.float64)


def amplification(tables: Mapping[str, Table], names: str) -> float:
    """Return the size of the join of all children of one parent over the size that independent and uniform fan-outs predict."""
    counts = [fanout(tables, name) for name in names.split(" * ")]
    return float(np.prod(counts, axis=0).mean() / np.prod([one.mean() for one in counts]))


def rank_correlation(tables: Mapping[str, Table], name: str, other: str) -> float:
    """Return Spearman's correlation over users of a fan-out with another one, or with a column of users."""
    second = fanout(tables, other) if other in CHILDREN else tables["users"][other].values
    return float(spearmanr(fanout(tables, name), second).statistic)


def q_errors(scale: float) -> Floats:
    """Return the q-errors of PostgreSQL's estimates of all non-empty subplans of the test queries."""
    with open_database(PostgreSQLConfig("stats_synthetic", scale=scale)) as database, database.session() as session:
        queries = database.dataset.workload().test if database.dataset else ()
        data = database.fingerprint.data
        labels = cardinalities(session, queries, schema=read_schema(session), fingerprint=data, cache_dir=labels_folder(data))
        pairs = [
            (rows, label.rows)
            for query in queries
            for subplan, rows in session.subplans(query.sql).items()
            if (label := labels[query.id].get(subplan)) is not None and label.rows
        ]
    return q_error([estimated for estimated, _ in pairs], [true for _, true in pairs])


def lines(scales: Sequence[float]) -> Iterator[str]:
    """Yield the table, line by line."""
    generated = [generate(scale, 0) for scale in scales]
    yield f"| | real | {' | '.join(f'scale {scale:g}' for scale in scales)} |"
    yield "|---" * (len(scales) + 2) + "|"
    for name, real in SIZE_BIASED.items():
        counts = [fanout(tables, name) for tables in generated]
        yield _row(f"fan-out as a child sees it: {name}", real, [float((one**2).sum() / one.sum()) for one in counts])
    for names, real in AMPLIFICATIONS.items():
        yield _row(f"amplification: {names}", real, [amplification(tables, names) for tables in generated])
    for (name, other), real in CORRELATIONS.items():
        yield _row(f"rank correlation: {name}, {other}", real, [rank_correlation(tables, name, other) for tables in generated])
    errors = [q_errors(scale) for scale in scales]
    for label, share in (("median", 0.5), ("90 %", 0.9), ("95 %", 0.95), ("99 %", 0.99)):
        yield _row(f"PostgreSQL's q-error, {label}", None, [float(np.quantile(one, share)) for one in errors])


def _row(name: str, real: float | None, found: Sequence[float]) -> str:
    figures = ["" if value is None else f"{value:.2e}" if value >= 1e5 else f"{value:.3g}" for value in (real, *found)]
    return f"| {name.replace('*', 'x')} | {' | '.join(figures)} |"


@click.command()
@click.argument("scales", nargs=-1, required=True, type=float)
def main(scales: tuple[float, ...]) -> None:
    """Print the table for some scales."""
    for line in lines(scales):
        click.echo(line)


if __name__ == "__main__":
    main()
