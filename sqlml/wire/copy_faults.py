"""What is wrong with what came for COPY FROM STDIN as text or CSV, as PostgreSQL tells it: which line, which column, which value.

The database reads the whole file at once and has words of its own for what it does not like.  Only then is the file read here,
row by row, up to the one that is at fault.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlml.errors import Error
from sqlml.wire.copy_lines import SHOWN, Record, Sent, Unterminated
from sqlml.wire.errors import Refused, sqlstate

if TYPE_CHECKING:
    from sqlml.types import Column

_VALUES = (
    r"""Could not convert string (?P<quote>['"])(?P<value>.*)(?P=quote) to""",
    r'field value out of range: "(?P<value>.*?)"',
    r'invalid \w+ field format: "(?P<value>.*?)"',
    r'"(?P<value>[^"]*)"',
)
_NAMES = {
    "TINYINT": "smallint", "FLOAT": "real", "DOUBLE": "double precision", "VARCHAR": "text", "BLOB": "bytea",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone", "TIME WITH TIME ZONE": "time with time zone", "HUGEINT": "numeric",
}  # fmt: skip
_WHOLE = ("integer", "bigint", "smallint")
_TIMES = ("date", "time", "timestamp")


def explain_fault(error: Error, sent: Sent) -> Error:
    """The database's error about a file as PostgreSQL's, else with its own words and without what only we know."""
    whole = f"{error.message}\n{error.hint or ''}"
    missing = re.match(r'(?:Constraint Error: )?NOT NULL constraint failed: .*?\.?"?([^".]+)"?$', error.message)
    found = _misshapen(sent)
    if found is None and missing is not None:
        found = _null(sent, missing[1])
    if found is None and (missing is None and not _is_constraint(error)):
        found = _unreadable(sent, whole)
    return found or Refused(error.message, sqlstate(error), context=f"COPY {sent.table}")


def check_shape(sent: Sent) -> None:
    """``Refused`` where a row has other columns than the table, or a quote is never closed: what the database would pass over."""
    found = _misshapen(sent)
    if found is not None:
        raise found


def check_header(sent: Sent) -> None:
    """``HEADER MATCH``: the first line has the columns' names, all of them."""
    try:
        first = next(sent.records(), None)
    except Unterminated:  # which ``check_shape`` tells
        return
    if first is None:
        return
    given, wanted = first.values, [column.name for column in sent.columns]
    place = next((at for at, (got, name) in enumerate(zip(given, wanted, strict=False)) if got != name), None)
    if len(given) != len(wanted):
        message = f"wrong number of fields in header line: got {len(given)}, expected {len(wanted)}"
    elif place is not None:
        got = f'null value ("{sent.form.null}")' if given[place] is None else f'"{given[place]}"'
        message = f'column name mismatch in header line field {place + 1}: got {got}, expected "{wanted[place]}"'
    else:
        return
    raise Refused(message, "22P04", context=_line(sent.table, first))


# --- what is wrong ------------------------------------------------------------------------------------------------------


def _misshapen(sent: Sent) -> Refused | None:
    """The first row that has too few or too many values, or whose bytes are no text."""
    try:
        for record in sent.records():
            wrong = _no_text(record.raw)
            if wrong is not None:
                message = f'invalid byte sequence for encoding "UTF8": 0x{wrong:02x}'
                return Refused(message, "22021", context=f"COPY {sent.table}, line {record.number}")
            if sent.is_header(record):  # of any width
                continue
            given = len(record.values)
            if given > len(sent.columns):
                return Refused("extra data after last expected column", "22P04", context=_line(sent.table, record))
            first = record.values[0]
            if given == 1 and first == "" and sent.columns[0].sql_type != "VARCHAR":
                return _bad_value(sent.table, record, sent.columns[0], first)
            if given < len(sent.columns):
                message = f'missing data for column "{sent.columns[given].name}"'
                return Refused(message, "22P04", context=_line(sent.table, record))
    except Unterminated as error:
        return Refused("unterminated CSV quoted field", "22P04", context=_line(sent.table, error.record))
    return None


def _null(sent: Sent, name: str) -> Refused:
    message = f'null value in column "{name}" of relation "{sent.table}" violates not-null constraint'
    place = next((index for index, column in enumerate(sent.columns) if column.name == name), None)
    for record in sent.rows():
        if place is None or record.values[place] is None:
            return Refused(message, "23502", context=_line(sent.table, record))
    return Refused(message, "23502", context=f"COPY {sent.table}")


def _unreadable(sent: Sent, said: str) -> Refused | None:
    """The first value that the database named, in a column whose type it is not of."""
    match = next(filter(None, (re.search(pattern, said) for pattern in _VALUES)), None)
    named = match["value"] if match is not None else None
    line = re.search(r"CSV Error on Line: (\d+)", said)
    for record in sent.rows():
        for value, column in zip(record.values, sent.columns, strict=True):
            if value is not None and value == named and column.sql_type != "VARCHAR":
                return _bad_value(sent.table, record, column, value)
    for record in sent.rows():
        if line is not None and record.number == int(line[1]):
            return Refused("the line cannot be read as CSV", "22P04", context=_line(sent.table, record), hint=_first_hint(said))
    return None


def _first_hint(said: str) -> str | None:
    """What the database says of a line beside its number and its text."""
    lines = [line for line in said.splitlines()[1:] if line and not line.startswith(("Original Line", "Possible"))]
    return lines[0] if lines else None


def _bad_value(table: str, record: Record, column: Column, value: str) -> Refused:
    bare = re.sub(r"\(.*\)", "", column.sql_type)
    kind = _NAMES.get(bare, bare.lower())
    context = f'COPY {table}, line {record.number}, column {column.name}: "{_cut(value)}"'
    is_number = re.fullmatch(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\s*", value) is not None
    if kind in _WHOLE and is_number and "." not in value:
        return Refused(f'value "{value}" is out of range for type {kind}', "22003", context=context)
    if kind == "decimal" and is_number:
        return Refused("numeric field overflow", "22003", context=context)
    if kind in ("real", "double precision") and is_number:
        return Refused(f'"{value}" is out of range for type {kind}', "22003", context=context)
    if kind.startswith(_TIMES):
        if re.match(r"\s*\d+[-/:]\d+", value):
            return Refused(f'date/time field value out of range: "{value}"', "22008", context=context)
        return Refused(f'invalid input syntax for type {kind}: "{value}"', "22007", context=context)
    shown = "numeric" if kind == "decimal" else kind
    return Refused(f'invalid input syntax for type {shown}: "{value}"', "22P02", context=context)


def _is_constraint(error: Error) -> bool:
    return sqlstate(error).startswith("23")


def _line(table: str, record: Record) -> str:
    return f'COPY {table}, line {record.number}: "{_cut(record.raw.decode(errors="replace"))}"'


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _no_text(raw: bytes) -> int | None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return raw[error.start]
    return None
