"""Class weights, fitting again on all rows, and going on from an earlier version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sqlml.algorithms.xgboost import XgboostRegressor
from sqlml.contracts import Algorithm
from sqlml.errors import BindError, TrainingDataError
from sqlml.features.dataset import read_arrow
from sqlml.plan import SplitPlan, StartPlan
from sqlml.registry import get_algorithm, names
from sqlml.training.aims import Learner
from sqlml.training.work import without_stop
from sqlml.types import Task
from tests.jobs import people, train

QUICK = {"n_estimators": 5}
HOW: dict[str, Any] = {"exclude": ("z", "w")}
CLASSIFIERS = [name for name in names("algorithm") if get_algorithm(name).task is Task.CLASSIFICATION]


def rare() -> pa.Table:
    """One row in eight or so is a yes, and hard to tell."""
    r = np.random.default_rng(0)
    x = r.normal(size=800)
    y = np.where(x + r.normal(size=800) * 1.5 > 2, "yes", "no")
    return pa.table({"x": x, "noise": r.normal(size=800), "y": y})


def yes_rows(folder: Path, algorithm: str, class_weight: Any) -> int:
    options: dict[str, Any] = {"class_weight": class_weight} | (
        {"n_estimators": 10} if "n_estimators" in _options(algorithm) else {}
    )
    model, _, _ = train(folder, rare(), "y", algorithm, options=options)
    return int(pc.sum(pc.equal(model.predict(rare()), "yes")).as_py())


def _options(algorithm: str) -> set[str]:
    return {option.name for option in get_algorithm(algorithm).options}


@pytest.mark.parametrize("algorithm", [name for name in CLASSIFIERS if "neighbors" not in name])
def test_class_weights(tmp_path: Path, algorithm: str) -> None:
    plain = yes_rows(tmp_path, algorithm, None)
    assert yes_rows(tmp_path, algorithm, "balanced") > plain
    assert yes_rows(tmp_path, algorithm, {"yes": 20}) > plain
    assert yes_rows(tmp_path, algorithm, {"no": 20, "yes": 1}) <= plain


def test_balanced_is_scikit_learns(tmp_path: Path) -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    from sqlml.training.aims import class_factors, find_aims
    from sqlml.training.record import Record, Silent
    from sqlml.training.source import read_source
    from tests.jobs import make_job

    plan = make_job(tmp_path, rare(), "y", "logistic_regression", options={"class_weight": "balanced"}).train
    [aim] = find_aims(plan, read_source(tmp_path / "train.arrow", plan, 1), 1, Record(Silent()))
    assert aim.y is not None
    assert class_factors(aim.learner, aim.y) == pytest.approx(compute_sample_weight("balanced", aim.y))


@pytest.mark.parametrize(
    ("target", "given", "meant"),
    [
        ("ok", {"true": 30, "false": 1}, {True: 30, False: 1}),
        ("k", {"2": 30}, {0: 1, 1: 1, 2: 30}),
        ("k", {"1.0": 30, "2": 2}, {0: 1, 1: 30, 2: 2}),
    ],
)
def test_classes_that_are_no_text(tmp_path: Path, target: str, given: dict[str, float], meant: dict[Any, float]) -> None:
    """A class is named as text, whatever its type; weighting its rows one by one teaches the same."""
    table = people().append_column("k", pa.array([i % 3 for i in range(400)]))
    table = table.filter(pc.is_valid(table[target]))
    by_hand = table.append_column("by hand", pa.array([float(meant[value]) for value in table[target].to_pylist()]))
    inputs = {"exclude": tuple(name for name in ("y", "z", "w", "k", "ok") if name != target)}

    def predicted(folder: str, rows: pa.Table, **more: Any) -> list[Any]:
        model, _, _ = train(tmp_path / folder, rows, target, "logistic_regression", **inputs, **more)
        answers: list[Any] = model.predict(table).to_pylist()
        return answers

    weighted = predicted("given", table, options={"class_weight": given})
    assert weighted == predicted("by hand", by_hand, weight="by hand")
    assert weighted != predicted("plain", table)


def test_a_class_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BindError) as caught:
        train(tmp_path, people(), "y", "logistic_regression", options={"class_weight": {"Yess": 2}}, **HOW)
    assert caught.value.message == "class_weight names the class Yess, which y does not have"
    assert caught.value.hint == "did you mean yes?"


def test_class_weights_do_not_touch_the_figures(tmp_path: Path) -> None:
    """Where the model cannot change, nor do its figures: a tree of one leaf scores every row alike."""
    options = {"n_estimators": 1, "max_depth": 1, "learning_rate": 1e-12, "base_score": 0.5}
    found = [
        train(tmp_path / str(i), people(), "y", "xgboost_classifier", options={**options, "class_weight": weight}, **HOW)[
            1
        ].metrics
        for i, weight in enumerate((None, {"yes": 50}))
    ]
    assert found[0] == {part: pytest.approx(figures) for part, figures in found[1].items()}


# --- refit ------------------------------------------------------------------------------------------------------------


def test_refit(tmp_path: Path) -> None:
    options = {"n_estimators": 60, "early_stopping_rounds": 3, "refit": True}
    plain = {**options, "refit": False}
    one, first, _ = train(tmp_path / "1", people(), "y", "xgboost_classifier", options=plain, **HOW)
    two, second, report = train(tmp_path / "2", people(), "y", "xgboost_classifier", options=options, **HOW)
    assert first.metrics == second.metrics
    assert (second.rows, second.heldout_rows) == (400, 80)
    assert first.bundle_sha256 != second.bundle_sha256
    assert read_arrow(tmp_path / "1" / "heldout.arrow") == read_arrow(tmp_path / "2" / "heldout.arrow")
    assert "refitting" in report.stages
    assert any("fitted again on all 400 rows" in note for note in second.notes)
    rounds = one.predictor.parameters()["rounds"]
    assert two.predictor.parameters()["rounds"] == rounds
    assert rounds < 60
    assert two.head.manifest.options["early_stopping_rounds"] is None


def test_refit_keeps_the_rounds_of_any_algorithm() -> None:
    """The option that counts them may have a name of the algorithm's own."""
    options = tuple(replace(o, name="trees") if o.name == "n_estimators" else o for o in XgboostRegressor.options)
    renamed = cast(Algorithm, type("Renamed", (XgboostRegressor,), {"rounds": "trees", "options": options})())
    learner = Learner(renamed, {"trees": 60, "early_stopping_rounds": 3}, None, 0, 1)
    assert without_stop(learner, 7).options == {"trees": 7, "early_stopping_rounds": None}
    assert without_stop(learner, None).options == {"trees": 60, "early_stopping_rounds": None}


def test_refit_of_encoders_and_transforms(tmp_path: Path) -> None:
    table = people().append_column("part", pa.array([i % 2 == 0 for i in range(400)]))
    table = table.append_column("kept", pa.array(["held" if i % 2 == 0 else ["a", "b"][i % 4 // 2] for i in range(400)]))
    how: dict[str, Any] = {"split": SplitPlan("by", column="part"), "transform": ("kept", "ML.STANDARD_SCALER(x) OVER () AS s")}
    one, _, _ = train(tmp_path / "1", table, "z", "linear_regression", **how)
    two, outcome, _ = train(tmp_path / "2", table, "z", "linear_regression", options={"refit": True}, **how)
    assert "held" not in one.encoder.columns[0].categories
    assert "held" in two.encoder.columns[0].categories
    assert one.manifest.transform != two.manifest.transform
    assert outcome.rows == 400


def test_refit_of_several_targets(tmp_path: Path) -> None:
    model, outcome, _ = train(tmp_path, people(), ("y", "z"), exclude=("w",), options={**QUICK, "refit": True})
    assert outcome.rows == 400
    assert len(model.heads) == 2


# --- warm start -------------------------------------------------------------------------------------------------------


def start_of(folder: Path, sha256: str) -> StartPlan:
    return StartPlan("m@1", str(folder / "bundle"), sha256)


def test_of_many_training_rows_the_loss_is_followed_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how: dict[str, Any] = {"options": {"n_estimators": 10}, **HOW}
    whole, outcome, _ = train(tmp_path / "1", people(), "y", "xgboost_classifier", **how)
    monkeypatch.setattr("sqlml.algorithms.xgboost._FOLLOWED_ROWS", 150)  # of some 320
    some, others, report = train(tmp_path / "2", people(), "y", "xgboost_classifier", **how)
    assert [step for step, *_ in report.steps] == list(range(1, 11))

    def curve(found: Any, part: str) -> dict[int, float]:
        return {step: value for step, own, metric, value in found.curves if (own, metric) == (part, "logloss")}

    assert list(curve(others, "train")) == [3, 6, 9, 10]
    assert curve(others, "train") == {step: curve(outcome, "train")[step] for step in (3, 6, 9, 10)}
    assert curve(others, "heldout") == curve(outcome, "heldout")
    assert np.array_equal(whole.raw(people()), some.raw(people()))


def test_boosting_goes_on(tmp_path: Path) -> None:
    how: dict[str, Any] = {"options": {"n_estimators": 10}, **HOW}
    first, outcome, _ = train(tmp_path / "1", people(), "y", "xgboost_classifier", **how)
    start = start_of(tmp_path / "1", outcome.bundle_sha256)
    more = people(300, seed=5)
    second, outcome, report = train(tmp_path / "2", more, "y", "xgboost_classifier", start=start, **how)
    assert second.predictor.parameters()["rounds"] == 20
    assert [step for step, *_ in report.steps] == list(range(11, 21))
    assert min(step for step, *_ in outcome.curves) == 11
    assert second.encoder.to_json() == first.encoder.to_json()
    refit, _, _ = train(
        tmp_path / "3", more, "y", "xgboost_classifier", start=start, **{**how, "options": {"n_estimators": 10, "refit": True}}
    )
    assert refit.predictor.parameters()["rounds"] == 20


@pytest.mark.parametrize(("algorithm", "target"), [("logistic_regression", "y"), ("kmeans", None)])
def test_others_go_on(tmp_path: Path, algorithm: str, target: str | None) -> None:
    how: dict[str, Any] = {"exclude": ("y", "z", "w")}
    _, outcome, _ = train(tmp_path / "1", people(), target, algorithm, **how)
    start = start_of(tmp_path / "1", outcome.bundle_sha256)
    model, _, _ = train(tmp_path / "2", people(300, seed=5), target, algorithm, start=start, **how)
    assert model.full(people()).num_rows == 400


def test_the_transform_goes_on(tmp_path: Path) -> None:
    how: dict[str, Any] = {"transform": ("ML.STANDARD_SCALER(x) OVER () AS s",), "options": QUICK}
    first, outcome, _ = train(tmp_path / "1", people(), "y", "xgboost_classifier", **how)
    start = start_of(tmp_path / "1", outcome.bundle_sha256)
    second, _, _ = train(tmp_path / "2", people(300, seed=5), "y", "xgboost_classifier", start=start, **how)
    assert first.manifest.transform == second.manifest.transform


def test_classes_of_the_start(tmp_path: Path) -> None:
    table = people()
    three = table.set_column(table.schema.get_field_index("y"), "y", pa.array(["yes", "no", "maybe", "no"] * 100))
    _, outcome, _ = train(tmp_path / "1", three, "y", "xgboost_classifier", options=QUICK, **HOW)
    start = start_of(tmp_path / "1", outcome.bundle_sha256)
    model, _, _ = train(tmp_path / "2", table, "y", "xgboost_classifier", start=start, options=QUICK, **HOW)
    assert model.classes == ("maybe", "no", "yes")
    _, outcome, _ = train(tmp_path / "3", table, "y", "xgboost_classifier", options=QUICK, **HOW)
    start = start_of(tmp_path / "3", outcome.bundle_sha256)
    with pytest.raises(TrainingDataError) as caught:
        train(tmp_path / "4", three, "y", "xgboost_classifier", start=start, options=QUICK, **HOW)
    assert caught.value.message == "WARM START cannot add classes: y has maybe, the version has no, yes"


def test_what_is_told_after_a_refit_is_of_the_model_in_the_bundle(tmp_path: Path) -> None:
    """The transform of the second fit, which has seen all rows, makes the sample; encodings and figures of inputs are its own."""
    table = pa.table({"x": [float(i) for i in range(100)], "z": [2.0 * i + i % 3 for i in range(100)]})
    how: dict[str, Any] = {"transform": ("ML.STANDARD_SCALER(x) OVER () AS s",)}
    plain, first, _ = train(tmp_path / "1", table, "z", "linear_regression", **how)
    model, second, _ = train(tmp_path / "2", table, "z", "linear_regression", options={"refit": True}, **how)
    assert plain.transform is not None
    assert model.transform is not None
    for folder, fitted in ((tmp_path / "1", plain.transform), (tmp_path / "2", model.transform)):
        every = fitted.apply({"x": table["x"]}, 100)["s"].to_pylist()
        assert set(read_arrow(folder / "sample.arrow")["s"].to_pylist()) < set(every)
    assert second.encodings["x"] != first.encodings["x"]
    assert model.transform.describe()[0][1] in second.encodings["x"]
    assert (first.feature_info[0]["min"], second.feature_info[0]["mean"]) == (second.feature_info[0]["min"], 49.5)
    assert first.feature_info[0]["mean"] != 49.5
    assert second.metrics == first.metrics
    assert read_arrow(tmp_path / "1" / "heldout.arrow").equals(read_arrow(tmp_path / "2" / "heldout.arrow"))


@pytest.mark.parametrize(("algorithm", "target"), [("isolation_forest", None), ("kmeans", None), ("linear_regression", "z")])
def test_which_rows_the_sample_is_of(tmp_path: Path, algorithm: str, target: str | None) -> None:
    """Without a target training rows: limits and radii are of what was learnt from; else held-out rows."""
    table = pa.table({"x": [float(i) for i in range(100)], "z": [2.0 * i + i % 3 for i in range(100)]})
    options = {"n_clusters": 3} if algorithm == "kmeans" else {}
    table = table.append_column("id", table["x"])
    train(tmp_path, table, target, algorithm, key=("id",), exclude=() if target else ("z",), options=options)
    held = set(read_arrow(tmp_path / "heldout.arrow")["key:id"].to_pylist())
    sample = set(read_arrow(tmp_path / "sample.arrow")["x"].to_pylist())
    assert sample == (held if target else set(table["x"].to_pylist()) - held)
