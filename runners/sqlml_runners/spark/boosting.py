"""XGBoost on the cluster, by ``xgboost.spark``; what comes back is the booster that a job on one machine leaves, too."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from xgboost.callback import TrainingCallback

from sqlml.algorithms.xgboost import TreePredictor
from sqlml.contracts import Report
from sqlml.errors import JobCancelled, NotSupportedError, OperationalError, TrainingDataError
from sqlml.features.encode import FeatureEncoder
from sqlml.spark_common.errors import is_lost, is_spark_error
from sqlml.training.aims import Learner
from sqlml.types import Task
from sqlml_runners.spark.checks import too_many_workers
from sqlml_runners.spark.cluster import Cluster
from sqlml_runners.spark.progress import Address, Listener, Teller

_FEWEST_ROWS = 500
"""A worker more is started for so many rows."""
_ATTEMPTS = 3
_WAIT_SECONDS = 60.0
"""So long the cluster may take to give another worker for one that was lost."""
_PARTS = {"training": "train", "validation": "valid"}
_METRIC_NAMES = {"mlogloss": "logloss", "merror": "error", "auc": "roc_auc", "aucpr": "pr_auc"}
_OBJECTIVE_OPTIONS = {"reg:tweedie": "tweedie_variance_power", "reg:pseudohubererror": "huber_slope"}


class Follow(TrainingCallback):
    """Runs in each worker; the first of them tells the driver of every round."""

    def __init__(self, address: Address) -> None:
        self._teller = Teller(address)

    def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Mapping[str, list[Any]]]) -> bool:
        from xgboost import collective

        if collective.get_rank() == 0:
            figures = {
                f"{_PARTS.get(part, part)}_{_METRIC_NAMES.get(name, name)}": float(values[-1])
                for part, log in evals_log.items()
                for name, values in log.items()
            }
            self._teller.tell({"round": epoch + 1, "metrics": figures})
        return False


def workers_for(cluster: Cluster, wanted: int | None, threads: int, rows: int) -> int:
    """How many workers train.  ``OperationalError`` where the cluster cannot run them all at once: they would wait forever."""
    slots = cluster.slots()
    if wanted is not None and wanted > slots:
        raise too_many_workers(wanted, slots)
    if not slots:
        raise OperationalError("the cluster has no executor that could run a task", hint="is there a worker? look at its page")
    most = wanted or min(slots, threads or slots)
    return max(1, min(most, rows // _FEWEST_ROWS + 1))


def boost(frame: Any, learner: Learner, encoder: FeatureEncoder, cluster: Cluster, workers: int, report: Report) -> TreePredictor:
    """Train on the columns ``features``, ``y``, ``w`` and ``valid`` of ``frame``, which has a partition for each worker."""
    from xgboost.core import XGBoostError

    rounds = int(learner.options["n_estimators"])
    heard: list[int] = []

    def hear(message: Mapping[str, Any]) -> None:
        if message["round"] > len(heard):  # a worker that was lost begins anew
            heard.append(int(message["round"]))
            with suppress(JobCancelled):  # the job's own thread sees to that
                report.step(int(message["round"]), rounds, message["metrics"])

    listener = Listener(cluster.host, hear)
    try:
        model = _fit(_estimator(learner, encoder, cluster, workers, listener.address), frame, cluster, workers, report)
    except XGBoostError as error:
        raise TrainingDataError(f"xgboost: {_reason(error)}") from error
    except ValueError as error:  # what its checks say of the settings
        raise NotSupportedError(f"xgboost.spark: {_reason(error)}") from error
    finally:
        listener.close()
    booster = model.get_booster()
    if not heard:
        _tell_summary(model.training_summary, rounds, report)
    if learner.stops_early:
        booster = booster[: booster.best_iteration + 1]
    for name in booster.attributes():
        booster.set_attr(**{name: None})
    booster.set_attr(objective=_objective(learner), outputs=str(len(learner.classes) or 1))
    return TreePredictor(booster)


def _fit(estimator: Any, frame: Any, cluster: Cluster, workers: int, report: Report) -> Any:
    """Train; anew where the cluster lost a worker: Spark cannot go on with a part of those that train together."""
    for attempt in range(_ATTEMPTS):
        try:
            return estimator.fit(frame)
        except Exception as error:
            if attempt + 1 == _ATTEMPTS or not is_spark_error(error) or not is_lost(error):
                raise
            report.notice("the cluster lost a worker: the training begins anew")
            until = time.monotonic() + _WAIT_SECONDS
            while cluster.slots() < workers and time.monotonic() < until:
                time.sleep(0.5)
    raise AssertionError("not reached")


def _estimator(learner: Learner, encoder: FeatureEncoder, cluster: Cluster, workers: int, address: Address) -> Any:
    from xgboost.spark import SparkXGBClassifier, SparkXGBRegressor

    for name in ("XGBoost-PySpark", "SparkXGBClassifier", "SparkXGBRegressor"):
        logging.getLogger(name).setLevel(logging.ERROR)
    own = {option.name for option in learner.algorithm.options}
    apart = {"n_estimators", "early_stopping_rounds", "eval_metric", "objective", "device", *_OBJECTIVE_OPTIONS.values()}
    options = {name: value for name, value in learner.options.items() if name in own - apart and value is not None}
    if learner.task is Task.CLASSIFICATION:
        make: Any = SparkXGBClassifier
        if len(learner.classes) > 2:
            options.pop("scale_pos_weight", None)
    else:
        make = SparkXGBRegressor
        options["objective"] = objective = _objective(learner)
        if objective in _OBJECTIVE_OPTIONS:
            name = _OBJECTIVE_OPTIONS[objective]
            options[name] = learner.options[name]
    if learner.stops_early:
        options |= {"early_stopping_rounds": learner.options["early_stopping_rounds"], "validation_indicator_col": "valid"}
    if _on_gpus(learner, cluster):
        options["device"] = "cuda"
    return make(
        features_col="features",
        label_col="y",
        weight_col="w",
        num_workers=workers,
        feature_types=["c" if categorical else "q" for categorical in encoder.categorical],
        n_estimators=int(learner.options["n_estimators"]),
        eval_metric=_metric(learner),
        random_state=learner.seed,
        launch_tracker_on_driver=False,  # a stage that begins anew, after a worker was lost, then has a tracker of its own
        callbacks=[Follow(address)],
        verbosity=0,
        verbose=False,
        **options,
    )


def _on_gpus(learner: Learner, cluster: Cluster) -> bool:
    """Where they are asked for, or the cluster gives its executors some."""
    device = str(learner.options.get("device") or "cpu")
    return device.startswith("cuda") or (device == "auto" and cluster.gives_gpus)


def _objective(learner: Learner) -> str:
    if learner.task is Task.REGRESSION:
        return str(learner.options["objective"])
    return "binary:logistic" if len(learner.classes) == 2 else "multi:softprob"


def _metric(learner: Learner) -> str:
    metric = str(learner.options["eval_metric"])
    return {"logloss": "mlogloss", "error": "merror"}.get(metric, metric) if len(learner.classes) > 2 else metric


def _tell_summary(summary: Any, rounds: int, report: Report) -> None:
    """The rounds after the fact, where no executor could reach the driver."""
    figures: dict[str, list[float]] = {}
    for part, history in (("train", summary.train_objective_history), ("valid", summary.validation_objective_history)):
        for name, values in history.items():
            figures[f"{part}_{_METRIC_NAMES.get(name, name)}"] = values
    for i in range(max((len(values) for values in figures.values()), default=0)):
        report.step(i + 1, rounds, {name: float(values[i]) for name, values in figures.items()})


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).split("Stack trace")[0].splitlines() if line.strip()]
    return re.sub(r"^\[\d\d:\d\d:\d\d\]\s+\S+:\d+:\s*", "", " ".join(lines)) if lines else type(error).__name__
