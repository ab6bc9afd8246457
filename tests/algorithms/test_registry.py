"""Names of algorithms and of families."""

from __future__ import annotations

import pytest

from sqlml.errors import BindError
from sqlml.registry import ALGORITHMS, FAMILIES, candidates, get_algorithm, names
from sqlml.types import Task


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_name_is_its_algorithms(name: str) -> None:
    assert get_algorithm(name).name == name
    assert [a.name for a in candidates(name.upper())] == [name]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_a_classifier_and_a_regressor(family: str) -> None:
    assert [a.task for a in candidates(family)] == [Task.CLASSIFICATION, Task.REGRESSION]
    assert tuple(a.name for a in candidates(family.upper())) == FAMILIES[family]
    assert family not in names("algorithm")
    with pytest.raises(BindError) as caught:
        get_algorithm(family)
    assert caught.value.message == f"{family} is two algorithms"
    assert caught.value.hint == f"name one of them: {family}_classifier or {family}_regressor"


def test_without_a_name_xgboost() -> None:
    assert [a.name for a in candidates(None)] == ["xgboost_classifier", "xgboost_regressor"]


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("random_forrest", "random_forest"), ("isolation_forrest", "isolation_forest"), ("naive_baies", "naive_bayes")],
)
def test_unknown(wrong: str, near: str) -> None:
    with pytest.raises(BindError) as caught:
        candidates(wrong)
    assert caught.value.message == f"unknown algorithm {wrong}"
    assert caught.value.hint == f"did you mean {near}?  (SHOW ALGORITHMS lists all)"
