"""The built-in algorithms and their options, registered through the same hook as anybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.hintset.arms import readable_arms
from pytest_pilotscope.options.values import auto_or_count, factors, files, margin, non_negative_int, positive_float, positive_int

if TYPE_CHECKING:
    from pytest_pilotscope.registry import Registry

ORIGIN = "pytest-pilotscope"
TORCH = ("torch", "safetensors", "threadpoolctl")
"""The libraries of the extra `torch`. PyTorch takes seconds to import, so networks do that when they learn or load a model."""


def pytest_pilotscope_register(registry: Registry) -> None:
    """Add every built-in algorithm by name; the registry imports each on demand."""
    registry.add_algorithm("baseline", "pytest_pilotscope.algorithms.baseline:Baseline", origin=ORIGIN)
    registry.add_algorithm("oracle", "pytest_pilotscope.algorithms.oracle:Oracle", origin=ORIGIN)
    registry.add_algorithm("sample", "pytest_pilotscope.algorithms.sample:Sample", origin=ORIGIN)
    registry.add_algorithm("bound", "pytest_pilotscope.algorithms.bound.estimator:Bound", origin=ORIGIN)
    registry.add_algorithm("trees", "pytest_pilotscope.algorithms.trees.estimator:Trees", origin=ORIGIN)
    registry.add_algorithm("replay", "pytest_pilotscope.algorithms.replay.estimator:Replay", origin=ORIGIN)
    registry.add_algorithm("mscn", "pytest_pilotscope.algorithms.mscn.estimator:Mscn", origin=ORIGIN, needs=TORCH)
    registry.add_algorithm("lero", "pytest_pilotscope.algorithms.lero.chooser:Lero", origin=ORIGIN, needs=TORCH)
    registry.add_algorithm("hintset", "pytest_pilotscope.algorithms.hintset.chooser:Hintset", origin=ORIGIN, needs=TORCH)
    registry.add_algorithm("index", "pytest_pilotscope.algorithms.index.selection:IndexSelection", origin=ORIGIN)
    registry.add_algorithm("knob", "pytest_pilotscope.algorithms.knob.tuning:KnobTuning", origin=ORIGIN)
    registry.add_option("sample", "rows", default=1000, metavar="N", parse=positive_int, help="rows in the sample of each table")
    _add_replay_options(registry)
    _add_trees_options(registry)
    _add_mscn_options(registry)
    _add_index_options(registry)
    _add_knob_options(registry)
    _add_lero_options(registry)
    _add_hintset_options(registry)


def _add_replay_options(registry: Registry) -> None:
    registry.add_option(
        "replay",
        "estimates",
        default=(),
        metavar="FILE,...",
        parse=files,
        help="files of estimates: .jsonl, .csv or .parquet with query, aliases and rows, or .txt with one number for each sub-plan query",
    )
    registry.add_option(
        "replay",
        "subplans",
        default=(),
        metavar="FILE,...",
        parse=files,
        help="the sub-plan queries of each .txt file; by default the .sql file beside it or one folder above with as many lines",
    )


def _add_trees_options(registry: Registry) -> None:
    registry.add_option("trees", "count", default=600, metavar="N", parse=positive_int, help="regression trees at most")
    registry.add_option("trees", "depth", default=6, metavar="N", parse=positive_int, help="levels of a regression tree at most")
    registry.add_option(
        "trees",
        "learning_rate",
        default=0.05,
        metavar="RATE",
        parse=positive_float,
        help="weight of each regression tree",
    )


def _add_mscn_options(registry: Registry) -> None:
    registry.add_option(
        "mscn",
        "batch_size",
        default="auto",
        metavar="auto|N",
        parse=auto_or_count,
        help="subplans that mscn learns from in one step; auto: the most up to 2048 with which an epoch has ten steps",
    )
    registry.add_option("mscn", "hidden_units", default=256, metavar="N", parse=positive_int, help="units of each layer of mscn's network")
    registry.add_option("mscn", "learning_rate", default=1e-3, metavar="RATE", parse=positive_float, help="learning rate of mscn (Adam)")


def _add_index_options(registry: Registry) -> None:
    registry.add_option(
        "index",
        "budget_mb",
        default=250.0,
        metavar="MB",
        parse=positive_float,
        help="storage for the indexes that index selection adds, in MB of 2^20 bytes",
    )
    registry.add_option("index", "width", default=2, metavar="N", parse=positive_int, help="columns per index at most")
    registry.add_option(
        "index",
        "start",
        default="existing",
        choices=("existing", "none"),
        help="keep the indexes that no constraint needs, or start without them",
    )
    registry.add_option(
        "index",
        "whatif",
        default="auto",
        choices=("auto", "hypopg", "hidden"),
        help="ask about hypothetical indexes (HypoPG), or about built ones that are hidden from the planner",
    )
    registry.add_option("index", "covering", default=False, help="let index selection use columns that are only read")


def _add_knob_options(registry: Registry) -> None:
    registry.add_option("knob", "trials", default=50, metavar="N", parse=positive_int, help="settings to try, the default one included")
    registry.add_option(
        "knob",
        "target",
        default="total_time",
        choices=("total_time", "p95_time", "p99_time", "throughput"),
        help="target of knob tuning, under the load of --clients and --writes",
    )
    registry.add_option(
        "knob",
        "projection",
        default="none",
        choices=("llamatune", "none"),
        help="search all knobs, or a random projection of them to fewer dimensions",
    )
    registry.add_option(
        "knob",
        "trial_s",
        default=3.0,
        metavar="S",
        parse=positive_float,
        help="length of one pass of a knob trial with the default settings, in s; it decides how many training queries a trial runs",
    )


def _add_lero_options(registry: Registry) -> None:
    registry.add_option(
        "lero",
        "factors",
        default=(0.01, 0.1, 1.0, 10.0, 100.0),
        metavar="F,F,...",
        parse=factors,
        help="factors by which lero scales the estimates of all joins of one size to find candidate plans",
    )
    registry.add_option(
        "lero",
        "max_candidates",
        default=20,
        metavar="N",
        parse=positive_int,
        help="distinct plans per query at most, PostgreSQL's own among them",
    )
    registry.add_option(
        "lero",
        "margin",
        default="auto",
        metavar="auto|SCORE",
        parse=margin,
        help="lero leaves PostgreSQL's plan only for a score that is better by this much; auto learns it on validation queries",
    )
    registry.add_option(
        "lero",
        "effort",
        default="auto",
        choices=("auto", "all"),
        help="auto: look for plans only if the search pays off; all: try every factor on every query, as in the paper",
    )
    registry.add_option(
        "lero",
        "patience",
        default=0,
        metavar="N",
        parse=non_negative_int,
        help="epochs without a smaller validation loss after which lero stops learning; 0: it learns for all epochs",
    )
    registry.add_option(
        "lero", "dynamic", default=False, help="let lero learn on from the measured queries, after every --update-every of them"
    )


def _add_hintset_options(registry: Registry) -> None:
    registry.add_option(
        "hintset",
        "arms",
        default="bao",
        metavar="bao|all|SETTING=VALUE,...;...",
        parse=readable_arms,
        help="planner settings to choose among: the arms of Bao's code, all 48 of its paper, or your own, separated by semicolons",
    )
    registry.add_option(
        "hintset", "queries", default=200, metavar="N", parse=positive_int, help="training queries that hintset runs under its arms at most"
    )
    registry.add_option(
        "hintset", "networks", default=3, metavar="N", parse=positive_int, help="networks of hintset's ensemble, each with its own sample"
    )
    registry.add_option(
        "hintset",
        "offline",
        default=False,
        help="run only those arms that a completed matrix of queries and arms promises most of (LimeQO)",
    )
    registry.add_option(
        "hintset",
        "budget",
        default=None,
        metavar="FACTOR",
        parse=positive_float,
        help="with --hintset-offline: time for running arms, in multiples of the time of PostgreSQL's own plans (2 unless given)",
    )
