"""How often tables of this process's databases may have changed: for whoever keeps what it knows of them."""

from __future__ import annotations

import threading

from sqlml_dialect.tokens import words

_LEAVES = words("SELECT FROM WITH VALUES INSERT UPDATE DELETE SHOW DESCRIBE DESC")
"""First words of statements that make, change and remove no table.  EXPLAIN ANALYZE runs what it explains."""
_BEGINS = words("BEGIN START")
_ENDS = words("COMMIT END ROLLBACK ABORT")
_NOTHING = _LEAVES | _BEGINS


class Changes:
    """A count; one more is no proof of a change, the same count is one that there was none."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def note(self, text: str = "", before: bool = False) -> bool:
        """A statement is over, without a text one of ours; whether it or one ``before`` it, since the transaction began that is
        open, may have changed tables.
        """
        word = text.split(None, 1)[0].upper() if text.strip() else ""
        changes = before if word in _ENDS else word not in _NOTHING
        if changes:
            with self._lock:
                self.count += 1
        return word not in _BEGINS | _ENDS and (before or changes)


CHANGES = Changes()
