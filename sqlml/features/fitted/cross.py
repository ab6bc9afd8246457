"""Combinations of several features: STRUCT to STRUCT."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sqlml.features.fitted.base import Apply, Options, Parameter, Scalar, State, Takes, field_arrays, struct_type

_MOST = 10


def _combinations(count: int, degree: int, repeat: bool, start: int = 0) -> Iterator[tuple[int, ...]]:
    """Combinations of up to ``degree`` of the features 0 … count-1, in BigQuery's order: f1, f1_f1, f1_f2, f2, f2_f2."""
    for first in range(start, count):
        yield (first,)
        if degree > 1:
            for rest in _combinations(count, degree - 1, repeat, first if repeat else first + 1):
                yield (first, *rest)


class _Cross(Scalar):
    """What both share; the names of the fields that result are those of the features, joined by ``_``."""

    repeat: bool
    least: int
    sql: str

    def combinations(self, count: int, options: Options) -> list[tuple[int, ...]]:
        found = _combinations(count, options["degree"], self.repeat)
        return [group for group in found if len(group) >= self.least]

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        if not self.least <= len(fields) <= _MOST:
            raise ValueError(f"it takes {self.least} to {_MOST} features, and the STRUCT has {len(fields)}")
        if len({name.lower() for name in fields}) < len(fields):
            raise ValueError("two features of the STRUCT have the same name")
        names = ["_".join(fields[i] for i in group) for group in self.combinations(len(fields), options)]
        return struct_type(names, self.sql)

    def combine(self, parts: Sequence[pa.Array]) -> pa.Array:
        raise NotImplementedError

    def bind(self, options: Options, state: State) -> Apply:
        def apply(values: pa.Array) -> pa.Array:
            fields = field_arrays(values)
            groups = self.combinations(len(fields), options)
            names = ["_".join(fields[i][0] for i in group) for group in groups]
            return pa.StructArray.from_arrays([self.combine([fields[i][1] for i in group]) for group in groups], names)

        return apply


class FeatureCross(_Cross):
    """The texts of every combination of 2 to ``degree`` features, joined by ``_``; NULL where one of them is NULL.

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-feature-cross
    """

    name = "FEATURE_CROSS"
    takes = Takes.TEXT_FIELDS
    value = "struct_categorical_features"
    parameters: tuple[Parameter, ...] = (Parameter("degree", "int", 2, low=2, high=4),)
    repeat = False
    least = 2
    sql = "VARCHAR"

    def combine(self, parts: Sequence[pa.Array]) -> pa.Array:
        return pc.binary_join_element_wise(*parts, "_")


class PolynomialExpand(_Cross):
    """The products of every combination of 1 to ``degree`` features, a feature with itself included.

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-polynomial-expand
    """

    name = "POLYNOMIAL_EXPAND"
    takes = Takes.NUMBER_FIELDS
    value = "struct_numerical_features"
    parameters: tuple[Parameter, ...] = (Parameter("degree", "int", 2, low=1, high=4),)
    repeat = True
    least = 1
    sql = "DOUBLE"

    def combine(self, parts: Sequence[pa.Array]) -> pa.Array:
        product = parts[0]
        for part in parts[1:]:
            product = pc.multiply(product, part)
        return product
