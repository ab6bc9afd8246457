"""SQLAlchemy's trees and types as DuckDB's SQL, where that is not PostgreSQL's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Sequence
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGDDLCompiler, PGIdentifierPreparer, PGTypeCompiler

if TYPE_CHECKING:
    from sqlalchemy.schema import Column, CreateTable, DropTable, Table

KEYWORDS = frozenset(("all", "at", "lambda", "pivot", "unpivot", "qualify", "sample", "show", "describe", "summarize"))
"""What DuckDB reserves beyond PostgreSQL."""


class Identifiers(PGIdentifierPreparer):
    """Names, quoted where they have to be."""

    reserved_words = PGIdentifierPreparer.reserved_words | KEYWORDS


class Statements(PGCompiler):
    """Queries and changes."""

    def visit_empty_set_expr(self, element_types: Any, **kw: Any) -> str:
        """No row, of these columns."""
        return f"SELECT {', '.join('1' for _ in element_types or [None])} WHERE 1 != 1"

    def for_update_clause(self, select: Any, **kw: Any) -> str:
        """Nothing is locked: of two transactions that change one row the second is refused when it does so."""
        return ""

    def visit_ilike_case_insensitive_operand(self, element: Any, **kw: Any) -> str:
        """As it is: ILIKE is DuckDB's, too."""
        return str(element.element._compiler_dispatch(self, **kw))

    def visit_sequence(self, sequence: Any, **kw: Any) -> str:  # type: ignore[override]
        """The next number of a sequence."""
        return f"nextval({self.render_literal_value(self.preparer.format_sequence(sequence), sqltypes.String())})"  # type: ignore[no-untyped-call]


class Types(PGTypeCompiler):
    """Names of types."""

    def visit_BYTEA(self, type_: Any, **kw: Any) -> str:  # noqa: N802 - SQLAlchemy's name
        return "BLOB"

    def visit_large_binary(self, type_: Any, **kw: Any) -> str:
        return "BLOB"

    def visit_BLOB(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        return "BLOB"

    def visit_BINARY(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        return "BLOB"

    def visit_VARBINARY(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        return "BLOB"

    def visit_FLOAT(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        """SQL's FLOAT has 53 bits unless it says less; DuckDB's has 24."""
        return "REAL" if type_.precision is not None and type_.precision <= 24 else "DOUBLE"

    def visit_NUMERIC(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        """DuckDB's without digits would have 18, of them 3 after the point."""
        return "DECIMAL(38, 10)" if type_.precision is None else str(super().visit_NUMERIC(type_, **kw))

    def visit_JSONB(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        return "JSON"

    def visit_TIMESTAMP(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        return "TIMESTAMP WITH TIME ZONE" if type_.timezone else "TIMESTAMP"

    def visit_TIME(self, type_: Any, **kw: Any) -> str:  # noqa: N802
        return "TIME WITH TIME ZONE" if type_.timezone else "TIME"


class Tables(PGDDLCompiler):
    """CREATE and DROP.  A key that counts by itself takes its numbers from a sequence that is made and dropped with the table."""

    def visit_create_table(self, create: CreateTable, **kw: Any) -> str:
        """CREATE TABLE, and before it its sequence."""
        text: str = super().visit_create_table(create, **kw)  # type: ignore[no-untyped-call]
        sequence = self._sequence(create.element)
        return text if sequence is None else f"CREATE SEQUENCE IF NOT EXISTS {sequence};\n{text}"

    def visit_drop_table(self, drop: DropTable, **kw: Any) -> str:
        """DROP TABLE, and after it its sequence."""
        text: str = super().visit_drop_table(drop, **kw)  # type: ignore[no-untyped-call]
        sequence = self._sequence(drop.element)
        return text if sequence is None else f"{text};\nDROP SEQUENCE IF EXISTS {sequence}"

    def get_column_specification(self, column: Column[Any], **kw: Any) -> str:
        """A column of CREATE TABLE."""
        parts = [self.preparer.format_column(column)]
        parts.append(
            self.dialect.type_compiler_instance.process(column.type, type_expression=column, identifier_preparer=self.preparer)
        )
        default = self.get_column_default_string(column)
        if default is not None:
            parts.append(f"DEFAULT {default}")
        elif column.computed is None and self._counts(column):
            literal = self.sql_compiler.render_literal_value(self._sequence(column.table), sqltypes.String())
            parts.append(f"DEFAULT nextval({literal})")
        if column.computed is not None:
            parts.append(self.process(column.computed))
        if not column.nullable:
            parts.append("NOT NULL")
        return " ".join(parts)

    def visit_identity_column(self, identity: Any, **kw: Any) -> str:
        """DuckDB has none: the column counts by its sequence."""
        return ""

    def visit_computed_column(self, generated: Any, **kw: Any) -> str:
        """Computed when it is read: DuckDB stores none."""
        expression = self.sql_compiler.process(generated.sqltext, include_table=False, literal_binds=True)
        return f"GENERATED ALWAYS AS ({expression}) VIRTUAL"

    def _counts(self, column: Column[Any]) -> bool:
        return column.table is not None and column is column.table._autoincrement_column and _is_free(column)

    def _sequence(self, table: Table) -> str | None:
        """The name of the sequence that belongs to a table, as SQL; None without a column that counts."""
        column = table._autoincrement_column
        if column is None or not _is_free(column) or (column.server_default is not None and not column.identity):
            return None
        if any(key.column.table is not table for key in column.foreign_keys):
            return None
        name = self.preparer.quote(f"{table.name}_{column.name}_seq")
        schema = self.preparer.schema_for_object(table)
        return f"{self.preparer.quote_schema(schema)}.{name}" if schema else name


def _is_free(column: Column[Any]) -> bool:
    """Whether nothing else gives a column its values; a sequence that is optional is for databases that count in no other way."""
    return column.default is None or (isinstance(column.default, Sequence) and column.default.optional)
