"""What was made of texts: programs send the same ones again and again."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

KEPT = 256
"""So many texts are kept …"""
KEPT_TEXT = 20_000
"""… of fewer characters than this."""

V = TypeVar("V")


class KeptTexts(Generic[V]):
    """By a text, or a key that has it, what was made of it; the oldest goes.  Of one thread at a time."""

    def __init__(self) -> None:
        self._made: dict[Hashable, V] = {}

    def __len__(self) -> int:
        return len(self._made)

    def get(self, key: Hashable) -> V | None:
        """None where nothing is kept."""
        return self._made.get(key)

    def put(self, key: Hashable, text: str, made: V) -> None:
        """Keep what was made of a text, unless that is long."""
        if len(text) < KEPT_TEXT:
            if len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]
            self._made[key] = made

    def forget(self) -> None:
        """Keep nothing of it."""
        self._made.clear()
