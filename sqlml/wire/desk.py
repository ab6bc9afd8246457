"""A session that is served over HTTP: what runs in it, and how that is stopped from elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlml.errors import Cancelled
from sqlml.session import Session
from sqlml.wire.tags import is_own


class Desk:
    """One client's session.  ``cancel`` may be called from any thread."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._guard = threading.Lock()
        self._busy = False
        self._reason: str | None = None
        self.trains = False
        """Whether a statement of ours runs, which may go on when its client has gone."""

    def cancel(self, reason: str) -> None:
        """Stop the statement that runs, if one does; it fails with the reason."""
        with self._guard:
            if self._busy:
                self._reason = reason
                self.session.interrupt()

    @contextmanager
    def running(self, text: str = "") -> Iterator[None]:
        """While a statement runs and its rows are on their way."""
        with self._guard:
            self._busy, self._reason = True, None
        try:
            self.trains = is_own(text)
            yield
        except Cancelled:
            if self._reason is None:
                raise
            raise Cancelled(self._reason) from None
        finally:
            with self._guard:
                self._busy = self.trains = False

    def close(self) -> None:
        """Let go of the session; an open transaction is rolled back."""
        self.session.close()
