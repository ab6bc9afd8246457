"""Answers on their way to the prediction log, in as little time as can be: it is the event loop's.

answers → Answered: plain values, arrays as they are → for some hundred rows at once ``Requests`` → an Arrow batch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pyarrow as pa

from sqlml.prediction_log import NumberRows, Requests, fold
from sqlml_runners.serving.arrow_body import answer_batch
from sqlml_runners.serving.job import Job
from sqlml_runners.serving.outputs import Answer, Predictions
from sqlml_runners.serving.protocol import Columns, Rows, columns_of
from sqlml_runners.serving.served import Block, Served

MOST_NUMBERS = 131_072
MOST_VALUES = 8_192
MOST_ROWS = 4_096
MOST_REQUESTS = 512
"""So much is made a batch at once, arrays of numbers or Python values: in half a millisecond, more would hold up requests."""


@dataclass
class Answered:
    """Answers of one version, request after request: each one's id, how many rows, latency (seconds) and moment (since 1970)."""

    served: Served
    requests: list[tuple[str, int, float, float]] = field(default_factory=list)
    predictions: list[Predictions] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)  # the inputs, of a model of numbers …
    rows: list[Rows] = field(default_factory=list)  # … of any other
    columns: list[Columns] = field(default_factory=list)  # … of a large request
    keys: list[tuple[int, Sequence[str | None]]] = field(default_factory=list)  # the first row's number, and the keys
    n: int = 0

    def add(self, jobs: Sequence[Job], predictions: Predictions, block: Block | None, now: float, clock: float) -> None:
        """The answers to some requests, one after the other; ``block``: their rows as numbers, where they are nothing else."""
        self.predictions.append(predictions)
        if block is not None:
            self.blocks.append(block)
        for job in jobs:
            call = job.call
            assert call is not None
            self.requests.append((job.number, call.n, clock - job.began, now))
            if call.columns is not None:
                self.columns.append(call.columns)
            elif block is None:
                self.rows.append(call.rows or ())
            keys = call.keys if call.rows is None else self.served.rows.row_keys(call.rows)
            if keys is not None:
                self.keys.append((self.n, keys))
            self.n += call.n

    @property
    def full(self) -> bool:
        """Whether it is time for ``packed``."""
        most = MOST_NUMBERS if self.blocks else MOST_VALUES
        return len(self.requests) >= MOST_REQUESTS or self.n >= MOST_ROWS or self.n * len(self.served.rows.inputs) >= most

    def packed(self) -> Packed:
        """All of it as one Arrow batch, as it goes into a file."""
        ids, counts, latencies, moments = zip(*self.requests, strict=True)
        arm = self.served.arm
        same = {"endpoint": self.served.endpoint.lower(), "model": arm.model, "version": str(arm.version), "role": arm.role}
        batch = fold(Requests(ids, counts, latencies, moments, self._inputs(), self._outputs(), self._keys(), same))
        return Packed(batch, self.n)

    def _inputs(self) -> pa.StructArray | NumberRows:
        inputs = self.served.rows.inputs
        if self.blocks:
            return NumberRows([column.name for column in inputs], np.concatenate(self.blocks))
        if self.columns:
            return _struct({name: pa.concat_arrays([part[name] for part in self.columns]) for name in self.columns[0]})
        return _struct(columns_of(inputs, list(chain.from_iterable(self.rows))))

    def _outputs(self) -> pa.StructArray:
        outputs = self.served.outputs
        joined = [_joined([one[i] for one in self.predictions]) for i in range(len(outputs))]
        batch = answer_batch(outputs, joined)
        return _struct(dict(zip(batch.schema.names, batch.columns, strict=True)))

    def _keys(self) -> pa.Array | None:
        if not self.keys:
            return None
        keys: list[str | None] = [None] * self.n
        for first, given in self.keys:
            keys[first : first + len(given)] = given
        return pa.array(keys, pa.string())


@dataclass(frozen=True)
class Packed:
    """Some requests of a raw file, n rows."""

    batch: pa.RecordBatch
    n: int


def _struct(columns: Columns) -> pa.StructArray:
    """Columns as one; a stream has its dictionaries apart from its batches, and ours has none."""
    plain = [values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else values for values in columns.values()]
    return pa.StructArray.from_arrays(plain, names=list(columns))


def _joined(answers: Sequence[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    if isinstance(answers[0], np.ndarray):
        return np.concatenate(answers)
    if isinstance(answers[0], pa.Array):
        return pa.concat_arrays(answers)
    return list(chain.from_iterable(answers))
