"""Answered requests as a raw file has them: one row each, with its own rows inside.  Written as they come, unfolded later.

    request_id   latency   logged_at   keys: list<text>   inputs: list<struct>   outputs: list<struct>

Inputs that are numbers alone lie row after row (list<fixed_size_list<double>>, NaN: NULL), and their names are in the schema's
metadata, as is all that is the same for every request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlml.prediction_log.columns import PREDICTIONS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_NUMBERS = b"inputs"
"""Where the metadata has the names of inputs that are numbers alone."""


@dataclass(frozen=True)
class Requests:
    """Some requests to one version, of n rows in all.

    ``counts``: how many rows each has; ``latencies`` in seconds, ``moments`` in seconds since 1970; ``inputs`` and ``outputs``
    have n values each, so have ``keys``, if there are any; ``same`` is what all have in common: endpoint, model, version, role.
    """

    ids: Sequence[str]
    counts: Sequence[int]
    latencies: Sequence[float]
    moments: Sequence[float]
    inputs: pa.StructArray | NumberRows
    outputs: pa.StructArray
    keys: pa.Array | None
    same: Mapping[str, str]


@dataclass(frozen=True)
class NumberRows:
    """Rows of numbers, float64 (n, names)."""

    names: Sequence[str]
    values: NDArray[np.float64]


def fold(requests: Requests) -> pa.RecordBatch:
    """A batch with a row for each request."""
    import numpy as np
    import pyarrow as pa

    counts = np.array((0, *requests.counts), np.int32)
    offsets = pa.array(np.cumsum(counts, dtype=np.int32))
    metadata: dict[Any, Any] = dict(requests.same)
    inputs = requests.inputs
    if isinstance(inputs, NumberRows):
        metadata[_NUMBERS] = json.dumps(list(inputs.names))
        inputs = pa.FixedSizeListArray.from_arrays(pa.array(inputs.values.ravel()), len(inputs.names))
    moments = (np.array(requests.moments) * 1e6).astype(np.int64)
    columns = {
        "request_id": pa.array(requests.ids, pa.string()),
        "latency": pa.array(np.array(requests.latencies, np.float64)),
        "logged_at": pa.array(moments, pa.timestamp("us")),
        "keys": _lists(offsets, requests.keys),
        "inputs": pa.ListArray.from_arrays(offsets, inputs),
        "outputs": pa.ListArray.from_arrays(offsets, requests.outputs),
    }
    return pa.RecordBatch.from_pydict(columns, metadata=metadata)


def _lists(offsets: pa.Array, keys: pa.Array | None) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(len(offsets) - 1, pa.list_(pa.string())) if keys is None else pa.ListArray.from_arrays(offsets, keys)


def unfold(batches: Sequence[pa.RecordBatch], metadata: Mapping[bytes, bytes]) -> pa.Table:
    """The columns of ``PREDICTIONS``, with a row for each of the requests' rows."""
    import pyarrow as pa

    tables = [_unfold(batch, metadata) for batch in batches]
    return pa.concat_tables(tables).select([name for name, _ in PREDICTIONS])


def _unfold(batch: pa.RecordBatch, metadata: Mapping[bytes, bytes]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    outputs = batch["outputs"]
    counts = outputs.value_lengths().to_numpy()
    n = int(counts.sum())
    request = pa.array(np.repeat(np.arange(len(counts)), counts))
    keys = batch["keys"]
    columns = {
        **{name: batch[name].take(request) for name in ("request_id", "latency", "logged_at")},
        "row": pa.array(np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)),
        "key": pa.nulls(n, pa.string()) if keys.null_count else keys.flatten(),
        "inputs": _inputs(batch["inputs"].flatten(), metadata),
        "outputs": outputs.flatten(),
    }
    return pa.table(columns | _same(metadata, n))


def _inputs(values: pa.Array, metadata: Mapping[bytes, bytes]) -> pa.StructArray:
    import numpy as np
    import pyarrow as pa

    if _NUMBERS not in metadata:
        return values
    names = json.loads(metadata[_NUMBERS])
    columns = np.ascontiguousarray(values.flatten().to_numpy().reshape(len(values), len(names)).T)
    return pa.StructArray.from_arrays([pa.array(column, from_pandas=True) for column in columns], names=names)


def _same(metadata: Mapping[bytes, bytes], n: int) -> dict[str, pa.Array]:
    import pyarrow as pa

    texts = {name: pa.repeat(metadata[name.encode()].decode(), n) for name in ("endpoint", "model", "role")}
    return {**texts, "version": pa.repeat(pa.scalar(int(metadata[b"version"]), pa.int64()), n)}
