"""Which rows are held out: marks, times, folds, and what is said about them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sqlml.errors import TrainingDataError
from sqlml.features.dataset import read_arrow
from sqlml.features.split import HELDOUT, TRAINING, UNMARKED, fold_numbers, latest, read_marks
from sqlml.plan import SplitPlan
from tests.jobs import people, train

HOW: dict[str, Any] = {"exclude": ("y", "w"), "key": ("id",)}


def numbered(n: int = 400) -> pa.Table:
    return people(n).append_column("id", pa.array(range(n)))


def held_ids(folder: Path) -> list[int]:
    return sorted(read_arrow(folder / "heldout.arrow")["key:id"].to_pylist())


@pytest.mark.parametrize(
    ("values", "marks"),
    [
        (pa.array([True, False, None]), [HELDOUT, TRAINING, UNMARKED]),
        (pa.array([1.0, 0.0, None, np.nan]), [HELDOUT, TRAINING, UNMARKED, UNMARKED]),
        (
            pa.array(["Train", " validation ", "EVAL", "holdout", "training", "valid", "test", "heldout"]),
            [0, 1, 2, 2, 0, 1, 2, 2],
        ),
        (pa.array([], pa.string()), []),
        (pa.chunked_array([["train"], ["test"]]), [TRAINING, HELDOUT]),
    ],
)
def test_marks(values: Any, marks: list[int]) -> None:
    assert read_marks("part", values).tolist() == marks


@pytest.mark.parametrize(
    ("values", "shown"), [(pa.array(["train", "b", "a"]), "'a', 'b'"), (pa.array([0.0, 2.0, 0.5]), "0.5, 2")]
)
def test_other_marks_are_refused(values: Any, shown: str) -> None:
    with pytest.raises(TrainingDataError) as caught:
        read_marks("part", values)
    assert caught.value.message == f"SPLIT BY part does not understand {shown}"
    assert "'validation'" in str(caught.value)


def test_latest() -> None:
    assert latest(pa.array([3.0, 1.0, None, 2.0, 5.0, 4.0]), 0.4).tolist() == [False, False, False, False, True, True]
    assert latest(pa.array([1.0, 2.0, 2.0, 2.0]), 0.5).tolist() == [False] * 4  # ties at the border stay in training
    assert latest(pa.array([None, None], pa.float64()), 0.5).tolist() == [False, False]
    assert latest(pa.array([], pa.float64()), 0.5).tolist() == []
    days = pa.chunked_array([[dt.date(2024, 1, 2)], [dt.date(2024, 1, 1)]])
    assert latest(days, 0.5).tolist() == [True, False]
    stamps = pa.array([dt.datetime(2024, 1, 1, 0, 0, 0, 1), dt.datetime(2024, 1, 1)], pa.timestamp("us", "UTC"))
    assert latest(stamps, 0.5).tolist() == [True, False]


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_are_even_and_stratified(folds: int) -> None:
    classes = np.array([0] * 50 + [1] * 11 + [2] * 3)
    numbers = fold_numbers(64, folds, 0, classes)
    sizes = np.bincount(numbers, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for c in range(3):
        of_class = np.bincount(numbers[classes == c], minlength=folds)
        assert of_class.max() - of_class.min() <= 1
    assert not np.array_equal(numbers, fold_numbers(64, folds, 1, classes))
    assert np.array_equal(np.unique(fold_numbers(folds, folds, 0)), np.arange(folds))


def test_by_column(tmp_path: Path) -> None:
    part = [["train", "test", "validation", None][i % 4] for i in range(400)]
    table = numbered().append_column("part", pa.array(part))
    options = {"n_estimators": 50, "early_stopping_rounds": 2}
    split = SplitPlan("by", column="part")
    model, outcome, report = train(tmp_path, table, "z", "xgboost_regressor", split=split, options=options, **HOW)
    assert held_ids(tmp_path) == list(range(1, 400, 4))
    assert (outcome.rows, outcome.heldout_rows) == (300, 100)
    assert {p for _, p, _, _ in outcome.curves} == {"train", "valid", "heldout", "job"}
    assert "part says which rows are held out: it is no feature" in report.notices
    assert "100 rows without a part (NULL): training rows" in report.notices
    assert "part" not in {i.name for i in model.inputs}
    _, outcome, report = train(tmp_path, table, "z", "linear_regression", split=split, **HOW)
    assert (outcome.rows, outcome.heldout_rows) == (300, 100)
    assert "linear_regression does not stop early here: the validation rows are trained on" in report.notices


def test_by_column_without_some_part(tmp_path: Path) -> None:
    split = SplitPlan("by", column="part")
    for value, message in (
        (True, "SPLIT BY part leaves no row to train on"),
        ("what", "SPLIT BY part does not understand 'what'"),
    ):
        table = numbered().append_column("part", pa.array([value] * 400))
        with pytest.raises(TrainingDataError) as caught:
            train(tmp_path, table, "z", "linear_regression", split=split, **HOW)
        assert caught.value.message == message
    table = numbered().append_column("part", pa.array([False] * 400))
    _, outcome, report = train(tmp_path, table, "z", "linear_regression", split=split, **HOW)
    assert outcome.heldout_rows == 0
    assert "SPLIT BY part holds no row out" in report.notices


def test_by_time(tmp_path: Path) -> None:
    times = [None if i < 10 else dt.datetime(2024, 1, 1) + dt.timedelta(hours=i) for i in range(400)]
    table = numbered().append_column("seen", pa.array(times))
    _, outcome, report = train(tmp_path, table, "z", "linear_regression", split=SplitPlan("time", 0.1, "seen"), **HOW)
    assert held_ids(tmp_path) == list(range(361, 400))
    assert (outcome.rows, outcome.heldout_rows) == (361, 39)
    assert "10 rows without a seen (NULL): training rows" in report.notices


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([1.0] * 400), "SPLIT TIME seen: the column has too few different values to hold out the latest"),
        (pa.nulls(400, pa.float64()), "SPLIT TIME seen: the column is NULL in every row"),
    ],
)
def test_times_that_cannot_split(tmp_path: Path, values: Any, message: str) -> None:
    table = numbered().append_column("seen", values)
    with pytest.raises(TrainingDataError) as caught:
        train(tmp_path, table, "z", "linear_regression", split=SplitPlan("time", 0.1, "seen"), **HOW)
    assert caught.value.message == message


@pytest.mark.parametrize("algorithm", ["xgboost_classifier", "logistic_regression"])
def test_classes_that_only_the_held_out_rows_have(tmp_path: Path, algorithm: str) -> None:
    """The newest rows bring a class that nothing could be learnt of: it is not a class of the model."""
    y = ["new" if i >= 390 else ["a", "b", "c"][i % 3] for i in range(400)]
    table = numbered().append_column("t", pa.array(y))
    how: dict[str, Any] = {"exclude": ("y", "z", "w"), "key": ("id",), "split": SplitPlan("time", 0.1, "id")}
    model, outcome, report = train(tmp_path, table, "t", algorithm, **{**how, "key": ()})
    assert model.classes == ("a", "b", "c")
    assert "t has no training row of new: rows of such a class are not measured" in report.notices
    heldout = read_arrow(tmp_path / "heldout.arrow")
    assert heldout["actual_0"].null_count == 10
    assert outcome.metrics["heldout"]["accuracy"] is not None


def test_one_class_left_for_training(tmp_path: Path) -> None:
    table = numbered().append_column("t", pa.array(["a" if i < 390 else "b" for i in range(400)]))
    with pytest.raises(TrainingDataError, match="target t has one value only in the training rows: 'a'"):
        train(tmp_path, table, "t", split=SplitPlan("time", 0.1, "id"), exclude=("y", "z", "w"))


@pytest.mark.parametrize("method", ["by", "time"])
def test_the_order_of_the_rows_does_not_matter(tmp_path: Path, method: str) -> None:
    table = numbered().append_column("part", pa.array([i % 5 == 0 for i in range(400)]))
    split = SplitPlan("by", column="part") if method == "by" else SplitPlan("time", 0.2, "at")
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(400)))
    found = [
        train(tmp_path / str(i), rows, "z", "linear_regression", split=split, **HOW)[1]
        for i, rows in enumerate((table, shuffled))
    ]
    assert found[0].bundle_sha256 == found[1].bundle_sha256
    assert read_arrow(tmp_path / "0" / "heldout.arrow") == read_arrow(tmp_path / "1" / "heldout.arrow")


@pytest.mark.parametrize("algorithm", ["xgboost_regressor", "linear_regression"])
def test_a_key_changes_neither_the_split_nor_the_model(tmp_path: Path, algorithm: str) -> None:
    """The canonical order is of what is learnt from; the key is no part of it, whatever its type."""
    table = numbered().append_column("when", pa.array([dt.timedelta(i % 7) for i in range(400)]))
    found = []
    for key in ((), ("id",), ("id", "when")):
        exclude = ("y", "w", *({"id", "when"} - set(key)))
        _, outcome, _ = train(tmp_path / str(len(key)), table, "z", algorithm, exclude=exclude, key=key)
        found.append((outcome.bundle_sha256, outcome.metrics, outcome.fingerprint))
    assert found[0] == found[1] == found[2]
