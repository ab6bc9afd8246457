"""One field of a protobuf message, found without reading the others: what a request is for, before more is made of it.  No I/O.

A message is fields one after the other: a tag (number and wire type), then a varint, 4 or 8 bytes, or a length and as many bytes.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

MOST_FIELDS = 4_096
"""So many fields may stand before the one that is looked for: whoever writes messages writes them by their numbers."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_NUMBER = (1 << 29) - 1


class WireError(ValueError):
    """Bytes that are no message."""


def find_bytes(message: bytes, number: int, most: int) -> bytes | None:
    """The first value of a field of texts, bytes or messages; None where there is none.  ``WireError`` for what is no message,
    and for a value of more than ``most`` bytes.
    """
    place, end = 0, len(message)
    for _ in range(MOST_FIELDS):
        if place == end:
            return None
        tag, place = _varint(message, place)
        field, kind = tag >> 3, tag & 7
        if not 0 < field <= _MOST_NUMBER:
            raise WireError(f"no field has the number {field}")
        if kind == _LENGTH:
            length, place = _varint(message, place)
            if field == number and length > most:
                raise WireError(f"field {number} has {length:,} bytes; it may have {most:,}")
            if field == number and place + length <= end:
                return message[place : place + length]
            place += length
        elif kind == _VARINT:
            _, place = _varint(message, place)
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            raise WireError(f"a field of the wire type {kind}")
        if place > end:
            raise WireError("it ends in the middle of a field")
    raise WireError(f"field {number} is none of the first {MOST_FIELDS:,}")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number of 64 bits at most, seven a byte, and the place behind it."""
    value = 0
    for i, byte in enumerate(message[place : place + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if value >> 64:
                break
            return value, place + i + 1
    raise WireError("it ends in the middle of a number" if len(message) - place < 10 else "a number of more than 64 bits")
