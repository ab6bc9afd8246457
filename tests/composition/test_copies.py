"""Copies of tables for look-ups: written whole or not at all, followed when they are replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sqlml.composition.copies import Copy, copy_info, copy_path, describe_copy, open_copy, write_copy
from sqlml.errors import BindError, BundleError, DataError, OperationalError
from sqlml.plan import InputColumn
from sqlml.types import Kind

ID = InputColumn("id", "BIGINT", Kind.NUMBER)
NAME = InputColumn("name", "VARCHAR", Kind.TEXT)


def batch(*columns: Sequence[Any] | pa.Array) -> pa.RecordBatch:
    return pa.record_batch([pa.array(column) for column in columns], names=[f"c{i}" for i in range(len(columns))])


def found(copy: Copy, keys: Sequence[InputColumn], values: Sequence[Any], columns: Sequence[InputColumn]) -> list[list[Any]]:
    given = [pa.array(v) if not isinstance(v, pa.Array) else v for v in values]
    return [array.to_pylist() for array in copy.find(keys, given, columns)]


def test_every_kind_comes_back_as_it_was(tmp_path: Path) -> None:
    day, moment, noon = date(2024, 2, 29), datetime(2024, 2, 29, 13, 45, 0, 250), time(12, 0)
    columns = [
        (InputColumn("n", "INTEGER", Kind.NUMBER), pa.array([7], pa.int32()), 7),
        (InputColumn("x", "DECIMAL(10,2)", Kind.NUMBER), pa.array([Decimal("1.25")]), 1.25),
        (InputColumn("on", "BOOLEAN", Kind.BOOLEAN), pa.array([True]), True),
        (NAME, pa.array(["ßé"]), "ßé"),
        (InputColumn("mood", "ENUM('a')", Kind.TEXT), pa.array(["a"]).dictionary_encode(), "a"),
        (InputColumn("day", "DATE", Kind.DATE), pa.array([day]), day),
        (InputColumn("at", "TIME", Kind.TIME), pa.array([noon]), noon),
        (InputColumn("seen", "TIMESTAMP", Kind.TIMESTAMP), pa.array([moment], pa.timestamp("ns")), moment),
        (InputColumn("z", "TIMESTAMP WITH TIME ZONE", Kind.TIMESTAMPTZ), pa.array([moment], pa.timestamp("us", "UTC")),
         moment.replace(tzinfo=UTC)),
        (InputColumn("v", "DOUBLE[]", Kind.NUMBERS), pa.array([[1.5, None]]), [1.5, None]),
        (InputColumn("tags", "VARCHAR[]", Kind.TEXTS), pa.array([["a"]]), ["a"]),
    ]  # fmt: skip
    path = copy_path(tmp_path, "c")
    arrays = [pa.array([3]), *(array for _, array, _ in columns)]
    write_copy(path, "t", [ID], [c for c, _, _ in columns], [batch(*arrays)])
    got = found(open_copy(path), [ID], [[3.0]], [c for c, _, _ in columns])
    assert got == [[value] for _, _, value in columns]


def test_keys_of_several_columns_and_of_any_length(tmp_path: Path) -> None:
    path = copy_path(tmp_path, "c")
    long = "x" * 5000
    rows = batch([1, 1, 2], ["a", long, "a"], [10, 11, 12])
    write_copy(path, "t", [ID, NAME], [ID], [rows])
    copy = open_copy(path)
    assert found(copy, [ID, NAME], [[1.0, 1.0, 2.0, 2.0], ["a", long, "a", "b"]], [ID]) == [[10, 11, 12, None]]


@pytest.mark.parametrize(
    ("kind", "sql_type", "values"),
    [
        (Kind.DATE, "DATE", pa.array([date(1900, 1, 1), date(2024, 1, 1)])),
        (Kind.BOOLEAN, "BOOLEAN", pa.array([True, False])),
        (Kind.NUMBER, "DOUBLE", pa.array([0.5, -0.25])),
        (Kind.TIMESTAMP, "TIMESTAMP", pa.array([datetime(2024, 1, 1), datetime(2024, 1, 2)])),
    ],
)
def test_keys_of_other_kinds(tmp_path: Path, kind: Kind, sql_type: str, values: pa.Array) -> None:
    key = InputColumn("k", sql_type, kind)
    path = copy_path(tmp_path, "c")
    write_copy(path, "t", [key], [ID], [pa.record_batch([values, pa.array([1, 2])], names=["k", "v"])])
    assert found(open_copy(path), [key], [values], [ID]) == [[1, 2]]


def test_a_missing_key_and_a_null_give_nulls(tmp_path: Path) -> None:
    path = copy_path(tmp_path, "c")
    info = write_copy(path, "t", [ID], [NAME], [batch([1, None], ["a", "lost"])])
    assert info.rows == 1
    assert found(open_copy(path), [ID], [[1.0, None, 2.0]], [NAME]) == [["a", None, None]]


def test_a_key_that_is_there_is_an_example(tmp_path: Path) -> None:
    keys = [InputColumn("town", "VARCHAR", Kind.TEXT), InputColumn("day", "DATE", Kind.DATE)]
    rows = batch(["a" * 600, None, "b", "c"], pa.array([date(2024, 5, 31)] * 4))
    write_copy(tmp_path / "a.lmdb", "t", keys, [], [rows])
    copy = Copy(tmp_path / "a.lmdb")
    assert copy.example_key(keys) == ["b", "2024-05-31"]  # what is too long for a key of the file is none
    write_copy(tmp_path / "a.lmdb", "t", keys, [], [rows.slice(0, 2)])
    assert copy.example_key(keys) is None
    number = [InputColumn("id", "BIGINT", Kind.NUMBER)]
    write_copy(tmp_path / "b.lmdb", "t", number, [], [batch([7, 9])])
    assert Copy(tmp_path / "b.lmdb").example_key(number) == [7]


def test_an_empty_table(tmp_path: Path) -> None:
    path = copy_path(tmp_path, "c")
    assert write_copy(path, "t", [ID], [NAME], []).rows == 0
    assert found(open_copy(path), [ID], [[1.0]], [NAME]) == [[None]]


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_key_that_two_rows_have_is_shown_and_the_old_copy_stays(tmp_path: Path, cut: int) -> None:
    path = copy_path(tmp_path, "c")
    write_copy(path, "t", [ID, NAME], [ID], [batch([9], ["old"], [0])])
    rows = batch([1, 2, 1, 3], ["a", "b", "it's", "a"], [1, 2, 3, 4])
    twice = batch([1], ["it's"], [5])
    with pytest.raises(BindError, match=r"t has several rows with id = 1, name = 'it's': it cannot be looked up by that"):
        write_copy(path, "t", [ID, NAME], [ID], [rows.slice(0, cut), rows.slice(cut), twice])
    assert found(open_copy(path), [ID, NAME], [[9.0], ["old"]], [ID]) == [[0]]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_whole_numbers_beyond_json(tmp_path: Path) -> None:
    path = copy_path(tmp_path, "c")
    with pytest.raises(BindError, match=r"id of t has the key 9007199254740993"):
        write_copy(path, "t", [ID], [NAME], [batch([2**53 + 1], ["a"])])
    write_copy(path, "t", [ID], [NAME], [batch([2**53 - 1], ["a"])])
    assert found(open_copy(path), [ID], [[2.0**53 - 1]], [NAME]) == [["a"]]
    with pytest.raises(DataError, match="exact up to 2\\^53"):
        open_copy(path).find([ID], [pa.array([2.0**53])], [NAME])


def test_a_copy_that_is_replaced_is_followed_and_a_deleted_one_stays_readable(tmp_path: Path) -> None:
    path = copy_path(tmp_path, "c")
    write_copy(path, "t", [ID], [NAME], [batch([1], ["old"])])
    copy = open_copy(path)
    assert found(copy, [ID], [[1.0]], [NAME]) == [["old"]]
    write_copy(path, "t", [ID], [NAME], [batch([1], ["new"])])
    assert found(copy, [ID], [[1.0]], [NAME]) == [["new"]]
    path.unlink()
    assert found(copy, [ID], [[1.0]], [NAME]) == [["new"]]


def test_rows_that_fail_half_way_leave_nothing(tmp_path: Path) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield batch([1], ["a"])
        raise DataError("the connection is gone")

    with pytest.raises(DataError, match="gone"):
        write_copy(copy_path(tmp_path, "c"), "t", [ID], [NAME], batches())
    assert list(tmp_path.iterdir()) == []


def test_what_there_is_to_know_of_a_copy(tmp_path: Path) -> None:
    path = copy_path(tmp_path, "c")
    assert copy_info(path) is None
    made = write_copy(path, "shop.customers", [ID], [NAME], [batch([1, 2], ["a", "b"])])
    info = copy_info(path)
    assert info == made
    assert info is not None
    assert describe_copy(info).startswith("shop.customers: 2 rows, 0.0 MB, ")


def test_a_damaged_copy_is_named(tmp_path: Path) -> None:
    path = copy_path(tmp_path, "c")
    path.write_bytes(b"no copy" * 4000)
    with pytest.raises(BundleError, match=r"the copy .* cannot be read"):
        open_copy(path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperationalError, match="the copy of t cannot be written"):
        write_copy(copy_path(tmp_path / "file", "c"), "t", [ID], [NAME], [batch([1], ["a"])])
