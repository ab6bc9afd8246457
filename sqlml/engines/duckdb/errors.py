"""DuckDB's errors as ours: its own message, and the place in the text where it tells one."""

from __future__ import annotations

import re
import unicodedata

import duckdb

from sqlml.contracts import UNFIT, UnfitArgument
from sqlml.errors import (
    Cancelled,
    DatabaseError,
    DataError,
    EngineError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
)

_EXCERPT = re.compile(r"\n+LINE (\d+): (.*)\n( *)(\^+)", re.DOTALL)

_CLASSES: tuple[tuple[type[Exception], type[DatabaseError]], ...] = (
    (duckdb.InterruptException, OperationalError),
    (duckdb.IntegrityError, IntegrityError),
    (duckdb.DataError, DataError),
    (duckdb.NotSupportedError, NotSupportedError),
    (duckdb.IOException, OperationalError),
    (duckdb.OutOfMemoryException, OperationalError),
    (duckdb.TransactionException, OperationalError),
    (duckdb.ProgrammingError, EngineError),
    (duckdb.OperationalError, OperationalError),
)


def engine_error(error: BaseException, text: str) -> DatabaseError:
    """DuckDB's error as one of ours: its own message, and its place in ``text`` where it gives one."""
    whole = str(error)
    message = whole
    span = None
    match = _EXCERPT.search(whole)
    if match:
        message = (whole[: match.start()] + whole[match.end() :]).strip()
        span = _place(text, int(match[1]), match[2], len(match[3]), len(match[4]))
    cls = next((ours for theirs, ours in _CLASSES if isinstance(error, theirs)), EngineError)
    if "Interrupted!" in whole:
        return Cancelled("cancelled")
    if isinstance(error, duckdb.BinderException) and message.removeprefix("Binder Error: ") == UNFIT:
        cls = UnfitArgument
    first, *more = [line.strip() for line in message.splitlines() if line.strip()] or ["the database gave no reason"]
    return cls(first, source=text if span else None, span=span, hint="\n".join(more) or None)


def _place(text: str, line: int, excerpt: str, caret: int, width: int) -> tuple[int, int] | None:
    """Where in ``text`` the caret under DuckDB's excerpt points; long lines are shown cut, with dots at the ends."""
    lines = text.split("\n")
    if line > len(lines):
        return None
    cells = caret - len(f"LINE {line}: ")
    column, end = _characters(excerpt, cells), _characters(excerpt, cells + width)
    start = sum(len(part) + 1 for part in lines[: line - 1])
    if excerpt.startswith("..."):
        body = excerpt.removeprefix("...").removesuffix("...")
        found = lines[line - 1].find(body)
        if found < 0:
            return None
        column, end = column + found - 3, end + found - 3
    return (start + column, start + end)


def _characters(text: str, cells: int) -> int:
    """How many characters take so many cells of a terminal: DuckDB places its caret for the eye."""
    for index, character in enumerate(text):
        if cells <= 0:
            return index
        cells -= 0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return len(text)


def open_error(database: str, error: duckdb.Error) -> OperationalError:
    text = str(error)
    if "Could not set lock" in text:
        holder = re.search(r"held in (.+?) \(PID (\d+)\)", text)
        who = f" by process {holder[2]} ({holder[1]})" if holder else ""
        return OperationalError(
            f"the database {database} is open elsewhere{who}",
            hint="one process at a time can have a DuckDB file open: close it there first\n"
            f"or let everybody in through a server there: sqlml serve {database}",
        )
    if "not a valid DuckDB database" in text:
        hint = "give a new name, or read the file with SELECT * FROM '…'"
        return OperationalError(f"{database} is not a DuckDB database", hint=hint)
    reason = text.split("\n")[0].removeprefix("IO Error: ")
    return OperationalError(f"cannot open the database {database}: {reason}", hint="its folder must exist and be writable")
