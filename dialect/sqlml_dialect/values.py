"""Typed literals: what an option, a range of TUNE or a share of traffic may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from math import isinf

from sqlml_dialect.clause_nodes import Option, Placeholder, Struct, Value
from sqlml_dialect.cursor import OPENING, Cursor, whole_number
from sqlml_dialect.errors import DialectError
from sqlml_dialect.tokens import Kind, Token, string_value

A_VALUE = "a number, 'text', TRUE, FALSE, NULL, INTERVAL '10 min', a list [1, 2], a struct {'a': 1} or a parameter"
_CONSTANTS: dict[str, bool | None] = {"TRUE": True, "FALSE": False, "NULL": None}
_MAX_DEPTH = 50

# Microseconds per unit; the first name of each is how it is written.
TIME_UNITS: dict[tuple[str, ...], int] = {
    ("days", "day", "d"): 86_400_000_000,
    ("hours", "hour", "hrs", "hr", "h"): 3_600_000_000,
    ("min", "mins", "minute", "minutes", "m"): 60_000_000,
    ("s", "sec", "secs", "second", "seconds"): 1_000_000,
    ("ms", "msec", "millisecond", "milliseconds"): 1_000,
    ("us", "usec", "microsecond", "microseconds"): 1,
    ("weeks", "week", "w"): 604_800_000_000,
}
SIZE_UNITS: dict[str, int] = {
    "TB": 10**12,
    "TiB": 2**40,
    "GB": 10**9,
    "GiB": 2**30,
    "MB": 10**6,
    "MiB": 2**20,
    "KB": 10**3,
    "KiB": 2**10,
    "B": 1,
}
_MICROSECONDS = {name: size for names, size in TIME_UNITS.items() for name in names}
_BYTES = {name.lower(): size for name, size in SIZE_UNITS.items()} | {"bytes": 1, "byte": 1}
_AMOUNT = re.compile(r"\s*([+-]?(?:[0-9]{1,24}(?:\.[0-9]{0,24})?|\.[0-9]{1,24}))\s*([A-Za-z]+)\s*")
_CLOCK = re.compile(r"\s*([0-9]{1,9}):([0-5][0-9])(?::([0-5][0-9](?:\.[0-9]{1,6})?))?\s*")


def parse_options(cursor: Cursor) -> tuple[Option, ...]:
    """``(name = value, …)``, the list of a WITH clause; no name twice."""
    if cursor.at_words("(", ")"):
        cursor.expect("(", ")")
        return ()
    options = cursor.in_parens(lambda: parse_option(cursor))
    seen: dict[str, Option] = {}
    for option in options:
        name = option.name.name.lower()
        if name in seen:
            raise DialectError(f"option {option.name.name} is given twice", cursor.text, option.span)
        seen[name] = option
    return options


def parse_option(cursor: Cursor) -> Option:
    """``name = value``"""
    name = cursor.ident("an option's name")
    cursor.expect("=")
    start = cursor.peek().start
    value = parse_value(cursor)
    return Option(name, value, value_span=cursor.taken_since(start), span=cursor.taken_since(name.span[0]))


def parse_value(cursor: Cursor, depth: int = 0) -> Value:
    """One literal or parameter."""
    token = cursor.peek()
    if token.key in OPENING and depth >= _MAX_DEPTH:
        cursor.fail("a value that is less deep", message=f"a value may be nested {_MAX_DEPTH} deep at most")
    if token.key == "[":
        return _parse_list(cursor, depth)
    if token.key == "{":
        return _parse_struct(cursor, depth)
    if token.key in _CONSTANTS:
        return _CONSTANTS[cursor.keyword().key]
    if token.key == "INTERVAL":
        return _parse_interval(cursor)
    if token.kind is Kind.STRING:
        return string_value(cursor.take().text)
    if token.kind is Kind.PARAM:
        return parse_placeholder(cursor)
    if token.kind is Kind.NUMBER or token.key in {"-", "+"}:
        return parse_number(cursor)
    hint = f"a text stands between single quotes: '{_unquoted(token)}'" if token.kind in (Kind.WORD, Kind.QUOTED) else None
    cursor.fail(A_VALUE, hint=hint)


def parse_number(cursor: Cursor) -> int | float:
    """A number with its sign."""
    sign = cursor.take().key if cursor.peek().key in {"-", "+"} else ""
    token = cursor.peek()
    if token.kind is not Kind.NUMBER:
        cursor.fail("a number")
    value = _number(token.text)
    if value is None:
        cursor.fail("a number that fits", message=f"the number {token.text[:40]} is out of range")
    cursor.take()
    return -value if sign == "-" else value


def parse_duration(text: str) -> timedelta | None:
    """``'10 min'``, ``'1 day 2 hours'``, ``'01:30:00'``; None for anything else."""
    clock = _CLOCK.fullmatch(text)
    if clock:
        hours, minutes, seconds = clock.groups()
        return _duration(Decimal(hours) * 3600 + Decimal(minutes) * 60 + Decimal(seconds or 0), 1_000_000)
    total, position = Decimal(0), 0
    while position < len(text):
        amount = _AMOUNT.match(text, position)
        unit = _MICROSECONDS.get(amount.group(2).lower()) if amount else None
        if amount is None or unit is None:
            return None
        total += Decimal(amount.group(1)) * unit
        position = amount.end()
    return _duration(total, 1) if text.strip() else None


def duration_text(length: timedelta) -> str:
    """A length of time in the largest unit that gives a whole number: ``10 min``."""
    amount = (length.days * 86_400 + length.seconds) * 1_000_000 + length.microseconds
    for names, size in TIME_UNITS.items():
        if amount and amount % size == 0:
            return f"{amount // size} {names[0]}"
    return "0 s"


def parse_size(text: str) -> int | None:
    """``'8 GB'``, ``'512 MiB'`` in bytes; None for anything else."""
    amount = _AMOUNT.fullmatch(text)
    unit = _BYTES.get(amount.group(2).lower()) if amount else None
    return int(Decimal(amount.group(1)) * unit) if amount and unit else None


def _parse_list(cursor: Cursor, depth: int) -> Value:
    """``[a, b, …]``"""
    cursor.expect("[")
    items = () if cursor.peek().key == "]" else cursor.listed(lambda: parse_value(cursor, depth + 1))
    cursor.end_list("]")
    return items


def _parse_struct(cursor: Cursor, depth: int) -> Struct:
    """``{'a': 1, b: 2}``"""
    opening = cursor.expect("{")
    items = (
        ()
        if cursor.peek().key == "}"
        else cursor.listed(lambda: parse_pair(cursor, lambda inside: parse_value(inside, depth + 1))[:2])
    )
    end = cursor.end_list("}").end
    seen: set[str] = set()
    for name, _ in items:
        if name in seen:
            raise DialectError(f"the struct has the key {name} twice", cursor.text, (opening.start, end))
        seen.add(name)
    return Struct(items)


def parse_pair(cursor: Cursor, parse_item: Callable[[Cursor], Value]) -> tuple[str, Value, int]:
    """``'key': value``; the third is where the value begins."""
    is_text = cursor.peek().kind is Kind.STRING
    name = cursor.string("a key") if is_text else cursor.ident("a key such as 'a'").name
    cursor.expect(":")
    start = cursor.peek().start
    return name, parse_item(cursor), start


def _parse_interval(cursor: Cursor) -> timedelta:
    """``INTERVAL '10 min'``, ``INTERVAL '1' HOUR`` or ``INTERVAL 10 MINUTES``"""
    start = cursor.expect("INTERVAL").start
    token = cursor.peek()
    if token.kind not in (Kind.STRING, Kind.NUMBER):
        cursor.fail("a length of time: INTERVAL '10 min' or INTERVAL 10 MINUTES")
    cursor.take()
    amount = string_value(token.text) if token.kind is Kind.STRING else token.text.replace("_", "")
    if cursor.peek().key.lower() in _MICROSECONDS:
        amount = f"{amount} {cursor.keyword().text}"
    length = parse_duration(amount)
    if length is None:
        raise DialectError(
            f"not a length of time: {amount}",
            cursor.text,
            cursor.taken_since(start),
            "INTERVAL '10 min', INTERVAL '1' HOUR or INTERVAL 30 DAYS (months and years have no fixed length)",
        )
    return length


def parse_placeholder(cursor: Cursor) -> Placeholder:
    """``?``, ``?2``, ``$2`` or ``$name``"""
    index = cursor.position
    token = cursor.take()
    span = (token.start, token.end)
    if token.text == "?":
        return Placeholder(cursor.question_marks[index], span=span)
    body = token.text[1:]
    if not body.isascii() or not body.isdecimal():
        return Placeholder(name=body, span=span)
    number = whole_number(body)
    if not number:
        cursor.fail("a parameter's number, from 1", token)
    return Placeholder(number, span=span)


def _number(text: str) -> int | float | None:
    """The value of a number token, None when no number of the machine holds it."""
    digits = text.replace("_", "")
    if digits[:2].lower() in {"0x", "0b"}:
        return int(digits, 0) if len(digits) <= 66 else None
    if digits.isdecimal():
        return whole_number(digits)
    value = float(digits)
    return None if isinf(value) else value


def _duration(amount: Decimal, unit: int) -> timedelta | None:
    """A length of time from an amount of units of so many microseconds."""
    try:
        return timedelta(microseconds=int(amount * unit))
    except OverflowError:
        return None


def _unquoted(token: Token) -> str:
    """A token's text without double quotes."""
    return token.text.strip('"')
