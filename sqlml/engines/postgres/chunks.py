"""Rows as the server sends them: pieces of a binary COPY, or of a result that COPY cannot carry put in the same form.

The form: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

import select
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

CHUNK_BYTES = 1 << 20
"""Bytes of rows that are decoded at a time: they, and what is made of them, stay in a processor's cache."""

PADDING = 1 << 16
"""Bytes after the last row: the widest row of fixed columns may be looked at from its end."""

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"


@dataclass(frozen=True)
class Chunk:
    """Some rows: their bytes one after the other, with ``PADDING`` behind, and how long each row is."""

    buffer: bytearray
    lengths: list[int]


class Copying:
    """A COPY TO STDOUT that the server has begun to answer.  The connection is taken until ``read`` gives None or raises."""

    def __init__(self, connection: PGconn) -> None:
        self._connection = connection
        self._poll = select.poll()
        self._poll.register(connection.socket, select.POLLIN)
        self._is_first = True
        self._is_over = False
        self._has_more = False  # libpq holds rows that were not read yet

    def read(self) -> Chunk | None:
        """The next rows; None after the last.  Raises the server's error."""
        if self._is_over:
            return None
        buffer, lengths, size = bytearray(CHUNK_BYTES + 2 * PADDING), list[int](), 0
        get, add = self._connection.get_copy_data, lengths.append  # a row each: as few steps as can be
        self._has_more = True
        while size < CHUNK_BYTES:
            count, row = get(1)
            if count > 0:
                end = size + count
                buffer[size:end] = row
                size = end
                add(count)
            elif count == 0:
                self._has_more = False
                self._poll.poll()
                self._connection.consume_input()
            else:
                self._end()
                break
        if self._is_first:
            size = self._without_header(buffer, lengths, size)
        if lengths and lengths[-1] == len(_TRAILER) and buffer[size - len(_TRAILER) : size] == _TRAILER:
            lengths.pop()
        if not lengths:
            return self.read()
        if len(buffer) - size < PADDING:  # a row that is larger than all of a chunk
            buffer.extend(bytes(PADDING))
        return Chunk(buffer, lengths)

    def listen(self) -> None:
        """Take what has come in the meantime, so that the server goes on while rows are decoded.

        Not where libpq had more than the last chunk: it would hold ever more of a server that is faster than we are.
        """
        if not (self._has_more or self._is_over):
            self._connection.consume_input()

    def skip(self) -> None:
        """Hear the server out, without keeping anything."""
        while not self._is_over:
            count, _ = self._connection.get_copy_data(1)
            if count == 0:
                self._poll.poll()
                self._connection.consume_input()
            elif count < 0:
                self._end()

    def _without_header(self, buffer: bytearray, lengths: list[int], size: int) -> int:
        """Take away what stands before the first row; how many bytes are left."""
        self._is_first = False
        if not buffer.startswith(_SIGNATURE):
            return size
        more = struct.unpack_from(">i", buffer, len(_SIGNATURE) + 4)[0]
        header = len(_SIGNATURE) + 8 + more
        del buffer[:header]
        lengths[0] -= header
        if lengths[0] == 0:
            del lengths[0]
        return int(size - header)

    def _end(self) -> None:
        from psycopg import errors
        from psycopg.pq import ExecStatus

        self._is_over = True
        failed = None
        while (result := self._connection.get_result()) is not None:
            if result.status == ExecStatus.FATAL_ERROR and failed is None:
                failed = result
        if failed is not None:
            raise errors.error_from_result(failed)


def chunk_of(result: PGresult) -> Chunk | None:
    """A result whose values are in binary form as a chunk; None where it has no rows."""
    pieces, lengths = [], []
    count = result.nfields
    for row in range(result.ntuples):
        values = [result.get_value(row, column) for column in range(count)]
        cells = [_NULL if value is None else struct.pack(">i", len(value)) + value for value in values]
        pieces.append(struct.pack(">h", count) + b"".join(cells))
        lengths.append(len(pieces[-1]))
    return Chunk(bytearray(b"".join([*pieces, bytes(PADDING)])), lengths) if lengths else None
