"""TUNE: which options are tried, on which rows, and what becomes of trials that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sqlml.errors import TrainingDataError
from sqlml.features.dataset import read_arrow
from sqlml.plan import Limits, SplitPlan, TrainOutcome, TunePlan
from sqlml.training.search import make_search
from tests.jobs import people, train

HOW: dict[str, Any] = {"exclude": ("z", "w")}
DEPTHS = {"max_depth": {"values": [1, 3, 6]}, "n_estimators": {"values": [2, 8]}}
RATES = {
    "learning_rate": {"low": 0.01, "high": 0.5, "log": True, "integer": False},
    "n_estimators": {"low": 2, "high": 8, "log": False, "integer": True},
    "max_depth": {"values": [2, 4]},
}


def plan(space: Any, method: str, trials: int, metric: str = "log_loss", maximize: bool = False) -> TunePlan:
    return TunePlan(space, method, trials, metric, maximize)


def asked(tune: TunePlan, seed: int = 0) -> list[dict[str, Any]]:
    search, found = make_search(tune, seed), []
    for _ in range(tune.trials):
        options = search.ask()
        if options is None:
            break
        search.tell(options.get("learning_rate", 1.0))
        found.append(options)
    return found


def test_a_grid_is_every_combination() -> None:
    found = asked(plan(DEPTHS, "grid", 6))
    assert found[:3] == [{"max_depth": d, "n_estimators": n} for d, n in ((1, 2), (1, 8), (3, 2))]
    assert len({json.dumps(one) for one in found}) == 6
    assert len(asked(plan(DEPTHS, "grid", 4))) == 4


@pytest.mark.parametrize("method", ["random", "bayesian"])
def test_ranges_are_kept_and_seeded(method: str) -> None:
    found = asked(plan(RATES, method, 12))
    assert len(found) == 12
    assert found == asked(plan(RATES, method, 12))
    assert found != asked(plan(RATES, method, 12), seed=1)
    for one in found:
        assert 0.01 <= one["learning_rate"] <= 0.5
        assert isinstance(one["n_estimators"], int)
        assert 2 <= one["n_estimators"] <= 8
        assert one["max_depth"] in (2, 4)


def test_random_tries_nothing_twice_in_a_small_space() -> None:
    found = asked(plan(DEPTHS, "random", 6))
    assert len({json.dumps(one, sort_keys=True) for one in found}) == 6


def test_a_logarithmic_range_of_integers() -> None:
    space = {"n_estimators": {"low": 1, "high": 1000, "log": True, "integer": True}}
    values = [one["n_estimators"] for one in asked(plan({**space, "x": RATES["learning_rate"]}, "random", 200))]
    assert sum(value < 32 for value in values) > 70


@pytest.mark.parametrize("method", ["random", "grid", "bayesian"])
def test_the_best_is_taken(tmp_path: Path, method: str) -> None:
    tune = plan(DEPTHS, method, 6)
    model, outcome, report = train(tmp_path, people(), "y", "xgboost_classifier", tune=tune, **HOW)
    assert TrainOutcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    assert [trial["trial"] for trial in outcome.trials] == [1, 2, 3, 4, 5, 6]
    best = min(outcome.trials, key=lambda trial: trial["metrics"]["log_loss"])
    [chosen] = [trial for trial in outcome.trials if trial["chosen"]]
    assert chosen["metrics"] == best["metrics"]
    assert chosen["options"].items() <= dict(outcome.options).items()
    assert model.predictor.parameters()["rounds"] == chosen["options"]["n_estimators"]
    assert set(chosen) == {"trial", "options", "metrics", "seconds", "state", "chosen"}
    assert [step[:2] for step in report.steps[:6]] == [(i, 6) for i in range(1, 7)]
    assert set(report.steps[0][2]) == {"valid_log_loss"}
    assert max(step for step, *_ in outcome.curves) == chosen["options"]["n_estimators"]
    assert (outcome.rows, outcome.heldout_rows) == (320, 80)
    assert "tuning" in report.stages
    assert any(note.startswith("TUNE: ") for note in outcome.notes)


def test_the_same_again(tmp_path: Path) -> None:
    tune = plan(RATES, "bayesian", 6)
    first, second = (train(tmp_path / str(i), people(), "y", "xgboost_classifier", tune=tune, **HOW)[1] for i in (1, 2))
    assert first.bundle_sha256 == second.bundle_sha256
    assert [t["options"] for t in first.trials] == [t["options"] for t in second.trials]


def test_the_held_out_rows_take_no_part(tmp_path: Path) -> None:
    """Held-out labels turned round change the held-out figures, and nothing else."""
    table = people().append_column("part", pa.array([["train", "train", "validation", "test"][i % 4] for i in range(400)]))
    flipped = [{"yes": "no", "no": "yes"}[y] if i % 4 == 3 else y for i, y in enumerate(table["y"].to_pylist())]
    other = table.set_column(table.schema.get_field_index("y"), "y", pa.array(flipped))
    how: dict[str, Any] = {"split": SplitPlan("by", column="part"), "tune": plan(DEPTHS, "grid", 6), "key": (), **HOW}
    found = [train(tmp_path / str(i), rows, "y", "xgboost_classifier", **how)[1] for i, rows in enumerate((table, other))]
    assert found[0].metrics["heldout"] != found[1].metrics["heldout"]
    assert [t["metrics"] for t in found[0].trials] == [
        pytest.approx(t["metrics"], abs=0.02) for t in found[1].trials
    ]  # rows stand in another order
    assert found[0].rows == 300


def test_early_stopping_within_trials(tmp_path: Path) -> None:
    options = {"n_estimators": 50, "early_stopping_rounds": 2}
    tune = plan({"max_depth": {"values": [1, 4]}}, "grid", 2, "roc_auc", True)
    _, outcome, _ = train(tmp_path, people(), "y", "xgboost_classifier", options=options, tune=tune, **HOW)
    assert [t["state"] for t in outcome.trials] == ["done", "done"]


def test_time_splits_measure_on_the_latest(tmp_path: Path) -> None:
    table = people().append_column("t", pa.array(range(400)))
    tune = plan({"fit_intercept": {"values": [True, False]}}, "grid", 2, "rmse")
    _, outcome, _ = train(
        tmp_path, table, "z", "linear_regression", exclude=("y", "w"), split=SplitPlan("time", 0.2, "t"), tune=tune
    )
    assert len(outcome.trials) == 2
    assert len(read_arrow(tmp_path / "heldout.arrow")) == 80


def test_without_a_metric_the_task_has_one(tmp_path: Path) -> None:
    for algorithm, metric in ((None, "roc_auc"), ("kmeans", "davies_bouldin")):
        space = {"n_clusters": {"values": [2, 3]}} if algorithm else {"max_depth": {"values": [1, 2]}}
        options = {} if algorithm else {"n_estimators": 3}
        target = None if algorithm else "y"
        how: dict[str, Any] = {"exclude": ("z", "w", "y") if algorithm else ("z", "w"), "options": options}
        _, outcome, report = train(tmp_path, people(), target, algorithm, tune=plan(space, "grid", 2, ""), **how)
        assert set(report.steps[0][2]) == {f"valid_{metric}"}
        assert sum(t["chosen"] for t in outcome.trials) == 1


def test_a_failed_trial_does_not_end_the_job(tmp_path: Path) -> None:
    tune = plan({"n_clusters": {"values": [3, 5000]}}, "grid", 2, "davies_bouldin")
    _, outcome, report = train(tmp_path, people(), None, "kmeans", exclude=("y", "z", "w"), tune=tune)
    assert [(t["state"], t["chosen"]) for t in outcome.trials] == [("done", True), ("failed", False)]
    assert any(note.startswith("TUNE: 1 of 2 trials failed; the first: ") for note in report.notices)
    tune = plan({"n_clusters": {"values": [5000]}}, "grid", 1, "davies_bouldin")
    with pytest.raises(TrainingDataError, match="TUNE: all 1 trial failed"):
        train(tmp_path, people(), None, "kmeans", exclude=("y", "z", "w"), tune=tune)


def test_no_trial_begins_when_time_is_short(tmp_path: Path) -> None:
    tune = plan(RATES, "random", 10_000)
    how: dict[str, Any] = {"tune": tune, "limits": Limits(seconds=3.0, threads=2), **HOW}
    _, outcome, report = train(tmp_path, people(), "y", "xgboost_classifier", **how)
    assert 0 < len(outcome.trials) < 10_000
    assert any("most of the time limit" in note for note in report.notices)


def test_tuning_with_a_transform(tmp_path: Path) -> None:
    tune = plan({"fit_intercept": {"values": [True, False]}}, "grid", 2, "rmse")
    items = ("ML.STANDARD_SCALER(x) OVER () AS s", "町")
    _, outcome, _ = train(tmp_path, people(), "z", "linear_regression", transform=items, tune=tune)
    assert outcome.trials[0]["state"] == "done"


def test_a_metric_of_another_task(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match="TUNE aims at rmse, which a classification does not have"):
        train(tmp_path, people(), "y", tune=plan(DEPTHS, "grid", 6, "rmse"), **HOW)
