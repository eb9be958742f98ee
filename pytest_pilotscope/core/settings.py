"""What a user can choose for a run, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    Every choice of one invocation; the defaults here are the defaults of the command line.

    Read by `options.settings` from the command line and the ini file, or made directly from Python.
    """

    algorithms: tuple[str, ...] = ("baseline",)
    datasets: tuple[str, ...] = ("stats_tiny",)

    # server
    server: str = "auto"
    pg_bindir: Path | None = None
    pg_version: int | None = None
    container_memory_bytes: int | None = None
    container_cpus: float | None = None
    dask: str | None = None

    # data and workload
    scale: float | None = None
    seed: int = 0
    data_dir: Path | None = None
    queries_dir: Path | None = None
    workload: str | None = None
    split: Literal["given", "random", "template"] = "given"
    generate_training: int | None = None
    read_only: bool = False
    queries: tuple[str, ...] = ()
    limit: int | None = None

    # measurement
    measure: bool = True
    rounds: int = 5
    query_timeout_ms: float | None = None
    compare: bool = False

    # gate
    gate: str | None = None
    gate_delta: float | None = None
    gate_query_delta: float | None = None
    gate_exact: tuple[str, ...] = ("all",)
    gate_on_missing: Literal["fail", "warn"] = "fail"
    calibrate: bool = False

    # learning
    collection: bool = True
    training: bool = True
    collection_size: int | None = None
    training_size: int | None = None
    epochs: int = 100
    load_model: str | None = None
    register_model: bool = False
    device: str = "auto"
    sample_bitmaps: bool = True

    # index selection
    index_budget_mb: float = 250.0
    index_width: int = 2
    index_start: str = "existing"
    index_whatif: str = "auto"
    index_covering: bool = False
    update_every: int = 200

    # knob tuning
    knob_trials: int = 50
    knob_target: str = "total_time"
    knob_projection: str = "none"
    knob_trial_s: float = 3.0

    # plan choice
    lero_factors: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    lero_max_candidates: int = 20
    lero_margin: str = "auto"
    lero_effort: str = "auto"
    lero_dynamic: bool = False

    # records
    results: Path = Path("results")
    report: Path | None = None
    mlflow: bool = True
    tracking_uri: str | None = None
