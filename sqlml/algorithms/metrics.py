"""The field's usual figures for each task.  What is not defined for some rows is None, never NaN.

Formulae are scikit-learn's.  Order matters: the figures that people look at first come first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

Metrics: TypeAlias = dict[str, float | None]

HEADLINES: dict[Task, tuple[str, ...]] = {
    Task.CLASSIFICATION: ("roc_auc", "log_loss", "f1"),
    Task.REGRESSION: ("rmse", "mae", "r2"),
    Task.CLUSTERING: ("davies_bouldin", "silhouette", "mean_squared_distance"),
}
"""What TRAIN shows of them."""

_CLASSIFICATION = ("roc_auc", "log_loss", "accuracy", "precision", "recall", "f1", "pr_auc")
_REGRESSION = ("rmse", "mae", "r2", "medae", "mape", "explained_variance")
_CLUSTERING = ("davies_bouldin", "silhouette", "mean_squared_distance")
_SILHOUETTE_ROWS = 5_000


def measure(
    task: Task,
    raw: NDArray[Any],
    actual: NDArray[Any] | None = None,
    weight: NDArray[np.float64] | None = None,
    *,
    x: NDArray[np.float32] | None = None,
    threshold: float | None = None,
) -> Metrics:
    """The figures of a task for what ``Predictor.predict`` gave.

    ``actual`` are class codes, or the values of a regression; ``x`` is the feature matrix (clusters only); ``threshold`` is the
    probability from which the second of two classes is predicted (otherwise the likelier one is).
    """
    if task is Task.CLASSIFICATION:
        return classification_metrics(np.asarray(actual), raw, weight, threshold)
    if task is Task.REGRESSION:
        return regression_metrics(np.asarray(actual), raw, weight)
    return clustering_metrics(raw, x)


def classification_metrics(
    actual: NDArray[np.int64], raw: NDArray[Any], weight: NDArray[np.float64] | None = None, threshold: float | None = None
) -> Metrics:
    """Of probabilities (n, classes).  Two classes: the second is the positive one.

    More: plain averages over the classes that occur among these rows, in truth or as a prediction (scikit-learn's ``macro``).
    """
    from sklearn import metrics as m

    two = raw.shape[1] == 2
    names = (*_CLASSIFICATION, "brier") if two else _CLASSIFICATION
    if not len(actual):
        return dict.fromkeys(names)
    chosen = raw.argmax(1) if threshold is None or not two else (raw[:, 1] >= threshold).astype(np.int64)
    p = np.asarray(raw, np.float64)
    p = p / p.sum(1, keepdims=True)
    codes = np.arange(raw.shape[1])
    one = {"sample_weight": weight}
    many = one | {"average": "binary" if two else "macro", "zero_division": 0.0}
    pick: dict[str, Callable[[], Any]] = {
        "roc_auc": lambda: _roc_auc(actual, p, weight),
        "log_loss": lambda: m.log_loss(actual, p, labels=codes, **one),
        "accuracy": lambda: m.accuracy_score(actual, chosen, **one),
        "precision": lambda: m.precision_score(actual, chosen, **many),
        "recall": lambda: m.recall_score(actual, chosen, **many),
        "f1": lambda: m.f1_score(actual, chosen, **many),
        "pr_auc": lambda: _pr_auc(actual, p, weight),
        "brier": lambda: m.brier_score_loss(actual, p[:, 1], pos_label=1, **one),
    }
    return {name: _figure(pick[name]) for name in names}


def regression_metrics(actual: NDArray[np.float64], raw: NDArray[Any], weight: NDArray[np.float64] | None = None) -> Metrics:
    """Of values (n,).  ``mape`` is a fraction, over the rows whose true value is not 0."""
    from sklearn import metrics as m

    if not len(actual):
        return dict.fromkeys(_REGRESSION)
    predicted = np.asarray(raw, np.float64)
    one = {"sample_weight": weight}
    nonzero = actual != 0
    share = None if weight is None else weight[nonzero]
    pick: dict[str, Callable[[], Any]] = {
        "rmse": lambda: m.root_mean_squared_error(actual, predicted, **one),
        "mae": lambda: m.mean_absolute_error(actual, predicted, **one),
        "r2": lambda: m.r2_score(actual, predicted, force_finite=False, **one),
        "medae": lambda: m.median_absolute_error(actual, predicted, **one),
        "mape": lambda: m.mean_absolute_percentage_error(actual[nonzero], predicted[nonzero], sample_weight=share),
        "explained_variance": lambda: m.explained_variance_score(actual, predicted, force_finite=False, **one),
    }
    return {name: _figure(pick[name]) for name in _REGRESSION}


def clustering_metrics(raw: NDArray[Any], x: NDArray[np.float32] | None) -> Metrics:
    """Of distances (n, clusters); the first two need the rows themselves.  The silhouette is of a seeded sample of 5,000 rows."""
    from sklearn import metrics as m

    if not len(raw):
        return dict.fromkeys(_CLUSTERING)
    nearest = raw.argmin(1)
    pick: dict[str, Callable[[], Any]] = {
        "davies_bouldin": lambda: m.davies_bouldin_score(x, nearest),
        "silhouette": lambda: m.silhouette_score(x, nearest, sample_size=min(len(raw), _SILHOUETTE_ROWS), random_state=0),
        "mean_squared_distance": lambda: (raw.min(1) ** 2).mean(),
    }
    names = _CLUSTERING if x is not None else _CLUSTERING[2:]
    return {name: _figure(pick[name]) for name in names}


def _roc_auc(actual: NDArray[np.int64], p: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """Two classes: of the second; more: the mean over the classes that occur, each against the rest."""
    from sklearn.metrics import roc_auc_score

    return _over_classes(roc_auc_score, actual, p, weight)


def _pr_auc(actual: NDArray[np.int64], p: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    from sklearn.metrics import average_precision_score

    return _over_classes(average_precision_score, actual, p, weight)


def _over_classes(
    score: Callable[..., float], actual: NDArray[np.int64], p: NDArray[np.float64], weight: NDArray[np.float64] | None
) -> float:
    codes = [1] if p.shape[1] == 2 else np.unique(actual).tolist()
    figures = [score(actual == c, p[:, c], sample_weight=weight) for c in codes if 0 < (actual == c).sum() < len(actual)]
    return float(np.mean(figures)) if figures else math.nan


def _figure(compute: Callable[[], Any]) -> float | None:
    """A figure, or None where it is not defined for these rows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = float(compute())
    except ValueError:
        return None
    return value if math.isfinite(value) else None
