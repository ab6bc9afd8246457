"""TRAIN MODEL: rows out of the database, a job, a new version."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Protocol

from sqlml_dialect import Option, Query, Span, Train

from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.binder.train import bind_train
from sqlml.binder.transform import Models
from sqlml.catalog import Catalog, Job, Version
from sqlml.catalog.files import remove_job_rows
from sqlml.contracts import Event, JobHandle, Runner
from sqlml.errors import BindError, Error, NotSupportedError, TrainingDataError
from sqlml.plan import JobSpec, TrainOutcome, TrainPlan
from sqlml.statements.job_run import (
    ROWS,
    VALIDATION_ROWS,
    extraction_sql,
    job_run,
    own_query,
    read_result,
    run_job,
    write_rows,
)
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result
from sqlml.statements.runners import check_runner, open_runner
from sqlml.statements.train_result import train_result


def plan_train(node: Train, parameters: Parameters, queries: Queries, catalog: Catalog) -> TrainPlan:
    """Settle the statement; nothing runs."""

    def describe(query: Query) -> Any:
        sql = queries.bind(parameters.source, query.span)
        return queries.describe(sql, parameters.within(query.span))

    source = parameters.source
    check_runner(catalog, node.runner, source)
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
    plan = plan_train(node, parameters, queries, catalog)
    runner = open_runner(catalog, plan.runner)
    queries.tell_if_hidden(plan.model)
    try:
        with job_run(catalog, "train", plan.model, plan.statement, plan.runner) as job:
            spec = prepare_job(node, plan, parameters, queries, job, on_event, runner)
            run_job(runner, spec, on_event, follow)
            version, outcome = publish_job(catalog, spec)
    except Error as error:
        raise located(error, node, parameters.source) from None
    return train_result(plan, outcome, version)


def prepare_job(
    node: Train,
    plan: TrainPlan,
    parameters: Parameters,
    queries: Queries,
    job: Job,
    on_event: Callable[[Event], None],
    runner: Runner,
) -> JobSpec:
    """Take the rows out of the database, and write the job's document: whoever finds it can run the job, and publish it."""
    on_event({"event": "stage", "name": "reading"})
    given: list[str | None] = []
    for query, name in ((node.query, ROWS), (node.validate, VALIDATION_ROWS)):
        sql = None if query is None else extraction_sql(query, plan, parameters.source, queries)
        own = None if sql is None or query is None else own_query(sql, parameters.within(query.span), runner)
        given.append(own)
        if query is not None and sql is not None and own is None:
            write_rows(queries.run(sql, parameters.within(query.span)), job.folder / name)
    spec = JobSpec(job.id, "train", job.folder, plan, *given)
    document = json.dumps(spec.to_json(), ensure_ascii=False, default=str)
    (job.folder / "job.json").write_text(document, encoding="utf-8")
    return spec


def publish_job(catalog: Catalog, spec: JobSpec) -> tuple[Version, TrainOutcome]:
    """Make what a finished job left in its folder the next version of its model; its copy of the rows goes."""
    outcome = TrainOutcome.from_json(read_result(spec))
    remove_job_rows(spec.folder)
    return catalog.publish(spec.train, outcome, Job(spec.id, spec.folder)), outcome


def located(error: Error, node: Train, source: str) -> Error:
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
