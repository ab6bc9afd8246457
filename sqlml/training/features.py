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

    def held(self, other: bool) -> ReadColumn:
        """The columns of the held-out rows."""
        return self.other if other and self.other is not None else self.column


def fit_features(
    plan: TrainPlan, source: Source, other: Source | None, rows: NDArray[np.int64], fitted: Transform | None = None
) -> Features:
    """Fit TRANSFORM on the rows numbered ``rows`` (or take one fitted before), and apply it to all."""
    if plan.transform is None:
        return Features(model_inputs(plan), {}, None, source.data.column, other.data.column if other else None)
    transform = fitted or Transform.fit(plan.transform, source.data.column, rows)
    inputs = tuple(InputColumn(c.name, SQL_TYPE[c.kind], c.kind) for c in transform.outputs)
    positions = {c.name: tuple(c.features) for c in transform.outputs if c.features}
    return Features(
        inputs, positions, transform, _applied(plan, transform, source), _applied(plan, transform, other) if other else None
    )


def _applied(plan: TrainPlan, transform: Transform, source: Source) -> ReadColumn:
    columns = {c.name: source.data.column(c.name) for c in plan.features}
    return dict(transform.apply(columns, source.size)).__getitem__
