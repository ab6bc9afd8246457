"""The Open Inference Protocol, version 2, over REST: metadata, requests and answers as values.  No I/O.

The protocol: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
JSON tensors only; the binary tensor extension of Triton is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa

from sqlml.errors import count_of, listing
from sqlml.plan import InputColumn
from sqlml.types import Kind
from sqlml_runners.serving.outputs import Answer, Output, Predictions
from sqlml_runners.serving.protocol import (
    ITEM,
    BadRequest,
    Columns,
    column_array,
    decode_json,
    find_name,
    spellings,
    unknown_name,
    wrong_value,
)


def _signed(bits: int) -> Any:
    return Annotated[int, msgspec.Meta(ge=-(2 ** (bits - 1)), le=2 ** (bits - 1) - 1)]


def _list_decoder(item: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(list[item])


def _unsigned(bits: int) -> Any:
    return Annotated[int, msgspec.Meta(ge=0, le=2**bits - 1)] if bits < 64 else Annotated[int, msgspec.Meta(ge=0)]


def _expected(datatype: str) -> str:
    """A datatype's values in words."""
    if datatype.startswith("FP"):
        return "a number"
    if not datatype.endswith(("8", "16", "32", "64")):
        return {"BOOL": "true or false", "BYTES": "a text"}[datatype]
    bits = int(datatype.lstrip("UINT"))
    low, high = (0, 2**bits - 1) if datatype[0] == "U" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return f"a whole number from {low} to {high} ({datatype})"


_VALUES: Mapping[str, Any] = {
    "BOOL": bool,
    **{f"UINT{bits}": _unsigned(bits) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": _signed(bits) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": float for bits in (16, 32, 64)},
    "BYTES": str,
}
_FLAT = {name: _list_decoder(value | None) for name, value in _VALUES.items()}
_NESTED = {name: _list_decoder(list[value | None]) for name, value in _VALUES.items()}  # type: ignore[valid-type]
_NUMBERS = tuple(name for name in _VALUES if name not in ("BOOL", "BYTES"))
_IS_NESTED = re.compile(rb"\s*\[\s*\[")

DATATYPE: Mapping[Kind, str] = dict.fromkeys(Kind, "BYTES") | {
    Kind.NUMBER: "FP64",
    Kind.BOOLEAN: "BOOL",
    Kind.NUMBERS: "FP64",
}
"""The datatype that metadata lists for an input; numbers are taken in every numeric one, lists in none."""


_ROWS_FORM = 'use the rows form, POST /models/{model}/predict with {"rows": [{…}]}'


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Output] | None = None


_REQUEST = msgspec.json.Decoder(_Request)


@dataclass(frozen=True)
class InferCall:
    """A request: its columns, its id, and the outputs it wants (empty: all)."""

    columns: Columns
    id: str | None
    outputs: tuple[str, ...]


# --- requests and answers ---------------------------------------------------------------------------------------------


def decode_infer(inputs: Sequence[InputColumn], body: bytes) -> InferCall:
    """A request's columns: one tensor per input, of shape [n] or [n, 1].  ``BadRequest`` 400 for everything that does not fit."""
    try:
        request: _Request = decode_json(_REQUEST.decode, body)
    except msgspec.ValidationError as error:
        raise BadRequest(400, f"the body is not an inference request: {_readable(error)}") from error
    if lists := [column.name for column in inputs if column.kind in ITEM]:
        raise BadRequest(400, f"the model takes lists ({listing(lists)}), which fit no tensor: {_ROWS_FORM}")
    places = _by_input(inputs, request.inputs)
    columns = {c.name: _column(c, request.inputs[places[c.name]], f"inputs[{places[c.name]}].data") for c in inputs}
    sizes = {name: len(array) for name, array in columns.items()}
    if len(set(sizes.values())) > 1:
        raise BadRequest(400, f"the inputs differ in length: {listing(f'{name} has {size}' for name, size in sizes.items())}")
    return InferCall(columns, request.id, tuple(output.name for output in request.outputs or ()))


def encode_infer(endpoint: str, version: int, call: InferCall, outputs: Sequence[Output], predictions: Predictions) -> bytes:
    """The answer: the outputs that were asked for, in the order asked."""
    tensors = {tensor["name"]: tensor for tensor in _outputs(outputs, predictions)}
    wanted = call.outputs or tuple(tensors)
    if unknown := [name for name in wanted if name not in tensors]:
        raise BadRequest(400, f"the model has no output {unknown[0]!r}; it has: {listing(tensors)}")
    document: dict[str, Any] = {"model_name": endpoint, "model_version": str(version)}
    if call.id is not None:
        document["id"] = call.id
    return msgspec.json.encode(document | {"outputs": [tensors[name] for name in wanted]})


def _by_input(inputs: Sequence[InputColumn], tensors: Sequence[_Tensor]) -> dict[str, int]:
    """Which of the tensors is each input's."""
    names, found = spellings(inputs), dict[str, int]()
    for place, tensor in enumerate(tensors):
        name = find_name(tensor.name, names)
        if name is None:
            raise BadRequest(400, unknown_name(tensor.name, inputs))
        if name in found:
            raise BadRequest(400, f"the input {name!r} is given twice")
        found[name] = place
    if missing := [column.name for column in inputs if column.name not in found]:
        raise BadRequest(400, f"missing inputs: {listing(missing)}")
    return found


def _column(column: InputColumn, tensor: _Tensor, place: str) -> pa.Array:
    name = column.name
    _check_datatype(column, tensor)
    rows = _rows_of(name, tensor.shape)
    data = bytes(tensor.data)
    if not data:
        raise BadRequest(400, f"input {name!r} has no data (the binary tensor extension is not supported: send JSON)")
    values = _values(name, tensor.datatype, data, place)
    if len(values) != rows:
        raise BadRequest(400, f"input {name!r} has the shape {tensor.shape} but {count_of(len(values), 'value')}")
    return column_array(column, values, lambda i: list(_leaves(place, msgspec.json.decode(data)))[i][0], 400, f" ({name})")


def _check_datatype(column: InputColumn, tensor: _Tensor) -> None:
    if tensor.datatype not in _VALUES:
        raise BadRequest(400, f"input {column.name!r} has the unknown datatype {tensor.datatype!r}; known: {', '.join(_VALUES)}")
    allowed = _NUMBERS if column.kind is Kind.NUMBER else (DATATYPE[column.kind],)
    if tensor.datatype not in allowed:
        raise BadRequest(400, f"input {column.name!r} must be {listing(allowed, 12)}, not {tensor.datatype}")


def _rows_of(name: str, shape: list[int]) -> int:
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]) or shape[0] < 0:
        raise BadRequest(400, f"input {name!r} must have the shape [n] or [n, 1], not {shape}")
    return prod(shape)


def _values(name: str, datatype: str, data: bytes, place: str) -> list[Any]:
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
    for path, value in _leaves(place, items):
        if not _fits(value, datatype):
            return wrong_value(400, path, _expected(datatype), value, note)
    return _refused(error, place, note)


def _refused(error: msgspec.ValidationError, place: str, note: str) -> BadRequest:
    """msgspec's own words, with the place in the whole request."""
    message, _, inner = str(error).partition(" - at ")
    path = place + inner.strip("`$")
    return BadRequest(400, f"{path}{note}: {message.replace('`', '')}", path)


def _leaves(place: str, items: list[Any]) -> Iterator[tuple[str, Any]]:
    """The values of a tensor, flat or nested, with their places."""
    nested = bool(items) and isinstance(items[0], list)
    for i, item in enumerate(items):
        if nested and isinstance(item, list):
            yield from ((f"{place}[{i}][{j}]", leaf) for j, leaf in enumerate(item))
        else:
            yield f"{place}[{i}]", item


def _fits(value: Any, datatype: str) -> bool:
    try:
        msgspec.convert(value, _VALUES[datatype] | None)
    except msgspec.ValidationError:
        return False
    return True


def _readable(error: msgspec.ValidationError) -> str:
    return str(error).replace("`$.", "`").replace("`$", "`").replace("`", "")


def _outputs(outputs: Sequence[Output], predictions: Predictions) -> list[dict[str, Any]]:
    return [_tensor(output, answer) for output, answer in zip(outputs, predictions, strict=True)]


def _tensor(output: Output, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, np.ndarray):
        tensor = {"name": output.name, "datatype": "FP64", "shape": list(answer.shape), "data": answer.ravel().tolist()}
        return tensor | ({"parameters": {"classes": list(output.classes)}} if output.classes else {})
    values, datatype = answer.to_pylist(), datatype_of(answer.type)
    if not pa.types.is_list(answer.type):
        return {"name": output.name, "datatype": datatype, "shape": [len(values)], "data": values}
    width = max((len(row) for row in values if row is not None), default=0)
    padded = [value for row in values for value in [*(row or ()), *[None] * (width - len(row or ()))]]
    return {"name": output.name, "datatype": datatype, "shape": [len(values), width], "data": padded}


def datatype_of(data_type: pa.DataType) -> str:
    """The V2 datatype of an output's values; of a list, of the values in it."""
    if pa.types.is_list(data_type):
        return datatype_of(data_type.value_type)
    if pa.types.is_boolean(data_type):
        return "BOOL"
    if pa.types.is_integer(data_type):
        return "INT64"
    return "FP64" if pa.types.is_floating(data_type) else "BYTES"


# --- metadata ---------------------------------------------------------------------------------------------------------


def server_metadata(version: str) -> dict[str, Any]:
    """``GET /v2``"""
    return {"name": "sqlml", "version": version, "extensions": []}


def model_metadata(
    endpoint: str, version: int, inputs: Sequence[InputColumn], outputs: Sequence[Output], sample: Predictions
) -> dict[str, Any]:
    """``GET /v2/models/{m}``; ``sample`` is any prediction of the model, for the outputs' types and widths."""
    return {
        "name": endpoint,
        "versions": [str(version)],
        "platform": "sqlml",
        "inputs": [_described_input(column) for column in inputs],
        "outputs": [_described_output(output, answer) for output, answer in zip(outputs, sample, strict=True)],
    }


def _described_input(column: InputColumn) -> dict[str, Any]:
    if column.kind in ITEM:
        return {"name": column.name, "datatype": DATATYPE[column.kind], "shape": [-1, -1], "parameters": {"rows_form_only": True}}
    return {"name": column.name, "datatype": DATATYPE[column.kind], "shape": [-1]}


def _described_output(output: Output, answer: Answer) -> dict[str, Any]:
    tensor = _tensor(output, answer)
    more = {"parameters": tensor["parameters"]} if "parameters" in tensor else {}
    rest = (
        tensor["shape"][1:] if isinstance(answer, np.ndarray) else [-1] * len(tensor["shape"][1:])
    )  # lists are as long as the longest
    return {"name": output.name, "datatype": tensor["datatype"], "shape": [-1, *rest]} | more


def example_request(inputs: Sequence[InputColumn], row: Mapping[str, Any]) -> dict[str, Any]:
    """A request for one row of plain values."""
    return {
        "inputs": [
            {"name": column.name, "shape": [1], "datatype": DATATYPE[column.kind], "data": [row.get(column.name)]}
            for column in inputs
        ]
    }
