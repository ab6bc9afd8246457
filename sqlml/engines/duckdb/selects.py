"""Queries as DuckDB reads them: a text that comes again is parsed once."""

from __future__ import annotations

import duckdb

from sqlml.kept_texts import KeptTexts

_CHANGE_PARSING = {getattr(duckdb.StatementType, name) for name in ("SET", "VARIABLE_SET", "PRAGMA", "LOAD", "MULTI")}


class Selects:
    """Those of one connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.kept: KeptTexts[duckdb.Statement] = KeptTexts()

    def of(self, text: str) -> duckdb.Statement | None:
        """A text as DuckDB reads it, where it is one query; kept as long as no statement runs that may change how it is read."""
        found = self.kept.get(text)
        if found is None:
            statements = self._connection.extract_statements(text)
            kinds = {statement.type for statement in statements}
            if len(statements) != 1 or kinds != {duckdb.StatementType.SELECT}:
                if kinds & _CHANGE_PARSING:
                    self.kept.forget()
                return None
            [found] = statements
            self.kept.put(text, text, found)
        return found
