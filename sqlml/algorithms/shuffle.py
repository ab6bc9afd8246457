"""All rows of a matrix in a new random order each epoch, whether the matrix lies in memory or in a file.

The order is always a full permutation of all rows, each equally likely, drawn from the seed and the epoch's number; it does not
depend on where the matrix lies, nor on the sizes here.  Of a matrix in a file no more than a window is held in memory:

- A window's rows are found by their sorted numbers, so that each window reads the file once, forwards.
- With many windows that would be many times, and the file is dealt out first: read once, each row written to the pile of its
  window; then the piles are read, one after the other.  Each row is read twice and written once whatever the size.  (A. S.
  Rao, "Generation of random permutation of given number of elements using random sampling numbers", 1961; M. Sandelius, "A
  simple randomization procedure", 1962; here the piles are cut from one permutation, so both ways give the same order.)
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sqlml.errors import OperationalError

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 16 << 20
"""Bytes of a file that are held in memory; of a very large one a ``_PILES``-th part."""
_PILES = 1024
MOST_WINDOWS = 16
"""With more windows than this the file is dealt out first."""
_PIECE = 2 << 20
"""Bytes that are handed over at a time, about."""
_BLOCK = 4 << 20
"""Bytes of a file that are read at a time."""


def file_matrix(folder: Path, n: int, k: int) -> NDArray[np.float32]:
    """A float32 matrix (n, k) of zeros in a nameless file: the room is given back with the last reference to it.

    ``OperationalError`` where the disk has not that much room.
    """
    with _nameless(folder, n * k * 4) as file:
        if not n * k:
            return np.zeros((n, k), np.float32)
        return np.memmap(file, np.float32, "r+", shape=(n, k))


def _nameless(folder: Path, size: int) -> IO[bytes]:
    """A file without a name, with its room on the disk taken: writing to a map of it cannot fail later."""
    folder.mkdir(parents=True, exist_ok=True)
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - the caller closes it
    try:
        if size and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
    except OSError as error:
        file.close()
        what = f"the encoded rows need {size / 2**20:,.0f} MiB in {folder}"
        raise OperationalError(f"{what}: {error.strerror}", hint="make room there, or take fewer rows: LIMIT (ROWS n)") from error
    return file


def release(x: NDArray[Any]) -> None:
    """Take what was read of a file out of this process's memory; it stays in the system's cache while there is room."""
    base: Any = x
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and hasattr(base, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def in_file(x: NDArray[Any]) -> bool:
    """Whether a matrix lies in a file."""
    return isinstance(x, np.memmap)


def read_blocks(x: NDArray[np.float32], size: int = _BLOCK) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The rows in order, some at a time, each block with its place."""
    step = max(1, size // (4 * max(1, x.shape[1])))
    for start in range(0, len(x), step):
        place = slice(start, min(start + step, len(x)))
        yield place, x[place]
        if in_file(x):
            release(x)


def draw_order(n: int, seed: int, epoch: int) -> NDArray[Any]:
    """A permutation of 0 … n-1: the order of an epoch."""
    order = np.arange(n, dtype=np.uint32 if n < 2**32 else np.uint64)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order


def shuffled(
    x: NDArray[np.float32], order: NDArray[Any], batch: int, folder: Path | None, window: int = WINDOW
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The rows of ``x`` in the order given, in pieces of whole batches (but for the last): rows (m, k), and their numbers (m,).

    ``folder``: where a matrix in a file may be dealt out.
    """
    width = 4 * max(1, x.shape[1])
    piece = batch * max(1, _PIECE // (width * batch))
    if not in_file(x):
        for start in range(0, len(order), piece):
            numbers = order[start : start + piece].astype(np.int64)
            yield x[numbers], numbers
        return
    size = piece * max(1, window_rows(len(order), width, window) // piece)
    for start, rows in _windows(x, order, size, folder):
        for first in range(0, len(rows), piece):
            place = slice(start + first, start + min(first + piece, len(rows)))
            yield rows[first : first + piece], order[place].astype(np.int64)


def window_rows(n: int, width: int, window: int = WINDOW) -> int:
    """How many of n rows of ``width`` bytes make a window."""
    return max(1, max(window, n * width // _PILES) // width)


def _windows(
    x: NDArray[np.float32], order: NDArray[Any], size: int, folder: Path | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    if folder is not None and len(order) > MOST_WINDOWS * size:
        blocks = ((place.start, rows) for place, rows in read_blocks(x))
        yield from deal(blocks, order, x.shape[1], size, folder)
        return
    for start in range(0, len(order), size):
        numbers = order[start : start + size]
        ranks = np.argsort(numbers, kind="stable")
        rows = np.empty((len(numbers), x.shape[1]), np.float32)
        rows[ranks] = x[numbers[ranks]]
        release(x)
        yield start, rows


def find_places(order: NDArray[Any]) -> NDArray[Any]:
    """Where each row goes, up to the last that ``order`` names, ``place[order[i]] = i``; -1 for one that it does not."""
    total = int(order.max()) + 1 if len(order) else 0
    kind = np.int32 if len(order) < 2**31 else np.int64
    place = np.full(total, -1, kind)
    place[order] = np.arange(len(order), dtype=kind)
    return place


def deal(
    blocks: Iterable[tuple[int, NDArray[np.float32]]], order: NDArray[Any], k: int, size: int, folder: Path
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Rows that come in blocks (number of the first, rows), once, in another order: windows of ``size`` rows with their start.

    The i-th row that goes out is number ``order[i]``; numbers that are not in ``order`` are left out.
    """
    piles = -(-len(order) // size)
    total = int(order.max()) + 1 if len(order) else 0
    pile_of = np.full(total, -1, np.int32)
    pile_of[order] = np.arange(len(order)) // size
    filled = np.arange(piles) * size
    row = 4 * k
    with _nameless(folder, len(order) * row) as file:
        for first, rows in blocks:
            pile = pile_of[first : first + len(rows)]
            ranks = np.argsort(pile, kind="stable")
            ranks = ranks[np.searchsorted(pile[ranks], 0) :]
            sorted_rows, counts = rows[ranks], np.bincount(pile[ranks], minlength=piles)
            ends = np.cumsum(counts)
            for b in np.flatnonzero(counts):
                os.pwrite(file.fileno(), sorted_rows[ends[b] - counts[b] : ends[b]].data.cast("B"), int(filled[b]) * row)
            filled += counts
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            pile_rows = np.empty((len(numbers), k), np.float32)
            _read_into(file, pile_rows, start * row)
            ranks = np.argsort(numbers, kind="stable")
            out = np.empty_like(pile_rows)
            out[ranks] = pile_rows
            yield start, out


def _read_into(file: IO[bytes], rows: NDArray[np.float32], offset: int) -> None:
    """Fill ``rows`` from a place of the file."""
    view = rows.data.cast("B")
    done = 0
    while done < len(view):
        count = os.preadv(file.fileno(), [view[done:]], offset + done)
        if not count:
            raise OSError("the file of shuffled rows is shorter than it was written")
        done += count
