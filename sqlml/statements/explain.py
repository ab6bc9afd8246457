"""EXPLAIN MODEL: what matters to a model as a whole, and what made each row's prediction."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa
from sqlml_dialect import ExplainModel, Span, quote_identifier

from sqlml.binder.calls import check_one_target
from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Sql
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog, Version
from sqlml.contracts import Stream
from sqlml.errors import BindError, listing
from sqlml.registry import get_algorithm, names
from sqlml.statements.handler import Handler, Handlers
from sqlml.statements.missing import missing_columns_error
from sqlml.statements.predict import check_added, check_into, run_into, stream_into, used_inputs
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, own_columns, rows_result
from sqlml.statements.scored import fast_model, scored
from sqlml.types import Column, Task

DEFAULT_TOP = 5
REASONS = "reasons"


def explain_handlers(queries: Queries, catalog: Catalog) -> Handlers:
    """EXPLAIN MODEL."""

    def columns(node: ExplainModel, parameters: Parameters) -> tuple[Column, ...] | None:
        return explained_columns(node, parameters, queries, catalog)

    return {ExplainModel: Handler(lambda n, p: run_explain_model(n, p, queries, catalog), columns=columns)}


def run_explain_model(node: ExplainModel, parameters: Parameters, queries: Queries, catalog: Catalog) -> Result:
    """Without a query the importance of each feature; with one, each row with its prediction and its largest contributions."""
    version = bind_explain_model(node, parameters, queries, catalog)
    if node.query is None:
        return _explain_globally(node, version, parameters, queries)
    inner = queries.bind(parameters.source, node.query.span)
    if queries.scores_inside(inner):
        return run_into(explain_sql(node, version, parameters, queries), node.into, node.query.span, parameters, queries)
    stream = queries.run(inner, parameters.within(node.query.span), used_inputs(node.into, version, inner, queries))
    rows = scored(stream, fast_model(version), version.inputs, partial(_reasons, node.top or DEFAULT_TOP))
    return stream_into(rows, node.into, queries, parameters.source, inner.at)


def explained_columns(
    node: ExplainModel, parameters: Parameters, queries: Queries, catalog: Catalog
) -> tuple[Column, ...] | None:
    """The columns of an EXPLAIN MODEL's answer; None where rows are scored outside of their database.  Nothing runs."""
    version = bind_explain_model(node, parameters, queries, catalog)
    if node.into is not None:
        return ()
    if node.query is None:
        return own_columns(_global_columns(several=len(version.targets) > 1))
    sql = explain_sql(node, version, parameters, queries)
    return queries.describe(sql, parameters.within(node.query.span)) if queries.scores_inside(sql) else None


def _global_columns(*, several: bool) -> list[tuple[str, str]]:
    return [*([("target", "string")] if several else []), ("feature", "string"), ("importance", "double")]


def _reasons(top: int, model: Any, rows: pa.StructArray) -> pa.RecordBatch:
    """The columns of ``explain_sql``, made on this side."""
    answers = model.full(rows)
    first = answers.schema.field(0)
    return pa.RecordBatch.from_arrays([answers.column(0), model.reasons(rows, top)], names=[first.name, REASONS])


def bind_explain_model(node: ExplainModel, parameters: Parameters, queries: Queries, catalog: Catalog) -> Version:
    """The version to explain; raises what is wrong with the statement.  Nothing runs."""
    source = parameters.source
    version = resolve_model(catalog, node.model, source)
    _check_explains(version, source, node.model.span, with_rows=node.query is not None)
    if node.into is not None:
        check_into(node.into, queries, source)
    if node.query is not None:
        check_one_target(version, "EXPLAIN MODEL of single rows", source, node.model.span)
        have = queries.describe(queries.bind(source, node.query.span), parameters.within(node.query.span))
        present = {c.name.lower() for c in have}
        missing = frozenset(c.name for c in version.inputs if c.name.lower() not in present)
        if missing:
            raise missing_columns_error(source, node.query.span, version, missing, tuple(c.name for c in have))
        check_added([version.added[0][0], REASONS], present, node.query, source)
    return version


def explain_sql(node: ExplainModel, version: Version, parameters: Parameters, queries: Queries) -> Sql:
    """The SELECT that adds the prediction and its reasons to a query's columns."""
    span = node.query.span if node.query else node.span
    predict = f"{queries.call(version, 'predict')} AS {quote_identifier(version.added[0][0])}"
    reasons = f"{queries.call(version, f'reasons:{node.top or DEFAULT_TOP}')} AS {REASONS}"
    return queries.bind(parameters.source, span).wrapped(f"SELECT *, {predict}, {reasons} FROM (", "\n)")  # noqa: S608


def _check_explains(version: Version, source: str, span: Span, *, with_rows: bool) -> None:
    """``BindError`` unless the model can tell what it goes by, with what to use instead."""
    if version.task is Task.TRANSFORM:
        raise BindError(
            f"{version.name} only transforms: it predicts nothing that could be explained", source=source, span=span,
            hint=f"DESCRIBE MODEL {version.name} shows how each column is made",
        )  # fmt: skip
    if version.task is Task.GENERATION:
        raise BindError(f"{version.name} writes texts, and cannot tell what they go by", source=source, span=span)
    own = [get_algorithm(name) for name in version.algorithm.split(", ")]  # of several targets, each has its own
    if all(algorithm.explains for algorithm in own) or (version.task is Task.PROJECTION and not with_rows):
        return
    others = [n for n in names("algorithm") if (a := get_algorithm(n)).explains and a.task is version.task]
    instead = {
        Task.PROJECTION: f"EXPLAIN MODEL {version.name} without a query gives each column's part in the components",
        Task.ANOMALY: f"PREDICT MODEL {version.name} AS … gives each row's score",
    }.get(version.task, f"these explain theirs: {listing(others)}")
    raise BindError(
        f"{version.algorithm} cannot tell what its predictions go by", source=source, span=span, hint=instead
    )  # fmt: skip


def _explain_globally(node: ExplainModel, version: Version, parameters: Parameters, queries: Queries) -> Result:
    model = Model.open(version.bundle, version.sha256)
    several = len(model.heads) > 1
    rows = [
        {"target": head.target, "feature": name, "importance": share}
        for head in model.heads
        for name, share in head.importance()[: node.top]
    ]
    result = rows_result(rows, _global_columns(several=several), _importance_note(version.task))
    if node.into is None or result.columns is None or result.batches is None:
        return result
    return stream_into(Stream(result.columns, result.schema, result.batches), node.into, queries, parameters.source)


def _importance_note(task: Task) -> str | None:
    return {
        Task.CLUSTERING: "shares of the distance between the centres",
        Task.PROJECTION: "shares of the variance that the components keep",
    }.get(task)
