"""What a model answers, whatever the form of the request: its outputs and their values.  No I/O.

model → outputs, once;   columns → model → one value of each output → rows (``rows``) or tensors (``v2``)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
from numpy.typing import NDArray

from sqlml.bundles.answers import texts
from sqlml.types import Kind, Task, arrow_type
from sqlml_runners.serving.protocol import Columns

if TYPE_CHECKING:
    from sqlml.bundles.head import Head
    from sqlml.bundles.model import Model
    from sqlml.features.dataset import Values

Raw: TypeAlias = "Callable[[int, Mapping[str, Values], int], NDArray[Any]]"

_TIMES = (Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)


@dataclass(frozen=True)
class Output:
    """One column of the answer, called as PREDICT MODEL calls it; ``type`` is that of a value, of figures that of one figure.

    ``classes`` are those of a column of probabilities.  ``nullable``: a feature may be NULL, an answer never is.
    """

    name: str
    classes: tuple[str, ...] = ()
    nullable: bool = False
    type: pa.DataType = field(default_factory=pa.float64)


Answer: TypeAlias = "list[Any] | NDArray[Any] | pa.Array"
"""The values of one output: plain values, numbers (n,), or an Arrow array.

Or figures, an array of two dimensions: probabilities (n, classes) in the order of ``classes``; distances (n, clusters) to the
clusters 1, 2, 3 …
"""

Predictions: TypeAlias = Sequence[Answer]
"""The answers for some rows, one for each output, in order."""


def model_outputs(model: Model) -> tuple[Output, ...]:
    """Everything that PREDICT MODEL adds to a row, in its order and under its names, which are BigQuery's."""
    if model.heads:
        return tuple(output for head in model.heads for output in _head_outputs(head))
    if model.language is not None:
        return tuple(Output(name, nullable=True, type=pa.string()) for name in model.full_schema.names)
    return tuple(
        Output(name, nullable=True, type=pa.string() if kind in _TIMES else arrow_type(kind)) for name, kind in model.features
    )


def run_model(model: Model, columns: Columns, raw: Raw | None = None) -> Predictions:
    """Predict any number of rows; ``raw(i, features, n)`` gives the i-th head's raw scores, where the head itself shall not."""
    if model.language is not None:
        return [model.predict(columns)]
    rows = model.prepare(columns)
    if not model.heads:
        return [_feature(rows.columns[name], kind) for name, kind in model.features]
    if raw is None:
        return [a for head in model.heads for a in head_answers(head, head.raw(rows.columns, rows.n))]
    return [a for i, head in enumerate(model.heads) for a in head_answers(head, raw(i, rows.columns, rows.n))]


def head_answers(head: Head, raw: NDArray[Any]) -> list[Answer]:
    """The answers of one head, from its raw scores."""
    if head.task is Task.CLASSIFICATION:
        values = head.class_values
        return [[values[i] for i in raw.argmax(1).tolist()], raw]
    if head.task is Task.CLUSTERING:
        return [raw.argmin(1) + 1, raw]
    if head.task is Task.PROJECTION:
        return [raw[:, i] for i in range(raw.shape[1])]
    if head.task is Task.ANOMALY:
        return [raw > head.threshold, raw]
    return [raw]


def plain_values(answer: Answer) -> list[Any]:
    """Plain values, one a row; of figures a list for each row."""
    if isinstance(answer, list):
        return answer
    return list(answer.tolist())


def part_of(answer: Answer, start: int, stop: int) -> Answer:
    """The answers for some of the rows."""
    if isinstance(answer, pa.Array):
        return answer.slice(start, stop - start)
    part: list[Any] | NDArray[Any] = answer[start:stop]
    return part


def _head_outputs(head: Head) -> list[Output]:
    fields = list(head.added)
    if head.task is Task.CLASSIFICATION:
        return [Output(fields[0].name, type=head.label_type), Output(fields[1].name, head.class_names)]
    if head.task is Task.CLUSTERING:
        return [Output(fields[0].name, type=pa.int64()), Output(fields[1].name)]
    return [Output(one.name, type=one.type) for one in fields]


def _feature(values: Values, kind: Kind) -> pa.Array:
    """A feature as JSON can hold it: dates and times as texts."""
    if kind in _TIMES:
        return texts(values, kind)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
