"""Answers on their way to the prediction log, in as little time as can be: it is the event loop's.

answers → Answered: plain values, arrays as they are → for some hundred rows at once an Arrow batch, as bytes for a file
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pyarrow as pa

from sqlml_runners.serving.arrow_body import answer_batch
from sqlml_runners.serving.job import Job
from sqlml_runners.serving.outputs import Answer, Predictions
from sqlml_runners.serving.protocol import Columns, Rows, columns_of
from sqlml_runners.serving.served import Block, Served


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

    def packed(self) -> Packed:
        """All of it as one Arrow batch, as it goes into a file."""
        if self.blocks:
            columns = _number_columns(self.served, np.concatenate(self.blocks))
        elif self.columns:
            columns = {name: pa.concat_arrays([part[name] for part in self.columns]) for name in self.columns[0]}
        else:
            columns = columns_of(self.served.rows.inputs, list(chain.from_iterable(self.rows)))
        joined = [_joined([one[i] for one in self.predictions]) for i in range(len(self.served.outputs))]
        outputs = answer_batch(self.served.outputs, joined)
        batch = pa.RecordBatch.from_pydict(
            {
                **self._about(),
                "key": self._row_keys(),
                "inputs": pa.StructArray.from_arrays([_plain(values) for values in columns.values()], names=list(columns)),
                "outputs": pa.StructArray.from_arrays([_plain(values) for values in outputs.columns], names=outputs.schema.names),
            },
            metadata=self._same(),
        )
        return Packed(batch.schema, batch.serialize(), self.n)

    def _about(self) -> dict[str, pa.Array]:
        """What is known of each row's request."""
        ids, counts, latencies, moments = zip(*self.requests, strict=True)
        numbers = np.array([latencies, moments])
        requests, row = pa.array(ids, pa.string()), np.zeros(self.n, np.int64)
        if len(ids) < self.n or 0 in counts:
            repeats = np.array(counts, np.int64)
            numbers = np.repeat(numbers, repeats, axis=1)
            requests = requests.take(pa.array(np.repeat(np.arange(len(ids)), repeats)))
            row = np.arange(self.n) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        return {
            "request_id": requests,
            "row": pa.array(row),
            "latency": pa.array(numbers[0]),
            "logged_at": pa.array((numbers[1] * 1e6).astype(np.int64), pa.timestamp("us")),
        }

    def _row_keys(self) -> pa.Array:
        if not self.keys:
            return pa.nulls(self.n, pa.string())
        keys: list[str | None] = [None] * self.n
        for first, given in self.keys:
            keys[first : first + len(given)] = given
        return pa.array(keys, pa.string())

    def _same(self) -> dict[str, str]:
        """What is the same for all rows."""
        arm = self.served.arm
        return {"endpoint": self.served.endpoint.lower(), "model": arm.model, "version": str(arm.version), "role": arm.role}


@dataclass(frozen=True)
class Packed:
    """Some hundred rows of a raw file: ``message`` is an Arrow batch as a stream has it."""

    schema: pa.Schema
    message: pa.Buffer
    n: int


def _plain(values: pa.Array) -> pa.Array:
    """A stream has its dictionaries apart from its batches, and ours has none."""
    return values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else values


def _number_columns(served: Served, block: Block) -> Columns:
    """The columns of rows of numbers, each a piece of one buffer."""
    columns = np.ascontiguousarray(block.T)
    inputs = served.rows.inputs
    if np.isnan(columns).any():
        return {c.name: pa.array(values, from_pandas=True) for c, values in zip(inputs, columns, strict=True)}
    whole, n = pa.py_buffer(columns), len(block)
    return {c.name: pa.Array.from_buffers(pa.float64(), n, [None, whole.slice(i * n * 8, n * 8)]) for i, c in enumerate(inputs)}


def _joined(answers: Sequence[Answer]) -> Answer:
    if len(answers) == 1:
        return answers[0]
    if isinstance(answers[0], np.ndarray):
        return np.concatenate(answers)
    if isinstance(answers[0], pa.Array):
        return pa.concat_arrays(answers)
    return list(chain.from_iterable(answers))
