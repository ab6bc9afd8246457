"""The encoder as SQL: inputs cleaned, categories as codes, dates in parts, numbers standardised.

The feature matrix holds numbers of 32 bits.  Standardised ones are rounded alike where the dialect has such a type; without it
the difference is below 1e-7 of a feature's spread.  For trees nothing is rounded: their thresholds are moved instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlglot import exp

from sqlml.errors import NotSupportedError
from sqlml.exports.sql_build import (
    Stages,
    choose,
    column,
    constant,
    double,
    has_float32,
    integer,
    is_null,
    minus,
    number,
    rounded,
    total,
    when,
    without_nan,
)
from sqlml.features.column_code import CODES, ColumnCode
from sqlml.features.encode import FeatureEncoder
from sqlml.types import Kind

_LARGEST = float(np.finfo(np.float32).max)
_TIMES = (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)
_INFINITE = ("duckdb", "postgres")
"""Databases in which a day can be infinite: it counts as missing."""


@dataclass(frozen=True)
class Group:
    """The features of one input.  ``columns`` are the query's: a category code, or a number for each part; NULL where missing."""

    code: ColumnCode
    columns: tuple[str, ...]

    def term(self, function: Callable[[int, float | exp.Expression], float | exp.Expression | None]) -> list[exp.Expression]:
        """The sum over its dense features of ``function(j, value)``, j counting within the group, in few expressions.

        ``value`` is a number where the feature's value is known from the category alone, else the column; None stands for 0.
        """
        code = self.code
        flag = int(code.missing)
        if code.kind is Kind.TEXT:
            n = len(code.categories)
            sums = [self._constant_sum(function, [float(i == j) for j in range(n)] + [0.0] * flag) for i in range(n)]
            none = self._constant_sum(function, [0.0] * n + [1.0] * flag)
            branches = [(integer(i), number(value)) for i, value in enumerate(sums) if value != none]
            return [choose(column(self.columns[0]), branches, number(none))]
        n = len(self.columns)
        none = self._constant_sum(function, [0.0] * n + [1.0] * flag)
        items = [function(j, column(self.columns[j])) for j in range(n)]
        items += [function(n, 0.0)] if flag else []
        there = total([number(i) if isinstance(i, float | int) else i for i in items if i is not None and i != 0])
        return [when([(is_null(column(self.columns[0])), number(none))], there)]

    def _constant_sum(
        self, function: Callable[[int, float | exp.Expression], float | exp.Expression | None], values: Sequence[float]
    ) -> float:
        results = [function(j, value) for j, value in enumerate(values)]
        return float(sum(float(result) for result in results if isinstance(result, float | int)))


def encode_sql(encoder: FeatureEncoder, stages: Stages, source: Mapping[str, exp.Expression], dialect: str) -> list[Group]:
    """Add the steps that compute an encoder's features from ``source``, an expression for each of its inputs.

    The groups are those of the inputs that have features, in order; the dense ones have standardised columns.
    """
    cleaned: list[tuple[str, exp.Expression]] = []
    groups: list[Group] = []
    scaled: list[tuple[str, exp.Expression]] = []
    parts: list[tuple[str, exp.Expression]] = []
    for code in encoder.columns:
        if not code.parts:
            continue
        value = stages.fresh("v")
        cleaned.append((value, _clean(code, source[code.name], dialect)))
        names: tuple[str, ...] = (value,)
        if code.kind in _TIMES:
            names = tuple(stages.fresh("p") for _ in code.parts)
            parts += [(name, double(_time_part(column(value), part))) for name, part in zip(names, code.parts, strict=True)]
        if encoder.encoding != CODES and code.kind is not Kind.TEXT:
            plain, names = names, tuple(stages.fresh("z") for _ in names)
            for name, from_, mean, scale in zip(names, plain, code.means, code.scales, strict=True):
                scaled.append((name, _standardised(column(from_), mean, scale, code.kind)))
        groups.append(Group(code, names))
    stages.add("cleaned", cleaned)
    stages.add("parts", parts)
    stages.add("scaled", scaled)
    if has_float32(dialect) and scaled:
        kept = [(stages.fresh("r"), name) for name, _ in scaled]
        stages.add("rounded", [(new, rounded(column(name), dialect)) for new, name in kept])
        new_name = {name: new for new, name in kept}
        groups = [Group(g.code, tuple(new_name.get(name, name) for name in g.columns)) for g in groups]
    return groups


def feature_columns(groups: Sequence[Group]) -> list[str]:
    """With the encoding ``codes``: the column of each feature, in order."""
    return [name for group in groups for name in group.columns]


def _clean(code: ColumnCode, value: exp.Expression, dialect: str) -> exp.Expression:
    """An input in the form that its parts are read from."""
    if code.kind in _TIMES and dialect in _INFINITE:
        value = when([(exp.Anonymous(this="isfinite", expressions=[value.copy()]), value)])
    if code.kind is Kind.NUMBER:
        return without_nan(double(value), dialect)
    if code.kind is Kind.BOOLEAN:
        return when([(value, number(1.0)), (exp.Not(this=value.copy()), number(0.0))])
    if code.kind is Kind.TEXT:
        return choose(value, [(constant(text), integer(i)) for i, text in enumerate(code.categories)], None)
    if code.kind is Kind.DATE:
        return exp.cast(value, exp.DataType.Type.DATE)
    if code.kind is Kind.TIMESTAMP:
        return exp.cast(value, exp.DataType.Type.TIMESTAMP)
    if code.kind is Kind.TIMESTAMPTZ and dialect == "duckdb":  # its time zones need an extension
        since = exp.Anonymous(this="epoch_us", expressions=[value])
        return exp.Anonymous(this="make_timestamp", expressions=[since])
    if code.kind is Kind.TIMESTAMPTZ:
        return exp.AtTimeZone(this=value, zone=exp.Literal.string("UTC"))
    if code.kind is Kind.TIME:
        hours, minutes = _extract("HOUR", value), _extract("MINUTE", value.copy())
        micros = exp.Div(this=double(_extract("MICROSECOND", value.copy())), expression=number(1e6), typed=False, safe=False)
        return total([exp.Mul(this=hours, expression=number(3600.0)), exp.Mul(this=minutes, expression=number(60.0)), micros])
    raise NotSupportedError(
        f"the model's input {code.name} is a list, which an export as SQL cannot take apart",
        hint="export it as a bundle or as onnx",
    )


def _extract(part: str, value: exp.Expression) -> exp.Expression:
    return exp.Extract(this=exp.Var(this=part), expression=value)


def _time_part(value: exp.Expression, part: str) -> exp.Expression:
    if part in ("days", "weekday"):
        epoch = exp.cast(exp.Literal.string("1970-01-01"), exp.DataType.Type.DATE)
        days = exp.DateDiff(this=exp.cast(value, exp.DataType.Type.DATE), expression=epoch, unit=exp.Var(this="DAY"))
        if part == "days":
            return days
        week = exp.Mod(this=exp.Paren(this=exp.Add(this=days, expression=integer(3))), expression=integer(7))
        again = exp.Paren(this=exp.Add(this=week, expression=integer(7)))
        return exp.Add(this=exp.Mod(this=again, expression=integer(7)), expression=integer(1))
    return _extract(part.upper(), value)


def _standardised(value: exp.Expression, mean: float, scale: float, kind: Kind) -> exp.Expression:
    """NULL stays NULL; a number beyond the range of 32 bits counts as its end."""
    if kind is not Kind.NUMBER:
        return _scaled(value, mean, scale)
    low = exp.Greatest(this=value.copy(), expressions=[number(-_LARGEST)])
    bounded = exp.Least(this=low, expressions=[number(_LARGEST)])
    return when([(exp.Not(this=is_null(value)), _scaled(bounded, mean, scale))])


def _scaled(value: exp.Expression, mean: float, scale: float) -> exp.Expression:
    return exp.Div(this=minus(value, mean), expression=number(scale), typed=False, safe=False)
