"""Values in text form, as PostgreSQL writes them with DateStyle ISO and IntervalStyle postgres (src/backend/utils/adt, …_out)."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.wire.types import WireType

Encode = Callable[[pa.Array, WireType, bool], pa.Array]

_DATE_END, _TIME_END = 2**31 - 1, 2**63 - 1
"""DuckDB's infinite date and moment; the negative ones are their negatives."""


def _bools(array: pa.Array) -> pa.Array:
    return pc.if_else(array, "t", "f")


def _integers(array: pa.Array) -> pa.Array:
    return array.cast(pa.string())


def float_texts(array: pa.Array) -> pa.Array:
    """The shortest digits that are the same number: ``1``, ``0.1``, ``1e-05``, ``1e+15``, ``NaN``, ``Infinity``."""
    text = array.cast(pa.string())
    if len(array) == array.null_count:
        return text
    size = pc.abs(array)
    large = pc.and_(pc.greater_equal(size, 1e10), pc.less(size, 1e15))  # Arrow has an exponent there, PostgreSQL has none
    odd = pc.or_(large, pc.and_(pc.not_equal(size, 0.0), pc.or_(pc.less(size, 1e-4), pc.invert(pc.is_finite(array)))))
    if not pc.any(odd).as_py():
        return text
    few = array.filter(odd)
    shown = {value: _float_text(value) for value in few.unique().to_pylist() if value == value}
    texts = pa.array([shown.get(value, "NaN") for value in few.to_pylist()], pa.string())
    return pc.replace_with_mask(text, pc.fill_null(odd, False), texts)


def _float_text(value: float) -> str:
    if abs(value) < 1e-4:
        return np.format_float_scientific(np.float64(value), trim="-", exp_digits=2)
    return {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), str(value).removesuffix(".0"))


def _floats4(array: pa.Array) -> pa.Array:
    """The same of single precision, which PostgreSQL writes with an exponent from ``1e+06`` on."""
    text = array.cast(pa.string())
    size = pc.abs(array)
    small = pc.less(size, pa.scalar(1e-4, pa.float32()))
    far = pc.or_(small, pc.or_(pc.greater_equal(size, 1e6), pc.invert(pc.is_finite(array))))
    odd = pc.fill_null(pc.and_(pc.not_equal(size, 0.0), far), False)
    if not pc.any(odd).as_py():
        return text
    few = array.filter(odd).to_numpy(zero_copy_only=False)
    texts = [_float4_text(value) for value in few]
    return pc.replace_with_mask(text, odd, pa.array(texts, pa.string()))


def _float4_text(value: np.float32) -> str:
    if np.isnan(value):
        return "NaN"
    if np.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return np.format_float_scientific(value, trim="-", exp_digits=2)


def decimal_texts(array: pa.Array) -> pa.Array:
    """Every digit, and no exponent, which Arrow writes for small numbers."""
    scale = array.type.scale
    text = array.cast(pa.string())
    if scale <= 6 or not pc.any(pc.match_substring(text, "E")).as_py():
        return text
    return pa.array([None if v is None else f"{v:.{scale}f}" for v in array.to_pylist()], pa.string())


def _bytea(array: pa.Array) -> pa.Array:
    """``\\x`` and two letters for each byte."""
    array = pa.concat_arrays([array])  # its bytes from its beginning
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    data = array.buffers()[2]
    body = memoryview(data)[offsets[0] : offsets[-1]] if data is not None else b""
    places = pa.py_buffer(((offsets - offsets[0]) * 2).astype(np.int32))
    text = pa.Array.from_buffers(pa.string(), len(array), [None, places, pa.py_buffer(binascii.hexlify(body))])
    return _null_where(array, pc.binary_join_element_wise("\\x", text, ""))


def _dates(array: pa.Array) -> pa.Array:
    days = array.view(pa.int32())
    odd = pc.fill_null(pc.or_(pc.greater(days, 2932896), pc.less(days, -719162)), False)  # beyond the years 1 to 9999
    if not pc.any(odd).as_py():
        return array.cast(pa.string())
    plain = pc.if_else(odd, pa.scalar(0, pa.int32()), days).view(pa.date32()).cast(pa.string())
    texts = [_date_text(day) for day in days.filter(odd).to_pylist()]
    return pc.replace_with_mask(plain, odd, pa.array(texts, pa.string()))


def _date_text(day: int) -> str:
    if abs(day) == _DATE_END:
        return "infinity" if day > 0 else "-infinity"
    year, month, of_month = _civil(day)
    return f"{year:04d}-{month:02d}-{of_month:02d}" if year > 0 else f"{1 - year:04d}-{month:02d}-{of_month:02d} BC"


def _civil(day: int) -> tuple[int, int, int]:
    """The day of the calendar of a count of days since 1970, however far (Hinnant, civil_from_days)."""
    shifted = day + 719468
    era, of_era = divmod(shifted, 146097)
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    of_month = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return year + era * 400 + (month <= 2), month, of_month


def _trimmed(text: pa.Array) -> pa.Array:
    """Without the zeros at the end of a fraction."""
    return pc.replace_substring_regex(text, r"\.?0+$", "") if len(text) else text


def _times(array: pa.Array) -> pa.Array:
    return _trimmed(array.cast(pa.string()))


def _timestamps(array: pa.Array) -> pa.Array:
    moments = array.view(pa.int64())
    odd = pc.fill_null(pc.or_(pc.greater(moments, 253402300799999999), pc.less(moments, -62135596800000000)), False)
    if not pc.any(odd).as_py():
        return _plain_timestamps(array)
    plain = _plain_timestamps(pc.if_else(odd, pa.scalar(0, pa.int64()), moments).view(pa.timestamp("us")))
    texts = [_moment_text(moment) for moment in moments.filter(odd).to_pylist()]
    return pc.replace_with_mask(plain, odd, pa.array(texts, pa.string()))


def _plain_timestamps(array: pa.Array) -> pa.Array:
    whole = pc.cast(pc.equal(pc.microsecond(array), 0), pa.int8())
    if pc.min(whole).as_py() and pc.min(pc.cast(pc.equal(pc.millisecond(array), 0), pa.int8())).as_py():
        return array.cast(pa.timestamp("s")).cast(pa.string())
    return _trimmed(array.cast(pa.string()))


def _moment_text(moment: int) -> str:
    if abs(moment) == _TIME_END:
        return "infinity" if moment > 0 else "-infinity"
    day, of_day = divmod(moment, 86_400_000_000)
    seconds, micros = divmod(of_day, 1_000_000)
    fraction = f".{micros:06d}".rstrip("0") if micros else ""
    date, _, era = _date_text(day).partition(" ")
    return f"{date} {seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{fraction}{' ' + era if era else ''}"


def _timestamptzs(array: pa.Array) -> pa.Array:
    """In the session's time zone, with what it is ahead of UTC: ``2026-03-01 12:00:00+00``."""
    utc = array.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
    moments = utc.view(pa.int64())
    ends = pc.fill_null(pc.greater_equal(pc.abs(moments), 253402300800000000), False)
    near = pc.if_else(ends, pa.scalar(0, pa.int64()), moments).view(pa.timestamp("us"))
    local = pc.local_timestamp(near.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us", array.type.tz)))
    ahead = pc.subtract(local.view(pa.int64()), near.view(pa.int64()))
    offsets = {value: _offset_text(value // 1_000_000) for value in ahead.unique().to_pylist() if value is not None}
    keys = pa.array(list(offsets), pa.int64())
    shown = pa.array(list(offsets.values()), pa.string()).take(pc.index_in(ahead, keys))
    plain = pc.binary_join_element_wise(_timestamps(local), shown, "")
    if not pc.any(ends).as_py():
        return plain
    texts = [_moment_text(moment) + ("" if abs(moment) == _TIME_END else "+00") for moment in moments.filter(ends).to_pylist()]
    return pc.replace_with_mask(plain, ends, pa.array(texts, pa.string()))


def _offset_text(seconds: int) -> str:
    sign, seconds = ("-", -seconds) if seconds < 0 else ("+", seconds)
    text = f"{sign}{seconds // 3600:02d}"
    if seconds % 3600:
        text += f":{seconds // 60 % 60:02d}"
    return text + (f":{seconds % 60:02d}" if seconds % 60 else "")


def _timetzs(array: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(_times(array), "+00", "")


_INTERVAL = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])


def _intervals(array: pa.Array) -> pa.Array:
    """``1 year 2 mons 3 days 04:05:06.7``; each different one is written once."""
    values = np.frombuffer(array.buffers()[1] or b"", _INTERVAL, len(array), array.offset * _INTERVAL.itemsize)
    distinct, places = np.unique(values, return_inverse=True)
    texts = pa.array([_interval_text(*map(int, each)) for each in distinct.tolist()], pa.string())
    return _null_where(array, texts.take(pa.array(places.reshape(-1))))


def _interval_text(months: int, days: int, nanoseconds: int) -> str:
    years, months = (abs(months) // 12) * (-1 if months < 0 else 1), (abs(months) % 12) * (-1 if months < 0 else 1)
    parts: list[str] = []
    before = False
    for count, unit in ((years, "year"), (months, "mon"), (days, "day")):
        if count:
            parts.append(f"{'+' if before and count > 0 else ''}{count} {unit}{'' if count == 1 else 's'}")
            before = count < 0
    micros = abs(nanoseconds) // 1000
    if micros or not parts:
        sign = "-" if nanoseconds < 0 else "+" if before else ""
        seconds, fraction = divmod(micros, 1_000_000)
        tail = f".{fraction:06d}".rstrip("0") if fraction else ""
        parts.append(f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{tail}")
    return " ".join(parts)


def _null_where(array: pa.Array, values: pa.Array) -> pa.Array:
    return values if not array.null_count else pc.if_else(array.is_valid(), values, pa.scalar(None, values.type))


_QUOTED = ("text", "name", "json", "bytea", "timestamp", "timestamptz", "interval")


def lists(array: pa.ListArray, element: WireType, encode: Encode) -> pa.Array:
    """``{1,2,NULL}``; texts with anything odd in them stand in quotation marks."""
    items = encode(array.values, element, False).cast(pa.string())
    if element.name in _QUOTED:
        odd = pc.fill_null(pc.match_substring_regex(items, r'(?i)[{}",\\\s]|^$|^null$'), False)
        if pc.any(odd).as_py():
            escaped = pc.replace_substring_regex(items, r'(["\\])', r"\\\1")
            items = pc.if_else(odd, pc.binary_join_element_wise('"', escaped, '"', ""), items)
    items = pc.fill_null(items, "NULL")
    whole = pc.binary_join(pa.ListArray.from_arrays(array.offsets, items), ",")
    return _null_where(array, pc.binary_join_element_wise("{", whole, "}", "")).cast(pa.binary())


ENCODERS: dict[str, Callable[[Any], pa.Array]] = {
    "bool": _bools, "int2": _integers, "int4": _integers, "int8": _integers, "oid": _integers, "float4": _floats4,
    "float8": float_texts, "bytea": _bytea, "date": _dates, "time": _times, "timestamp": _timestamps,
    "timestamptz": _timestamptzs, "timetz": _timetzs, "interval": _intervals,
}  # fmt: skip
"""By the type's name; what is missing is sent as it is."""
