"""EVALUATE … WITH (folds = k): a version's training again, on all parts of the rows but one, for each of k parts.

the version's plan + rows of its query (or of AS query) → JobSpec("folds") → FoldsOutcome → a row for each fold, mean, stddev
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from sqlml_dialect import DialectError, Evaluate, Query, Train, parse

from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Job, Version
from sqlml.catalog.files import remove_job_data, remove_job_rows
from sqlml.contracts import Event, JobHandle, Runner
from sqlml.errors import BindError, Cancelled, DataError, NotSupportedError, OperationalError, ProgrammingError
from sqlml.evaluation.history import best_trial
from sqlml.plan import FoldsOutcome, JobSpec, SplitPlan, TrainPlan
from sqlml.registry import get
from sqlml.statements.missing import missing_columns_error
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result
from sqlml.statements.scoring import subject_of, table_result
from sqlml.statements.train import extraction_sql


def run_folds(
    node: Evaluate,
    version: Version,
    options: Mapping[str, Any],
    parameters: Parameters,
    queries: Queries,
    catalog: Catalog,
    on_event: Callable[[Event], None],
    follow: Callable[[JobHandle | None], None],
) -> Result:
    """Cross-validation: figures alone; no version comes of it.  The parts are seeded as the version's split was."""
    if options.get("threshold") is not None:
        raise NotSupportedError(
            "folds are measured at the likelier class: threshold and folds cannot stand together", source=parameters.source,
            span=node.options[0].span, hint="leave out one of them",
        )  # fmt: skip
    plan = _plan(version, options["folds"], catalog, on_event)
    query, own = _rows_of(node, version, plan, parameters)
    _check_columns(query, own, version, plan, queries)
    runner: Runner = get("runner", plan.runner)()
    job = catalog.start_job("folds", plan.model, parameters.source[slice(*parameters.statement)], plan.runner)
    try:
        on_event({"event": "stage", "name": "reading"})
        sql = extraction_sql(query, plan, own.source, queries)
        _write(queries, sql, own.within(query.span), job)
        handle = runner.submit(JobSpec(job.id, "folds", job.folder, plan))
        follow(handle)
        handle.wait(on_event)
        outcome = FoldsOutcome.from_json(json.loads((job.folder / "result.json").read_text(encoding="utf-8")))
    except BaseException as error:
        _give_up(catalog, job, error)
        if isinstance(error, DataError | NotSupportedError):
            raise error.located(parameters.source, node.model.span) from None
        raise
    finally:
        follow(None)
    catalog.end_job(job, "done")
    remove_job_rows(job.folder)
    return _result(version, outcome)


def _plan(version: Version, folds: int, catalog: Catalog, on_event: Callable[[Event], None]) -> TrainPlan:
    """The version's plan, to be carried out on each fold with the options that TUNE found, and from the beginning."""
    plan = replace(catalog.plan(version.uid), split=SplitPlan("fold", folds=folds))
    if plan.tune is not None:
        best = best_trial(subject_of(version, catalog))
        plan = replace(plan, tune=None, options={**plan.options, **(best["options"] if best else {})})
    if plan.start is not None:
        text = f"{version.name} went on from {plan.start.name}, which knows the rows: each fold is trained from the beginning"
        on_event({"event": "notice", "text": text})
        plan = replace(plan, start=None)
    return plan


def _rows_of(node: Evaluate, version: Version, plan: TrainPlan, parameters: Parameters) -> tuple[Query, Parameters]:
    """The query to take the rows from: AS query, else that of the version's own statement, with the values it was given."""
    if node.query is not None:
        return node.query, parameters
    try:
        [statement] = parse(plan.statement)
    except (DialectError, ValueError):
        statement = None
    train = statement.node if statement is not None else None
    if statement is None or not isinstance(train, Train):
        raise BindError(
            f"{version.name} did not come from a TRAIN statement that can be read again", source=parameters.source,
            span=node.model.span, hint=f"give rows: EVALUATE MODEL {version.name} WITH (folds = …) AS SELECT …",
        )  # fmt: skip
    return train.query, Parameters(plan.statement, statement.span, plan.parameters)


def _check_columns(query: Query, own: Parameters, version: Version, plan: TrainPlan, queries: Queries) -> None:
    """``BindError`` where the query no longer has what the version was trained on."""
    have = queries.describe(queries.bind(own.source, query.span), own.within(query.span))
    present = {column.name.lower() for column in have}
    extra = [*plan.targets, *([plan.weight] if plan.weight else [])]
    lacking = [name for name in extra if name.lower() not in present]
    if lacking:
        raise BindError(
            f"to train {version.name} again the query must give {', '.join(lacking)}", source=own.source, span=query.span
        )
    missing = frozenset(column.name for column in version.inputs if column.name.lower() not in present)
    if missing:
        raise missing_columns_error(own.source, query.span, version, missing, tuple(column.name for column in have))


def _write(queries: Queries, sql: Any, values: Any, job: Job) -> None:
    stream = queries.run(sql, values)
    path = job.folder / "train.arrow"
    try:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, stream.schema) as writer:
            for batch in stream.batches:
                writer.write_batch(batch)
    except OSError as error:
        raise OperationalError(f"cannot write the rows to {path}: {error.strerror or error}", hint="is the disk full?") from error


def _give_up(catalog: Catalog, job: Job, error: BaseException) -> None:
    if isinstance(error, ProgrammingError | DataError | NotSupportedError):
        catalog.forget_job(job)
        return
    cancelled = isinstance(error, Cancelled | KeyboardInterrupt)
    catalog.end_job(job, "cancelled" if cancelled else "failed", str(error) or type(error).__name__)
    remove_job_data(job.folder)


def _result(version: Version, outcome: FoldsOutcome) -> Result:
    """A row for each fold, then the mean and the standard deviation (of a sample: n - 1) over them; of several targets each."""
    targets: Sequence[str | None] = [target.name for target in version.targets] if len(version.targets) > 1 else [None]
    rows: list[tuple[str | None, str, Mapping[str, float | None]]] = []
    for target in targets:
        folds = [_own(figures, target) for figures in outcome.metrics]
        names = dict.fromkeys(name for figures in folds for name in figures)
        rows += [(target, str(number), figures) for number, figures in enumerate(folds, 1)]
        rows.append((target, "mean", {name: _over(folds, name, statistics.fmean, 1) for name in names}))
        rows.append((target, "stddev", {name: _over(folds, name, statistics.stdev, 2) for name in names}))
    figures = dict.fromkeys(name for _, _, metrics in rows for name in metrics)
    columns: dict[str, pa.Array] = {}
    if len(targets) > 1:
        columns["target"] = pa.array([target for target, _, _ in rows], pa.string())
    columns["fold"] = pa.array([fold for _, fold, _ in rows], pa.string())
    columns |= {name: pa.array([metrics.get(name) for _, _, metrics in rows], pa.float64()) for name in figures}
    footer = f"{version.name} trained again on {outcome.rows:,} rows, {len(outcome.metrics)} folds"
    return table_result(pa.table(columns), footer)


def _own(figures: Mapping[str, float | None], target: str | None) -> dict[str, float | None]:
    if target is None:
        return dict(figures)
    return {name.removeprefix(f"{target}."): value for name, value in figures.items() if name.startswith(f"{target}.")}


def _over(
    folds: Sequence[Mapping[str, float | None]], name: str, figure: Callable[[list[float]], float], least: int
) -> float | None:
    """A figure over the folds that have a value; None where they are too few."""
    values = [value for value in (metrics.get(name) for metrics in folds) if value is not None]
    return figure(values) if len(values) >= least else None
