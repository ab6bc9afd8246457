"""What the server says beside its answers: RAISE NOTICE, warnings."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg.errors import Diagnostic

MOST = 200
"""Of one statement so many are shown; a function may say something of every row."""


class Notices:
    """Heard on the connection's thread, told on the statement's own."""

    def __init__(self) -> None:
        self.tell: Callable[[str], None] = lambda text: None
        self._heard: deque[str] = deque()
        self._more = 0

    def hear(self, said: Diagnostic) -> None:
        """Keep what the server says until somebody passes it on."""
        if len(self._heard) < MOST:
            self._heard.append(_text(said))
        else:
            self._more += 1

    def forget(self) -> None:
        """What was heard so far is no answer to the statement of the user."""
        self._heard.clear()
        self._more = 0

    def pass_on(self) -> None:
        """Tell all that was heard."""
        while self._heard:
            self.tell(self._heard.popleft())
        more, self._more = self._more, 0
        if more:
            self.tell(f"{more:,} more notices of the database are not shown")


def _text(said: Diagnostic) -> str:
    """The message, with its detail and hint; what is more than a notice says so."""
    severity = said.severity_nonlocalized or ""
    message = said.message_primary or ""
    first = f"{severity.lower()}: {message}" if severity in ("WARNING", "ERROR") else message
    return "\n".join(line for line in (first, said.message_detail, said.message_hint) if line)
