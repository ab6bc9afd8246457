"""TRAIN MODEL: rows out of the database, a job, a new version."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from sqlml_dialect import Query, Span, Train

from sqlml.algorithms.metrics import HEADLINES
from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Sql
from sqlml.binder.train import bind_train, extraction
from sqlml.catalog import Catalog, Job, Version
from sqlml.catalog.files import remove_job_data, remove_job_rows
from sqlml.contracts import Event, JobHandle, Runner
from sqlml.errors import Cancelled, DataError, Error, NotSupportedError, OperationalError, ProgrammingError, TrainingDataError
from sqlml.plan import JobSpec, TrainOutcome, TrainPlan
from sqlml.registry import get
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, rows_result


def plan_train(node: Train, parameters: Parameters, queries: Queries) -> TrainPlan:
    """Settle the statement; nothing runs."""

    def describe(query: Query) -> Any:
        sql = queries.bind(parameters.source, query.span)
        return queries.describe(sql, parameters.within(query.span))

    return bind_train(node, parameters, describe)


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
        handle = runner.submit(_spec(plan, job))
        follow(handle)
        handle.wait(on_event)
        outcome = TrainOutcome.from_json(json.loads((job.folder / "result.json").read_text(encoding="utf-8")))
        remove_job_rows(job.folder)
        version = catalog.publish(plan, outcome, job)
    except BaseException as error:
        _give_up(catalog, job, error)
        if isinstance(error, Error):
            raise _located(error, node, parameters.source) from None
        raise
    finally:
        follow(None)
    return _result(plan, outcome, version)


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


def _spec(plan: TrainPlan, job: Job) -> JobSpec:
    return JobSpec(
        id=job.id,
        kind="train",
        folder=job.folder,
        model=plan.model,
        algorithm=plan.algorithm,
        target=plan.target,
        features=plan.features,
        weight=plan.weight,
        split=plan.split,
        options=plan.options,
        seed=plan.seed,
        limits=plan.limits,
    )


def _give_up(catalog: Catalog, job: Job, error: BaseException) -> None:
    if isinstance(error, ProgrammingError | DataError | NotSupportedError):
        catalog.forget_job(job)  # a wrong input changes nothing
        return
    cancelled = isinstance(error, Cancelled | KeyboardInterrupt)
    catalog.end_job(job, "cancelled" if cancelled else "failed", str(error) or type(error).__name__)
    remove_job_data(job.folder)


def _located(error: Error, node: Train, source: str) -> Error:
    """An error about the data points at the clause that it is about: a weight, the validation rows, else the target."""
    if isinstance(error, TrainingDataError):
        about_weight = node.weight is not None and error.message.startswith("weight ")
        about_validation = node.validate is not None and "VALIDATE ON" in error.message
        target = node.target[0] if node.target else None
        clause = node.weight if about_weight else node.validate if about_validation else target
        return error.located(source, clause.span) if clause else error
    if isinstance(error, NotSupportedError) and node.limit is not None:
        return error.located(source, node.limit.span)
    return error


def _result(plan: TrainPlan, outcome: TrainOutcome, version: Version) -> Result:
    split = "heldout" if outcome.metrics.get("heldout") else "train"
    metrics = outcome.metrics.get(split) or {}
    names = [name for name in (*HEADLINES[outcome.task], *metrics) if name in metrics]
    shown = list(dict.fromkeys(names))[:3]
    columns = [("model", "string"), ("version", "int64"), ("algorithm", "string"), ("rows", "int64")]
    columns += [(name, "double") for name in shown] + [("seconds", "double")]
    row = {"model": version.model, "version": version.version, "algorithm": version.algorithm, "rows": outcome.rows}
    row |= {name: metrics[name] for name in shown} | {"seconds": outcome.duration}
    return rows_result([row], columns, footer=_footer(plan, outcome, split))


def _footer(plan: TrainPlan, outcome: TrainOutcome, split: str) -> str:
    if split == "train":
        return "no rows were held out: the figures are of the rows trained on"
    sample = f"; a sample of {plan.sample_rows:,} rows" if plan.sample_rows else ""
    how = "VALIDATE ON" if plan.split.method == "query" else f"{plan.split.text}, seed {plan.seed}"
    return f"held-out: {outcome.heldout_rows:,} rows ({how}{sample})"
