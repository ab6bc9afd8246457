"""Arrow values as the Python values that a DB-API user expects."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.types as t


def rows_of(batch: pa.RecordBatch, sql_types: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch as tuples."""
    columns = [_values(column, sql_type) for column, sql_type in zip(batch.columns, sql_types, strict=True)]
    return zip(*columns, strict=True)


def _values(column: pa.Array, sql_type: str) -> list[Any]:
    values = column.to_pylist()
    convert = _converter(column.type, sql_type)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def _converter(kind: pa.DataType, sql_type: str) -> Callable[[Any], Any] | None:
    """What turns ``to_pylist``'s value into the one to hand out; None where it is that already."""
    if sql_type == "UUID":
        return uuid.UUID
    if sql_type in ("HUGEINT", "UHUGEINT"):
        return int
    if t.is_map(kind):
        return _map_converter(kind)
    if t.is_interval(kind):
        return lambda v: datetime.timedelta(days=v.days + 30 * v.months, microseconds=v.nanoseconds // 1000)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
        inner = _converter(kind.value_type, "")
        return None if inner is None else lambda items: [None if i is None else inner(i) for i in items]
    if t.is_struct(kind):
        return _struct_converter(kind)
    return None


def _map_converter(kind: pa.MapType) -> Callable[[Any], Any]:
    inner = _converter(kind.item_type, "")
    if inner is None:
        return dict
    return lambda pairs: {key: None if value is None else inner(value) for key, value in pairs}


def _struct_converter(kind: pa.StructType) -> Callable[[Any], Any] | None:
    inner = {field.name: convert for field in kind if (convert := _converter(field.type, "")) is not None}
    if not inner:
        return None
    return lambda item: {k: inner[k](v) if k in inner and v is not None else v for k, v in item.items()}
