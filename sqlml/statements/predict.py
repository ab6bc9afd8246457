"""PREDICT MODEL: the rows of a query with the model's predictions beside them, as a result or into a table."""

from __future__ import annotations

from collections.abc import Sequence, Set

from sqlml_dialect import Into, Predict, QualifiedName, Query, Span, name_sql, quote_identifier

from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Sql
from sqlml.catalog import Catalog, Version
from sqlml.contracts import Stream
from sqlml.errors import BindError, NotSupportedError, not_yet
from sqlml.statements.missing import missing_columns_error
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, stream_result
from sqlml.statements.scored import fast_model, scored


def run_predict(node: Predict, parameters: Parameters, queries: Queries, catalog: Catalog) -> Result:
    """Score a query's rows: inside the database where it calls models itself, else batch by batch on this side."""
    check_clauses(node, parameters.source)
    if node.into is not None:
        check_into(node.into, queries, parameters.source)
    version, inner = bind_predict(node, parameters, queries, catalog)
    if queries.scores_inside(inner):
        sql = queries.predict_table(parameters.source, node.model, version, node.query).wrapped("SELECT * FROM ", "")
        return run_into(sql, node.into, node.query.span, parameters, queries)
    stream = queries.run(inner, parameters.within(node.query.span))
    return stream_into(scored(stream, fast_model(version), version.inputs), node.into, queries, inner.at)


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
    if into is None or not queries.is_home(into.table):
        return stream_into(queries.run(sql, values), into, queries)
    table = table_sql(into.table)
    before = {
        "create": f"CREATE TABLE {table} AS ",
        "replace": f"CREATE OR REPLACE TABLE {table} AS ",
        "append": f"INSERT INTO {table} BY NAME ",
    }[into.mode]
    stream = queries.run(sql.wrapped(before, ""), values)
    return stream_result(stream)


def stream_into(stream: Stream, into: Into | None, queries: Queries, source: str | None = None) -> Result:
    """Rows of ``source`` (None: home) as they come, as a result or into a table: all of them or none."""
    if into is None:
        return stream_result(stream)
    return Result(rowcount=queries.write(into.table, stream, into.mode, source))


def check_into(into: Into, queries: Queries, source: str) -> None:
    """``BindError`` where the table must be new and is not, or must be there and is not."""
    name = into.table.text
    if queries.place_of(into.table)[0] is not None and queries.in_transaction():
        raise NotSupportedError(
            f"{name} is in another database, whose rows a ROLLBACK here would not take back", source=source, span=into.table.span,
            hint="COMMIT or ROLLBACK first",
        )  # fmt: skip
    rows = queries.table_rows(into.table)
    if into.mode == "create" and rows is not None:
        raise BindError(
            f"table {name} exists already ({rows:,} rows)", source=source, span=into.table.span,
            hint=f"add APPEND or REPLACE after its name: INTO {name} REPLACE",
        )  # fmt: skip
    if into.mode == "append" and rows is None:
        raise BindError(
            f"there is no table {name} to append to", source=source, span=into.table.span, hint=f"INTO {name} makes it"
        )


def table_sql(table: QualifiedName) -> str:
    return ".".join(quote_identifier(part.name) for part in table.parts)


def check_clauses(node: Predict, source: str) -> None:
    """Refuse what PREDICT MODEL does not know."""
    if node.asynchronous:
        raise not_yet("ASYNC", source, node.model.span)
    if node.options:
        name = node.options[0].name
        raise BindError(f"PREDICT MODEL has no option {name.name}", source=source, span=name.span)
