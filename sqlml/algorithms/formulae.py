"""The formulae of the figures of classes and of values, in NumPy: scikit-learn's, without what its import takes.

``weight`` (n,) or None throughout.  What is not defined comes out as NaN, or is infinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST = float(np.finfo(np.float64).eps)


def average(values: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """The weighted mean (n,); ``ZeroDivisionError`` where the weights sum to 0, NaN of no values."""
    return float(np.average(values, weights=weight)) if len(values) else float("nan")


@dataclass(frozen=True)
class Confusion:
    """How often each class was taken for each: ``counts`` (c, c), the truth by rows, of the classes that occur on either side.

    ``two``: the classes are 0 and 1, and 1 is the positive one; else figures are plain means over the classes.
    """

    counts: NDArray[np.float64]
    two: bool

    @classmethod
    def of(
        cls, actual: NDArray[np.int64], chosen: NDArray[np.int64], weight: NDArray[np.float64] | None, *, two: bool
    ) -> Confusion:
        """Of class codes (n,)."""
        size = 2 if two else int(max(actual.max(), chosen.max())) + 1
        cells = np.asarray(actual, np.int64) * size + chosen
        counts = np.bincount(cells, weight, size * size).reshape(size, size).astype(np.float64)
        if not two:
            occurs = np.bincount(actual, minlength=size) + np.bincount(chosen, minlength=size) > 0
            counts = counts[occurs][:, occurs]
        return cls(counts, two)

    @cached_property
    def _right(self) -> NDArray[np.float64]:
        return np.diagonal(self.counts)

    @cached_property
    def _true(self) -> NDArray[np.float64]:
        return np.asarray(self.counts.sum(1))

    @cached_property
    def _chosen(self) -> NDArray[np.float64]:
        return np.asarray(self.counts.sum(0))

    def accuracy(self) -> float:
        return float(self._right.sum() / self.counts.sum())

    def precision(self) -> float:
        return self._share(self._right, self._chosen)

    def recall(self) -> float:
        return self._share(self._right, self._true)

    def f1(self) -> float:
        return self._share(2 * self._right, self._true + self._chosen)

    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that rows are of."""
        some = self._true > 0
        return float((self._right[some] / self._true[some]).mean()) if some.any() else float("nan")

    def mcc(self) -> float:
        """Matthews' correlation coefficient, of any number of classes (Gorodkin, 2004); 0 where a side has one class only."""
        total = self.counts.sum()
        spread = (total**2 - self._chosen @ self._chosen) * (total**2 - self._true @ self._true)
        if spread == 0:
            return 0.0
        return float((self._right.sum() * total - self._true @ self._chosen) / np.sqrt(spread))

    def _share(self, part: NDArray[np.float64], whole: NDArray[np.float64]) -> float:
        """Of the positive class, or the mean; 0 of nothing is 0."""
        shares = np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
        return float(shares[1] if self.two else shares.mean())


@dataclass(frozen=True)
class Ranking:
    """Rows by falling score: the weight of positive and of negative ones from each distinct score on (m,)."""

    positive: NDArray[np.float64]
    negative: NDArray[np.float64]

    @classmethod
    def of(cls, positive: NDArray[np.bool_], score: NDArray[np.float64], weight: NDArray[np.float64] | None) -> Ranking:
        """``ValueError`` for a score that is not a number."""
        if np.isnan(score).any():
            raise ValueError("a score is not a number")
        order = np.argsort(-score, kind="stable")
        score, positive = score[order], positive[order]
        ends = np.flatnonzero(np.append(np.diff(score) != 0, True))
        if weight is None:
            hits = np.cumsum(positive)[ends].astype(np.float64)
            return cls(hits, 1.0 + ends - hits)
        weight = weight[order]
        return cls(np.cumsum(weight * positive)[ends], np.cumsum(weight * ~positive)[ends])

    def roc_auc(self) -> float:
        """The area under the curve of true by false positives, ties by the trapezoidal rule."""
        hits, misses = (np.concatenate([[0.0], part]) for part in (self.positive, self.negative))
        return float(np.sum(np.diff(misses) * (hits[1:] + hits[:-1])) / (2 * hits[-1] * misses[-1]))

    def average_precision(self) -> float:
        """The mean of the precisions at each score, weighted by what it adds to the recall."""
        taken = self.positive + self.negative
        precision = np.divide(self.positive, taken, out=np.zeros(len(taken)), where=taken > 0)
        return float(np.sum(np.diff(self.positive, prepend=0.0) * precision) / self.positive[-1])


def log_loss(actual: NDArray[np.int64], p: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """Of probabilities (n, classes), kept a little away from 0 and 1."""
    told = np.clip(p[np.arange(len(p)), actual], _LEAST, 1 - _LEAST)
    return average(-np.log(told), weight)


def brier(actual: NDArray[np.int64], p: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """The mean squared difference of the probability (n,) of class 1."""
    return average((actual - p) ** 2, weight)


def r2(actual: NDArray[np.float64], predicted: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """1 - squared errors / squares around the mean; not defined of one row."""
    if len(actual) < 2:
        return float("nan")
    return _left_over((actual - predicted) ** 2, (actual - average(actual, weight)) ** 2, weight)


def explained_variance(actual: NDArray[np.float64], predicted: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """1 - variance of the errors / variance of the values."""
    errors = actual - predicted
    return _left_over((errors - average(errors, weight)) ** 2, (actual - average(actual, weight)) ** 2, weight)


def _left_over(lost: NDArray[np.float64], total: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(1 - np.divide(average(lost, weight), average(total, weight)))


def median(values: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """The weighted median (n,): where the weights fall apart into equal halves, the middle between them."""
    if weight is None:
        return float(np.median(values))
    order = np.argsort(values, kind="stable")
    order = order[weight[order] > 0]
    if not len(order):
        return float("nan")
    reached = np.cumsum(weight[order])
    low = int(np.searchsorted(reached, reached[-1] / 2))
    high = min(int(np.searchsorted(reached, reached[-1] / 2, side="right")), len(order) - 1)
    return float((values[order[low]] + values[order[high]]) / 2)


def mape(actual: NDArray[np.float64], predicted: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """The mean error as a fraction of the value, of the rows whose value is not 0."""
    some = actual != 0
    share = np.abs(actual[some] - predicted[some]) / np.maximum(np.abs(actual[some]), _LEAST)
    return average(share, None if weight is None else weight[some])


def msle(actual: NDArray[np.float64], predicted: NDArray[np.float64], weight: NDArray[np.float64] | None) -> float:
    """The mean squared difference of log(1 + value); ``ValueError`` where one is -1 or less."""
    if min(actual.min(), predicted.min()) <= -1:
        raise ValueError("log(1 + value) is not defined for -1 and less")
    return average((np.log1p(actual) - np.log1p(predicted)) ** 2, weight)
