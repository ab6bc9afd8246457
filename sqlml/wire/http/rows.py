"""An Arrow batch as JSON, a column at a time: numbers with every digit, structs and lists, all else in PostgreSQL's texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from sqlml.engines.postgres.json import json_texts
from sqlml.types import Column
from sqlml.wire.cells import canonical, encode
from sqlml.wire.types import wire_type

ROWS = 8192
"""So many rows are written at a time."""
_AS_THEY_ARE = ("bool", "int2", "int4", "int8", "float4", "float8")


def json_rows(batch: pa.RecordBatch, columns: Sequence[Column]) -> Iterator[bytes]:
    """The rows as JSON objects with commas between them, some thousands in each piece."""
    for start in range(0, batch.num_rows, ROWS):
        rows = batch.slice(start, ROWS)
        parts: list[Any] = []
        for number, (column, values) in enumerate(zip(columns, rows.columns, strict=True)):
            parts += [("{" if number == 0 else ", ") + json.dumps(column.name, ensure_ascii=False) + ": "]
            parts += [pc.coalesce(_texts(values, column.sql_type), "null")]
        yield ",\n".join(pc.binary_join_element_wise(*parts, "}", "").to_pylist()).encode()


def _texts(array: pa.Array, sql_type: str) -> pa.Array:
    """Each value as JSON; NULL stays NULL."""
    kind = wire_type(sql_type)
    try:
        if kind.name == "numeric":
            return canonical(array, kind)
        if kind.name == "json" and not t.is_nested(array.type):
            return canonical(array, kind).cast(pa.string())
        if kind.name in _AS_THEY_ARE or kind.name == "json" or kind.element is not None:
            return json_texts(array)
        return json_texts(encode(array, kind, binary=False).cast(pa.string()))
    except pa.ArrowException:  # a list or struct of what Arrow writes no texts of
        return pa.array([None if value is None else json.dumps(value, default=_text) for value in array.to_pylist()], pa.string())


def _text(value: Any) -> str:
    return "\\x" + value.hex() if isinstance(value, bytes) else str(value)
