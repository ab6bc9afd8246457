"""Options: names, types and ranges, with the exact words of each refusal."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from sqlml.algorithms.options import check_options
from sqlml.errors import BindError
from sqlml.registry import get_algorithm


@pytest.mark.parametrize(
    ("algorithm", "name", "value", "message"),
    [
        (
            "xgboost_classifier",
            "max_depth",
            "deep",
            "option max_depth of xgboost_classifier is an integer ≥ 0 (got the text 'deep')",
        ),
        ("xgboost_classifier", "max_depth", -1, "option max_depth of xgboost_classifier is an integer ≥ 0 (got the number -1)"),
        ("xgboost_classifier", "max_depth", 2.5, "option max_depth of xgboost_classifier is an integer ≥ 0 (got the number 2.5)"),
        ("xgboost_classifier", "max_depth", True, "option max_depth of xgboost_classifier is an integer ≥ 0 (got true)"),
        ("xgboost_classifier", "max_depth", None, "option max_depth of xgboost_classifier is an integer ≥ 0 (got NULL)"),
        (
            "xgboost_classifier",
            "subsample",
            0,
            "option subsample of xgboost_classifier is a number > 0 and ≤ 1 (got the number 0)",
        ),
        ("xgboost_classifier", "gamma", float("nan"), "option gamma of xgboost_classifier is a number ≥ 0 (got the number nan)"),
        ("xgboost_regressor", "gamma", (1, 2), "option gamma of xgboost_regressor is a number ≥ 0 (got a list)"),
        (
            "xgboost_regressor",
            "seed",
            timedelta(1),
            "option seed of xgboost_regressor is an integer ≥ 0 and ≤ 2147483647 (got an interval)",
        ),
        ("kmeans", "init", "best", "option init of kmeans is one of 'k-means++', 'random' (got the text 'best')"),
        (
            "isolation_forest",
            "contamination",
            0.6,
            "option contamination of isolation_forest is a number > 0 and ≤ 0.5, or 'auto' (got the number 0.6)",
        ),
        (
            "isolation_forest",
            "contamination",
            "all",
            "option contamination of isolation_forest is a number > 0 and ≤ 0.5, or 'auto' (got the text 'all')",
        ),
        (
            "isolation_forest",
            "max_samples",
            0,
            "option max_samples of isolation_forest is an integer ≥ 1 or a part > 0 and < 1, or 'auto' (got the number 0)",
        ),
        ("pca", "n_components", 1.5, "option n_components of pca is an integer ≥ 1 or a part > 0 and < 1 (got the number 1.5)"),
        ("pca", "n_components", "all", "option n_components of pca is an integer ≥ 1 or a part > 0 and < 1 (got the text 'all')"),
        (
            "naive_bayes",
            "class_weight",
            "equal",
            "option class_weight of naive_bayes is 'balanced' or a positive number for each class, as in {'yes': 5, 'no': 1} "
            "(got the text 'equal')",
        ),
        (
            "naive_bayes",
            "class_weight",
            {"yes": 0},
            "option class_weight of naive_bayes is 'balanced' or a positive number for each class, as in {'yes': 5, 'no': 1} "
            "(got a struct)",
        ),
        ("kmeans", "refit", 1, "option refit of kmeans is true or false (got the number 1)"),
        (
            "logistic_regression",
            "fit_intercept",
            1,
            "option fit_intercept of logistic_regression is true or false (got the number 1)",
        ),
    ],
)
def test_refused(algorithm: str, name: str, value: Any, message: str) -> None:
    with pytest.raises(BindError) as caught:
        check_options(get_algorithm(algorithm), {name: value})
    assert caught.value.message == message


def test_unknown_name() -> None:
    with pytest.raises(BindError) as caught:
        check_options(get_algorithm("xgboost_classifier"), {"max_dept": 3})
    assert caught.value.message == "xgboost_classifier has no option max_dept"
    assert (caught.value.hint or "").startswith("did you mean max_depth?\nit has: n_estimators, max_depth")


def test_values_are_plain_and_names_ignore_case() -> None:
    options = check_options(
        get_algorithm("xgboost_classifier"), {"MAX_DEPTH": Decimal(4), "learning_rate": Decimal("0.05"), "n_estimators": 1e2}
    )
    assert (options["max_depth"], options["learning_rate"], options["n_estimators"]) == (4, 0.05, 100)
    assert [type(options[name]) for name in ("max_depth", "learning_rate", "n_estimators")] == [int, float, int]
    assert check_options(get_algorithm("xgboost_classifier"), options) == options


def test_validation_fraction_only_where_there_is_early_stopping() -> None:
    assert "validation_fraction" in check_options(get_algorithm("xgboost_regressor"), {})
    with pytest.raises(BindError, match="kmeans has no option validation_fraction"):
        check_options(get_algorithm("kmeans"), {"validation_fraction": 0.2})


@pytest.mark.parametrize(
    ("algorithm", "name", "given", "value"),
    [
        ("pca", "n_components", Decimal("0.9"), 0.9),
        ("pca", "n_components", Decimal(3), 3),
        ("pca", "n_components", 1.0, 1),
        ("isolation_forest", "max_samples", "auto", "auto"),
        ("isolation_forest", "max_samples", 64, 64),
        ("isolation_forest", "max_samples", 0.5, 0.5),
        ("isolation_forest", "contamination", Decimal("0.1"), 0.1),
        ("xgboost_classifier", "class_weight", "balanced", "balanced"),
        ("logistic_regression", "class_weight", {"yes": Decimal(5), "no": 1}, {"yes": 5.0, "no": 1.0}),
        ("logistic_regression", "class_weight", {True: 5, 2: 1}, {"true": 5.0, "2": 1.0}),
        ("logistic_regression", "class_weight", None, None),
        ("linear_regression", "refit", True, True),
    ],
)
def test_options_of_several_types(algorithm: str, name: str, given: Any, value: Any) -> None:
    checked = check_options(get_algorithm(algorithm), {name: given})
    assert checked[name] == value
    assert type(checked[name]) is type(value)
    assert check_options(get_algorithm(algorithm), checked) == checked


def test_common_options_go_with_the_task() -> None:
    common = {
        name: set(check_options(get_algorithm(name), {})) & {"class_weight", "refit", "max_categories", "seed"}
        for name in ("naive_bayes", "linear_regression", "kmeans", "pca", "isolation_forest", "transform_only")
    }
    assert common == {
        "naive_bayes": {"class_weight", "refit", "max_categories", "seed"},
        "linear_regression": {"refit", "max_categories", "seed"},
        "kmeans": {"refit", "max_categories", "seed"},
        "pca": {"max_categories", "seed"},
        "isolation_forest": {"max_categories", "seed"},
        "transform_only": {"seed"},
    }
