"""Nearest neighbours: scikit-learn's answers, and one answer for a row, whatever rows are asked for with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sqlml.errors import TrainingDataError
from tests.algorithms.fitting import classes_of, fit, numbers, table


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize(
    ("metric", "p"), [("minkowski", 2), ("minkowski", 3), ("euclidean", 2), ("manhattan", 2), ("chebyshev", 2), ("cosine", 2)]
)
@pytest.mark.parametrize("k", [4, 20])
def test_equals_scikit_learn(weights: str, metric: str, p: float, k: int) -> None:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    x, new = numbers(400, k), numbers(200, k, seed=9)
    y = classes_of(x, 3)
    value = x.sum(1).astype(np.float64)
    options: dict[str, Any] = {"n_neighbors": 7, "weights": weights, "metric": metric, "p": p}
    ours = fit("nearest_neighbors_classifier", table(x, y), **options)
    theirs = KNeighborsClassifier(**options).fit(x.astype(np.float64), y)
    assert np.abs(ours.predict(new) - theirs.predict_proba(new.astype(np.float64))).max() < 1e-9
    regressor = fit("nearest_neighbors_regressor", table(x, value), **options)
    expected = KNeighborsRegressor(**options).fit(x.astype(np.float64), value).predict(new.astype(np.float64))
    assert np.abs(regressor.predict(new) - expected).max() < 1e-9


@pytest.mark.parametrize("k", [2, 20])
@pytest.mark.parametrize("metric", ["minkowski", "manhattan", "cosine"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_equally_near_rows_count_in_their_order(metric: str, k: int, weights: str) -> None:
    """Few different rows, many copies: the earlier ones vote, for a row alone as among others."""
    generator = np.random.default_rng(0)
    x = (
        generator.integers(0, 2, (500, k)).astype(np.float32)
        if k == 2
        else np.eye(k, dtype=np.float32)[generator.integers(0, k, 500)]
    )
    value = generator.normal(size=500)
    ours = fit("nearest_neighbors_regressor", table(x, value), n_neighbors=3, metric=metric, weights=weights)
    for row in x[:20]:
        same = np.flatnonzero((x == row).all(1))
        if row.any():
            assert ours.predict(row[None])[0] == pytest.approx(value[same[:3]].mean(), abs=1e-12)
    whole = ours.predict(x)
    assert np.allclose(np.concatenate([ours.predict(x[i : i + 1]) for i in range(100)]), whole[:100], atol=1e-12)
    assert np.allclose(np.concatenate([ours.predict(part) for part in np.array_split(x, 7)]), whole, atol=1e-12)


def test_weights_multiply_votes() -> None:
    x = np.array([[0], [1], [2], [9]])
    y = np.array([0, 1, 1, 0])
    row = np.array([[0.9]], np.float32)
    plain = fit("nearest_neighbors_classifier", table(x, y), n_neighbors=3)
    assert np.allclose(plain.predict(row), [[1 / 3, 2 / 3]])
    weighted = fit("nearest_neighbors_classifier", table(x, y, weight=[6, 1, 2, 1]), n_neighbors=3)
    assert np.allclose(weighted.predict(row), [[6 / 9, 3 / 9]])
    without = fit("nearest_neighbors_classifier", table(x, y, weight=[1, 0, 1, 1]), n_neighbors=3)
    assert np.allclose(without.predict(row), [[2 / 3, 1 / 3]])


def test_more_neighbours_than_rows() -> None:
    with pytest.raises(TrainingDataError) as caught:
        fit("nearest_neighbors_classifier", table(numbers(4), [0, 1, 0, 1]))
    assert caught.value.message == "n_neighbors = 5 is more than the training rows that there are (4)"
    assert caught.value.hint == "WITH (n_neighbors = 4) or fewer"
    everyone = fit("nearest_neighbors_classifier", table(numbers(4), [0, 1, 0, 1]), n_neighbors=4)
    assert (everyone.predict(numbers(9, seed=1)) == 0.5).all()
