"""The options of every run, as the fields of one dataclass; each field declares its command line, ini file and Python argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pytest_pilotscope.options import drifts, values
from pytest_pilotscope.options.declaring import option, options_of
from pytest_pilotscope.options.variants import FORM, Variant, variant, variants
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.places.secret import StoreUri

FIRST_ROUNDS = 5
"""The rounds of a measurement; with `auto` those before the first decision to go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    All options of one invocation; the defaults are those of the command line.

    `commandline.settings` reads them from the command line and the ini file; Python makes them directly. `options` has the values of the
    options that algorithms declare: `{"index": {"start": "none"}}`.
    """

    algorithms: tuple[str, ...] = option(
        ("baseline",),
        "algorithm to measure, or several joined with +; repeat, or separate by commas or blanks",
        name="algo",
        metavar="NAME",
        parse=values.words,
    )
    variants: tuple[Variant, ...] = option(
        (),
        "measure PostgreSQL with other settings, of another build or on another server, too; repeat",
        name="variant",
        metavar=FORM,
        parse=variant,
    )
    datasets: tuple[str, ...] = option(
        ("stats_tiny",), "dataset; repeat, or separate by commas or blanks", name="db", metavar="NAME", parse=values.words
    )

    # server
    server: str | Dsn = option("auto", "where PostgreSQL comes from", metavar="auto|embedded|container|DSN", parse=values.server)
    pg_bindir: Path | None = option(None, "bin directory of the PostgreSQL to embed", metavar="DIR", parse=values.path)
    pg_version: int | None = option(None, "PostgreSQL major version to embed or to run", metavar="MAJOR", parse=values.positive_int)
    container_memory_bytes: int | None = option(
        None,
        "memory of a container, such as 512m or 2g; without it all memory of the machine",
        name="container-memory",
        metavar="SIZE",
        parse=values.size,
    )
    container_cpus: float | None = option(
        None, "processors of a container, also a fraction; without it all processors of the machine", metavar="N", parse=values.processors
    )
    dask: str | None = option(
        None,
        "count, collect and try settings on the workers of this Dask scheduler, or on N processes here, each with its own server",
        metavar="SCHEDULER|local:N",
        parse=values.dask,
    )

    # data and workload
    scale: float | None = option(None, "scale of a generated dataset, instead of its own", metavar="FACTOR", parse=values.positive_float)
    seed: int = option(0, "seed of data, workload, training and bootstrap", metavar="N", parse=values.non_negative_int)
    data_dir: Path | None = option(None, "folder or file with a copy of a published dataset", metavar="PATH", parse=values.path)
    dump: Path | None = option(
        None,
        "dump of a database of yours, under the name of --db: SQL, custom, directory or tar format of pg_dump",
        metavar="PATH",
        parse=values.path,
    )
    queries_dir: Path | None = option(None, "folder or file with the workload's queries", metavar="PATH", parse=values.path)
    workload: str | None = option(None, "one of several workloads in the folder of --queries-dir or --data-dir", metavar="NAME")
    split: Literal["given", "random", "template"] = option(
        "given",
        "keep the given division of the queries, or divide them into 70% training, 10% validation and 20% test queries: at random, "
        "or so that no test query has the template of a training query",
        choices=("given", "random", "template"),
    )
    generate_training: int | None = option(
        None,
        "generate N training queries from schema, statistics and joins of the workload; without it 500 if the workload has none",
        metavar="N",
        parse=values.non_negative_int,
    )
    read_only: bool = option(False, "write nothing to the server of --server, whatever --allow-changes says")
    allow_changes: tuple[str, ...] = option(
        (),
        "what may be changed on the server of a DSN: make and drop databases called pilotscope_..., set and put back settings of the whole "
        "server; without it there are only sessions",
        metavar="databases,settings",
        parse=values.names,
        choices=values.CHANGES,
    )
    queries: tuple[str, ...] = option((), "measure only the test queries whose id matches, e.g. 'q01*'", metavar="GLOB", parse=values.names)
    limit: int | None = option(None, "measure only the first N (matching) test queries", metavar="N", parse=values.positive_int)

    # measurement
    measure: bool = option(True, "collect and train only; may run with several workers (-n)")
    rounds: int | Literal["auto"] = option(
        FIRST_ROUNDS,
        "measured repetitions per query and side, after one warm-up; with auto 5 or more, until a gate with these deltas would see enough",
        metavar="N|auto",
        parse=values.auto_or_count,
    )
    rounds_limit_s: float = option(
        600.0,
        "with --rounds auto: begin no rounds that would end later than S seconds after the first",
        metavar="S",
        parse=values.positive_float,
    )
    query_timeout_ms: float | None = option(
        None,
        "time limit per statement in ms; without it 10 x the slowest baseline repetition of the query, at least 1 s",
        metavar="MS",
        parse=values.milliseconds,
    )
    steer_timeout_ms: float = option(
        10_000.0, "time limit of an algorithm's decision on one query, in ms", metavar="MS", parse=values.milliseconds
    )
    max_unsteered: float = option(
        0.05,
        "exit 1 if an algorithm cannot decide on more of the measured queries than this, e.g. 5%, and leaves them to PostgreSQL",
        metavar="PERCENT",
        parse=values.share_of_all,
    )
    training_timeout_s: float = option(86_400.0, "time limit of an algorithm's training, in s", metavar="S", parse=values.seconds)
    parallel: int | None = option(
        None,
        "workers per gather (max_parallel_workers_per_gather) of all sides; without it none",
        metavar="N",
        parse=values.non_negative_int,
    )
    jit: bool = option(False, "compile expressions (jit = on) on all sides")
    cold: bool = option(False, "drop the database from all caches before each execution, on a server that is started here")
    clients: int | None = option(
        None,
        "sessions that run the workload at once on each side; the sides take turns in time slices",
        metavar="K",
        parse=values.positive_int,
    )
    writes: tuple[str, ...] = option(
        (),
        "scripts as of pgbench that write beside the queries, drawn by weight; each slice begins with the same data, in a copy",
        metavar="FILE[@WEIGHT]",
        parse=values.names,
    )
    writes_per_query: float = option(
        10.0, "runs of the scripts of --writes for each query, in each client", metavar="N", parse=values.positive_float
    )
    compare: bool = option(False, "measure all algorithms of a dataset in one run; they take turns within each query")
    drift: drifts.Drift | None = option(
        None,
        "train before the data or the templates of the queries change, measure before and after: with the statistics as they were, after "
        "ANALYZE, and trained again",
        metavar=drifts.FORM,
        parse=drifts.drift,
    )
    stream: Path | None = option(
        None,
        "measure a stream of queries that this TOML file describes, with repeats and writes in between; algorithms may learn on the way",
        metavar="FILE",
        parse=values.path,
    )

    # gate
    gate: str | None = option(
        None,
        "exit 1 if a run is worse than this one: a record, a folder of records, a pytest-benchmark JSON, the newest run of an MLflow "
        "experiment, or its own baseline; none switches off a gate of the ini file",
        metavar="FILE|mlflow:EXPERIMENT|baseline|none",
        parse=values.gate,
    )
    gate_delta: float | None = option(
        None,
        "how much slower the workload may get, e.g. 3%; without it the result of --calibrate on this machine, else 3%",
        metavar="PERCENT",
        parse=values.share,
    )
    gate_query_delta: float | None = option(
        None,
        "how much slower a single query may get; without it the result of --calibrate on this machine, else 20%",
        metavar="PERCENT",
        parse=values.share,
    )
    gate_write_delta: float = option(
        0.1, "how much slower the scripts of --writes may get, in the mean of their times", metavar="PERCENT", parse=values.share
    )
    gate_exact: tuple[str, ...] = option(
        ("all",),
        "exact figures that must not get worse; repeat or separate by commas; algorithms that learn from measured times "
        "choose other plans after every training",
        metavar="all|none|FIGURE",
        parse=values.names,
    )
    gate_on_missing: Literal["fail", "warn"] = option("fail", "fail or warn if there is no comparable run", choices=("fail", "warn"))
    gate_on_blind: Literal["fail", "warn"] = option(
        "warn", "fail or warn if a run passes, but is too noisy to show a slow-down of twice the allowed size", choices=("fail", "warn")
    )
    calibrate: bool = option(
        False, "measure PostgreSQL against itself, and store for the gate the smallest difference that this machine can detect"
    )

    # learning
    collection: bool = option(True, "collect no labels; use those in the cache")
    training: bool = option(True, "do not train; needs --load-model")
    collection_size: int | None = option(None, "label at most N training queries; all without it", metavar="N", parse=values.positive_int)
    label_memory_bytes: int = option(
        1 << 30,
        "memory for counting labels, such as 512m or 4g; what does not fit is counted in parts or by PostgreSQL",
        name="label-memory",
        metavar="SIZE",
        parse=values.size,
    )
    training_size: int | None = option(
        None, "learn from at most N training queries; all without it", metavar="N", parse=values.positive_int
    )
    epochs: int = option(100, "training epochs at most", metavar="N", parse=values.positive_int)
    update_every: int = option(
        200,
        "select indexes again after every N training queries, with all queries so far; with --lero-dynamic, train again after N queries",
        metavar="N",
        parse=values.positive_int,
    )
    load_model: str | None = option(None, "start from this model", metavar="best|RUN_ID|PATH|models:/NAME/VERSION", parse=values.nameable)
    register_model: bool = option(False, "register the trained model in MLflow's registry")
    device: str = option("auto", "device that trains networks", choices=("auto", "cpu", "cuda"))
    sample_bitmaps: bool = option(True, "train mscn without the sample bitmaps", name="no-bitmaps")
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    # records
    results: Path = option(Path("results"), "folder of the records", metavar="DIR", parse=values.path)
    report: Path | None = option(
        None, "write an HTML page with tables, plots and plans of all runs", metavar="FILE.html", parse=values.page
    )
    mlflow: bool = option(True, "do not send runs to MLflow; write the local record only")
    tracking_uri: str | StoreUri | None = option(
        None, "MLflow store; without it MLFLOW_TRACKING_URI, else sqlite:///mlflow.db", metavar="URI", parse=StoreUri
    )

    def __post_init__(self) -> None:
        if isinstance(self.server, str):  # Python passes texts; from here on their passwords show nowhere
            object.__setattr__(self, "server", values.server(self.server))
        if isinstance(self.tracking_uri, str):
            object.__setattr__(self, "tracking_uri", StoreUri(self.tracking_uri))
        object.__setattr__(self, "variants", variants(self.variants))

    @property
    def session_settings(self) -> dict[str, str]:
        """The PostgreSQL settings of all sides."""
        parallel = {} if self.parallel is None else {"max_parallel_workers_per_gather": str(self.parallel)}
        return parallel | ({"jit": "on"} if self.jit else {})

    @property
    def conditions(self) -> dict[str, int]:
        """The conditions that are not those of a quiet measurement, by the names of their options; 1 for a flag."""
        chosen = {"parallel": self.parallel, "jit": self.jit or None, "cold": self.cold or None, "clients": self.clients_at_once}
        return {name: int(value) for name, value in chosen.items() if value is not None}

    @property
    def clients_at_once(self) -> int | None:
        """The clients of a side in a time slice: one that writes if their number is not given; None without slices."""
        return 1 if self.clients is None and self.writes else self.clients

    @property
    def fewest_rounds(self) -> int:
        """The rounds that every query is measured in, at least."""
        return FIRST_ROUNDS if self.rounds == "auto" else self.rounds


GROUPS = {
    "algorithms": "what to run",
    "server": "server",
    "scale": "data",
    "measure": "measuring",
    "gate": "gate and report",
    "collection": "learning",
    "sample_bitmaps": "mscn",
    "results": "gate and report",
}
"""The headings of the help, by the field that each begins with; an algorithm's own options are below its name."""

OPTIONS = options_of(Settings, GROUPS)
"""The options of every run; algorithms declare more with `Registry.add_option`."""


def checked(key: str, value: Any, *, argument: str | None = None) -> Any:
    """Return a value that Python passed for a field of `Settings`. Raise `UsageError`, which names the argument, for a wrong one."""
    (declared,) = (one for one in OPTIONS if one.key == key)
    return declared.checked(value, argument or key)
