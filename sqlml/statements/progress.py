"""How far a statement is that goes through many rows, told while it runs.

In the database: a thread asks the engine now and then.  On this side: rows are counted as they pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlml.contracts import OnEvent, ProgressEngine
from sqlml.errors import Cancelled

if TYPE_CHECKING:
    import pyarrow as pa

FIRST_SECONDS = 1.0
"""What is over sooner tells nothing."""
AGAIN_SECONDS = 0.25


@contextmanager
def following(engine: object, name: str, rows: int | None, on_event: OnEvent) -> Iterator[None]:
    """Tell, from a thread, how far the engine is with its statement of about so many rows, until the ``with`` ends."""
    if not rows or not isinstance(engine, ProgressEngine):
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(engine, name, rows, on_event, over), name="sqlml-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _tell(engine: ProgressEngine, name: str, rows: int, on_event: OnEvent, over: threading.Event) -> None:
    steps, wait = _Steps(name, on_event), FIRST_SECONDS
    while not over.wait(wait):
        wait = AGAIN_SECONDS
        part = engine.progress()
        if part is not None:
            try:
                steps.tell(int(part * rows), rows)
            except Cancelled:  # who waits for the statement hears of it
                return


def counted(
    batches: Generator[pa.RecordBatch, None, None], name: str, rows: int | None, on_event: OnEvent
) -> Generator[pa.RecordBatch, None, None]:
    """The same batches; how many rows have passed, of about ``rows``, is told from time to time."""
    steps, done, due = _Steps(name, on_event), 0, time.monotonic() + FIRST_SECONDS
    for batch in batches:
        yield batch
        done += batch.num_rows
        if rows and time.monotonic() >= due:
            steps.tell(done, max(done, rows))
            due = time.monotonic() + AGAIN_SECONDS


class _Steps:
    """Events of one statement, with its rows a second since it began."""

    def __init__(self, name: str, on_event: OnEvent) -> None:
        self._name = name
        self._on_event = on_event
        self._began = time.monotonic()
        self._told = False

    def tell(self, done: int, rows: int) -> None:
        if not self._told:
            self._told = True
            self._on_event({"event": "stage", "name": self._name})
        rate = done / (time.monotonic() - self._began)
        self._on_event({"event": "step", "step": done, "total": rows, "rows_per_second": rate})
