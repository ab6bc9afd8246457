"""The OpenAPI document of what is deployed: each endpoint's real fields, with examples that work when pasted.  No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa

from sqlml.errors import BindError
from sqlml.generation.generator import INPUT
from sqlml.plan import InputColumn
from sqlml.types import Kind, Task
from sqlml_runners.serving.feedback import Truth
from sqlml_runners.serving.generate import GenerateRequest
from sqlml_runners.serving.openapi_bulk import add_bulk
from sqlml_runners.serving.outputs import Answer, Output, plain_values
from sqlml_runners.serving.served import Served
from sqlml_runners.serving.v2 import DATATYPE, datatype_of, example_request

_SCHEMA: Mapping[Kind, Mapping[str, Any]] = {
    Kind.NUMBER: {"type": ["number", "null"]},
    Kind.BOOLEAN: {"type": ["boolean", "null"]},
    Kind.TEXT: {"type": ["string", "null"]},
    Kind.DATE: {"type": ["string", "null"], "format": "date"},
    Kind.TIME: {"type": ["string", "null"], "format": "time"},
    Kind.TIMESTAMP: {"type": ["string", "null"], "description": "a timestamp such as 2024-05-31 13:45:00"},
    Kind.TIMESTAMPTZ: {"type": ["string", "null"], "format": "date-time"},
    Kind.NUMBERS: {"type": ["array", "null"], "items": {"type": ["number", "null"]}},
    Kind.TEXTS: {"type": ["array", "null"], "items": {"type": ["string", "null"]}},
}
_JSON_TYPE = {"BOOL": "boolean", "INT64": "integer", "FP64": "number", "BYTES": "string"}
_MISSING = "A column that is left out of a row is NULL, as one given as null is; an unknown column is an error."
_EVENTS = 'data: {"token": 7, "text": "the"}\n\ndata: {"done": true, "finish_reason": "length"}\n\n'
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}, "field": {"type": "string"}}}


def openapi_document(version: str, served: Iterable[Served]) -> dict[str, Any]:
    """The whole document: the server's own paths, then those of each endpoint."""
    paths: dict[str, Any] = dict(_server_paths())
    for one in served:
        paths |= _endpoint_paths(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "sqlml endpoints", "version": version, "description": "Models deployed with `DEPLOY MODEL …`."},
        "paths": paths,
    }


def _server_paths() -> dict[str, Any]:
    gets = {
        "/v2": "The server's name, version and extensions",
        "/v2/health/live": "Is the server alive?",
        "/v2/health/ready": "Does every endpoint answer (or is known to be broken)?",
        "/sqlml/endpoints": "The state of every endpoint",
    }
    return {path: {"get": _operation(summary, "server")} for path, summary in gets.items()}


def _endpoint_paths(served: Served) -> dict[str, Any]:
    endpoint, inputs, known = served.endpoint, served.rows.inputs, served.rows.known
    tag = f"{endpoint} ({served.arm.name})"
    example = served.example
    base = f"/v2/models/{quote(endpoint, safe='')}"
    rows = _post("Predict rows given by column name", tag, _rows_schema(known), {"rows": [example]}, _rows_answer(served))
    add_bulk(rows, served)
    infer = _post("Predict, Open Inference Protocol V2", tag, _infer_schema(known), example_request(inputs, example), {})
    writes = _generate_paths(served, tag, example) if served.arm.task == Task.GENERATION else {}
    more = writes | _explain_paths(served, tag, example) | _feedback_paths(served, tag)
    return more | {
        f"/models/{quote(endpoint, safe='')}/predict": {"post": rows},
        f"{base}/infer": {"post": infer},
        base: {"get": _operation("The inputs and outputs, Open Inference Protocol V2", tag)},
        f"{base}/ready": {"get": _operation("Does this endpoint answer?", tag)},
    }


def _generate_paths(served: Served, tag: str, example: dict[str, Any]) -> dict[str, Any]:
    """What a language model takes beside rows."""
    _, components = msgspec.json.schema_components([GenerateRequest])
    asked = {"prompt": example[INPUT], "max_new_tokens": 32, "temperature": 0.8, "seed": 1}
    answer = {"type": "object", "properties": {"text": {"type": "string"}, "finish_reason": {"type": "string"}}}
    post = _post("Write a text, whole or as server-sent events", tag, components["GenerateRequest"], asked, answer)
    post["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}, "example": _EVENTS}
    return {f"/models/{quote(served.endpoint, safe='')}/generate": {"post": post}}


def _explain_paths(served: Served, tag: str, example: dict[str, Any]) -> dict[str, Any]:
    """What made each prediction, where the model can tell."""
    try:
        served.check_explains()
    except BindError:
        return {}
    top = {"type": "integer", "minimum": 1}
    answer = {"type": "object", "properties": {"explanations": {"type": "array", "items": {"type": "object"}}}}
    asked = {"rows": [example]}
    post = _post("What made each prediction: the features that moved it", tag, _rows_schema(served.rows.known), asked, answer)
    what = "so many features of each row, those that moved it most first"
    post["parameters"] = [{"name": "top", "in": "query", "description": what, "schema": top, "example": 3}]
    return {f"/models/{quote(served.endpoint, safe='')}:explain": {"post": post}}


def _feedback_paths(served: Served, tag: str) -> dict[str, Any]:
    """What turned out to be true, where something can."""
    if not served.targets:
        return {}
    _, components = msgspec.json.schema_components([Truth])
    places = {output.name: i for i, output in enumerate(served.outputs)}
    target = served.targets[0]
    place = places.get(f"predicted_{target}", places.get(target, 0))
    classes = served.outputs[place].classes
    truth = classes[0] if classes else next(iter(plain_values(served.sample[place])), None)
    row = {"request_id": "as x-request-id of the answer", "truth": truth if isinstance(truth, str | bool | float | int) else 1}
    row |= {"target": target} if served.target_fault(None, "") else {}
    several = {"type": "array", "items": components["Truth"]}
    schema = {"type": "object", "required": ["feedback"], "properties": {"feedback": several}}
    kept = {"type": "object", "properties": {"accepted": {"type": "integer"}}}
    post = _post("What turned out to be true of predictions", tag, schema, {"feedback": [row]}, kept)
    post["responses"]["202"] = post["responses"].pop("200")
    return {f"/models/{quote(served.endpoint, safe='')}/feedback": {"post": post}}


def _operation(summary: str, tag: str) -> dict[str, Any]:
    return {"summary": summary, "tags": [tag], "responses": {"200": {"description": "OK"}}}


def _post(summary: str, tag: str, schema: dict[str, Any], example: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
    wrong = {"description": "the request does not fit", "content": {"application/json": {"schema": _ERROR}}}
    fine = {"description": "OK", "content": {"application/json": {"schema": answer}}}
    return {"summary": summary, "tags": [tag], "requestBody": body, "responses": {"200": fine, "4XX": wrong}}


def _rows_schema(inputs: Iterable[InputColumn]) -> dict[str, Any]:
    properties = {column.name: {**_SCHEMA[column.kind], "title": f"{column.name} ({column.sql_type})"} for column in inputs}
    row = {"type": "object", "properties": properties, "additionalProperties": False, "description": _MISSING}
    rows = {"type": "array", "items": row, "description": "one object a row, columns by name in any order"}
    return {"type": "object", "required": ["rows"], "properties": {"rows": rows}, "description": _MISSING}


def _rows_answer(served: Served) -> dict[str, Any]:
    answers = zip(served.outputs, served.sample, strict=True)
    properties = {output.name: _output_schema(output, answer) for output, answer in answers}
    predictions = {"type": "array", "items": {"type": "object", "properties": properties}}
    return {
        "type": "object",
        "properties": {"model": {"type": "string"}, "version": {"type": "integer"}, "predictions": predictions},
    }


def _output_schema(output: Output, answer: Answer) -> dict[str, Any]:
    if output.classes:
        return {"type": "object", "properties": {name: {"type": "number"} for name in output.classes}}
    if isinstance(answer, np.ndarray) and answer.ndim == 2:
        item = {"type": "object", "properties": {"centroid_id": {"type": "integer"}, "distance": {"type": "number"}}}
        return {"type": "array", "items": item}
    name = _JSON_TYPE[datatype_of(output.type)]
    if pa.types.is_list(output.type):
        return {"type": ["array", "null"], "items": {"type": [name, "null"]}}
    return {"type": [name, "null"] if output.nullable else name}


def _infer_schema(inputs: Iterable[InputColumn]) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"enum": [column.name for column in inputs]},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"enum": sorted({DATATYPE[column.kind] for column in inputs})},
            "data": {"type": "array", "items": {}},
        },
    }
    properties = {"id": {"type": "string"}, "inputs": {"type": "array", "items": tensor}}
    return {"type": "object", "required": ["inputs"], "properties": properties}
