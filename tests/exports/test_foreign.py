"""Files of other tools as models: XGBoost's and ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost

from sqlml.algorithms.imported_onnx import ImportedOnnxClassifier
from sqlml.bundles.model import Model
from sqlml.errors import BindError, BundleError, DataError, NotSupportedError
from sqlml.exports.foreign import Wishes
from sqlml.exports.native import check_native, write_native
from sqlml.exports.place import remove
from sqlml.exports.reading import read_model
from sqlml.exports.samples import sample_rows
from tests.exports.made import make_model

N = 300


def numbers(seed: int = 0, k: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    x = np.random.default_rng(seed).normal(size=(N, k)).astype(np.float32)
    return x


def boost(path: Path, objective: str, y: Any = None, x: Any = None, names: list[str] | None = None, **params: Any) -> Any:
    """A booster, written to a file."""
    data = numbers() if x is None else x
    target = (data[:, 0] > 0).astype(float) if y is None else y
    matrix = xgboost.DMatrix(data, target, feature_names=names, enable_categorical=True)
    booster = xgboost.train({"objective": objective, "max_depth": 3, "nthread": 1} | params, matrix, 5)
    booster.save_model(path)
    return booster


def imported(path: Path, folder: Path, **wishes: Any) -> Model:
    card = read_model(path, folder / "read", Wishes(**wishes))
    return Model.open(folder / "read", card.outcome.bundle_sha256)


def table(x: Any, names: tuple[str, ...]) -> pa.Table:
    return pa.table({name: pa.array(x[:, j].astype(float), from_pandas=True) for j, name in enumerate(names)})


# --- XGBoost ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["json", "ubj"])
@pytest.mark.parametrize(
    "objective",
    ["binary:logistic", "reg:squarederror", "reg:logistic", "count:poisson", "multi:softprob", "multi:softmax", "rank:pairwise"],
)
def test_a_booster_answers_as_it_did(tmp_path: Path, objective: str, suffix: str) -> None:
    x = numbers()
    y = np.digitize(x[:, 0], [-0.5, 0.5]) if objective.startswith("multi") else None
    more: dict[str, Any] = {"num_class": 3} if y is not None else {}
    booster = boost(tmp_path / f"m.{suffix}", objective, y, **more)
    model = imported(tmp_path / f"m.{suffix}", tmp_path)
    assert [i.name for i in model.inputs] == ["f0", "f1", "f2"]
    x[::7, 1] = np.nan
    rows = table(x, ("f0", "f1", "f2"))
    expected = booster.predict(xgboost.DMatrix(x))
    if objective == "multi:softmax":
        assert model.predict(rows).to_pylist() == expected.tolist()
    else:
        assert (model.raw(rows)[:, -1] if objective == "binary:logistic" else model.raw(rows) == expected).all()
    margin = booster.predict(xgboost.DMatrix(x), output_margin=True).reshape(N, -1)
    contributions = model.predictor.contributions(model.encode(rows)).sum(-1)
    assert np.allclose(contributions, margin, atol=1e-4)
    assert abs(sum(share for _, share in model.importance()) - 1) < 1e-6


def test_names_classes_and_target(tmp_path: Path) -> None:
    boost(tmp_path / "m.ubj", "binary:logistic", names=["age", "balance", "x y"])
    model = imported(tmp_path / "m.ubj", tmp_path, classes=("no", "yes"), target="bought")
    assert [i.name for i in model.inputs] == ["age", "balance", "x y"]
    assert (model.target, model.classes) == ("bought", ("no", "yes"))
    assert set(model.predict(table(numbers(), ("age", "balance", "x y"))).to_pylist()) == {"no", "yes"}


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"classes": ("a", "b", "c")}, "tells 2 classes apart, and the option classes names 3"),
        ({"classes": ("a", "a")}, "a name twice"),
        ({"inputs": ("a",)}, "takes 3 inputs, and the option inputs names 1"),
        ({"inputs": ("a", "A", "b")}, "a name twice"),
        ({"task": "regression"}, "which is classification, not regression"),
        ({"target": "F0"}, "has the name of an input"),
    ],
)
def test_options_that_do_not_fit_the_booster(tmp_path: Path, wishes: dict[str, Any], words: str) -> None:
    boost(tmp_path / "m.ubj", "binary:logistic")
    with pytest.raises(BindError, match=words):
        imported(tmp_path / "m.ubj", tmp_path, **wishes)


def test_categories_of_a_data_frame_are_kept(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    frame = pandas.DataFrame({"age": random.normal(size=N), "job": pandas.Categorical(random.choice(["cook", "clerk", "x"], N))})
    matrix = xgboost.DMatrix(frame, (frame.job == "cook").astype(int) + frame.age, enable_categorical=True)
    booster = xgboost.train({"objective": "reg:squarederror", "nthread": 1}, matrix, 5)
    booster.save_model(tmp_path / "m.json")
    model = imported(tmp_path / "m.json", tmp_path)
    assert [(i.name, i.sql_type) for i in model.inputs] == [("age", "DOUBLE"), ("job", "VARCHAR")]
    rows = pa.table({"age": frame.age.to_numpy(), "job": frame.job.astype(str).to_list()})
    assert (model.raw(rows) == booster.predict(matrix)).all()
    assert np.isfinite(model.raw(pa.table({"age": [None, 0.5], "job": ["never seen", None]}))).all()


def test_codes_without_categories_are_refused(tmp_path: Path) -> None:
    x = numbers()
    x[:, 1] = np.abs(x[:, 1]).astype(int)
    matrix = xgboost.DMatrix(x, x[:, 0], feature_types=["q", "c", "q"], enable_categorical=True)
    xgboost.train({"nthread": 1}, matrix, 3).save_model(tmp_path / "m.ubj")
    with pytest.raises(DataError, match="does not tell what the category codes of f1 stand for"):
        imported(tmp_path / "m.ubj", tmp_path)


@pytest.mark.parametrize("objective", ["binary:hinge", "survival:cox", "binary:logitraw"])
def test_unknown_objectives_are_refused(tmp_path: Path, objective: str) -> None:
    boost(tmp_path / "m.ubj", objective)
    with pytest.raises(NotSupportedError, match=f"trained for {objective}"):
        imported(tmp_path / "m.ubj", tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_boosters_without_plain_trees_are_refused(tmp_path: Path) -> None:
    boost(tmp_path / "m.ubj", "reg:squarederror", booster="gblinear")
    with pytest.raises(NotSupportedError, match="gblinear is not made of trees"):
        imported(tmp_path / "m.ubj", tmp_path)


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
def test_what_we_write_a_plain_booster_reads(tmp_path: Path, suffix: str) -> None:
    model = make_model(tmp_path / "bundle", "xgboost_classifier", ("no", "yes"), n_estimators=4)
    path = tmp_path / f"m{suffix}"
    write_native(model, check_native(model, path), path, suffix)
    booster = xgboost.Booster(model_file=path)
    assert booster.feature_names == ["age", "balance", "select", "is Vip"]
    assert booster.feature_types == ["q", "q", "c", "q"]
    x = model.encode(sample_rows(model, 100))
    matrix = xgboost.DMatrix(x, feature_names=booster.feature_names, feature_types=booster.feature_types, enable_categorical=True)
    assert (booster.predict(matrix) == model.raw(sample_rows(model, 100))[:, 1]).all()


def test_native_files_need_their_own_ending(tmp_path: Path) -> None:
    model = make_model(tmp_path / "bundle", "linear_regression")
    with pytest.raises(BindError, match=r"the own file of linear_regression is linear.json"):
        check_native(model, tmp_path / "m.ubj")
    write_native(model, check_native(model, tmp_path / "m.json"), tmp_path / "m.json", ".json")
    assert (tmp_path / "m.json").read_bytes() == (tmp_path / "bundle" / "native" / "linear.json").read_bytes()


# --- ONNX -------------------------------------------------------------------------------------------------------------


def scikit(path: Path, learner: Any, y: Any, **options: Any) -> Any:
    from skl2onnx import to_onnx

    learner.fit(numbers(), y)
    path.write_bytes(to_onnx(learner, numbers()[:1], options=options or None).SerializeToString())
    return learner


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("maps", [True, False], ids=["maps", "tensor"])
def test_a_classifier_of_scikit_learn(tmp_path: Path, maps: bool) -> None:
    from sklearn.linear_model import LogisticRegression

    y = np.where(numbers()[:, 0] > 0, "yes", "no")
    learner = scikit(tmp_path / "m.onnx", LogisticRegression(), y, zipmap=maps)
    model = imported(tmp_path / "m.onnx", tmp_path, inputs=("age", "balance", "x"), target="bought")
    assert (model.classes, model.target, model.head.algorithm) == (("no", "yes"), "bought", "onnx_classifier")
    rows = table(numbers(1), ("age", "balance", "x"))
    assert np.abs(model.raw(rows) - learner.predict_proba(numbers(1))).max() < 1e-5
    assert model.predict(rows).to_pylist() == learner.predict(numbers(1)).tolist()
    assert len(model.predict(rows.slice(0, 0))) == 0
    with pytest.raises(NotSupportedError, match="cannot be split into contributions"):
        model.reasons(rows, 2)


@pytest.mark.filterwarnings("ignore")
def test_a_regressor_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.ensemble import GradientBoostingRegressor

    learner = scikit(tmp_path / "m.onnx", GradientBoostingRegressor(n_estimators=5), numbers()[:, 1] * 3)
    model = imported(tmp_path / "m.onnx", tmp_path)
    assert [i.name for i in model.inputs] == ["f0", "f1", "f2"]
    assert np.abs(model.raw(table(numbers(1), ("f0", "f1", "f2"))) - learner.predict(numbers(1))).max() < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_one_input_for_each_column(tmp_path: Path) -> None:
    model = make_model(
        tmp_path / "bundle", "logistic_regression", ("no", "yes"), table=pa.table({"a": numbers()[:, 0], "b": numbers()[:, 1]})
    )
    from sqlml.exports.onnx import columns_graph

    (tmp_path / "m.onnx").write_bytes(columns_graph(model, model.head))
    again = imported(tmp_path / "m.onnx", tmp_path, classes=("no", "yes"))
    rows = sample_rows(model, 100)
    assert [i.name for i in again.inputs] == ["a", "b"]
    assert np.abs(again.raw(rows) - model.raw(rows)).max() < 1e-6


def graph(path: Path, operator: str, domain: str = "", width: Any = 3, kind: int = 1) -> Path:
    from onnx import helper

    inputs = [helper.make_tensor_value_info("x", kind, [None, width])]
    outputs = [helper.make_tensor_value_info("y", kind, [None, width])]
    made = helper.make_graph([helper.make_node(operator, ["x"], ["y"], domain=domain)], "g", inputs, outputs)
    opsets = [helper.make_opsetid(d, v) for d, v in (("", 17), (domain, 1)) if d or v == 17]
    path.write_bytes(helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString())
    return path


def test_numbers_without_a_meaning_need_words(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", "Softmax")
    with pytest.raises(BindError, match="gives 3 numbers for each row and does not say what they are"):
        imported(path, tmp_path)
    remove(tmp_path / "read")
    assert imported(path, tmp_path, classes=("a", "b", "c")).classes == ("a", "b", "c")


def test_a_matrix_of_any_width_needs_names(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", "Softmax", width="k")
    with pytest.raises(BindError, match="does not say how wide it is"):
        imported(path, tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"operator": "Nothing", "domain": "com.example"}, "uses operators of com.example"),
        ({"operator": "Identity", "kind": 8}, "only numbers can be given"),
    ],
)
def test_graphs_that_cannot_be_used(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(NotSupportedError, match=words):
        imported(graph(tmp_path / "m.onnx", **options), tmp_path)


def test_numbers_in_other_files_are_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    graph(tmp_path / "m.onnx", "Identity")
    model = onnx.load(tmp_path / "m.onnx")
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "c")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.initializer.append(tensor)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(NotSupportedError, match="keeps its numbers in other files"):
        imported(tmp_path / "m.onnx", tmp_path)


def test_training_an_imported_kind_is_refused() -> None:
    with pytest.raises(BindError, match="cannot be trained"):
        ImportedOnnxClassifier().fit(None, None, None)  # type: ignore[arg-type]


# --- damaged ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.json", "m.ubj", "m.onnx", "m.bin", "m.tar"])
def test_foreign_bytes_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"hello, I am no model at all\n" * 30)
    with pytest.raises(BundleError):
        read_model(tmp_path / name, tmp_path / "read", Wishes())


def predictions(path: Path, folder: Path, wishes: Wishes) -> tuple[pa.Table, Any]:
    """Rows made for a model, and its figures for them."""
    read_model(path, folder, wishes)
    model = Model.open(folder)
    rows = sample_rows(model, 50)
    return rows, model.raw(rows)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["json", "ubj", "onnx"])
def test_truncated_and_flipped_files_bring_nothing_down(tmp_path: Path, suffix: str) -> None:
    """In child processes: what a damaged file may do to a library it does there."""
    from sqlml.exports.reading import read_apart

    whole = tmp_path / f"m.{suffix}"
    if suffix == "onnx":
        graph(whole, "Softmax")
    else:
        boost(whole, "binary:logistic")
    wishes = Wishes(classes=("a", "b", "c") if suffix == "onnx" else None)
    rows, before = predictions(whole, tmp_path / "whole", wishes)
    text = whole.read_bytes()
    random = np.random.default_rng(0)
    for i in range(5):
        place = int(random.integers(1, len(text) - 1))
        bad = text[:place] if i % 2 else text[:place] + bytes([text[place] ^ (1 << i)]) + text[place + 1 :]
        (tmp_path / f"bad.{suffix}").write_bytes(bad)
        job = tmp_path / f"job{i}"
        job.mkdir()
        try:
            read_apart(tmp_path / f"bad.{suffix}", job, wishes)
        except (BundleError, BindError, DataError, NotSupportedError):
            continue
        found = Model.open(job / "bundle").raw(rows)
        assert np.isfinite(found).all()
        assert (found == before).all()
