"""EVALUATE … WITH (folds = k): a version's training again, on all parts of the rows but one, for each of k parts.

the version's plan + rows of its query (or of AS query) → JobSpec("folds") → FoldsOutcome → a row for each fold, mean, stddev
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from sqlml_dialect import DialectError, Evaluate, Query, Train, parse

from sqlml.binder.parameters import Parameters
from sqlml.binder.train import DEFAULT_RUNNER
from sqlml.catalog import Catalog, Version
from sqlml.catalog.files import remove_job_rows
from sqlml.contracts import Follow, Notice, OnEvent
from sqlml.errors import BindError, DataError, NotSupportedError
from sqlml.evaluation.history import best_trial
from sqlml.plan import FoldsOutcome, JobSpec, SplitPlan, TrainPlan
from sqlml.statements.job_run import extract_rows, job_run, prestarted, read_result, run_job
from sqlml.statements.missing import missing_columns_error
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result
from sqlml.statements.runners import check_job, open_runner
from sqlml.statements.scoring import subject_of, table_result


def run_folds(
    node: Evaluate,
    version: Version,
    options: Mapping[str, Any],
    parameters: Parameters,
    queries: Queries,
    catalog: Catalog,
    on_event: OnEvent,
    follow: Follow,
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
    runner = open_runner(catalog, plan.runner)
    try:
        check_job(runner, "folds", plan)
        with job_run(catalog, "folds", plan.model, parameters.source[slice(*parameters.statement)], plan.runner) as job:
            on_event({"event": "stage", "name": "reading"})
            spec = JobSpec(job.id, "folds", job.folder, plan)
            with prestarted(runner, spec):
                extract_rows(query, plan, own, queries, job)
                run_job(runner, spec, on_event, follow)
            outcome = FoldsOutcome.from_json(read_result(job))
            catalog.end_job(job, "done")
            remove_job_rows(job.folder)
    except (DataError, NotSupportedError) as error:
        raise error.located(parameters.source, node.model.span) from None
    return _result(version, outcome)


def _plan(version: Version, folds: int, catalog: Catalog, on_event: OnEvent) -> TrainPlan:
    """The version's plan, to be carried out on each fold with the options that TUNE found, and from the beginning.

    Of an imported version the runner is not the one that a stranger chose.
    """
    known = catalog.plan(version.uid)

    def notice(text: str) -> None:
        on_event({"event": "notice", "text": text})

    plan = replace(known, split=SplitPlan("fold", folds=folds), runner=_runner(version, known, catalog, notice))
    if known.split.method == "time":
        when = f"SPLIT TIME {known.split.column}"
        notice(f"{version.name} was trained with {when}; folds are random: each is measured on rows older than some learnt from")
    if plan.tune is not None:
        best = best_trial(subject_of(version, catalog))
        plan = replace(plan, tune=None, options={**plan.options, **(best["options"] if best else {})})
        if best:
            notice(f"the options of {version.name} were found by TUNE: on the rows of its trials the figures may be too good")
    if plan.start is not None:
        notice(f"{version.name} went on from {plan.start.name}, which knows the rows: each fold is trained from the beginning")
        plan = replace(plan, start=None)
    return plan


def _runner(version: Version, plan: TrainPlan, catalog: Catalog, notice: Notice) -> str:
    """The version's own runner, where it is there and can carry out folds; never one that a stranger chose."""
    if version.origin is not None:
        return DEFAULT_RUNNER
    try:
        able = "folds" in open_runner(catalog, plan.runner).kinds
    except BindError:
        able = False
    if not able:
        notice(f"{plan.runner}, where {version.name} was trained, trains no folds: they are trained on {DEFAULT_RUNNER}")
    return plan.runner if able else DEFAULT_RUNNER


def _rows_of(node: Evaluate, version: Version, plan: TrainPlan, parameters: Parameters) -> tuple[Query, Parameters]:
    """The query to take the rows from: AS query, else that of the version's own statement, with the values it was given.

    ``BindError`` for an imported version without AS query: what a stranger wrote is not run in this database.
    """
    if node.query is not None:
        return node.query, parameters
    hint = f"give rows: EVALUATE MODEL {version.name} WITH (folds = {plan.split.folds}) AS SELECT …"
    if version.origin is not None:
        raise BindError(
            f"{version.name} was imported: the query that it was trained on was written elsewhere, and is not run here",
            source=parameters.source, span=node.model.span, hint=hint,
        )  # fmt: skip
    try:
        [statement] = parse(plan.statement)
    except (DialectError, ValueError):
        statement = None
    train = statement.node if statement is not None else None
    if statement is None or not isinstance(train, Train):
        raise BindError(
            f"{version.name} did not come from a TRAIN statement that can be read again", source=parameters.source,
            span=node.model.span, hint=hint,
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
