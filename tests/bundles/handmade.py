"""Small real bundles made by hand: rows → encoder → fit → manifest, without a job."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sqlml.algorithms.options import check_options
from sqlml.bundles.manifest import NATIVE, HeadManifest, Manifest
from sqlml.bundles.model import Model
from sqlml.contracts import FeatureMatrix, FitSpec, TrainingData
from sqlml.features.dataset import Values, canonical
from sqlml.features.encode import FeatureEncoder
from sqlml.features.target import encode_classes, find_classes
from sqlml.features.transform import Transform, plan_transform
from sqlml.plan import InputColumn, TargetColumn, TransformItem
from sqlml.registry import get_algorithm
from sqlml.types import SQL_TYPE, Column, Kind, Task, kind_of_arrow


class Silent:
    """A report that nobody reads."""

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None: ...
    def notice(self, text: str) -> None: ...
    def stage(self, name: str) -> None: ...


@dataclass(frozen=True)
class Learn:
    """One head: an algorithm with its options, and its target with its values."""

    algorithm: str
    target: str | None = None
    values: pa.Array | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def input_columns(table: pa.Table) -> tuple[InputColumn, ...]:
    """The inputs that a table's columns are."""
    kinds = {f.name: kind_of_arrow(f.type) or Kind.TEXT for f in table.schema}
    return tuple(InputColumn(name, SQL_TYPE[kind], kind) for name, kind in kinds.items())


def make_bundle(
    folder: Path,
    table: pa.Table,
    heads: Sequence[Learn],
    *,
    example: Mapping[str, Any] | None = None,
    transform: Transform | None = None,
    inputs: Sequence[InputColumn] | None = None,
    seed: int = 0,
) -> str:
    """Learn each head from all rows, after ``transform`` (a fitted ``Transform``) where one is given; the bundle's SHA-256."""
    inputs = transform.inputs if transform else tuple(inputs or input_columns(table))
    columns: dict[str, Values] = {i.name: canonical(table.column(i.name), i.kind) for i in inputs}
    features = inputs
    if transform is not None:
        columns = transform.apply(columns, table.num_rows)
        features = tuple(InputColumn(c.name, SQL_TYPE[c.kind], c.kind) for c in transform.outputs)
    folder.mkdir(parents=True, exist_ok=True)
    names = [NATIVE] if len(heads) == 1 else [f"{NATIVE}/{i}" for i in range(len(heads))]
    made = tuple(_fit(folder, name, head, features, columns, seed) for name, head in zip(names, heads, strict=True))
    document = None if transform is None else transform.to_json()
    given = {i.name: (example or {}).get(i.name) for i in inputs}
    return Manifest(inputs, made, given, document).write(folder)


def fit_transform(table: pa.Table, **items: str) -> Transform:
    """TRANSFORM (sql AS name, …) fitted on all rows."""
    columns = tuple(Column(i.name, i.sql_type, i.kind) for i in input_columns(table))
    plan, _ = plan_transform([TransformItem(sql, name) for name, sql in items.items()], columns, {})
    kinds = {c.name: c.kind for c in plan.inputs if c.kind is not None}
    return Transform.fit(plan, lambda name: canonical(table.column(name), kinds[name]), np.arange(table.num_rows))


def open_bundle(folder: Path, table: pa.Table, *heads: Learn, **how: Any) -> Model:
    """Make a bundle and open it."""
    return Model.open(folder, make_bundle(folder, table, heads, **how))


def _fit(
    folder: Path, native: str, head: Learn, features: Sequence[InputColumn], columns: Mapping[str, Values], seed: int
) -> HeadManifest:
    algorithm = get_algorithm(head.algorithm)
    n = len(next(iter(columns.values())))
    encoder = FeatureEncoder.fit(features, columns.__getitem__, np.arange(n), algorithm.encoding, 50)
    x = encoder.transform(columns, n)
    target, y = _target(head, algorithm.task)
    classes = target.classes if target else ()
    options = check_options(algorithm, {**head.options, "seed": seed})
    data = TrainingData(FeatureMatrix(x, encoder.names, encoder.categorical), y, n_classes=len(classes))
    place = folder / native
    place.mkdir(parents=True)
    algorithm.fit(data, FitSpec(options, seed, 1), Silent()).save(place)
    return HeadManifest(algorithm.name, algorithm.task, target, encoder.to_json(), options, native)


def _target(head: Learn, task: Task) -> tuple[TargetColumn | None, Any]:
    if head.target is None or head.values is None:
        return None, None
    if task is Task.REGRESSION:
        return TargetColumn(head.target, "DOUBLE", task), head.values.to_numpy(zero_copy_only=False).astype(np.float64)
    classes = find_classes(head.values)
    return TargetColumn(head.target, "VARCHAR", task, classes), encode_classes(head.values, classes)


def same(found: Any, expected: Any, tolerance: float = 1e-9) -> bool:
    """Equal at any depth, floats but for their last bits: a sum of products depends on how many rows are summed at once."""
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[name], expected[name], tolerance) for name in expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(same(f, e, tolerance) for f, e in zip(found, expected, strict=True))
    return bool(found == expected)


# --- one model of every sort ------------------------------------------------------------------------------------------

N = 400
_RANDOM = np.random.default_rng(0)
_X = _RANDOM.normal(size=(N, 3))
_PLAIN = {
    "a": pa.array([None if i % 13 == 5 else float(v) for i, v in enumerate(_X[:, 0])]),
    "B b": pa.array(_X[:, 1]),
    "word": pa.array([[None, "clerk", "smith", "cook"][i % 4] for i in range(N)]),
    "flag": pa.array([None if i % 9 == 2 else i % 2 == 0 for i in range(N)]),
}
TABLE = pa.table(_PLAIN)
LISTS = pa.table(
    {
        "vec": pa.array([None if i % 17 == 3 else list(row) for i, row in enumerate(_X)], pa.list_(pa.float64())),
        "tags": pa.array([None if i % 11 == 4 else [f"t{i % 3}", "all"][: i % 3] for i in range(N)], pa.list_(pa.string())),
        "n": pa.array(_X[:, 0]),
    }
)
_YES = pa.array(np.where(_X[:, 0] > 0.1, "yes", "no"))
_VALUE = pa.array(_X[:, 0] * 3 + _X[:, 1])
_TREES = {"n_estimators": 5}
_TRANSFORM = {
    "a scaled": "ML.STANDARD_SCALER(a) OVER ()",
    "both": 'coalesce(a, 0) * "B b"',
    "word": "upper(word)",
}
_FEATURES = _TRANSFORM | {
    "day": "DATE '2024-01-01' + CAST(abs(\"B b\") * 100 AS INTEGER)",
    "at": "TIMESTAMP '2024-01-01 10:00:00' + to_hours(CAST(a * 10 AS INTEGER))",
    "pair": 'CASE WHEN a IS NOT NULL THEN [a, "B b"] END',
    "tags": "CASE WHEN word IS NOT NULL THEN [word, 'x'] END",
}

HEADS: dict[str, tuple[Learn, ...]] = {
    "text": (Learn("xgboost_classifier", "y", _YES, _TREES),),
    "boolean": (Learn("xgboost_classifier", "y", pa.array(_X[:, 0] > 0.1), _TREES),),
    "integer": (Learn("xgboost_classifier", "y", pa.array(np.digitize(_X[:, 0], [-0.5, 0.5]) * 10), _TREES),),
    "double": (Learn("logistic_regression", "y", pa.array(np.digitize(_X[:, 0], [0.0]) / 2)),),
    "number": (Learn("linear_regression", "y", _VALUE),),
    "clusters": (Learn("kmeans", options={"n_clusters": 3}),),
    "components": (Learn("pca", options={"n_components": 2}),),
    "anomalies": (Learn("isolation_forest", options={"n_estimators": 10}),),
    "several": (
        Learn("xgboost_classifier", "y", _YES, _TREES),
        Learn("xgboost_regressor", "the value", _VALUE, _TREES),
        Learn("xgboost_classifier", "z", pa.array(np.digitize(_X[:, 1], [-0.5, 0.5])), _TREES),
    ),
    "transformed": (Learn("xgboost_classifier", "y", _YES, _TREES),),
    "only transform": (),
    "lists": (Learn("xgboost_classifier", "y", _YES, _TREES),),
}
"""What is learnt, by the name of the sort; ``transformed`` and ``only transform`` have a TRANSFORM, ``lists`` takes lists."""


def rows_of(sort: str) -> pa.Table:
    """The rows that a model of this sort takes."""
    return LISTS if sort == "lists" else TABLE


def make_sort(folder: Path, sort: str) -> str:
    """Make the bundle of a model of this sort; its SHA-256."""
    items = {"transformed": _TRANSFORM, "only transform": _FEATURES}.get(sort)
    table = rows_of(sort)
    transform = fit_transform(table, **items) if items else None
    return make_bundle(folder, table, HEADS[sort], transform=transform, example=table.slice(21, 1).to_pylist()[0])


def open_sort(folder: Path, sort: str) -> Model:
    """Make a model of this sort and open it."""
    make_sort(folder, sort)
    return Model.open(folder)
