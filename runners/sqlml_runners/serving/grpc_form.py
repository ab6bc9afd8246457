"""The Open Inference Protocol over gRPC as values: messages ↔ rows, predictions and metadata, by the rules of ``v2``.  No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from sqlml.errors import count_of
from sqlml_runners.serving.forms import Asked, Call, Reply
from sqlml_runners.serving.grpc_messages import message_class
from sqlml_runners.serving.grpc_wire import find_bytes
from sqlml_runners.serving.outputs import Predictions
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.served import Served
from sqlml_runners.serving.v2 import InferCall, InferOutput, InferRequest, InferTensor, call_of, chosen_outputs, tensor_of
from sqlml_runners.serving.v2_tensors import binary_data

PROTOBUF = b"application/grpc"
INFER_REQUEST = "ModelInferRequest"
_MODEL_NAME = 1
NAME_BYTES = 1_024
_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where a datatype's values stand; FP16 comes in ``raw_input_contents`` alone."""


class GrpcForm:
    """One request, read already; answered as it came: with ``raw_output_contents`` where it had ``raw_input_contents``."""

    wrong, bulk = 400, False

    def __init__(self, request: Any) -> None:
        """``request``: a ModelInferRequest."""
        self._request = request

    def decode(self, served: Served, body: bytes, asked: Asked) -> Call:
        """The rows of the request."""
        request = self._request
        tensors = [
            InferTensor(t.name, list(t.shape), t.datatype, parameters=_parameters(t.parameters) or None) for t in request.inputs
        ]
        outputs = [InferOutput(output.name, _parameters(output.parameters) or None) for output in request.outputs]
        document = InferRequest(tensors, request.id or None, _parameters(request.parameters), outputs)
        form = served.rows
        call = call_of(document, _blobs(request), form.inputs, form.keys, form.spare)
        return Call(len(call.rows), call.rows, extra=call)

    def run(self, served: Served, call: Call) -> Predictions:
        """Answer one request by itself."""
        return served.run_rows(call.rows or ())

    def encode(self, served: Served, call: Call, predictions: Predictions) -> Reply:
        """A ModelInferResponse."""
        extra: InferCall = call.extra
        response = message_class("ModelInferResponse")(model_name=served.endpoint, model_version=served.label, id=extra.id or "")
        raw = bool(self._request.raw_input_contents)
        for place, _binary in chosen_outputs(extra, served.outputs):
            _add_output(response, tensor_of(served.outputs[place], predictions[place]), raw)
        return Reply(response.SerializeToString(), PROTOBUF)


def read_name(body: bytes) -> str:
    """The model that a ModelInferRequest is for, from its bytes; nothing else of them is read.  400 where they are no message."""
    try:
        return (find_bytes(body, _MODEL_NAME, NAME_BYTES) or b"").decode()
    except ValueError as error:  # UTF-8, too
        raise _no_message(INFER_REQUEST, error) from error


def read_infer(body: bytes, name: str) -> Any:
    """A ModelInferRequest from its bytes.  400 where they are none, or where it is for another model than ``read_name`` said:
    protobuf takes the last of two values.
    """
    request = read_message(INFER_REQUEST, body)
    if request.model_name != name:
        raise BadRequest(400, "the message has two model names: give one")
    return request


def read_message(kind: str, body: bytes) -> Any:
    """A message of some kind from its bytes.  400 where they are none."""
    try:
        return message_class(kind).FromString(body)
    except Exception as error:  # protobuf's own, a class of each of its implementations
        raise _no_message(kind, error) from error


def _no_message(kind: str, error: Exception) -> BadRequest:
    return BadRequest(400, f"the message is not a {kind}: {error}")


def metadata_message(metadata: Mapping[str, Any]) -> Any:
    """A ModelMetadataResponse from what ``GET /v2/models/{m}`` answers."""
    response = message_class("ModelMetadataResponse")(
        name=metadata["name"], versions=metadata["versions"], platform=metadata["platform"]
    )
    for side in ("inputs", "outputs"):
        for tensor in metadata[side]:
            getattr(response, side).add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
    return response


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "string_param") for name, value in given.items()}


def _blobs(request: Any) -> list[bytes | None]:
    """The values of each tensor in their binary form, wherever they stand."""
    raw = request.raw_input_contents
    if not raw:
        return [_typed(tensor) for tensor in request.inputs]
    if len(raw) != len(request.inputs):
        raise BadRequest(400, f"raw_input_contents has {count_of(len(raw), 'entry', 'entries')} for {len(request.inputs)} inputs")
    for tensor in request.inputs:
        if tensor.HasField("contents"):
            raise BadRequest(400, f"input {tensor.name!r} has contents beside raw_input_contents: give one of the two")
    return list(raw)


def _typed(tensor: Any) -> bytes | None:
    name = _CONTENTS.get(tensor.datatype)
    if name is None:
        if tensor.datatype == "FP16":
            raise BadRequest(400, f"input {tensor.name!r}: FP16 is read from raw_input_contents alone")
        return None  # an unknown datatype: the next step says so
    others = [field.name for field, _ in tensor.contents.ListFields() if field.name != name]
    if others:
        raise BadRequest(400, f"input {tensor.name!r} is {tensor.datatype}: its values stand in {name}, not in {others[0]}")
    values: Sequence[Any] = getattr(tensor.contents, name)
    if len(values) != prod(tensor.shape):
        raise BadRequest(400, f"input {tensor.name!r} has the shape {list(tensor.shape)} but {count_of(len(values), 'value')}")
    if name != "bytes_contents":
        try:
            return binary_data(tensor.datatype, values)
        except OverflowError:
            raise BadRequest(400, f"input {tensor.name!r}: a value is no {tensor.datatype}") from None
    return b"".join(len(text).to_bytes(4, "little") + text for text in values)


def _add_output(response: Any, tensor: Mapping[str, Any], raw: bool) -> None:
    datatype, values = tensor["datatype"], tensor["data"]
    output = response.outputs.add(name=tensor["name"], datatype=datatype, shape=tensor["shape"])
    for name, value in tensor.get("parameters", {}).items():
        output.parameters[name].string_param = ", ".join(map(str, value))
    if raw:
        response.raw_output_contents.append(binary_data(datatype, values))
        return
    missing: Any = float("nan") if datatype.startswith("FP") else b"" if datatype == "BYTES" else 0
    as_bytes = datatype == "BYTES"
    filled = [missing if value is None else str(value).encode() if as_bytes else value for value in values]
    getattr(output.contents, _CONTENTS[datatype]).extend(filled)
