"""A prediction job on Spark: every row of a query with what PREDICT MODEL adds, written where the cluster can write.

query or rows.arrow → mapInArrow with the bundle's files → predictions/*.parquet, or a table
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from sqlml.bundles.model import Model
from sqlml.contracts import Report
from sqlml.errors import BindError, OperationalError, listing
from sqlml.job_folder import PREDICT_ROWS, PREDICTIONS
from sqlml.plan import JobSpec, PredictOutcome, PredictPlan
from sqlml.spark_common.place import Place
from sqlml.spark_common.tables import write_table
from sqlml_runners.spark.cluster import Cluster
from sqlml_runners.spark.executors import predict_batches, read_files
from sqlml_runners.spark.tables import open_arrow, read_rows


def run_prediction(spec: JobSpec, cluster: Cluster, report: Report) -> PredictOutcome:
    """Predict as the job says; see the module."""
    if not isinstance(spec.plan, PredictPlan):
        raise TypeError(f"a {spec.kind} job has no PredictPlan")
    plan, started = spec.plan, time.perf_counter()
    report.stage("reading")
    model = Model.open(Path(plan.bundle), plan.sha256)
    notes: list[str] = []
    place = None if plan.into is not None else cluster.staging(spec.folder).below(PREDICTIONS)
    try:
        raw = read_rows(cluster, spec.query, spec.folder / PREDICT_ROWS)
        given = None if spec.query is not None else open_arrow(spec.folder / PREDICT_ROWS).schema
        times, zones = _times(given), _zones(given)
        frame = predicted(raw, model, plan, times, zones)
        report.stage("predicting")
        if place is None:
            rows = _write_table(frame, cluster, plan, report)
            if times:
                notes.append(f"{listing(times)}: Spark has no times of day in tables; microseconds since midnight were written")
        else:
            rows = _write_files(frame, spec.folder / PREDICTIONS, place)
            _restore_times(spec.folder / PREDICTIONS, times)
    finally:
        cluster.forget()
    report.step(1, 1, {"rows": float(rows)})
    for note in notes:
        report.notice(note)
    return PredictOutcome(rows, time.perf_counter() - started, tuple(notes))


def predicted(frame: Any, model: Model, plan: PredictPlan, times: tuple[str, ...], zones: Mapping[str, str]) -> Any:
    """The rows of a frame with the columns that the model adds.  ``BindError`` where inputs are missing or names clash."""
    from pyspark.sql.pandas.types import from_arrow_schema
    from pyspark.sql.types import StructType

    given = {name.lower() for name in frame.columns}
    missing = [i.name for i in model.inputs if i.name.lower() not in given]
    if missing:
        raise BindError(
            f"the model needs columns that are not there: {listing(missing)}",
            hint=f"there are: {listing(frame.columns) or 'none'}",
        )
    clash = [name for name in model.full_schema.names if name.lower() in given]
    if clash:
        raise BindError(f"the rows have a column {clash[0]} already, which PREDICT MODEL adds", hint="leave it out of the query")
    schema = StructType([*frame.schema.fields, *from_arrow_schema(model.full_schema).fields])
    run = partial(predict_batches, files=read_files(Path(plan.bundle)), sha256=plan.sha256, times=times, zones=zones)
    return frame.mapInArrow(run, schema)


def _times(given: pa.Schema | None) -> tuple[str, ...]:
    """The columns of the rows' file that are times of day: they travel as microseconds."""
    return tuple(f.name for f in given or () if pa.types.is_time(f.type))


def _zones(given: pa.Schema | None) -> dict[str, str]:
    """The time zones of the file's moments: Spark reads moments from files in its session's own."""
    return {f.name: f.type.tz for f in given or () if pa.types.is_timestamp(f.type) and f.type.tz}


def _counted(frame: Any) -> tuple[Any, Any]:
    """The frame, and an observation of how many rows it has once they are written."""
    from pyspark.sql import Observation
    from pyspark.sql import functions as sf

    seen = Observation()
    return frame.observe(seen, sf.count(sf.lit(1)).alias("rows")), seen


def _write_files(frame: Any, folder: Path, place: Place) -> int:
    """Parquet files in the job's folder; by way of the shared place where the cluster does not see it."""
    frame, seen = _counted(frame)
    shutil.rmtree(folder, ignore_errors=True)
    elsewhere = Path(place.path) != folder.absolute()
    try:
        frame.write.mode("overwrite").parquet(place.url)
        if elsewhere:
            place.fetch(folder)
    finally:
        if elsewhere:
            place.remove()
    if not list(folder.glob("*.parquet")):
        raise OperationalError(
            f"the predictions are not in {place.url}, though Spark has written them: its workers do not share this folder",
            hint="give a folder that all machines share: WITH (staging = '/mnt/shared') of the runner",
        )
    return int(seen.get["rows"])


def _restore_times(folder: Path, times: tuple[str, ...]) -> None:
    """Times of day, which Spark does not write, in place of their microseconds: file by file, batch by batch."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")) if times else ():
        draft = path.with_suffix(".part")
        with pq.ParquetFile(path) as file:
            schema = pa.schema([f.with_type(pa.time64("us")) if f.name in times else f for f in file.schema_arrow])
            with pq.ParquetWriter(draft, schema) as writer:
                for batch in file.iter_batches():
                    writer.write_batch(batch.cast(schema))
        draft.replace(path)


def _write_table(frame: Any, cluster: Cluster, plan: PredictPlan, report: Report) -> int:
    """A table of Spark's, by ``write_table``; a job that was told to stop stops before anybody sees its rows."""
    frame, seen = _counted(frame)
    write_table(cluster.session, frame, plan.into or (), plan.mode, lambda: report.stage("writing"))
    return int(seen.get["rows"])
