"""What the forms of a request share: errors, and the values of a column.  No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from types import NoneType
from typing import Any, TypeAlias

import msgspec
import pyarrow as pa

from sqlml.errors import did_you_mean, listing
from sqlml.plan import InputColumn
from sqlml.types import Kind, arrow_type

EXPECTED: Mapping[Kind, str] = {
    Kind.NUMBER: "a number",
    Kind.BOOLEAN: "true or false",
    Kind.TEXT: "a text",
    Kind.DATE: "a date such as '2024-05-31'",
    Kind.TIME: "a time such as '13:45:00'",
    Kind.TIMESTAMP: "a timestamp such as '2024-05-31 13:45:00'",
    Kind.TIMESTAMPTZ: "a timestamp such as '2024-05-31 13:45:00+00:00'",
    Kind.NUMBERS: "a list of numbers",
    Kind.TEXTS: "a list of texts",
}
FINITE = "a finite number"
"""What every form wants of a number: JSON has no infinity, and so no other form takes one.  NaN, where there is one, is NULL."""
ITEM: Mapping[Kind, Kind] = {Kind.NUMBERS: Kind.NUMBER, Kind.TEXTS: Kind.TEXT}
"""What the values of a list are."""

_ARROW: Mapping[Kind, pa.DataType] = {kind: arrow_type(kind) for kind in Kind}

Columns: TypeAlias = Mapping[str, pa.Array]
"""A model's inputs, by the names in its manifest; every array has the same length."""

Rows: TypeAlias = Sequence[Sequence[Any]]
"""Rows of a model's inputs, in the manifest's order, as Python values of their kinds: floats, texts, bools, dates, datetimes,
lists.  None is NULL; of a number NaN is, too.  What a row is known by may follow its inputs."""


class BadRequest(Exception):
    """A request that cannot be answered: the HTTP status, one clear line and, where there is one, the field's path.

    ``hint`` says what to do, ``retry_after`` in how many seconds; ``headers`` go with the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        field: str | None = None,
        *,
        hint: str | None = None,
        retry_after: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field
        self.hint = hint
        self.headers = (*headers, *([(b"retry-after", b"%d" % retry_after)] if retry_after is not None else ()))

    def body(self) -> bytes:
        """``{"error": "…"}``, the error form of V2, with ``field`` where the place is known and ``hint`` where there is one."""
        more = {"field": self.field, "hint": self.hint}
        return msgspec.json.encode({"error": self.message} | {name: text for name, text in more.items() if text})


def decode_json(decoder: Callable[[bytes], Any], body: bytes) -> Any:
    """Decode a body; 400 where it is not JSON.  ``msgspec.ValidationError`` (JSON of the wrong shape) passes through."""
    try:
        return decoder(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_json(body, error) from error


def not_json(body: bytes, error: Exception) -> BadRequest:
    """What to say of a body that is not JSON."""
    what = "is empty" if not body.strip() else f"is not JSON: {error}"
    return BadRequest(400, f"the body {what}")


# --- the values of a column -------------------------------------------------------------------------------------------


def describe_value(value: Any) -> str:
    """A JSON value for a person: ``the text 'old'``, ``the number 3``, ``a list``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"the text {value if len(value) <= 40 else value[:39] + '…'!r}"
    if isinstance(value, int | float):
        text = repr(value)
        return f"the number {text if len(text) <= 40 else text[:39] + '…'}"
    return "a list" if isinstance(value, list) else "an object"


def find_name(given: str, names: Mapping[str, str]) -> str | None:
    """The input that a name means: exactly, else whatever the case.  ``names`` maps exact and lower-case spellings to names."""
    return names.get(given) or names.get(given.lower())


def spellings(inputs: Sequence[InputColumn]) -> Mapping[str, str]:
    """What ``find_name`` looks in.  An exact name always wins over another's lower-case form."""
    return {column.name.lower(): column.name for column in inputs} | {column.name: column.name for column in inputs}


def unknown_name(given: str, inputs: Sequence[InputColumn]) -> str:
    """What to say of a name that is no input."""
    names = [column.name for column in inputs]
    return f"the model has no input {given!r}; {did_you_mean(given, names) or 'it has: ' + listing(names)}"


def given_twice(name: str, given: Iterable[str], names: Mapping[str, str]) -> str:
    """What to say where several names of a request mean the same input, or the same key."""
    same = [other for other in given if find_name(other, names) == name]
    return f"{listing(same)} mean the same input: give one of them"


def parse_values(
    column: InputColumn, values: Sequence[Any], path: Callable[[int], str], status: int, note: str = ""
) -> list[Any]:
    """JSON values (None: NULL) of one column as Python's of its kind: floats, texts, dates …

    ``path(i)`` is the i-th one's place in the request, for an error; ``note`` follows it in the text.
    """
    parse = _PARSE[column.kind]
    try:
        return [None if value is None else parse(value) for value in values]
    except (ValueError, TypeError, OverflowError):
        raise _first_wrong(column, values, path, status, note) from None


def _first_wrong(column: InputColumn, values: Sequence[Any], path: Callable[[int], str], status: int, note: str) -> BadRequest:
    for i, value in enumerate(values):
        try:
            None if value is None else _PARSE[column.kind](value)
        except (ValueError, TypeError, OverflowError):
            if column.kind in ITEM and isinstance(value, list):
                item = InputColumn(column.name, column.sql_type, ITEM[column.kind])
                return _first_wrong(item, value, lambda j, row=i: f"{path(row)}[{j}]", status, note)  # type: ignore[misc]
            too_large = column.kind is Kind.NUMBER and type(value) is int
            return wrong_value(status, path(i), FINITE if too_large else EXPECTED[column.kind], value, note)
    raise AssertionError("a column failed as a whole, but none of its values did")


def arrow_of(kind: Kind) -> pa.DataType:
    """The Arrow type of a kind's values."""
    return _ARROW[kind]


def columns_of(inputs: Sequence[InputColumn], rows: Rows) -> Columns:
    """Rows of values as Arrow columns; what a row has beyond its inputs is left out."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(inputs)
    return {
        column.name: pa.array(values, _ARROW[column.kind], from_pandas=True)  # a number that was left out is NaN
        for column, values in zip(inputs, columns, strict=False)
    }


def does_not_fit(error: msgspec.ValidationError) -> BadRequest:
    """422 for JSON of the wrong shape, with the path of the field as far as msgspec knows it."""
    said, _, place = str(error).partition(" - at `$")
    said, path = said.replace("`", ""), place.rstrip("`").lstrip(".")
    if not path or "[...]" in path:  # "[...]" is any name: no help
        return BadRequest(422, f"the body does not fit: {said}")
    return BadRequest(422, f"{path}: {said[:1].lower()}{said[1:]}", path)


def wrong_value(status: int, path: str, expected: str, value: Any, note: str = "") -> BadRequest:
    """What to say of one value that does not fit."""
    return BadRequest(status, f"{path}{note}: expected {expected}, got {describe_value(value)}", path)


def _number(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    raise TypeError


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise TypeError


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise TypeError


def _numbers(value: Any) -> list[float | None]:
    if type(value) is not list:
        raise TypeError
    if set(map(type, value)) <= {float, NoneType}:  # as msgspec decodes them: nothing to do for vectors of thousands
        return value
    return [None if item is None else _number(item) for item in value]


def _texts(value: Any) -> list[str | None]:
    if type(value) is not list or not set(map(type, value)) <= {str, NoneType}:
        raise TypeError
    return value


def _timestamp(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is not None:
        raise ValueError
    return moment


def _timestamptz(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_PARSE: Mapping[Kind, Callable[[Any], Any]] = {
    Kind.NUMBER: _number,
    Kind.BOOLEAN: _boolean,
    Kind.TEXT: _text,
    Kind.DATE: date.fromisoformat,
    Kind.TIME: time.fromisoformat,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMPTZ: _timestamptz,
    Kind.NUMBERS: _numbers,
    Kind.TEXTS: _texts,
}
