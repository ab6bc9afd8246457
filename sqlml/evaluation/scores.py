"""What every figure and curve is made from: a head's raw scores of some rows, and what is true of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.algorithms.metrics import Metrics, measure
from sqlml.bundles.head import Head
from sqlml.bundles.model import Model
from sqlml.errors import TrainingDataError, count_of
from sqlml.features.dataset import Values
from sqlml.features.target import nothing_to_measure
from sqlml.plan import TargetColumn
from sqlml.types import Task, label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """Some rows as one head scored them.

    ``raw`` is what ``Predictor.predict`` gives; ``actual`` are class codes (-1: not known) or numbers (NaN: not known), None
    for a model without a target; ``weight`` float64; ``x`` the feature matrix, kept only where there is no target to measure
    against.
    """

    task: Task
    raw: NDArray[Any]
    actual: NDArray[Any] | None = None
    weight: NDArray[np.float64] | None = None
    x: NDArray[np.float32] | None = None
    target: TargetColumn | None = None
    parameters: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(self.raw)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes as text, in the order of the probabilities."""
        return tuple(label_text(value) for value in self.target.classes) if self.target else ()

    def pick(self, rows: NDArray[Any]) -> Scores:
        """Some of the rows: a mask, or row numbers."""

        def of(part: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if part is None else part[rows]

        return replace(self, raw=self.raw[rows], actual=of(self.actual), weight=of(self.weight), x=of(self.x))

    @property
    def known(self) -> Scores:
        """The rows that can be measured: those whose target is a class of the model, or a finite number."""
        if self.actual is None:
            return self
        known = self.actual >= 0 if self.task is Task.CLASSIFICATION else np.isfinite(self.actual)
        return self if known.all() else self.pick(known)

    def measure(self, threshold: float | None = None) -> Metrics:
        """All figures of the task (``sqlml.algorithms.metrics``) for the rows that can be measured; None where undefined.

        ``threshold`` is for two classes, and for anomalies; the heads of other tasks take no notice.
        """
        own = self.known
        return measure(self.task, own.raw, own.actual, own.weight, x=own.x, threshold=threshold, parameters=own.parameters)


@dataclass(frozen=True)
class Measured:
    """The rows of a query, or those held out, as every head of a model scored them.

    ``kept`` are columns of the rows themselves, such as those that EVALUATE … BY names.
    """

    heads: tuple[Scores, ...]
    kept: pa.Table

    @property
    def rows(self) -> int:
        """How many rows can be measured, by the head that can measure most of them."""
        return max((head.known.rows for head in self.heads), default=0)


def score_batches(
    model: Model, batches: Iterable[pa.RecordBatch], schema: pa.Schema, weight: str | None = None, kept: Sequence[str] = ()
) -> Measured:
    """Score rows batch by batch; only scores, truth, weights and ``kept`` stay in memory.

    The batches have the model's inputs, its targets, the weight and the kept columns, found by name whatever the case.
    ``TrainingDataError`` where no row of a query that has some can be measured, or where a weight is missing or below 0.
    """
    names = {name.lower(): index for index, name in reversed(list(enumerate(schema.names)))}
    pieces: list[list[Scores]] = [[] for _ in model.heads]
    aside: list[pa.Table] = []
    seen: dict[str, Values] = {}

    def column(batch: pa.RecordBatch, name: str) -> pa.Array:
        return batch.column(names[name.lower()])

    for batch in batches:
        weights = None if weight is None else read_weights(column(batch, weight), weight)
        rows = model.prepare(batch)
        for head, found in zip(model.heads, pieces, strict=True):
            actual = None if head.target is None else column(batch, head.target)
            if head.target is not None and actual is not None and batch.num_rows:
                seen.setdefault(head.target, actual)
            found.append(score_rows(head, rows.columns, rows.n, actual, weights))
        aside.append(pa.table([column(batch, name) for name in kept], names=list(kept)))
    if not aside:
        empty = pa.RecordBatch.from_pylist([], schema=schema)
        return score_batches(model, [empty], schema, weight, kept)
    measured = Measured(tuple(_joined(found) for found in pieces), pa.concat_tables(aside) if kept else pa.table({}))
    if seen and not measured.rows:
        _raise_nothing(model, seen)
    return measured


def score_rows(
    head: Head,
    features: Mapping[str, Values],
    n: int,
    actual: Values | None = None,
    weight: NDArray[np.float64] | None = None,
) -> Scores:
    """Score n rows of canonical columns with one head."""
    x = head.encode(features, n)
    truth = None if actual is None else head.truth(actual)
    kept = x if head.target is None else None
    return scores_of(head, head.predictor.predict(x), truth, weight, kept)


def scores_of(
    head: Head,
    raw: NDArray[Any],
    truth: NDArray[Any] | None,
    weight: NDArray[np.float64] | None = None,
    x: NDArray[np.float32] | None = None,
) -> Scores:
    """A head's raw scores with what is true of the rows."""
    parameters = {} if head.target else head.predictor.parameters()
    return Scores(head.task, raw, truth, weight, x, head.manifest.target, parameters)


def heldout_scores(model: Model, table: pa.Table) -> Measured:
    """The scores that training kept of the held-out rows: ``actual_<i>`` and ``raw_<i>`` of each head, weight, KEY columns."""
    weight = read_weights(table["weight"], "weight") if "weight" in table.column_names else None
    heads = []
    for index, head in enumerate(model.heads):
        raw = _matrix(_one_of(table, f"raw_{index}", "raw"))
        truth = None if head.target is None else head.truth(_one_of(table, f"actual_{index}", "actual"))
        flat = head.task in (Task.REGRESSION, Task.ANOMALY)
        heads.append(scores_of(head, raw[:, 0] if flat else raw, truth, weight))
    keys = {name.removeprefix(KEY): table[name] for name in table.column_names if name.startswith(KEY)}
    return Measured(tuple(heads), pa.table(keys))


KEY = "key:"
"""What stands before the name of a KEY column that is kept with the held-out scores."""


def read_weights(values: Values, name: str) -> NDArray[np.float64]:
    """Weights as float64.  ``TrainingDataError`` for NULL, what is infinite, and what is below 0."""
    try:
        weight = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise TrainingDataError(f"weight {name} is not a number", hint=f"the column given is {values.type}") from None
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        raise TrainingDataError(
            f"weight {name} is NULL, infinite or below 0 in {count_of(int(bad.sum()), 'row')}",
            hint=f"give numbers from 0 on, as in coalesce({name}, 1) AS {name}, or leave the column out of the query",
        )
    return weight


def _matrix(values: Values) -> NDArray[Any]:
    """A column of lists of one length as (n, length)."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    whole = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    return np.asarray(whole.flatten().to_numpy(zero_copy_only=False)).reshape(len(whole), whole.type.list_size)


def _one_of(table: pa.Table, *names: str) -> Values:
    return table[next(name for name in names if name in table.column_names)]


def _joined(pieces: Sequence[Scores]) -> Scores:
    """The same head's scores of more and more rows, as one."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]

    def join(name: str) -> Any:
        parts = [getattr(piece, name) for piece in pieces]
        return None if parts[0] is None else np.concatenate(parts)

    return replace(first, raw=join("raw"), actual=join("actual"), weight=join("weight"), x=join("x"))


def _raise_nothing(model: Model, seen: Mapping[str, Values]) -> None:
    target, values = next(iter(seen.items()))
    classes = next(head.classes for head in model.heads if head.target == target)
    raise nothing_to_measure(target, values, classes)
