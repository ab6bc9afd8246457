"""Copies of tables for look-ups by key: one LMDB file each, in the home, mapped into memory by whoever reads.

    rows of the table → key and row as MessagePack → file beside its place → renamed;   key → row, about 2 µs

A file is never changed once it stands: REFRESH puts another in its place, and a reader goes over to that with the next request.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.errors import BindError, BundleError, DataError, OperationalError, count_of
from sqlml.features.dataset import canonical
from sqlml.plan import InputColumn
from sqlml.types import Kind, arrow_type

if TYPE_CHECKING:
    import lmdb

SUFFIX = ".lmdb"
KEY_KINDS = (Kind.NUMBER, Kind.BOOLEAN, Kind.TEXT, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)
_ABOUT = b"\x00about"
"""The record about the copy itself; a key is a MessagePack list, and none begins with a zero byte."""
_LONGEST = 500
_HASHED = b"\xc1"
"""LMDB takes keys of 511 bytes at most; a longer one is replaced by its hash, behind a byte that MessagePack never has."""
_MOST = 1 << 40
"""How large a file may grow while it is written: addresses, not memory."""
_EXACT = 2.0**53
"""From here on JSON's numbers, which are doubles to most clients, cannot tell one whole number from the next."""
INTEGERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"})
_STORED = {
    Kind.DATE: pa.int32(),
    Kind.TIME: pa.int64(),
    Kind.TIMESTAMP: pa.int64(),
    Kind.TIMESTAMPTZ: pa.int64(),
}
_AGAIN = "REFRESH ENDPOINT makes it again"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


@dataclass(frozen=True)
class CopyInfo:
    """What there is to know of a copy: seconds since 1970, rows, bytes on disk."""

    table: str
    made_at: float
    rows: int
    bytes: int = 0


def copy_path(folder: Path, name: str) -> Path:
    """Where a copy lies."""
    return folder / f"{name}{SUFFIX}"


def value_type(column: InputColumn) -> pa.DataType:
    """The Arrow type in which a column's values come back: whole numbers as such, else that of the kind."""
    return pa.int64() if column.sql_type in INTEGERS else arrow_type(column.kind)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_copy(
    path: Path, table: str, keys: Sequence[InputColumn], columns: Sequence[InputColumn], batches: Iterable[pa.RecordBatch]
) -> CopyInfo:
    """Copy a table: batches have the columns of its key first, then the others.  A row with NULL in its key is left out.

    ``BindError`` for a key that two rows have; ``OperationalError`` where the disk is full.  The old copy stays until the new one
    is whole, and then is gone in one step.
    """
    import lmdb

    beside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        with closing(lmdb.open(str(beside), subdir=False, map_size=_MOST, lock=False, sync=False, mode=0o600)) as environment:
            rows = sum(_write_batch(environment, table, keys, columns, batch) for batch in batches)
            info = CopyInfo(table, time.time(), rows)
            with environment.begin(write=True) as transaction:
                transaction.put(_ABOUT, msgspec.json.encode(asdict(info)))
            environment.sync(True)
        beside.replace(path)
    except (lmdb.Error, OSError) as error:
        raise OperationalError(f"the copy of {table} cannot be written: {error}", hint=f"it lies in {path.parent}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
    return CopyInfo(table, info.made_at, rows, path.stat().st_size)


def _write_batch(
    environment: lmdb.Environment,
    table: str,
    keys: Sequence[InputColumn],
    columns: Sequence[InputColumn],
    batch: pa.RecordBatch,
) -> int:
    """Put the rows of a batch; how many there were."""
    given = [_stored(array, column) for array, column in zip(batch.columns, (*keys, *columns), strict=True)]
    _check_exact(table, keys, given)
    key_rows = list(zip(*given[: len(keys)], strict=True))
    rows = list(zip(*given[len(keys) :], strict=True)) or [()] * len(key_rows)
    items = [(key_bytes(key), _encode(row)) for key, row in zip(key_rows, rows, strict=True) if None not in key]
    with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
        consumed, added = cursor.putmulti(items, dupdata=False, overwrite=False)
        if added < consumed:
            transaction.abort()
    if added < consumed:
        raise _twice(environment, table, keys, given)
    return len(items)


def _stored(array: pa.Array, column: InputColumn) -> list[Any]:
    """A column's values as MessagePack takes them: dates and times as numbers."""
    wanted = value_type(column)
    try:
        values = pc.cast(array, wanted) if wanted == pa.int64() else canonical(array, column.kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        why = str(error).splitlines()[0]
        raise DataError(
            f"the column {column.name} is not {column.sql_type} any more: {why}", hint="deploy the query again"
        ) from None
    if column.kind in _STORED:
        values = values.cast(_STORED[column.kind])
    return list(values.to_pylist())


def _check_exact(table: str, keys: Sequence[InputColumn], given: Sequence[Sequence[Any]]) -> None:
    for column, values in zip(keys, given, strict=False):
        if column.kind is Kind.NUMBER:
            far = next((value for value in values if value is not None and abs(value) >= _EXACT), None)
            if far is not None:
                raise BindError(
                    f"{column.name} of {table} has the key {far}, and JSON's numbers cannot tell it from its neighbours",
                    hint=f"look it up as a text: a view with CAST({column.name} AS VARCHAR) AS {column.name}",
                )


def _twice(environment: lmdb.Environment, table: str, keys: Sequence[InputColumn], given: Sequence[Sequence[Any]]) -> BindError:
    """The error for a batch with a key that is there already, or that it has twice itself."""
    seen: set[bytes] = set()
    shown = ""
    with environment.begin() as transaction:
        for key in zip(*given[: len(keys)], strict=True):
            packed = key_bytes(key)
            if None not in key and (packed in seen or transaction.get(packed) is not None):
                names = zip(keys, key, strict=True)
                shown = ", ".join(f"{c.name} = {_shown(value, c.kind)}" for c, value in names)
                break
            seen.add(packed)
    return BindError(
        f"{table} has several rows with {shown}: it cannot be looked up by that",
        hint="the columns that are compared must tell its rows apart: add one that does, or read a view without the others",
    )


def _shown(value: Any, kind: Kind) -> str:
    value = _json_value(value, kind)
    return f"'{value}'" if kind not in (Kind.NUMBER, Kind.BOOLEAN) else str(value)


def _json_value(value: Any, kind: Kind) -> Any:
    """A stored value as JSON has it: dates and times as texts."""
    return str(pa.array([value], _STORED[kind]).cast(arrow_type(kind))[0].as_py()) if kind in _STORED else value


def key_bytes(key: Sequence[Any]) -> bytes:
    """A key as the file has it: the same for 3 and 3.0."""
    packed = _encode([int(v) if isinstance(v, float) and v.is_integer() else v for v in key])
    return packed if len(packed) <= _LONGEST else _HASHED + hashlib.blake2b(packed, digest_size=32).digest()


# --- reading ----------------------------------------------------------------------------------------------------------


class Copy:
    """A copy that stands, kept open.  Safe to use from many threads; one that was replaced is followed at the next call."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: tuple[object, lmdb.Environment | None] = (
            None,
            None,
        )  # which file it was, and its environment: swapped as one
        self._lock = threading.Lock()
        self._environment()

    def find(self, keys: Sequence[InputColumn], values: Sequence[pa.Array], columns: Sequence[InputColumn]) -> list[pa.Array]:
        """The rows of these keys, column by column in ``value_type``; NULLs where there is none, or the key is NULL.

        ``DataError`` for a number that is too large to be told from its neighbours.
        """
        given = [_key_values(array, column) for array, column in zip(values, keys, strict=True)]
        empty = [None] * len(columns)
        with self._environment().begin(buffers=True) as transaction:
            found = [transaction.get(key_bytes(key)) if None not in key else None for key in zip(*given, strict=True)]
            rows = [empty if raw is None else _decode(raw) for raw in found]
        return [pa.array([row[i] for row in rows], value_type(column)) for i, column in enumerate(columns)]

    def example_key(self, keys: Sequence[InputColumn]) -> list[Any] | None:
        """The key of a row that is there, as JSON values; None where there is none."""
        with self._environment().begin() as transaction, transaction.cursor() as cursor:
            packed = next((key for key in cursor.iternext(values=False) if not key.startswith((_ABOUT, _HASHED))), None)
        return None if packed is None else [_json_value(v, c.kind) for v, c in zip(_decode(packed), keys, strict=True)]

    def info(self) -> CopyInfo:
        """What there is to know of it."""
        with self._environment().begin() as transaction:
            document: Mapping[str, Any] = msgspec.json.decode(transaction.get(_ABOUT) or b"{}")
        if not document:
            raise BundleError(f"the copy {self._path} was not written to its end", hint=_AGAIN)
        return CopyInfo(document["table"], document["made_at"], document["rows"], self._path.stat().st_size)

    def _environment(self) -> lmdb.Environment:
        known, environment = self._open
        mark = _mark(self._path)
        if environment is not None and mark in (known, None):  # a file that was deleted stays readable
            return environment
        with self._lock:
            known, environment = self._open
            if environment is None or mark != known:
                environment = _open_environment(self._path)
                self._open = (mark, environment)
        return environment


def _mark(path: Path) -> object:
    """Which file lies there now; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _open_environment(path: Path) -> lmdb.Environment:
    import lmdb

    try:
        return lmdb.open(str(path), subdir=False, readonly=True, lock=False, create=False, readahead=False)
    except lmdb.Error as error:
        raise BundleError(f"the copy {path} cannot be read: {error}", hint=_AGAIN) from error


def _key_values(array: pa.Array, column: InputColumn) -> list[Any]:
    if column.kind in _STORED:
        return list(array.cast(arrow_type(column.kind)).cast(_STORED[column.kind]).to_pylist())
    values: list[Any] = array.to_pylist()
    if column.kind is Kind.NUMBER:
        far = next((value for value in values if value is not None and abs(value) >= _EXACT), None)
        if far is not None:
            raise DataError(f"{column.name} cannot be looked up by {far:.0f}: whole numbers are exact up to 2^53 alone")
    return values


_copies: dict[Path, Copy] = {}
_copies_lock = threading.Lock()


def open_copy(path: Path) -> Copy:
    """The copy at a place, opened once for the process.  ``BundleError`` where there is none, or it is damaged."""
    with _copies_lock:
        if path not in _copies:
            _copies[path] = Copy(path)
        return _copies[path]


def copy_info(path: Path) -> CopyInfo | None:
    """What there is to know of a copy; None where there is none."""
    return open_copy(path).info() if path.is_file() else None


def describe_copy(info: CopyInfo) -> str:
    """``customers: 45,211 rows, 3.4 MB, 12 minutes old``"""
    age = max(0.0, time.time() - info.made_at)
    unit, seconds = next(
        ((name, size) for name, size in (("day", 86_400), ("hour", 3600), ("minute", 60)) if age >= size), ("second", 1)
    )
    return f"{info.table}: {count_of(info.rows, 'row')}, {info.bytes / 1e6:.1f} MB, {count_of(int(age // seconds), unit)} old"
