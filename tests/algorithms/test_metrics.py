"""Metrics: known values, weights, and None where a figure is not defined."""

from __future__ import annotations

import numpy as np
import pytest

from sqlml.algorithms.metrics import HEADLINES, classification_metrics, measure, regression_metrics
from sqlml.types import Task


def test_two_classes() -> None:
    actual = np.array([0, 0, 1, 1])
    p = np.array([0.1, 0.4, 0.35, 0.8])
    figures = classification_metrics(actual, np.column_stack([1 - p, p]))
    assert figures["roc_auc"] == pytest.approx(0.75)
    assert figures["accuracy"] == 0.75
    assert figures["precision"] == 1
    assert figures["recall"] == 0.5
    assert figures["f1"] == pytest.approx(2 / 3)
    assert figures["brier"] == pytest.approx(np.mean((p - actual) ** 2))
    assert next(iter(figures)) == "roc_auc"


def test_threshold() -> None:
    p = np.array([0.1, 0.4, 0.35, 0.8])
    raw = np.column_stack([1 - p, p])
    assert classification_metrics(np.array([0, 0, 1, 1]), raw, threshold=0.3)["recall"] == 1


def test_one_class_only_and_no_rows() -> None:
    raw = np.array([[0.9, 0.1], [0.8, 0.2]])
    figures = classification_metrics(np.array([0, 0]), raw)
    assert figures["roc_auc"] is None
    assert figures["pr_auc"] is None
    assert figures["accuracy"] == 1
    assert set(classification_metrics(np.array([], int), raw[:0]).values()) == {None}
    assert set(regression_metrics(np.array([]), np.array([])).values()) == {None}


def test_many_classes_of_which_one_is_absent() -> None:
    raw = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    figures = classification_metrics(np.array([0, 1, 0]), raw)
    assert figures["roc_auc"] == 1
    assert figures["accuracy"] == 1
    assert "brier" not in figures


def test_classes_that_do_not_occur_do_not_count() -> None:
    """Rows of two of three classes, all predicted rightly: as scikit-learn has it by default."""
    from sklearn.metrics import f1_score

    raw = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    figures = classification_metrics(np.array([0, 1, 0]), raw)
    assert [figures[name] for name in ("precision", "recall", "f1")] == [1, 1, 1]
    actual = np.array([0, 1, 1])
    assert classification_metrics(actual, raw)["f1"] == f1_score(actual, raw.argmax(1), average="macro")
    predicted_only = classification_metrics(np.array([0, 0, 0]), raw)
    assert predicted_only["recall"] == pytest.approx(1 / 3)


def test_regression() -> None:
    figures = regression_metrics(np.array([0.0, 2.0, 4.0]), np.array([0.0, 2.0, 5.0]))
    assert figures["rmse"] == pytest.approx(np.sqrt(1 / 3))
    assert figures["mae"] == pytest.approx(1 / 3)
    assert figures["r2"] == pytest.approx(1 - 1 / 8)
    assert figures["mape"] == pytest.approx(0.125)
    assert regression_metrics(np.array([1.0]), np.array([2.0]))["r2"] is None
    assert regression_metrics(np.array([0.0, 0.0]), np.array([2.0, 1.0]))["mape"] is None


def test_weights_count() -> None:
    actual, raw = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]])
    assert classification_metrics(actual, raw, np.array([1.0, 0.0, 1.0]))["accuracy"] == 1


def test_clusters() -> None:
    x = np.array([[0, 0], [0, 1], [9, 9], [9, 8]], np.float32)
    raw = np.column_stack([np.hypot(*x.T), np.hypot(*(x - 9).T)])
    figures = measure(Task.CLUSTERING, raw, x=x)
    assert figures["mean_squared_distance"] == 0.5
    assert figures["silhouette"] is not None
    assert figures["silhouette"] > 0.8
    assert list(measure(Task.CLUSTERING, raw)) == ["mean_squared_distance"]


def test_figures_of_two_sided_errors() -> None:
    from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef

    generator = np.random.default_rng(0)
    actual, weight = generator.integers(0, 3, 200), generator.random(200)
    raw = generator.dirichlet(np.ones(3), 200) + 0.3 * np.eye(3)[actual]
    figures = classification_metrics(actual, raw, weight)
    chosen = raw.argmax(1)
    assert figures["mcc"] == pytest.approx(matthews_corrcoef(actual, chosen, sample_weight=weight))
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(actual, chosen, sample_weight=weight))


def test_squared_errors() -> None:
    figures = regression_metrics(np.array([0.0, 3.0]), np.array([1.0, 3.0]))
    assert figures["mse"] == 0.5
    assert figures["msle"] == pytest.approx(np.log(2) ** 2 / 2)
    assert regression_metrics(np.array([0.0, 3.0]), np.array([-1.0, 3.0]))["msle"] is None
    assert regression_metrics(np.array([-2.0, 3.0]), np.array([1.0, 3.0]))["msle"] is None


def test_a_transform_has_no_figures() -> None:
    assert measure(Task.TRANSFORM, np.empty((3, 0))) == {}
    assert HEADLINES.keys() == set(Task)


def test_headlines_are_metrics() -> None:
    assert set(HEADLINES[Task.REGRESSION]) <= set(regression_metrics(np.array([]), np.array([])))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_figures_of_classes_are_those_of_scikit_learn(classes: int, weighted: bool) -> None:
    """Ties among the scores, probabilities of 0 and 1, weights of 0."""
    from sklearn import metrics as m

    generator = np.random.default_rng(classes)
    actual = generator.integers(0, classes, 500)
    raw = np.round(generator.dirichlet(np.ones(classes), 500) + 0.5 * np.eye(classes)[actual], 1)
    raw[:3] = np.eye(classes)[0]
    raw /= raw.sum(1, keepdims=True)
    p = raw / raw.sum(1, keepdims=True)
    weight = np.where(generator.random(500) < 0.1, 0.0, generator.random(500)) if weighted else None
    chosen, one = raw.argmax(1), {"sample_weight": weight}
    many = one | {"average": "binary" if classes == 2 else "macro", "zero_division": 0.0}
    codes = [1] if classes == 2 else range(classes)
    expected = {
        "roc_auc": np.mean([m.roc_auc_score(actual == c, p[:, c], **one) for c in codes]),
        "log_loss": m.log_loss(actual, p, labels=np.arange(classes), **one),
        "accuracy": m.accuracy_score(actual, chosen, **one),
        "precision": m.precision_score(actual, chosen, **many),
        "recall": m.recall_score(actual, chosen, **many),
        "f1": m.f1_score(actual, chosen, **many),
        "pr_auc": np.mean([m.average_precision_score(actual == c, p[:, c], **one) for c in codes]),
        "mcc": m.matthews_corrcoef(actual, chosen, **one),
        "balanced_accuracy": m.balanced_accuracy_score(actual, chosen, **one),
    }
    if classes == 2:
        expected["brier"] = m.brier_score_loss(actual, p[:, 1], **one)
    assert classification_metrics(actual, raw, weight) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [2, 7, 500])
def test_figures_of_values_are_those_of_scikit_learn(rows: int, weighted: bool) -> None:
    from sklearn import metrics as m

    generator = np.random.default_rng(rows)
    actual = np.round(generator.gamma(2.0, size=rows), 1)
    predicted = np.abs(actual + generator.normal(size=rows))
    actual[0] = 0.0
    weight = generator.integers(0, 4, rows).astype(float) + (np.arange(rows) == 1) if weighted else None
    some, one = actual != 0, {"sample_weight": weight}
    expected = {
        "rmse": m.root_mean_squared_error(actual, predicted, **one),
        "mae": m.mean_absolute_error(actual, predicted, **one),
        "r2": m.r2_score(actual, predicted, force_finite=False, **one),
        "medae": m.median_absolute_error(actual, predicted, **one),
        "mape": m.mean_absolute_percentage_error(
            actual[some], predicted[some], sample_weight=None if weight is None else weight[some]
        ),
        "explained_variance": m.explained_variance_score(actual, predicted, force_finite=False, **one),
        "mse": m.mean_squared_error(actual, predicted, **one),
        "msle": m.mean_squared_log_error(actual, predicted, **one),
    }
    assert regression_metrics(actual, predicted, weight) == pytest.approx(expected, rel=1e-9)


def test_scores_that_are_no_numbers_have_no_figures() -> None:
    raw = np.array([[0.9, 0.1], [np.nan, np.nan], [0.1, 0.9]])
    figures = classification_metrics(np.array([0, 1, 1]), raw)
    assert {figures[name] for name in ("roc_auc", "pr_auc", "log_loss", "brier")} == {None}
    assert set(regression_metrics(np.array([1.0, 2.0]), np.array([1.0, np.inf])).values()) == {None}
    assert classification_metrics(np.array([0, 1]), np.eye(2), np.zeros(2))["accuracy"] is None
