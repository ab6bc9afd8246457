"""Errors as PostgreSQL's clients know them: a SQLSTATE, which drivers map to exception types, and a place for the caret.

The codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from typing import Any

from sqlml import errors as ours
from sqlml.errors import Error

TOO_MANY = "53300"
"""The SQLSTATE of too_many_connections."""


class Refused(Error):
    """An error of the wire itself, with its SQLSTATE; ``fatal`` ones end the connection.  ``context``: ``COPY t, line 3``."""

    def __init__(self, message: str, sqlstate: str, *, fatal: bool = False, context: str | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.sqlstate = sqlstate
        self.fatal = fatal
        self.context = context

    def __reduce__(self) -> tuple[Any, ...]:
        return (Refused, (self.message, self.sqlstate))


_MESSAGES: tuple[tuple[str, str], ...] = (
    (r"^Parser Error", "42601"),
    (r"column .*already exists|duplicate column|has duplicate column name", "42701"),
    (r"^Catalog Error: (?:Table|View|Index|Sequence|Type|Macro|Entry).* (?:already exists|with name .* already exists)", "42P07"),
    (r"^Catalog Error: Schema.* already exists", "42P06"),
    (r"^Catalog Error: .*already exists", "42P07"),
    (r"^Catalog Error: Schema with name .* does not exist", "3F000"),
    (
        r"^Catalog Error: (?:Scalar|Aggregate|Table|Copy|Pragma|Macro|Window|Scalar or Aggregate).{0,20}Function with name",
        "42883",
    ),
    (r'^(?:Invalid Input Error: )?function "\S+" does not exist$', "42883"),
    (r"^Catalog Error: Type with name", "42704"),
    (r"^Catalog Error: .*(?:configuration parameter|unrecognized)", "42704"),
    (r"^Catalog Error: (?:Table|View|Sequence|Index|Relation)?.* does not exist", "42P01"),
    (r"^Catalog Error: (?:Can only|.* is not an? )", "42809"),
    (r"Referenced column .* not found|does not have a column named|column .* not found|Referenced update column", "42703"),
    (r"Referenced table .* not found|Catalog .* does not exist|Table .* not found", "42P01"),
    (r"Ambiguous (?:reference|column)", "42702"),
    (r"must appear in the GROUP BY|aggregate|WINDOW functions are not allowed", "42803"),
    (r"No function matches|Could not choose a best candidate function", "42883"),
    (r"^Binder Error: .*(?:wrong number|values were supplied|expected .* values|has \d+ columns but)", "42601"),
    (r"Cannot (?:compare|mix|combine|create|cast)|type mismatch|Cannot apply", "42804"),
    (r"^Binder Error: .*(?:dependent|depend)", "2BP01"),
    (r"^Dependency Error", "2BP01"),
    (r"NOT NULL constraint", "23502"),
    (r"foreign key", "23503"),
    (r"(?:Duplicate key|primary key or unique|unique constraint)", "23505"),
    (r"CHECK constraint", "23514"),
    (r"^Constraint Error", "23000"),
    (r"[Oo]verflow|out of range|[Oo]ut of Range|can't be cast because the value is out of range", "22003"),
    (r"[Dd]ivision by zero", "22012"),
    (r"^Conversion Error: .*(?:date|timestamp|time) field value", "22007"),
    (r"^Conversion Error|Could not convert|^Invalid Input", "22P02"),
    (r"^TransactionContext Error: .*(?:aborted|failed)|transaction is aborted", "25P02"),
    (r"^TransactionContext Error: .*within a transaction", "25001"),
    (r"no transaction is active", "25P01"),
    (r"[Cc]onflict", "40001"),
    (r"^TransactionContext Error", "25000"),
    (r"^Not implemented Error|not implemented|not supported", "0A000"),
    (r"^Permission Error", "42501"),
    (r"[Oo]ut of Memory", "53200"),
    (r"^IO Error: .*No files found|No such file", "58P01"),
    (r"^IO Error", "58030"),
    (r"^INTERNAL Error|^FATAL Error", "XX000"),
    (r"^Binder Error", "42000"),
)
"""DuckDB's messages, which begin with their kind."""

_KNOWN = tuple((re.compile(pattern, re.IGNORECASE), code) for pattern, code in _MESSAGES)

_CLASSES: tuple[tuple[type[BaseException], str], ...] = (
    (ours.Cancelled, "57014"),
    (ours.JobTimeout, "57014"),
    (ours.JobOutOfMemory, "53200"),
    (ours.ParseError, "42601"),
    (ours.UnknownModel, "42704"),
    (ours.UnknownVersion, "42704"),
    (ours.BindError, "42000"),
    (ours.NotSupportedError, "0A000"),
    (ours.IntegrityError, "23000"),
    (ours.TrainingDataError, "22000"),
    (ours.DataError, "22000"),
    (ours.MissingExtra, "58000"),
    (ours.ServingError, "58000"),
    (ours.BundleError, "58030"),
    (ours.ProgrammingError, "42000"),
    (ours.OperationalError, "58000"),
)


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of an error."""
    if isinstance(error, Refused):
        return error.sqlstate
    if isinstance(error, ours.Cancelled):
        return "57014"
    if isinstance(error, Error) and not isinstance(error, ours.ParseError | ours.UnknownModel | ours.UnknownVersion):
        for pattern, code in _KNOWN:
            if pattern.search(error.message):
                return code
    if isinstance(error, MemoryError):
        return "53200"
    return next((code for kind, code in _CLASSES if isinstance(error, kind)), "XX000")


_KIND = re.compile(r"^(?:Parser|Binder|Catalog|Conversion|Constraint|Invalid Input|Out of Range|TransactionContext) Error: ")


def error_fields(error: BaseException, offset: int | None = 0) -> dict[str, str]:
    """The fields of an ErrorResponse, by their letters; ``offset`` is where the statement begins in what the client sent, None
    where its text was changed on the way.
    """
    severity = "FATAL" if isinstance(error, Refused) and error.fatal else "ERROR"
    if not isinstance(error, Error):
        return {"S": severity, "V": severity, "C": sqlstate(error), "M": f"internal error: {type(error).__name__}: {error}"}
    fields = {"S": severity, "V": severity, "C": sqlstate(error), "M": _KIND.sub("", error.message)}
    if error.hint:
        fields["H"] = error.hint
    if isinstance(error, Refused) and error.context:
        fields["W"] = error.context
    if error.span is not None and error.source is not None and offset is not None:
        fields["P"] = str(offset + error.span[0] + 1)
    return fields
