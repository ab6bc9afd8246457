"""Columns of Python values, as database drivers give them, as Arrow arrays; and what the first rows tell of a column's type.

A driver's types are its own, so a column's type is what its database declares, where that is known and true, or what its values
are.  A value of another type later on is an error that names both: nothing is guessed in silence.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pyarrow as pa

from sqlml.errors import DataError


@dataclass(frozen=True)
class Sort:
    """A type of column: its SQL name, its Arrow type, the Python classes of its values, and what makes a value Arrow's.

    Values of the class ``plain`` are taken as they are.  ``convert`` raises ``ValueError`` for a value that is not of the type.
    """

    name: str
    arrow: pa.DataType
    classes: tuple[type, ...]
    convert: Callable[[Any], Any]
    plain: type | None = None

    def takes(self, values: Sequence[Any]) -> bool:
        """Whether all these values are of the type."""
        try:
            self.array(values)
        except (ValueError, ArithmeticError, pa.ArrowException):
            return False
        return True

    def array(self, values: Sequence[Any]) -> pa.Array:
        """The values as an Arrow array.  ``ValueError``, ``ArithmeticError`` or ``ArrowException`` where they do not fit."""
        found = set(map(type, values)) - {type(None)}
        if not all(_is_of(cls, self.classes) for cls in found):
            raise ValueError(self.name)
        if found and found != {self.plain}:
            values = [None if value is None else self.convert(value) for value in values]
        return pa.array(values, self.arrow)


def column_array(name: str, sort: Sort, values: Sequence[Any], before: int) -> pa.Array:
    """A column's next values; ``before`` rows have been read.  ``DataError`` names the column, both types and the row."""
    try:
        return sort.array(values)
    except (ValueError, ArithmeticError, pa.ArrowException):
        number = next((i for i, value in enumerate(values) if not sort.takes([value])), 0)
    other = _name_of(values[number])
    does = f"is {other}" if other != sort.name else f"does not fit {other}"
    raise DataError(
        f"the column {name} has values of several types: {sort.name} in the first rows, and row {before + number + 1:,} {does}",
        hint=f"make them one type in the query, as in CAST({name} AS …)",
    )


def sort_of(name: str, values: Sequence[Any]) -> Sort | None:
    """The type that all of a column's first values have; None where all are NULL.  ``DataError`` where they have several."""
    known: Sort | None = None
    for value in values:
        if value is None or (known is not None and known.plain is type(value)):
            continue
        sort = _sort_of_value(value)
        if known is None or known.arrow == sort.arrow:
            known = sort
        elif known in (BIGINT, DOUBLE) and sort in (BIGINT, DOUBLE):
            known = DOUBLE
        else:
            raise DataError(
                f"the column {name} has values of several types: {known.name} and {sort.name}",
                hint=f"make them one type in the query, as in CAST({name} AS …)",
            )
    return known


def decimal(precision: int, scale: int) -> Sort:
    """Exact numbers of up to 38 digits."""
    return Sort(f"DECIMAL({precision},{scale})", pa.decimal128(precision, scale), (Decimal, int), Decimal, Decimal)


def _sort_of_value(value: Any) -> Sort:
    if isinstance(value, dt.datetime):
        return TIMESTAMPTZ if value.tzinfo else TIMESTAMP
    if isinstance(value, list | tuple):
        return next((sort for sort in (NUMBERS, TEXTS) if value and sort.takes([value])), TEXT)
    return next((sort for sort in _SIMPLE if _is_of(type(value), sort.classes)), TEXT)


def _name_of(value: Any) -> str:
    return "NULL" if value is None else _sort_of_value(value).name


def _is_of(cls: type, classes: Collection[type]) -> bool:
    """As ``issubclass``, but a boolean is no number and a timestamp no date; a text is whatever is none of the others."""
    for narrow, wide in ((bool, int), (dt.datetime, dt.date)):
        if issubclass(cls, narrow):
            return narrow in classes
        if wide in classes and issubclass(cls, wide):
            return True
    if str in classes and not issubclass(cls, _OTHERS):
        return True
    return issubclass(cls, tuple(classes))


def _text(value: Any) -> str:
    """A value of another type as text: JSON as it is written, the rest as its class shows it (UUIDs, addresses, ranges)."""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _local(value: dt.datetime) -> dt.datetime:
    if value.tzinfo is not None:
        raise ValueError("a time zone")
    return value


def _zoned(value: dt.datetime) -> dt.datetime:
    if value.tzinfo is None:
        raise ValueError("no time zone")
    return value.astimezone(dt.UTC)


def _clock(value: dt.time) -> dt.time:
    if value.tzinfo is not None:
        raise ValueError("a time zone")
    return value


def _numbers(value: Sequence[Any]) -> list[float | None]:
    if not all(item is None or _is_of(type(item), DOUBLE.classes) for item in value):
        raise ValueError("no numbers")
    return [None if item is None else float(item) for item in value]


def _texts(value: Sequence[Any]) -> list[str | None]:
    if not all(item is None or isinstance(item, str | uuid.UUID) for item in value):
        raise ValueError("no texts")
    return [None if item is None else str(item) for item in value]


def _written_boolean(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError("neither 0 nor 1")
    return bool(value)


def _written_timestamp(value: Any) -> dt.datetime:
    return _local(dt.datetime.fromisoformat(value) if isinstance(value, str) else value)


def _written_date(value: Any) -> dt.date:
    return dt.date.fromisoformat(value) if isinstance(value, str) else value


def _written_time(value: Any) -> dt.time:
    return _clock(dt.time.fromisoformat(value) if isinstance(value, str) else value)


BOOLEAN = Sort("BOOLEAN", pa.bool_(), (bool,), bool, bool)
BIGINT = Sort("BIGINT", pa.int64(), (int,), int, int)
DOUBLE = Sort("DOUBLE", pa.float64(), (float, int, Decimal), float, float)
BLOB = Sort("BLOB", pa.binary(), (bytes, bytearray, memoryview), bytes, bytes)
TIMESTAMP = Sort("TIMESTAMP", pa.timestamp("us"), (dt.datetime,), _local)
TIMESTAMPTZ = Sort("TIMESTAMP WITH TIME ZONE", pa.timestamp("us", "UTC"), (dt.datetime,), _zoned)
DATE = Sort("DATE", pa.date32(), (dt.date,), lambda value: value, dt.date)
TIME = Sort("TIME", pa.time64("us"), (dt.time,), _clock)
INTERVAL = Sort("INTERVAL", pa.duration("us"), (dt.timedelta,), lambda value: value, dt.timedelta)
NUMBERS = Sort("DOUBLE[]", pa.list_(pa.float64()), (list, tuple), _numbers)
TEXTS = Sort("VARCHAR[]", pa.list_(pa.string()), (list, tuple), _texts)
TEXT = Sort("VARCHAR", pa.string(), (str,), _text, str)
NULL = Sort("NULL", pa.null(), (), lambda value: value)

_SIMPLE = (BOOLEAN, BIGINT, DOUBLE, BLOB, DATE, TIME, INTERVAL)
_OTHERS = (bool, int, float, Decimal, bytes, bytearray, memoryview, dt.date, dt.time, dt.timedelta)

_WRITTEN = (
    ("BOOL", replace(BOOLEAN, classes=(bool, int), convert=_written_boolean)),
    ("DATETIME", replace(TIMESTAMP, classes=(dt.datetime, str), convert=_written_timestamp)),
    ("TIMESTAMP", replace(TIMESTAMP, classes=(dt.datetime, str), convert=_written_timestamp)),
    ("DATE", replace(DATE, classes=(dt.date, str), convert=_written_date)),
    ("TIME", replace(TIME, classes=(dt.time, str), convert=_written_time)),
    ("INT", BIGINT),
    ("CHAR", TEXT),
    ("CLOB", TEXT),
    ("TEXT", TEXT),
    ("BLOB", BLOB),
    ("REAL", DOUBLE),
    ("FLOA", DOUBLE),
    ("DOUB", DOUBLE),
    ("NUM", DOUBLE),
    ("DEC", DOUBLE),
)
"""What SQLite's declared types promise, by the words in them, dates and times as ISO 8601 texts; where a column's values differ,
they count.  https://sqlite.org/datatype3.html
"""

_OIDS = {
    16: BOOLEAN, 17: BLOB, 20: BIGINT, 21: BIGINT, 23: BIGINT, 26: BIGINT, 700: DOUBLE, 701: DOUBLE, 1700: DOUBLE,
    18: TEXT, 19: TEXT, 25: TEXT, 114: TEXT, 1042: TEXT, 1043: TEXT, 2950: TEXT, 3802: TEXT, 1082: DATE, 1083: TIME,
    1114: TIMESTAMP, 1184: TIMESTAMPTZ, 1186: INTERVAL, 1009: TEXTS, 1015: TEXTS,
    1005: NUMBERS, 1007: NUMBERS, 1016: NUMBERS, 1021: NUMBERS, 1022: NUMBERS, 1231: NUMBERS,
}  # fmt: skip
"""PostgreSQL's types by their numbers in ``pg_type``, which its drivers give with a result."""


def declared_in_sqlite(words: str) -> Sort | None:
    """The type that a column of SQLite is declared to have."""
    upper = words.upper()
    return next((sort for word, sort in _WRITTEN if word in upper), None)


def declared_in_postgres(column: Sequence[Any]) -> Sort | None:
    """The type of a column, from its entry in a cursor's description (PEP 249): name, type, …, precision, scale, …"""
    precision, scale = column[4], column[5]
    if column[1] == 1700 and precision is not None and scale is not None and 0 <= scale <= precision <= 38:
        return decimal(precision, scale)
    return _OIDS.get(column[1])
