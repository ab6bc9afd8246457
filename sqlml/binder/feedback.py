"""INSERT INTO sqlml.feedback: found in the database's own SQL, its columns checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlml_dialect import Span
from sqlml_dialect.cursor import NAMES
from sqlml_dialect.tokens import Token, name_value, scan

from sqlml.errors import BindError, did_you_mean, listing
from sqlml.prediction_log import FEEDBACK

NAME = "feedback"
GIVEN = tuple(name for name, _ in FEEDBACK if name not in ("owner", "given_at"))
"""The columns that a statement may give; the others are set by itself."""
_EXAMPLE = "INSERT INTO {}.feedback (endpoint, request_id, truth) VALUES ('churn', '…', 'yes')"


@dataclass(frozen=True)
class FeedbackInsert:
    """A statement that adds feedback: its columns, and where its query stands."""

    columns: tuple[str, ...]
    query: Span
    span: Span


def find_feedback(source: str, span: Span, schema: str) -> FeedbackInsert | None:
    """The statement, where it is one; None for everything else.  ``BindError`` for columns that feedback does not have."""
    if NAME not in source[slice(*span)].lower():
        return None
    tokens = list(scan(source, *span))
    at = _behind_name(tokens, schema)
    if at is None:
        return None
    named = (tokens[0].start, tokens[at - 1].end)
    if at >= len(tokens) or tokens[at].key != "(" or tokens[min(at + 1, len(tokens) - 1)].kind not in NAMES:
        raise BindError(f"name the columns of {NAME}", source=source, span=named, hint=f"as in {_EXAMPLE.format(schema)}")
    end = next((index for index in range(at, len(tokens)) if tokens[index].key == ")"), len(tokens))
    if end + 1 >= len(tokens):
        raise BindError("VALUES or a query is missing", source=source, span=named, hint=f"as in {_EXAMPLE.format(schema)}")
    written = [token for token in tokens[at + 1 : end] if token.kind in NAMES]
    columns = tuple(name_value(token).lower() for token in written)
    _check_columns(written, columns, source, named, schema)
    return FeedbackInsert(columns, (tokens[end + 1].start, span[1]), span)


def _behind_name(tokens: Sequence[Token], schema: str) -> int | None:
    """The index behind ``INSERT INTO sqlml.feedback`` or ``INSERT INTO sqlml.main.feedback``; None for another table."""
    if [token.key for token in tokens[:2]] != ["INSERT", "INTO"]:
        return None
    for parts in ((schema, ".", NAME), (schema, ".", "main", ".", NAME)):
        found = tokens[2 : 2 + len(parts)]
        if [name_value(token).lower() if token.kind in NAMES else token.text for token in found] == [p.lower() for p in parts]:
            return 2 + len(parts)
    return None


def _check_columns(written: Sequence[Token], columns: Sequence[str], source: str, span: Span, schema: str) -> None:
    for token, column in zip(written, columns, strict=True):
        if column not in GIVEN or columns.count(column) > 1:
            own = column in {name for name, _ in FEEDBACK}
            what = f"{column} is given twice" if column in GIVEN else f"{column} is set by itself" if own else None
            hint = did_you_mean(column, GIVEN) or f"it takes: {', '.join(GIVEN)}"
            raise BindError(what or f"{NAME} has no column {column}", source=source, span=(token.start, token.end), hint=hint)
    missing = [name for name in ("endpoint", "truth") if name not in columns]
    if "request_id" not in columns and "key" not in columns:
        missing.append("request_id or key")
    if missing:
        hint = f"as in {_EXAMPLE.format(schema)}"
        raise BindError(f"{NAME} needs the columns {listing(missing)}", source=source, span=span, hint=hint)
