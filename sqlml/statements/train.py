"""TRAIN MODEL: rows out of the database, a job, a new version."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa
from sqlml_dialect import Option, Query, Span, Train

from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Sql
from sqlml.binder.train import bind_train, extraction
from sqlml.binder.transform import Models
from sqlml.catalog import Catalog, Job, Version
from sqlml.catalog.files import remove_job_data, remove_job_rows
from sqlml.contracts import Event, JobHandle, Runner
from sqlml.errors import (
    BindError,
    Cancelled,
    DataError,
    Error,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    TrainingDataError,
)
from sqlml.plan import JobSpec, TrainOutcome, TrainPlan
from sqlml.registry import get
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result
from sqlml.statements.train_result import train_result


def plan_train(node: Train, parameters: Parameters, queries: Queries) -> TrainPlan:
    """Settle the statement; nothing runs."""

    def describe(query: Query) -> Any:
        sql = queries.bind(parameters.source, query.span)
        return queries.describe(sql, parameters.within(query.span))

    source = parameters.source
    catalog = queries._catalog
    models = Models(
        resolve=lambda ref: resolve_model(catalog, ref, source),
        find=lambda span: queries.find(source, span),
        plan=lambda version: catalog.plan(version.uid),
    )
    return bind_train(node, parameters, describe, models)


def run_train(
    node: Train,
    parameters: Parameters,
    queries: Queries,
    catalog: Catalog,
    on_event: Callable[[Event], None],
    follow: Callable[[JobHandle | None], None],
) -> Result:
    """Train a new version.  ``follow`` is told the job while it runs, so that another thread can cancel it."""
    plan = plan_train(node, parameters, queries)
    runner: Runner = get("runner", plan.runner)()
    queries.tell_if_hidden(plan.model)
    job = catalog.start_job("train", plan.model, plan.statement, plan.runner)
    try:
        on_event({"event": "stage", "name": "reading"})
        _extract(node, plan, parameters, queries, job)
        spec = write_job(plan, job)
        handle = runner.submit(spec)
        follow(handle)
        handle.wait(on_event)
        version, outcome = publish_job(catalog, spec)
    except BaseException as error:
        _give_up(catalog, job, error)
        if isinstance(error, Error):
            raise _located(error, node, parameters.source) from None
        raise
    finally:
        follow(None)
    return train_result(plan, outcome, version)


def write_job(plan: TrainPlan, job: Job) -> JobSpec:
    """The job's document, also in its folder: whoever finds it can run the job, and publish what it left."""
    spec = JobSpec(job.id, "train", job.folder, plan)
    document = json.dumps(spec.to_json(), ensure_ascii=False, default=str)
    (job.folder / "job.json").write_text(document, encoding="utf-8")
    return spec


def publish_job(catalog: Catalog, spec: JobSpec) -> tuple[Version, TrainOutcome]:
    """Make what a finished job left in its folder the next version of its model; its copy of the rows goes."""
    outcome = TrainOutcome.from_json(json.loads((spec.folder / "result.json").read_text(encoding="utf-8")))
    remove_job_rows(spec.folder)
    return catalog.publish(spec.plan, outcome, Job(spec.id, spec.folder)), outcome


def extraction_sql(query: Query, plan: TrainPlan, source: str, queries: Queries) -> Sql:
    """What the database runs to give the rows of a query."""
    before, after = extraction(plan, queries.sample_clause(plan.seed, plan.sample_rows) if plan.sample_rows else "")
    return queries.bind(source, query.span).wrapped(before, after)


def _extract(node: Train, plan: TrainPlan, parameters: Parameters, queries: Queries, job: Job) -> None:
    source = parameters.source
    sql = extraction_sql(node.query, plan, source, queries)
    _write(queries, sql, parameters, node.query.span, job, "train.arrow")
    if node.validate is not None:
        sql = extraction_sql(node.validate, plan, source, queries)
        _write(queries, sql, parameters, node.validate.span, job, "validation.arrow")


def _write(queries: Queries, sql: Sql, parameters: Parameters, span: Span, job: Job, name: str) -> None:
    """The rows as an Arrow file in the job's folder, batch by batch."""
    stream = queries.run(sql, parameters.within(span))
    path = job.folder / name
    try:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, stream.schema) as writer:
            for batch in stream.batches:
                writer.write_batch(batch)
    except OSError as error:
        raise OperationalError(f"cannot write the rows to {path}: {error.strerror or error}", hint="is the disk full?") from error


def _give_up(catalog: Catalog, job: Job, error: BaseException) -> None:
    if isinstance(error, ProgrammingError | DataError | NotSupportedError):
        catalog.forget_job(job)  # a wrong input changes nothing
        return
    cancelled = isinstance(error, Cancelled | KeyboardInterrupt)
    catalog.end_job(job, "cancelled" if cancelled else "failed", str(error) or type(error).__name__)
    remove_job_data(job.folder)


def _located(error: Error, node: Train, source: str) -> Error:
    """An error about the data points at the clause that it is about, else at the target."""
    if isinstance(error, TrainingDataError | BindError):
        span = _place(error.message, node)
        return error.located(source, span) if span else error
    if isinstance(error, NotSupportedError) and node.limit is not None:
        return error.located(source, node.limit.span)
    return error


class _Placed(Protocol):
    """A clause that knows where it stands."""

    @property
    def span(self) -> Span: ...


def _place(message: str, node: Train) -> Span | None:
    """The clause that a message of a job is about."""
    about: list[tuple[bool, _Placed | None]] = [
        (message.startswith("weight "), node.weight),
        (message.startswith("class_weight "), _option(node, "class_weight")),
        (message.startswith("TUNE"), node.tune),
        (message.startswith("SPLIT "), node.split),
        (message.startswith("WARM START "), node.warm_start),
        (message.startswith("TRANSFORM "), node.transform[0] if node.transform else None),
        ("VALIDATE ON" in message, node.validate),
    ]
    for fits, clause in about:
        if fits and clause is not None:
            return clause.span
    named = [name for name in node.target if re.match(rf"(target )?{re.escape(name.name)}\b", message, re.IGNORECASE)]
    first = [*named, *node.target][:1]
    return first[0].span if first else None


def _option(node: Train, name: str) -> Option | None:
    return next((option for option in node.options if option.name.name.lower() == name), None)
