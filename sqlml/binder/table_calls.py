"""Calls that stand where a table does, ``ML.xyz(MODEL m, …, (query))``: their options, and the SQL that takes their place.

Those that answer row by row become a SELECT over their query, with a function of the version in it.  The others are computed
before the statement runs: a piece of SQL that carries its table with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sqlml_dialect import Span, quote_identifier

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
