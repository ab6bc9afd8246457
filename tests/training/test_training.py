"""The training job: from Arrow rows to a bundle and an outcome, on real data and on data that cannot be learnt from."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest

import sqlml
from sqlml.bundles.model import Model
from sqlml.errors import BindError, JobCancelled, TrainingDataError
from sqlml.features.dataset import read_arrow
from sqlml.plan import JobSpec, SplitPlan, TrainOutcome
from sqlml.registry import candidates
from sqlml.training import choose_algorithm, run_training
from tests.jobs import Recorder, make_job, people, train

BANK = Path(sqlml.__file__).parent / "data" / "bank_marketing.csv.gz"
QUICK = {"n_estimators": 5}
ALL = ("xgboost_classifier", "xgboost_regressor", "logistic_regression", "linear_regression", "kmeans")


@pytest.fixture(scope="module")
def bank() -> pa.Table:
    return pyarrow.csv.read_csv(io.BytesIO(gzip.decompress(BANK.read_bytes())))


def target_of(algorithm: str) -> str | None:
    return {"xgboost_classifier": "y", "logistic_regression": "y", "kmeans": None}.get(algorithm, "z")


def options_of(algorithm: str) -> dict[str, Any]:
    return QUICK if algorithm.startswith("xgb") else {}


@pytest.mark.parametrize("algorithm", ALL)
def test_same_rows_in_another_order_give_the_same_bundle(tmp_path: Path, algorithm: str) -> None:
    table = people()
    how: dict[str, Any] = {"exclude": ("y", "z", "w"), "options": options_of(algorithm)}
    model, one, _ = train(tmp_path / "1", table, target_of(algorithm), algorithm, **how)
    shuffled = table.take(pa.array(np.random.default_rng(1).permutation(len(table))))
    _, two, _ = train(tmp_path / "2", shuffled, target_of(algorithm), algorithm, **how)
    assert one.bundle_sha256 == two.bundle_sha256
    assert one.fingerprint == two.fingerprint
    assert one.metrics == two.metrics
    onnx = model.head.manifest.onnx
    assert onnx is not None
    assert (model.folder / onnx).is_file()
    _, other, _ = train(tmp_path / "3", table, target_of(algorithm), algorithm, seed=1, **how)
    assert other.bundle_sha256 != one.bundle_sha256


@pytest.mark.parametrize("algorithm", ALL)
def test_outcome(tmp_path: Path, algorithm: str) -> None:
    how: dict[str, Any] = {"exclude": ("y", "z"), "weight": "w", "options": options_of(algorithm)}
    model, outcome, report = train(tmp_path, people(), target_of(algorithm), algorithm, **how)
    assert TrainOutcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    assert (outcome.rows, outcome.heldout_rows) == (320, 80)
    assert set(outcome.metrics) == {"train", "heldout"}
    assert all(value is not None for name, value in outcome.metrics["heldout"].items() if name != "msle")
    assert outcome.curves
    assert outcome.peak_memory > 10_000_000
    assert outcome.options["seed"] == 0
    assert {"python", "sqlml", "numpy", "pyarrow"} < set(outcome.libraries)
    assert "unknown" not in outcome.libraries.values()
    assert report.stages == ["reading", "training", "evaluating", "saving"]
    heldout = read_arrow(tmp_path / "heldout.arrow")
    raw = np.array(heldout["raw_0"].to_pylist())
    if target_of(algorithm) == "y":
        again = model.head.evaluate(raw, heldout["actual_0"], heldout["weight"])
        assert again == pytest.approx(outcome.metrics["heldout"])
    elif target_of(algorithm):
        again = model.head.evaluate(raw[:, 0], heldout["actual_0"], heldout["weight"])
        assert again == pytest.approx(outcome.metrics["heldout"])
    example = model.manifest.example
    assert set(example) == {i.name for i in model.inputs}
    assert None not in example.values()
    assert isinstance(example["count of"], int)
    assert isinstance(example["day"], str)


@pytest.mark.slow
def test_bank_marketing_against_a_hand_written_script(bank: pa.Table, tmp_path: Path) -> None:
    """The same rows for training and testing, encoded by hand with pandas' categories."""
    xgboost = pytest.importorskip("xgboost")
    from sklearn.metrics import roc_auc_score

    model, outcome, report = train(tmp_path, bank, "y", exclude=("duration",))
    assert "y has the values no (88.3 %), yes (11.7 %): using xgboost_classifier" in report.notices
    assert report.notices == list(outcome.notes)
    assert (outcome.algorithm, outcome.rows, outcome.heldout_rows) == ("xgboost_classifier", 36_169, 9_042)
    features = [i.name for i in model.inputs]
    held = np.zeros(len(bank), bool)
    held[_heldout_numbers(tmp_path, bank)] = True
    columns = [bank[name] for name in features]
    is_text = [pa.types.is_string(c.type) for c in columns]
    x = np.column_stack(
        [
            np.unique(c.to_numpy(), return_inverse=True)[1] if text else c.to_numpy().astype(float)
            for c, text in zip(columns, is_text, strict=True)
        ]
    )
    y = (bank["y"].to_numpy() == "yes").astype(int)
    types = ["c" if text else "q" for text in is_text]
    script = xgboost.XGBClassifier(n_jobs=2, enable_categorical=True, feature_types=types).fit(x[~held], y[~held])
    theirs = roc_auc_score(y[held], script.predict_proba(x[held])[:, 1])
    assert outcome.metrics["heldout"]["roc_auc"] == pytest.approx(theirs, abs=0.005)
    rows = bank.filter(pa.array(held))
    assert model.evaluate(rows, rows["y"])["roc_auc"] == pytest.approx(outcome.metrics["heldout"]["roc_auc"])


def _heldout_numbers(folder: Path, table: pa.Table) -> Any:
    """The rows that a job with these settings holds out."""
    from sqlml.features.dataset import read_dataset
    from sqlml.features.split import split_rows
    from sqlml.types import kind_of_arrow

    columns = {name: kind_of_arrow(table[name].type) for name in table.column_names if name not in ("duration", "y")}
    data = read_dataset(folder / "train.arrow", {**columns, "y": None})
    codes = (table["y"].to_numpy() == "yes").astype(np.int64)[data.order]
    return split_rows(data.order, 0.2, 0, codes)[1]


# --- which rows -------------------------------------------------------------------------------------------------------


def test_early_stopping_takes_its_rows_from_the_training_part(tmp_path: Path) -> None:
    options = {"n_estimators": 300, "early_stopping_rounds": 3, "validation_fraction": 0.25}
    _, outcome, report = train(tmp_path, people(), "y", "xgboost_classifier", exclude=("z", "w"), options=options)
    assert (outcome.rows, outcome.heldout_rows) == (320, 80)
    assert len(report.steps) < 300
    assert {part for _, part, _, _ in outcome.curves} == {"train", "valid", "heldout", "job"}


def test_no_split(tmp_path: Path) -> None:
    _, outcome, _ = train(tmp_path, people(), "z", "linear_regression", exclude=("y", "w"), split=SplitPlan("none"))
    assert (outcome.rows, outcome.heldout_rows) == (400, 0)
    assert set(outcome.metrics) == {"train"}
    assert len(read_arrow(tmp_path / "heldout.arrow")) == 0


def test_validation_query(tmp_path: Path) -> None:
    extra = people(50, seed=3)
    extra = extra.set_column(extra.schema.get_field_index("y"), "y", pa.array(["maybe", None, *extra["y"].to_pylist()[2:]]))
    how: dict[str, Any] = {"exclude": ("z", "w"), "options": QUICK, "validation": extra}
    _, outcome, report = train(tmp_path, people(), "y", "xgboost_classifier", **how)
    assert (outcome.rows, outcome.heldout_rows) == (400, 48)
    assert "2 of 50 validation rows are left out: their y is NULL or a class without training rows" in report.notices
    with pytest.raises(TrainingDataError, match="VALIDATE ON gave no rows"):
        train(tmp_path / "none", people(), "y", "xgboost_classifier", **{**how, "validation": extra.slice(0, 0)})
    _, _, report = train(tmp_path / "one", people(), "y", "xgboost_classifier", **{**how, "validation": extra.slice(1, 9)})
    assert "1 of 9 validation rows is left out: its y is NULL or a class without training rows" in report.notices


VALIDATED = [
    ("y", pa.array(["maybe"] * 50), "none of the 50 rows of VALIDATE ON has a y that the model knows: no, yes"),
    ("y", pa.nulls(50, pa.string()), "none of the 50 rows of VALIDATE ON has a y that the model knows: no, yes"),
    ("z", pa.nulls(50, pa.float64()), "none of the 50 rows of VALIDATE ON has a z that is a finite number"),
    ("z", pa.array(["old"] * 50), "target z is text, and xgboost_regressor predicts numbers"),
]


@pytest.mark.parametrize(("target", "labels", "message"), VALIDATED)
def test_validation_rows_without_a_label_to_measure(tmp_path: Path, target: str, labels: pa.Array, message: str) -> None:
    extra = people(50, seed=3)
    extra = extra.set_column(extra.schema.get_field_index(target), target, labels)
    algorithm = {"y": "xgboost_classifier", "z": "xgboost_regressor"}[target]
    others = tuple({"y", "z", "w"} - {target})
    with pytest.raises(TrainingDataError) as caught:
        train(tmp_path, people(), target, algorithm, exclude=others, options=QUICK, validation=extra)
    assert caught.value.message == message
    assert not (tmp_path / "bundle").exists()


def test_rows_without_target_are_left_out(tmp_path: Path) -> None:
    table = people()
    y = pa.array([None if i % 4 == 0 else v for i, v in enumerate(table["z"].to_pylist())])
    _, outcome, report = train(tmp_path, table.set_column(8, "z", y), "z", "linear_regression", exclude=("y", "w"))
    assert outcome.rows + outcome.heldout_rows == 300
    assert "100 of 400 rows are left out: their z is NULL" in report.notices


def test_a_class_with_one_row_is_kept_for_training(tmp_path: Path) -> None:
    table = people()
    y = pa.array(["rare", *table["y"].to_pylist()[1:]])
    model, _, report = train(tmp_path, table.set_column(7, "y", y), "y", exclude=("z", "w"), options=QUICK)
    assert model.classes == ("no", "rare", "yes")
    assert "y has one row only of rare: it is kept for training" in report.notices


def test_weights_move_the_result(tmp_path: Path) -> None:
    even, _, _ = train(tmp_path / "even", people(), "y", "logistic_regression", exclude=("z", "w"))
    assert even.predict(people()).to_pylist().count("yes") < 220
    table = people().append_column("heavy", pc.if_else(pc.equal(people()["y"], "yes"), 100.0, 1.0))
    model, _, _ = train(tmp_path, table, "y", "logistic_regression", exclude=("z", "w"), weight="heavy")
    assert model.predict(table).to_pylist().count("yes") > 250


# --- what cannot be learnt --------------------------------------------------------------------------------------------

WORDS = [f"w{i}" for i in range(400)]
REFUSED = [
    (people(0), "y", None, {}, "the query gave no rows: there is nothing to learn from"),
    (people().append_column("t", pa.nulls(400)), "t", None, {}, "target t is NULL in all 400 rows: there is nothing to learn"),
    (
        people().append_column("t", pa.array([np.nan] * 400)),
        "t",
        None,
        {},
        "target t is NULL in all 400 rows: there is nothing to learn",
    ),
    (
        people().append_column("t", pa.array(["no"] * 400)),
        "t",
        None,
        {},
        "target t has one value only: 'no'; there is nothing to tell apart",
    ),
    (
        people().append_column("t", pa.array([True] * 400)),
        "t",
        None,
        {},
        "target t has one value only: true; there is nothing to tell apart",
    ),
    (
        people().append_column("t", pa.array([5] * 400)),
        "t",
        "xgboost_regressor",
        {},
        "target t has one value only: 5; there is nothing to learn",
    ),
    (
        people(3).append_column("t", pa.array([1, 2, 3])),
        "t",
        "xgboost_classifier",
        {},
        "target t has 3 different values in 3 rows: there must be more rows than classes",
    ),
    (
        people().append_column("t", pa.array([*WORDS[:300], *WORDS[:100]])),
        "t",
        None,
        {},
        "target t has 300 different values, too many for classes",
    ),
    (people(), "day", None, {}, "target day is of a type that cannot be learnt (date32[day])"),
    (people(), "y", "xgboost_regressor", {}, "target y is text, and xgboost_regressor predicts numbers"),
    (
        people().append_column("t", pa.array([np.inf, *range(399)])),
        "t",
        "linear_regression",
        {},
        "target t is infinite in 1 row: leave what is infinite out with WHERE",
    ),
    (
        people().append_column("q", pa.array([-1.0, *[1.0] * 399])),
        "y",
        None,
        {"weight": "q"},
        "weight q must be finite and not below 0 (lowest -1, highest 1)",
    ),
    (
        people().append_column("q", pa.array([None, *[1.0] * 399])),
        "y",
        None,
        {"weight": "q"},
        "weight q is NULL in 1 row: use coalesce(q, 1)",
    ),
    (
        people().append_column("q", pa.array([0.0] * 400)),
        "y",
        None,
        {"weight": "q"},
        "weight q is 0 in all rows: there is nothing to learn from",
    ),
    (
        pa.table({"a": [1] * 9, "y": [1, 2] * 4 + [1]}),
        "y",
        None,
        {},
        "the only feature column, a, does not vary in the training rows: there is nothing to learn from",
    ),
    (
        pa.table({"a": [1] * 9, "b": ["x"] * 9, "y": [1, 2] * 4 + [1]}),
        "y",
        None,
        {},
        "none of the 2 feature columns varies in the training rows: there is nothing to learn from",
    ),
    (
        people(1).append_column("t", pa.nulls(1)),
        "t",
        None,
        {},
        "target t is NULL in the only row: there is nothing to learn",
    ),
    (pa.table({"y": [1, 2] * 5}), "y", None, {}, "there are no feature columns left to learn from"),
]


@pytest.mark.parametrize(("table", "target", "algorithm", "how", "message"), REFUSED, ids=[m[:40] for *_, m in REFUSED])
def test_refused(tmp_path: Path, table: pa.Table, target: str, algorithm: str | None, how: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingDataError) as caught:
        train(tmp_path, table, target, algorithm, **how)
    assert caught.value.message == message
    assert not (tmp_path / "bundle" / "manifest.json").exists()


def test_wrong_option_in_the_worker(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="xgboost_classifier has no option depth"):
        train(tmp_path, people(), "y", options={"depth": 3})


def test_cancel(tmp_path: Path) -> None:
    class Cancelling(Recorder):
        def step(self, *_: Any) -> None:
            raise JobCancelled("cancelled")

    spec = make_job(tmp_path, people(), "y", "xgboost_classifier")
    with pytest.raises(JobCancelled):
        run_training(spec, Cancelling())
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("values", "name", "notice"),
    [
        (pa.array([1, 0, 0, None]), "xgboost_classifier", "t has the values 0 (66.7 %), 1 (33.3 %): using xgboost_classifier"),
        (pa.array([1.5, 0, 0, 2]), "xgboost_regressor", "t is a number with 3 different values: using xgboost_regressor"),
        (
            pa.array([True, False]),
            "xgboost_classifier",
            "t has the values true (50.0 %), false (50.0 %): using xgboost_classifier",
        ),
        (
            pa.array(list("aabcdefg")),
            "xgboost_classifier",
            "t has the values a (25.0 %), b (12.5 %), c (12.5 %), d (12.5 %), e (12.5 %), … (2 more): using xgboost_classifier",
        ),
    ],
)
def test_choose_algorithm(values: pa.Array, name: str, notice: str) -> None:
    chosen, said = choose_algorithm("t", values, candidates(None))
    assert (chosen.name, said) == (name, notice)


# --- hard data --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALL)
def test_adversarial_columns(tmp_path: Path, algorithm: str) -> None:
    """Infinite, huge, unique, nearly all NULL, empty text, and the ends of time: trained, exported and predicted with."""
    r = np.random.default_rng(0)
    n = 300
    x = r.normal(size=n)
    table = pa.table(
        {
            "x": x,
            "inf": np.where(r.random(n) < 0.1, np.inf, x),
            "huge": x * 1e300,
            "tiny": x * 1e-300,
            "uuid": [f"{i:032x}" for i in range(n)],
            "gaps": pa.array([1.0, *[None] * (n - 1)]),
            "empty": r.choice(["", " ", "\n", "\U0001f600", "a" * 1000], n),
            "long name " * 20: r.integers(0, 3, n),
            "end": pa.array(np.where(r.random(n) < 0.1, 2**63 - 1, r.integers(0, 10**15, n)), pa.timestamp("us")),
            "y": np.where(x > 0, "'yes'", "n\no"),
            "z": x,
        }
    )
    how: dict[str, Any] = {"exclude": ("y", "z"), "options": options_of(algorithm), "split": SplitPlan("random", 0.3)}
    model, outcome, _ = train(tmp_path, table, target_of(algorithm), algorithm, **how)
    full = model.full(table)
    assert full.num_rows == n
    assert full.column(0).null_count == 0
    assert all(v is None or np.isfinite(v) for part in outcome.metrics.values() for v in part.values())
    assert np.isfinite(model.contributions(table)).all()


def test_tiny_data(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0, 3.0], "y": ["a", "b", "b"]})
    model, outcome, _ = train(tmp_path, table, "y", options=QUICK)
    assert outcome.heldout_rows == 0
    assert len(model.predict(table)) == 3


def test_job_document_survives_json(tmp_path: Path) -> None:
    spec = make_job(tmp_path, people(5), "y", options={"n_estimators": 3})
    assert JobSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_a_second_run_in_the_same_folder_replaces_the_first(tmp_path: Path) -> None:
    spec = make_job(tmp_path, people(), "z", "linear_regression", exclude=("y", "w"))
    first = run_training(spec, Recorder())
    assert run_training(spec, Recorder()).bundle_sha256 == first.bundle_sha256
    Model.open(tmp_path / "bundle", first.bundle_sha256)


def test_the_peak_of_memory_is_of_the_process_itself() -> None:
    """Not of the one that started it, which may have held more: a system hands that on."""
    held = np.ones(60_000_000)  # 480 MB
    code = "from sqlml.training.machine import peak_memory; print(peak_memory())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 5e6 < int(told) < held.nbytes / 2
