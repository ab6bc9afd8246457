"""Jobs that train networks: every kind of column, matrices in files, killed processes, early stopping, refit, folds."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import xgboost
from sqlml_runners.process import RESTARTS, ProcessRunner

from sqlml.algorithms import xgboost_matrices
from sqlml.algorithms.mlp import MlpClassifier
from sqlml.bundles.model import Model
from sqlml.contracts import Event
from sqlml.errors import JobCrashed, TrainingDataError
from sqlml.plan import JobSpec, Limits, SplitPlan, TrainOutcome
from sqlml.training import fit, run_folds
from tests.jobs import Recorder, make_job, people, train

SMALL: dict[str, Any] = {"hidden": [16], "max_epochs": 5, "batch_size": 64}


def trained(folder: Path, target: str | Sequence[str] = "y", **how: Any) -> tuple[Model, TrainOutcome, Recorder]:
    name = how.pop("name", "mlp_regressor" if target == "z" else "mlp_classifier")
    options = SMALL | how.pop("options", {})
    exclude = [c for c in ("y", "z", "w") if c != target and c not in target]
    return train(folder, how.pop("table", people()), target, name, exclude=exclude, options=options, **how)


@pytest.mark.parametrize("target", ["y", "z"])
def test_every_kind_of_column(tmp_path: Path, target: str) -> None:
    model, outcome, report = trained(tmp_path, target, options={"max_epochs": 40, "patience": 0})
    held = outcome.metrics["heldout"]
    assert (held["roc_auc"] or 0) > 0.85 if target == "y" else (held["r2"] or 0) > 0.6
    assert {split for _, split, _, _ in outcome.curves} == {"train", "heldout", "job"}
    assert len(report.steps) == 40
    assert outcome.libraries["torch"].startswith("2.")
    assert outcome.peak_gpu_memory == 0
    assert model.head.manifest.onnx
    assert (model.head.manifest.onnx_max_difference or 0) <= 1e-5
    assert not (tmp_path / "fits").exists()


def test_nothing_but_nulls_unseen_texts_and_infinities(tmp_path: Path) -> None:
    model, _, _ = trained(tmp_path)
    odd = {i.name: pa.nulls(3) for i in model.inputs} | {
        "町": pa.array([None, "nowhere", "東京"]),
        "x": pa.array([float("inf"), float("-inf"), float("nan")]),
    }
    assert np.isfinite(model.raw(pa.table(odd))).all()
    reasons = model.reasons(pa.table(odd), 3)
    assert [len(row) for row in reasons.to_pylist()] == [3, 3, 3]


def test_a_family_takes_what_the_target_is(tmp_path: Path) -> None:
    _, outcome, report = trained(tmp_path, ("y", "z"), name="mlp")
    assert outcome.algorithm == "mlp_classifier, mlp_regressor"
    assert any("using mlp_classifier" in notice for notice in report.notices)


def test_one_class_is_refused(tmp_path: Path) -> None:
    table = people(50).set_column(7, "y", pa.array(["yes"] * 50))
    with pytest.raises(TrainingDataError, match="one value only"):
        trained(tmp_path, table=table)


def test_rows_for_early_stopping_are_taken_unless_it_is_off(tmp_path: Path) -> None:
    _, _, report = trained(tmp_path / "on")
    assert "valid_logloss" in report.steps[0][2]
    _, _, report = trained(tmp_path / "off", options={"patience": 0})
    assert "valid_logloss" not in report.steps[0][2]


def test_refit_takes_as_many_epochs_as_were_best(tmp_path: Path) -> None:
    first, _, _ = trained(tmp_path / "a", options={"patience": 1, "max_epochs": 60, "learning_rate": 0.03})
    again, outcome, _ = trained(tmp_path / "b", options={"patience": 1, "max_epochs": 60, "learning_rate": 0.03, "refit": True})
    assert again.predictor.parameters()["rounds"] == first.predictor.parameters()["rounds"]
    assert outcome.rows == 400


def test_folds(tmp_path: Path) -> None:
    spec = make_job(
        tmp_path,
        people(),
        "y",
        "mlp_classifier",
        exclude=["z", "w"],
        options=SMALL,
        split=SplitPlan("fold", folds=3),
        kind="folds",
    )
    assert len(run_folds(spec, Recorder()).metrics) == 3
    assert not (tmp_path / "fits").exists()


# --- matrices in files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("how", ["plain", "validated", "transform"])
def test_rows_in_files_give_the_same_bundle(tmp_path: Path, how: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the file is filled in any order, or from its beginning to its end."""
    more: dict[str, Any] = {"validation": people(100, seed=5)} if how == "validated" else {}
    if how == "transform":
        more = {"transform": ["ML.STANDARD_SCALER(x) OVER () AS s", "町"]}
    seen: list[type] = []
    plain, outcome, _ = trained(tmp_path / "memory", **more)
    monkeypatch.setattr(fit, "FILE_BYTES", 0)
    monkeypatch.setattr(MlpClassifier, "streams", 0.0)
    monkeypatch.setattr(fit, "BATCH", 4_000)
    monkeypatch.setattr(fit, "IN_MEMORY", share)
    learn = fit._data

    def spy(*given: Any) -> Any:
        seen.extend(type(part) for part in (given[-1].train, given[-1].valid, given[-1].held))
        return learn(*given)

    monkeypatch.setattr(fit, "_data", spy)
    _, again, _ = trained(tmp_path / "files", **more)
    assert seen == [np.memmap] * 3
    assert again.bundle_sha256 == outcome.bundle_sha256
    assert again.metrics == outcome.metrics
    assert plain.manifest.heads


def test_other_algorithms_get_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "FILE_BYTES", 0)
    monkeypatch.setattr(fit, "file_matrix", None)  # whoever asked for a file would fail
    _, outcome, _ = train(tmp_path, people(100), "y", "random_forest_classifier", exclude=["z", "w"], options={"n_estimators": 2})
    assert outcome.rows == 80


def _noted(kind: Any, made: list[str]) -> Any:
    """A class of XGBoost's that notes what is made of it."""

    def make(rows: Any, *given: Any, **more: Any) -> Any:
        assert isinstance(rows, xgboost.DataIter)
        made.append(kind.__name__)
        return kind(rows, *given, **more)

    return make


@pytest.mark.parametrize("where", ["file", "disk"])
@pytest.mark.parametrize("how", ["plain", "validated"])
def test_trees_from_rows_in_files_are_the_same(tmp_path: Path, where: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``disk``: XGBoost's bins lie there, too."""
    more: dict[str, Any] = {"validation": people(100, seed=5)} if how == "validated" else {}
    more |= {"exclude": ["z"], "weight": "w", "options": {"n_estimators": 5, "early_stopping_rounds": 3}}
    _, outcome, _ = train(tmp_path / "memory", people(), "y", "xgboost_classifier", **more)
    monkeypatch.setattr(fit, "FILE_BYTES", 0)
    monkeypatch.setattr(xgboost_matrices, "PIECE", 2_000)
    monkeypatch.setattr(xgboost_matrices, "BINS_SHARE", 1.0 if where == "file" else 0.0)
    made: list[str] = []
    for kind in ("QuantileDMatrix", "ExtMemQuantileDMatrix"):
        monkeypatch.setattr(xgboost, kind, _noted(getattr(xgboost, kind), made))
    _, again, _ = train(tmp_path / "files", people(), "y", "xgboost_classifier", **more)
    assert made == [{"file": "QuantileDMatrix", "disk": "ExtMemQuantileDMatrix"}[where]] * 3
    assert again.bundle_sha256 == outcome.bundle_sha256
    assert again.metrics == outcome.metrics


# --- killed processes -------------------------------------------------------------------------------------------------


class Killer:
    """Kills a job's process after the steps given, each once, and keeps what it hears."""

    def __init__(self, spec: JobSpec, steps: Sequence[int]) -> None:
        self.left = list(steps)
        self.notices: list[str] = []
        self.steps: list[int] = []
        self.job = ProcessRunner().submit(spec)

    def wait(self) -> None:
        self.job.wait(self.hear)

    def hear(self, event: Event) -> None:
        if event["event"] == "notice":
            self.notices.append(event["text"])
        if event["event"] == "step":
            self.steps.append(event["step"])
            if self.left and event["step"] == self.left[0]:
                self.left.pop(0)
                assert self.job.pid is not None
                os.kill(self.job.pid, signal.SIGKILL)


def long_job(folder: Path, epochs: int = 40) -> JobSpec:
    options = SMALL | {"max_epochs": epochs, "patience": 0, "batch_size": 12}
    return make_job(folder, people(1_500), "y", "mlp_classifier", exclude=["z", "w"], options=options, limits=Limits(threads=1))


def outcome_of(spec: JobSpec) -> TrainOutcome:
    return TrainOutcome.from_json(json.loads((spec.folder / "result.json").read_text(encoding="utf-8")))


def test_a_killed_process_is_taken_up_again_to_the_same_model(tmp_path: Path) -> None:
    whole, killed = long_job(tmp_path / "whole"), long_job(tmp_path / "killed")
    ProcessRunner().submit(whole).wait(lambda _: None)
    killer = Killer(killed, [7, 25])
    killer.wait()
    one, two = outcome_of(whole), outcome_of(killed)
    assert one.bundle_sha256 == two.bundle_sha256
    assert one.metrics == two.metrics
    curves = [[c for c in outcome.curves if c[1] != "job"] for outcome in (one, two)]
    assert curves[0] == curves[1]
    again = [notice for notice in killer.notices if "died" in notice]
    assert len(again) == 2
    assert all(notice.startswith("the job's process died (SIGKILL); it goes on from step ") for notice in again)
    assert int(again[0].split()[-1]) >= 1
    assert int(again[1].split()[-1]) > int(again[0].split()[-1])
    assert len(set(killer.notices)) == len(killer.notices)
    assert not (killed.folder / "fits").exists()


def test_not_more_often_than_that(tmp_path: Path) -> None:
    spec = long_job(tmp_path, 300)
    killer = Killer(spec, [5, 40, 80])
    with pytest.raises(JobCrashed, match=r"died: signal 9 \(SIGKILL\)"):
        killer.wait()
    assert sum("it goes on" in notice for notice in killer.notices) == RESTARTS
    assert killer.job.pid is not None
    assert not psutil.pid_exists(killer.job.pid)


def test_without_a_checkpoint_a_killed_process_is_the_end(tmp_path: Path) -> None:
    spec = long_job(tmp_path)
    plan = replace(spec.train, algorithm="xgboost_classifier", options={"n_estimators": 100_000})
    killer = Killer(replace(spec, plan=plan), [5])
    with pytest.raises(JobCrashed):
        killer.wait()
    assert not any("it goes on" in notice for notice in killer.notices)
