"""Errors as an HTTP answer: a status, and what, where and what to do as JSON."""

from __future__ import annotations

import json
from typing import Any

from sqlml_dialect.errors import line_and_column

from sqlml import errors as ours
from sqlml.errors import Error
from sqlml.guest.errors import error_head, error_of
from sqlml.wire.errors import TOO_MANY, Refused, sqlstate

_STATUSES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], int], ...] = (
    (ours.Cancelled, 504),
    (ours.IntegrityError, 409),
    ((ours.ProgrammingError, ours.DataError, ours.NotSupportedError), 400),
    (Refused, 400),
)
"""What is in none is the server's own trouble: 500."""


class Rejected(Refused):
    """A request that is not carried out, with its HTTP status."""

    def __init__(
        self, message: str, sqlstate: str, status: int, *, headers: tuple[tuple[str, str], ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, sqlstate, hint=hint)
        self.status = status
        self.headers = headers


def status_of(error: BaseException) -> int:
    """The HTTP status of an error."""
    if isinstance(error, Rejected):
        return error.status
    if isinstance(error, Refused) and error.sqlstate == TOO_MANY:
        return 503
    return next((status for kinds, status in _STATUSES if isinstance(error, kinds)), 500)


def error_json(error: BaseException) -> bytes:
    """``{"error": {"sqlstate": …, "message": …, "class": …, "hint": …, "position": {"line": …, "column": …}, "text": …}}``

    ``text`` is the whole as the shell prints it, with the line and a caret.
    """
    return json.dumps({"error": error_fields(error)}, ensure_ascii=False).encode()


def error_fields(error: BaseException) -> dict[str, Any]:
    """The fields of an error; those that it has not are left out."""
    shown = error if isinstance(error, Error) else error_of(error_head(error))
    fields: dict[str, Any] = {"sqlstate": sqlstate(error), "message": shown.message}
    if not isinstance(error, Refused):
        fields["class"] = error_head(shown)["class"]
    if shown.hint:
        fields["hint"] = shown.hint
    if shown.source is not None and shown.span is not None:
        line, column = line_and_column(shown.source, shown.span[0])
        fields["position"] = {"line": line, "column": column}
    return fields | {"text": str(shown)}
