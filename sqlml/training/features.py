"""The columns that heads read, of every row of a source: the inputs themselves, or what TRANSFORM makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sqlml.features.dataset import Values
from sqlml.features.transform import Transform
from sqlml.plan import InputColumn, TrainPlan
from sqlml.training.source import Source
from sqlml.types import SQL_TYPE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ReadColumn: TypeAlias = Callable[[str], Values]
"""A column by name, in the Arrow type of its kind, rows as they came."""
ReadRows: TypeAlias = Callable[[int, int], Mapping[str, Values]]
"""Every column of some rows: from a row's number on so many, rows as they came."""


def model_inputs(plan: TrainPlan) -> tuple[InputColumn, ...]:
    """What the model is given: the features, or what TRANSFORM reads."""
    return tuple(InputColumn(c.name, c.sql_type, c.kind) for c in plan.features if c.kind is not None)


@dataclass(frozen=True)
class Features:
    """What the heads' encoders read: names and kinds, the names of vectors' positions, and the columns of each source."""

    inputs: tuple[InputColumn, ...]
    positions: Mapping[str, tuple[str, ...]]
    transform: Transform | None
    column: ReadColumn
    other: ReadColumn | None
    rows: ReadRows
    other_rows: ReadRows | None

    def held_rows(self, other: bool) -> ReadRows:
        """The same of the rows that the held-out ones are among."""
        return self.other_rows if other and self.other_rows is not None else self.rows

    def held(self, other: bool) -> ReadColumn:
        """The columns of the held-out rows."""
        return self.other if other and self.other is not None else self.column


def fit_features(
    plan: TrainPlan, source: Source, other: Source | None, rows: NDArray[np.int64], fitted: Transform | None = None
) -> Features:
    """Fit TRANSFORM on the rows numbered ``rows`` (or take one fitted before), and apply it to all."""
    if plan.transform is None:
        read = (source.data.column, other.data.column if other else None)
        return Features(model_inputs(plan), {}, None, *read, source.data.rows, other.data.rows if other else None)
    transform = fitted or Transform.fit(plan.transform, source.data.column, rows)
    inputs = tuple(InputColumn(c.name, SQL_TYPE[c.kind], c.kind) for c in transform.outputs)
    positions = {c.name: tuple(c.features) for c in transform.outputs if c.features}
    columns = _applied(plan, transform, source)
    others = _applied(plan, transform, other) if other else None
    return Features(
        inputs,
        positions,
        transform,
        columns.__getitem__,
        others.__getitem__ if others else None,
        _sliced(columns),
        _sliced(others) if others else None,
    )


def _applied(plan: TrainPlan, transform: Transform, source: Source) -> dict[str, Values]:
    columns = {c.name: source.data.column(c.name) for c in plan.features}
    return dict(transform.apply(columns, source.size))


def _sliced(columns: Mapping[str, Values]) -> ReadRows:
    return lambda start, length: {name: values.slice(start, length) for name, values in columns.items()}
