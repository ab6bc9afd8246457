"""What is wrong with what came for COPY FROM STDIN as text or CSV, as PostgreSQL tells it: which line, which column, which value.

The database reads the whole file at once and has words of its own for what it does not like.  Only then is the file read here,
row by row, up to the one that is at fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, NamedTuple

from sqlml_dialect.tokens import name_value, scan

from sqlml.errors import Error
from sqlml.wire.errors import Refused, sqlstate

if TYPE_CHECKING:
    from sqlml.types import Column
    from sqlml.wire.copying import Format

_SHOWN = 100
"""So many characters of a line or a value are told."""
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


class Record(NamedTuple):
    """A line, or several where a quoted value goes on: as it came, and its values (None: NULL)."""

    number: int
    raw: bytes
    values: list[str | None]


def explain_fault(error: Error, file: IO[bytes], target: str, columns: Sequence[Column], form: Format) -> Error:
    """The database's error about a file as PostgreSQL's, else with its own words and without what only we know."""
    table = table_name(target)
    whole = f"{error.message}\n{error.hint or ''}"
    missing = re.match(r'(?:Constraint Error: )?NOT NULL constraint failed: .*?\.?"?([^".]+)"?$', error.message)
    found = _misshapen(file, table, columns, form)
    if found is None and missing is not None:
        found = _null(file, table, columns, form, missing[1])
    if found is None and (missing is None and not _is_constraint(error)):
        found = _unreadable(file, table, columns, form, whole)
    return found or Refused(error.message, sqlstate(error), context=f"COPY {table}")


def check_shape(file: IO[bytes], target: str, columns: Sequence[Column], form: Format) -> None:
    """``Refused`` where a row has other columns than the table, or a quote is never closed: what the database would pass over."""
    found = _misshapen(file, table_name(target), columns, form)
    if found is not None:
        raise found


def check_header(file: IO[bytes], target: str, columns: Sequence[Column], form: Format) -> None:
    """``HEADER MATCH``: the first line has the columns' names."""
    first = next(_records(file, form), None)
    if first is None:
        return
    for place, (given, column) in enumerate(zip(first.values, columns, strict=False), 1):
        if given != column.name:
            message = f'column name mismatch in header line field {place}: got "{given}", expected "{column.name}"'
            raise Refused(message, "22P04", context=_line(table_name(target), first))


def table_name(target: str) -> str:
    """The name alone of ``schema.t (a, b)``."""
    names = [token for token in scan(target.partition("(")[0]) if token.text != "."]
    return name_value(names[-1]) if names else target


# --- what is wrong ------------------------------------------------------------------------------------------------------


def _misshapen(file: IO[bytes], table: str, columns: Sequence[Column], form: Format) -> Refused | None:
    """The first row that has too few or too many values, or whose bytes are no text."""
    try:
        for record in _records(file, form):
            wrong = _no_text(record.raw)
            if wrong is not None:
                message = f'invalid byte sequence for encoding "UTF8": 0x{wrong:02x}'
                return Refused(message, "22021", context=f"COPY {table}, line {record.number}")
            given = len(record.values)
            if given > len(columns):
                return Refused("extra data after last expected column", "22P04", context=_line(table, record))
            first = record.values[0]
            if given == 1 and first == "" and columns[0].sql_type != "VARCHAR":
                return _bad_value(table, record, columns[0], first)
            if given < len(columns):
                return Refused(f'missing data for column "{columns[given].name}"', "22P04", context=_line(table, record))
    except _Unterminated as error:
        return Refused("unterminated CSV quoted field", "22P04", context=_line(table, error.record))
    return None


def _null(file: IO[bytes], table: str, columns: Sequence[Column], form: Format, name: str) -> Refused:
    message = f'null value in column "{name}" of relation "{table}" violates not-null constraint'
    place = next((index for index, column in enumerate(columns) if column.name == name), None)
    for record in _rows(file, form):
        if place is None or record.values[place] is None:
            return Refused(message, "23502", context=_line(table, record))
    return Refused(message, "23502", context=f"COPY {table}")


def _unreadable(file: IO[bytes], table: str, columns: Sequence[Column], form: Format, said: str) -> Refused | None:
    """The first value that the database named, in a column whose type it is not of."""
    match = next(filter(None, (re.search(pattern, said) for pattern in _VALUES)), None)
    named = match["value"] if match is not None else None
    line = re.search(r"CSV Error on Line: (\d+)", said)
    for record in _rows(file, form):
        for value, column in zip(record.values, columns, strict=True):
            if value is not None and value == named and column.sql_type != "VARCHAR":
                return _bad_value(table, record, column, value)
    for record in _rows(file, form):
        if line is not None and record.number == int(line[1]):
            return Refused("the line cannot be read as CSV", "22P04", context=_line(table, record), hint=_first_hint(said))
    return None


def _first_hint(said: str) -> str | None:
    """What the database says of a line beside its number and its text."""
    lines = [line for line in said.splitlines()[1:] if line and not line.startswith(("Original Line", "Possible"))]
    return lines[0] if lines else None


def _bad_value(table: str, record: Record, column: Column, value: str) -> Refused:
    bare = re.sub(r"\(.*\)", "", column.sql_type)
    kind = _NAMES.get(bare, bare.lower())
    context = f'COPY {table}, line {record.number}, column {column.name}: "{_cut(value)}"'
    is_number = re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", value) is not None
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
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _no_text(raw: bytes) -> int | None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return raw[error.start]
    return None


# --- the rows -----------------------------------------------------------------------------------------------------------


class _Unterminated(Exception):
    """A quote that is open at the end of the file."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record


def _rows(file: IO[bytes], form: Format) -> Iterator[Record]:
    """The records but for the header."""
    for record in _records(file, form):
        if not (form.header and record.number == 1):
            yield record


def _records(file: IO[bytes], form: Format) -> Iterator[Record]:
    file.seek(0)
    lines = _quoted_lines(file, form) if form.name == "csv" else enumerate(file, 1)
    split = _split_csv if form.name == "csv" else _split_text
    for number, line in lines:
        raw = line.removesuffix(b"\n").removesuffix(b"\r")
        yield Record(number, raw, split(raw.decode(errors="replace"), form))


def _quoted_lines(file: IO[bytes], form: Format) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers, several as one where a quote is open at the end of the first.

    They are counted as PostgreSQL counts them: lines in quotes too, but for those of the very first row, before which it knows no
    line's end.  ``_Unterminated`` where a quote is never closed.
    """
    kept, number = b"", 0
    for line in file:
        kept += line
        is_open = form.quote.encode() in kept and _is_open(kept.decode(errors="replace"), form)
        if is_open:
            continue
        number += kept.count(b"\n") if number and kept.endswith(b"\n") else 1
        yield number, kept
        kept = b""
    if kept:
        raise _Unterminated(Record(number + 1 + (kept.count(b"\n") if number else 0), kept, []))


def _is_open(text: str, form: Format) -> bool:
    if form.escape != form.quote:
        text = text.replace(form.escape + form.escape, "").replace(form.escape + form.quote, "")
    return text.count(form.quote) % 2 == 1


def _split_text(line: str, form: Format) -> list[str | None]:
    if "\\" not in line:
        fields = line.split(form.delimiter)
    else:
        fields, field, escaped = [], "", False
        for letter in line:
            if letter == form.delimiter and not escaped:
                fields.append(field)
                field = ""
            else:
                field += letter
            escaped = letter == "\\" and not escaped
        fields.append(field)
    return [None if field == form.null else _unescaped(field) for field in fields]


_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unescaped(field: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), field) if "\\" in field else field


def _split_csv(line: str, form: Format) -> list[str | None]:
    if form.quote not in line:
        return [None if field == form.null else field for field in line.split(form.delimiter)]
    fields: list[str | None] = []
    field, quoted, inside, at = "", False, False, 0
    while at < len(line):
        letter, after = line[at], line[at + 1 : at + 2]
        if inside and letter == form.escape and after and after in (form.quote, form.escape):
            field, at = field + after, at + 1
        elif letter == form.quote:
            inside, quoted = not inside, True
        elif letter == form.delimiter and not inside:
            fields.append(None if field == form.null and not quoted else field)
            field, quoted = "", False
        else:
            field += letter
        at += 1
    return [*fields, None if field == form.null and not quoted else field]
