"""TRAIN settled against columns and the registry: the plan, and every error at its place."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from sqlml_dialect import Calls, Train, parse

from sqlml.binder.parameters import Parameters
from sqlml.binder.train import bind_train, needed_columns
from sqlml.binder.transform import Models
from sqlml.errors import BindError, Error
from sqlml.plan import SplitPlan, TrainPlan
from sqlml.types import SQL_TYPE, Column, Kind

COLUMNS = tuple(
    Column(name, SQL_TYPE[kind] if kind else "INTERVAL", kind)
    for name, kind in {
        "id": Kind.NUMBER, "age": Kind.NUMBER, "job": Kind.TEXT, "ok": Kind.BOOLEAN, "at": Kind.TIMESTAMP,
        "tags": Kind.TEXTS, "vector": Kind.NUMBERS, "part": Kind.TEXT, "span": None, "w": Kind.NUMBER, "y": Kind.TEXT,
        "z": Kind.NUMBER,
    }.items()
)  # fmt: skip
USUAL = "TRAIN MODEL m TARGET y EXCLUDE (span)"


def nobody(*_: Any) -> Any:
    raise AssertionError("no model is asked for")


def bind(text: str, values: Any = ()) -> TrainPlan:
    [statement] = parse(f"{text} AS FROM t")
    assert isinstance(statement.node, Train)
    parameters = Parameters(f"{text} AS FROM t", statement.span, values)
    models = Models(resolve=nobody, find=lambda span: Calls(), plan=nobody)
    plan = bind_train(statement.node, parameters, lambda query: COLUMNS, models)
    document = json.loads(json.dumps(plan.to_json(), default=str))
    again = json.loads(json.dumps(TrainPlan.from_json(document).to_json()))
    assert again == document
    return plan


def refused(text: str) -> BindError:
    with pytest.raises(Error) as caught:
        bind(text)
    return caught.value  # type: ignore[return-value]


def test_what_is_no_feature() -> None:
    plan = bind("TRAIN MODEL m TARGET y, z KEY id WEIGHT w SPLIT BY part EXCLUDE (span, job)")
    assert plan.targets == ("y", "z")
    assert plan.key == ("id",)
    assert [c.name for c in plan.features] == ["age", "ok", "at", "tags", "vector"]
    assert plan.split == SplitPlan("by", column="part")
    assert needed_columns(plan) == ("age", "ok", "at", "tags", "vector", "y", "z", "w", "id", "part")


@pytest.mark.parametrize(
    ("clause", "split"),
    [
        ("", SplitPlan("random", 0.2)),
        ("SPLIT RANDOM 0.3", SplitPlan("random", 0.3)),
        ("SPLIT BY ok", SplitPlan("by", column="ok")),
        ("SPLIT TIME At", SplitPlan("time", 0.2, "at")),
        ("SPLIT TIME age 0.1", SplitPlan("time", 0.1, "age")),
        ("SPLIT NONE", SplitPlan("none")),
        ("VALIDATE ON (FROM v)", SplitPlan("query")),
    ],
)
def test_splits(clause: str, split: SplitPlan) -> None:
    assert bind(f"{USUAL} {clause}").split == split


def test_families_stay_until_the_values_are_known() -> None:
    assert bind(f"{USUAL} USING random_forest WITH (n_estimators = 3)").algorithm == "random_forest"
    assert bind(USUAL).algorithm is None
    assert bind(f"{USUAL} USING RANDOM_FOREST_CLASSIFIER").algorithm == "random_forest_classifier"


def test_options_for_all() -> None:
    plan = bind(f"{USUAL} USING logistic_regression WITH (class_weight = {{'yes': 5}}, refit = true, seed = 4)")
    assert plan.options == {"class_weight": {"yes": 5.0}, "refit": True, "seed": 4}
    assert plan.seed == 4


def test_an_option_is_kept_under_its_library_s_name_in_any_case() -> None:
    for written in ("C", "c"):
        plan = bind(f"TRAIN MODEL m USING logistic_regression TARGET y EXCLUDE (span) WITH ({written} = 0.5)")
        assert plan.options == {"C": 0.5, "seed": 0}


def test_transform() -> None:
    plan = bind("TRAIN MODEL m TARGET y TRANSFORM (ML.STANDARD_SCALER(age) OVER () AS s, job, y)")
    assert [c.name for c in plan.features] == ["age", "job"]
    assert plan.transform is not None
    assert [(item.text, item.name) for item in plan.transform.items] == [("ML.STANDARD_SCALER(age) OVER ()", "s"), ("job", None)]


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "(3)"), (True, "TRUE"), (None, "NULL"), ("it's", "'it''s'"), (dt.date(2024, 1, 2), "DATE '2024-01-02'")],
)
def test_parameters_in_a_transform(value: Any, text: str) -> None:
    plan = bind("TRAIN MODEL m TARGET y TRANSFORM (coalesce(CAST(age AS VARCHAR), CAST(? AS VARCHAR)) AS a)", [value])
    assert plan.transform is not None
    assert plan.transform.items[0].text == f"coalesce(CAST(age AS VARCHAR), CAST({text} AS VARCHAR))"


def test_tune() -> None:
    plan = bind(f"{USUAL} USING xgboost_classifier TUNE (max_depth IN (3, 6, 3), learning_rate BETWEEN 0.01 AND 1 LOG) TRIALS 7")
    assert plan.tune is not None
    assert plan.tune.space == {
        "max_depth": {"values": [3, 6]},
        "learning_rate": {"low": 0.01, "high": 1.0, "log": True, "integer": False},
    }
    assert (plan.tune.method, plan.tune.trials, plan.tune.metric, plan.tune.maximize) == ("bayesian", 7, "roc_auc", True)


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        ("TUNE (max_depth IN (3, 6), n_estimators IN (5, 9))", ("grid", 4, "roc_auc", True)),
        ("TUNE (max_depth IN (3, 6)) BY RANDOM", ("random", 2, "roc_auc", True)),
        ("TUNE (max_depth BETWEEN 2 AND 5) BY GRID TRIALS 99", ("grid", 4, "roc_auc", True)),
        ("TUNE (max_depth BETWEEN 2 AND 5) MINIMIZE log_loss", ("bayesian", 20, "log_loss", False)),
        ("TUNE (gamma BETWEEN 0 AND 5) BY RANDOM MAXIMIZE F1", ("random", 20, "f1", True)),
    ],
)
def test_defaults_of_tune(clause: str, expected: tuple[Any, ...]) -> None:
    tune = bind(f"{USUAL} {clause}").tune
    assert tune is not None
    assert (tune.method, tune.trials, tune.metric, tune.maximize) == expected


def test_the_metric_of_a_number_is_chosen_with_the_algorithm() -> None:
    tune = bind("TRAIN MODEL m TARGET z EXCLUDE (span) TUNE (max_depth IN (3, 6))").tune
    assert tune is not None
    assert tune.metric == ""


WRONG = [
    ("TRAIN MODEL m", "TRAIN MODEL needs a TARGET: the column to predict", "m"),
    ("TRAIN MODEL m TARGET nope", "the query has no column nope", "nope"),
    ("TRAIN MODEL m TARGET y, Y", "TARGET names y twice", "Y"),
    ("TRAIN MODEL m TARGET vector", "the target vector has the type DOUBLE[], which cannot be predicted", "vector"),
    ("TRAIN MODEL m TARGET y, at", "the target at has the type TIMESTAMP, which cannot be predicted", "at"),
    (
        "TRAIN MODEL m TARGET y USING linear_regression",
        "linear_regression predicts numbers; the target y has the type VARCHAR",
        "y",
    ),
    ("TRAIN MODEL m TARGET y USING pca", "pca finds components without a target", "y"),
    ("TRAIN MODEL m TARGET y USING isolation_forest", "isolation_forest finds anomalies without a target", "y"),
    ("TRAIN MODEL m TARGET y", "no model can take columns of these types: span (INTERVAL)", "FROM"),
    (f"{USUAL} SPLIT BY at", "SPLIT BY cannot read at, which has the type TIMESTAMP", "at"),
    (f"{USUAL} SPLIT TIME job", "SPLIT TIME cannot read job, which has the type VARCHAR", "job"),
    (f"{USUAL} SPLIT BY y", "SPLIT BY takes another column than the target", "y"),
    (f"{USUAL} SPLIT BY nope", "the query has no column nope", "nope"),
    (f"{USUAL} SPLIT BY part VALIDATE ON (FROM v)", "VALIDATE ON gives the held-out rows, so SPLIT has nothing to do", "BY part"),
    (f"{USUAL} WITH (refit = true) SPLIT NONE", "refit = true has no rows to add: SPLIT NONE holds no rows out", "refit = true"),
    (
        f"{USUAL} WITH (refit = true) VALIDATE ON (FROM v)",
        "refit = true has no rows to add: the rows of VALIDATE ON are another query's",
        "refit = true",
    ),
    ("TRAIN MODEL m USING transform_only", "transform_only keeps the features of TRANSFORM, and there is none", "transform_only"),
    (
        "TRAIN MODEL m USING transform_only TRANSFORM (age) SPLIT RANDOM",
        "transform_only predicts nothing, so no rows are held out to measure it on",
        "RANDOM",
    ),
    ("TRAIN MODEL m TARGET y USING transform_only TRANSFORM (age)", "transform_only finds features without a target", "y"),
    ("TRAIN MODEL m TARGET y TRANSFORM (y)", "TRANSFORM gives no features: it names only the target", "y"),
    ("TRAIN MODEL m TARGET y TRANSFORM (1 + 1 AS two)", "TRANSFORM reads no column of the query", "1 + 1"),
    ("TRAIN MODEL m TARGET y TRANSFORM (job, nope + 1 AS n)", None, "nope"),
    ("TRAIN MODEL m TARGET y TRANSFORM (job, lower(y) AS n)", None, "y"),
    ("TRAIN MODEL m TARGET y TRANSFORM (job, ML.STANDARD_SCALR(age) OVER () AS n)", None, "ML.STANDARD_SCALR"),
    (f"{USUAL} TUNE (max_dept IN (3))", "xgboost_classifier has no option max_dept", "max_dept"),
    (f"{USUAL} TUNE (seed IN (3))", "seed is not for TUNE: it is no property of what is learnt", "seed"),
    (f"{USUAL} TUNE (max_depth IN (3)) WITH (max_depth = 3)", "max_depth is set by WITH and tried by TUNE", "max_depth"),
    (f"{USUAL} TUNE (max_depth IN (3), MAX_DEPTH IN (4))", "TUNE names max_depth twice", "MAX_DEPTH"),
    (
        f"{USUAL} TUNE (max_depth IN (3, -1))",
        "option max_depth of xgboost_classifier is an integer ≥ 0 (got the number -1)",
        "max_depth IN (3, -1)",
    ),
    (f"{USUAL} TUNE (gamma BETWEEN 5 AND 1)", "the range of gamma is empty: 5 is not below 1", "gamma BETWEEN 5 AND 1"),
    (
        f"{USUAL} TUNE (gamma BETWEEN 0 AND 1 LOG)",
        "LOG needs a range above 0; that of gamma begins at the number 0",
        "gamma BETWEEN 0 AND 1 LOG",
    ),
    (f"{USUAL} TUNE (max_depth IN (3)) MAXIMIZE auc", "there is no metric auc to aim at", "auc"),
    (f"{USUAL} TUNE (max_depth IN (3)) MAXIMIZE log_loss", "of log_loss less is better", "log_loss"),
    (
        f"{USUAL} TUNE (gamma BETWEEN 0 AND 1) BY GRID",
        "BY GRID tries every value, and between two numbers there is no end of them: gamma",
        "gamma BETWEEN 0 AND 1",
    ),
    (
        f"{USUAL} TUNE (n_estimators BETWEEN 1 AND 2000) BY GRID",
        "the grid has 2,000 combinations",
        "(n_estimators BETWEEN 1 AND 2000) BY GRID",
    ),
    (
        "TRAIN MODEL m TARGET y, z EXCLUDE (span) TUNE (max_depth IN (3))",
        "TUNE is for models of one target",
        "(max_depth IN (3))",
    ),
    (
        "TRAIN MODEL m USING isolation_forest EXCLUDE (span) TUNE (n_estimators IN (3))",
        "isolation_forest has no figure that TUNE could aim at",
        "(n_estimators IN (3))",
    ),
]


@pytest.mark.parametrize(("text", "message", "place"), WRONG, ids=[f"{t}"[:60] for t, _, _ in WRONG])
def test_refused(text: str, message: str | None, place: str) -> None:
    error = refused(text)
    assert message is None or error.message == message
    assert error.span is not None
    assert error.source is not None
    assert error.source[slice(*error.span)] == place
