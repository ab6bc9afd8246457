"""A column's values as PostgreSQL's clients read them, in text or in binary form: an Arrow array in, an array of bytes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from sqlml.engines.postgres.json import json_texts
from sqlml.wire import binary_cells, text_cells
from sqlml.wire.types import WireType

_CANONICAL: dict[str, Any] = {
    "bool": pa.bool_(), "int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64(), "oid": pa.int64(), "float4": pa.float32(),
    "float8": pa.float64(), "text": pa.string(), "name": pa.string(), "json": pa.string(), "uuid": pa.string(),
    "bytea": pa.binary(), "date": pa.date32(), "time": pa.time64("us"), "timetz": pa.time64("us"),
    "timestamp": pa.timestamp("us"), "interval": pa.month_day_nano_interval(), "varbit": pa.string(),
}  # fmt: skip


def encode(array: pa.Array, kind: WireType, binary: bool) -> pa.Array:
    """The values in the bytes that are sent; NULL stays NULL."""
    encoder = (binary_cells.ENCODERS if binary else text_cells.ENCODERS).get(kind.name)
    if kind.element is not None:
        lists = _lists(array)
        return (binary_cells.lists if binary else text_cells.lists)(lists, kind.element, encode)
    ready = canonical(array, kind)
    if encoder is None:  # the same bytes in both forms
        return ready.cast(pa.binary()) if not t.is_binary(ready.type) else ready
    found: pa.Array = encoder(ready)
    return found if t.is_binary(found.type) else found.cast(pa.binary())


def canonical(array: pa.Array, kind: WireType) -> pa.Array:
    """The array in the one Arrow type that a type of PostgreSQL's is encoded from."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if kind.name == "json" and (t.is_nested(array.type) and not t.is_dictionary(array.type)):
        return _json(array)
    if kind.name == "numeric":
        return _numeric(array)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if t.is_dictionary(array.type):
        array = array.dictionary_decode()
    if kind.name == "timestamptz":
        zone = array.type.tz if t.is_timestamp(array.type) and array.type.tz else "UTC"
        return array.cast(pa.timestamp("us", zone), safe=False)
    if kind.name == "varbit" and t.is_binary(array.type):
        return _bits(array)
    target = _CANONICAL.get(kind.name, pa.string())
    if array.type == target:
        return array
    return array.cast(target, safe=False)


def _lists(array: pa.Array) -> pa.ListArray:
    """The array as lists whose elements are exactly those of its own rows."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if t.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.flatten()
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
    if len(offsets) and not array.null_count:
        values = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = array.is_null() if array.null_count else None
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values, mask=mask)


def _json(array: pa.Array) -> pa.Array:
    if t.is_union(array.type):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())
    return json_texts(array)


def _numeric(array: pa.Array) -> pa.Array:
    """Exact numbers as texts without exponents; DuckDB's BIGNUM has bytes of its own."""
    if isinstance(array, pa.ExtensionArray):
        return pa.array([_bignum(value) for value in array.storage.to_pylist()], pa.string())
    if t.is_decimal(array.type):
        return text_cells.decimal_texts(array)
    if t.is_floating(array.type):
        return text_cells.float_texts(array)
    return array.cast(pa.string())


def _bignum(value: bytes | None) -> str | None:
    """A BIGNUM: three bytes of length and sign, then its magnitude; all turned over where it is negative."""
    if value is None:
        return None
    negative = not value[0] & 0x80
    body = bytes(byte ^ 0xFF for byte in value[3:]) if negative else value[3:]
    return f"{'-' if negative else ''}{int.from_bytes(body, 'big')}"


def _bits(array: pa.Array) -> pa.Array:
    """DuckDB's BIT: a byte that tells how many bits of the next one are padding, then the bits."""
    bits = [None if v is None else "".join(f"{byte:08b}" for byte in v[1:])[v[0] :] for v in array.to_pylist()]
    return pa.array(bits, pa.string())
