"""What is told of each round: every figure of a small table; of a large one now and then, the same figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sqlml
from sqlml.algorithms import xgboost
from sqlml.algorithms.options import check_options
from sqlml.contracts import FitSpec
from sqlml.registry import get_algorithm
from tests.algorithms.fitting import classes_of, numbers, table
from tests.jobs import Recorder

ROUNDS = 13


def followed(**options: Any) -> list[dict[str, float]]:
    """What each round told, of 600 training rows and 200 held-out ones (and 100 to stop by, where that is asked for)."""
    x = numbers(900)
    y = classes_of(x, 2)
    data = replace(table(x[:600], y[:600]), heldout_x=x[600:800], heldout_y=y[600:800])
    if options:
        data = replace(data, valid_x=x[800:], valid_y=y[800:])
    algorithm, report = get_algorithm("xgboost_classifier"), Recorder()
    algorithm.fit(data, FitSpec(check_options(algorithm, {"n_estimators": ROUNDS, **options}), 0, 2), report)
    assert [step for step, _, _ in report.steps] == list(range(1, len(report.steps) + 1))
    return [dict(figures) for _, _, figures in report.steps]


@pytest.mark.parametrize("options", [{}, {"early_stopping_rounds": 50}])
def test_of_a_large_table_the_same_figures_now_and_then(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    whole = followed(**options)
    parts = {"train_", "heldout_"} | ({"valid_"} if options else set())
    assert all({name.split("_")[0] + "_" for name in figures} == parts for figures in whole)
    monkeypatch.setattr(xgboost, "_FOLLOWED_ROWS", 70)  # the held-out rows each third round, the training rows each ninth
    found = followed(**options)
    for i, (figures, wanted) in enumerate(zip(found, whole, strict=True), 1):
        due = {"valid_"} & parts
        due |= {"heldout_"} if i % 3 == 0 or i == ROUNDS else set()
        due |= {"train_"} if i % 9 == 0 or i == ROUNDS else set()
        assert figures == pytest.approx({name: v for name, v in wanted.items() if name.split("_")[0] + "_" in due}, abs=1e-5)


def test_of_many_held_out_rows_no_area(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"heldout_logloss", "heldout_roc_auc"} <= set(followed()[0])
    monkeypatch.setattr(xgboost, "_RANKED_ROWS", 199)
    assert set(followed()[0]) == {"train_logloss", "heldout_logloss"}


def test_a_step_without_figures_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xgboost, "_FOLLOWED_ROWS", 20)
    found = followed()
    assert found[0] == {}
    assert np.isfinite(list(found[-1].values())).all()


def test_every_round_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xgboost, "_FOLLOWED_ROWS", 70)
    with sqlml.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT i, sin(i) AS a, i % 7 > 2 AS y FROM range(600) t(i)")
        connection.execute("TRAIN MODEL m TARGET y SPLIT NONE WITH (n_estimators = 20) ON inline AS FROM t")
        found = connection.execute("SELECT iteration, loss FROM ML.TRAINING_INFO(MODEL m) ORDER BY ALL").fetchall()
    assert [iteration for iteration, _ in found] == list(range(20))
    assert [iteration for iteration, loss in found if loss is not None] == [8, 17, 19]
