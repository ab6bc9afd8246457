"""The functions' answers: for each the versions it is for, its columns, and its rows as mappings from column to value.

Of several targets each has its rows, and the column ``target`` comes first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from sqlml.errors import BindError, listing
from sqlml.evaluation import curves, history, learnt
from sqlml.evaluation.scores import Scores
from sqlml.evaluation.subject import Subject
from sqlml.features.target import label_type
from sqlml.plan import TargetColumn
from sqlml.types import UNMEASURED, Task, label_text

Options: TypeAlias = Mapping[str, Any]
Rows: TypeAlias = Sequence[Mapping[str, Any]]

_TEXT, _NUMBER, _COUNT, _FLAG = pa.string(), pa.float64(), pa.int64(), pa.bool_()


@dataclass(frozen=True)
class Misfit:
    """Why a function does not fit a version: it is for ``wanted``, the version ``found``; what to use ``instead``."""

    wanted: str
    found: str
    instead: str | None = None


_FOUND = {
    Task.CLASSIFICATION: "predicts a class",
    Task.REGRESSION: "predicts a number",
    Task.CLUSTERING: "finds clusters",
    Task.PROJECTION: "gives components",
    Task.ANOMALY: "finds anomalies",
    **UNMEASURED,
}


def fits_all(subject: Subject) -> Misfit | None:
    """Any version."""
    return None


def fits_measured(subject: Subject) -> Misfit | None:
    """Whatever gives answers that can be measured."""
    if subject.task in UNMEASURED:
        return Misfit("models that answer something", _FOUND[subject.task], "ML.FEATURE_INFO tells of its inputs")
    return None


def fits_classes(subject: Subject) -> Misfit | None:
    """Models of classes."""
    if subject.classified:
        return None
    instead = None if subject.task in UNMEASURED else "use ML.EVALUATE, or EVALUATE MODEL"
    return Misfit("models of classes", _FOUND[subject.task], instead)


def fits_linear(subject: Subject) -> Misfit | None:
    """Linear models."""
    return None if learnt.is_linear(subject) else _not_learnt(subject, "linear models")


def fits_clusters(subject: Subject) -> Misfit | None:
    """Clusters around centres."""
    return None if subject.task is Task.CLUSTERING and subject.has("centers") else _not_learnt(subject, "clusters, as of kmeans")


def fits_components(subject: Subject) -> Misfit | None:
    """Principal components."""
    return None if subject.has("components", "explained_variance") else _not_learnt(subject, "principal components, as of pca")


def fits_trees(subject: Subject) -> Misfit | None:
    """Trees, boosted or in a forest."""
    return None if subject.has("weight", "gain", "cover") else _not_learnt(subject, "trees")


def fits_explained(subject: Subject) -> Misfit | None:
    """Models whose predictions can be taken apart into contributions."""
    if subject.heads and all(head.explains for head in subject.heads):
        return None
    return _not_learnt(subject, "models whose predictions can be explained")


def fits_tuned(subject: Subject) -> Misfit | None:
    """Versions trained with TUNE."""
    if subject.outcome.trials:
        return None
    return Misfit("versions trained with TUNE", "was not", "ML.TRAINING_INFO tells of its training")


def _not_learnt(subject: Subject, wanted: str) -> Misfit:
    """The function that tells what this version has learnt."""
    choices = (
        ("ML.WEIGHTS", learnt.is_linear(subject)),
        ("ML.CENTROIDS", subject.has("centers")),
        ("ML.PRINCIPAL_COMPONENTS", subject.has("components")),
        ("ML.FEATURE_IMPORTANCE", subject.has("weight", "gain", "cover")),
        ("ML.GLOBAL_EXPLAIN", bool(subject.heads) and all(head.explains for head in subject.heads)),
        ("ML.FEATURE_INFO", True),
    )
    instead = next(name for name, fits in choices if fits)
    return Misfit(wanted, f"is {subject.algorithm}", f"use {instead}(MODEL {subject.name})")


# --- rows for each target ----------------------------------------------------------------------------------------------


def _schema(subject: Subject, *columns: tuple[str, pa.DataType]) -> pa.Schema:
    lead = [("target", _TEXT)] if subject.several else []
    return pa.schema([*lead, *columns])


def _classified(scores: Sequence[Scores]) -> Iterator[tuple[TargetColumn, Scores]]:
    for own in scores:
        if own.target is not None and own.task is Task.CLASSIFICATION:
            yield own.target, own.known


def _plain(value: Any) -> float | None:
    """A figure, None for NaN: an undefined figure is NULL in SQL."""
    return None if value is None or math.isnan(value) else float(value)


def count_type(subject: Subject) -> pa.DataType:
    """How rows are counted: as whole numbers, or as sums of weights where training had a WEIGHT."""
    return _COUNT if subject.weight is None else _NUMBER


# --- figures -----------------------------------------------------------------------------------------------------------

BIGQUERY: Mapping[Task, Mapping[str, str]] = {
    Task.CLASSIFICATION: {
        "precision": "precision",
        "recall": "recall",
        "accuracy": "accuracy",
        "f1_score": "f1",
        "log_loss": "log_loss",
        "roc_auc": "roc_auc",
    },
    Task.REGRESSION: {
        "mean_absolute_error": "mae",
        "mean_squared_error": "mse",
        "mean_squared_log_error": "msle",
        "median_absolute_error": "medae",
        "r2_score": "r2",
        "explained_variance": "explained_variance",
    },
    Task.CLUSTERING: {"davies_bouldin_index": "davies_bouldin", "mean_squared_distance": "mean_squared_distance"},
    Task.PROJECTION: {"total_explained_variance_ratio": "total_explained_variance_ratio"},
    Task.ANOMALY: {"anomalies": "anomalies", "mean_score": "mean_score"},
    Task.TRANSFORM: {},
    Task.GENERATION: {},
}
"""BigQuery's name of each figure that ML.EVALUATE gives, in its order, and ours.  It has none for anomalies: there, ours."""


def evaluate_columns(subject: Subject, options: Options) -> pa.Schema:
    """The figures of the task; of several targets those of all their tasks."""
    tasks = dict.fromkeys(target.task for target in subject.targets) or {subject.task: None}
    names = dict.fromkeys(name for task in tasks for name in BIGQUERY[task])
    return _schema(subject, *((name, _NUMBER) for name in names))


def evaluate(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.EVALUATE.  More than two classes count alike, as in scikit-learn's ``macro``."""
    rows = []
    for own in scores:
        kept_no_features = own.target is None and own.x is None and own.task is not Task.ANOMALY
        # Of held-out rows the scores alone are kept; clusters and components were measured in training, on the features.
        figures = subject.outcome.metrics.get("heldout", {}) if kept_no_features else own.measure(options["threshold"])
        named: dict[str, Any] = {name: figures.get(ours) for name, ours in BIGQUERY[own.task].items()}
        rows.append({"target": own.target.name if own.target else None} | named)
    return rows


def confusion_columns(subject: Subject, options: Options) -> pa.Schema:
    """``expected_label`` and a column named after each class (of several targets, each class of any)."""
    columns = _class_columns(subject.classified)
    kinds = {label_type(target.classes) for target in subject.classified}
    label = kinds.pop() if len(kinds) == 1 else _TEXT
    return _schema(subject, ("expected_label", label), *((name, count_type(subject)) for name in columns.values()))


def _class_columns(targets: Sequence[TargetColumn]) -> dict[str, str]:
    """Class → its column's name: the class itself, with _1, _2 … behind it where SQL could not tell it from another's."""
    taken = {"target", "expected_label"}
    named: dict[str, str] = {}
    for name in dict.fromkeys(label_text(value) for target in targets for value in target.classes):
        column, number = name or "_", 0
        while column.lower() in taken:
            number += 1
            column = f"{name}_{number}"
        taken.add(column.lower())
        named[name] = column
    return named


def confusion_matrix(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.CONFUSION_MATRIX: a row for each true class, its rows counted by the class that was predicted."""
    columns = _class_columns(subject.classified)
    as_text = len({label_type(target.classes) for target in subject.classified}) > 1
    rows = []
    for target, own in _classified(scores):
        cells = curves.confusion(own.raw, own.actual, own.weight, options["threshold"])  # type: ignore[arg-type]
        for value, counts in zip(target.classes, cells, strict=True):
            named = {columns[name]: _whole(subject, count) for name, count in zip(own.class_names, counts, strict=True)}
            rows.append({"target": target.name, "expected_label": label_text(value) if as_text else value} | named)
    return rows


def _whole(subject: Subject, count: float) -> float | int:
    return int(count) if subject.weight is None else float(count)


# --- curves ------------------------------------------------------------------------------------------------------------


def _by_class(subject: Subject, *columns: tuple[str, pa.DataType]) -> pa.Schema:
    """With the column ``class`` first where a target has more than two: each is then told from the rest."""
    many = any(len(target.classes) > 2 for target in subject.classified)
    return _schema(subject, *((("class", _TEXT),) if many else ()), *columns)


def _each_class(subject: Subject, options: Options, scores: Sequence[Scores]) -> Iterator[tuple[dict[str, Any], int, Scores]]:
    """What stands first in the rows, the code of the class that is told from the rest, and the scores."""
    wanted = options["class"]
    found = False
    for target, own in _classified(scores):
        names = own.class_names
        codes = range(len(names)) if len(names) > 2 else [1]
        if wanted is not None:
            codes = [code for code, name in enumerate(names) if name == wanted]
        for code in codes:
            found = True
            yield {"target": target.name, "class": names[code]}, code, own
    if wanted is not None and not found:
        check_class(subject, wanted)


def check_class(subject: Subject, wanted: str) -> None:
    """``BindError`` unless a target has the class."""
    known = [label_text(value) for target in subject.classified for value in target.classes]
    if wanted not in known:
        raise BindError(f"model {subject.name} has no class {wanted}", hint=f"its classes: {listing(known, 20)}")


def _counts(subject: Subject, options: Options, scores: Sequence[Scores]) -> Iterator[tuple[dict[str, Any], curves.Counts]]:
    for lead, code, own in _each_class(subject, options, scores):
        score, positive = own.raw[:, code], np.asarray(own.actual == code)
        at = options["thresholds"]
        if at is None:
            at = curves.default_thresholds(score)
        yield lead, curves.count_at(score, positive, at, own.weight)


def roc_columns(subject: Subject, options: Options) -> pa.Schema:
    """BigQuery's; the counts are sums of weights where training had a WEIGHT."""
    counts = ("true_positives", "false_positives", "true_negatives", "false_negatives")
    rates = (("threshold", _NUMBER), ("recall", _NUMBER), ("false_positive_rate", _NUMBER))
    return _by_class(subject, *rates, *((name, count_type(subject)) for name in counts))


def roc_curve(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.ROC_CURVE: descending thresholds of the scores (100 at most), or those given, in their order."""
    return [
        lead
        | {
            "threshold": float(found.threshold[i]),
            "recall": _plain(found.recall[i]),
            "false_positive_rate": _plain(found.false_positive_rate[i]),
            "true_positives": _whole(subject, found.true_positives[i]),
            "false_positives": _whole(subject, found.false_positives[i]),
            "true_negatives": _whole(subject, found.true_negatives[i]),
            "false_negatives": _whole(subject, found.false_negatives[i]),
        }
        for lead, found in _counts(subject, options, scores)
        for i in range(len(found.threshold))
    ]


def precision_columns(subject: Subject, options: Options) -> pa.Schema:
    """``threshold``, ``precision``, ``recall``."""
    return _by_class(subject, ("threshold", _NUMBER), ("precision", _NUMBER), ("recall", _NUMBER))


def precision_recall_curve(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.PRECISION_RECALL_CURVE: as ML.ROC_CURVE; no precision where a threshold leaves no row."""
    return [
        lead | {"threshold": float(at), "precision": _plain(precision), "recall": _plain(recall)}
        for lead, found in _counts(subject, options, scores)
        for at, precision, recall in zip(found.threshold, found.precision, found.recall, strict=True)
    ]


def calibration_columns(subject: Subject, options: Options) -> pa.Schema:
    """A row for each group of scores that has rows."""
    ends = (("bin", _COUNT), ("lower", _NUMBER), ("upper", _NUMBER), ("count", _COUNT))
    return _by_class(subject, *ends, ("mean_predicted", _NUMBER), ("fraction_positive", _NUMBER))


def calibration_curve(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.CALIBRATION_CURVE: scikit-learn's ``calibration_curve``; ``count`` is of rows, the means are weighted."""
    rows = []
    for lead, code, own in _each_class(subject, options, scores):
        positive = np.asarray(own.actual == code)
        bins = curves.calibrate(own.raw[:, code], positive, options["bins"], options["strategy"], own.weight)
        for i, number in enumerate(bins.number):
            figures: dict[str, Any] = {"bin": int(number), "lower": float(bins.lower[i]), "upper": float(bins.upper[i])}
            figures |= {"count": int(bins.count[i]), "mean_predicted": _plain(bins.mean_predicted[i])}
            rows.append(lead | figures | {"fraction_positive": _plain(bins.fraction_positive[i])})
    return rows


# --- what was learnt ---------------------------------------------------------------------------------------------------


def _each_head(subject: Subject, rows: Any) -> Rows:
    return [{"target": head.target} | row for head in subject.heads for row in rows(head)]


def training_columns(subject: Subject, options: Options) -> pa.Schema:
    """BigQuery's: clusters have ``cluster_info`` and no ``eval_loss``."""
    columns = [("training_run", _COUNT), ("iteration", _COUNT), ("loss", _NUMBER), ("eval_loss", _NUMBER)]
    columns += [("learning_rate", _NUMBER), ("duration_ms", _COUNT)]
    if subject.task is Task.CLUSTERING:
        columns = [column for column in columns if column[0] != "eval_loss"] + [("cluster_info", history.CLUSTER_INFO)]
    return _schema(subject, *columns)


def training_info(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.TRAINING_INFO"""
    targets: list[str | None] = [target.name for target in subject.targets] or [None]
    return [{"target": target} | row for target in targets for row in history.training_rows(subject, target)]


def feature_columns(subject: Subject, options: Options) -> pa.Schema:
    """BigQuery's; a row for each input, whatever the targets."""
    numbers = [(name, _NUMBER) for name in history.FEATURE_INFO]
    counts = [(name, _COUNT) for name in ("category_count", "null_count", "dimension")]
    return pa.schema([("input", _TEXT), *numbers, *counts])


def feature_info(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.FEATURE_INFO"""
    return list(history.feature_rows(subject))


def weight_columns(subject: Subject, options: Options) -> pa.Schema:
    """``class_label`` first where there are more than two classes."""
    many = any(len(target.classes) > 2 for target in subject.targets)
    rest = (("processed_input", _TEXT), ("weight", _NUMBER), ("category_weights", learnt.CATEGORY_WEIGHTS))
    return _schema(subject, *((("class_label", _TEXT),) if many else ()), *rest)


def weights(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.WEIGHTS"""
    return _each_head(subject, lambda head: learnt.weight_rows(head, options["standardize"]))


_VALUES = (("feature", _TEXT), ("numerical_value", _NUMBER), ("categorical_value", learnt.CATEGORY_VALUES))


def centroid_columns(subject: Subject, options: Options) -> pa.Schema:
    """BigQuery's."""
    return pa.schema([("centroid_id", _COUNT), *_VALUES])


def centroids(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.CENTROIDS"""
    return _each_head(subject, lambda head: learnt.centroid_rows(head, options["standardize"]))


def component_columns(subject: Subject, options: Options) -> pa.Schema:
    """BigQuery's."""
    return pa.schema([("principal_component_id", _COUNT), *_VALUES])


def principal_components(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.PRINCIPAL_COMPONENTS"""
    return _each_head(subject, learnt.component_rows)


def component_info_columns(subject: Subject, options: Options) -> pa.Schema:
    """BigQuery's."""
    names = ("eigenvalue", "explained_variance_ratio", "cumulative_explained_variance_ratio")
    return pa.schema([("principal_component_id", _COUNT), *((name, _NUMBER) for name in names)])


def principal_component_info(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.PRINCIPAL_COMPONENT_INFO"""
    return _each_head(subject, learnt.component_info_rows)


def importance_columns(subject: Subject, options: Options) -> pa.Schema:
    """BigQuery's."""
    return _schema(subject, ("feature", _TEXT), *((f"importance_{name}", _NUMBER) for name in ("weight", "gain", "cover")))


def feature_importance(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.FEATURE_IMPORTANCE"""
    return _each_head(subject, learnt.importance_rows)


def global_columns(subject: Subject, options: Options) -> pa.Schema:
    """``class_name`` first where each class is explained by itself."""
    lead = (("class_name", _TEXT),) if options["class_level_explain"] else ()
    return _schema(subject, *lead, ("feature", _TEXT), ("attribution", _NUMBER))


def global_explain(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.GLOBAL_EXPLAIN"""
    by_class = options["class_level_explain"]
    if by_class and not subject.classified:
        raise BindError(f"class_level_explain is for models of classes; {subject.name} {_FOUND[subject.task]}")
    return _each_head(subject, lambda head: learnt.global_rows(subject, head, by_class and head.task is Task.CLASSIFICATION))


def trial_columns(subject: Subject, options: Options) -> pa.Schema:
    """BigQuery's, and ``seconds``."""
    return history.trial_schema(subject)


def trial_info(subject: Subject, options: Options, scores: Sequence[Scores]) -> Rows:
    """ML.TRIAL_INFO"""
    return history.trial_rows(subject)
