"""The tensors of the Open Inference Protocol, version 2: their values, in JSON and in binary.  No I/O.

The binary form is that of Triton's extension: the tensors' bytes follow the JSON document in the order of the document, numbers
in little-endian order, a text as its length (4 bytes) and its bytes.
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Annotated, Any

import msgspec
import numpy as np

from sqlml_runners.serving.protocol import FINITE, BadRequest, wrong_value

INTEGERS: Mapping[str, tuple[int, int]] = {
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
}
"""The smallest and the largest value of each."""


def _integer(low: int, high: int) -> Any:
    return Annotated[int, msgspec.Meta(ge=low, le=high)] if high < 2**63 else Annotated[int, msgspec.Meta(ge=low)]


VALUES: Mapping[str, Any] = {
    "BOOL": bool,
    **{name: _integer(*ends) for name, ends in INTEGERS.items()},
    **{f"FP{bits}": float for bits in (16, 32, 64)},
    "BYTES": str,
}
"""Every datatype, and what msgspec decodes its values as."""

_FLAT = {name: msgspec.json.Decoder(list[value | None]) for name, value in VALUES.items()}  # type: ignore[valid-type]
_NESTED = {name: msgspec.json.Decoder(list[list[value | None]]) for name, value in VALUES.items()}  # type: ignore[valid-type]
NUMBERS = tuple(name for name in VALUES if name not in ("BOOL", "BYTES"))
_IS_NESTED = re.compile(rb"\s*\[\s*\[")


_BINARY: Mapping[str, str] = {
    "BOOL": "?",
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
"""numpy's name for each datatype of a fixed size."""


# --- JSON -------------------------------------------------------------------------------------------------------------


def fits_quickly(values: list[Any], datatype: str) -> bool:
    """Whether values, as msgspec decodes them, are of a datatype beyond doubt (null is)."""
    types = set(map(type, values))
    types.discard(NoneType)
    if not types:
        return True
    if datatype in INTEGERS:
        low, high = INTEGERS[datatype]
        return types == {int} and all(value is None or low <= value <= high for value in values)
    if datatype.startswith("FP"):
        return types <= {float, int}
    return types == {bool if datatype == "BOOL" else str}


def json_values(name: str, datatype: str, data: bytes, place: str) -> list[Any]:
    """The values of a tensor, flat, from its ``data``, which stands at ``place``.  ``BadRequest`` names the first wrong one."""
    try:
        if _IS_NESTED.match(data):
            return [value for row in _NESTED[datatype].decode(data) for value in row]
        return list(_FLAT[datatype].decode(data))
    except msgspec.ValidationError as error:
        raise _wrong_data(name, datatype, data, place, error) from error


def _wrong_data(name: str, datatype: str, data: bytes, place: str, error: msgspec.ValidationError) -> BadRequest:
    """What is wrong with a tensor's data: the first value that its datatype does not have."""
    note = f" ({name})"
    try:
        items = msgspec.json.decode(data)
    except msgspec.ValidationError as worse:  # a number too large for any type
        return _refused(worse, place, note)
    if not isinstance(items, list):
        return wrong_value(400, place, "a list", items, note)
    for path, value in leaves(place, items):
        if not _fits(value, datatype):
            return wrong_value(400, path, _expected(datatype), value, note)
    return _refused(error, place, note)


def _refused(error: msgspec.ValidationError, place: str, note: str) -> BadRequest:
    """msgspec's own words, with the place in the whole request."""
    message, _, inner = str(error).partition(" - at ")
    path = place + inner.strip("`$")
    return BadRequest(400, f"{path}{note}: {message.replace('`', '')}", path)


def leaves(place: str, items: list[Any]) -> Iterator[tuple[str, Any]]:
    """The values of a tensor, flat or nested, with their places."""
    nested = bool(items) and isinstance(items[0], list)
    for i, item in enumerate(items):
        if nested and isinstance(item, list):
            yield from ((f"{place}[{i}][{j}]", leaf) for j, leaf in enumerate(item))
        else:
            yield f"{place}[{i}]", item


def _expected(datatype: str) -> str:
    """A datatype's values in words."""
    if datatype in INTEGERS:
        low, high = INTEGERS[datatype]
        return f"a whole number from {low} to {high} ({datatype})"
    return {"BOOL": "true or false", "BYTES": "a text"}.get(datatype, "a number")


def _fits(value: Any, datatype: str) -> bool:
    try:
        msgspec.convert(value, VALUES[datatype] | None)
    except msgspec.ValidationError:
        return False
    return True


# --- binary -----------------------------------------------------------------------------------------------------------


def binary_values(name: str, datatype: str, data: bytes, count: int, place: str) -> list[Any]:
    """The values of a tensor from its bytes.  ``BadRequest`` 400 where they are not ``count`` values, or one is infinite: it
    names that by ``place``, where JSON would have the values.
    """
    if datatype == "BYTES":
        return _texts(name, data, count)
    kind = np.dtype(_BINARY[datatype])
    if len(data) != count * kind.itemsize:
        raise BadRequest(400, f"input {name!r} has {len(data)} bytes; {count} values of {datatype} are {count * kind.itemsize}")
    found = np.frombuffer(data, kind)
    values: list[Any] = found.tolist()
    if kind.kind == "f" and np.isinf(found).any():
        i = int(np.flatnonzero(np.isinf(found))[0])
        raise wrong_value(400, f"{place}[{i}]", FINITE, values[i], f" ({name})")
    return values


def _texts(name: str, data: bytes, count: int) -> list[str]:
    texts, at = list[str](), 0
    while at < len(data) and len(texts) < count:
        end = at + 4 + (struct.unpack_from("<I", data, at)[0] if at + 4 <= len(data) else len(data))
        if end > len(data):
            break
        try:
            texts.append(data[at + 4 : end].decode())
        except UnicodeDecodeError as error:
            raise BadRequest(400, f"input {name!r}: the text {len(texts)} is not UTF-8: {error.reason}") from None
        at = end
    if at != len(data) or len(texts) != count:
        raise BadRequest(400, f"input {name!r} is not {count} texts, each its length in 4 bytes and its bytes")
    return texts


def binary_data(datatype: str, values: Sequence[Any]) -> bytes:
    """The bytes of a tensor; a missing number is NaN, a missing text empty."""
    if datatype == "BYTES":
        texts = [b"" if value is None else str(value).encode() for value in values]
        return b"".join(chain.from_iterable((struct.pack("<I", len(text)), text) for text in texts))
    missing = float("nan") if datatype.startswith("FP") else 0
    return np.array([missing if value is None else value for value in values], _BINARY[datatype]).tobytes()
