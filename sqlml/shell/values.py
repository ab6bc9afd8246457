"""A column of a result as texts: for people to read (``shown``), for CSV (``csv_texts``), for JSON (``json_texts``).

Everywhere None stands for NULL, and whatever could move a terminal's cursor is escaped in what people read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.types as t

Texts: TypeAlias = "list[str | None]"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_IDENTIFIER = re.compile(r"(?:^|[^a-z])(?:id|pid|key|year|port|version|job|zip|code|number|phone)$|[a-z]Id$")
_YEARS = range(1900, 2100)
_SECOND = re.compile(r"(:\d\d)(?:\.(\d+))?(?=$|Z$|[+-])")
_FRACTION = re.compile(r"\.(\d*?)0+(?=$|Z$|[+-]\d{4}$)")
_OFFSET = re.compile(r"([+-]\d\d)(\d\d)$")


def is_numeric(data_type: pa.DataType) -> bool:
    """Whether a column's values are numbers, to be set flush right."""
    return bool(t.is_integer(data_type) or t.is_floating(data_type) or t.is_decimal(data_type))


def shown(name: str, column: pa.ChunkedArray) -> Texts:
    """A column as people read it: integers in groups of three, floats at a sensible precision, all on one line."""
    values = python_values(column)
    kind = column.type
    if t.is_integer(kind) or (t.is_decimal(kind) and kind.scale == 0):
        return _shown_integers(name, values)
    if t.is_floating(kind):
        return _shown_floats(values)
    if t.is_decimal(kind):
        return _each(values, lambda value: f"{value:,f}")
    if t.is_boolean(kind):
        return _each(values, lambda value: "true" if value else "false")
    if t.is_timestamp(kind):
        return _shown_timestamps(values)
    return _each(values, lambda value: visible(_plain(value)))


def csv_texts(column: pa.ChunkedArray) -> Texts:
    """A column as CSV has it: every digit kept, nested values as JSON."""
    if t.is_integer(column.type) or t.is_floating(column.type) or t.is_boolean(column.type) or t.is_decimal(column.type):
        texts: Texts = column.cast(pa.string()).to_pylist()
        return texts
    return _each(python_values(column), lambda value: _json(value) if isinstance(value, list | Mapping) else _plain(value))


def json_texts(column: pa.ChunkedArray) -> list[str]:
    """A column as JSON values: NaN and infinities as null, dates and times as ISO 8601 texts, decimals as numbers."""
    if t.is_timestamp(column.type):
        return [_json(value.replace(" ", "T", 1) if value is not None else None) for value in python_values(column)]
    return [_json(value) for value in python_values(column)]


def python_values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python values; dates and times as text, since Python's own types do not reach as far as SQL's."""
    kind = column.type
    if t.is_dictionary(kind):
        return python_values(column.cast(kind.value_type))
    if t.is_temporal(kind) and not t.is_interval(kind) and not t.is_duration(kind):
        return _each(column.cast(pa.string()).to_pylist(), _time_text)
    if t.is_float32(kind):  # 0.1, not 0.10000000149011612
        values: list[Any] = column.cast(pa.string()).cast(pa.float64()).to_pylist()
        return values
    if t.is_map(kind):
        maps: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
        return maps
    plain: list[Any] = column.to_pylist()
    return plain


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _compact(value)


def _each(values: Sequence[Any], text: Callable[[Any], str]) -> Texts:
    return [None if value is None else text(value) for value in values]


def _time_text(text: str) -> str:
    """``10:00:00.500000`` → ``10:00:00.5``; ``…+0200`` → ``…+02:00``."""
    if "out of range" in text:  # Arrow's words for DuckDB's infinity
        return "infinity"
    short = _FRACTION.sub(lambda match: f".{match.group(1)}" if match.group(1) else "", text)
    return _OFFSET.sub(r"\1:\2", short) if ":" in short else short


def visible(text: str) -> str:
    """One line: line ends and other control characters as escapes; the text NULL in quotes, to tell it from NULL."""
    if text == "NULL":
        return "'NULL'"
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], text)


def _shown_integers(name: str, values: Sequence[Any]) -> Texts:
    """Groups of three from 1,000 on, but not in a column that is called an identifier or a year, or holds nothing but years."""
    years = all(value is None or value in _YEARS for value in values)
    grouped = not years and not _IDENTIFIER.search(name if not name.isupper() else name.lower())
    return _each(values, lambda value: f"{int(value):,}" if grouped else str(int(value)))


def _shown_timestamps(values: Sequence[str | None]) -> Texts:
    """Whole seconds, and so many more digits as it takes for different times to look different."""
    texts = list(values)
    for digits in (0, 3, 6, 9):
        texts = _each(values, partial(_to_digits, digits))
        if len(set(texts)) == len(set(values)):
            break
    return texts


def _to_digits(digits: int, time: str) -> str:
    """``10:00:05.25`` → ``10:00:05`` or ``10:00:05.250``"""
    return _SECOND.sub(lambda found: found[1] + (f".{(found[2] or '')[:digits]:0<{digits}}" if digits else ""), time)


def _shown_floats(values: Sequence[Any]) -> Texts:
    """The same number of decimals for a whole column, by its largest value, so that the points stand below each other."""
    sizes = [abs(value) for value in values if value is not None and math.isfinite(value) and value != 0]
    decimals = _decimals(max(sizes)) if sizes else 1
    texts = _each(values, lambda value: _float_text(value, decimals))
    plain = [text for text in texts if text is not None and "." in text and "e" not in text]
    spare = min((len(text) - len(text.rstrip("0")) for text in plain), default=0)
    spare = min(spare, decimals - 1)  # 3.0 stays a float
    return [text[: len(text) - spare] if spare and text in plain else text for text in texts]


def _decimals(largest: float) -> int:
    """How many decimals a column of this size deserves."""
    if largest >= 1000:
        return 2
    if largest >= 1:
        return 3
    return min(3 - math.floor(math.log10(largest)), 9)


def _float_text(value: float, decimals: int) -> str:
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    size = abs(value)
    if value and (size >= 1e15 or size < 2 * 10.0**-decimals):  # what fixed decimals would drown or lose
        return f"{value:.4g}" if size < 1 else repr(value)
    return f"{value:,.{decimals}f}"


def _compact(value: Any) -> str:
    """A nested value: ``[1, 2]``, ``{no: 0.883, yes: 0.117}``."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_compact(key)}: {_compact(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_compact, value)) + "]"
    if isinstance(value, bytes):
        return _bytes_text(value)
    if isinstance(value, pa.MonthDayNano):
        return _interval_text(value)
    return str(value)


def _bytes_text(value: bytes) -> str:
    """``\\x`` and hexadecimal digits, as PostgreSQL prints them."""
    return "\\x" + value.hex()


def _interval_text(value: pa.MonthDayNano) -> str:
    """``2 months 3 days 04:05:06.5``"""
    units = ((value.months, "month"), (value.days, "day"))
    parts = [f"{count} {unit}{'' if abs(count) == 1 else 's'}" for count, unit in units if count]
    if value.nanoseconds or not parts:
        seconds, rest = divmod(abs(value.nanoseconds), 1_000_000_000)
        sign = "-" if value.nanoseconds < 0 else ""
        clock = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        parts.append(clock + (f".{rest:09}".rstrip("0") if rest else ""))
    return " ".join(parts)


def _json(value: Any) -> str:
    """One JSON value.  Decimals keep their digits, which ``json.dumps`` cannot do."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "null"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key), ensure_ascii=False)}: {_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple) and not isinstance(value, pa.MonthDayNano):
        return "[" + ", ".join(map(_json, value)) + "]"
    if isinstance(value, bytes | pa.MonthDayNano):
        return json.dumps(_compact(value))
    if value is None or isinstance(value, bool | int | str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value.isoformat() if hasattr(value, "isoformat") else str(value), ensure_ascii=False)
