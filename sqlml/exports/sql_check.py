"""A model's SQL run on rows made for it, in DuckDB, and its figures compared with the model's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.exports.samples import sample_rows
from sqlml.exports.sql import TABLE, model_query
from sqlml.features.database import select_apart
from sqlml.types import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from sqlml.bundles.head import Head
    from sqlml.bundles.model import Model


def sql_difference(model: Model, max_nodes: int) -> float:
    """How far the query's figures are from the model's at most: relative, and absolute below 1."""
    rows = sample_rows(model)
    text = model_query(model, dialect="duckdb", keep=[], max_nodes=max_nodes).sql("duckdb", copy=False)
    return largest_difference(model, rows, select_apart(text, TABLE, rows))


def largest_difference(model: Model, rows: pa.Table, found: pa.Table) -> float:
    """The same for answers that came from anywhere; ``found`` has the query's outputs, in order."""
    features = model.prepare(rows)
    most, start = 0.0, 0
    for head in model.heads:
        raw = np.asarray(head.raw(features.columns, features.n), np.float64).reshape(features.n, -1)
        first = start + (head.task in (Task.CLASSIFICATION, Task.CLUSTERING))
        start = first + raw.shape[1]
        given = np.column_stack([_floats(column) for column in found.columns[first:start]])
        most = max(most, float((np.abs(given - raw) / np.maximum(1.0, np.abs(raw))).max(initial=0.0)))
        if head.task in (Task.CLASSIFICATION, Task.CLUSTERING):
            most = max(most, _wrong_labels(head, raw, found.column(first - 1)))
    return most


def _wrong_labels(head: Head, raw: NDArray[np.float64], given: Any) -> float:
    """1 where a label differs that is no near tie."""
    own = head.labels(raw).to_pylist()
    two = np.sort(raw if head.task is Task.CLUSTERING else -raw, axis=1)[:, :2]
    clear = two[:, -1] - two[:, 0] > 1e-6 if raw.shape[1] > 1 else np.ones(len(raw), bool)
    return float(any(sure and a != b for sure, a, b in zip(clear, own, given.to_pylist(), strict=True)))


def _floats(values: Any) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else float(value) for value in values.to_pylist()])
