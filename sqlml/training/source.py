"""The rows that a job works on: an Arrow file with features, targets, weight, key and the column that splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from sqlml.features.dataset import Dataset, Values, read_arrow, read_dataset
from sqlml.plan import TrainPlan
from sqlml.training import rules
from sqlml.types import Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """Rows as they came, by number; ``data.order`` is their canonical order.

    ``weight`` (n,) is checked; ``keys`` are the KEY columns, in whatever type they came.
    """

    data: Dataset
    weight: NDArray[np.float64] | None
    keys: Mapping[str, Values]

    @property
    def size(self) -> int:
        return int(self.data.table.num_rows)

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """(n,): each row's place in canonical order."""
        rank = np.empty(self.size, np.int64)
        rank[self.data.order] = np.arange(self.size)
        return rank

    def in_order(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers in canonical order, each once."""
        return np.asarray(self.data.order[np.unique(self.rank[numbers])])


def read_source(path: Path, plan: TrainPlan, threads: int, *, split: bool = True) -> Source:
    """Read and check the rows that a plan names; ``split``: with the column that splits them.

    KEY columns have no part in the canonical order: naming one changes neither the split nor the model.
    """
    data = read_dataset(path, _columns(plan, split), threads)
    table = read_arrow(path)
    keys = {name: table.column(name) for name in plan.key if name in table.column_names}
    return Source(data, _weights(plan.weight, data), keys)


def _columns(plan: TrainPlan, split: bool) -> dict[str, Kind | None]:
    """Every column that counts, with its kind where the plan says it."""
    columns: dict[str, Kind | None] = {c.name: c.kind for c in plan.features if c.kind is not None}
    for name in (*plan.targets, plan.weight, plan.split.column if split else None):
        if name is not None:
            columns.setdefault(name, None)
    return columns


def _weights(name: str | None, data: Dataset) -> NDArray[np.float64] | None:
    """The weights, rows as they came."""
    if name is None:
        return None
    values = data.column(name)
    if data.kinds[name] not in (Kind.NUMBER, Kind.BOOLEAN):
        raise rules.weight_is_no_number(name)
    weight = floats(values)
    if len(weight):
        known = weight[~np.isnan(weight)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
        rules.check_weights(name, len(weight) - len(known), low, high)
    return weight


def floats(values: Values) -> NDArray[np.float64]:
    """Arrow numbers as float64, NaN for NULL."""
    import pyarrow as pa

    return np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
