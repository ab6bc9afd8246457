"""What a word was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SIMILARITY = 0.6
_BEGINNING = 3
"""So many letters of a name are enough to tell which one was meant."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that is most like a word, else the shortest that begins with it, whatever the case of letters; None where
    nothing is near.
    """
    lowered = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), list(lowered), n=1, cutoff=SIMILARITY)
    longer = sorted((name for name in lowered if name.startswith(word.lower())), key=len) if len(word) >= _BEGINNING else []
    found = next(iter([*near, *longer]), None)
    return None if found is None else lowered[found]


def is_like(word: str, other: str, similarity: float = SIMILARITY) -> bool:
    """Whether a word may be another one, misspelt: ``similarity`` from 0 to 1, which is the word itself; case counts not."""
    return bool(get_close_matches(word.lower(), [other.lower()], n=1, cutoff=similarity))
