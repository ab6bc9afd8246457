"""What is kept of the rows themselves: the held-out ones with their scores, and a sample to explain the model with.

``heldout.arrow``, one row for each held-out row in canonical order: ``key:<name>`` for each KEY column, ``weight`` where there is
one, and for head i ``actual_<i>`` (the target in its own type, NULL where unknown; not for heads without a target) and
``raw_<i>`` (a fixed-size list of doubles: what the predictor gave).
``sample.arrow``: at most 1,000 rows of the columns that the heads in the bundle read: held-out rows, or training rows where none
are held out or there is no target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.features.dataset import take
from sqlml.features.target import label_type
from sqlml.job_folder import HELDOUT_ROWS, SAMPLE_ROWS
from sqlml.training.features import Features
from sqlml.training.fit import FittedHead
from sqlml.training.rows import Rows
from sqlml.training.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAMPLE_ROWS = 1_000


def write_heldout(folder: Path, source: Source, heads: Sequence[FittedHead], raws: Sequence[NDArray[Any]]) -> None:
    """Write ``heldout.arrow``; ``source`` is where the held-out rows are, ``raws`` the scores of each head."""
    rows = heads[0].rows.held
    columns: dict[str, Any] = {f"key:{name}": take(values, rows.numbers) for name, values in source.keys.items()}
    if rows.weight is not None:
        columns["weight"] = pa.array(rows.weight)
    for i, (head, raw) in enumerate(zip(heads, raws, strict=True)):
        if head.learner.target is not None:
            columns[f"actual_{i}"] = _actual(head, head.rows.held)
        columns[f"raw_{i}"] = _lists(raw)
    _write(folder / HELDOUT_ROWS, columns)


def _actual(head: FittedHead, rows: Rows) -> pa.Array:
    unknown = ~rows.known
    y = np.zeros(0) if rows.y is None else rows.y
    if not head.learner.classes:
        return pa.array(np.asarray(y, np.float64), mask=unknown)
    classes = pa.array(head.learner.classes, label_type(head.learner.classes))
    return classes.take(pa.array(np.maximum(y, 0), mask=unknown))


def _lists(raw: NDArray[Any]) -> pa.Array:
    width = raw.shape[1] if raw.ndim > 1 else 1
    flat = pa.array(np.ascontiguousarray(raw, np.float64).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, width)


def write_sample(folder: Path, features: Features, train: NDArray[np.int64], held: NDArray[np.int64], validated: bool) -> None:
    """Write ``sample.arrow``: of the rows ``held``, or of ``train`` where there are none."""
    columns = features.held(validated) if len(held) else features.columns
    numbers = (held if len(held) else train)[:_SAMPLE_ROWS]
    _write(folder / SAMPLE_ROWS, {i.name: columns.some(i.name, numbers) for i in features.inputs})


def _write(path: Path, columns: Mapping[str, Any]) -> None:
    table = pa.table(dict(columns))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
