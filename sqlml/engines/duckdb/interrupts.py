"""Interrupts that reach the statement they are meant for.

DuckDB forgets an interrupt that comes while a statement is about to begin: when it has begun, nothing stops it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

AGAIN_SECONDS = 0.05
"""So long after an interrupt its statement should be over; where it is not, it is told again, each time after twice as long …"""
MOST_SECONDS = 1.0
"""… but at most this."""


class Interrupts:
    """Those of one connection; ``interrupt`` is DuckDB's own."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._statement: object | None = None

    @contextmanager
    def statement(self) -> Iterator[None]:
        """The time from before a statement begins to its first rows.  ``KeyboardInterrupt`` where Ctrl-C has ended it."""
        self._statement = object()
        try:
            yield
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # DuckDB's client has taken Ctrl-C's exception for its own
                raise KeyboardInterrupt from None
            raise
        finally:
            self._statement = None

    @property
    def running(self) -> bool:
        """Whether a statement is in that time."""
        return self._statement is not None

    def interrupt(self) -> None:
        """Interrupt what runs, from any thread; does not wait for it."""
        statement = self._statement
        self._interrupt()
        if statement is not None:
            self._later(statement, AGAIN_SECONDS)

    def _later(self, statement: object, seconds: float) -> None:
        timer = threading.Timer(seconds, self._again, (statement, seconds))
        timer.daemon = True
        timer.start()

    def _again(self, statement: object, seconds: float) -> None:
        if self._statement is statement:
            self._interrupt()
            self._later(statement, min(2 * seconds, MOST_SECONDS))
