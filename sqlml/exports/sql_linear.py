"""Linear models, clusters and components as SQL: one term for each input, whatever the number of its features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlglot import exp

from sqlml.exports.sql_build import Stages, column, minus, number, times, total
from sqlml.exports.sql_features import Group


def linear_sql(
    groups: Sequence[Group], spans: Sequence[tuple[int, int]], coef: NDArray[Any], intercept: NDArray[Any]
) -> list[exp.Expression]:
    """The linear functions themselves, one expression for each row of ``coef`` (outputs, k)."""
    return [_linear(groups, spans, row, float(constant)) for row, constant in zip(coef, intercept, strict=True)]


def _linear(groups: Sequence[Group], spans: Sequence[tuple[int, int]], coef: NDArray[Any], constant: float) -> exp.Expression:
    terms: list[exp.Expression] = [number(constant)]
    for group, (start, end) in zip(groups, spans, strict=True):
        own = [float(c) for c in coef[start:end]]
        if any(own):
            terms += group.term(lambda j, value, own=own: _product(own[j], value))  # type: ignore[misc]
    return total(terms)


def _product(coefficient: float, value: float | exp.Expression) -> float | exp.Expression | None:
    if coefficient == 0:
        return None
    return coefficient * value if isinstance(value, float) else times(number(coefficient), value)


def distances_sql(groups: Sequence[Group], spans: Sequence[tuple[int, int]], centres: NDArray[Any], stages: Stages) -> list[str]:
    """Euclidean distances to the centres (clusters, k): the columns that hold them."""
    columns = [(stages.fresh("d"), exp.Sqrt(this=_squares(groups, spans, centre))) for centre in centres]
    stages.add("distances", columns)
    return [name for name, _ in columns]


def _squares(groups: Sequence[Group], spans: Sequence[tuple[int, int]], centre: NDArray[Any]) -> exp.Expression:
    terms: list[exp.Expression] = []
    for group, (start, end) in zip(groups, spans, strict=True):
        own = [float(c) for c in centre[start:end]]
        terms += group.term(lambda j, value, own=own: _square(own[j], value))  # type: ignore[misc]
    return total(terms)


def _square(centre: float, value: float | exp.Expression) -> float | exp.Expression:
    if isinstance(value, float):
        return (value - centre) ** 2
    return times(minus(value, centre), minus(value.copy(), centre))


def components_sql(
    groups: Sequence[Group], spans: Sequence[tuple[int, int]], turn: NDArray[Any], shift: NDArray[Any]
) -> list[exp.Expression]:
    """Components: ``turn`` (components, k) on the features, less ``shift`` (components,)."""
    return linear_sql(groups, spans, turn, np.negative(shift))


def smallest_sql(columns: Sequence[str]) -> list[tuple[exp.Expression, int]]:
    """For each but the last column the condition that it holds the smallest value, given that none before it does."""
    return [(_least(columns[i], columns[i + 1 :]), i) for i in range(len(columns) - 1)]


def _least(first: str, others: Sequence[str]) -> exp.Expression:
    conditions = [exp.LTE(this=column(first), expression=column(other)) for other in others]
    result: exp.Expression = conditions[0]
    for condition in conditions[1:]:
        result = exp.And(this=result, expression=condition)
    return result
