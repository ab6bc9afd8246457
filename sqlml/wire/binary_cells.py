"""Values in binary form, big-endian: src/backend/utils/adt, the functions called …send."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.wire.types import WireType

if TYPE_CHECKING:
    from numpy.typing import NDArray

Encode = Callable[[pa.Array, WireType, bool], pa.Array]

_DAYS = 10957  # from 1970-01-01 to 2000-01-01
_MICROSECONDS = _DAYS * 86_400_000_000


def _bytes(values: NDArray[Any], array: pa.Array) -> pa.Array:
    """Numbers in the bytes that they are kept in, NULL where the array is."""
    size = values.dtype.itemsize
    offsets = pa.py_buffer(np.arange(0, (len(values) + 1) * size, size, dtype=np.int32))
    plain = pa.Array.from_buffers(pa.binary(), len(values), [None, offsets, pa.py_buffer(np.ascontiguousarray(values))])
    return _null_where(array, plain)


def _null_where(array: pa.Array, values: pa.Array) -> pa.Array:
    return values if not array.null_count else pc.if_else(array.is_valid(), values, pa.scalar(None, values.type))


def _raw(array: pa.Array, dtype: str) -> NDArray[Any]:
    """The numbers of an array, whatever stands where it is NULL."""
    number = np.dtype(dtype)
    return np.frombuffer(array.buffers()[1] or b"", number, len(array), array.offset * number.itemsize)


def _number(dtype: str, sent: str) -> Callable[[pa.Array], pa.Array]:
    return lambda array: _bytes(_raw(array, dtype).astype(sent), array)


def _bools(array: pa.Array) -> pa.Array:
    return _bytes(pc.fill_null(array, False).cast(pa.int8()).to_numpy(), array)


def _moments(dtype: str, epoch: int) -> Callable[[pa.Array], pa.Array]:
    """Since 2000; the largest number, and its negative, are the infinite ones, which PostgreSQL has at both ends."""

    def encode(array: pa.Array) -> pa.Array:
        values = _raw(array, dtype)
        ends = np.iinfo(values.dtype)
        sent = np.where(values < ends.min + epoch, ends.min + epoch, values) - values.dtype.type(epoch)
        sent[values == ends.max], sent[values == -ends.max] = ends.max, ends.min
        return _bytes(sent.astype(np.dtype(dtype).newbyteorder(">")), array)

    return encode


def _timetzs(array: pa.Array) -> pa.Array:
    sent = np.zeros(len(array), [("time", ">i8"), ("zone", ">i4")])
    sent["time"] = _raw(array, "<i8")
    return _bytes(sent, array)


def _intervals(array: pa.Array) -> pa.Array:
    given = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])
    values = np.frombuffer(array.buffers()[1] or b"", given, len(array), array.offset * given.itemsize)
    sent = np.empty(len(array), [("microseconds", ">i8"), ("days", ">i4"), ("months", ">i4")])
    sent["microseconds"], sent["days"], sent["months"] = values["nanoseconds"] // 1000, values["days"], values["months"]
    return _bytes(sent, array)


def _uuids(array: pa.Array) -> pa.Array:
    """Sixteen bytes of each text."""
    zero = "00000000-0000-0000-0000-000000000000"
    plain = pc.replace_substring(pc.fill_null(array, zero), "-", "")
    whole = pa.concat_arrays([plain])
    offsets = np.frombuffer(whole.buffers()[1], np.int32)[whole.offset : whole.offset + len(whole) + 1]
    data = memoryview(whole.buffers()[2] or b"")[int(offsets[0]) : int(offsets[-1])]
    return _bytes(np.frombuffer(binascii.unhexlify(data), "V16"), array)


def _numerics(array: pa.Array) -> pa.Array:
    """From texts: digits of base 10,000, how many there are, the weight of the first, the sign, the decimal places."""
    texts = pc.fill_null(array, "0")
    odd = pc.match_substring_regex(texts, "[^0-9.-]")
    if pc.any(odd).as_py():
        return pa.array([None if v is None else _numeric_bytes(v) for v in array.to_pylist()], pa.binary())
    negative = pc.starts_with(texts, "-").to_numpy(zero_copy_only=False)
    parts = pc.extract_regex(texts, r"^-?(?P<whole>[0-9]*)\.?(?P<fraction>[0-9]*)$")
    whole, fraction = parts.field("whole"), parts.field("fraction")
    places = pc.binary_length(fraction).to_numpy()
    before = _groups(pc.max(pc.binary_length(whole)).as_py() or 0)
    after = _groups(int(places.max(initial=0)))
    padded = pc.binary_join_element_wise(pc.utf8_lpad(whole, before * 4, "0"), pc.utf8_rpad(fraction, after * 4, "0"), "")
    digits = _digits(padded, before + after)
    any_digit = digits != 0
    used = any_digit.any(axis=1)
    first = np.where(used, any_digit.argmax(axis=1), 0)
    last = np.where(used, before + after - any_digit[:, ::-1].argmax(axis=1), 0)
    head = np.empty(len(array), [("count", ">i2"), ("weight", ">i2"), ("sign", ">u2"), ("scale", ">i2")])
    head["count"] = np.where(used, last - first, 0)
    head["weight"] = np.where(used, before - 1 - first, 0)
    head["sign"], head["scale"] = np.where(negative & used, 0x4000, 0), places
    column = np.arange(before + after)
    kept = digits[(column >= first[:, None]) & (column < last[:, None])]
    counts = np.where(used, last - first, 0) * 2
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    body = pa.Array.from_buffers(pa.binary(), len(array), [None, pa.py_buffer(ends), pa.py_buffer(kept.astype(">i2"))])
    joined = pc.binary_join_element_wise(_bytes(head, texts), body, pa.scalar(b"", pa.binary()))
    return _null_where(array, joined)


def _groups(digits: int) -> int:
    return max(1, -(-digits // 4))


def _digits(texts: pa.Array, groups: int) -> NDArray[np.int64]:
    """Texts of one width as numbers of four digits each."""
    whole = pa.concat_arrays([texts])
    start = whole.offset * groups * 4
    data = np.frombuffer(whole.buffers()[2] or b"", np.uint8)[start : start + len(whole) * groups * 4]
    letters = data.reshape(len(whole), groups, 4).astype(np.int64) - ord("0")
    found: NDArray[np.int64] = letters @ np.array([1000, 100, 10, 1])
    return found


def _numeric_bytes(text: str) -> bytes:
    """One value that is not a plain number: NaN, an infinity, an exponent."""
    sign = {"NaN": 0xC000, "Infinity": 0xD000, "-Infinity": 0xF000}.get(text)
    if sign is not None:
        return struct.pack(">hhHh", 0, 0, sign, 0)
    from decimal import Decimal

    [found] = _numerics(pa.array([f"{Decimal(text):f}"], pa.string())).to_pylist()
    return bytes(found)


def _bits(array: pa.Array) -> pa.Array:
    def packed(text: str) -> bytes:
        return struct.pack(">I", len(text)) + int(text.ljust(-(-len(text) // 8) * 8, "0") or "0", 2).to_bytes(
            -(-len(text) // 8), "big"
        )

    return pa.array([None if v is None else packed(v) for v in array.to_pylist()], pa.binary())


def lists(array: pa.ListArray, element: WireType, encode: Encode) -> pa.Array:
    """Dimensions, whether there are NULLs, the elements' type, their count, then each with its length before it."""
    items = encode(array.values, element, True)
    sizes = pc.fill_null(pc.binary_length(items), -1).to_numpy().astype(">i4")
    plain = pc.fill_null(items, b"")
    cells = pc.binary_join_element_wise(_bytes(sizes, plain), plain, pa.scalar(b"", pa.binary()))
    cells = pa.concat_arrays([cells])
    at = np.frombuffer(cells.buffers()[1], np.int32)[cells.offset : cells.offset + len(cells) + 1]
    ends = array.offsets.to_numpy()
    places = pa.py_buffer(at[ends].astype(np.int32))
    bodies = pa.Array.from_buffers(pa.binary(), len(array), [None, places, cells.buffers()[2] or pa.py_buffer(b"")])
    counts = np.diff(ends)
    head = np.empty(len(array), [("dimensions", ">i4"), ("nulls", ">i4"), ("oid", ">u4"), ("count", ">i4"), ("first", ">i4")])
    head["dimensions"], head["nulls"], head["oid"] = 1, int(items.null_count > 0), element.oid
    head["count"], head["first"] = counts, 1
    full = pc.binary_join_element_wise(_bytes(head, bodies), bodies, pa.scalar(b"", pa.binary()))
    empty = pa.scalar(struct.pack(">iiI", 0, 0, element.oid), pa.binary())
    return _null_where(array, pc.if_else(pa.array(counts > 0), full, empty))


ENCODERS: dict[str, Callable[[Any], pa.Array]] = {
    "bool": _bools, "int2": _number("<i2", ">i2"), "int4": _number("<i4", ">i4"), "int8": _number("<i8", ">i8"),
    "oid": _number("<i8", ">u4"), "float4": _number("<f4", ">f4"), "float8": _number("<f8", ">f8"),
    "date": _moments("<i4", _DAYS), "time": _number("<i8", ">i8"), "timestamp": _moments("<i8", _MICROSECONDS),
    "timestamptz": _moments("<i8", _MICROSECONDS), "timetz": _timetzs, "interval": _intervals, "uuid": _uuids,
    "numeric": _numerics, "varbit": _bits,
}  # fmt: skip
"""By the type's name; what is missing is sent as it is."""
