"""Before somebody reads the prediction log: every worker writes what it still holds of it.

reader → control socket → Writing: ``Write`` to each worker → its thread closes the files → ``Written`` → the reader is told
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from sqlml_runners.serving.channel import ToWorker, Write

WRITE_SECONDS = 0.25
"""So long a reader waits for workers that are busy."""


class Writing:
    """Who was asked, and who has done it.  For the supervisor's event loop."""

    def __init__(self) -> None:
        self._last = 0
        self._waiting: dict[int, tuple[set[int], asyncio.Event]] = {}  # by the number of the Write: who has not yet

    async def ask(self, workers: Iterable[int], send: Callable[[int, ToWorker], object]) -> bool:
        """Let workers write; whether all have, within a moment."""
        self._last += 1
        number, missing, done = self._last, set(workers), asyncio.Event()
        if not missing:
            return True
        self._waiting[number] = missing, done
        for worker in tuple(missing):
            send(worker, Write(number))
        try:
            await asyncio.wait_for(done.wait(), WRITE_SECONDS)
        except TimeoutError:
            return False
        finally:
            del self._waiting[number]
        return True

    def hear(self, worker: int, number: int) -> None:
        """A worker has written what it held at a ``Write``."""
        if number in self._waiting:
            missing, done = self._waiting[number]
            missing.discard(worker)
            if not missing:
                done.set()

    def gone(self, worker: int) -> None:
        """A worker will write nothing any more."""
        for number in tuple(self._waiting):
            self.hear(worker, number)
