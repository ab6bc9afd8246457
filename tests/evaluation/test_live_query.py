"""Answers of a query with their truths: what they are taken for, and figures that are scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as sk

from sqlml.evaluation.live_query import AnswerColumn, LabelScores, measure_query, scores_of_answers
from sqlml.evaluation.scores import Scores
from sqlml.home import Home
from sqlml.prediction_log import feedback_folder, feedback_schema, predictions_folder, predictions_schema, write_part
from sqlml.types import Task

X = AnswerColumn("x", "DOUBLE")


def scored(answers: Sequence[Any], truths: Sequence[str | None], column: AnswerColumn = X, kind: Any = None) -> Scores:
    return scores_of_answers(pa.array(answers, kind), pa.array(truths, pa.string()), column)


@pytest.mark.parametrize("truths", [["0", "1", "1", "0"], ["no", "yes", "TRUE", "f"], ["0.0", "1.00", "1", " 0 "]])
def test_numbers_from_0_to_1_of_what_is_true_or_not_are_probabilities(truths: list[str]) -> None:
    p, actual = [0.2, 0.9, 0.4, 0.6], [0, 1, 1, 0]
    found = scored(p, truths).measure()
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(actual, p))
    assert found["log_loss"] == pytest.approx(sk.log_loss(actual, p))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(actual, p))
    assert found["pr_auc"] == pytest.approx(sk.average_precision_score(actual, p))
    assert found["accuracy"] == 0.5
    assert scored(p, truths).measure(0.3)["accuracy"] == 0.75


def test_other_numbers_are_numbers() -> None:
    rng = np.random.default_rng(0)
    actual = rng.normal(10, 3, 50)
    answers = actual + rng.normal(0, 1, 50)
    found = scored(answers.tolist(), [str(value) for value in actual])
    assert found.task is Task.REGRESSION
    figures = found.measure()
    assert figures["rmse"] == pytest.approx(sk.root_mean_squared_error(actual, answers))
    assert figures["mae"] == pytest.approx(sk.mean_absolute_error(actual, answers))
    assert figures["r2"] == pytest.approx(sk.r2_score(actual, answers))
    assert figures["mape"] == pytest.approx(sk.mean_absolute_percentage_error(actual, answers))
    for answers_, truths in (([0.5, 0.2], ["1", "2"]), ([0.5, 1.2], ["1", "0"]), ([3, 1], ["1", "0"])):
        assert scored(answers_, truths).task is Task.REGRESSION


def test_texts_are_labels_and_have_what_needs_no_probabilities() -> None:
    truths = ["a", "b", "c", "a", "b", "new"]
    answers = ["a", "b", "b", "c", "b", "a"]
    found = scored(answers, truths, AnswerColumn("x", "VARCHAR"))
    figures = found.measure()
    assert isinstance(found, LabelScores)
    assert set(figures) == {"accuracy", "precision", "recall", "f1", "mcc", "balanced_accuracy"}
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(truths, answers))
    assert figures["f1"] == pytest.approx(sk.f1_score(truths, answers, average="macro", zero_division=0.0))
    assert figures["mcc"] == pytest.approx(sk.matthews_corrcoef(truths, answers))
    assert figures["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truths, answers))


@pytest.mark.parametrize(
    ("answers", "truths", "column"),
    [
        ([True, False, True, True], ["yes", "0", "false", "1.0"], AnswerColumn("x", "BOOLEAN")),
        ([1, 0, 1, 1], ["1", "false", "0", "1"], AnswerColumn("x", "BIGINT")),
        (["yes", "no", "yes", "yes"], ["yes", "no", "no", "yes"], AnswerColumn("x", "VARCHAR", ("no", "yes"), label=True)),
        ([7, 3, 7, 7], ["7.0", "3", "3", "7"], AnswerColumn("x", "BIGINT", (3, 7), label=True)),
    ],
)
def test_two_labels_have_a_positive_one(answers: list[Any], truths: list[str], column: AnswerColumn) -> None:
    found = scored(answers, truths, column)
    assert isinstance(found, LabelScores)
    figures = found.measure()
    expected, said = [1, 0, 0, 1], [1, 0, 1, 1]
    assert figures["precision"] == pytest.approx(sk.precision_score(expected, said))
    assert figures["recall"] == pytest.approx(sk.recall_score(expected, said))
    assert figures["f1"] == pytest.approx(sk.f1_score(expected, said))


def test_whole_labels_of_clusters_are_compared_as_labels() -> None:
    found = scored([1, 2, 3, 3], ["1", "2.0", "3", "1"], AnswerColumn("x", "BIGINT", label=True))
    assert found.measure()["accuracy"] == 0.75


def test_probabilities_of_all_classes_have_every_figure() -> None:
    raw = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])
    answers = [dict(zip("abc", row.tolist(), strict=True)) for row in raw]
    actual = np.array([0, 1, 2, 2])
    figures = scored(answers, ["a", "b", "c", "c"], AnswerColumn("p", "DOUBLE[]", ("a", "b", "c"))).measure()
    assert figures["log_loss"] == pytest.approx(sk.log_loss(actual, raw))
    assert figures["roc_auc"] == pytest.approx(sk.roc_auc_score(actual, raw, multi_class="ovr"))
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(actual, raw.argmax(1)))
    truth = scored([{"false": 0.2, "true": 0.8}], ["yes"], AnswerColumn("p", "DOUBLE[]", (False, True)))
    assert truth.actual is not None
    assert truth.actual.tolist() == [1]


def test_rows_that_cannot_be_compared_are_not_known() -> None:
    for answers, truths, column, kind in (
        ([0.4, None, 0.6, 0.1], ["1", "1", "0", "0"], X, pa.float64()),
        ([2.5, float("nan"), 0.5, 7.0], ["1.5", "8", "2.5", "9"], X, pa.float64()),
        (["a", None, "b", "b"], ["a", "b", "b", "a"], AnswerColumn("x", "VARCHAR"), pa.string()),
        ([True, None, False, True], ["yes", "no", "no", "no"], AnswerColumn("x", "BOOLEAN"), pa.bool_()),
        ([True, True, False, True], ["yes", "perhaps", "no", "no"], AnswerColumn("x", "BOOLEAN"), pa.bool_()),
    ):
        assert scored(answers, truths, column, kind).known.rows == 3, answers
    nothing = scored([], [], X, pa.float64())
    assert (nothing.known.rows, nothing.measure()) == (0, {})


# --- from the files ------------------------------------------------------------------------------------------------------

LOG = predictions_schema(
    pa.struct([("age", pa.float64())]), pa.struct([("x", pa.float64()), ("vote", pa.string()), ("age", pa.float64())])
)
NOW = datetime(2026, 3, 1)


def log(home: Home, uid: str, revision: int, *rows: tuple[str, float, str, float]) -> None:
    """Rows of request id, ``x``, ``vote`` and ``age``."""
    same = {"endpoint": "e", "row": 0, "model": "e", "version": revision, "role": "serves", "latency": 0.1, "logged_at": NOW}
    whole = [
        {**same, "request_id": request, "inputs": {"age": age}, "outputs": {"x": x, "vote": vote, "age": age}}
        for request, x, vote, age in rows
    ]
    write_part(predictions_folder(home, "e", uid), pa.Table.from_pylist(whole, schema=LOG))


def tell(home: Home, *rows: tuple[str, str | None, str]) -> None:
    """Rows of request id, target and truth."""
    whole = [
        {"endpoint": "e", "request_id": request, "target": target, "truth": truth, "given_at": NOW}
        for request, target, truth in rows
    ]
    write_part(feedback_folder(home, "e"), pa.Table.from_pylist(whole, schema=feedback_schema()))


def test_each_column_has_its_own_truths_and_one_that_names_none_is_of_the_sole_one(tmp_path: Path) -> None:
    home = Home(tmp_path)
    log(home, "q1", 3, ("a", 0.9, "yes", 20.0), ("b", 0.1, "no", 30.0))
    log(home, "q1", 5, ("c", 0.2, "no", 20.0))
    columns = [
        AnswerColumn("x", "DOUBLE", sole=True),
        AnswerColumn("vote", "VARCHAR"),
        AnswerColumn("age", "DOUBLE", passed_on=True),
    ]
    tell(home, ("a", None, "1"), ("b", "X", "0"), ("c", "vote", "yes"))
    found = measure_query(home, "e", {"q1": columns, "never": columns}, ["age"])
    assert [(one.target.name, one.version, one.role, one.logged, one.scores.known.rows) for one in found] == [
        ("x", 5, "serves", 3, 2),
        ("vote", 5, "serves", 3, 1),
    ]
    assert found[0].kept["age"].to_pylist() == [20.0, 30.0]
    tell(home, ("a", "age", "21"))
    assert [one.target.name for one in measure_query(home, "e", {"q1": columns})] == ["x", "vote", "age"]
