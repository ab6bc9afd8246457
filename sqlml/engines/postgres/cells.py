"""Values that lie here and there in a buffer: where each begins, how long it is, which are NULL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Cells:
    """Values (n,) of one column.  ``bytes`` is a view of ``buffer``; NULLs have the length 0; ``null`` is None without any."""

    buffer: bytearray
    bytes: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    null: NDArray[np.bool_] | None

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, dtype: np.dtype[Any], offset: int = 0) -> NDArray[Any]:
        """A number from each value, ``offset`` bytes behind its beginning; anything where there is no value."""
        return gather(self.bytes, self.starts + offset if offset else self.starts, dtype)

    def texts(self, skip: int = 0) -> pa.StringArray:
        """The values, without ``skip`` bytes at their beginning, as strings.

        They and the gaps between them are one array without a copy; the values are then taken out of it.
        """
        count = len(self)
        offsets = np.empty(2 * count, np.int32)
        offsets[0::2] = self.starts
        np.add(self.starts, self.lengths, out=offsets[1::2], casting="unsafe")
        if skip:
            offsets[0::2] += skip
            np.maximum(offsets[0::2], offsets[1::2], out=offsets[1::2])  # NULLs have nothing to skip
        every = pa.StringArray.from_buffers(max(0, 2 * count - 1), pa.py_buffer(offsets), pa.py_buffer(self.buffer))
        places = array_of(pa.int32(), np.arange(0, 2 * count, 2, dtype=np.int32), self.null)
        return pc.call_function("array_take", [every, places], _KNOWN)


_KNOWN = pc.TakeOptions(boundscheck=False)


def array_of(arrow: pa.DataType, values: NDArray[Any], null: NDArray[np.bool_] | None) -> pa.Array:
    """Numbers, in the form that Arrow keeps them in, as an array; nothing is copied."""
    validity = None if null is None else pa.py_buffer(np.packbits(~null, bitorder="little"))
    return pa.Array.from_buffers(arrow, len(values), [validity, pa.py_buffer(values)])


def gather(values: NDArray[np.uint8], places: NDArray[np.int64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A value of ``dtype`` from each place of a buffer, wherever it lies."""
    count = len(values) - dtype.itemsize + 1
    return np.ndarray((count,), dtype, values.data, strides=(1,))[places]
