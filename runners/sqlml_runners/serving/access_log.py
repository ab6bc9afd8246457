"""The access log: one JSON object a line for each request, in ``logs/access.log``, written by all workers.

    request → a tuple in memory → lines, a few hundred at a time → a thread → one append to the file

A line is whole whoever writes beside it: each write is one append.  At 32 MB the file becomes ``access.log.1``.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import threading
from pathlib import Path

import msgspec

log = logging.getLogger("sqlml.serving")

LIMIT_BYTES = 32_000_000
CHUNK = 256
MOST_WAITING = 400
"""Chunks that may wait for the disk; more are dropped and counted."""


class Access(msgspec.Struct, gc=False, omit_defaults=True):
    """One request.  ``ms``: how long it took; ``key``: the name of the API key."""

    time: float  # seconds since 1970
    id: str
    method: str
    path: str
    status: int
    ms: float
    client: str = ""
    endpoint: str = ""
    version: int = 0
    rows: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    key: str = ""
    error: str = ""


class AccessLog:
    """Filled on the event loop, written by a thread.  Never waits and never fails: what cannot be written is counted."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "access.log"
        self._lines: list[Access] = []
        self._chunks: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._encoder = msgspec.json.Encoder(decimal_format="number")
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._failing = False
        self.dropped = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def add(self, access: Access) -> None:
        """Note a request."""
        self._lines.append(access)
        if len(self._lines) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Hand over what there is."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        try:
            self._chunks.put_nowait(self._encoder.encode_lines(lines))
        except queue.Full:
            self.dropped += len(lines)

    def close(self) -> None:
        """Write what there is, and stop."""
        self.flush()
        self._chunks.put(None)
        self._thread.join(timeout=5)

    def _write_all(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            try:
                self._write(chunk)
            except OSError as error:
                self.dropped += chunk.count(b"\n")
                if not self._failing:
                    log.error("the access log cannot be written, requests are answered without: %s", error)
                self._failing = True
            else:
                self._failing = False

    def _write(self, chunk: bytes) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            if os.fstat(file).st_size + len(chunk) > LIMIT_BYTES:
                file = self._turn_over(file)
            written = 0
            while written < len(chunk):  # a full disk takes a part, and the next write says why
                written += os.write(file, chunk[written:])
        finally:
            os.close(file)

    def _turn_over(self, file: int) -> int:
        """Move a file that is full aside, unless another worker has just done so; the new one.

        It is there before the lock on the old one goes: who waits for that looks for it.
        """
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_ino == self._path.stat().st_ino:
            self._path.replace(self._path.with_suffix(".log.1"))
        new = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.close(file)
        return new
