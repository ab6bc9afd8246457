"""The field's usual figures for each task.  What is not defined for some rows is None, never NaN.

Formulae are scikit-learn's.  Order matters: the figures that people look at first come first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sqlml.algorithms import formulae
from sqlml.algorithms.formulae import Confusion, Ranking
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

Metrics: TypeAlias = dict[str, float | None]

HEADLINES: dict[Task, tuple[str, ...]] = {
    Task.CLASSIFICATION: ("roc_auc", "log_loss", "f1"),
    Task.REGRESSION: ("rmse", "mae", "r2"),
    Task.CLUSTERING: ("davies_bouldin", "silhouette", "mean_squared_distance"),
    Task.PROJECTION: ("total_explained_variance_ratio", "reconstruction_error"),
    Task.ANOMALY: ("anomalies", "mean_score"),
    Task.TRANSFORM: (),
    Task.GENERATION: (),
}
"""What TRAIN shows of them."""

_CLASSIFICATION = ("roc_auc", "log_loss", "accuracy", "precision", "recall", "f1", "pr_auc", "mcc", "balanced_accuracy")
_LABELS = ("accuracy", "precision", "recall", "f1", "mcc", "balanced_accuracy")
_REGRESSION = ("rmse", "mae", "r2", "medae", "mape", "explained_variance", "mse", "msle")
_CLUSTERING = ("davies_bouldin", "silhouette", "mean_squared_distance")
_PROJECTION = ("total_explained_variance_ratio", "reconstruction_error")
_ANOMALY = ("anomalies", "mean_score")
_SILHOUETTE_ROWS = 5_000
_BLOCK = 16_384
"""Rows taken at a time where a copy of the features is made."""


def measure(
    task: Task,
    raw: NDArray[Any],
    actual: NDArray[Any] | None = None,
    weight: NDArray[np.float64] | None = None,
    *,
    x: NDArray[np.float32] | None = None,
    threshold: float | None = None,
    parameters: Mapping[str, NDArray[Any]] | None = None,
) -> Metrics:
    """The figures of a task for what ``Predictor.predict`` gave.

    ``actual`` are class codes, or the values of a regression; ``x`` is the feature matrix (clusters and components only);
    ``threshold`` is the probability from which the second of two classes is predicted (otherwise the likelier one is), or the
    score above which a row is an anomaly (otherwise the model's own); ``parameters`` are ``Predictor.parameters()``, needed for
    components and anomalies.
    """
    if task is Task.CLASSIFICATION:
        return classification_metrics(np.asarray(actual), raw, weight, threshold)
    if task is Task.REGRESSION:
        return regression_metrics(np.asarray(actual), raw, weight)
    if task is Task.PROJECTION:
        return projection_metrics(x, parameters or {}, weight) if x is not None else {}
    if task is Task.ANOMALY:
        return anomaly_metrics(raw, parameters or {}, weight, threshold)
    if task in (Task.TRANSFORM, Task.GENERATION):
        return {}
    return clustering_metrics(raw, x)


def classification_metrics(
    actual: NDArray[np.int64], raw: NDArray[Any], weight: NDArray[np.float64] | None = None, threshold: float | None = None
) -> Metrics:
    """Of probabilities (n, classes).  Two classes: the second is the positive one.

    More: plain averages over the classes that occur among these rows, in truth or as a prediction (scikit-learn's ``macro``).
    """
    two = raw.shape[1] == 2
    names = (*_CLASSIFICATION, "brier") if two else _CLASSIFICATION
    if not len(actual):
        return dict.fromkeys(names)
    chosen = raw.argmax(1) if threshold is None or not two else (raw[:, 1] >= threshold).astype(np.int64)
    p = np.asarray(raw, np.float64)
    p = p / p.sum(1, keepdims=True)
    rankings = cache(lambda: _rankings(actual, p, weight))
    pick: dict[str, Callable[[], Any]] = {
        "roc_auc": lambda: _mean([ranking.roc_auc() for ranking in rankings()]),
        "log_loss": lambda: formulae.log_loss(actual, p, weight),
        **_label_figures(actual, chosen, weight, two=two),
        "pr_auc": lambda: _mean([ranking.average_precision() for ranking in rankings()]),
        "brier": lambda: formulae.brier(actual, p[:, 1], weight),
    }
    return {name: _figure(pick[name]) for name in names}


def label_metrics(actual: NDArray[np.int64], chosen: NDArray[np.int64], *, two: bool) -> Metrics:
    """Of labels alone, as codes (n,): what needs no probabilities.  ``two``: 0 and 1 are all there is, 1 is positive."""
    if not len(actual):
        return dict.fromkeys(_LABELS)
    pick = _label_figures(actual, chosen, None, two=two)
    return {name: _figure(pick[name]) for name in _LABELS}


def _label_figures(
    actual: NDArray[np.int64], chosen: NDArray[np.int64], weight: NDArray[np.float64] | None, *, two: bool
) -> dict[str, Callable[[], Any]]:
    confusion = Confusion.of(actual, chosen, weight, two=two)
    return {name: getattr(confusion, name) for name in _LABELS}


def regression_metrics(actual: NDArray[np.float64], raw: NDArray[Any], weight: NDArray[np.float64] | None = None) -> Metrics:
    """Of values (n,).  ``mape`` is a fraction, over the rows whose true value is not 0; with values of -1 or less no ``msle``."""
    predicted = np.asarray(raw, np.float64)
    if not len(actual) or not np.isfinite(actual).all() or not np.isfinite(predicted).all():
        return dict.fromkeys(_REGRESSION)
    errors = actual - predicted
    pick: dict[str, Callable[[], Any]] = {
        "rmse": lambda: math.sqrt(formulae.average(errors**2, weight)),
        "mae": lambda: formulae.average(np.abs(errors), weight),
        "r2": lambda: formulae.r2(actual, predicted, weight),
        "medae": lambda: formulae.median(np.abs(errors), weight),
        "mape": lambda: formulae.mape(actual, predicted, weight),
        "explained_variance": lambda: formulae.explained_variance(actual, predicted, weight),
        "mse": lambda: formulae.average(errors**2, weight),
        "msle": lambda: formulae.msle(actual, predicted, weight),
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


def projection_metrics(
    x: NDArray[np.float32], parameters: Mapping[str, NDArray[Any]], weight: NDArray[np.float64] | None = None
) -> Metrics:
    """Of the rows (n, k) themselves and the components: what is lost by putting the components in their place.

    ``reconstruction_error`` is the mean squared difference, over rows and features, between a row and what its components give
    back; ``total_explained_variance_ratio`` is 1 - that error / the same between a row and the mean in training.
    """
    if not len(x):
        return dict.fromkeys(_PROJECTION)
    components, mean = parameters["components"], parameters["mean"]
    total, lost = np.empty(len(x)), np.empty(len(x))
    for start in range(0, len(x), _BLOCK):
        apart = x[start : start + _BLOCK] - mean
        total[start : start + _BLOCK] = (apart**2).mean(1)
        lost[start : start + _BLOCK] = ((apart - apart @ components.T @ components) ** 2).mean(1)
    pick: dict[str, Callable[[], Any]] = {
        "total_explained_variance_ratio": lambda: 1 - np.average(lost, weights=weight) / np.average(total, weights=weight),
        "reconstruction_error": lambda: np.average(lost, weights=weight),
    }
    return {name: _figure(pick[name]) for name in _PROJECTION}


def anomaly_metrics(
    raw: NDArray[Any],
    parameters: Mapping[str, NDArray[Any]],
    weight: NDArray[np.float64] | None = None,
    threshold: float | None = None,
) -> Metrics:
    """Of anomaly scores (n,): the share of the rows above the threshold, the model's own if none is given; the mean score."""
    if not len(raw):
        return dict.fromkeys(_ANOMALY)
    limit = float(parameters["threshold"][0]) if threshold is None else threshold
    pick: dict[str, Callable[[], Any]] = {
        "anomalies": lambda: np.average(raw > limit, weights=weight),
        "mean_score": lambda: np.average(raw, weights=weight),
    }
    return {name: _figure(pick[name]) for name in _ANOMALY}


def _rankings(actual: NDArray[np.int64], p: NDArray[np.float64], weight: NDArray[np.float64] | None) -> list[Ranking]:
    """Two classes: of the second; more: of each class that occurs, against the rest.  None where all rows are of one class."""
    codes = [1] if p.shape[1] == 2 else np.unique(actual).tolist()
    return [Ranking.of(actual == c, p[:, c], weight) for c in codes if 0 < (actual == c).sum() < len(actual)]


def _mean(figures: list[float]) -> float:
    return float(np.mean(figures)) if figures else math.nan


def _figure(compute: Callable[[], Any]) -> float | None:
    """A figure, or None where it is not defined for these rows."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = float(compute())
    except (ValueError, ZeroDivisionError):  # the latter: weights that sum to 0
        return None
    return value if math.isfinite(value) else None
