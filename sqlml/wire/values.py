"""The values of parameters, as the client sent them, as Python's: one at a time, for there are few."""

from __future__ import annotations

import datetime
import re
import struct
import uuid
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlml.wire.errors import Refused
from sqlml.wire.types import ARRAY_OIDS

_ELEMENTS = {array: element for element, array in ARRAY_OIDS.items()}
_TEXTS = (18, 19, 25, 114, 705, 1042, 1043, 142, 2205, 1562)
_EPOCH_DATE = datetime.date(2000, 1, 1)
_EPOCH = datetime.datetime(2000, 1, 1)
_NUMBERS = {20: ">q", 21: ">h", 23: ">i", 26: ">I", 700: ">f", 701: ">d", 2205: ">I"}


def read_value(value: bytes | None, oid: int, *, binary: bool) -> Any:
    """A parameter's value.  ``Refused`` for bytes that are none of its type's."""
    if value is None:
        return None
    try:
        return _binary(value, oid) if binary else _text(value.decode(), oid)
    except UnicodeDecodeError:
        raise Refused("a parameter is not valid UTF-8", "22021") from None
    except struct.error:
        raise Refused("incorrect binary data format in a parameter", "22P03") from None
    except (ValueError, InvalidOperation, OverflowError, IndexError):
        shown = value.decode(errors="replace") if not binary else value.hex()
        raise Refused(f'invalid input syntax for type {_NAMES.get(oid, oid)}: "{shown[:100]}"', "22P02") from None


_NAMES = {16: "boolean", 17: "bytea", 20: "bigint", 21: "smallint", 23: "integer", 700: "real", 701: "double precision",
          1082: "date", 1083: "time", 1114: "timestamp", 1184: "timestamp with time zone",
          1700: "numeric", 2950: "uuid"}  # fmt: skip
_BOOLEANS = {"t": True, "true": True, "y": True, "yes": True, "on": True, "1": True,
             "f": False, "false": False, "n": False, "no": False, "off": False, "0": False}  # fmt: skip


def _text(text: str, oid: int) -> Any:
    if oid in _TEXTS or oid == 0:
        return text
    if oid == 16:
        return _BOOLEANS[text.strip().lower()] if text.strip().lower() in _BOOLEANS else int("not a boolean")
    if oid in (20, 21, 23, 26):
        return int(text)
    if oid in (700, 701):
        return float(text)
    if oid == 1700:
        return float("nan") if text.lower() == "nan" else Decimal(text)
    if oid == 17:
        return bytes.fromhex(text[2:]) if text.startswith("\\x") else _escaped(text)
    if oid == 2950:
        return uuid.UUID(text)
    if oid in _ELEMENTS:
        return _array(text, _ELEMENTS[oid])
    if oid == 1082 and re.fullmatch(r"\d{4}-\d\d-\d\d(?: ?[+-]\d\d(?::?\d\d)?)?", text):
        return datetime.date.fromisoformat(text[:10])
    if oid in (1114, 1184) and re.match(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d", text) and not text.upper().endswith("BC"):
        found = datetime.datetime.fromisoformat(_padded(text))
        return found.replace(tzinfo=None) if oid == 1114 else found
    return text  # the database reads it: a time, an interval, infinity …


def _padded(text: str) -> str:
    """Microseconds with six digits, as Python wants them; an offset with minutes."""
    text = re.sub(r"\.(\d+)", lambda m: "." + m[1][:6].ljust(6, "0"), text.strip())
    return re.sub(r"([+-]\d\d)$", r"\1:00", text) if ":" in text else text


def _escaped(text: str) -> bytes:
    """bytea's older form: ``\\\\`` and ``\\ooo``."""
    return re.sub(rb"\\(\\|[0-3][0-7]{2})", lambda m: b"\\" if m[1] == b"\\" else bytes([int(m[1], 8)]), text.encode())


def _array(text: str, element: int) -> list[Any]:
    """``{1,NULL,"a b"}``, of any depth."""
    found, end = _items(text.strip(), 0, element)
    if end != len(text.strip()):
        raise ValueError("something behind the array")
    return found


_ITEM = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^{},"\\]*(?:\\.[^{},"\\]*)*))\s*')


def _items(text: str, at: int, element: int) -> tuple[list[Any], int]:
    if text[at : at + 1] != "{":
        raise ValueError("an array begins with {")
    at += 1
    found: list[Any] = []
    while True:
        if text[at] == "{":
            inner, at = _items(text, at, element)
            found.append(inner)
        elif text[at] == "}":
            return found, at + 1
        else:
            match = _ITEM.match(text, at)
            if match is None:
                raise ValueError("malformed array")
            quoted, plain = match[1], (match[2] or "").strip()
            at = match.end()
            if quoted is None and plain.upper() == "NULL":
                found.append(None)
            else:
                found.append(_text(re.sub(r"\\(.)", r"\1", quoted if quoted is not None else plain), element))
        if text[at] == ",":
            at += 1
        elif text[at] != "}":
            raise ValueError("malformed array")


def _binary(value: bytes, oid: int) -> Any:
    if oid in _NUMBERS:
        return struct.unpack(_NUMBERS[oid], value)[0]
    if oid in _TEXTS or oid == 0:
        return value.decode()
    if oid == 3802:
        return value[1:].decode()
    if oid == 16:
        return struct.unpack(">?", value)[0]
    if oid == 17:
        return value
    if oid == 1082:
        days = struct.unpack(">i", value)[0]
        return {2**31 - 1: "infinity", -(2**31): "-infinity"}.get(days) or _EPOCH_DATE + datetime.timedelta(days=days)
    if oid == 1083:
        micros = struct.unpack(">q", value)[0]
        return (_EPOCH + datetime.timedelta(microseconds=micros)).time()
    if oid == 1266:
        micros, west = struct.unpack(">qi", value)
        zone = datetime.timezone(datetime.timedelta(seconds=-west))
        return (_EPOCH + datetime.timedelta(microseconds=micros)).time().replace(tzinfo=zone)
    if oid in (1114, 1184):
        return _moment(struct.unpack(">q", value)[0], oid)
    if oid == 1186:
        micros, days, months = struct.unpack(">qii", value)
        if not months:
            return datetime.timedelta(days=days, microseconds=micros)
        return f"{months} months {days} days {micros} microseconds"
    if oid == 1700:
        return _numeric(value)
    if oid == 2950:
        return uuid.UUID(bytes=value)
    if oid in _ELEMENTS:
        return _binary_array(value)
    raise Refused(f"the type {oid} is not known in binary form", "0A000", hint="send it as text")


def _moment(micros: int, oid: int) -> Any:
    ends = {2**63 - 1: "infinity", -(2**63): "-infinity"}
    if micros in ends:
        return ends[micros]
    found = _EPOCH + datetime.timedelta(microseconds=micros)
    return found.replace(tzinfo=datetime.UTC) if oid == 1184 else found


def _numeric(value: bytes) -> Decimal | float:
    count, weight, sign, scale = struct.unpack_from(">hhHH", value)
    if sign in (0xC000, 0xD000, 0xF000):
        return {0xC000: float("nan"), 0xD000: float("inf"), 0xF000: float("-inf")}[sign]
    digits = struct.unpack_from(f">{count}H", value, 8)
    whole = 0
    for digit in digits:
        whole = whole * 10_000 + digit
    places = 4 * (weight - count + 1)
    found = Decimal(whole).scaleb(places)
    found = found.quantize(Decimal(1).scaleb(-scale)) if len(str(whole)) + abs(places) < 28 else found
    return -found if sign == 0x4000 else found


def _binary_array(value: bytes) -> list[Any]:
    dimensions, _, element = struct.unpack_from(">iiI", value)
    if dimensions == 0:
        return []
    if not 0 < dimensions <= 6:
        raise Refused("an array has six dimensions at most", "22P03")
    sizes = [struct.unpack_from(">ii", value, 12 + 8 * index)[0] for index in range(dimensions)]
    at = 12 + 8 * dimensions
    flat: list[Any] = []
    while at < len(value):
        size = struct.unpack_from(">i", value, at)[0]
        at += 4
        flat.append(None if size < 0 else _binary(value[at : at + size], element))
        at += max(size, 0)
    for size in reversed(sizes[1:]):
        if size <= 0:
            raise ValueError("malformed array")
        flat = [flat[i : i + size] for i in range(0, len(flat), size)]
    return flat
