"""Cross-validation: every row held out once, nothing but figures left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sqlml.errors import TrainingDataError
from sqlml.plan import FoldsOutcome, JobSpec, SplitPlan
from sqlml.training import run_folds
from tests.jobs import Recorder, make_job, people


def folds(
    folder: Path, table: pa.Table, target: Any, algorithm: str | None, count: int, **how: Any
) -> tuple[FoldsOutcome, Recorder]:
    spec = make_job(folder, table, target, algorithm, kind="folds", split=SplitPlan("fold", folds=count), **how)
    report = Recorder()
    outcome = run_folds(JobSpec.from_json(json.loads(json.dumps(spec.to_json()))), report)
    assert FoldsOutcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    return outcome, report


def test_classes(tmp_path: Path) -> None:
    outcome, report = folds(tmp_path, people(), "y", None, 4, exclude=("z", "w"), options={"n_estimators": 5})
    assert (outcome.algorithm, outcome.rows, len(outcome.metrics)) == ("xgboost_classifier", 400, 4)
    assert all(figures["roc_auc"] is not None and figures["roc_auc"] > 0.7 for figures in outcome.metrics)
    assert [step[:2] for step in report.steps] == [(i, 4) for i in range(1, 5)]
    assert "heldout_roc_auc" in report.steps[0][2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.arrow"]
    again, _ = folds(tmp_path, people(), "y", None, 4, exclude=("z", "w"), options={"n_estimators": 5})
    assert again == outcome


def test_against_scikit_learn(tmp_path: Path) -> None:
    """Leaving one out of ten rows each time is the same whatever the seed: linear regression gives the same errors."""
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import LeaveOneOut, cross_val_predict

    r = np.random.default_rng(0)
    x, z = r.normal(size=(30, 2)), r.normal(size=30)
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "z": z})
    outcome, _ = folds(tmp_path, table, "z", "linear_regression", 30)
    expected = np.abs(cross_val_predict(LinearRegression(), x, z, cv=LeaveOneOut()) - z)
    assert sorted(f["mae"] or 0.0 for f in outcome.metrics) == pytest.approx(sorted(expected), rel=1e-4)


def test_several_targets_weights_and_a_transform(tmp_path: Path) -> None:
    items = ("ML.STANDARD_SCALER(x) OVER () AS s", "町")
    how: dict[str, Any] = {"transform": items, "weight": "w", "options": {"n_estimators": 3}}
    outcome, _ = folds(tmp_path, people(), ("y", "z"), None, 3, **how)
    assert {"y.roc_auc", "z.rmse"} <= set(outcome.metrics[0])


@pytest.mark.parametrize("algorithm", ["kmeans", "pca", "isolation_forest"])
def test_without_a_target(tmp_path: Path, algorithm: str) -> None:
    options = {"n_clusters": 3} if algorithm == "kmeans" else {}
    outcome, _ = folds(tmp_path, people(), None, algorithm, 3, exclude=("y", "z", "w"), options=options)
    assert all(outcome.metrics)


def test_rows_without_a_target_and_single_classes(tmp_path: Path) -> None:
    y = ["rare", None, None, *people()["y"].to_pylist()[3:]]
    table = people().set_column(people().schema.get_field_index("y"), "y", pa.array(y))
    outcome, report = folds(tmp_path, table, "y", "logistic_regression", 5, exclude=("z", "w"))
    assert outcome.rows == 398
    assert "2 of 400 rows are left out: their y is NULL" in report.notices


def test_too_many_folds(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="20 folds need as many rows; there are 10"):
        folds(tmp_path, people(10), "z", "linear_regression", 20, exclude=("y", "w"))


def test_early_stopping_and_tuning_are_the_models_own(tmp_path: Path) -> None:
    options = {"n_estimators": 40, "early_stopping_rounds": 2}
    outcome, _ = folds(tmp_path, people(), "y", "xgboost_classifier", 3, exclude=("z", "w"), options=options)
    assert len(outcome.metrics) == 3
