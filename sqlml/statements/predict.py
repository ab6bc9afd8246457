"""PREDICT MODEL: the rows of a query with the model's predictions beside them, as a result or into a table."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from sqlml_dialect import Into, Predict, Query, Span, name_sql

from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Sql
from sqlml.catalog import Catalog, Version
from sqlml.contracts import OnEvent, Stream
from sqlml.errors import BindError, EngineError, Error, NotSupportedError, not_yet
from sqlml.statements.missing import missing_columns_error
from sqlml.statements.progress import counted, following
from sqlml.statements.queries import Queries, noting
from sqlml.statements.result import Result, stream_result
from sqlml.statements.scored import fast_model, scored
from sqlml.types import Column

PREDICTING = "predicting"
"""What progress is told of."""


def run_predict(node: Predict, parameters: Parameters, queries: Queries, catalog: Catalog, on_event: OnEvent) -> Result:
    """Score a query's rows: inside the database where it calls models itself, else batch by batch on this side."""
    check_clauses(node, parameters.source)
    if node.into is not None:
        check_into(node.into, queries, parameters.source)
    version, inner = bind_predict(node, parameters, queries, catalog)
    if queries.scores_inside(inner):
        sql = queries.predict_table(parameters.source, node.model, version, node.query).wrapped("SELECT * FROM ", "")
        with following(queries.places.home, PREDICTING, _rows_of(node, inner, parameters, queries), on_event):
            return run_into(sql, node.into, node.query.span, parameters, queries)
    rows = _rows_of(node, inner, parameters, queries)
    stream = queries.run(inner, parameters.within(node.query.span), used_inputs(node.into, version, inner, queries))
    found = scored(stream, fast_model(version), version.inputs)
    if node.into is not None:
        found = replace(found, batches=counted(found.batches, PREDICTING, rows, on_event))
    return stream_into(found, node.into, queries, parameters.source, inner.at)


def predicted_columns(node: Predict, parameters: Parameters, queries: Queries, catalog: Catalog) -> tuple[Column, ...] | None:
    """The columns of a PREDICT MODEL's answer, none where a table takes them; None where rows are scored outside of their
    database.  Nothing runs.
    """
    if node.into is not None:
        return ()
    version, inner = bind_predict(node, parameters, queries, catalog)
    if not queries.scores_inside(inner):
        return None
    sql = queries.predict_table(parameters.source, node.model, version, node.query).wrapped("SELECT * FROM ", "")
    return queries.describe(sql, parameters.within(node.query.span))


def _rows_of(node: Predict, inner: Sql, parameters: Parameters, queries: Queries) -> int | None:
    """About how many rows go into a table; None where there is none, or nobody can say."""
    if node.into is None:
        return None
    try:
        return queries.estimate_rows(inner, parameters.within(node.query.span))
    except EngineError:  # the statement itself will say what is wrong
        return None


def bind_predict(node: Predict, parameters: Parameters, queries: Queries, catalog: Catalog) -> tuple[Version, Sql]:
    """The version and its rows' query.  ``BindError`` where these have not what it needs, or have what it adds."""
    source, query = parameters.source, node.query
    version = resolve_model(catalog, node.model, source)
    inner = queries.bind(source, query.span)
    have = queries.describe(inner, parameters.within(query.span))
    present = {column.name.lower() for column in have}
    missing = frozenset(column.name for column in version.inputs if column.name.lower() not in present)
    if missing:
        raise missing_columns_error(source, query.span, version, missing, tuple(c.name for c in have))
    check_added(queries.added_columns(version), present, query, source)
    return version, inner


def used_inputs(into: Into | None, version: Version, sql: Sql, queries: Queries) -> frozenset[str] | None:
    """What a model reads of rows that go back into the database that they come from; None for rows that do not."""
    if into is None or queries.places.table(into.table)[0] != sql.at:
        return None
    return frozenset(column.name.lower() for column in version.inputs)


def check_added(added: Sequence[str], present: Set[str], query: Query, source: str) -> None:
    """``BindError`` where a column that would be added is there already: whose would be whose?"""
    twice = [name for name in added if name.lower() in present]
    if twice:
        raise BindError(
            f"the query has a column {twice[0]} already, which this statement adds", source=source, span=query.span,
            hint=f"leave out {', '.join(name_sql(name) for name in twice)}, or give it another name in the query",
        )  # fmt: skip


def run_into(sql: Sql, into: Into | None, span: Span, parameters: Parameters, queries: Queries) -> Result:
    """Run a SELECT, as a result or into a table: one statement of the database, so all or nothing."""
    values = parameters.within(span)
    before = None if into is None else queries.places.into_sql(into.table, into.mode)
    if before is None:
        return stream_into(queries.run(sql, values), into, queries, parameters.source)
    return stream_result(queries.run(sql.wrapped(before, ""), values))


def stream_into(stream: Stream, into: Into | None, queries: Queries, text: str, source: str | None = None) -> Result:
    """Rows of ``source`` (None: home) as they come, as a result or into a table: all of them or none.

    ``text`` is the statement's: what is wrong with the table points at its name.
    """
    if into is None:
        return stream_result(stream)
    of_rows: list[Error] = []
    rows = replace(stream, batches=noting(stream.batches, of_rows))
    try:
        return Result(rowcount=queries.places.write(into.table, rows, into.mode, source))
    except Error as error:
        raise of_rows[0] if of_rows else error.located(text, into.table.span) from None


def check_into(into: Into, queries: Queries, source: str) -> None:
    """``BindError`` where the table must be new and is not, or must be there and is not."""
    name = into.table.text
    try:
        queries.places.check_writable(into.table)
    except NotSupportedError as error:
        raise error.located(source, into.table.span) from None
    if queries.places.table(into.table)[0] is not None and queries.places.home.transaction() is not None:
        raise NotSupportedError(
            f"{name} is in another database, whose rows a ROLLBACK here would not take back", source=source, span=into.table.span,
            hint="COMMIT or ROLLBACK first",
        )  # fmt: skip
    if into.mode == "replace":
        return
    try:
        rows = queries.places.table_rows(into.table)
    except EngineError:
        if into.mode == "append":  # who may not read it may still write to it: then the write itself tells what is wrong
            return
        raise
    if into.mode == "create" and rows is not None:
        raise BindError(
            f"table {name} exists already ({rows:,} rows)", source=source, span=into.table.span,
            hint=f"add APPEND or REPLACE after its name: INTO {name} REPLACE",
        )  # fmt: skip
    if into.mode == "append" and rows is None:
        raise BindError(
            f"there is no table {name} to append to", source=source, span=into.table.span, hint=f"INTO {name} makes it"
        )


def check_clauses(node: Predict, source: str) -> None:
    """Refuse what PREDICT MODEL does not know."""
    if node.asynchronous:
        raise not_yet("ASYNC", source, node.model.span)
    if node.options:
        name = node.options[0].name
        raise BindError(f"PREDICT MODEL has no option {name.name}", source=source, span=name.span)
