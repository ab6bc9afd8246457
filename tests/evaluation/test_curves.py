"""The computations behind the curves, against scikit-learn's own, on arrays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as m
from sklearn.calibration import calibration_curve

from sqlml.evaluation.curves import calibrate, choose, confusion, count_at, default_thresholds

RNG = np.random.default_rng(7)
N = 2_000
SCORE = RNG.beta(2, 3, N)
POSITIVE = RNG.random(N) < SCORE
WEIGHT = RNG.random(N) * 3
COARSE = np.round(SCORE, 1)  # many rows of the same score
WEIGHTS = pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
SCORES = pytest.mark.parametrize("score", [SCORE, COARSE], ids=["fine", "coarse"])


@WEIGHTS
@SCORES
def test_counts_are_those_of_scikit_learn_at_every_threshold(
    score: NDArray[np.float64], weight: NDArray[np.float64] | None
) -> None:
    fpr, tpr, thresholds = m.roc_curve(POSITIVE, score, sample_weight=weight, drop_intermediate=False)
    found = count_at(score, POSITIVE, thresholds, weight)
    np.testing.assert_allclose(found.false_positive_rate, fpr, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.recall, tpr, rtol=0, atol=1e-12)
    precision, recall, thresholds = m.precision_recall_curve(POSITIVE, score, sample_weight=weight)
    found = count_at(score, POSITIVE, thresholds, weight)
    np.testing.assert_allclose(found.precision, precision[:-1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.recall, recall[:-1], rtol=0, atol=1e-12)


@WEIGHTS
def test_the_four_counts_sum_to_all_rows(weight: NDArray[np.float64] | None) -> None:
    found = count_at(SCORE, POSITIVE, [-1.0, 0.0, 0.3, 1.0, 2.0], weight)
    total = found.true_positives + found.false_positives + found.true_negatives + found.false_negatives
    np.testing.assert_allclose(total, N if weight is None else weight.sum())
    assert found.true_negatives[0] == 0
    assert found.true_positives[-1] == 0


def test_nothing_is_defined_without_rows_of_a_kind() -> None:
    found = count_at(np.array([0.2, 0.8]), np.array([True, True]), [0.5, 0.9])
    assert np.isnan(found.false_positive_rate).all()
    assert found.recall.tolist() == [0.5, 0.0]
    assert np.isnan(found.precision[1])
    none = count_at(np.zeros(0), np.zeros(0, bool), [0.5])
    assert np.isnan([none.recall[0], none.precision[0], none.false_positive_rate[0]]).all()
    assert none.true_negatives.tolist() == [0]


def test_default_thresholds_are_scores_a_hundred_at_most_and_descend() -> None:
    assert default_thresholds(np.array([0.2, 0.2, 0.9, 0.5])).tolist() == [0.9, 0.5, 0.2]
    many = default_thresholds(SCORE)
    assert len(many) == 100
    assert (np.diff(many) < 0).all()
    assert (many[0], many[-1]) == (SCORE.max(), SCORE.min())
    assert np.isin(many, SCORE).all()
    assert default_thresholds(np.zeros(0)).tolist() == []


@WEIGHTS
@pytest.mark.parametrize("threshold", [None, 0.0, 0.3, 1.0])
def test_confusion_of_two_classes(weight: NDArray[np.float64] | None, threshold: float | None) -> None:
    raw = np.column_stack([1 - SCORE, SCORE])
    want = m.confusion_matrix(POSITIVE, choose(raw, threshold), labels=[0, 1], sample_weight=weight)
    np.testing.assert_allclose(confusion(raw, POSITIVE.astype(np.int64), weight, threshold), want, atol=1e-9)


def test_confusion_of_four_classes_takes_the_likeliest() -> None:
    raw = RNG.dirichlet(np.ones(4), 500)
    actual = RNG.integers(0, 3, 500)  # the last class never occurs
    want = m.confusion_matrix(actual, raw.argmax(1), labels=range(4))
    assert confusion(raw, actual, None, 0.9).tolist() == want.tolist()


@SCORES
@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
@pytest.mark.parametrize("bins", [1, 3, 10, 50])
def test_calibration_is_scikit_learns(score: NDArray[np.float64], strategy: str, bins: int) -> None:
    fraction, mean = calibration_curve(POSITIVE, score, n_bins=bins, strategy=strategy)
    found = calibrate(score, POSITIVE, bins, strategy)
    np.testing.assert_allclose(found.fraction_positive, fraction, atol=1e-12)
    np.testing.assert_allclose(found.mean_predicted, mean, atol=1e-12)
    assert found.count.sum() == N
    assert (found.lower <= found.upper).all()


def test_weighted_calibration_is_that_of_repeated_rows() -> None:
    times = RNG.integers(1, 4, N)
    weighted = calibrate(SCORE, POSITIVE, weight=times.astype(np.float64))
    repeated = calibrate(np.repeat(SCORE, times), np.repeat(POSITIVE, times))
    np.testing.assert_allclose(weighted.mean_predicted, repeated.mean_predicted)
    np.testing.assert_allclose(weighted.fraction_positive, repeated.fraction_positive)
