"""Calls that stand where a table does, ``ML.xyz(MODEL m, …, (query))``: their options, and the SQL that takes their place.

Those that answer row by row become a SELECT over their query, with a function of the version in it.  The others are computed
before the statement runs: a piece of SQL that carries its table with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sqlml_dialect import Span, quote_identifier
from sqlml_dialect.tokens import Kind, Token, scan

from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Piece, Sql
from sqlml.contracts import OptionSpec

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_FEATURES = 5
ROW_FUNCTIONS: Mapping[str, tuple[OptionSpec, ...]] = {
    "ml.predict": (),
    "ml.explain_predict": (OptionSpec("top_k_features", "int", DEFAULT_FEATURES, "how many features to name", low=1),),
    "ml.transform": (),
    "ml.detect_anomalies": (
        OptionSpec("contamination", "float", None, "the share of the training rows that are anomalies", low=0, high=0.5),
    ),
}
"""The functions that answer each row of a query by itself, and their options."""

_PREDICTION = "__sqlml_prediction"


class Computed(Protocol):
    """A table that a call stands for."""

    def empty(self, parameters: Any) -> pa.Table:
        """Its columns, without any row; nothing runs."""

    def compute(self, parameters: Any) -> pa.Table | pa.RecordBatchReader:
        """All of it.  ``parameters`` are the values of the stretch of text that the call stands in."""


@dataclass(frozen=True)
class TablePiece(Piece):
    """A piece of SQL that reads a table which must be there while the statement runs, under a name of ours."""

    name: str = ""
    table: Computed | None = None


def table_piece(name: str, table: Computed, span: Span, alias: str = "") -> TablePiece:
    """The piece that stands for a table which is computed first; ``alias`` is SQL that follows its name."""
    return TablePiece(quote_identifier(name) + alias, span, name=name, table=table)


def row_table(
    source: str, call: str, query: Sql, span: Span, *, drop: Sequence[str] = (), columns: Sequence[str] | None = None
) -> Sql:
    """``(SELECT the query's columns, those of the call FROM (query))``; the call gives a struct.

    ``drop`` are columns of the query that are left out; ``columns`` those of the struct to give, all by default.
    """
    left = ", ".join(quote_identifier(name) for name in (*drop, _PREDICTION))
    own = f"unnest({_PREDICTION})"
    if columns is not None:
        own = ", ".join(f"{_PREDICTION}.{quote_identifier(name)} AS {quote_identifier(name)}" for name in columns)
    head = (
        Piece(f"(SELECT * EXCLUDE ({left}), {own} FROM (SELECT *, "),  # noqa: S608
        Piece(call, span),
        Piece(f" AS {_PREDICTION} FROM ("),
    )
    return Sql(source, (*head, *query.pieces, Piece("\n)))")))


def values_in(text: str, parameters: Any) -> Any:
    """Of a statement's values those that a part of it names, as the database takes them: by name.

    The part's ``?`` are numbered as in the statement (``number_parameters``).
    """
    names = dict.fromkeys(token.text[1:] for token in _marks(text))
    if not names:
        return ()
    if isinstance(parameters, Mapping):
        return {name: parameters[name] for name in names}
    return {name: parameters[int(name) - 1] for name in names}


def _marks(text: str) -> Iterator[Token]:
    return (token for token in scan(text) if token.kind is Kind.PARAM and token.text != "?")


def tables_of(sql: Sql) -> list[TablePiece]:
    """The pieces of a statement whose tables must be there while it runs."""
    return [piece for piece in sql.pieces if isinstance(piece, TablePiece)]


def only_looks(text: str) -> bool:
    """Whether a statement asks about itself and runs nothing: EXPLAIN without ANALYZE, DESCRIBE."""
    words = [token.text.upper() for token, _ in zip(scan(text), range(4), strict=False)]
    if words[:1] == ["EXPLAIN"]:
        return "ANALYZE" not in words[1:3] and "ANALYSE" not in words[1:3]
    return words[:1] in (["DESCRIBE"], ["DESC"])


def check_values(sql: Sql, parameters: Any) -> None:
    """``ProgrammingError`` unless each parameter of a statement has a value, and each value a parameter.

    The database cannot tell, since it gets only those that stand outside our calls.
    """
    Parameters(sql.source, sql.span, parameters).check()
