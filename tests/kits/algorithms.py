"""The contract of an algorithm and its predictors."""

from __future__ import annotations

import json
import keyword
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sqlml.algorithms.options import all_options, check_options, check_value
from sqlml.contracts import Algorithm, FeatureMatrix, FitSpec, Predictor, TrainingData
from sqlml.errors import TrainingDataError
from sqlml.types import UNSUPERVISED, Task
from tests.jobs import Recorder

if TYPE_CHECKING:
    pass


def check_algorithm(algorithm: Algorithm, folder: Path) -> None:
    """Everything that the contract of an algorithm asks.  ``folder`` is empty and may be written to."""
    check_description(algorithm)
    for classes in (2, 3) if algorithm.task is Task.CLASSIFICATION else (0,):
        for features in (1, 4):
            data = example_data(algorithm, features, classes)
            predictor = _fit(algorithm, data)
            check_shapes(algorithm, predictor, data)
            check_explanations(algorithm, predictor, data)
            check_parameters(algorithm, predictor, data)
            check_saved(algorithm, predictor, data, folder / f"{classes}-{features}")
            check_threads(predictor, data)
            check_onnx(predictor, data)
            check_odd_rows(algorithm, data)
            check_one_row(algorithm, data)
            check_continued(algorithm, predictor, data)
    check_progress(algorithm)


def check_description(algorithm: Algorithm) -> None:
    """Name, doc and options are there, documented, and each default is allowed."""
    assert algorithm.name.isidentifier()
    assert algorithm.name == algorithm.name.lower()
    assert algorithm.doc
    assert algorithm.encoding in ("codes", "dense")
    assert algorithm.libraries or algorithm.task is Task.TRANSFORM
    assert not (algorithm.explains and algorithm.task in (Task.PROJECTION, Task.TRANSFORM))
    names = [option.name for option in all_options(algorithm)]
    assert len({name.lower() for name in names}) == len(names)
    assert algorithm.early_stopping is None or algorithm.early_stopping in names
    assert algorithm.rounds is None or algorithm.rounds in names
    assert algorithm.rounds is not None or algorithm.early_stopping is None
    assert algorithm.streams is None or isinstance(algorithm.streams, float)
    assert ("class_weight" in names) is (algorithm.task is Task.CLASSIFICATION)
    assert ("refit" in names) is (algorithm.task not in UNSUPERVISED or algorithm.task is Task.CLUSTERING)
    for option in algorithm.options:
        assert option.doc, f"option {option.name} has no doc"
        assert option.name.isidentifier()
        assert not keyword.iskeyword(option.name)
        assert check_value(option, option.default, algorithm.name) == option.default
    json.dumps(check_options(algorithm, {}))


def check_shapes(algorithm: Algorithm, predictor: Predictor, data: TrainingData) -> None:
    """Shapes and ranges, one row at a time as all at once, and no rows at all."""
    x = data.features.x
    raw = predictor.predict(x)
    assert np.isfinite(raw).all()
    if algorithm.task is Task.CLASSIFICATION:
        assert raw.shape == (len(x), data.n_classes)
        assert np.allclose(raw.sum(1), 1, atol=1e-6)
    elif algorithm.task in (Task.REGRESSION, Task.ANOMALY):
        assert raw.shape == (len(x),)
    else:
        assert raw.ndim == 2
        assert algorithm.task is not Task.CLUSTERING or (raw >= 0).all()
    assert np.allclose(np.concatenate([predictor.predict(x[i : i + 1]) for i in range(20)]), raw[:20], atol=1e-9)
    assert predictor.predict(x[:0]).shape == (0, *raw.shape[1:])


def check_explanations(algorithm: Algorithm, predictor: Predictor, data: TrainingData) -> None:
    """Contributions and importance, where the algorithm has them."""
    if algorithm.explains:
        check_contributions(algorithm, predictor, data)
    if algorithm.explains or algorithm.task is Task.PROJECTION:
        importance = predictor.importance()
        assert importance.shape == (data.features.x.shape[1],)
        assert (importance >= 0).all()
        assert np.isclose(importance.sum(), 1) or not importance.any()


def check_contributions(algorithm: Algorithm, predictor: Predictor, data: TrainingData) -> None:
    """They sum to the raw score: log-odds, margins up to a constant of the row, values, or minus squared distances."""
    assert predictor.contributions(data.features.x[:0]).shape[0] == 0
    x = data.features.x[:200]
    raw = predictor.predict(x)
    sums = predictor.contributions(x).sum(-1)
    if algorithm.task is Task.REGRESSION:
        assert np.allclose(sums[:, 0], raw, atol=1e-4)
    elif algorithm.task is Task.CLUSTERING:
        assert np.allclose(sums, -(raw**2), atol=1e-4)
    elif data.n_classes == 2:
        assert np.allclose(1 / (1 + np.exp(-sums[:, 0])), raw[:, 1], atol=1e-4)
    else:
        e = np.exp(sums - sums.max(1, keepdims=True))
        assert np.allclose(e / e.sum(1, keepdims=True), raw, atol=1e-4)


def check_parameters(algorithm: Algorithm, predictor: Predictor, data: TrainingData) -> None:
    """Named float64 arrays, of the shapes that a predictor's docstring gives; changing them changes nothing."""
    found = predictor.parameters()
    assert all(array.dtype == np.float64 for array in found.values())
    assert predictor.gpu_memory >= 0
    k, outputs = data.features.x.shape[1], 1 if data.n_classes < 3 else data.n_classes
    assert ("rounds" in found) is (algorithm.rounds is not None)
    shapes = {
        "coef": (outputs, k), "intercept": (outputs,), "weight": (k,), "gain": (k,), "cover": (k,), "mean": (k,),
        "rounds": (1,), "threshold": (1,),
    }  # fmt: skip
    assert all(found[name].shape == shape for name, shape in shapes.items() if name in found)
    raw = predictor.predict(data.features.x)
    if algorithm.task is Task.CLUSTERING:
        assert found["centers"].shape == (raw.shape[1], k)
    elif algorithm.task is Task.PROJECTION:
        assert found["components"].shape == (raw.shape[1], k)
        assert found["explained_variance"].shape == found["explained_variance_ratio"].shape == (raw.shape[1],)
    elif algorithm.task is Task.ANOMALY:
        assert "threshold" in found
    for array in found.values():
        array[...] = -1
    assert np.array_equal(predictor.predict(data.features.x), raw)


def check_odd_rows(algorithm: Algorithm, data: TrainingData) -> None:
    """Weights, some of them 0, columns that do not vary and, with the encoding ``codes``, a row and a column without values."""
    x = np.column_stack([data.features.x, np.ones((len(data.features.x), 2), np.float32)])
    if algorithm.encoding == "codes":
        x[0], x[:, -1] = np.nan, np.nan
    features = replace(data.features, x=x, names=(*data.features.names, "one", "two"))
    features = replace(features, categorical=(*data.features.categorical, False, False))
    weight = np.random.default_rng(2).integers(0, 3, len(x)).astype(np.float64)
    odd = replace(data, features=features, weight=weight, heldout_x=x[:50])
    predictor = _fit(algorithm, odd)
    raw = predictor.predict(x)
    assert np.isfinite(raw).all()
    assert np.array_equal(_fit(algorithm, odd).predict(x), raw)
    check_explanations(algorithm, predictor, odd)


def check_one_row(algorithm: Algorithm, data: TrainingData) -> None:
    """One row is learnt from, or refused in words."""
    y = None if data.y is None else data.y[:1]
    one = replace(data, features=replace(data.features, x=data.features.x[:1]), y=y, heldout_x=None, heldout_y=None)
    try:
        predictor = _fit(algorithm, one)
    except TrainingDataError:
        return
    assert np.isfinite(predictor.predict(data.features.x)).all()


def check_continued(algorithm: Algorithm, predictor: Predictor, data: TrainingData) -> None:
    """An earlier predictor is gone on from, and stays as it is."""
    if not algorithm.warm_start:
        return
    before = predictor.predict(data.features.x)
    spec = replace(_spec(algorithm), start=predictor)
    after = algorithm.fit(data, spec, Recorder())
    assert np.array_equal(predictor.predict(data.features.x), before)
    assert np.isfinite(after.predict(data.features.x)).all()
    if "rounds" in predictor.parameters():
        assert after.parameters()["rounds"] == 2 * predictor.parameters()["rounds"]
    other = example_data(algorithm, data.features.x.shape[1] + 1, data.n_classes)
    with pytest.raises(TrainingDataError):
        algorithm.fit(other, spec, Recorder())


def check_saved(algorithm: Algorithm, predictor: Predictor, data: TrainingData, folder: Path) -> None:
    """What is read back predicts the same, and a second training writes the same bytes.  No pickles."""
    one, two = folder / "one", folder / "two"
    for place in (one, two):
        place.mkdir(parents=True)
    predictor.save(one)
    again = _fit(algorithm, data)
    again.save(two)
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files
    for name in files:
        content = (one / name).read_bytes()
        assert content == (two / name).read_bytes(), f"{name} differs between two trainings"
        assert not content.startswith((b"\x80\x04", b"\x80\x05")), f"{name} looks like a pickle"
    assert predictor.onnx() == again.onnx()
    loaded = algorithm.load(one)
    x = data.features.x
    assert loaded.threads == 1
    assert np.array_equal(loaded.predict(x), predictor.predict(x))
    if algorithm.explains:
        assert np.array_equal(loaded.contributions(x[:50]), predictor.contributions(x[:50]))
    if algorithm.explains or algorithm.task is Task.PROJECTION:
        assert np.array_equal(loaded.importance(), predictor.importance())
    kept, learnt = loaded.parameters(), predictor.parameters()
    assert kept.keys() == learnt.keys()
    assert all(np.array_equal(kept[name], learnt[name], equal_nan=True) for name in learnt)
    check_threads(loaded, data)


def check_threads(predictor: Predictor, data: TrainingData) -> None:
    """Many threads at once get what one gets."""
    pieces = np.array_split(data.features.x, 16)
    expected = [predictor.predict(piece) for piece in pieces]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(predictor.predict, pieces * 2), expected * 2, strict=True):
            assert np.array_equal(found, wanted)


def check_onnx(predictor: Predictor, data: TrainingData) -> None:
    """ONNX, where there is any, is the same function."""
    model = predictor.onnx()
    if model is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["x"]
    raw = predictor.predict(data.features.x)
    found = session.run(None, {"x": data.features.x})[0].reshape(raw.shape)
    assert np.abs(found - raw).max() <= 1e-5 * max(1.0, float(np.abs(raw).max()))


def check_progress(algorithm: Algorithm) -> None:
    """Reports steps, with metrics named after the rows that they are of; a report that raises ends the fit."""
    data = example_data(algorithm, 3, 2 if algorithm.task is Task.CLASSIFICATION else 0)
    report = Recorder()
    algorithm.fit(data, _spec(algorithm), report)
    assert report.steps
    step, total, figures = report.steps[-1]
    assert 1 <= step <= total
    assert figures or algorithm.task is Task.TRANSFORM
    assert all(name.split("_")[0] in ("train", "valid", "heldout") for name in figures)

    class Stop(Exception):
        pass

    class Stopping(Recorder):
        def step(self, *_: Any) -> None:
            raise Stop

    try:
        algorithm.fit(data, _spec(algorithm), Stopping())
    except Stop:
        return
    raise AssertionError("a report that raises must end the fit")


def example_data(algorithm: Algorithm, features: int, classes: int, rows: int = 400) -> TrainingData:
    """Rows with a pattern: numbers and, with the encoding ``codes``, a category and missing values."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=(rows, features)).astype(np.float32)
    score = x.sum(1) + generator.normal(scale=0.3, size=rows)
    categorical = [False] * features
    if algorithm.encoding == "codes":
        if features > 1:
            x[:, 1] = generator.integers(0, 7, rows)
            categorical[1] = True
        x[generator.random(x.shape) < 0.1] = np.nan
    y: NDArray[Any] | None = None
    if algorithm.task is Task.CLASSIFICATION:
        y = np.searchsorted(np.quantile(score, np.arange(1, classes) / classes), score).astype(np.int64)
    elif algorithm.task is Task.REGRESSION:
        y = score * 10 + 3
    matrix = FeatureMatrix(x, tuple(f"f{i}" for i in range(features)), tuple(categorical))
    return TrainingData(matrix, y, heldout_x=x[:50], heldout_y=None if y is None else y[:50], n_classes=classes)


def _spec(algorithm: Algorithm) -> FitSpec:
    few = {"n_estimators": 10, "max_epochs": 5}
    given = {option.name: few[option.name] for option in algorithm.options if option.name in few}
    return FitSpec(check_options(algorithm, given), 0, 2)


def _fit(algorithm: Algorithm, data: TrainingData) -> Predictor:
    return algorithm.fit(data, _spec(algorithm), Recorder())
