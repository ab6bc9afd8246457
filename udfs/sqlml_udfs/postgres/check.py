"""A TRANSFORM in PostgreSQL, compared with the model's own: its round, upper or division need not be DuckDB's."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlml_dialect import quote_identifier

from sqlml.bundles.model import Model
from sqlml.contracts import FunctionSignature
from sqlml.errors import DataError, EngineError, NotSupportedError
from sqlml.exports.samples import sample_rows
from sqlml.types import Kind
from sqlml_udfs.postgres.function import PostgresFunction, compile_features
from sqlml_udfs.postgres.heads import INSTEAD
from sqlml_udfs.postgres.text import dotted, value

_ROWS = 128
_ODD: Mapping[Kind, Sequence[Any]] = {
    Kind.NUMBER: (-7.0, -2.5, -1.5, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 10.0, 1e6),
    Kind.TEXT: ("", "Éa", "дОм", " x ", "A_b", "10"),
}
_TOLERANCE = 1e-6
_NAME = ("pg_temp", "__sqlml_features")

Fetch = Callable[[str], list[dict[str, Any]]]


def check_transform(fetch: Fetch, model: Model, signature: FunctionSignature) -> None:
    """Compute the features of rows made for a model in the database and in the model, within a transaction.

    ``NotSupportedError`` where it fails or differs.  A model without TRANSFORM has nothing that could.
    """
    if model.transform is None:
        return
    rows, expected = _expected(model)
    function = compile_features(model, signature, _NAME)
    try:
        for statement in function.statements:
            fetch(statement)
        found = [json.loads(row["features"]) for row in fetch(_query(model, function, rows))]
        fetch(f"DROP FUNCTION {dotted(_NAME)}({function.types})")
    except EngineError as error:
        raise NotSupportedError(f"TRANSFORM fails in PostgreSQL: {error.message}", hint=INSTEAD) from error
    for i, features in enumerate(found):
        for name, values in expected.items():
            if not _close(features[name], values[i]):
                raise _differs(name, features[name], values[i], rows.slice(i, 1).to_pylist()[0])


def _differs(name: str, found: Any, expected: Any, row: Mapping[str, Any]) -> NotSupportedError:
    given = ", ".join(f"{column} {'NULL' if item is None else item}" for column, item in row.items())
    return NotSupportedError(
        f"TRANSFORM gives other values in PostgreSQL: {name} is {found}, where the model has {expected}, for {given}",
        hint=INSTEAD,
    )


def _expected(model: Model) -> tuple[pa.Table, dict[str, list[Any]]]:
    """Rows, and their features by name; without texts, or of NULLs alone, where it cannot compute what was made up."""
    without: tuple[frozenset[Kind], ...] = (frozenset(), frozenset({Kind.TEXT}), frozenset(Kind))
    for absent in without:
        rows = _rows(model, absent)
        try:
            return rows, {name: values.to_pylist() for name, values in model.prepare(rows).columns.items()}
        except DataError as error:
            last = error
    raise last


def _rows(model: Model, absent: Collection[Kind]) -> pa.Table:
    """Rows made for the model; every other one has values on which databases differ: halves, negative numbers, odd letters."""
    rows = sample_rows(model, _ROWS)
    random = np.random.default_rng(0)
    every_other = pa.array(np.arange(_ROWS) % 2 == 0)
    for place, i in enumerate(model.inputs):
        values = rows.column(place).combine_chunks()
        if i.kind in absent:
            values = pa.nulls(_ROWS, values.type)
        elif i.kind in _ODD:
            drawn = [_ODD[i.kind][j] for j in random.integers(0, len(_ODD[i.kind]), _ROWS)]
            values = pc.if_else(every_other, pa.array(drawn, values.type), values)
        rows = rows.set_column(place, i.name, values)
    return rows


def _query(model: Model, function: PostgresFunction, rows: pa.Table) -> str:
    kinds = [i.kind for i in model.inputs]
    columns = ", ".join(quote_identifier(f"c{i}") for i in range(len(kinds)))
    lines = [
        f"({n}, {', '.join(value(v, kind) for v, kind in zip(row.values(), kinds, strict=True))})"
        for n, row in enumerate(rows.to_pylist())
    ]
    given = f"(VALUES {', '.join(lines)}) AS v(n, {columns})"
    return f"SELECT {dotted(function.name)}({columns}) AS features FROM {given} ORDER BY n"  # noqa: S608 - literals


def _close(found: Any, expected: Any) -> bool:
    """Whether a value read from JSON is the model's; NaN is a missing value."""
    if isinstance(expected, float) and math.isnan(expected):
        return found in (None, "NaN")
    if isinstance(expected, float):
        given = float(found) if isinstance(found, float | int) or found in ("Infinity", "-Infinity") else math.nan
        return math.isclose(given, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    if isinstance(expected, datetime.date | datetime.time) and isinstance(found, str):
        return bool(type(expected).fromisoformat(found) == expected)
    if expected is None:
        return found in (None, "NaN")
    return bool(found == expected)
