"""Which rows are held out, and which decide when to stop: seeded, and by class where there are classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def split_rows(
    rows: NDArray[np.int64], fraction: float, seed: int, classes: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide ``rows`` into (kept, taken), each in the order given; ``taken`` is about ``fraction`` of them.

    ``classes`` (n,) are class codes of the rows: each class is divided by itself and keeps at least one row.  Without them at
    least one row is kept.
    """
    taken = np.zeros(len(rows), bool)
    generator = np.random.default_rng(seed)
    groups = [np.arange(len(rows))] if classes is None else [np.flatnonzero(classes == c) for c in np.unique(classes)]
    for group in groups:
        count = min(round(len(group) * fraction), len(group) - 1)
        if count > 0:
            taken[generator.permutation(group)[:count]] = True
    return rows[~taken], rows[taken]
