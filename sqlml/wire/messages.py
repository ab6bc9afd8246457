"""The messages of PostgreSQL's protocol 3.0 as bytes; nothing here reads or writes a socket.

https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlml.wire.errors import Refused
from sqlml.wire.types import WireType

PROTOCOL = 3 << 16
SSL_REQUEST, GSSENC_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
STARTUP_BYTES = 10_000
"""The longest start-up packet, as in PostgreSQL."""
MESSAGE_BYTES = 1 << 30
"""The longest message, as in PostgreSQL."""


@dataclass(frozen=True)
class Field:
    """A column of a result, as RowDescription tells it."""

    name: str
    type: WireType
    table: int = 0
    column: int = 0
    """The table that it comes straight from, and its number there; 0 where it does not."""


@dataclass(frozen=True)
class Parse:
    """A statement to prepare; the numbers of its parameters' types, 0 for what the server shall find out."""

    name: str
    query: str
    oids: tuple[int, ...]


@dataclass(frozen=True)
class Bind:
    """A portal to open: the values of the parameters, and the formats that its results shall have."""

    portal: str
    statement: str
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    result_formats: tuple[int, ...]


class Body:
    """Reads a message's fields from the left to the right.  ``Refused`` where they do not fit."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def text(self) -> str:
        """A string that ends with a zero byte."""
        end = self._body.find(b"\0", self._at)
        if end < 0:
            raise Refused("invalid string in message", "08P01")
        found, self._at = self._body[self._at : end], end + 1
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise Refused("a text is not valid UTF-8", "22021", hint="SET client_encoding is always UTF8 here") from None

    def int16(self) -> int:
        return self._number(">h", 2)

    def uint32(self) -> int:
        return self._number(">I", 4)

    def int32(self) -> int:
        return self._number(">i", 4)

    def _number(self, form: str, size: int) -> int:
        found = self.take(size)
        return int(struct.unpack(form, found)[0])

    def take(self, size: int) -> bytes:
        """So many bytes."""
        if size < 0 or self._at + size > len(self._body):
            raise Refused("insufficient data left in message", "08P01")
        found, self._at = self._body[self._at : self._at + size], self._at + size
        return found

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._at)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._body):
            raise Refused("invalid message format", "08P01")


def read_parse(body: bytes) -> Parse:
    """The fields of Parse."""
    reader = Body(body)
    found = Parse(reader.text(), reader.text(), tuple(reader.uint32() for _ in range(reader.int16())))
    reader.end()
    return found


def read_bind(body: bytes) -> Bind:
    """The fields of Bind."""
    reader = Body(body)
    portal, statement = reader.text(), reader.text()
    formats = tuple(reader.int16() for _ in range(reader.int16()))
    values = []
    for _ in range(reader.int16()):
        size = reader.int32()
        values.append(None if size == -1 else reader.take(size))
    found = Bind(portal, statement, formats, tuple(values), tuple(reader.int16() for _ in range(reader.int16())))
    reader.end()
    return found


def read_target(body: bytes) -> tuple[str, str]:
    """Of Describe and Close: ``S`` for a statement or ``P`` for a portal, and its name."""
    reader = Body(body)
    kind, name = reader.take(1), reader.text()
    reader.end()
    if kind not in (b"S", b"P"):
        raise Refused(f"there is no kind {kind!r} of statement or portal", "08P01")
    return kind.decode(), name


def read_execute(body: bytes) -> tuple[str, int]:
    """Of Execute: the portal, and how many rows at most, 0 for all."""
    reader = Body(body)
    found = reader.text(), reader.int32()
    reader.end()
    return found


def read_startup(body: bytes) -> dict[str, str]:
    """The parameters of a start-up packet, behind its version."""
    reader = Body(body)
    parameters: dict[str, str] = {}
    while True:
        name = reader.text()
        if not name:
            return parameters
        parameters[name] = reader.text()


# --- to the client ----------------------------------------------------------------------------------------------------


def message(kind: bytes, body: bytes = b"") -> bytes:
    """A message: its kind, its length, its body."""
    return kind + struct.pack(">I", len(body) + 4) + body


def _text(value: str) -> bytes:
    return value.replace("\0", "").encode("utf-8", "replace") + b"\0"


def authentication(code: int, more: bytes = b"") -> bytes:
    """0: in; 10: SASL mechanisms; 11: SASL goes on; 12: SASL ends."""
    return message(b"R", struct.pack(">I", code) + more)


def parameter_status(name: str, value: str) -> bytes:
    return message(b"S", _text(name) + _text(value))


def backend_key(process: int, secret: int) -> bytes:
    return message(b"K", struct.pack(">II", process, secret))


def negotiate_version(unknown: Sequence[str]) -> bytes:
    """No newer than 3.0, and none of these options."""
    return message(b"v", struct.pack(">II", PROTOCOL, len(unknown)) + b"".join(map(_text, unknown)))


def ready(status: str) -> bytes:
    """Ready for a query: ``I`` idle, ``T`` in a transaction, ``E`` in a failed one."""
    return message(b"Z", status.encode())


def row_description(fields: Sequence[Field], formats: Sequence[int]) -> bytes:
    parts = [struct.pack(">H", len(fields))]
    for field, form in zip(fields, formats, strict=True):
        kind = field.type
        parts.append(
            _text(field.name) + struct.pack(">IhIhih", field.table, field.column, kind.oid, kind.size, kind.modifier, form)
        )
    return message(b"T", b"".join(parts))


def parameter_description(oids: Sequence[int]) -> bytes:
    return message(b"t", struct.pack(f">H{len(oids)}I", len(oids), *oids))


def command_complete(tag: str) -> bytes:
    return message(b"C", _text(tag))


def error_response(fields: Mapping[str, str]) -> bytes:
    return message(b"E", _fields(fields.items()))


def notice_response(text: str, *, severity: str = "NOTICE", sqlstate: str = "00000") -> bytes:
    return message(b"N", _fields((("S", severity), ("V", severity), ("C", sqlstate), ("M", text))))


def _fields(fields: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(letter.encode() + _text(text) for letter, text in fields) + b"\0"


def copy_response(kind: bytes, columns: int, *, binary: bool) -> bytes:
    """``G``: send me data; ``H``: here is data."""
    return message(kind, struct.pack(f">bH{columns}H", binary, columns, *[int(binary)] * columns))


PARSE_COMPLETE = message(b"1")
BIND_COMPLETE = message(b"2")
CLOSE_COMPLETE = message(b"3")
NO_DATA = message(b"n")
EMPTY_QUERY = message(b"I")
PORTAL_SUSPENDED = message(b"s")
COPY_DONE = message(b"c")
