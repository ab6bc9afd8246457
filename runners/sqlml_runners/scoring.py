"""A prediction job in a worker: every row of ``rows.arrow`` with what PREDICT MODEL adds.

    rows.arrow → some hundred thousand rows at a time → Model.full → predictions/part-0.parquet

All columns of the rows stay; the model's inputs are found among them by name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sqlml.bundles.model import Model
from sqlml.contracts import Report
from sqlml.errors import DataError, OperationalError
from sqlml.job_folder import PREDICT_ROWS, PREDICTIONS
from sqlml.plan import JobSpec, PredictOutcome, PredictPlan

AT_A_TIME = 200_000
"""Rows that are scored and written together."""


def run_prediction(spec: JobSpec, report: Report) -> PredictOutcome:
    """Score the job's rows.  ``DataError`` for rows that cannot be computed, or columns that no file can hold."""
    plan = spec.plan
    if not isinstance(plan, PredictPlan):
        raise TypeError(f"a {spec.kind} job has no PredictPlan")
    began = time.monotonic()
    model = Model.open(Path(plan.bundle), plan.sha256)
    folder = spec.folder / PREDICTIONS
    folder.mkdir(exist_ok=True)
    report.stage("predicting")
    with pa.memory_map(str(spec.folder / PREDICT_ROWS)) as file, pa.ipc.open_file(file) as reader:
        schema = pa.schema([*reader.schema, *model.full_schema])
        total = sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))
        rows = _write(folder / "part-0.parquet", schema, _predicted(reader, model), total, report)
    return PredictOutcome(rows, time.monotonic() - began)


def _write(path: Path, schema: pa.Schema, tables: Iterator[pa.Table], total: int, report: Report) -> int:
    done = 0
    try:
        with pq.ParquetWriter(path, schema) as writer:
            for table in tables:
                writer.write_table(table)
                done += table.num_rows
                report.step(done, total, {})
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        message = f"the predictions cannot be written: {str(error).splitlines()[0]}"
        raise DataError(message, hint="leave the column out of the query, or cast it") from error
    except OSError as error:
        raise OperationalError(f"cannot write {path}: {error.strerror or error}", hint="is the disk full?") from error
    return done


def _predicted(reader: pa.ipc.RecordBatchFileReader, model: Model) -> Iterator[pa.Table]:
    for rows in _pieces(reader):
        added = model.full(rows)
        table = rows
        for field, column in zip(added.schema, added.columns, strict=True):
            table = table.append_column(field, column)
        yield table


def _pieces(reader: pa.ipc.RecordBatchFileReader) -> Iterator[pa.Table]:
    """The rows, many at a time; none where there are none."""
    kept: list[pa.RecordBatch] = []
    for i in range(reader.num_record_batches):
        kept.append(reader.get_batch(i))
        if sum(batch.num_rows for batch in kept) >= AT_A_TIME:
            yield pa.Table.from_batches(kept)
            kept = []
    if any(batch.num_rows for batch in kept):
        yield pa.Table.from_batches(kept)
