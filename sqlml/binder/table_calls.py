"""Calls that stand where a table does, ``ML.xyz(MODEL m, …, (query))``: their options, and the SQL that takes their place.

Those that answer row by row become a SELECT over their query, with a function of the version in it.  The others are computed
before the statement runs: a piece of SQL that carries its table with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sqlml_dialect import ModelCall, Option, Placeholder, Span, Struct, quote_identifier
from sqlml_dialect.nodes import Value

from sqlml.algorithms.options import check_value
from sqlml.binder.text import Piece, Sql
from sqlml.contracts import OptionSpec
from sqlml.errors import BindError, Error, did_you_mean, listing
from sqlml.types import label_text

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

    def compute(self, parameters: Any) -> pa.Table:
        """All of it.  ``parameters`` are the values of the stretch of text that the call stands in."""


@dataclass(frozen=True)
class TablePiece(Piece):
    """A piece of SQL that reads a table which must be there while the statement runs, under a name of ours."""

    name: str = ""
    table: Computed | None = None


def table_piece(name: str, table: Computed, span: Span) -> TablePiece:
    """The piece that stands for a call whose table is computed first."""
    return TablePiece(f"(SELECT * FROM {quote_identifier(name)})", span, name=name, table=table)  # noqa: S608


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


def check_call_options(
    call: ModelCall, specs: Sequence[OptionSpec], source: str, resolve: Callable[[Value], Any] | None = None
) -> dict[str, Any]:
    """A call's options, checked, with defaults for those not given.  ``BindError`` points at the one that is wrong.

    ``resolve`` gives the values of prepared parameters; without it there can be none.
    """
    shown, known = call.function.upper(), {spec.name: spec for spec in specs}
    found = {spec.name: spec.default for spec in specs}
    for option in call.options:
        name = option.name.name.lower()
        if name not in known:
            has = f"it has: {listing(known)}" if known else "it has none"
            raise BindError(
                f"{shown} has no option {option.name.name}", source=source, span=option.name.span,
                hint=did_you_mean(name, known) or has,
            )  # fmt: skip
        found[name] = _option_value(option, known[name], shown, source, resolve)
    return found


def _option_value(option: Option, spec: OptionSpec, shown: str, source: str, resolve: Callable[[Value], Any] | None) -> Any:
    value = resolve(option.value) if resolve else _literal(option.value, source, shown)
    if spec.name == "class" and value is not None:
        value = label_text(value)
    try:
        return check_value(spec, value, shown)
    except Error as error:
        raise error.located(source, option.value_span) from None


def _literal(value: Value, source: str, shown: str) -> Any:
    """The value of a literal; ``BindError`` for a prepared parameter where the SQL itself depends on it."""
    if isinstance(value, Placeholder):
        raise BindError(
            f"an option of {shown} is a literal, no parameter", source=source, span=value.span, hint="write the value"
        )
    if isinstance(value, Struct):
        return {name: _literal(item, source, shown) for name, item in value.items}
    if isinstance(value, tuple):
        return tuple(_literal(item, source, shown) for item in value)
    return value
