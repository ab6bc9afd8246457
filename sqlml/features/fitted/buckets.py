"""Numbers and texts to buckets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.features.fitted.base import Analytic, Apply, Options, Parameter, Scalar, State, Takes, finite, floats, quantiles, shown
from sqlml.features.fitted.farmhash import fingerprint64

_FORMATS = ("bucket_names", "bucket_ranges", "bucket_ranges_json")
_FORMAT = Parameter("output_format", "str", "bucket_names", choices=_FORMATS)


def _apply(points: Sequence[float], output_format: str) -> Apply:
    """Numbers to the names of the buckets between split points; each bucket holds its lower bound and not its upper one."""
    edges = np.asarray(points, np.float64)
    names = pa.array(bucket_names(points, output_format), pa.string())

    def apply(values: pa.Array) -> pa.Array:
        known = floats(values)
        return names.take(pa.array(np.searchsorted(edges, known, side="right"), mask=np.isnan(known)))

    return apply


def bucket_names(points: Sequence[float], output_format: str) -> list[str]:
    """What the buckets between split points are called, in order."""
    if output_format == "bucket_names":
        return [f"bin_{i + 1}" for i in range(len(points) + 1)]
    shown = [str(int(point)) if float(point).is_integer() and abs(point) < 1e15 else repr(float(point)) for point in points]
    if output_format == "bucket_ranges":
        ends = list(zip(["-inf", *shown], [*shown, "+inf"], strict=True))
        return [f"{'[' if i else '('}{low}, {high})" for i, (low, high) in enumerate(ends)]
    ends = list(zip(["-Infinity", *shown], [*shown, "Infinity"], strict=True))
    return [json.dumps({"start": low, "end": high}) for low, high in ends]


class QuantileBucketize(Analytic):
    """Buckets of about equally many training rows, split at quantiles that are values of the data; fewer where values repeat.

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-quantile-bucketize
    """

    name = "QUANTILE_BUCKETIZE"
    takes = Takes.NUMBER
    value = "numerical_expression"
    parameters: tuple[Parameter, ...] = (Parameter("num_buckets", "int", required=True, low=1, high=100_000), _FORMAT)

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        return "VARCHAR"

    def fit(self, values: pa.Array, options: Options) -> State:
        known, n = finite(values), options["num_buckets"]
        return {"points": sorted(set(quantiles(known, [i / n for i in range(1, n)]))) if len(known) and n > 1 else []}

    def bind(self, options: Options, state: State) -> Apply:
        return _apply(state["points"], options["output_format"])

    def describe(self, options: Options, state: State) -> str:
        points = state["points"]
        listed = ", ".join(map(shown, points[:5])) + (", …" if len(points) > 5 else "")
        return f"{len(points) + 1} buckets, split at {listed}" if points else "1 bucket"


class Bucketize(Scalar):
    """Buckets between given points; ``exclude_boundaries`` leaves the first and the last point out.

    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-bucketize
    """

    name = "BUCKETIZE"
    takes = Takes.NUMBER
    value = "numerical_expression"
    parameters: tuple[Parameter, ...] = (
        Parameter("array_split_points", "floats", required=True),
        Parameter("exclude_boundaries", "bool", False),
        _FORMAT,
    )

    def check(self, options: Options) -> None:
        points = options["array_split_points"]
        if not points or not np.isfinite(points).all() or any(a >= b for a, b in pairwise(points)):
            raise ValueError("array_split_points is a list of finite numbers, lowest first, each once")

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        return "VARCHAR"

    def bind(self, options: Options, state: State) -> Apply:
        points = options["array_split_points"]
        return _apply(points[1:-1] if options["exclude_boundaries"] else points, options["output_format"])


class HashBucketize(Scalar):
    """A text's FarmHash fingerprint modulo the number of buckets; the fingerprint itself, signed, for 0 buckets.

    The remainder is that of the unsigned fingerprint: so BigQuery's example ('a' 0, 'b' 1, 'c' 1, 'd' 2 of 3) comes out.
    https://cloud.google.com/bigquery/docs/reference/standard-sql/bigqueryml-syntax-hash-bucketize
    """

    name = "HASH_BUCKETIZE"
    takes = Takes.TEXT
    value = "string_expression"
    parameters: tuple[Parameter, ...] = (Parameter("hash_bucket_size", "int", required=True, low=0, high=2**31),)

    def result(self, options: Options, fields: Sequence[str], given: pa.DataType) -> str:
        return "BIGINT"

    def bind(self, options: Options, state: State) -> Apply:
        size = options["hash_bucket_size"]

        def apply(values: pa.Array) -> pa.Array:
            coded = pc.dictionary_encode(values)
            hashes = [fingerprint64(word.encode()) for word in coded.dictionary.to_pylist()]
            buckets = [h % size if size else h - (h >> 63 << 64) for h in hashes]
            return pa.array(buckets, pa.int64()).take(coded.indices)

        return apply
