"""How a version came about, as tables under BigQuery's names: its losses step by step, its inputs, its trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from sqlml.evaluation.learnt import cluster_info
from sqlml.evaluation.subject import Subject
from sqlml.types import Task

CLUSTER_INFO = pa.list_(pa.struct([("centroid_id", pa.int64()), ("cluster_radius", pa.float64()), ("cluster_size", pa.int64())]))
LOSSES = ("logloss", "mlogloss", "log_loss", "rmse", "mse", "inertia")
"""The losses that algorithms report while they train, by their names in the curves."""


def training_rows(subject: Subject, target: str | None) -> Iterator[dict[str, Any]]:
    """ML.TRAINING_INFO of one target: the loss on the rows trained on, and on those held out, after each step.

    The loss is the algorithm's own: the log loss of classes, the mean squared error of numbers (as in BigQuery), the inertia of
    clusters.  ``training_run`` is 1 after WARM START, else 0; ``iteration`` counts from 0; ``duration_ms`` is an average, since
    the job's time is measured as a whole.
    """
    outcome = subject.outcome
    prefix = f"{target}." if subject.several else ""
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for step, split, metric, value in outcome.curves:
        if metric.startswith(prefix):
            curves.setdefault(metric[len(prefix) :], {}).setdefault(split, {})[step] = value
    loss = next((name for name in LOSSES if name in curves), None)
    splits = curves.get(loss or "", {})
    squared = loss == "rmse"
    told = [*splits.values(), *curves.get("seconds", {}).values()]  # of a large table not every step has a loss
    steps = sorted({step for points in told for step in points} or {1})
    rate = outcome.options.get("learning_rate")
    run = int(subject.plan is not None and subject.plan.start is not None)
    held = splits.get("heldout") or splits.get("valid") or splits.get("validation") or {}
    for number, step in enumerate(steps):
        row: dict[str, Any] = {"training_run": run, "iteration": number}
        row["loss"] = _loss(splits.get("train", {}).get(step), squared)
        row["eval_loss"] = _loss(held.get(step), squared)
        row["learning_rate"] = float(rate) if rate is not None else None
        row["duration_ms"] = round(outcome.duration * 1000 / len(steps))
        row["cluster_info"] = _clusters(subject) if step == steps[-1] and subject.task is Task.CLUSTERING else None
        yield row


def _loss(value: float | None, squared: bool) -> float | None:
    return value if value is None or not squared else value**2


def _clusters(subject: Subject) -> list[dict[str, Any]] | None:
    """Sizes and radii among the sample, which are training rows: clusters have no target."""
    sample, head = subject.sample, subject.heads[0]
    if sample is None:
        return None
    return cluster_info(head.raw(sample.columns, sample.n))


FEATURE_INFO = ("min", "max", "mean", "median", "stddev")


def feature_rows(subject: Subject) -> Iterator[dict[str, Any]]:
    """ML.FEATURE_INFO: what the rows that the version was trained on had in each of its inputs."""
    for row in subject.outcome.feature_info:
        found: dict[str, Any] = {"input": row["input"]}
        for name in FEATURE_INFO:
            found[name] = _number(row.get(name))
        for name in ("category_count", "null_count", "dimension"):
            found[name] = row.get(name)
        yield found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


# --- trials ------------------------------------------------------------------------------------------------------------

STATUS = {"done": "SUCCEEDED", "failed": "FAILED"}


def trial_schema(subject: Subject) -> pa.Schema:
    """ML.TRIAL_INFO's columns: the options that were tried, and the figures that were measured, as one struct each."""
    trials = subject.outcome.trials
    options = _struct([trial["options"] for trial in trials])
    metrics = _struct([trial["metrics"] or {} for trial in trials])
    return pa.schema(
        [
            ("trial_id", pa.int64()),
            ("hyperparameters", options),
            ("hparam_tuning_evaluation_metrics", metrics),
            ("training_loss", pa.float64()),
            ("eval_loss", pa.float64()),
            ("status", pa.string()),
            ("error_message", pa.string()),
            ("is_optimal", pa.bool_()),
            ("seconds", pa.float64()),
        ]
    )


def trial_rows(subject: Subject) -> list[dict[str, Any]]:
    """ML.TRIAL_INFO: what TUNE tried, in order, and how it came out; ``seconds`` is ours."""
    schema = trial_schema(subject)
    trials, best = subject.outcome.trials, best_trial(subject)
    return [
        {
            "trial_id": trial["trial"],
            "hyperparameters": _fitted(trial["options"], schema.field("hyperparameters").type),
            "hparam_tuning_evaluation_metrics": _fitted(
                trial["metrics"] or {}, schema.field("hparam_tuning_evaluation_metrics").type
            ),
            "training_loss": _first(trial, "train_loss", "training_loss"),
            "eval_loss": _first(trial, "log_loss", "mse", "eval_loss"),
            "status": STATUS.get(trial["state"], str(trial["state"]).upper()),
            "error_message": trial.get("error"),
            "is_optimal": trial is best,
            "seconds": trial["seconds"],
        }
        for trial in trials
    ]


def best_trial(subject: Subject) -> Mapping[str, Any] | None:
    """The trial whose options the version was trained with: the best by TUNE's metric, the first of equally good ones."""
    tune = subject.plan.tune if subject.plan else None
    if tune is None:
        return None
    figures = [((trial["metrics"] or {}).get(tune.metric), trial) for trial in subject.outcome.trials]
    known = [(value if tune.maximize else -value, trial) for value, trial in figures if value is not None]
    return max(known, key=lambda item: item[0])[1] if known else None


def _first(trial: Mapping[str, Any], *names: str) -> float | None:
    metrics = trial["metrics"] or {}
    return next((metrics[name] for name in names if metrics.get(name) is not None), None)


def _fitted(values: Mapping[str, Any], kind: pa.DataType) -> dict[str, Any] | None:
    """Values as a struct type has them: where some are texts, all are."""
    if not pa.types.is_struct(kind):
        return None
    found = {field.name: (values.get(field.name), pa.types.is_string(field.type)) for field in kind}
    return {name: str(value) if text and value is not None else value for name, (value, text) in found.items()}


def _struct(rows: list[Mapping[str, Any]]) -> pa.DataType:
    """One struct type for all of some mappings; numbers are DOUBLE where some are fractions."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        return pa.string()  # a struct has a field at least
    return pa.struct([(name, _common([row[name] for row in rows if row.get(name) is not None])) for name in names])


def _common(values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    return pa.float64() if kinds <= {int, float} else pa.string()
