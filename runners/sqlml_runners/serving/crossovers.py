"""The runtimes of a version's heads: measured by the worker that loads it first, taken over by all others.

Several workers load a version at the same time: one measures, the others wait for what it finds.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlml.bundles.head import Head
from sqlml.bundles.runtimes import read_crossovers, runtimes_path, write_crossovers
from sqlml.catalog import Arm
from sqlml_runners.serving.runtime import HeadRuntime, head_runtime

LOCK = ".measuring"


def runtimes_of(heads: Sequence[Head], arm: Arm) -> tuple[HeadRuntime, ...]:
    """How each head computes, by what was measured on this machine before, else measured now."""
    path = runtimes_path(arm.bundle.parent.parent, arm.sha256)
    known = read_crossovers(path, len(heads))
    if known is not None:
        return _runtimes(heads, arm, known.rows)
    with _measuring(path):
        known = read_crossovers(path, len(heads))  # another may have measured meanwhile
        found = _runtimes(heads, arm, known.rows if known else (None,) * len(heads))
        if known is None and heads:
            write_crossovers(path, [one.crossover for one in found])
    return found


def _runtimes(heads: Sequence[Head], arm: Arm, rows: Sequence[float | None]) -> tuple[HeadRuntime, ...]:
    return tuple(head_runtime(head, arm.bundle, arm.sample, own) for head, own in zip(heads, rows, strict=True))


@contextmanager
def _measuring(path: Path) -> Iterator[None]:
    """The right to measure; where the folder cannot be written nobody waits for anybody."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = os.open(path.with_name(LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
