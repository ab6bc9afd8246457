"""How often tables of this process's databases may have changed: for whoever keeps what it knows of them."""

from __future__ import annotations

from sqlml_dialect.tokens import words

_LEAVES = words("SELECT FROM WITH VALUES INSERT UPDATE DELETE SHOW DESCRIBE DESC EXPLAIN")
"""First words of statements that make, change and remove no table."""


class Changes:
    """A count; one more is no proof of a change, the same count is one that there was none."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, text: str = "") -> bool:
        """A statement is over, or a transaction that changed something; whether it may have changed tables."""
        word = text.split(None, 1)[0].upper() if text.strip() else ""
        changes = word not in _LEAVES
        self.count += changes
        return changes


CHANGES = Changes()
