"""How large an Arrow body is once it is unpacked, found out before it is: a few kilobytes can stand for gigabytes.  No I/O.

    body → messages → what each says of its rows and buffers → 413, or batches → what views and dictionaries stand for → 413

The messages' own metadata is FlatBuffers, of which a few fields are read here: https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml_runners.serving.limits import Policy
from sqlml_runners.serving.protocol import BadRequest

_DICTIONARY, _RECORDS = 2, 3  # of the union MessageHeader
_BUFFER = struct.Struct("<qq")


def check_messages(body: pa.Buffer, policy: Policy) -> None:
    """413 where the body has more rows than one request may have, or would be larger than ``max_body`` unpacked."""
    rows = size = 0
    try:
        for message in pa.ipc.MessageReader.open_stream(body):
            found = _announced(message)
            rows, size = rows + found[0], size + found[1]
            policy.check_rows(rows)
            _check_size(size, policy)
    except (struct.error, IndexError) as error:
        raise BadRequest(400, "the body is not Arrow: its metadata points outside of it") from error


def check_values(table: pa.Table, policy: Policy) -> None:
    """413 where values that the body has once stand in many rows, and would be larger than ``max_body`` each in its place."""
    _check_size(sum(_repeated(chunk) for column in table.columns for chunk in column.chunks), policy)


def _check_size(size: int, policy: Policy) -> None:
    if size > policy.max_body:
        message = f"the body has {size:,} bytes once it is unpacked; one request may have {policy.max_body:,} (option max_body)"
        raise BadRequest(413, message, hint="send less at a time")


# --- messages -----------------------------------------------------------------------------------------------------------


def _announced(message: pa.ipc.Message) -> tuple[int, int]:
    """Rows, and bytes of all buffers unpacked, of one message."""
    metadata = memoryview(message.metadata)
    root = _follow(metadata, 0)
    kind = _field(metadata, root, 1)
    header = _field(metadata, root, 2)
    what = metadata[kind] if kind is not None else 0
    if header is None or what not in (_DICTIONARY, _RECORDS):
        return 0, 0
    table = _follow(metadata, header)
    if what == _DICTIONARY:
        data = _field(metadata, table, 1)
        if data is None:
            return 0, 0
        table = _follow(metadata, data)
    length = _field(metadata, table, 0)
    packed = _field(metadata, table, 3) is not None
    body = memoryview(message.body or b"")
    size = sum(_unpacked(body, start, n) if packed else n for start, n in _buffers(metadata, table))
    rows = 0 if length is None or what == _DICTIONARY else struct.unpack_from("<q", metadata, length)[0]
    return rows, size


def _buffers(metadata: memoryview, table: int) -> Iterator[tuple[int, int]]:
    place = _field(metadata, table, 2)
    if place is None:
        return
    vector = _follow(metadata, place)
    for i in range(struct.unpack_from("<I", metadata, vector)[0]):
        yield _BUFFER.unpack_from(metadata, vector + 4 + 16 * i)


def _unpacked(body: memoryview, start: int, length: int) -> int:
    """A compressed buffer begins with its size; -1 says that it is stored as it is."""
    if length == 0:
        return 0
    size = int(struct.unpack_from("<q", body, start)[0])
    return length if size == -1 else size


def _follow(metadata: memoryview, place: int) -> int:
    return place + int(struct.unpack_from("<I", metadata, place)[0])


def _field(metadata: memoryview, table: int, number: int) -> int | None:
    """Where a table's field lies; None where it has none."""
    fields = table - struct.unpack_from("<i", metadata, table)[0]
    at = 4 + 2 * number
    if at >= struct.unpack_from("<H", metadata, fields)[0]:
        return None
    offset = struct.unpack_from("<H", metadata, fields + at)[0]
    return table + offset if offset else None


# --- values -------------------------------------------------------------------------------------------------------------


def _repeated(values: pa.Array) -> int:
    """Bytes of an array's values, each in its place, where the array can hold a value once for many rows; else 0."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return _repeated(values.storage)
    if pa.types.is_dictionary(kind):
        sizes = _lengths(values.dictionary)
        return int(pc.sum(pc.take(sizes, values.indices)).as_py() or 0)
    if _is_view(kind):
        return int(pc.sum(_lengths(values)).as_py() or 0)
    if pa.types.is_run_end_encoded(kind) or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        raise BadRequest(422, f"columns of the Arrow type {kind} are not read", hint="send plain columns")
    return 0


def _lengths(values: pa.Array) -> pa.Array:
    """The size of each value in bytes."""
    kind: Any = values.type
    if _is_view(kind):
        views = np.frombuffer(values.buffers()[1], np.int32).reshape(-1, 4)  # the first of four numbers is the length
        return pa.array(views[values.offset : values.offset + len(values), 0].astype(np.int64))
    if pa.types.is_large_unicode(kind) or pa.types.is_unicode(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary(kind):
        return pc.cast(pc.binary_length(values), pa.int64())
    try:
        width = kind.bit_width // 8
    except ValueError:
        raise BadRequest(422, f"dictionaries of the Arrow type {kind} are not read", hint="send plain columns") from None
    return pa.array(np.full(len(values), width, np.int64))


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))
