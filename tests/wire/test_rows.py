"""Rows as messages: what C writes is byte for byte what Arrow's functions make, for every type, slice and odd value."""

from __future__ import annotations

import datetime
import decimal
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sqlml.native.rows import Line, has_rows
from sqlml.wire.cells import encode
from sqlml.wire.copy_rows import joined_lines
from sqlml.wire.copying import Format
from sqlml.wire.native_rows import native_lines, native_messages
from sqlml.wire.rows import joined
from sqlml.wire.types import wire_type

pytestmark = pytest.mark.skipif(not has_rows(), reason="the native library was not built")

ENDS = [-(2**63), -1, 0, 1, 9, 10, 99, 100, 12345, 10**18, 2**63 - 1]
DAYS = [datetime.date(1, 1, 1), datetime.date(1969, 12, 31), datetime.date(2000, 2, 29), datetime.date(9999, 12, 31), None]
SECOND = 1_000_000
MOMENTS = [0, -1, 1, 100, 999_999, 500_000, SECOND, 86_400 * SECOND - 1, -62_135_596_800 * SECOND, 253_402_300_799 * SECOND, None]


def doubles() -> list[float]:
    rng = np.random.default_rng(1)
    every = rng.integers(0, 2**64, 3000, dtype=np.uint64).view(np.float64)
    few = np.round(rng.standard_normal(3000) * 1000, 3)
    near = [float(f"{sign}{digits}e{power}") for sign in ("", "-") for digits in ("1", "9.999", "1.5") for power in range(-8, 25)]
    ends = [0.0, -0.0, 5e-324, 1.7976931348623157e308, 2.2250738585072014e-308, 1e23, 2.0**53 + 2, float("inf"), float("-inf")]
    return [*every.tolist(), *few.tolist(), *near, *ends, *[2.0**n for n in range(-1074, 1024)], float("nan")]


def floats() -> NDArray[np.float32]:
    rng = np.random.default_rng(2)
    every = rng.integers(0, 2**32, 5000, dtype=np.uint32).view(np.float32)
    near = [
        float(f"{sign}{digits}e{power}") for sign in ("", "-") for digits in ("1", "9.99999", "1.5") for power in range(-8, 15)
    ]
    ends = [0.0, -0.0, 1e-45, 3.4028235e38, 1.1754944e-38, 16777216.0, float("nan"), float("inf"), float("-inf")]
    powers = [2.0**n for n in range(-149, 128)]
    return np.concatenate([every, np.array([*near, *ends, *powers], np.float32)])


ARRAYS: dict[str, pa.Array] = {
    "BOOLEAN": pa.array([True, False, None] * 7),
    "TINYINT": pa.array([-128, 127, None], pa.int8()),
    "SMALLINT": pa.array([-(2**15), 2**15 - 1, 0, None], pa.int16()),
    "INTEGER": pa.array([-(2**31), 2**31 - 1, 0, None, 10**9], pa.int32()),
    "UINTEGER": pa.array([2**32 - 1, None], pa.uint32()),
    "BIGINT": pa.array([*ENDS, None]),
    "HUGEINT": pa.array([decimal.Decimal(10**30), None], pa.decimal128(38, 0)),
    "FLOAT": pa.concat_arrays([pa.array(floats()), pa.array([None, 1.5], pa.float32())]),
    "DOUBLE": pa.array([*doubles(), None]),
    "DECIMAL(10,2)": pa.array([decimal.Decimal("-12.30"), None], pa.decimal128(10, 2)),
    "VARCHAR": pa.array(["", "plain", "ünïcode", None, "x" * 5000]),
    "BLOB": pa.array([b"", b"\0\xff", None]),
    "DATE": pa.array(DAYS),
    "TIME": pa.array([0, 1, 86_399_999_999, None], pa.time64("us")),
    "TIMESTAMP": pa.array(MOMENTS, pa.timestamp("us")),
    "TIMESTAMP_S": pa.array([0, -1, 1_700_000_000, None], pa.timestamp("s")),
    "TIMESTAMP WITH TIME ZONE": pa.array(MOMENTS[:6], pa.timestamp("us", "UTC")),
    "INTEGER[]": pa.array([[1, None], [], None, [3]], pa.list_(pa.int32())),
    "JSON": pa.array(['{"a": 1}', None]),
}
FAR = {  # infinite, before the year 1 and after 9999: C leaves them to Arrow
    "DATE": pa.array([0, 2**31 - 1, -(2**31) + 1, -719_163, 2_932_897, None], pa.int32()).view(pa.date32()),
    "TIMESTAMP": pa.array(
        [0, 2**63 - 1, -(2**63) + 1, -62_135_596_800 * SECOND - 1, 253_402_300_800 * SECOND, None], pa.timestamp("us")
    ),
}  # fmt: skip


def by_arrow(arrays: list[pa.Array], types: list[Any], binary: list[bool]) -> bytes:
    cells = [encode(array, kind, is_binary) for array, kind, is_binary in zip(arrays, types, binary, strict=True)]
    return bytes(joined(cells, len(arrays[0]), b"D"))


def rows_of(messages: bytes) -> list[list[bytes | None]]:
    """The values of DataRow messages."""
    found, at = [], 0
    while at < len(messages):
        assert messages[at : at + 1] == b"D"
        [length, count] = struct.unpack_from(">IH", messages, at + 1)
        end, at, row = at + 1 + length, at + 7, list[bytes | None]()
        for _ in range(count):
            [size] = struct.unpack_from(">i", messages, at)
            row.append(None if size < 0 else messages[at + 4 : at + 4 + size])
            at += 4 + max(size, 0)
        assert at == end
        found.append(row)
    return found


@pytest.mark.parametrize("is_binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize(
    ("sql_type", "array"), [*ARRAYS.items(), *FAR.items()], ids=[*ARRAYS, *(f"far {name}" for name in FAR)]
)  # fmt: skip
def test_a_column(sql_type: str, array: pa.Array, is_binary: bool) -> None:
    kind = wire_type(sql_type)
    for part in (array, array.slice(1), array.slice(1, max(0, len(array) - 2)), array.slice(0, 0), array.drop_null()):
        expected = rows_of(by_arrow([part], [kind], [is_binary]))
        assert rows_of(bytes(native_messages([part], [kind], [is_binary], len(part), b"D"))) == expected
        assert bytes(native_messages([part], [kind], [is_binary], len(part), b"D")) == by_arrow([part], [kind], [is_binary])


def test_all_columns_at_once() -> None:
    rows = 1000
    arrays = [pa.concat_arrays([array] * (rows // len(array) + 4)).slice(3, rows) for array in ARRAYS.values()]
    types = [wire_type(sql_type) for sql_type in ARRAYS]
    for binary in ([False] * len(types), [True] * len(types), [number % 2 == 0 for number in range(len(types))]):
        assert bytes(native_messages(arrays, types, binary, rows, b"D")) == by_arrow(arrays, types, binary)


FORMATS = {
    "text": Format(),
    "text with commas": Format(delimiter=",", null="NULL"),
    "csv": Format("csv", delimiter=",", null=""),
    "csv with escapes": Format("csv", delimiter=";", null="NULL", quote="'", escape="\\"),
}
ODD = [
    "", "plain", "NULL", "\\N", "\\.", "a,b;c\td", 'say "no"', "it's", "\\", "\n", "x\r\ny", "\b\f\v", "ü\\n", None, "'\\'", '""',
]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_lines(name: str) -> None:
    form = FORMATS[name]
    line = Line(form.delimiter, form.null, *((form.quote, form.escape) if form.name == "csv" else ("", "")))
    assert line.can_hold_numbers()
    rows = 500
    every = {**ARRAYS, "VARCHAR": pa.array(ODD)}
    arrays = [pa.concat_arrays([array] * (rows // len(array) + 4)).slice(3, rows) for array in every.values()]
    types = [wire_type(sql_type) for sql_type in every]
    assert bytes(native_lines(arrays, types, rows, line)) == bytes(joined_lines(arrays, types, rows, form))
    for array, kind in zip(arrays, types, strict=True):
        assert bytes(native_lines([array], [kind], rows, line)) == bytes(joined_lines([array], [kind], rows, form))
    for sql_type, array in FAR.items():
        kinds = [wire_type(sql_type)]
        assert bytes(native_lines([array], kinds, len(array), line)) == bytes(joined_lines([array], kinds, len(array), form))


@pytest.mark.parametrize(
    ("delimiter", "null", "quote"), [(".", "", '"'), ("-", "", '"'), (",", "0", '"'), (",", "NaN", '"'), (",", "", "e")]
)
def test_lines_in_which_numbers_are_special_are_left_to_arrow(delimiter: str, null: str, quote: str) -> None:
    assert not Line(delimiter, null, quote, quote).can_hold_numbers()


def test_a_double_is_the_same_number_again() -> None:
    values = doubles()
    found = rows_of(bytes(native_messages([pa.array(values)], [wire_type("DOUBLE")], [False], len(values), b"D")))
    again = [float(row[0] or b"") for row in found]
    assert [*map(repr, again)] == [*map(repr, values)]


def test_a_float_is_the_same_number_again() -> None:
    values = floats()
    found = rows_of(bytes(native_messages([pa.array(values)], [wire_type("FLOAT")], [False], len(values), b"D")))
    again = np.array([float(row[0] or b"") for row in found]).astype(np.float32)
    assert [*map(repr, again.tolist())] == [*map(repr, values.tolist())]


def test_no_columns() -> None:
    assert bytes(native_messages([], [], [], 3, b"d")) == b"d\0\0\0\6\0\0" * 3
