"""EXPLAIN MODEL: what matters to a model as a whole, and what made each row's prediction.  EXPLAIN <statement>: its plan."""

from __future__ import annotations

from collections.abc import Sequence

from sqlml_dialect import ExplainModel, ExplainPlan, Predict, Train, quote_identifier, quote_string, to_sql

from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Piece, Sql
from sqlml.catalog import Catalog, Version
from sqlml.contracts import Engine
from sqlml.errors import not_yet
from sqlml.plan import TrainPlan
from sqlml.statements.evaluate import open_model
from sqlml.statements.missing import missing_columns_error
from sqlml.statements.predict import check_into, predict_sql, run_into
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, rows_result
from sqlml.statements.train import extraction_sql, plan_train
from sqlml.types import Task

DEFAULT_TOP = 5


def run_explain_model(node: ExplainModel, parameters: Parameters, queries: Queries, catalog: Catalog, engine: Engine) -> Result:
    """Without a query the importance of each input; with one, each row with its prediction and its largest contributions."""
    source = parameters.source
    version = resolve_model(catalog, node.model, source)
    if node.into is not None:
        check_into(node.into, engine, source)
    if node.query is None:
        return _explain_globally(node, version, parameters, queries)
    inner = queries.bind(source, node.query.span)
    have = queries.describe(inner, parameters.within(node.query.span))
    present = {c.name.lower() for c in have}
    missing = frozenset(c.name for c in version.inputs if c.name.lower() not in present)
    if missing:
        raise missing_columns_error(source, node.query.span, version, missing, tuple(c.name for c in have))
    name = "centroid_id" if version.task is Task.CLUSTERING else f"predicted_{version.target}"
    predict = queries.call(version, "predict")
    reasons = queries.call(version, f"reasons:{node.top or DEFAULT_TOP}")
    sql = inner.wrapped(f"SELECT *, {predict} AS {quote_identifier(name)}, {reasons} AS reasons FROM (", "\n)")  # noqa: S608
    return run_into(sql, node.into, node.query.span, parameters, queries)


def _explain_globally(node: ExplainModel, version: Version, parameters: Parameters, queries: Queries) -> Result:
    importance = open_model(version).importance()[: node.top]
    if node.into is not None:
        rows = ", ".join(f"({quote_string(name)}, CAST({share!r} AS DOUBLE))" for name, share in importance)
        text = f"SELECT * FROM (VALUES {rows}) AS importance(feature, importance)"  # noqa: S608
        return run_into(Sql(parameters.source, (Piece(text),)), node.into, node.into.span, parameters, queries)
    listed = [{"feature": name, "importance": share} for name, share in importance]
    return rows_result(listed, [("feature", "string"), ("importance", "double")], _importance_note(version.task))


def _importance_note(task: Task) -> str | None:
    return "shares of the distance between the centres" if task is Task.CLUSTERING else None


def run_explain_plan(node: ExplainPlan, parameters: Parameters, queries: Queries, catalog: Catalog, engine: Engine) -> Result:
    """What a statement would do, as a tree; nothing runs and nothing is written."""
    if node.analyze or node.format not in (None, "text"):
        what = "ANALYZE" if node.analyze else f"FORMAT {node.format}"
        raise not_yet(f"EXPLAIN ({what}) of a statement about models", parameters.source, node.span)
    statement = node.statement
    match statement:
        case Train():
            plan = plan_train(statement, parameters, queries)
            lines = _train_lines(plan, extraction_sql(statement.query, plan, parameters.source, queries), engine)
        case Predict():
            lines = _predict_lines(statement, parameters, queries, catalog)
        case _:
            model = getattr(statement, "model", None)
            if model is not None:
                resolve_model(catalog, model, parameters.source)  # says what is wrong with it
            lines = [to_sql(statement)]
    return rows_result([{"plan": line} for line in lines], [("plan", "string")])


def _train_lines(plan: TrainPlan, sql: Sql, engine: Engine) -> list[str]:
    options = ", ".join(f"{name} = {value}" for name, value in sorted(plan.options.items()))
    limits = [f"{plan.limits.seconds:g} s"] if plan.limits.seconds else []
    limits += [f"{plan.limits.memory / 2**20:,.0f} MiB"] if plan.limits.memory else []
    features = ", ".join(f"{c.name} ({c.kind.value if c.kind else '?'})" for c in plan.features)
    return [
        f"TRAIN MODEL {plan.model}: a new version",
        *_branch("extraction", [f"engine: {engine.name}", f"query: {' '.join(sql.text.split())}"]),
        *_branch(
            "data",
            [
                f"target: {plan.target or 'none'}",
                f"{len(plan.features)} features: {features}",
                *([f"weight: {plan.weight}"] if plan.weight else []),
                *([f"excluded: {', '.join((*plan.excluded, *plan.key))}"] if plan.excluded or plan.key else []),
                f"held out: {plan.split.text}, seed {plan.seed}",
                *([f"sample: {plan.sample_rows:,} rows"] if plan.sample_rows else []),
            ],
        ),
        *_branch(
            "job",
            [
                f"algorithm: {plan.algorithm or 'chosen from the values of ' + str(plan.target)}",
                f"options: {options}",
                f"runner: {plan.runner}",
                f"limits: {', '.join(limits) or 'none'}",
            ],
            last=True,
        ),
    ]


def _predict_lines(node: Predict, parameters: Parameters, queries: Queries, catalog: Catalog) -> list[str]:
    version = resolve_model(catalog, node.model, parameters.source)
    predict_sql(node.model, node.query, parameters, queries, catalog)  # says what is wrong with it
    into = [f"into: {node.into.table.text} ({node.into.mode})"] if node.into else []
    return [
        f"PREDICT MODEL {version.name}",
        *_branch("scoring", ["inside the database, vectorised", f"query: {' '.join(node.query.text.split())}", *into], last=True),
    ]


def _branch(name: str, leaves: Sequence[str], *, last: bool = False) -> list[str]:
    stem = "   " if last else "│  "
    marks = ["├─"] * (len(leaves) - 1) + ["└─"]
    return [f"{'└─' if last else '├─'} {name}", *(f"{stem}{mark} {leaf}" for mark, leaf in zip(marks, leaves, strict=True))]
