"""Named arrays in one file: numpy's .npz, read and written without pickle, the same bytes for the same arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write numbers, booleans or texts of any shape."""
    if any(array.dtype.hasobject for array in arrays.values()):
        raise TypeError("arrays of objects cannot be written without pickle")
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what ``save_arrays`` wrote; ``ValueError`` for anything else, pickles included."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
