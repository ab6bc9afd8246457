"""Rows in XGBoost's own form: a matrix in memory as a whole, one in a file a piece at a time.

    float32 (n, k) → bins (QuantileDMatrix), a byte a value → on the disk, where even they are too large (ExtMemQuantileDMatrix)

The bins and so the trees are the same either way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xgboost

from sqlml.algorithms.shuffle import in_file, release
from sqlml.contracts import FitSpec, TrainingData

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIECE = 16 << 20
"""Bytes of a file that are handed over at a time."""
BINS_SHARE = 0.4
"""Bins that are more than this part of the job's memory lie on the disk."""
_CACHE = "bins"


def training_matrices(data: TrainingData, spec: FitSpec, *, binned: bool) -> tuple[Any, list[tuple[Any, str]]]:
    """The training rows, and the named sets that are followed."""
    types = ["c" if categorical else "q" for categorical in data.features.categorical]
    common: dict[str, Any] = {"enable_categorical": True, "nthread": spec.threads}
    common |= {"max_bin": spec.options["max_bin"]} if binned else {}

    def made(x: NDArray[np.float32], y: Any, weight: Any = None, **more: Any) -> Any:
        if not binned:
            return xgboost.DMatrix(x, y, weight=weight, feature_types=types, **common)
        if not in_file(x):
            return xgboost.QuantileDMatrix(x, y, weight=weight, feature_types=types, **common, **more)
        if spec.folder is None or spec.memory is None or _bin_bytes(x, spec) <= BINS_SHARE * spec.memory:
            return xgboost.QuantileDMatrix(_Pieces(x, y, weight, types), **common, **more)
        spec.folder.mkdir(parents=True, exist_ok=True)
        pieces = _Pieces(x, y, weight, types, spec.folder / f"{_CACHE}-{len(evals)}")
        return xgboost.ExtMemQuantileDMatrix(pieces, **common, **more)

    evals: list[tuple[Any, str]] = []
    train = made(data.features.x, data.y, data.weight)
    evals.append((train, "train"))
    more = {"ref": train} if binned else {}
    for name, x, y in (("heldout", data.heldout_x, data.heldout_y), ("valid", data.valid_x, data.valid_y)):
        if x is not None and len(x):
            evals.append((made(x, y, **more), name))
    return train, evals


def _bin_bytes(x: NDArray[np.float32], spec: FitSpec) -> int:
    return x.size * (1 if spec.options["max_bin"] <= 256 else 2)


class _Pieces(xgboost.DataIter):
    """The rows of a matrix in a file, from the first to the last, as often as XGBoost wants them."""

    def __init__(self, x: NDArray[np.float32], y: Any, weight: Any, types: list[str], cache: Path | None = None) -> None:
        self._x, self._y, self._weight, self._types = x, y, weight, types
        self._step = max(1, PIECE // (4 * max(1, x.shape[1])))
        self._start = 0
        super().__init__(cache_prefix=None if cache is None else str(cache))

    def reset(self) -> None:
        """Begin again."""
        self._start = 0
        release(self._x)

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over a piece; False where there is none left."""
        release(self._x)
        if self._start >= len(self._x):
            return False
        place = slice(self._start, self._start + self._step)
        weight = None if self._weight is None else self._weight[place]
        input_data(data=np.asarray(self._x[place]), label=self._y[place], weight=weight, feature_types=self._types)
        self._start += self._step
        return True
