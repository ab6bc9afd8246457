"""PREDICT MODEL … ON runner: a job that scores the rows of a query where the runner is.

Rows that the runner reads itself never come here; what it makes is written where INTO says, by the runner for tables of its own,
else by the database that the table is in, all or nothing.
"""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path

import pyarrow as pa
from sqlml_dialect import Predict

from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Sql
from sqlml.catalog import Catalog, Job, Version
from sqlml.catalog.files import remove_job_data
from sqlml.contracts import Follow, OnEvent, Runner, Stream
from sqlml.errors import EngineError, Error, NotSupportedError, OperationalError
from sqlml.job_folder import PREDICT_ROWS, PREDICTIONS
from sqlml.plan import JobSpec, Limits, PredictOutcome, PredictPlan
from sqlml.statements.handler import Handler, Handlers
from sqlml.statements.job_run import job_run, own_query, read_result, run_job, write_rows
from sqlml.statements.predict import bind_predict, check_clauses, check_into, predicted_columns, run_predict, stream_into
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result
from sqlml.statements.runners import check_job, check_runner, open_runner, runs_where
from sqlml.types import Column, kind_of_arrow, sql_type


def predict_handlers(queries: Queries, catalog: Catalog, on_event: OnEvent, follow: Follow) -> Handlers:
    """PREDICT MODEL, inside the database or on a runner."""

    def predict(node: Predict, parameters: Parameters) -> Result:
        if not _is_job(node) or node.runner is None:
            return run_predict(node, parameters, queries, catalog, on_event)
        check_runner(catalog, node.runner, parameters.source)
        runner = open_runner(catalog, node.runner.name)
        return run_predict_job(node, parameters, queries, catalog, runner, on_event, follow)

    return {Predict: Handler(predict, writes=_is_job, columns=lambda n, p: predicted_columns(n, p, queries, catalog))}


def _is_job(node: Predict) -> bool:
    """Whether a job does it: ON inline is what happens without ON."""
    return node.runner is not None and node.runner.name.lower() != "inline"


def run_predict_job(
    node: Predict,
    parameters: Parameters,
    queries: Queries,
    catalog: Catalog,
    runner: Runner,
    on_event: OnEvent,
    follow: Follow,
) -> Result:
    """Score a query's rows on a runner, and put them where INTO says, or give them back."""
    source = parameters.source
    plan, sql, query = bind_predict_job(node, parameters, queries, catalog, runner)
    with job_run(catalog, "predict", plan.model, plan.statement, plan.runner) as job:
        if query is None:
            on_event({"event": "stage", "name": "reading"})
            write_rows(queries.run(sql, parameters.within(node.query.span)), job.folder / PREDICT_ROWS)
        spec = JobSpec(job.id, "predict", job.folder, plan, query)
        try:
            run_job(runner, spec, on_event, follow)
        except EngineError as error:  # its query has been bound before: what is left to refuse is the table
            raise error.located(source, node.into.table.span) if node.into and plan.into else error from None
        outcome = PredictOutcome.from_json(read_result(spec))
        (job.folder / PREDICT_ROWS).unlink(missing_ok=True)
        result = Result(rowcount=outcome.rows)
        if plan.into is None:
            result = stream_into(_predictions(job), node.into, queries, source)
        catalog.end_job(job, "done")
        if node.into is not None:
            remove_job_data(job.folder)
    return result


def bind_predict_job(
    node: Predict, parameters: Parameters, queries: Queries, catalog: Catalog, runner: Runner
) -> tuple[PredictPlan, Sql, str | None]:
    """The job's plan, its rows' query, and that query as the runner reads it itself, if it does; raises what is wrong."""
    source = parameters.source
    check_clauses(node, source)
    if "predict" not in runner.kinds:
        raise NotSupportedError(
            f"PREDICT MODEL … ON {runner.name}: predictions are made inside the database", source=source,
            span=node.runner.span if node.runner else node.model.span, hint="leave out ON",
        )  # fmt: skip
    if node.into is not None:
        check_into(node.into, queries, source)
    version, sql = bind_predict(node, parameters, queries, catalog)
    query = own_query(sql, parameters.within(node.query.span), runner, catalog)
    plan = _plan(node, version, runner, queries, catalog, source[slice(*parameters.statement)])
    try:
        check_job(runner, "predict", plan, by_query=query is not None)
    except Error as error:
        raise error.located(source, node.runner.span) if node.runner else error from None
    return plan, sql, query


def _plan(node: Predict, version: Version, runner: Runner, queries: Queries, catalog: Catalog, statement: str) -> PredictPlan:
    """``into`` is the runner's to write where the table is one of its own."""
    place, parts = queries.places.table(node.into.table) if node.into else (None, ())
    own = runs_where(catalog, place, runner)
    return PredictPlan(
        model=version.model,
        version=version.version,
        bundle=str(Path(version.bundle).absolute()),
        sha256=version.sha256,
        limits=Limits(),
        runner=runner.name,
        statement=statement,
        into=tuple(parts) if own else None,
        mode=node.into.mode if node.into else "create",
    )


def _predictions(job: Job) -> Stream:
    """What the runner left in the job's folder; it goes when it has been read."""
    import pyarrow.dataset as ds

    folder = job.folder / PREDICTIONS
    try:
        dataset = ds.dataset(folder, format="parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise OperationalError(f"job {job.id} left no predictions in {folder}", hint=f"SHOW LOGS FOR JOB {job.id}") from error

    columns = tuple(Column(f.name, _sql_name(f.type), kind_of_arrow(f.type)) for f in dataset.schema)
    batches = (batch for batch in dataset.to_batches() if batch.num_rows)
    weakref.finalize(batches, shutil.rmtree, folder, ignore_errors=True)  # read to its end, closed, or never begun
    return Stream(columns, dataset.schema, batches)


def _sql_name(kind: pa.DataType) -> str:
    try:
        return sql_type(kind)
    except TypeError:
        return str(kind).upper()
