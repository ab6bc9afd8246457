"""Values of parameters, put into a statement as literals.

COPY, which streams a result as Arrow, takes no parameters; neither do CREATE VIEW and its like; and PostgreSQL compares no date
with a parameter that is a text.  A literal has none of these troubles: a text becomes one whose type the server finds by its
place, as in ``WHERE d = '2020-01-01'``, and every other value says its type.  Each is a quoted E'' string, whatever the value.
"""

from __future__ import annotations

import datetime as dt
import json
import numbers
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlml_dialect.tokens import Kind, Token, scan

from sqlml.errors import DataError, ProgrammingError


@dataclass(frozen=True)
class Bound:
    """A statement with its values in it.  ``edits``: each mark's span in ``source``, and how long its literal is.

    ``before``: how many characters of ours were sent before ``text``; ``ours``: nobody typed it, so no error points into it.
    """

    source: str
    text: str
    edits: tuple[tuple[int, int, int], ...] = ()
    before: int = 0
    ours: bool = False

    def place(self, position: int) -> tuple[int, int] | None:
        """The span of ``source`` that a character of what was sent belongs to."""
        position -= self.before
        shift = 0
        for start, end, length in self.edits:
            if position < start + shift:
                break
            if position < start + shift + length:
                return start, end
            shift += length - (end - start)
        first = position - shift
        if not 0 <= first <= len(self.source):
            return None
        token = next(scan(self.source, first), None)
        return (first, token.end if token is not None and token.start == first else min(first + 1, len(self.source)))


def bind_values(source: str, parameters: Any = ()) -> Bound:
    """A statement with its values: a sequence for ``?`` and ``$1``, a mapping for ``$name`` and ``$1``.

    Without values every ``?`` is PostgreSQL's operator.  ``ProgrammingError`` where marks and values do not match.
    """
    if not parameters:
        return Bound(source, source)
    marks = _marks(source)
    values = [_value(mark, number, parameters) for number, mark in enumerate(marks, 1)]
    _check_all_used(marks, parameters)
    text, edits, position = [], [], 0
    for mark, value in zip(marks, values, strict=True):
        written = literal(value)
        text += [source[position : mark.start], written]
        edits.append((mark.start, mark.end, len(written)))
        position = mark.end
    return Bound(source, "".join([*text, source[position:]]), tuple(edits))


def _marks(source: str) -> list[Token]:
    """The marks of a statement: ``$1`` and ``$name`` if there are any (``?`` is an operator then), else ``?``."""
    found = [token for token in scan(source) if token.kind is Kind.PARAM]
    dollars = [token for token in found if token.text.startswith("$")]
    return dollars or [token for token in found if token.text == "?" and not _is_operator(source, token.end)]


def _is_operator(source: str, end: int) -> bool:
    """Whether a ``?`` begins ``?|`` or ``?&``, and not ``?||``."""
    after = source[end : end + 2]
    return after[:1] == "&" or (after[:1] == "|" and after != "||")


def _value(mark: Token, number: int, parameters: Any) -> Any:
    name = mark.text[1:]
    if isinstance(parameters, Mapping):
        if name in parameters:
            return parameters[name]
        if name.isdigit() and int(name) in parameters:
            return parameters[int(name)]
        raise ProgrammingError(f"the parameter {mark.text} has no value")
    if name and not name.isdigit():
        raise ProgrammingError(f"the parameter {mark.text} is named: give a mapping from names to values")
    place = int(name) if name else number
    if not 1 <= place <= len(parameters):
        raise ProgrammingError(f"the parameter {mark.text} has no value: {len(parameters)} given")
    return parameters[place - 1]


def _check_all_used(marks: Sequence[Token], parameters: Any) -> None:
    if marks and marks[0].text == "?":
        used = {str(number) for number in range(1, len(marks) + 1)}
    else:
        used = {mark.text[1:] for mark in marks}
    given = [str(k) for k in parameters] if isinstance(parameters, Mapping) else [str(i + 1) for i in range(len(parameters))]
    unused = [name for name in given if name not in used]
    if unused:
        raise ProgrammingError(f"values were given for parameters that the statement does not have: ${', $'.join(unused)}")


def literal(value: Any) -> str:
    """A value as SQL.  ``DataError`` where PostgreSQL has nothing of its kind."""
    if value is None:
        return "NULL"
    kind, text = _written(value)
    return f"({quoted(text)}::{kind})" if kind else quoted(text)


def quoted(text: str) -> str:
    """A text as a string literal that means the same whatever the session's settings are."""
    if "\0" in text:
        raise DataError("PostgreSQL keeps no text with a NUL character in it")
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _written(value: Any) -> tuple[str, str]:
    """A value's type, empty where the server is to find it, and how PostgreSQL writes it."""
    value = value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value  # numpy's scalars
    if isinstance(value, str):
        return "", value
    if isinstance(value, bool):
        return "boolean", str(value).lower()
    if isinstance(value, numbers.Integral):
        return _integer_type(int(value)), str(int(value))
    if isinstance(value, Decimal):
        return "numeric", str(value)
    if isinstance(value, numbers.Real):
        return "float8", repr(float(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "bytea", "\\x" + bytes(value).hex()
    if isinstance(value, uuid.UUID):
        return "uuid", str(value)
    if isinstance(value, Mapping):
        return "jsonb", json.dumps(value, default=str)
    if isinstance(value, dt.timedelta):
        return "interval", f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    times = _moment(value)
    return times if times is not None else _array(value)


def _integer_type(value: int) -> str:
    return "integer" if -(2**31) <= value < 2**31 else "bigint" if -(2**63) <= value < 2**63 else "numeric"


def _moment(value: Any) -> tuple[str, str] | None:
    if isinstance(value, dt.datetime):
        return ("timestamptz" if value.tzinfo else "timestamp"), value.isoformat(" ")
    if isinstance(value, dt.date):
        return "date", value.isoformat()
    if isinstance(value, dt.time):
        return ("timetz" if value.tzinfo else "time"), value.isoformat()
    return None


def _array(value: Any) -> tuple[str, str]:
    """A list as PostgreSQL's array: of the widest type among its values."""
    items = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(items, (list, tuple, set, frozenset)):
        raise DataError(f"a value of Python's type {type(value).__name__} has no SQL form in PostgreSQL")
    kinds: set[str] = set()
    text = _braces(items, kinds)
    order = ("integer", "bigint", "numeric", "float8")
    if not kinds or "" in kinds:
        return "", text
    kind = max(kinds, key=order.index) if kinds <= set(order) else next(iter(kinds))
    return f"{kind}[]", text


def _braces(items: Any, kinds: set[str]) -> str:
    written = []
    for item in items:
        if item is None:
            written.append("NULL")
        elif isinstance(item, (list, tuple)):
            written.append(_braces(item, kinds))
        else:
            kind, text = _written(item)
            kinds.add(kind)
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            written.append(f'"{escaped}"')
    return "{" + ",".join(written) + "}"
