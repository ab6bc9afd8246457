"""What a model answers, whatever the form of the request: its outputs and their values.  No I/O.

model → outputs, once;   columns → model → one value of each output → rows (``rows``) or tensors (``v2``)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sqlml.bundles.answers import texts
from sqlml.types import Kind, Task
from sqlml_runners.serving.protocol import Columns

if TYPE_CHECKING:
    from sqlml.bundles.head import Head
    from sqlml.bundles.model import Model
    from sqlml.features.dataset import Values

_TIMES = (Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)


@dataclass(frozen=True)
class Output:
    """One column of the answer, called as PREDICT MODEL calls it.

    ``classes`` are those of a column of probabilities.  ``nullable``: a feature may be NULL, an answer never is.
    """

    name: str
    classes: tuple[str, ...] = ()
    nullable: bool = False


Answer: TypeAlias = "pa.Array | NDArray[np.float64]"
"""The values of one output: an array of bool, int64, float64, string, or lists of one of them.

Or figures: probabilities (n, classes) in the order of ``classes``; distances (n, clusters) to the clusters 1, 2, 3 …
"""

Predictions: TypeAlias = Sequence[Answer]
"""The answers for some rows, one for each output, in order."""


def model_outputs(model: Model) -> tuple[Output, ...]:
    """Everything that PREDICT MODEL adds to a row, in its order and under its names, which are BigQuery's."""
    if model.heads:
        return tuple(output for head in model.heads for output in _head_outputs(head))
    return tuple(Output(name, nullable=True) for name in model.full_schema.names)


def run_model(model: Model, columns: Columns) -> Predictions:
    """Predict any number of rows."""
    rows = model.prepare(columns)
    if model.heads:
        return [answer for head in model.heads for answer in _head_answers(head, head.raw(rows.columns, rows.n))]
    return [_feature(rows.columns[name], kind) for name, kind in model.features]


def _head_outputs(head: Head) -> list[Output]:
    names = head.added.names
    if head.task is Task.CLASSIFICATION:
        return [Output(names[0]), Output(names[1], head.class_names)]
    return [Output(name) for name in names]


def _head_answers(head: Head, raw: NDArray[Any]) -> list[Answer]:
    if head.task in (Task.CLASSIFICATION, Task.CLUSTERING):
        return [head.labels(raw), np.asarray(raw, np.float64)]
    return list(head.add(raw))


def _feature(values: Values, kind: Kind) -> Answer:
    """A feature as JSON can hold it: dates and times as texts."""
    if kind in _TIMES:
        return texts(values, kind)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
