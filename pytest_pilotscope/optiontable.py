"""Every choice that a user has, with its name, its help and how its value is read: for the command line, the ini file and Python alike."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pytest_pilotscope import optionvalues as values
from pytest_pilotscope.core.settings import Settings
from pytest_pilotscope.errors import UsageError

DEFAULTS = {field.name: field.default for field in fields(Settings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """
    One option: `--pilotscope-NAME`, the short `--NAME`, and the ini key `pilotscope_NAME`.

    `field` is the name in `Settings`; a `flag` takes no value and sets the field to `constant`; a `repeat` option may be given
    several times or comma-separated.
    """

    name: str
    field: str
    help: str
    parse: Callable[[str], Any] = str
    metavar: str | None = None
    flag: bool = False
    constant: bool = True
    repeat: bool = False

    @property
    def dest(self) -> str:
        """Where argparse keeps the value; also the ini key."""
        return f"pilotscope_{self.name.replace('-', '_')}"

    @property
    def help_with_default(self) -> str:
        """The help text, with the default of `Settings` when there is one."""
        default = DEFAULTS[self.field]
        if self.flag or default is None or default == ():
            return self.help
        return f"{self.help} (default: {','.join(map(str, default)) if isinstance(default, tuple) else default})"


OPTIONS: tuple[Option, ...] = (
    Option(
        name="algo",
        field="algorithms",
        metavar="NAME",
        parse=values.names,
        repeat=True,
        help="algorithm to measure; repeat or separate by commas",
    ),
    Option(name="db", field="datasets", metavar="NAME", parse=values.names, repeat=True, help="dataset; repeat or separate by commas"),
    Option(name="server", field="server", metavar="auto|embedded|container|DSN", help="where PostgreSQL comes from"),
    Option(name="pg-bindir", field="pg_bindir", metavar="DIR", parse=Path, help="bin directory of the PostgreSQL to embed"),
    Option(
        name="pg-version",
        field="pg_version",
        metavar="MAJOR",
        parse=values.positive_int,
        help="PostgreSQL major version to embed or to run",
    ),
    Option(
        name="container-memory",
        field="container_memory_bytes",
        metavar="SIZE",
        parse=values.size,
        help="memory of a container, such as 512m or 2g; without it all that the machine has",
    ),
    Option(
        name="container-cpus",
        field="container_cpus",
        metavar="N",
        parse=values.processors,
        help="processors of a container, also a fraction; without it all that the machine has",
    ),
    Option(
        name="dask",
        field="dask",
        metavar="SCHEDULER|local:N",
        parse=values.dask,
        help="count, collect and try settings on the workers of this Dask scheduler, or on N processes here, each with its own server",
    ),
    Option(
        name="scale", field="scale", metavar="FACTOR", parse=values.positive_float, help="scale of a generated dataset, instead of its own"
    ),
    Option(name="seed", field="seed", metavar="N", parse=values.non_negative_int, help="seed of data, workload, training and bootstrap"),
    Option(name="data-dir", field="data_dir", metavar="PATH", parse=Path, help="folder or file with a copy of a published dataset"),
    Option(name="queries-dir", field="queries_dir", metavar="PATH", parse=Path, help="folder or file with the workload's queries"),
    Option(name="workload", field="workload", metavar="NAME", help="one of several workloads in the folder of --queries-dir or --data-dir"),
    Option(
        name="split",
        field="split",
        metavar="given|random|template",
        parse=values.one_of("given", "random", "template"),
        help="divide the queries as they are given, or anew into 70%% training, 10%% validation and 20%% test queries: at random, or so "
        "that no test query has a template that is trained on",
    ),
    Option(
        name="generate-training",
        field="generate_training",
        metavar="N",
        parse=values.non_negative_int,
        help="generate N training queries from schema, statistics and joins of the workload; without it 500 where there are none, "
        "0 for none",
    ),
    Option(name="read-only", field="read_only", flag=True, help="write nothing at all to the server of --server"),
    Option(
        name="queries",
        field="queries",
        metavar="GLOB",
        parse=values.names,
        repeat=True,
        help="measure only the test queries whose id matches, e.g. 'q01*'",
    ),
    Option(name="limit", field="limit", metavar="N", parse=values.positive_int, help="measure only the first N (matching) test queries"),
    Option(
        name="no-measure",
        field="measure",
        flag=True,
        constant=False,
        help="collect and train only; this may run beside other workers (-n)",
    ),
    Option(
        name="rounds",
        field="rounds",
        metavar="N",
        parse=values.positive_int,
        help="measured repetitions per query and side, after one warm-up",
    ),
    Option(
        name="query-timeout-ms",
        field="query_timeout_ms",
        metavar="MS",
        parse=values.positive_float,
        help="time limit per statement in ms; without it 10 x the slowest baseline repetition of the query, at least 1 s",
    ),
    Option(
        name="compare", field="compare", flag=True, help="measure all algorithms of a dataset in one run, taking turns within each query"
    ),
    Option(
        name="gate",
        field="gate",
        metavar="FILE|mlflow:EXPERIMENT|baseline|none",
        parse=values.gate,
        help="exit 1 if a run is worse than this one: a record, a folder of records, a pytest-benchmark JSON, the newest run of an MLflow "
        "experiment, or its own baseline; none switches off a gate of the ini file",
    ),
    Option(
        name="gate-delta",
        field="gate_delta",
        metavar="PERCENT",
        parse=values.share,
        help="how much slower the workload may get, e.g. 3%%; without it what --calibrate found on this machine, else 3%%",
    ),
    Option(
        name="gate-query-delta",
        field="gate_query_delta",
        metavar="PERCENT",
        parse=values.share,
        help="how much slower a single query may get; without it what --calibrate found on this machine, else 20%%",
    ),
    Option(
        name="gate-exact",
        field="gate_exact",
        metavar="all|none|FIGURE",
        parse=values.names,
        repeat=True,
        help="exact figures that may not get worse at all; repeat or separate by commas; algorithms that learn from measured times "
        "choose other plans every time they are trained",
    ),
    Option(
        name="gate-on-missing",
        field="gate_on_missing",
        metavar="fail|warn",
        parse=values.one_of("fail", "warn"),
        help="what to do when there is nothing comparable to compare with",
    ),
    Option(
        name="calibrate",
        field="calibrate",
        flag=True,
        help="measure PostgreSQL against itself, say what difference this machine can see, and let the gate know",
    ),
    Option(name="epochs", field="epochs", metavar="N", parse=values.positive_int, help="training epochs at most"),
    Option(
        name="training-size",
        field="training_size",
        metavar="N",
        parse=values.positive_int,
        help="training queries to learn from; all without it",
    ),
    Option(
        name="collection-size",
        field="collection_size",
        metavar="N",
        parse=values.positive_int,
        help="training queries to collect labels for; all without it",
    ),
    Option(name="no-collection", field="collection", flag=True, constant=False, help="collect nothing; use what the cache has"),
    Option(name="no-training", field="training", flag=True, constant=False, help="do not train; needs --load-model"),
    Option(name="load-model", field="load_model", metavar="best|RUN_ID|PATH|models:/NAME/VERSION", help="start from this model"),
    Option(name="register-model", field="register_model", flag=True, help="register the trained model in MLflow's registry"),
    Option(
        name="device",
        field="device",
        metavar="auto|cpu|cuda",
        parse=values.one_of("auto", "cpu", "cuda"),
        help="where networks are trained",
    ),
    Option(name="no-bitmaps", field="sample_bitmaps", flag=True, constant=False, help="train mscn without the sample bitmaps"),
    Option(
        name="index-budget-mb",
        field="index_budget_mb",
        metavar="MB",
        parse=values.positive_float,
        help="storage for the indexes that index selection adds, in MB of 2^20 bytes",
    ),
    Option(name="index-width", field="index_width", metavar="N", parse=values.positive_int, help="columns per index at most"),
    Option(
        name="index-start",
        field="index_start",
        metavar="existing|none",
        parse=values.one_of("existing", "none"),
        help="keep the indexes that no constraint needs, or start without them",
    ),
    Option(
        name="index-whatif",
        field="index_whatif",
        metavar="auto|hypopg|hidden",
        parse=values.one_of("auto", "hypopg", "hidden"),
        help="ask about hypothetical indexes (HypoPG), or about built ones that are hidden from the planner",
    ),
    Option(name="index-covering", field="index_covering", flag=True, help="let index selection use columns that are only read"),
    Option(
        name="update-every",
        field="update_every",
        metavar="N",
        parse=values.positive_int,
        help="select indexes again after every N training queries, with all queries so far; with --lero-dynamic, learn on after N queries",
    ),
    Option(
        name="knob-trials", field="knob_trials", metavar="N", parse=values.positive_int, help="settings to try, the default one included"
    ),
    Option(
        name="knob-target",
        field="knob_target",
        metavar="total_time|p95_time|throughput",
        parse=values.one_of("total_time", "p95_time", "throughput"),
        help="what knob tuning makes better",
    ),
    Option(
        name="knob-projection",
        field="knob_projection",
        metavar="llamatune|none",
        parse=values.one_of("llamatune", "none"),
        help="search all knobs, or a random projection of them to fewer dimensions",
    ),
    Option(
        name="knob-trial-s",
        field="knob_trial_s",
        metavar="S",
        parse=values.positive_float,
        help="how long one pass of a knob trial takes with the default settings, in s; it decides how many training queries a trial runs",
    ),
    Option(
        name="lero-factors",
        field="lero_factors",
        metavar="F,F,...",
        parse=values.factors,
        help="factors by which lero scales the estimates of all joins of one size to find candidate plans",
    ),
    Option(
        name="lero-max-candidates",
        field="lero_max_candidates",
        metavar="N",
        parse=values.positive_int,
        help="distinct plans per query at most, PostgreSQL's own among them",
    ),
    Option(
        name="lero-margin",
        field="lero_margin",
        metavar="auto|SCORE",
        parse=values.margin,
        help="lero leaves PostgreSQL's plan only for a score that is better by this much; auto learns it on validation queries",
    ),
    Option(
        name="lero-effort",
        field="lero_effort",
        metavar="auto|all",
        parse=values.one_of("auto", "all"),
        help="look for plans where and as long as it pays off, or try every factor on every query as in the paper",
    ),
    Option(
        name="lero-dynamic",
        field="lero_dynamic",
        flag=True,
        help="let lero learn on from the measured queries, after every --update-every of them",
    ),
    Option(name="results", field="results", metavar="DIR", parse=Path, help="folder of the records"),
    Option(
        name="report", field="report", metavar="FILE.html", parse=values.page, help="write a page with tables, plots and plans of all runs"
    ),
    Option(name="no-mlflow", field="mlflow", flag=True, constant=False, help="write the local record only"),
    Option(
        name="tracking-uri", field="tracking_uri", metavar="URI", help="MLflow store; else MLFLOW_TRACKING_URI, else sqlite:///mlflow.db"
    ),
)


def checked(field: str, value: Any, *, argument: str | None = None) -> Any:
    """
    Return the value that Python was given for a field of `Settings`, there called `argument`; UsageError, which names the argument, for one
    that the command line would not take. None is taken where it is the default.
    """
    if value is None and DEFAULTS[field] is None:
        return value
    (parse,) = (option.parse for option in OPTIONS if option.field == field)
    try:
        expected = parse(str(value))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{argument or field}: {error}") from error
    if value != expected:
        raise UsageError(f"{argument or field}: expected {expected!r}, got {value!r}")
    return value
