"""The messages of the Open Inference Protocol over gRPC, made from this table: no generated code that fits one protobuf alone.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_FIELDS: Mapping[str, str] = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready bool",
    "ModelReadyRequest": "name string, version string",
    "ModelReadyResponse": "ready bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name string, version string, extensions string*",
    "ModelMetadataRequest": "name string, version string",
    "ModelMetadataResponse": "name string, versions string*, platform string, inputs .TensorMetadata*, outputs .TensorMetadata*",
    "ModelMetadataResponse.TensorMetadata": "name string, datatype string, shape int64*",
    "InferParameter": "bool_param bool|, int64_param int64|, string_param string|, double_param double|, uint64_param uint64|",
    "InferTensorContents": "bool_contents bool*, int_contents int32*, int64_contents int64*, uint_contents uint32*, "
    "uint64_contents uint64*, fp32_contents float*, fp64_contents double*, bytes_contents bytes*",
    "ModelInferRequest": "model_name string, model_version string, id string, parameters InferParameter%, "
    "inputs .InferInputTensor*, outputs .InferRequestedOutputTensor*, raw_input_contents bytes*",
    "ModelInferRequest.InferInputTensor": "name string, datatype string, shape int64*, parameters InferParameter%, "
    "contents InferTensorContents",
    "ModelInferRequest.InferRequestedOutputTensor": "name string, parameters InferParameter%",
    "ModelInferResponse": "model_name string, model_version string, id string, parameters InferParameter%, "
    "outputs .InferOutputTensor*, raw_output_contents bytes*",
    "ModelInferResponse.InferOutputTensor": "name string, datatype string, shape int64*, parameters InferParameter%, "
    "contents InferTensorContents",
}
"""Message → its fields, numbered from 1: ``*`` is a list, ``%`` a map from text, ``|`` one of several, ``.`` a message inside."""

_Field = descriptor_pb2.FieldDescriptorProto


@cache
def message_class(name: str) -> Any:
    """The class of a message, such as ``ModelInferRequest``."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="open_inference_grpc.proto", package=PACKAGE, syntax="proto3")
    made = dict[str, Any]()
    for name, fields in _FIELDS.items():
        outer, _, inner = name.rpartition(".")
        made[name] = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=name)
        for number, text in enumerate(filter(None, fields.split(", ")), 1):
            _add_field(made[name], name, number, *text.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # of its own: whoever has a client's classes in the same process has them in the default one
    return pool


def _add_field(message: Any, owner: str, number: int, name: str, kind: str) -> None:
    label = _Field.LABEL_REPEATED if kind[-1] in "*%" else _Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, label=label, json_name=name)
    plain = kind.rstrip("*%|")
    if kind.endswith("%"):
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add_field(entry, owner, 1, "key", "string")
        _add_field(entry, owner, 2, "value", plain)
        plain = f".{entry.name}"
    if kind.endswith("|"):
        if not message.oneof_decl:
            message.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if plain[0] == "." or plain[0].isupper():
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{owner}{plain}" if plain[0] == "." else f".{PACKAGE}.{plain}"
    else:
        field.type = getattr(_Field, f"TYPE_{plain.upper()}")
