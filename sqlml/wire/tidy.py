"""Memory given back to the system: sessions are rings of objects, which Python finds late, and allocators keep what they had."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from functools import cache


def settle_in() -> None:
    """All that is there now stays: garbage is from now on looked for among what comes, so that it is found soon and cheaply."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Find garbage, and give the system the memory that nobody uses."""
    import pyarrow as pa

    gc.collect()
    gc.collect()  # what finalizers let go of
    pa.default_memory_pool().release_unused()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's function; None with another C library."""
    try:
        found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    except OSError:
        return None
    return found
