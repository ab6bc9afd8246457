"""What a guest and the server say to each other, as bytes.  No I/O.

A frame is a kind (one letter), two lengths, a head of JSON and a tail of Arrow.  A guest asks one thing after the other:

    guest  → OPEN | EXECUTE | MANY | TRANSACTION | NAMES      and, while that runs, INTERRUPT (cancel it) | STOP (no more rows)
    server → EVENT*, then RESULT BATCH* or nothing, then FINISHED | FAILED
"""

from __future__ import annotations

import json
import struct
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlml.errors import OperationalError

if TYPE_CHECKING:
    import pyarrow as pa

OPEN, EXECUTE, MANY, TRANSACTION, NAMES = b"O", b"Q", b"M", b"T", b"N"
INTERRUPT, STOP = b"I", b"S"
EVENT, RESULT, BATCH, FINISHED, FAILED = b"E", b"R", b"B", b"F", b"X"

_SIZES = struct.Struct(">cIQ")
HEAD_BYTES = 1 << 30
TAIL_BYTES = 1 << 36
_STRANGER = "the other side does not speak this protocol"


@dataclass(frozen=True)
class Frame:
    """One thing said; its head is read when it is first asked for, which takes a while for many values."""

    kind: bytes
    text: bytes | memoryview = b"{}"
    tail: bytes | memoryview = b""

    @cached_property
    def head(self) -> Mapping[str, Any]:
        """``OperationalError`` where it is no JSON."""
        try:
            found: dict[str, Any] = json.loads(bytes(self.text))
        except ValueError:
            raise OperationalError(_STRANGER) from None
        return found


def pack(kind: bytes, head: Mapping[str, Any] | None = None, tail: bytes | memoryview = b"") -> list[bytes | memoryview]:
    """A frame as pieces of bytes; the tail is not copied."""
    text = json.dumps(dict(head or {}), ensure_ascii=False, separators=(",", ":")).encode()
    if len(text) > HEAD_BYTES:
        raise OperationalError(f"a statement with its values may be {HEAD_BYTES:,} bytes long, not {len(text):,}")
    pieces: list[bytes | memoryview] = [_SIZES.pack(kind, len(text), len(tail)) + text]
    return [*pieces, tail] if len(tail) else pieces


def reading() -> Generator[int, bytes | memoryview, Frame]:
    """Read a frame: yields how many bytes it wants next, is sent them, returns the frame.

    ``OperationalError`` for what is none.
    """
    kind, head, tail = _SIZES.unpack((yield _SIZES.size))
    if head > HEAD_BYTES or tail > TAIL_BYTES:
        raise OperationalError(_STRANGER)
    text = (yield head) if head else b"{}"
    return Frame(kind, text, (yield tail) if tail else b"")


def batch_bytes(batch: pa.RecordBatch) -> memoryview:
    """A batch with its schema and dictionaries, as an Arrow stream of its own."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue())


def read_batch(data: bytes | memoryview) -> pa.RecordBatch:
    """The batch of ``batch_bytes``."""
    import pyarrow as pa

    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_next_batch()
