"""A query over ``sqlml('…')``: the statement in the call is run, then the query over its answer.

text → find_door → the statement in it → its answer as a table → the query with that table in place of the call
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlml_dialect import Span, Statement

from sqlml.binder.parameters import Parameters
from sqlml.binder.remote_tables import is_query
from sqlml.binder.table_calls import only_looks
from sqlml.errors import BindError, Error, NotSupportedError
from sqlml.statements.answer_columns import UNKNOWN, empty_table, empty_table_sql, table_columns
from sqlml.statements.door import Door, door_table, wants_no_rows, without_door
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, stream_result
from sqlml.statements.texts import parse_text
from sqlml.types import Column


@dataclass(frozen=True)
class DoorRuns:
    """What the calls of a session's queries are run with.

    ``run`` runs a statement of a text with values; ``columns`` tells those of a text's answer without carrying it out, None where
    nobody knows them; ``calls_functions``: whether the engine does, and so takes a table without rows as SQL.
    """

    queries: Queries
    run: Callable[[Statement, str, Sequence[Any]], Result]
    columns: Callable[[str], tuple[Column, ...] | None]
    calls_functions: bool

    def run_door(self, door: Door, source: str, span: Span, parameters: Parameters) -> Result:
        """Run the statement in the call, then the query over its answer."""
        if only_looks(source[slice(*span)]):
            raise NotSupportedError(
                "sqlml('…') is run before its query, and this statement runs nothing", source=source, span=door.place,
                hint=f"explain what is in it: EXPLAIN {door.statement.strip()}"[:200],
            )  # fmt: skip
        inner = parse_text(door.statement)
        if len(inner) != 1:
            raise BindError("sqlml('…') takes one statement", source=source, span=door.place)
        if is_query(source, span) and wants_no_rows(source, span, door.place):
            return self._run_empty(door, source, span, parameters)
        try:
            answer = door_table(self.run(inner[0], door.statement, ()), inner[0].kind)
        except Error as error:
            raise error.pointed(source, door.place) from None
        return stream_result(self.queries.run_with(answer, source, span, door.place, parameters.values))

    def describe_door(self, door: Door, source: str, span: Span) -> tuple[Column, ...] | None:
        """The columns of the query, None where nobody knows them before the statement in it has run."""
        columns = self._columns(door, source)
        if columns is None or not self.calls_functions:
            return None
        text = without_door(source, span, door.place, empty_table_sql(columns))
        try:
            return self.queries.describe(self.queries.bind(text, (0, len(text))))
        except Error as error:
            error.source = error.span = None  # they are of a text that nobody wrote
            raise

    def _run_empty(self, door: Door, source: str, span: Span, parameters: Parameters) -> Result:
        """The query over the columns of the statement's answer: as it wants no rows, the statement is not carried out."""
        columns = self._columns(door, source) or UNKNOWN
        if not self.calls_functions:
            table = empty_table(columns)
            return stream_result(self.queries.run_with(table, source, span, door.place, parameters.values))
        text = without_door(source, span, door.place, empty_table_sql(columns))
        return stream_result(self.queries.run_bound(text, (0, len(text)), parameters.values))

    def _columns(self, door: Door, source: str) -> tuple[Column, ...] | None:
        try:
            return table_columns(self.columns(door.statement))
        except Error as error:
            raise error.pointed(source, door.place) from None
