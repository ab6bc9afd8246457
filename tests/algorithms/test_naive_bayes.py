"""Naive Bayes: scikit-learn's four, mixed columns, missing values, weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sqlml.errors import TrainingDataError
from tests.algorithms.fitting import classes_of, fit, numbers, table


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_gaussian_equals_scikit_learn(classes: int, weighted: bool) -> None:
    from sklearn.naive_bayes import GaussianNB

    x = numbers()
    y = classes_of(x, classes)
    weight = np.random.default_rng(0).integers(0, 4, len(x)).astype(float) if weighted else None
    ours = fit("naive_bayes", table(x, y, weight=weight), var_smoothing=1e-3)
    theirs = GaussianNB(var_smoothing=1e-3).fit(x.astype(np.float64), y, sample_weight=weight)
    assert np.abs(ours.predict(x) - theirs.predict_proba(x.astype(np.float64))).max() < 1e-9
    assert np.allclose(ours.parameters()["theta"], theirs.theta_, rtol=1e-9)
    assert np.allclose(ours.parameters()["var"], theirs.var_, rtol=1e-9)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_categories_equal_scikit_learn(classes: int, weighted: bool) -> None:
    from sklearn.naive_bayes import CategoricalNB

    x = np.random.default_rng(1).integers(0, 6, (300, 3)).astype(np.float32)
    y = classes_of(x, classes)
    weight = np.random.default_rng(0).random(len(x)) if weighted else None
    ours = fit("naive_bayes", table(x, y, (0, 1, 2), weight), alpha=0.5, fit_prior=False)
    theirs = CategoricalNB(alpha=0.5, fit_prior=False).fit(x.astype(int), y, sample_weight=weight)
    assert np.abs(ours.predict(x) - theirs.predict_proba(x.astype(int))).max() < 1e-9


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("distribution", ["multinomial", "bernoulli"])
def test_counts_equal_scikit_learn(distribution: str, classes: int, weighted: bool) -> None:
    from sklearn.naive_bayes import BernoulliNB, MultinomialNB

    x = np.random.default_rng(1).poisson(1.5, (300, 8)).astype(np.float32)
    y = classes_of(x, classes)
    weight = np.random.default_rng(0).random(len(x)) if weighted else None
    theirs: Any = MultinomialNB(alpha=0.3) if distribution == "multinomial" else BernoulliNB(alpha=0.3, binarize=1.0)
    theirs.fit(x.astype(np.float64), y, sample_weight=weight)
    ours = fit("naive_bayes", table(x, y, weight=weight), distribution=distribution, alpha=0.3, binarize=1.0)
    assert np.abs(ours.predict(x) - theirs.predict_proba(x.astype(np.float64))).max() < 1e-9


def test_numbers_and_categories_multiply() -> None:
    """The joint probability of two kinds of features is the product of both, the prior counted once."""
    from sklearn.naive_bayes import CategoricalNB, GaussianNB

    x = numbers()
    y = classes_of(x, 3)
    x[:, 2] = np.random.default_rng(1).integers(0, 4, len(x))
    ours = fit("naive_bayes", table(x, y, (2,)))
    rest = np.delete(x, 2, 1).astype(np.float64)
    gaussian, categorical = GaussianNB().fit(rest, y), CategoricalNB().fit(x[:, [2]].astype(int), y)
    joint = gaussian.predict_joint_log_proba(rest) + categorical.predict_joint_log_proba(x[:, [2]].astype(int))
    joint -= np.log(gaussian.class_prior_)
    p = np.exp(joint - joint.max(1, keepdims=True))
    assert np.abs(ours.predict(x) - p / p.sum(1, keepdims=True)).max() < 1e-9


def test_missing_leaves_the_feature_out() -> None:
    from sklearn.naive_bayes import GaussianNB

    x = numbers()
    y = classes_of(x, 2)
    without = fit("naive_bayes", table(x[:, :4], y))
    x[:, 4] = np.nan
    assert np.array_equal(fit("naive_bayes", table(x, y)).predict(x), without.predict(x[:, :4]))
    gaps = numbers()
    gaps[::3, 0] = np.nan
    ours = fit("naive_bayes", table(gaps, y))
    there = ~np.isnan(gaps[:, 0])
    alone = GaussianNB().fit(gaps[there][:, [0]].astype(np.float64), y[there])
    assert np.allclose(ours.parameters()["theta"][:, 0], alone.theta_[:, 0], rtol=1e-12)
    nothing = ours.predict(np.full((1, 5), np.nan, np.float32))
    assert np.allclose(nothing, np.bincount(y) / len(y))
    assert not ours.contributions(np.full((1, 5), np.nan, np.float32))[:, :, :-1].any()


@pytest.mark.parametrize("code", [9, 6, -1, np.nan])
def test_a_category_that_was_not_seen_says_nothing(code: float) -> None:
    x = np.random.default_rng(1).integers(0, 6, (300, 2)).astype(np.float32)
    y = classes_of(x, 2)
    ours = fit("naive_bayes", table(x, y, (0, 1)))
    row = np.array([[code, 2]], np.float32)
    assert ours.contributions(row)[0, 0, 0] == 0
    assert np.isfinite(ours.predict(row)).all()


def test_a_class_or_a_feature_without_rows() -> None:
    x = numbers()
    y = classes_of(x, 2)
    data = table(x, y)
    ours = fit("naive_bayes", type(data)(data.features, y, n_classes=3))
    p = ours.predict(x)
    assert np.isfinite(p).all()
    assert (p[:, 2] < 1e-100).all()
    x[y == 1, 0] = np.nan  # one class never has the feature
    assert np.isfinite(fit("naive_bayes", table(x, y)).predict(x)).all()
    constant = np.ones((50, 2), np.float32)
    assert np.isfinite(fit("naive_bayes", table(constant, classes_of(numbers(50), 2))).predict(constant)).all()


def test_weights_are_repetitions() -> None:
    x = numbers()
    y = classes_of(x, 2)
    x[:, 3] = np.random.default_rng(1).integers(0, 4, len(x))
    x[5:20, 0] = np.nan
    times = np.random.default_rng(2).integers(1, 4, len(x))
    one = fit("naive_bayes", table(x, y, (3,), times), distribution="bernoulli")
    two = fit("naive_bayes", table(np.repeat(x, times, 0), np.repeat(y, times), (3,)), distribution="bernoulli")
    assert np.allclose(one.predict(x), two.predict(x), atol=1e-12)


@pytest.mark.parametrize("distribution", ["gaussian", "multinomial", "bernoulli"])
def test_contributions_sum_exactly(distribution: str) -> None:
    x = np.abs(numbers())
    x[:, 1] = np.random.default_rng(1).integers(0, 4, len(x))
    x[::7, 2] = np.nan
    ours = fit("naive_bayes", table(x, classes_of(np.nan_to_num(x), 2), (1,)), distribution=distribution)
    p = ours.predict(x)
    middle = (p[:, 1] > 1e-6) & (p[:, 1] < 1 - 1e-6)
    odds = np.log(p[middle, 1] / p[middle, 0])
    assert np.allclose(ours.contributions(x)[middle].sum(-1)[:, 0], odds, atol=1e-8)


def test_counts_below_zero_are_refused() -> None:
    x = numbers()
    with pytest.raises(TrainingDataError) as caught:
        fit("naive_bayes", table(x, classes_of(x, 2)), distribution="multinomial")
    assert caught.value.message.startswith("f0 is below 0 in ")
    assert caught.value.hint == "use 'gaussian' or 'bernoulli'"
