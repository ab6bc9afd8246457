"""Parameters as JSON and back: each Python type that a statement takes stays what it is."""

from __future__ import annotations

import base64
import datetime
import decimal
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from sqlml.errors import NotSupportedError

_TYPES: tuple[tuple[type, str, Callable[[Any], str], Callable[[str], Any]], ...] = (
    (decimal.Decimal, "decimal", str, decimal.Decimal),
    (uuid.UUID, "uuid", str, uuid.UUID),
    (datetime.datetime, "datetime", datetime.datetime.isoformat, datetime.datetime.fromisoformat),  # before date: it is one
    (datetime.date, "date", datetime.date.isoformat, datetime.date.fromisoformat),
    (datetime.time, "time", datetime.time.isoformat, datetime.time.fromisoformat),
    (datetime.timedelta, "timedelta", lambda v: f"{v.days} {v.seconds} {v.microseconds}", lambda t: _timedelta(t)),
    (bytes, "bytes", lambda v: base64.b64encode(v).decode(), base64.b64decode),
    (bytearray, "bytes", lambda v: base64.b64encode(v).decode(), base64.b64decode),
)
"""Type, tag, to text, from text."""

_READERS = {tag: read for _, tag, _, read in _TYPES}


def _timedelta(text: str) -> datetime.timedelta:
    days, seconds, micros = (int(part) for part in text.split())
    return datetime.timedelta(days, seconds, micros)


def value_json(value: Any) -> Any:
    """A value as JSON; what JSON has not is an object of one tag.  ``NotSupportedError`` for what a server cannot be sent."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {"dict": [[value_json(key), value_json(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [value_json(item) for item in value]
    for kind, tag, write, _ in _TYPES:
        if isinstance(value, kind):
            return {tag: write(value)}
    if isinstance(value, bool | int | float | str):  # of a class of its own: an enum's, say
        return next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))
    plain = value.item() if hasattr(value, "item") and hasattr(value, "dtype") else value  # NumPy's scalars
    if plain is not value:
        return value_json(plain)
    raise NotSupportedError(
        f"a value of type {type(value).__name__} cannot be sent to the server that has the database open",
        hint="give a number, a text, bytes, a date or time, or a list or dict of those",
    )


def value_of(found: Any) -> Any:
    """The value of ``value_json``."""
    if isinstance(found, list):
        return [value_of(item) for item in found]
    if isinstance(found, dict):
        [(tag, inner)] = found.items()
        if tag == "dict":
            return {value_of(key): value_of(item) for key, item in inner}
        return _READERS[tag](inner)
    return found


def values_json(values: Any) -> Any:
    """A statement's values, by place or by name."""
    if isinstance(values, Mapping):
        return {"named": {name: value_json(value) for name, value in values.items()}}
    return [value_json(value) for value in values]


def values_of(found: Any) -> Any:
    """The values of ``values_json``."""
    if isinstance(found, dict):
        return {name: value_of(value) for name, value in found["named"].items()}
    return [value_of(value) for value in found]
