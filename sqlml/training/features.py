"""The columns that heads read, of every row of a source: the inputs themselves, or what TRANSFORM makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from sqlml.features.dataset import Values, take
from sqlml.plan import InputColumn, TrainPlan
from sqlml.training.source import Source
from sqlml.types import SQL_TYPE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sqlml.features.transform import Transform

ReadRows: TypeAlias = Callable[[int, int], Mapping[str, Values]]
"""Every column of some rows: from a row's number on so many, rows as they came."""


class Columns(Protocol):
    """Columns in the Arrow types of their kinds, by name: of a file (``Dataset``), or made (``MadeColumns``)."""

    def narrow(self, name: str) -> Values:
        """A whole column, rows as they came; floats of 32 bits as they are."""

    def some(self, name: str, rows: NDArray[np.int64]) -> Values:
        """A column's values of the rows numbered ``rows``, in that order."""

    def rows(self, start: int, length: int) -> Mapping[str, Values]:
        """Every column of some rows, from row number ``start`` on, as ``narrow`` gives it."""


@dataclass(frozen=True)
class MadeColumns:
    """Columns in memory, such as TRANSFORM's."""

    made: Mapping[str, Values]

    def narrow(self, name: str) -> Values:
        return self.made[name]

    def some(self, name: str, rows: NDArray[np.int64]) -> Values:
        return take(self.made[name], rows)

    def rows(self, start: int, length: int) -> Mapping[str, Values]:
        return {name: values.slice(start, length) for name, values in self.made.items()}


def model_inputs(plan: TrainPlan) -> tuple[InputColumn, ...]:
    """What the model is given: the features, or what TRANSFORM reads."""
    return tuple(InputColumn(c.name, c.sql_type, c.kind) for c in plan.features if c.kind is not None)


@dataclass(frozen=True)
class Features:
    """What the heads' encoders read: names and kinds, the names of vectors' positions, and the columns of each source."""

    inputs: tuple[InputColumn, ...]
    positions: Mapping[str, tuple[str, ...]]
    transform: Transform | None
    columns: Columns
    other: Columns | None

    def held(self, other: bool) -> Columns:
        """The columns that the held-out rows are among."""
        return self.other if other and self.other is not None else self.columns


def fit_features(
    plan: TrainPlan, source: Source, other: Source | None, rows: NDArray[np.int64], fitted: Transform | None = None
) -> Features:
    """Fit TRANSFORM on the rows numbered ``rows`` (or take one fitted before), and apply it to all."""
    if plan.transform is None:
        return Features(model_inputs(plan), {}, None, source.data, other.data if other else None)
    from sqlml.features.transform import Transform  # knows the language, which no other job needs

    transform = fitted or Transform.fit(plan.transform, source.data.column, rows)
    inputs = tuple(InputColumn(c.name, SQL_TYPE[c.kind], c.kind) for c in transform.outputs)
    positions = {c.name: tuple(c.features) for c in transform.outputs if c.features}
    made = _applied(plan, transform, source)
    return Features(inputs, positions, transform, made, _applied(plan, transform, other) if other else None)


def _applied(plan: TrainPlan, transform: Transform, source: Source) -> MadeColumns:
    columns = {c.name: source.data.column(c.name) for c in plan.features}
    return MadeColumns(dict(transform.apply(columns, source.size)))
