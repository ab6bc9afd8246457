"""TRAIN MODEL: rows out of the database, a job, a new version."""

from __future__ import annotations

import json
import re
from typing import Any, Protocol

from sqlml_dialect import Option, Query, Span, Train

from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.binder.train import bind_train
from sqlml.binder.transform import Models
from sqlml.catalog import Catalog, Job, Version
from sqlml.catalog.files import remove_job_rows
from sqlml.contracts import Follow, OnEvent, Runner, SessionRunner
from sqlml.errors import Error, TrainingDataError
from sqlml.job_folder import DOCUMENT, TRAIN_ROWS, VALIDATION_ROWS
from sqlml.plan import JobSpec, TrainOutcome, TrainPlan
from sqlml.statements.job_run import (
    extraction_sql,
    job_run,
    own_query,
    prestarted,
    read_result,
    run_job,
    write_rows,
)
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result
from sqlml.statements.runners import check_job, check_runner, open_runner, runs_where
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
    plan = bind_train(node, parameters, describe, models)
    try:
        runner = open_runner(catalog, plan.runner)
        places = [queries.bind(source, query.span).at for query in (node.query, node.validate) if query is not None]
        by_query = not _is_detached(node, runner) and all(runs_where(catalog, place, runner) for place in places)
        check_job(runner, "train", plan, by_query=by_query)
    except Error as error:
        raise located(error, node, source) from None
    return plan


def _is_detached(node: Train, runner: Runner) -> bool:
    """Whether the job's rows are taken along wherever they lie: see ``SessionRunner``."""
    return node.asynchronous and isinstance(runner, SessionRunner) and runner.detached() is not None


def run_train(
    node: Train,
    parameters: Parameters,
    queries: Queries,
    catalog: Catalog,
    on_event: OnEvent,
    follow: Follow,
) -> Result:
    """Train a new version.  ``follow`` is told the job while it runs, so that another thread can cancel it."""
    plan = plan_train(node, parameters, queries, catalog)
    runner = open_runner(catalog, plan.runner)
    queries.tell_if_hidden(plan.model)
    try:
        with job_run(catalog, "train", plan.model, plan.statement, plan.runner) as job:
            with prestarted(runner, JobSpec(job.id, "train", job.folder, plan)):
                spec = prepare_job(node, plan, parameters, queries, catalog, job, on_event, runner)
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
    catalog: Catalog,
    job: Job,
    on_event: OnEvent,
    runner: Runner,
    *,
    detached: str | None = None,
) -> JobSpec:
    """Take the rows out of the database, and write the job's document: whoever finds it can run the job, and publish it.

    ``detached`` is what ``SessionRunner`` says of a job that another process follows.
    """
    on_event({"event": "stage", "name": "reading"})
    given: list[str | None] = []
    for query, name in ((node.query, TRAIN_ROWS), (node.validate, VALIDATION_ROWS)):
        sql = None if query is None else extraction_sql(query, plan, parameters.source, queries)
        own = None
        if sql is not None and query is not None and detached is None:
            own = own_query(sql, parameters.within(query.span), runner, catalog)
        given.append(own)
        if query is not None and sql is not None and own is None:
            write_rows(queries.run(sql, parameters.within(query.span)), job.folder / name)
    spec = JobSpec(job.id, "train", job.folder, plan, *given)
    document = json.dumps(spec.to_json(), ensure_ascii=False, default=str)
    (job.folder / DOCUMENT).write_text(document, encoding="utf-8")
    return spec


def publish_job(catalog: Catalog, spec: JobSpec) -> tuple[Version, TrainOutcome]:
    """Make what a finished job left in its folder the next version of its model; its copy of the rows goes."""
    outcome = TrainOutcome.from_json(read_result(spec))
    remove_job_rows(spec.folder)
    return catalog.publish(spec.train, outcome, Job(spec.id, spec.folder)), outcome


def located(error: Error, node: Train, source: str) -> Error:
    """An error of a job points at the clause or option that it is about; one of the data else at the target."""
    clause = _clause(error.about, node) if error.about else _of_data(error, node)
    return error if clause is None else error.located(source, clause.span)


class _Placed(Protocol):
    """A clause that knows where it stands."""

    @property
    def span(self) -> Span: ...


def _clause(about: str, node: Train) -> _Placed | None:
    """The clause, else the option, of a name; None where the statement has neither."""
    clauses: dict[str, _Placed | None] = {
        "algorithm": node.algorithm,
        "target": next(iter(node.target), None),
        "weight": node.weight,
        "split": node.split,
        "validate": node.validate,
        "tune": node.tune,
        "warm_start": node.warm_start,
        "transform": next(iter(node.transform), None),
        "limit": node.limit,
        "runner": node.runner,
        "query": node.query,
    }
    return clauses[about] if about in clauses else _option(node, about.lower())


def _of_data(error: Error, node: Train) -> _Placed | None:
    """The target that the values are of, by the beginning of the message; else the first."""
    if not isinstance(error, TrainingDataError):
        return None
    named = [n for n in node.target if re.match(rf"(target )?{re.escape(n.name)}\b", error.message, re.IGNORECASE)]
    return next(iter([*named, *node.target]), None)


def _option(node: Train, name: str) -> Option | None:
    return next((option for option in node.options if option.name.name.lower() == name), None)
