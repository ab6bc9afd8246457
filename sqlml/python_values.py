"""Arrow values as the Python values that a DB-API user expects."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.types as t

from sqlml.errors import DataError


def rows_of(batch: pa.RecordBatch, sql_types: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of a batch as tuples.  ``DataError`` for a list or struct with a date that Python has none of."""
    given = zip(batch.schema.names, batch.columns, sql_types, strict=True)
    return zip(*[_values(name, column, sql_type) for name, column, sql_type in given], strict=True)


def _values(name: str, column: pa.Array, sql_type: str) -> list[Any]:
    try:
        values = column.to_pylist()
    except (OverflowError, ValueError):
        values = _far_times(name, column)
    convert = _converter(column.type, sql_type)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def _far_times(name: str, column: pa.Array) -> list[Any]:
    """Dates or times that Python cannot hold, as DuckDB's own client has them: the first or the last one where they are infinite,
    else their texts.
    """
    if not (t.is_date(column.type) or t.is_timestamp(column.type)):
        raise DataError(
            f"column {name} is a list or struct with a date or time that Python cannot hold",
            hint="fetch it as Arrow, fetch_arrow_table(), or cast it to text",
        )
    naive = column if t.is_date(column.type) else column.cast(pa.timestamp(column.type.unit))
    kind = datetime.date if t.is_date(column.type) else datetime.datetime
    whole = pa.int32() if t.is_date32(column.type) else pa.int64()
    last = 2 ** (whole.bit_width - 1) - 1
    ends: dict[Any, Any] = {last: kind.max, -last: kind.min}
    numbers, texts = naive.view(whole).to_pylist(), naive.cast(pa.string()).to_pylist()
    return [ends[n] if n in ends else _near(scalar, text) for n, scalar, text in zip(numbers, column, texts, strict=True)]


def _near(scalar: pa.Scalar, text: str) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        return text


@lru_cache(maxsize=256)
def _converter(kind: pa.DataType, sql_type: str) -> Callable[[Any], Any] | None:
    """What turns ``to_pylist``'s value into the one to hand out; None where it is that already."""
    if sql_type == "UUID":
        return lambda value: value if isinstance(value, uuid.UUID) else uuid.UUID(value)  # Arrow may know UUIDs itself
    if sql_type == "HUGEINT":
        return int
    if sql_type == "UHUGEINT":  # Arrow has no such type: DuckDB gives its bits as those of a number with a sign
        return lambda value: int(value) % 2**128
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
