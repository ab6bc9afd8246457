"""Rows in PostgreSQL's binary form as Arrow arrays, a column at a time.

A row is a count of its columns, then a length and the bytes of each; -1 is the length of NULL.  Where the columns of a row begin
is known from the left to the right: columns of fixed widths that follow one another are taken in one piece, as long as none of
them is NULL; all others one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.engines.postgres.cells import Cells, gather
from sqlml.engines.postgres.chunks import PADDING, Chunk
from sqlml.errors import InternalError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqlml.engines.postgres.forms import Form

_COUNT = 2  # bytes before a row's first column


@dataclass(frozen=True)
class _Block:
    """Neighbouring columns of fixed widths, up to ``last``, and how they lie; those of one type that follow one another are one
    field ``g<first>`` of as many pairs of length and value.
    """

    last: int
    groups: tuple[tuple[int, int], ...]
    layout: np.dtype[Any]


class Decoder:
    """Reads the chunks of one result.  It learns which columns have NULLs: those are no longer taken in one piece."""

    def __init__(self, forms: Sequence[Form], names: Sequence[str]) -> None:
        self._forms = forms
        self._names = names
        self._nullable: set[int] = set()
        self._steps = self._plan()

    def decode(self, chunk: Chunk, listen: Callable[[], None] = lambda: None) -> list[pa.Array]:
        """The columns of a chunk; ``listen`` is called between them.  ``DataError`` for a value that Arrow cannot hold."""
        lengths = np.array(chunk.lengths, np.int64)
        rows = np.frombuffer(chunk.buffer, np.uint8)
        begins = np.cumsum(lengths) - lengths + _COUNT
        while (arrays := self._columns(chunk, rows, begins, listen)) is None:
            self._steps = self._plan()
        return arrays

    def _columns(
        self, chunk: Chunk, rows: NDArray[np.uint8], begins: NDArray[np.int64], listen: Callable[[], None]
    ) -> list[pa.Array] | None:
        arrays: list[pa.Array] = []
        for step in self._steps:
            listen()
            if isinstance(step, _Block):
                block = self._block(rows, begins, step)
                if block is None:
                    return None
                arrays += block
                begins = begins + step.layout.itemsize
            else:
                cells, begins = _cells(chunk, rows, begins)
                arrays.append(self._forms[step].read(cells, self._names[step]))
        return arrays

    def _block(self, rows: NDArray[np.uint8], begins: NDArray[np.int64], block: _Block) -> list[pa.Array] | None:
        """The columns of a block; None where some have NULLs, which are remembered."""
        taken = gather(rows, begins, np.dtype(f"V{block.layout.itemsize}")).view(block.layout)
        for first, _ in block.groups:
            if not (taken[f"g{first}"]["length"] == self._length(first)).all():
                self._learn(taken, block)
                return None
        arrays: list[pa.Array] = []
        for first, last in block.groups:
            values = taken[f"g{first}"]["value"].T.astype(self._forms[first].native, order="C")
            arrays += [self._forms[i].finish(values[i - first], None, self._names[i]) for i in range(first, last)]
        return arrays

    def _length(self, column: int) -> np.int32:
        """The length that a column's values have, as it is read without turning its bytes."""
        return np.int32(self._forms[column].width).byteswap()

    def _learn(self, taken: NDArray[Any], block: _Block) -> None:
        """Remember which columns of a block are NULL in some row; behind a row's first NULL all lies elsewhere."""
        whole = np.ones(len(taken), np.bool_)
        for first, last in block.groups:
            for i in range(first, last):
                found = taken[f"g{first}"]["length"][:, i - first]
                fits = found == self._length(i)
                if (whole & ~fits).any():
                    if (found[whole & ~fits] != -1).any():
                        raise InternalError(f"column {self._names[i]} came with another width than its type has")
                    self._nullable.add(i)
                whole &= fits

    def _plan(self) -> list[_Block | int]:
        steps: list[_Block | int] = []
        first = 0
        while first < len(self._forms):
            last = first
            while last < len(self._forms) and self._forms[last].width and last not in self._nullable:
                last += 1
            if last == first:
                steps.append(first)
                first += 1
            else:
                steps.append(self._block_of(first, last))
                first = last
        return steps

    def _block_of(self, first: int, last: int) -> _Block:
        groups: list[tuple[int, int]] = []
        for i in range(first, last):
            if groups and self._forms[groups[-1][0]].dtype == self._forms[i].dtype:
                groups[-1] = (groups[-1][0], i + 1)
            else:
                groups.append((i, i + 1))
        fields = [(f"g{i}", np.dtype([("length", "i4"), ("value", self._forms[i].dtype)]), (end - i,)) for i, end in groups]
        layout = np.dtype(fields)
        if layout.itemsize > PADDING:
            raise InternalError("more columns than a table can have")
        return _Block(last, tuple(groups), layout)


def _cells(chunk: Chunk, rows: NDArray[np.uint8], begins: NDArray[np.int64]) -> tuple[Cells, NDArray[np.int64]]:
    """One column's values, and where the next column begins."""
    lengths = gather(rows, begins, np.dtype("i4")).byteswap(inplace=True)
    null = None
    if lengths.min(initial=0) < 0:
        null = lengths < 0
        lengths = np.maximum(lengths, 0)
    starts = begins + 4
    return Cells(chunk.buffer, rows, starts, lengths, null), starts + lengths
