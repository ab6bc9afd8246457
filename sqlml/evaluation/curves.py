"""What a threshold does to a model of classes: counts, curves and calibration, each of one class against the rest.

Formulae are scikit-learn's: ``roc_curve``, ``precision_recall_curve``, ``confusion_matrix``, ``calibration_curve``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_POINTS = 100
"""A curve without thresholds given has so many points at most."""


@dataclass(frozen=True)
class Counts:
    """What each threshold gives: sums of weights, or numbers of rows; each (thresholds,) float64."""

    threshold: NDArray[np.float64]
    true_positives: NDArray[np.float64]
    false_positives: NDArray[np.float64]
    true_negatives: NDArray[np.float64]
    false_negatives: NDArray[np.float64]

    @property
    def recall(self) -> NDArray[np.float64]:
        """NaN where no row is positive."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def precision(self) -> NDArray[np.float64]:
        """NaN where no row is predicted positive."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def false_positive_rate(self) -> NDArray[np.float64]:
        """NaN where no row is negative."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)


def count_at(
    score: NDArray[Any], positive: NDArray[np.bool_], thresholds: Sequence[float], weight: NDArray[np.float64] | None = None
) -> Counts:
    """Count the rows that each threshold tells rightly and wrongly: a score from the threshold on is predicted positive."""
    order = np.argsort(-score, kind="stable")
    ranked = -np.asarray(score, np.float64)[order]
    each = np.ones(len(score)) if weight is None else weight[order]
    right = np.concatenate([[0.0], np.cumsum(each * positive[order])])
    wrong = np.concatenate([[0.0], np.cumsum(each * ~positive[order])])
    at = np.asarray(thresholds, np.float64)
    chosen = np.searchsorted(ranked, -at, side="right")
    return Counts(at, right[chosen], wrong[chosen], wrong[-1] - wrong[chosen], right[-1] - right[chosen])


def default_thresholds(score: NDArray[Any], most: int = MOST_POINTS) -> NDArray[np.float64]:
    """Every different score, descending; of more than ``most`` those at evenly spaced ranks among them, ends included.

    BigQuery's are percentiles of the predictions, too.
    """
    different = np.unique(np.asarray(score, np.float64))
    if len(different) > most:
        different = different[np.linspace(0, len(different) - 1, most).round().astype(np.intp)]
    return different[::-1]


def choose(raw: NDArray[Any], threshold: float | None = None) -> NDArray[np.int64]:
    """Predicted codes of probabilities (n, classes): the likeliest class; of two the second, from the threshold on."""
    if threshold is None or raw.shape[1] != 2:
        return np.asarray(raw.argmax(1), np.int64)
    return (raw[:, 1] >= threshold).astype(np.int64)


def confusion(
    raw: NDArray[Any], actual: NDArray[Any], weight: NDArray[np.float64] | None = None, threshold: float | None = None
) -> NDArray[np.float64]:
    """(classes, classes): how many rows of each class, in truth, were predicted to be of each."""
    c = raw.shape[1]
    cells = np.bincount(actual * c + choose(raw, threshold), weight, minlength=c * c)
    return cells.reshape(c, c).astype(np.float64)


@dataclass(frozen=True)
class Bins:
    """Rows grouped by their score, groups without rows left out; each array (bins,)."""

    number: NDArray[np.int64]  # from 1
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    count: NDArray[np.int64]
    mean_predicted: NDArray[np.float64]
    fraction_positive: NDArray[np.float64]


def calibrate(
    score: NDArray[Any],
    positive: NDArray[np.bool_],
    bins: int = 10,
    strategy: str = "uniform",
    weight: NDArray[np.float64] | None = None,
) -> Bins:
    """How often a class is true where the model gives it some probability: scikit-learn's ``calibration_curve``, with weights.

    ``uniform``: ranges of equal width from 0 to 1; ``quantile``: of about equally many rows.
    """
    p = np.asarray(score, np.float64)
    steps = np.linspace(0.0, 1.0, bins + 1)
    edges = steps if strategy == "uniform" or not len(p) else np.percentile(p, steps * 100)
    group = np.searchsorted(edges[1:-1], p)
    each = np.ones(len(p)) if weight is None else weight
    total = np.bincount(group, each, minlength=bins)
    count = np.bincount(group, minlength=bins)
    mean = _share(np.bincount(group, each * p, minlength=bins), total)
    share = _share(np.bincount(group, each * positive, minlength=bins), total)
    full = np.flatnonzero(count)
    return Bins(full + 1, edges[full], edges[full + 1], count[full], mean[full], share[full])


def _share(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0))
