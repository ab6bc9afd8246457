"""Answers on their way to the prediction log: gathered on the event loop in as little time as can be, laid out for a file later.

    answers → Answered: plain values, arrays as they are → inputs and outputs as Arrow → the table of a file

What costs by the column (Arrow's arrays) is done for some hundred rows at once; what is the same for a whole file once a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from sqlml.prediction_log import predictions_schema
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

    def laid_out(self) -> LaidOut:
        """The inputs and the outputs as Arrow."""
        if self.blocks:
            columns = _number_columns(self.served, np.concatenate(self.blocks))
        elif self.columns:
            columns = {name: pa.concat_arrays([part[name] for part in self.columns]) for name in self.columns[0]}
        else:
            columns = columns_of(self.served.rows.inputs, list(chain.from_iterable(self.rows)))
        joined = [_joined([one[i] for one in self.predictions]) for i in range(len(self.served.outputs))]
        outputs = answer_batch(self.served.outputs, joined)
        inputs = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
        return LaidOut(self.served, self.requests, inputs, outputs, self.keys)


@dataclass(frozen=True)
class LaidOut:
    """Some hundred rows of a file."""

    served: Served
    requests: Sequence[tuple[str, int, float, float]]
    inputs: pa.RecordBatch
    outputs: pa.RecordBatch
    keys: Sequence[tuple[int, Sequence[str | None]]]

    @property
    def n(self) -> int:
        return int(self.outputs.num_rows)


def file_table(parts: Sequence[LaidOut]) -> pa.Table:
    """The rows of a file, all of one version."""
    served = parts[0].served
    inputs, outputs = (_structs([getattr(part, name) for part in parts]) for name in ("inputs", "outputs"))
    requests = [request for part in parts for request in part.requests]
    counts = np.array([n for _, n, _, _ in requests], np.int64)
    total = int(counts.sum())
    latencies, moments = (np.repeat([request[i] for request in requests], counts) for i in (2, 3))
    columns: dict[str, Any] = {
        "endpoint": _same(served.endpoint.lower(), total),
        "request_id": pa.DictionaryArray.from_arrays(
            np.repeat(np.arange(len(requests), dtype=np.int32), counts), [request[0] for request in requests]
        ),
        "row": pa.array(np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)),
        "key": _keys(parts, total),
        "model": _same(served.arm.model, total),
        "version": pa.array(np.full(total, served.arm.version, np.int64)),
        "role": _same(served.arm.role, total),
        "inputs": inputs,
        "outputs": outputs,
        "latency": pa.array(latencies),
        "logged_at": pa.array((moments * 1e6).astype(np.int64), pa.timestamp("us")),
    }
    return pa.table({field.name: columns[field.name] for field in predictions_schema(inputs.type, outputs.type)})


def _keys(parts: Sequence[LaidOut], total: int) -> pa.Array:
    if not any(part.keys for part in parts):
        return pa.nulls(total, pa.string())
    keys: list[str | None] = [None] * total
    start = 0
    for part in parts:
        for first, given in part.keys:
            keys[start + first : start + first + len(given)] = given
        start += part.n
    return pa.array(keys, pa.string())


def _structs(batches: Sequence[pa.RecordBatch]) -> pa.ChunkedArray:
    return pa.chunked_array([batch.to_struct_array() for batch in batches])


def _same(text: str, n: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(n, np.int32), [text])


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
