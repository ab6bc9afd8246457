"""One run of a job: its row in the catalog, the rows of queries in its folder, a runner, and what the job left.

start_job → prestarted → extract_rows → run_job → read_result; whatever goes wrong on the way, give_up
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
from sqlml_dialect import Query

from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Sql
from sqlml.binder.train import needed_columns
from sqlml.catalog import Catalog, Job
from sqlml.catalog.files import remove_job_data
from sqlml.contracts import Follow, OnEvent, PrestartRunner, Runner, Stream
from sqlml.errors import BundleError, Cancelled, DataError, NotSupportedError, OperationalError, ProgrammingError
from sqlml.job_folder import RESULT, TRAIN_ROWS
from sqlml.plan import JobSpec, TrainPlan
from sqlml.statements.queries import Queries
from sqlml.statements.runners import runs_where


@contextmanager
def job_run(catalog: Catalog, kind: str, model: str, statement: str, runner: str) -> Iterator[Job]:
    """A new job, given up where anything inside raises."""
    job = catalog.start_job(kind, model, statement, runner)
    try:
        yield job
    except BaseException as error:
        give_up(catalog, job, error)
        raise


def give_up(catalog: Catalog, job: Job, error: BaseException) -> None:
    """Write down how a job failed; one that was refused for its input (a statement, rows, a file) leaves nothing behind."""
    if isinstance(error, ProgrammingError | DataError | NotSupportedError | BundleError):
        catalog.forget_job(job)
        return
    cancelled = isinstance(error, Cancelled | KeyboardInterrupt)
    remove_job_data(job.folder)  # first: on a full disk this makes the room to write down what happened
    catalog.end_job(job, "cancelled" if cancelled else "failed", str(error) or type(error).__name__)


def extraction_sql(query: Query, plan: TrainPlan, source: str, queries: Queries) -> Sql:
    """What the database runs to give the rows of a query."""
    sample = (plan.seed, plan.sample_rows) if plan.sample_rows else None
    return queries.projected(queries.bind(source, query.span), needed_columns(plan), sample)


def own_query(sql: Sql, values: Any, runner: Runner, catalog: Catalog) -> str | None:
    """The query as the runner runs it itself, in a place that is its own; None where its rows must be taken to it."""
    if not runs_where(catalog, sql.at, runner):
        return None
    if values:
        raise NotSupportedError(
            f"a query that {runner.name} reads itself takes no parameters", source=sql.source, span=sql.span,
            hint="write the values into the query",
        )  # fmt: skip
    return sql.text


def extract_rows(
    query: Query, plan: TrainPlan, parameters: Parameters, queries: Queries, job: Job, name: str = TRAIN_ROWS
) -> None:
    """The rows of a query as an Arrow file in the job's folder, batch by batch."""
    stream = queries.run(extraction_sql(query, plan, parameters.source, queries), parameters.within(query.span))
    write_rows(stream, job.folder / name)


def write_rows(stream: Stream, path: Path) -> None:
    """A result as an Arrow file, batch by batch."""
    try:
        with (
            closing(stream.batches) as batches,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, stream.schema) as writer,
        ):
            for batch in batches:
                writer.write_batch(batch)
    except OSError as error:
        raise OperationalError(f"cannot write the rows to {path}: {error.strerror or error}", hint="is the disk full?") from error


def prestarted(runner: Runner, spec: JobSpec) -> AbstractContextManager[None]:
    """Within it a runner that can begins with a job whose rows are still being read."""
    return runner.prestart(spec) if isinstance(runner, PrestartRunner) else nullcontext()


def run_job(runner: Runner, spec: JobSpec, on_event: OnEvent, follow: Follow) -> None:
    """Run a job to its end.  ``follow`` is told the job while it runs, so that another thread can cancel it."""
    handle = runner.submit(spec)
    try:
        follow(handle)
        handle.wait(on_event)
    finally:
        follow(None)


def read_result(job: Job | JobSpec) -> dict[str, Any]:
    """What a finished job left in its folder, as its outcome's JSON."""
    return dict(json.loads((job.folder / RESULT).read_text(encoding="utf-8")))
