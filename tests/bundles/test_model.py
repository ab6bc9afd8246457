"""A loaded bundle: columns by name, answers in every form, reasons, and damaged files."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sqlml.bundles.model import Model
from sqlml.errors import BindError, BundleError, TrainingDataError
from sqlml.types import label_text
from tests.bundles.handmade import Learn, make_bundle, open_bundle

RANDOM = np.random.default_rng(0)
N = 300
X = RANDOM.normal(size=N)
TABLE = pa.table(
    {
        "年齢": pa.array([None if i % 11 == 0 else float(v) for i, v in enumerate(X)]),
        'job "title"': pa.array([[None, "clerk", "smith", "cook"][i % 4] for i in range(N)]),
        "since when": pa.array([dt.date(2020, 1, 1) + dt.timedelta(i) for i in range(N)]),
        "happy": pa.array([None if i % 7 == 0 else i % 2 == 0 for i in range(N)]),
        "same": pa.array([1] * N),
        "at": pa.array([dt.datetime(2024, 1, 1) + dt.timedelta(hours=i) for i in range(N)], pa.timestamp("us", "UTC")),
        "yes": pa.array(np.where(X > 0.1, "yes", "no")),
        "flag": pa.array(X > 0.1),
        "grade": pa.array(np.digitize(X, [-0.5, 0.5]) * 10),
        "half": pa.array(np.digitize(X, [0.0]) / 2),
        "value": pa.array(X * 3),
    }
)
TARGETS = ("yes", "flag", "grade", "half", "value")
TREES = {"n_estimators": 5}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    rows = TABLE.drop_columns(list(TARGETS))

    @cache
    def build(target: str | None, algorithm: str) -> Model:
        options = TREES if algorithm.startswith("xgb") else {"n_clusters": 3} if algorithm == "kmeans" else {}
        values = None if target is None else TABLE[target].combine_chunks()
        return open_bundle(tmp_path_factory.mktemp("bundle"), rows, Learn(algorithm, target, values, options))

    return build


CASES = [
    ("yes", "xgboost_classifier", pa.string()),
    ("flag", "xgboost_classifier", pa.bool_()),
    ("grade", "xgboost_classifier", pa.int64()),
    ("half", "logistic_regression", pa.float64()),
    ("grade", "logistic_regression", pa.int64()),
    ("value", "xgboost_regressor", pa.float64()),
    ("value", "linear_regression", pa.float64()),
    (None, "kmeans", pa.int64()),
]


@pytest.mark.parametrize(("target", "algorithm", "kind"), CASES)
def test_answers(make: Callable[..., Model], target: str | None, algorithm: str, kind: pa.DataType) -> None:
    model = make(target, algorithm)
    answers = model.predict(TABLE)
    assert answers.type == kind
    assert answers.null_count == 0
    full = model.full(TABLE)
    assert full.column(0).equals(answers)
    if target is None:
        assert full.schema.names == ["centroid_id", "nearest_centroids_distance"]
        assert full.column(1)[0][0]["centroid_id"] == answers[0]
    elif model.classes:
        assert full.schema.names == [f"predicted_{target}", f"predicted_{target}_probs"]
        probs = full.column(1)[0].as_py()
        assert probs == sorted(probs, key=lambda p: -p["prob"])
        assert sum(p["prob"] for p in probs) == pytest.approx(1)
        assert dict(model.probs_map(model.raw(TABLE))[0].as_py()) == pytest.approx(
            {label_text(p["label"]): p["prob"] for p in probs}
        )
        assert set(answers.to_pylist()) <= set(model.classes)
    else:
        assert full.schema.names == [f"predicted_{target}"]
        with pytest.raises(BindError, match="the model predicts a number: it has no probabilities"):
            model.probabilities(TABLE)


@pytest.mark.parametrize(("target", "algorithm", "kind"), CASES)
def test_no_rows_all_null_and_every_form_of_data(
    make: Callable[..., Model], target: str | None, algorithm: str, kind: pa.DataType
) -> None:
    model = make(target, algorithm)
    batch = TABLE.slice(0, 50).combine_chunks().to_batches()[0]
    expected = model.full(batch)
    struct = pa.StructArray.from_arrays(batch.columns, names=batch.schema.names)
    for form in (TABLE.slice(0, 50), struct, struct.slice(0, 50), dict(zip(batch.schema.names, batch.columns, strict=True))):
        assert model.full(form).equals(expected)
    empty = model.full(batch.slice(0, 0))
    assert empty.num_rows == 0
    assert empty.schema == expected.schema
    assert len(model.reasons(batch.slice(0, 0), 3)) == 0
    nulls = {name: pa.nulls(4) for name in batch.schema.names}
    assert model.predict(nulls).null_count == 0
    reasons = model.reasons(nulls, 2).to_pylist()
    assert [[r["value"] for r in row] for row in reasons] == [[None, None]] * 4


@pytest.mark.parametrize(("target", "algorithm", "kind"), CASES)
def test_reasons(make: Callable[..., Model], target: str | None, algorithm: str, kind: pa.DataType) -> None:
    model = make(target, algorithm)
    reasons = model.reasons(TABLE, 3).to_pylist()
    contributions = model.contributions(TABLE)
    assert contributions.shape == (N, len(model.inputs) + 1)
    names = [i.name for i in model.inputs]
    for row, values in zip(reasons, contributions, strict=True):
        sizes = [abs(r["contribution"]) for r in row]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] == pytest.approx(np.abs(values[:-1]).max())
        assert all(r["contribution"] == pytest.approx(values[names.index(r["feature"])]) for r in row)
    shown = {r["feature"]: r["value"] for r in model.reasons(TABLE.slice(1, 1), 99).to_pylist()[0]}
    assert sorted(shown) == sorted(names)
    assert shown["since when"] == "2020-01-02"
    assert shown["at"] == "2024-01-01 01:00:00Z"
    assert shown["same"] == "1"
    assert len(model.reasons(TABLE, 0)[0]) == 0
    importance = model.importance()
    assert [name for name, _ in importance][-1] == "same"
    assert sum(share for _, share in importance) == pytest.approx(1)


def test_columns_by_name(make: Callable[..., Model]) -> None:
    model = make("yes", "xgboost_classifier")
    assert model.encode(TABLE.rename_columns([n.upper() for n in TABLE.column_names])).shape == (N, len(model.encoder.names))
    with pytest.raises(BindError) as caught:
        model.predict(TABLE.select(["年齢", "same", "flag"]))
    assert caught.value.message == 'the model needs columns that are not there: job "title", since when, happy, at'
    assert caught.value.hint == "there are: 年齢, same, flag"
    with pytest.raises(BindError, match="column 年齢 is DOUBLE to the model"):
        model.predict(TABLE.set_column(0, "年齢", pa.array(["old"] * N)))
    numbers_as_text = TABLE.set_column(0, "年齢", TABLE["年齢"].cast(pa.string()))
    assert np.array_equal(model.raw(numbers_as_text), model.raw(TABLE))


def test_parity_with_the_library(make: Callable[..., Model]) -> None:
    import xgboost

    model = make("yes", "xgboost_classifier")
    booster = xgboost.Booster()
    booster.load_model(model.folder / "native" / "model.ubj")
    rows = xgboost.DMatrix(model.encode(TABLE), feature_types=booster.feature_types)
    assert np.abs(model.probabilities(TABLE)[:, 1] - booster.predict(rows)).max() < 1e-6


def test_evaluate(make: Callable[..., Model]) -> None:
    model = make("flag", "xgboost_classifier")
    figures = model.evaluate(TABLE, TABLE["flag"])
    assert figures["roc_auc"] is not None
    assert figures["roc_auc"] > 0.8
    as_text = TABLE["flag"].cast(pa.string())
    assert model.evaluate(TABLE, as_text) == figures
    assert (model.evaluate(TABLE, TABLE["flag"], threshold=0.0)["recall"]) == 1
    assert model.evaluate(TABLE.slice(0, 0), TABLE["flag"].slice(0, 0))["roc_auc"] is None
    with pytest.raises(BindError, match="measured against the column flag"):
        model.evaluate(TABLE)
    assert make(None, "kmeans").evaluate(TABLE)["mean_squared_distance"] is not None


def test_rows_without_a_known_target_are_left_out_and_counted(make: Callable[..., Model]) -> None:
    model = make("grade", "xgboost_classifier")
    some = pa.array([None, 7, *TABLE["grade"].to_pylist()[2:]])
    assert known_rows(model, some) == N - 2
    assert known_rows(model, TABLE["grade"]) == N
    assert model.evaluate(TABLE, some) == model.evaluate(TABLE.slice(2), TABLE["grade"].slice(2))
    number = make("value", "linear_regression")
    assert known_rows(number, pa.array([None, np.inf, np.nan, 1.0])) == 1


def known_rows(model: Model, actual: pa.Array) -> int:
    return int(model.head.known(model.head.truth(actual)).sum())


NO_TARGET = [
    ("grade", pa.nulls(N, pa.int64()), "none of the 300 rows has a grade that the model knows: 0, 10, 20", "found: NULL"),
    ("grade", pa.array([7] * N), "none of the 300 rows has a grade that the model knows: 0, 10, 20", "found: 7"),
    ("flag", pa.array(["maybe"] * N), "none of the 300 rows has a flag that the model knows: false, true", "found: maybe"),
]


@pytest.mark.parametrize(("target", "actual", "message", "hint"), NO_TARGET)
def test_evaluating_on_no_known_target(
    make: Callable[..., Model], target: str, actual: pa.Array, message: str, hint: str
) -> None:
    model = make(target, "xgboost_classifier")
    with pytest.raises(TrainingDataError) as caught:
        model.evaluate(TABLE, actual)
    assert (caught.value.message, caught.value.hint) == (message, hint)
    with pytest.raises(TrainingDataError):
        model.head.evaluate(model.raw(TABLE), actual)


def test_evaluating_against_what_is_no_target(make: Callable[..., Model]) -> None:
    with pytest.raises(TrainingDataError, match="none of the 300 rows has a value that is a finite number"):
        make("value", "linear_regression").evaluate(TABLE, pa.nulls(N, pa.float64()))
    with pytest.raises(BindError, match="grade is a class; the column given is list<item: int64>"):
        make("grade", "xgboost_classifier").evaluate(TABLE, pa.array([[1]] * N))


def test_many_threads(make: Callable[..., Model]) -> None:
    model = make("grade", "xgboost_classifier")
    expected = model.full(TABLE)
    with ThreadPoolExecutor(8) as pool:
        assert all(found.equals(expected) for found in pool.map(lambda _: model.full(TABLE), range(40)))


def test_damaged_bundles(tmp_path: Path) -> None:
    sha256 = make_bundle(tmp_path, TABLE.select(["年齢"]), [Learn("linear_regression", "value", TABLE["value"].combine_chunks())])
    with pytest.raises(BundleError, match=r"manifest\.json is damaged"):
        Model.open(tmp_path, "0" * 64)
    native = tmp_path / "native" / "linear.json"
    text = native.read_text()
    native.write_text(text + " ")
    with pytest.raises(BundleError, match=r"linear\.json is damaged"):
        Model.open(tmp_path, sha256)
    native.unlink()
    with pytest.raises(BundleError, match=r"linear\.json is missing"):
        Model.open(tmp_path, sha256)
