"""Some rows of a source, with what is to be learnt of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.features.split import split_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


def known_targets(y: NDArray[Any] | None, n: int) -> NDArray[np.bool_]:
    """(n,): where a target is known; without one everywhere."""
    if y is None:
        return np.ones(n, bool)
    return np.asarray(y >= 0 if y.dtype.kind == "i" else np.isfinite(y))


@dataclass(frozen=True)
class Rows:
    """Row numbers in canonical order; target and weight in the same order.

    ``y``: class codes (-1: unknown), or float64 (NaN: unknown), or None without a target.
    """

    numbers: NDArray[np.int64]
    y: NDArray[Any] | None
    weight: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,): whose target is known."""
        return known_targets(self.y, len(self))

    def pick(self, mask: NDArray[np.bool_]) -> Rows:
        """The rows where ``mask`` holds."""
        if mask.all():
            return self
        y = None if self.y is None else self.y[mask]
        return Rows(self.numbers[mask], y, None if self.weight is None else self.weight[mask])

    def first(self, count: int) -> Rows:
        """At most so many of them."""
        return self.pick(np.arange(len(self)) < count)

    def none(self) -> Rows:
        """None of them."""
        return self.pick(np.zeros(len(self), bool))

    def divide(self, fraction: float, seed: int, stratify: bool) -> tuple[Rows, Rows]:
        """(kept, taken) as ``split_rows`` says."""
        positions = np.arange(len(self))
        _, taken = split_rows(positions, fraction, seed, self.y if stratify else None)
        mask = np.zeros(len(positions), bool)
        mask[taken] = True
        return self.pick(~mask), self.pick(mask)

    def recoded(self, codes: NDArray[np.int64]) -> Rows:
        """With other class codes: ``codes[old]`` is the new one, -1 for a class that is gone."""
        if self.y is None:
            return self
        return replace(self, y=np.where(self.y >= 0, codes[np.maximum(self.y, 0)], -1))


@dataclass(frozen=True)
class HeadRows:
    """The rows of one head: to learn from, to decide when to stop, to measure on."""

    train: Rows
    valid: Rows
    held: Rows
