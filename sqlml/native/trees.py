"""Ensembles of trees in C: margins of many rows, three to eight times as fast as XGBoost gives them (``trees.c``)."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sqlml.native.library import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_LEFT, CATEGORIES = 4, 8  # of ``flags``, as in forest.h
LOGISTIC, SOFTMAX, EXPONENTIAL = 1, 2, 3
PART_ROWS = 16_384
"""Rows that one thread takes at a time."""
_Bytes = ctypes.c_char * 0


@dataclass(frozen=True)
class Nodes:
    """The nodes of all trees, one tree after the other; ``sizes`` (trees,) are how many, ``outputs`` what each adds to.

    ``left`` and ``right`` are numbers within the tree; a leaf has ``feature`` -1 and its value in ``value``, where a split has
    its threshold.  A categorical split has its set's first word and how many there are in ``first_word`` and ``words``.
    """

    sizes: NDArray[np.int32]
    outputs: NDArray[np.int32]
    feature: NDArray[np.int32]
    value: NDArray[np.float32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    flags: NDArray[np.uint8]
    first_word: NDArray[np.int32]
    words: NDArray[np.int32]
    sets: NDArray[np.uint32]


class TreeKernel:
    """An ensemble, ready to be called from many threads.  ``used`` (features,) says which any split looks at.

    ``base`` (outputs,) are the margins before the first tree; ``features`` is how many columns a row has.  The nodes must be
    whole trees: nothing of them is checked here.
    """

    def __init__(self, base: NDArray[np.float32], features: int, nodes: Nodes) -> None:
        found = library()
        if found is None:
            raise RuntimeError("the native library is not there")
        self._library = found
        self.features = features
        self.outputs = len(base)
        self.used = np.zeros(features, np.bool_)
        self.used[nodes.feature[nodes.feature >= 0]] = True
        own = [np.ascontiguousarray(base, np.float32)]
        arrays = [
            np.ascontiguousarray(array)
            for array in (
                nodes.feature, nodes.value, nodes.left, nodes.right, nodes.flags, nodes.first_word, nodes.words, nodes.sets
            )
        ]  # fmt: skip
        sizes, outputs = np.ascontiguousarray(nodes.sizes), np.ascontiguousarray(nodes.outputs)
        *most, sets = (array.ctypes.data for array in arrays)
        self._forest = found.sqlml_forest_new(
            len(sizes),
            sizes.ctypes.data,
            outputs.ctypes.data,
            len(base),
            own[0].ctypes.data,
            features,
            *most,
            len(nodes.sets),
            sets,
        )
        if not self._forest:
            raise MemoryError("no memory for the trees")
        digest = hashlib.sha256(f"{features} {len(base)} {len(sizes)}".encode())
        for array in (own[0], sizes, outputs, *arrays):
            digest.update(array.tobytes())
        self.digest = digest.digest()

    @property
    def handle(self) -> int:
        """The ensemble's address, which lives as long as this does."""
        return int(self._forest)

    @property
    def pruned_nodes(self) -> int:
        """How many nodes there are of ensembles that were pruned for chunks with constant columns (``pruning.c``)."""
        return int(self._library.sqlml_pruned_nodes(self._forest))

    @classmethod
    def available(cls) -> bool:
        """Whether the library is there."""
        return library() is not None

    def answers(self, x: NDArray[np.float32], link: int = 0, *, both: bool = False) -> NDArray[np.float64]:
        """What ``link`` makes of the margins, in one call: float32 (n, features) → float64 (n, outputs).

        ``both``: of one output p, 1 - p before it: (n, 2).
        """
        x = self._checked(x)
        found = np.empty((len(x), self.outputs * (1 + both)))
        self._done(self._library.sqlml_forest_answers(self._forest, link, both, _place(x), len(x), _place(found)))
        return found

    def margins(self, x: NDArray[np.float32], threads: int = 1) -> NDArray[np.float32]:
        """float32 (n, features), NaN for missing → float32 (n, outputs)."""
        x = self._checked(x)
        found = np.empty((len(x), self.outputs), np.float32)
        if threads <= 1 or len(x) <= PART_ROWS:
            self._rows(x, found)
            return found
        parts = [slice(first, first + PART_ROWS) for first in range(0, len(x), PART_ROWS)]
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda part: self._rows(x[part], found[part]), parts):
                pass
        return found

    def link(self, kind: int, margins: NDArray[np.float32]) -> NDArray[np.float32]:
        """The margins (n, outputs) as a logistic function, a softmax or an exponential makes answers of them, in place."""
        self._library.sqlml_link(kind, margins.ctypes.data, len(margins), self.outputs)
        return margins

    def columns(self, columns: Sequence[NDArray[np.float32]], n: int) -> NDArray[np.float32]:
        """The same of a float32 array (n,) for each feature, each in one piece."""
        places = (ctypes.c_void_p * self.features)(*(column.ctypes.data for column in columns))
        found = np.empty((n, self.outputs), np.float32)
        self._done(self._library.sqlml_forest_columns(self._forest, places, n, found.ctypes.data))
        return found

    def _checked(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        x = np.ascontiguousarray(x, np.float32)
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"expected rows of {self.features} values, got an array of shape {x.shape}")
        return x

    def _rows(self, x: NDArray[np.float32], found: NDArray[np.float32]) -> None:
        self._done(self._library.sqlml_forest_rows(self._forest, x.ctypes.data, len(x), found.ctypes.data))

    @staticmethod
    def _done(worked: int) -> None:
        if not worked:
            raise MemoryError("no memory to compute with")

    def __del__(self) -> None:
        forest, self._forest = getattr(self, "_forest", None), None
        if forest:
            self._library.sqlml_forest_free(forest)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: Any) -> Self:
        return self


def _place(array: NDArray[Any]) -> Any:
    """Where an array lies, for a call: in a tenth of the time that ``array.ctypes`` takes."""
    return _Bytes.from_buffer(array.data) if array.flags.writeable else array.ctypes.data
