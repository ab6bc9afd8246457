"""A rolling restart: the workers are replaced one by one, each by one that takes requests already."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from sqlml_runners.serving.crew import Crew
from sqlml_runners.serving.fleet import Fleet

log = logging.getLogger("sqlml.serving")

LEAVE_SECONDS = 12.0
"""How long a worker that is to go may take to finish what is under way."""
REPLACE_SECONDS = 60.0
"""How long a restart waits for the next worker to take requests before it gives up and leaves the old ones."""


class RollingRestart:
    """Restarts of a crew, one at a time.

    ``hire`` starts a worker and gives its number, None where none could be; ``dismiss`` lets one finish what is under way and go.
    """

    def __init__(
        self, fleet: Fleet, crew: Crew, hire: Callable[[], Coroutine[Any, Any, int | None]], dismiss: Callable[[int], None]
    ) -> None:
        self._fleet = fleet
        self._crew = crew
        self._hire = hire
        self._dismiss = dismiss
        self.is_under_way = False

    async def run(self, libraries: Sequence[str]) -> None:
        """Replace every worker that takes requests; the new ones have imported ``libraries``.

        While another restart runs nothing is done.  What goes wrong is logged, and the old workers go on.
        """
        if self.is_under_way:
            return
        self.is_under_way = True
        try:
            log.info("rolling restart")
            await self._crew.renew(tuple(sorted(libraries)))
            for number in list(self._fleet.serving()):
                if not await self._replace(number):
                    log.error("rolling restart given up: the new worker does not take requests; the old ones go on")
                    return
            log.info("rolling restart done")
        except OSError as error:
            log.error("rolling restart given up, the old workers go on: %s", error or "the new process does not start")
        finally:
            self.is_under_way = False

    async def _replace(self, number: int) -> bool:
        new = await self._hire()
        if new is None or not await until(lambda: self._takes_requests(new), REPLACE_SECONDS):
            if new is not None:
                self._fleet.leave(new)
                self._crew.kill(new)
            return False
        if number in self._fleet.seats:
            self._dismiss(number)
        await until(lambda: number not in self._crew.numbers(), LEAVE_SECONDS)
        self._crew.kill(number)
        return True

    def _takes_requests(self, number: int) -> bool:
        seat = self._fleet.seats.get(number)
        return seat is not None and seat.listening


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; whether it came within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True
