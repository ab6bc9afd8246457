"""What a worker was doing when it died: each of its threads keeps the mark of the version that it runs in shared memory.

    Load (mark) → ``with flight:`` around every call of the model → the worker dies → the supervisor reads the marks

Setting a mark is one store to memory; nothing is written, sent or flushed, and the supervisor still sees it after a crash.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from types import TracebackType

CELLS = 512
"""Threads that can be told apart; later ones share."""
_BYTES = CELLS * 8


def new_record() -> int:
    """The descriptor of fresh shared memory, for one worker."""
    with tempfile.TemporaryFile() as file:
        record = os.dup(file.fileno())
    os.ftruncate(record, _BYTES)
    return record


def read_marks(record: int) -> set[int]:
    """What the worker was running: marks, none twice."""
    cells = memoryview(os.pread(record, _BYTES, 0)).cast("q")
    return set(cells) - {0}


class Recorder:
    """The worker's end."""

    def __init__(self, record: int | None = None) -> None:
        """Over a descriptor of ``new_record``; without one nobody will ask."""
        memory = memoryview(bytearray(_BYTES)) if record is None else memoryview(mmap.mmap(record, _BYTES))
        self.cells = memory.cast("q")
        self._places = threading.local()
        self._next = 0
        self._lock = threading.Lock()

    def place(self) -> int:
        """This thread's cell."""
        try:
            return int(self._places.number)
        except AttributeError:
            with self._lock:
                self._places.number, self._next = self._next, (self._next + 1) % CELLS
            return int(self._places.number)


class Flight:
    """A version's mark: to be held around each call of its model."""

    __slots__ = ("_cells", "_mark", "_recorder")

    def __init__(self, recorder: Recorder, mark: int) -> None:
        self._recorder = recorder
        self._cells = recorder.cells
        self._mark = mark

    def __enter__(self) -> None:
        self._cells[self._recorder.place()] = self._mark

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._cells[self._recorder.place()] = 0


NO_FLIGHT = Flight(Recorder(), 0)
"""For a version outside a server."""
