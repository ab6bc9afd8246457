"""What the tests of TRANSFORM share: plans and fits from SQL text over Arrow columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from sqlml.data import sample
from sqlml.features.dataset import canonical
from sqlml.features.transform import Transform, plan_transform
from sqlml.plan import TransformItem, TransformPlan
from sqlml.types import SQL_TYPE, Column, kind_of_arrow

Columns = Mapping[str, pa.Array]


def item(text: str) -> TransformItem:
    """``expression AS name`` as the parser splits it; a star stays whole."""
    head, mark, name = text.rpartition(" AS ")
    if not mark or text.startswith("*") or not name.isidentifier():
        return TransformItem(text)
    return TransformItem(head, name)


def describe(columns: Columns, types: Mapping[str, str] | None = None) -> tuple[Column, ...]:
    """The columns as a binder would have them."""
    found = []
    for name, values in columns.items():
        kind = kind_of_arrow(values.type)
        own = "BIGINT" if pa.types.is_integer(values.type) else SQL_TYPE[kind] if kind else "INTERVAL"
        found.append(Column(name, (types or {}).get(name, own), kind))
    return tuple(found)


def ready(columns: Columns) -> dict[str, Any]:
    """The columns in the Arrow types of their kinds."""
    return {name: canonical(values, kind) for name, values in columns.items() if (kind := kind_of_arrow(values.type))}


def plan(texts: Sequence[str], columns: Columns, **more: Any) -> tuple[TransformPlan, tuple[Column, ...]]:
    types = more.pop("types", None)
    return plan_transform([item(text) for text in texts], describe(columns, types), more.pop("frozen", {}), **more)


def fit(texts: Sequence[str], columns: Columns, rows: Sequence[int] | None = None, **more: Any) -> Transform:
    """Fitted, and sent through JSON."""
    n = len(next(iter(columns.values())))
    planned, outputs = plan(texts, columns, **more)
    numbers = np.arange(n) if rows is None else np.asarray(rows, np.int64)
    transform = Transform.fit(planned, ready(columns).__getitem__, numbers)
    again = Transform.from_json(json.loads(json.dumps(transform.to_json(), allow_nan=False)))
    assert again.outputs == transform.outputs
    assert again.inputs == transform.inputs
    assert [(c.name, c.kind) for c in outputs] == [(c.name, c.kind) for c in again.outputs]
    return again


def run(texts: Sequence[str], columns: Columns, rows: Sequence[int] | None = None, **more: Any) -> dict[str, list[Any]]:
    """The outputs of all rows, as Python values."""
    n = len(next(iter(columns.values())))
    out = fit(texts, columns, rows, **more).apply(ready(columns), n)
    return {name: values.to_pylist() for name, values in out.items()}


def one(text: str, columns: Columns, rows: Sequence[int] | None = None, **more: Any) -> list[Any]:
    """The only output."""
    (values,) = run([text], columns, rows, **more).values()
    return values


@cache
def bank() -> dict[str, pa.Array]:
    """Bank marketing: 16 columns and the target ``y``."""
    with duckdb.connect() as connection:
        table = connection.sql(f"SELECT * FROM '{sample('bank_marketing')}' LIMIT 6000").to_arrow_table()
    return {name: table.column(name).combine_chunks() for name in table.column_names}
