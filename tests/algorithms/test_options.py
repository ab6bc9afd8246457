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
