"""Columns, or blocks of rows, worked on side by side: NumPy and Arrow compute without Python's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def side_by_side(function: Callable[[S], T], items: Iterable[S], threads: int) -> list[T]:
    """What the function makes of each item, in order, by so many threads; the first error in that order is raised.

    As many items as there are threads are worked on at a time: what one takes of memory counts so many times.
    """
    if threads <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="sqlml-columns") as pool:
        return list(pool.map(function, items))
