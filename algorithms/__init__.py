"""
The built-in algorithms, and preset schedulers for use without pytest.

A preset returns `(scheduler, tracker)`; `tracker` is None without MLflow. It takes the options that its algorithm declares as keyword
arguments: `get_index_preset_scheduler(config, start="none")` is `--index-start none`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_pilotscope.provision.database import PostgreSQLConfig
    from pytest_pilotscope.runs.scheduler import Scheduler
    from pytest_pilotscope.tracking.tracker import MLflowTracker

__all__ = [
    "get_baseline_preset_scheduler",
    "get_index_preset_scheduler",
    "get_knob_preset_scheduler",
    "get_lero_dynamic_preset_scheduler",
    "get_lero_preset_scheduler",
    "get_mscn_preset_scheduler",
    "get_variant_preset_scheduler",
]

Preset = tuple["Scheduler", "MLflowTracker | None"]


def get_baseline_preset_scheduler(config: PostgreSQLConfig, *, use_mlflow: bool = True) -> Preset:
    """Return `(scheduler, tracker)` of PostgreSQL without an algorithm."""
    return _preset("baseline", {"config": config, "enable_training": False, "use_mlflow": use_mlflow})


def get_variant_preset_scheduler(config: PostgreSQLConfig, variant: str, *, use_mlflow: bool = True) -> Preset:
    """Return `(scheduler, tracker)` of PostgreSQL with other settings or of another server; `variant` is the text after `--variant`."""
    return _preset(None, {"config": config, "variant": variant, "enable_training": False, "use_mlflow": use_mlflow})


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
    **options: Any,
) -> Preset:
    """
    Return `(scheduler, tracker)` of MSCN.

    `num_collection` and `num_training` limit the training queries to label and to learn from. Without training the model `load_model_id` is
    used (`best`, a run id, a path, `models:/NAME/VERSION`), by default the best one of the experiment `mscn_<db>`.
    """
    return _preset("mscn", locals())


def get_lero_preset_scheduler(
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
    **options: Any,
) -> Preset:
    """
    Return `(scheduler, tracker)` of Lero.

    `num_collection` and `num_training` limit the training queries whose candidate plans are run and learned from. Without training the
    model `load_model_id` is used (`best`, a run id, a path, `models:/NAME/VERSION`), by default the best one of the experiment `lero_<db>`.
    """
    return _preset("lero", locals())


def get_lero_dynamic_preset_scheduler(config: PostgreSQLConfig, **chosen: Any) -> Preset:
    """
    Return `(scheduler, tracker)` of Lero that learns on.

    After every `update_every` different statements it runs their candidate plans, on the same database, and trains with all statements so
    far. The next statement waits for that, and its times do not include it.

    The arguments are those of `get_lero_preset_scheduler`.
    """
    return get_lero_preset_scheduler(config, **{**chosen, "dynamic": True})


def get_index_preset_scheduler(
    config: PostgreSQLConfig,
    *,
    update_every: int = 200,
    enable_training: bool = True,
    num_training: int | None = None,
    load_model_id: str | None = None,
    use_mlflow: bool = True,
    **options: Any,
) -> Preset:
    """
    Return `(scheduler, tracker)` of index selection.

    Statements run in a copy of the database that has the indexes selected for `num_training` training queries (all without it), within
    `budget_mb` (of 2^20 bytes) and of at most `width` columns. `start="none"` leaves out the indexes that no constraint needs. Without
    training the indexes of `load_model_id` are built, by default those of the best run of the experiment `index_<db>`.
    """
    return _preset("index", locals())


def get_knob_preset_scheduler(
    config: PostgreSQLConfig,
    *,
    num_trials: int | None = None,
    enable_training: bool = True,
    num_training: int | None = None,
    load_model_id: str | None = None,
    use_mlflow: bool = True,
    **options: Any,
) -> Preset:
    """
    Return `(scheduler, tracker)` of knob tuning.

    Statements run with the settings found in `num_trials` trials (`--knob-trials`) on `num_training` training queries (all without it), or
    with the default if no trial was better. Without training the settings of `load_model_id` are used, by default those of the best
    run of the experiment `knob_<db>`.
    """
    given = locals()
    from pytest_pilotscope.builtins import builtin_registry

    if given.pop("num_trials") is not None:
        options["trials"] = builtin_registry().declared["knob"]["trials"].checked(num_trials, "num_trials")
    return _preset("knob", given)


def _preset(algorithm: str | None, given: dict[str, Any]) -> Preset:
    """Make the scheduler of an algorithm from the arguments of its function above, which are those of `preset_scheduler`."""
    from pytest_pilotscope.runs.scheduler import preset_scheduler

    return preset_scheduler(algorithm, **given)
