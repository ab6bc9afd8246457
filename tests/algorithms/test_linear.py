"""Linear models: regularised ones, going on, classes without rows."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sqlml.algorithms.options import check_options
from sqlml.contracts import FitSpec
from sqlml.errors import TrainingDataError
from sqlml.registry import get_algorithm
from tests.algorithms.fitting import classes_of, fit, numbers, table
from tests.jobs import Recorder


@pytest.mark.parametrize("l1_ratio", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("more", [{}, {"fit_intercept": False}, {"positive": True}])
@pytest.mark.parametrize("weighted", [False, True])
def test_elastic_net_is_scikit_learns(l1_ratio: float, more: dict[str, Any], weighted: bool) -> None:
    """ElasticNet's objective, also where another solver is used: ridge."""
    from sklearn.linear_model import ElasticNet

    x = numbers()
    y = x @ np.array([3.0, -2, 0, 1, 0.01]) + np.random.default_rng(0).normal(size=len(x))
    weight = np.random.default_rng(1).random(len(x)) * 3 if weighted else None
    ours = fit("linear_regression", table(x, y, weight=weight), alpha=0.7, l1_ratio=l1_ratio, tol=1e-12, max_iter=100_000, **more)
    theirs = ElasticNet(alpha=0.7, l1_ratio=l1_ratio, tol=1e-12, max_iter=100_000, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather be asked for ridge by another name
        theirs.fit(x.astype(np.float64), y, sample_weight=weight)
    # with positive = true ridge is solved by L-BFGS, which stops a little earlier
    exact = 1e-6 if more.get("positive") and not l1_ratio else 1e-9
    assert np.abs(ours.predict(x) - theirs.predict(x.astype(np.float64))).max() < exact


def test_lasso_equals_scikit_learn_at_its_defaults() -> None:
    from sklearn.linear_model import ElasticNet, Lasso

    x = numbers()
    y = x @ np.array([3.0, -2, 0, 1, 0.01]) + np.random.default_rng(0).normal(size=len(x))
    lasso = fit("linear_regression", table(x, y), alpha=0.5, l1_ratio=1)
    assert np.abs(lasso.predict(x) - Lasso(0.5).fit(x.astype(np.float64), y).predict(x.astype(np.float64))).max() < 1e-9
    assert (lasso.parameters()["coef"] == 0).any()
    net = fit("linear_regression", table(x, y), alpha=0.5)
    assert np.abs(net.predict(x) - ElasticNet(0.5).fit(x.astype(np.float64), y).predict(x.astype(np.float64))).max() < 1e-9


def test_not_converged_is_a_notice() -> None:
    algorithm = get_algorithm("linear_regression")
    report = Recorder()
    x = numbers()
    options = check_options(algorithm, {"alpha": 0.001, "max_iter": 1, "tol": 1e-12})
    algorithm.fit(table(x, x.sum(1).astype(np.float64)), FitSpec(options, 0, 1), report)
    assert report.notices == ["not converged in 1 iteration: a larger max_iter may give a better model"]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "newton-cholesky"])
def test_logistic_goes_on(classes: int, solver: str) -> None:
    """From coefficients that are already right there is little to do."""
    x = numbers() / np.float32(5)
    data = table(x, classes_of(x, classes))
    first = fit("logistic_regression", data, max_iter=5000, tol=1e-6, solver=solver)
    algorithm = get_algorithm("logistic_regression")
    report = Recorder()
    options = check_options(algorithm, {"max_iter": 20, "tol": 1e-3, "solver": solver})
    more = algorithm.fit(data, FitSpec(options, 0, 2, first), report)
    assert report.notices == []
    assert np.abs(more.predict(x) - first.predict(x)).max() < 1e-3
    assert more.parameters()["coef"].shape == (1 if classes == 2 else classes, 5)


def test_a_class_without_rows() -> None:
    from sklearn.linear_model import LogisticRegression

    x = numbers()
    y = classes_of(x, 2)
    for present in ([0, 1], [0, 2], [1, 3]):
        data = replace(table(x, np.array(present)[y]), n_classes=4)
        p = fit("logistic_regression", data, max_iter=1000).predict(x)
        expected = LogisticRegression(max_iter=1000).fit(x.astype(np.float64), y).predict_proba(x.astype(np.float64))
        assert p.shape == (300, 4)
        assert np.abs(p[:, present] - expected).max() < 1e-9
        assert np.allclose(p.sum(1), 1)
    one = replace(table(x, np.zeros(300, int)), n_classes=2)
    with pytest.raises(TrainingDataError, match="at least 2 classes"):
        fit("logistic_regression", one)


@pytest.mark.parametrize("present", [[0, 1, 3], [0, 2]])
def test_logistic_goes_on_without_a_class(present: list[int]) -> None:
    """A class of the earlier model that has no rows any more keeps its place, with no probability."""
    x = numbers() / np.float32(5)
    first = fit("logistic_regression", table(x, classes_of(x, 4)), max_iter=1000)
    fewer = np.array(present)[classes_of(x, len(present))]
    more = fit("logistic_regression", replace(table(x, fewer), n_classes=4), first, max_iter=1000, tol=1e-8)
    fresh = fit("logistic_regression", replace(table(x, fewer), n_classes=4), max_iter=1000, tol=1e-8)
    assert np.abs(more.predict(x) - fresh.predict(x)).max() < 1e-5
    assert more.predict(x).shape == (300, 4)


def test_kmeans_goes_on_from_its_centres() -> None:
    from sklearn.cluster import KMeans

    x = numbers()
    first = fit("kmeans", table(x), n_clusters=4, max_iter=1)
    more = fit("kmeans", table(x), first, n_clusters=4)
    theirs = KMeans(4, init=first.parameters()["centers"], n_init=1, random_state=0).fit(x)
    assert np.allclose(np.sort(more.predict(x), 1), np.sort(theirs.transform(x), 1), atol=1e-4)
    with pytest.raises(TrainingDataError) as caught:
        fit("kmeans", table(x), first)
    assert caught.value.message == "the model to go on from has 4 clusters, not n_clusters = 8"
    assert caught.value.hint == "WITH (n_clusters = 4)"
