"""Models made by hand: an encoder, an algorithm, a bundle in a folder; no database takes part."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sqlml.algorithms.options import check_options
from sqlml.bundles.manifest import NATIVE, ONNX, HeadManifest, Manifest
from sqlml.bundles.model import Model
from sqlml.contracts import FeatureMatrix, FitSpec, TrainingData
from sqlml.features.dataset import canonical
from sqlml.features.encode import FeatureEncoder
from sqlml.plan import InputColumn, TargetColumn
from sqlml.registry import get_algorithm
from sqlml.types import SQL_TYPE, Kind, Task, kind_of_arrow

CLASSES: Mapping[str, tuple[Any, ...]] = {"two": ("no", "it's yes"), "three": (1, 2, 3), "flag": (False, True)}


class Quiet:
    """A report that nobody reads."""

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None: ...

    def notice(self, text: str) -> None: ...

    def stage(self, name: str) -> None: ...


def people(n: int = 400, seed: int = 0, *, dates: bool = False) -> pa.Table:
    """Rows with numbers, a text, a boolean, NULLs, names that need quotes, and perhaps dates and times."""
    random = np.random.default_rng(seed)
    absent = random.random((4, n)) < 0.1
    columns: dict[str, pa.Array] = {
        "age": pa.array(random.integers(18, 90, n).astype(float), mask=absent[0]),
        "balance": pa.array(np.round(random.normal(1000, 700, n), 2), mask=absent[1]),
        "select": pa.array(random.choice(["clerk", "cook", 'it\'s "ß"', "driver", "nurse", "x"], n), mask=absent[2]),
        "is Vip": pa.array(random.random(n) < 0.4, mask=absent[3]),
    }
    if dates:
        start = datetime.datetime(1965, 3, 1, 4, 5, 6)
        moments = [start + datetime.timedelta(minutes=int(m)) for m in random.integers(0, 60 * 24 * 365 * 80, n)]
        columns["day"] = pa.array([m.date() for m in moments], pa.date32(), mask=absent[0])
        columns["at"] = pa.array(moments, pa.timestamp("us"), mask=absent[1])
        columns["zoned"] = pa.array(moments, pa.timestamp("us", "UTC"))
        columns["clock"] = pa.array([m.time() for m in moments], pa.time64("us"))
    return pa.table(columns)


def make_model(
    folder: Path,
    algorithm: str,
    classes: tuple[Any, ...] = (),
    *,
    table: pa.Table | None = None,
    onnx: bool = True,
    **options: Any,
) -> Model:
    """Fit an algorithm on people and write the bundle."""
    data = people() if table is None else table
    learner = get_algorithm(algorithm)
    inputs = [InputColumn(f.name, SQL_TYPE[k], k) for f in data.schema if (k := kind_of_arrow(f.type)) is not None]
    columns = {i.name: canonical(data[i.name], i.kind) for i in inputs}
    encoder = FeatureEncoder.fit(inputs, lambda name: columns[name], np.arange(data.num_rows), learner.encoding, 100)
    x = encoder.transform(columns, data.num_rows)
    score = np.nan_to_num(x).sum(1) if learner.encoding == "dense" else np.nan_to_num(x[:, 0]) + 3 * np.nan_to_num(x[:, 2])
    y: Any = None
    if learner.task is Task.CLASSIFICATION:
        y = np.searchsorted(np.quantile(score, np.arange(1, len(classes)) / len(classes)), score).astype(np.int64)
    elif learner.task is Task.REGRESSION:
        y = np.abs(score).astype(np.float64) + 1
    features = FeatureMatrix(x, encoder.names, encoder.categorical)
    spec = FitSpec(check_options(learner, options), 0, 1)
    predictor = learner.fit(TrainingData(features, y, n_classes=len(classes)), spec, Quiet())
    target = TargetColumn("y", "VARCHAR", learner.task, classes) if y is not None else None
    (folder / NATIVE).mkdir(parents=True)
    predictor.save(folder / NATIVE)
    graph = predictor.onnx() if onnx else None
    if graph:
        (folder / ONNX).write_bytes(graph)
    head = HeadManifest(algorithm, learner.task, target, encoder.to_json(), spec.options, NATIVE, ONNX if graph else None, 0.0)
    example = {name: _json(value) for name, value in data.slice(1, 1).to_pylist()[0].items()}
    Manifest(tuple(inputs), (head,), example).write(folder)
    return Model.open(folder)


def _json(value: Any) -> Any:
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


__all__ = ["CLASSES", "Kind", "Quiet", "make_model", "people"]
