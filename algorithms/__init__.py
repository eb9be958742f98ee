"""The built-in algorithms, and preset schedulers for use without pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pytest_pilotscope.provision import PostgreSQLConfig
    from pytest_pilotscope.scheduler import Scheduler
    from pytest_pilotscope.tracking.tracker import MLflowTracker

__all__ = [
    "get_baseline_preset_scheduler",
    "get_index_preset_scheduler",
    "get_knob_preset_scheduler",
    "get_lero_dynamic_preset_scheduler",
    "get_lero_preset_scheduler",
    "get_mscn_preset_scheduler",
]

Preset = tuple["Scheduler", "MLflowTracker | None"]


def get_baseline_preset_scheduler(config: PostgreSQLConfig, *, use_mlflow: bool = True) -> Preset:
    """Return `(scheduler, tracker)` of plain PostgreSQL; `tracker` is None without MLflow."""
    from pytest_pilotscope.scheduler import preset_scheduler

    return preset_scheduler(
        "baseline",
        config,
        enable_collection=False,
        enable_training=False,
        num_collection=None,
        num_training=None,
        num_epoch=1,
        load_model_id=None,
        use_mlflow=use_mlflow,
    )


def get_mscn_preset_scheduler(
    config: PostgreSQLConfig,
    *,
    enable_collection: bool = True,
    enable_training: bool = True,
    num_collection: int | None = None,
    num_training: int | None = None,
    num_epoch: int = 100,
    load_model_id: str | None = None,
    use_mlflow: bool = True,
) -> Preset:
    """
    Return `(scheduler, tracker)` of MSCN; `tracker` is None without MLflow.

    `num_collection` and `num_training` limit the training queries to label and to learn from. Without training the model `load_model_id` is
    used (`best`, a run id, a path, `models:/NAME/VERSION`), by default the best one of the experiment `mscn_<db>`.
    """
    from pytest_pilotscope.scheduler import preset_scheduler

    return preset_scheduler(
        "mscn",
        config,
        enable_collection=enable_collection,
        enable_training=enable_training,
        num_collection=num_collection,
        num_training=num_training,
        num_epoch=num_epoch,
        load_model_id=load_model_id,
        use_mlflow=use_mlflow,
    )


def get_lero_preset_scheduler(
    config: PostgreSQLConfig,
    *,
    enable_collection: bool = True,
    enable_training: bool = True,
    num_collection: int | None = None,
    num_training: int | None = None,
    num_epoch: int = 100,
    load_model_id: str | None = None,
    use_mlflow: bool = True,
) -> Preset:
    """
    Return `(scheduler, tracker)` of Lero; `tracker` is None without MLflow.

    `num_collection` and `num_training` limit the training queries whose candidate plans are run and learned from. Without training the
    model `load_model_id` is used (`best`, a run id, a path, `models:/NAME/VERSION`), by default the best one of the experiment `lero_<db>`.
    """
    from pytest_pilotscope.scheduler import preset_scheduler

    return preset_scheduler(
        "lero",
        config,
        enable_collection=enable_collection,
        enable_training=enable_training,
        num_collection=num_collection,
        num_training=num_training,
        num_epoch=num_epoch,
        load_model_id=load_model_id,
        use_mlflow=use_mlflow,
    )


def get_lero_dynamic_preset_scheduler(
    config: PostgreSQLConfig,
    *,
    update_every: int = 200,
    enable_collection: bool = True,
    enable_training: bool = True,
    num_collection: int | None = None,
    num_training: int | None = None,
    num_epoch: int = 100,
    load_model_id: str | None = None,
    use_mlflow: bool = True,
) -> Preset:
    """
    Return `(scheduler, tracker)` of Lero that learns on: after every `update_every` different statements it runs their candidate plans, on
    the same database, and trains with everything seen so far. The statement that comes next waits for it, and its times do not count it.

    The other arguments are those of `get_lero_preset_scheduler`.
    """
    from dataclasses import replace

    from pytest_pilotscope.optiontable import checked

    scheduler, tracker = get_lero_preset_scheduler(
        config,
        enable_collection=enable_collection,
        enable_training=enable_training,
        num_collection=num_collection,
        num_training=num_training,
        num_epoch=num_epoch,
        load_model_id=load_model_id,
        use_mlflow=use_mlflow,
    )
    scheduler.settings = replace(scheduler.settings, lero_dynamic=True, update_every=checked("update_every", update_every))
    return scheduler, tracker


def get_index_preset_scheduler(
    config: PostgreSQLConfig,
    *,
    budget_mb: float = 250.0,
    width: int = 2,
    start: Literal["existing", "none"] = "existing",
    update_every: int = 200,
    enable_training: bool = True,
    num_training: int | None = None,
    load_model_id: str | None = None,
    use_mlflow: bool = True,
) -> Preset:
    """
    Return `(scheduler, tracker)` of index selection; `tracker` is None without MLflow.

    Statements run in a copy of the database that has the indexes selected for `num_training` training queries (all without it), within
    `budget_mb` (of 2^20 bytes) and of at most `width` columns. `start="none"` leaves out the indexes that no constraint needs. Without
    training the indexes of `load_model_id` are built, by default those of the best run of the experiment `index_<db>`.
    """
    from dataclasses import replace

    from pytest_pilotscope.optiontable import checked
    from pytest_pilotscope.scheduler import preset_scheduler

    scheduler, tracker = preset_scheduler(
        "index",
        config,
        enable_collection=False,
        enable_training=enable_training,
        num_collection=None,
        num_training=num_training,
        num_epoch=1,
        load_model_id=load_model_id,
        use_mlflow=use_mlflow,
    )
    scheduler.settings = replace(
        scheduler.settings,
        index_budget_mb=checked("index_budget_mb", budget_mb, argument="budget_mb"),
        index_width=checked("index_width", width, argument="width"),
        index_start=checked("index_start", start, argument="start"),
        update_every=checked("update_every", update_every),
    )
    return scheduler, tracker


def get_knob_preset_scheduler(
    config: PostgreSQLConfig,
    *,
    num_trials: int = 50,
    target: Literal["total_time", "p95_time", "throughput"] = "total_time",
    projection: Literal["llamatune", "none"] = "none",
    enable_training: bool = True,
    num_training: int | None = None,
    load_model_id: str | None = None,
    use_mlflow: bool = True,
) -> Preset:
    """
    Return `(scheduler, tracker)` of knob tuning; `tracker` is None without MLflow.

    Statements run with the settings found in `num_trials` trials on `num_training` training queries (all without it), or with the default
    where nothing better was found. Without training the settings of `load_model_id` are used, by default those of the best run of the
    experiment `knob_<db>`.
    """
    from dataclasses import replace

    from pytest_pilotscope.optiontable import checked
    from pytest_pilotscope.scheduler import preset_scheduler

    scheduler, tracker = preset_scheduler(
        "knob",
        config,
        enable_collection=False,
        enable_training=enable_training,
        num_collection=None,
        num_training=num_training,
        num_epoch=1,
        load_model_id=load_model_id,
        use_mlflow=use_mlflow,
    )
    scheduler.settings = replace(
        scheduler.settings,
        knob_trials=checked("knob_trials", num_trials, argument="num_trials"),
        knob_target=checked("knob_target", target, argument="target"),
        knob_projection=checked("knob_projection", projection, argument="projection"),
    )
    return scheduler, tracker
