"""The Open Inference Protocol, version 2, over REST: requests and answers as values.  No I/O.

    body → InferCall: rows, id, wanted outputs → [model] → InferAnswer: JSON, and binary tensors where they are wanted

The protocol: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from sqlml.errors import count_of, listing
from sqlml.plan import InputColumn
from sqlml.types import Kind
from sqlml_runners.serving.outputs import Answer, Output, Predictions, plain_values
from sqlml_runners.serving.protocol import (
    ITEM,
    BadRequest,
    Rows,
    decode_json,
    find_name,
    parse_values,
    spellings,
    unknown_name,
)
from sqlml_runners.serving.spare import NO_SPARE, Spare
from sqlml_runners.serving.v2_tensors import (
    NUMBERS,
    VALUES,
    binary_data,
    binary_values,
    fits_quickly,
    json_values,
    leaves,
)

DATATYPE: Mapping[Kind, str] = dict.fromkeys(Kind, "BYTES") | {
    Kind.NUMBER: "FP64",
    Kind.BOOLEAN: "BOOL",
    Kind.NUMBERS: "FP64",
}
"""The datatype that metadata lists for an input; numbers are taken in every numeric one."""
_KEY_TYPES = (*NUMBERS, "BYTES")
_AS_THEY_ARE = (Kind.NUMBER, Kind.BOOLEAN, Kind.TEXT)
"""Kinds whose values need no parsing once they are of the datatype."""


class _QuickTensor(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class InferOutput(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class _QuickRequest(msgspec.Struct, gc=False):
    inputs: list[_QuickTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[InferOutput] | None = None


class InferTensor(msgspec.Struct):
    """One input, as it is given."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None


class InferRequest(msgspec.Struct):
    """A request, as it is given."""

    inputs: list[InferTensor]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[InferOutput] | None = None


_QUICK = msgspec.json.Decoder(_QuickRequest)
_REQUEST = msgspec.json.Decoder(InferRequest)


class InferCall(msgspec.Struct, frozen=True):
    """A request: its rows, its id, the outputs it wants and whether in binary (none: all, in binary if ``binary``)."""

    rows: Rows
    id: str | None = None
    outputs: tuple[tuple[str, bool], ...] = ()
    binary: bool = False
    parameters: Mapping[str, Any] = {}


class InferAnswer(msgspec.Struct, frozen=True):
    """An answer's body; ``json_size`` is the length of the JSON document where binary tensors follow it, else None."""

    body: bytes
    json_size: int | None = None


# --- requests ---------------------------------------------------------------------------------------------------------


def decode_infer(
    inputs: Sequence[InputColumn],
    body: bytes,
    json_size: int | None = None,
    keys: Sequence[str] = (),
    spare: Spare = NO_SPARE,
) -> InferCall:
    """A request's rows: one tensor per input, [n] or [n, 1], of a list [n, m].  ``BadRequest`` 400 for what does not fit.

    ``json_size`` is the length of the JSON document where binary tensors follow.  A tensor called as one of ``keys`` holds what
    the rows are known by.  ``spare``: what may be there, or be missing, for other versions' sake; it comes last in a row.
    """
    if json_size is None and (call := _decode_quickly(inputs, body, keys, spare)) is not None:
        return call
    document, tail = (body, b"") if json_size is None else (body[:json_size], body[json_size:])
    try:
        request: InferRequest = decode_json(_REQUEST.decode, document)
    except msgspec.ValidationError as error:
        raise BadRequest(400, f"the body is not an inference request: {_readable(error)}") from error
    return call_of(request, _blobs(request.inputs, tail), inputs, keys, spare)


def call_of(
    request: InferRequest,
    blobs: Sequence[bytes | None],
    inputs: Sequence[InputColumn],
    keys: Sequence[str] = (),
    spare: Spare = NO_SPARE,
) -> InferCall:
    """A request's rows; ``blobs``: the bytes of each tensor that is in binary.  ``BadRequest`` 400 for what does not fit."""
    known, named = (*inputs, *spare.columns), (*keys, *spare.keys)
    places = _by_input(known, request.inputs, named)
    _check_missing(inputs, places, spare)
    columns: dict[str, Sequence[Any]] = {}
    for c in (*known, *_key_columns(named, places)):
        if (place := places.get(c.name)) is not None:
            columns[c.name] = _column(c, request.inputs[place], f"inputs[{place}].data", blobs[place], c.name in named)
    sizes = {name: len(values) for name, values in columns.items()}
    if len(set(sizes.values())) > 1:
        raise BadRequest(400, f"the inputs differ in length: {listing(f'{name} has {size}' for name, size in sizes.items())}")
    return _call(request, columns, inputs, keys, spare)


def _decode_quickly(inputs: Sequence[InputColumn], body: bytes, keys: Sequence[str], spare: Spare) -> InferCall | None:
    """The same for a request that fits beyond doubt; None for any other."""
    try:
        request = _QUICK.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    kinds, n = _kinds((*inputs, *spare.columns)), -1
    columns: dict[str, Sequence[Any]] = {}
    for tensor in request.inputs:
        kind, data, shape = kinds.get(tensor.name), tensor.data, tensor.shape
        known = kind is not None and (shape == [len(data)] or shape == [len(data), 1]) and n in (-1, len(data))
        if not known or not _allows(kind, tensor.datatype) or not fits_quickly(data, tensor.datatype):
            return None
        n = len(data)
        columns[tensor.name] = _floats(data) if kind is Kind.NUMBER else data
    if len(request.inputs) != len(columns) or not all(column.name in columns for column in inputs):
        return None
    return _call(request, columns, inputs, keys, spare)


def _floats(values: list[Any]) -> list[float | None]:
    try:
        return list(map(float, values))
    except TypeError:
        return [None if value is None else float(value) for value in values]


@lru_cache(maxsize=256)
def _kinds(inputs: tuple[InputColumn, ...]) -> Mapping[str, Kind]:
    """The inputs that the quick way takes."""
    return {column.name: column.kind for column in inputs if column.kind in _AS_THEY_ARE}


def _call(
    request: InferRequest | _QuickRequest,
    columns: Mapping[str, Sequence[Any]],
    inputs: Sequence[InputColumn],
    keys: Sequence[str],
    spare: Spare,
) -> InferCall:
    n = len(next(iter(columns.values()), ()))
    names = (*(c.name for c in inputs), *keys, *(c.name for c in spare.columns), *spare.keys)
    ordered = [columns.get(name) or [None] * n for name in names]
    parameters = request.parameters or {}
    wanted = tuple(_wanted(output) for output in request.outputs or ())
    return InferCall(
        list(zip(*ordered, strict=True)), request.id, wanted, parameters.get("binary_data_output") is True, parameters
    )


def _wanted(output: InferOutput) -> tuple[str, bool]:
    parameters = output.parameters or {}
    for name, what in (("classification", "classification"), ("shared_memory_region", "shared memory")):
        if parameters.get(name):
            raise BadRequest(400, f"output {output.name!r}: the {what} extension is not supported")
    return output.name, parameters.get("binary_data") is True


def _by_input(inputs: Sequence[InputColumn], tensors: Sequence[InferTensor], keys: Sequence[str]) -> dict[str, int]:
    """Which of the tensors is each input's, and each key's that is given."""
    names, found = {key: key for key in keys} | dict(spellings(inputs)), dict[str, int]()
    for place, tensor in enumerate(tensors):
        name = find_name(tensor.name, names)
        if name is None:
            raise BadRequest(400, unknown_name(tensor.name, inputs))
        if name in found:
            raise BadRequest(400, f"the input {name!r} is given twice")
        found[name] = place
    return found


def _check_missing(inputs: Sequence[InputColumn], found: Mapping[str, int], spare: Spare) -> None:
    """400 for inputs that are missing, other than those that not all versions of the endpoint read."""
    missing = [column.name for column in inputs if column.name not in found]
    if any(name.lower() not in spare.optional for name in missing) or (missing and not found):
        raise BadRequest(400, f"missing inputs: {listing(missing)}")


def _key_columns(keys: Sequence[str], places: Mapping[str, int]) -> list[InputColumn]:
    return [InputColumn(key, "VARCHAR", Kind.TEXT) for key in keys if key in places]


def _blobs(tensors: Sequence[InferTensor], tail: bytes) -> list[bytes | None]:
    """The bytes of each tensor that is in binary."""
    blobs: list[bytes | None] = []
    at = 0
    for tensor in tensors:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            blobs.append(None)
            continue
        if not isinstance(size, int) or size < 0 or at + size > len(tail):
            raise BadRequest(400, f"input {tensor.name!r}: binary_data_size is {size!r}, and {len(tail) - at} bytes are left")
        blobs.append(tail[at : at + size])
        at += size
    if at != len(tail):
        raise BadRequest(400, f"{len(tail) - at} bytes follow the last binary tensor")
    return blobs


def _column(column: InputColumn, tensor: InferTensor, place: str, blob: bytes | None, is_key: bool) -> Sequence[Any]:
    name, data = column.name, bytes(tensor.data)
    if tensor.datatype not in VALUES:
        raise BadRequest(400, f"input {name!r} has the unknown datatype {tensor.datatype!r}; known: {', '.join(VALUES)}")
    allowed = _KEY_TYPES if is_key else _allowed(column.kind)
    if tensor.datatype not in allowed:
        raise BadRequest(400, f"input {name!r} must be {listing(allowed, 12)}, not {tensor.datatype}")
    rows, width = _shape_of(column, tensor.shape)
    if blob is None and not data:
        hint = " (shared memory is not supported)" if "shared_memory_region" in (tensor.parameters or {}) else ""
        raise BadRequest(400, f"input {name!r} has no data{hint}")
    if blob is not None:
        values = binary_values(name, tensor.datatype, blob, prod(tensor.shape), place)
    else:
        values = json_values(name, tensor.datatype, data, place)
    if len(values) != prod(tensor.shape):
        raise BadRequest(400, f"input {name!r} has the shape {tensor.shape} but {count_of(len(values), 'value')}")
    if is_key:
        return values
    path = lambda i: list(leaves(place, msgspec.json.decode(data)))[i][0]  # noqa: E731
    if width is None:
        return parse_values(column, values, path if blob is None else lambda i: f"{place}[{i}]", 400, f" ({name})")
    item = InputColumn(name, column.sql_type, ITEM[column.kind])
    flat = parse_values(item, values, path if blob is None else lambda i: f"{place}[{i}]", 400, f" ({name})")
    return [flat[i * width : (i + 1) * width] for i in range(rows)]


def _allowed(kind: Kind) -> Sequence[str]:
    return NUMBERS if kind in (Kind.NUMBER, Kind.NUMBERS) else (DATATYPE[kind],)


def _allows(kind: Kind | None, datatype: str) -> bool:
    return kind is not None and datatype in _allowed(kind)


def _shape_of(column: InputColumn, shape: list[int]) -> tuple[int, int | None]:
    """How many rows, and of lists how long each is."""
    if column.kind in ITEM:
        if len(shape) != 2 or min(shape) < 0:
            raise BadRequest(400, f"input {column.name!r} holds lists: it must have the shape [n, length], not {shape}")
        return shape[0], shape[1]
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]) or shape[0] < 0:
        raise BadRequest(400, f"input {column.name!r} must have the shape [n] or [n, 1], not {shape}")
    return shape[0], None


def _readable(error: msgspec.ValidationError) -> str:
    return str(error).replace("`$.", "`").replace("`$", "`").replace("`", "")


# --- answers ----------------------------------------------------------------------------------------------------------


def encode_infer(
    endpoint: str, version: str, call: InferCall, outputs: Sequence[Output], predictions: Predictions
) -> InferAnswer:
    """The answer: the outputs that were asked for, in the order asked."""
    document: dict[str, Any] = {"model_name": endpoint, "model_version": version}
    if call.id is not None:
        document["id"] = call.id
    tensors, blobs = list[dict[str, Any]](), list[bytes]()
    for place, binary in chosen_outputs(call, outputs):
        tensor = tensor_of(outputs[place], predictions[place])
        if binary:
            blobs.append(binary_data(tensor["datatype"], tensor.pop("data")))
            tensor["parameters"] = {**tensor.get("parameters", {}), "binary_data_size": len(blobs[-1])}
        tensors.append(tensor)
    written = msgspec.json.encode(document | {"outputs": tensors})
    return InferAnswer(b"".join([written, *blobs]), len(written)) if blobs else InferAnswer(written)


def chosen_outputs(call: InferCall, outputs: Sequence[Output]) -> list[tuple[int, bool]]:
    """The places of the outputs that are asked for, in the order asked, and whether each is wanted in binary."""
    known = {output.name: i for i, output in enumerate(outputs)}
    wanted = call.outputs or tuple((output.name, call.binary) for output in outputs)
    if unknown := [name for name, _ in wanted if name not in known]:
        raise BadRequest(400, f"the model has no output {unknown[0]!r}; it has: {listing(known)}")
    return [(known[name], binary) for name, binary in wanted]


def tensor_of(output: Output, answer: Answer) -> dict[str, Any]:
    """An output as a JSON tensor; lists are filled up to the longest with null."""
    if isinstance(answer, np.ndarray) and answer.ndim == 2:
        tensor = {"name": output.name, "datatype": "FP64", "shape": list(answer.shape), "data": answer.ravel().tolist()}
        return tensor | ({"parameters": {"classes": list(output.classes)}} if output.classes else {})
    values, datatype = plain_values(answer), datatype_of(output.type)
    if not pa.types.is_list(output.type):
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


def example_request(inputs: Sequence[InputColumn], row: Mapping[str, Any]) -> dict[str, Any]:
    """A request for one row of plain values."""
    return {"inputs": [_example_tensor(column, row.get(column.name)) for column in inputs]}


def _example_tensor(column: InputColumn, value: Any) -> dict[str, Any]:
    data, shape = ([value], [1]) if column.kind not in ITEM else (list(value or ()), [1, len(value or ())])
    return {"name": column.name, "shape": shape, "datatype": DATATYPE[column.kind], "data": data}
