"""TRANSFORM in a training: fitted on the training rows alone, kept with the model; models that only transform."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sqlml.errors import TrainingDataError
from sqlml.features.dataset import read_arrow
from sqlml.plan import SplitPlan
from sqlml.types import Task
from tests.jobs import people, train

ITEMS = ("ML.STANDARD_SCALER(x) OVER () AS s", "町", 'extract(year FROM "day") AS year', "x * x AS x2")


def test_features_of_a_transform(tmp_path: Path) -> None:
    model, outcome, report = train(tmp_path, people(), "z", "linear_regression", transform=ITEMS)
    assert [i.name for i in model.inputs] == ["x", "町", "day"]
    assert [name for name, _ in model.features] == ["s", "町", "year", "x2"]
    assert outcome.metrics["heldout"]["r2"] is not None
    assert outcome.metrics["heldout"]["r2"] > 0.7
    assert "s = " in outcome.encodings["x"]
    assert [row["input"] for row in outcome.feature_info] == ["x", "町", "day"]
    assert report.stages == ["reading", "transforming", "training", "evaluating", "saving"]
    assert set(model.manifest.example) == {"x", "町", "day"}
    sample = read_arrow(tmp_path / "sample.arrow")
    assert sample.schema.names == ["s", "町", "year", "x2"]
    assert len(sample) == outcome.heldout_rows
    again = model.evaluate(people(), people()["z"])
    assert again["r2"] == pytest.approx(outcome.metrics["heldout"]["r2"], abs=0.1)


def test_it_is_fitted_on_the_training_rows_alone(tmp_path: Path) -> None:
    """The held-out rows are far away: if they were seen, the scale would be another."""
    n = 200
    table = pa.table({"x": [float(i % 10) if i < 150 else 1e6 for i in range(n)], "t": range(n), "z": np.arange(n) % 7 * 1.0})
    model, _, _ = train(
        tmp_path,
        table,
        "z",
        "linear_regression",
        transform=("ML.STANDARD_SCALER(x) OVER () AS s",),
        split=SplitPlan("time", 0.25, "t"),
    )
    sample = read_arrow(tmp_path / "sample.arrow")
    assert min(sample["s"].to_pylist()) > 1000
    assert model.predict(table.slice(0, 3)).null_count == 0


def test_validation_rows_are_transformed(tmp_path: Path) -> None:
    extra = people(50, seed=3)
    _, outcome, _ = train(tmp_path, people(), "z", "linear_regression", transform=ITEMS, validation=extra)
    assert outcome.heldout_rows == 50
    assert len(read_arrow(tmp_path / "sample.arrow")) == 50


def test_a_row_that_cannot_be_computed(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="TRANSFORM cannot compute a row"):
        train(tmp_path, people(), "z", "linear_regression", transform=("CAST(町 AS INTEGER) AS i",))


@pytest.mark.parametrize("targets", [None, ("y", "z")])
def test_transforms_with_and_without_heads(tmp_path: Path, targets: tuple[str, ...] | None) -> None:
    algorithm = None if targets else "transform_only"
    split = None if targets else SplitPlan("none")
    options = {"n_estimators": 3} if targets else {}
    model, outcome, _ = train(tmp_path, people(), targets, algorithm, transform=ITEMS, split=split, options=options)
    if targets:
        assert set(model.predict(people())[0].as_py()) == set(targets)
        return
    assert model.task is Task.TRANSFORM
    assert model.heads == ()
    assert outcome.metrics == {}
    assert (outcome.algorithm, outcome.rows, outcome.heldout_rows) == ("transform_only", 400, 0)
    assert sorted(p.name for p in model.folder.iterdir()) == ["manifest.json"]
    assert not (tmp_path / "heldout.arrow").exists()
    made = model.predict(people())
    assert set(made[0].as_py()) == {"s", "町", "year", "x2"}
