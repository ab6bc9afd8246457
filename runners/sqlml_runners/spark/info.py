"""What the training rows look like, input by input, as ``sqlml.features.info`` tells it, from Spark's aggregates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlml.plan import InputColumn
from sqlml.types import Kind
from sqlml_runners.spark.encoders import Words, count_texts
from sqlml_runners.spark.executors import Columns

_EXACT_ROWS = 1_000_000
"""Above so many rows the median is approximate."""
_FIGURES = ("min", "max", "mean", "median", "stddev", "category_count", "null_count", "infinite_count", "dimension")
_NAMES = ("min", "max", "mean", "stddev", "median", "infinite_count")


def feature_info(
    frame: Any, columns: Columns, inputs: Sequence[InputColumn], rows: int, words: Mapping[str, Words] | None
) -> list[dict[str, Any]]:
    """A row for each input; see ``sqlml.features.info.feature_info``.  ``words``: its texts, where they are counted already."""
    from pyspark.sql import functions as sf

    wanted: list[Any] = [sf.count(sf.lit(1)).alias("rows")]
    for name, column, kind in columns.items:
        value = sf.col(column)
        missing = value.isNull() | sf.isnan(value) if kind is Kind.NUMBER else value.isNull()
        wanted.append(sf.count_if(missing).alias(f"null_count:{name}"))
        if kind is Kind.NUMBER:
            wanted += _number_figures(name, value, rows)
        elif kind is Kind.BOOLEAN:
            wanted.append(sf.count_distinct(value).alias(f"category_count:{name}"))
        elif kind is Kind.NUMBERS:
            wanted.append(sf.max(sf.when(value.isNotNull(), sf.size(value))).alias(f"dimension:{name}"))
    found = frame.agg(*wanted).first().asDict()
    texts = Columns(tuple(item for item in columns.items if item[2] in (Kind.TEXT, Kind.TEXTS)))
    if words is None:
        words = count_texts(frame, texts, 1) if texts.items else {}
    made = []
    for i in inputs:
        info: dict[str, Any] = {"input": i.name, **{name: _plain(found.get(f"{name}:{i.name}")) for name in _FIGURES}}
        if i.kind is Kind.TEXT:
            info["category_count"] = words[i.name].different
        elif i.kind is Kind.TEXTS:
            info["dimension"] = words[i.name].different
        made.append(info)
    return made


def _number_figures(name: str, value: Any, rows: int) -> list[Any]:
    """Of the finite values; the deviation is that of a sample."""
    from pyspark.sql import functions as sf

    known = sf.when(sf.abs(value) < float("inf"), value)
    median = sf.percentile(known, 0.5) if rows <= _EXACT_ROWS else sf.percentile_approx(known, 0.5, 10_000)
    deviation = sf.when(sf.count(known) == 1, sf.lit(0.0)).otherwise(sf.stddev_samp(known))
    infinite = sf.count_if(sf.abs(value) == float("inf"))
    figures = (sf.min(known), sf.max(known), sf.avg(known), deviation, median, infinite)
    return [figure.alias(f"{part}:{name}") for part, figure in zip(_NAMES, figures, strict=True)]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
