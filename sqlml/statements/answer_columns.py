"""The columns of a statement's answer, found without carrying it out: for clients that ask before they run it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlml_dialect import ExplainPlan, Node, Statement, quote_identifier
from sqlml_dialect.tokens import Kind, scan

from sqlml.binder.parameters import Parameters
from sqlml.errors import Error
from sqlml.statements.areas import Areas
from sqlml.statements.result import Result, own_columns
from sqlml.types import Column, arrow_type

if TYPE_CHECKING:
    import pyarrow as pa

_TELLS = ("show", "describe", "explain_plan")
"""Kinds that change nothing and cost little: they are run to see what they give."""
SAID = (("result", "string"), ("rows", "int64"))
"""What a statement without an answer is as a table."""
UNKNOWN = (Column("result", "JSON", None),)
"""What is said of an answer whose columns nobody knows before."""


def statement_columns(
    statement: Statement, source: str, areas: Areas, run: Callable[[Node, Parameters], Result]
) -> tuple[Column, ...] | None:
    """Of a statement of ours: () where it answers nothing, None where nobody knows them before it runs."""
    node, count = statement.node, _count_parameters(source, statement)
    handler = None if node is None else areas.get(type(node))
    if node is None or handler is None:
        return None
    parameters = Parameters(source, statement.span, [None] * count)
    try:
        node = parameters.filled(node)
        if statement.kind in _TELLS and not (isinstance(node, ExplainPlan) and node.analyze):
            result = run(node, parameters)
            if result.batches is not None:
                result.batches.close()
            return result.columns or ()
        return handler.columns(node, parameters)
    except Error:
        if count:  # with values it may be well
            return None
        raise


def _count_parameters(source: str, statement: Statement) -> int:
    names = [token.text[1:] for token in scan(source, *statement.span) if token.kind is Kind.PARAM]
    return max((int(name) if name.isdigit() else index for index, name in enumerate(names, 1)), default=0)


def table_columns(columns: tuple[Column, ...] | None) -> tuple[Column, ...] | None:
    """The same for the statement as a table, which always has some."""
    return own_columns(SAID) if columns == () else columns


def empty_table(columns: tuple[Column, ...]) -> pa.Table:
    """A table of such columns without rows."""
    import pyarrow as pa

    types = {"BIGINT": pa.int64(), "INTEGER": pa.int32()}
    fields = [(c.name, types.get(c.sql_type) or (pa.string() if c.kind is None else arrow_type(c.kind))) for c in columns]
    return pa.schema(fields).empty_table()


def empty_table_sql(columns: tuple[Column, ...]) -> str:
    """A table of such columns without rows, in DuckDB's SQL."""
    items = ", ".join(f"CAST(NULL AS {column.sql_type}) AS {quote_identifier(column.name)}" for column in columns)
    return f"(SELECT {items} WHERE false)"
