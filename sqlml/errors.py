"""Every error that a user can meet, in one tree.

    Error                                (PEP 249)
    ├── InterfaceError                   the connection or cursor was used wrongly (closed, nothing to fetch)
    └── DatabaseError
        ├── ProgrammingError             the statement is wrong
        │   ├── ParseError               … in its form
        │   ├── BindError                … in a name, an option or a type
        │   │   └── UnknownModel, UnknownVersion
        │   └── EngineError              … says the database, in its own words
        ├── DataError
        │   └── TrainingDataError        the data cannot be learnt from
        ├── OperationalError             something outside the statement
        │   ├── Cancelled                a person stopped it
        │   ├── ConnectionLost           the server through which the connection went has ended
        │   ├── JobError                 a job failed
        │   │   └── JobCancelled, JobTimeout, JobOutOfMemory, JobCrashed
        │   ├── BundleError              a model's files are missing or damaged
        │   ├── MissingExtra             a package that this needs is not installed
        │   └── ServingError             the endpoint server could not do its part
        ├── IntegrityError, InternalError
        └── NotSupportedError            asked for rightly, not to be had

An error says what, where, got what, and what to do.  ``str(error)`` is the whole message, with the line and a caret where the
place is known; the fields ``message``, ``source``, ``span`` and ``hint`` carry the same in pieces.  ``about`` is the clause or
option of the statement that it is about (``tune``, ``weight``, ``device``), for whoever knows where that stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlml_dialect.errors import DialectError, point_at
from sqlml_dialect.similar import nearest


class Warning(Exception):
    """An important warning (PEP 249)."""


class Error(Exception):
    """The root of all errors of this module (PEP 249)."""

    def __init__(
        self,
        message: str,
        *,
        source: str | None = None,
        span: tuple[int, int] | None = None,
        hint: str | None = None,
        about: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.source = source
        self.span = span
        self.hint = hint
        self.about = about

    def __str__(self) -> str:
        lines = [self.message]
        if self.source is not None and self.span is not None:
            lines.append(point_at(self.source, self.span))
        if self.hint:
            lines.append("\n".join("  " + line for line in self.hint.splitlines()))
        return "\n".join(lines)

    def located(self, source: str, span: tuple[int, int]) -> Error:
        """The same error, pointing at a place unless it has one already."""
        if self.span is None and span != (0, 0):
            self.source, self.span = source, span
        return self

    def pointed(self, source: str, span: tuple[int, int]) -> Error:
        """The same error, pointing at a place whatever its own, which is in a text that nobody typed."""
        self.source, self.span = source, span
        return self

    def moved(self, source: str, offset: int) -> Error:
        """The same error, its place counted in a longer text in which its own begins at ``offset``."""
        if self.span is not None:
            self.source, self.span = source, (self.span[0] + offset, self.span[1] + offset)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.source, self.span, self.hint, self.about))


def _rebuild(
    cls: type[Error], message: str, source: str | None, span: tuple[int, int] | None, hint: str | None, about: str | None
) -> Error:
    return cls(message, source=source, span=span, hint=hint, about=about)


class InterfaceError(Error):
    """The connection or cursor was used wrongly."""


class DatabaseError(Error):
    """An error of the database or of the engine behind it."""


class DataError(DatabaseError):
    """The data cannot be processed as asked."""


class OperationalError(DatabaseError):
    """Something outside the statement failed: a file, a process, a server."""


class IntegrityError(DatabaseError):
    """A constraint of the database was broken."""


class InternalError(DatabaseError):
    """A fault of sqlml itself."""


class ProgrammingError(DatabaseError):
    """The statement is wrong."""


class NotSupportedError(DatabaseError):
    """Asked for rightly, but not to be had."""


class ParseError(ProgrammingError):
    """The statement's form is wrong; nothing has run."""


class BindError(ProgrammingError):
    """A name, an option or a type in the statement is wrong; nothing has run."""


class UnknownModel(BindError):
    """There is no model of that name."""


class UnknownVersion(BindError):
    """The model has no such version or alias."""


class EngineError(ProgrammingError):
    """The database refused the statement; the message is its own."""


class TrainingDataError(DataError):
    """The data cannot be learnt from."""


class Cancelled(OperationalError):
    """A person stopped it."""


class ConnectionLost(OperationalError):
    """The server through which the connection went has ended; nothing more comes of it."""


class JobError(OperationalError):
    """A job failed."""


class JobCancelled(Cancelled, JobError):
    """The job was cancelled."""


class JobTimeout(JobError):
    """The job passed its time limit."""


class JobOutOfMemory(JobError):
    """The job passed its memory limit, or the system had no memory left for it."""


class JobCrashed(JobError):
    """The job's process died."""


class BundleError(OperationalError):
    """A model's files are missing or damaged."""


class MissingExtra(OperationalError):
    """A package that this needs is not installed; the hint has the command."""


class ServingError(OperationalError):
    """The endpoint server could not do its part."""


def parse_error(error: DialectError) -> ParseError:
    """The parser's own error as one of ours."""
    parts = [f"expected {error.expected}"] if error.expected and error.expected not in error.message else []
    parts += [error.hint] if error.hint else []
    return ParseError(error.message, source=error.text, span=error.span, hint="\n".join(parts) or None)


def not_yet(what: str, source: str, span: tuple[int, int]) -> NotSupportedError:
    """What the language has and this version has not."""
    return NotSupportedError(f"{what}: understood, but this version cannot carry it out yet", source=source, span=span)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """``did you mean xgboost_classifier?``, or None where nothing is near."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near else None


def count_of(count: int, one: str, many: str | None = None) -> str:
    """``1 row``, ``2,048 rows``; ``many`` where the plural is not ``one`` with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listing(names: Iterable[str], most: int = 8) -> str:
    """``age, job, … (12 more)``"""
    items = list(names)
    if len(items) <= most:
        return ", ".join(items)
    return ", ".join(items[:most]) + f", … ({len(items) - most} more)"
