"""Models as ONNX: onnxruntime's answers against the model's own, from columns and from the matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sqlml.algorithms.imported_onnx import open_session
from sqlml.bundles.model import Model
from sqlml.errors import InternalError, NotSupportedError
from sqlml.exports.onnx import check_difference, check_onnx, columns_graph, difference, feeds, matrix_graph, why_matrix
from sqlml.exports.samples import sample_rows
from tests.exports.made import make_model, people

CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "two classes": ("xgboost_classifier", ("no", "it's yes"), {"n_estimators": 8}),
    "three classes": ("xgboost_classifier", (1, 2, 3), {"n_estimators": 5}),
    "a value": ("xgboost_regressor", (), {"n_estimators": 8}),
    "logistic": ("logistic_regression", (False, True), {}),
    "softmax": ("logistic_regression", (0.5, 1.5, 2.5), {}),
    "linear": ("linear_regression", (), {}),
    "clusters": ("kmeans", (), {"n_clusters": 4}),
    "components": ("pca", (), {"n_components": 2}),
}


def make(case: str, folder: Path, **more: Any) -> Model:
    algorithm, classes, options = CASES[case]
    return make_model(folder / "bundle", algorithm, classes, **options, **more)


@pytest.mark.parametrize("case", CASES)
def test_columns_and_matrix_give_the_models_own_answers(tmp_path: Path, case: str) -> None:
    model = make(case, tmp_path)
    head = check_onnx(model)
    rows = sample_rows(model, 300)
    assert why_matrix(model) is None
    graph = columns_graph(model, head)
    assert difference(model, graph, rows, columns=True) <= 1e-5
    assert difference(model, matrix_graph(model, head), rows, columns=False) <= 1e-5
    session = open_session(graph)
    assert [i.name for i in session.get_inputs()] == ["age", "balance", "select", "is Vip"]
    label = session.run(None, feeds(model, rows))[0]
    if case != "components":
        expected = model.predict(rows).to_pylist()
        assert np.allclose(label, expected, 1e-5) if case in ("a value", "linear") else list(label) == expected


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = make("two classes", tmp_path)
    assert columns_graph(model, model.head) == columns_graph(model, model.head)


def test_dates_need_the_matrix(tmp_path: Path) -> None:
    model = make("linear", tmp_path, table=people(dates=True))
    assert why_matrix(model) == "ONNX has no day (date), at (timestamp), zoned (timestamptz), clock (time)"
    assert difference(model, matrix_graph(model, model.head), sample_rows(model, 50), columns=False) <= 1e-5


def test_a_model_without_a_graph_is_refused(tmp_path: Path) -> None:
    model = make("linear", tmp_path, onnx=False)
    model.head.predictor.onnx = lambda: None  # type: ignore[method-assign]
    with pytest.raises(NotSupportedError, match="has no ONNX graph"):
        matrix_graph(model, model.head)


@pytest.mark.parametrize("off", [1e-4, float("nan")])
def test_what_differs_is_not_written(off: float) -> None:
    with pytest.raises(InternalError, match="nothing was written"):
        check_difference(off, "ONNX")
