"""The plain form: ``{"rows": [{"age": 41, "job": "technician"}, …]}``, columns by name.  No I/O.

A body of the exact right form is decoded by msgspec straight into structs made from the model's inputs.  Any other body is
decoded as plain values and looked at one by one, to find names in another case or to say exactly what is wrong; so is every
body for a model with an input that no struct can have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast

import msgspec
import numpy as np

from sqlml.plan import InputColumn
from sqlml.types import Kind
from sqlml_runners.serving.outputs import Answer, Output, Predictions
from sqlml_runners.serving.protocol import (
    BadRequest,
    Columns,
    column_array,
    decode_json,
    describe_value,
    find_name,
    spellings,
    unknown_name,
)

_TYPES: Mapping[Kind, Any] = {
    Kind.NUMBER: float | None,
    Kind.BOOLEAN: bool | None,
    Kind.NUMBERS: list[float | None] | None,
    Kind.TEXTS: list[str | None] | None,
}
_NO_FIELD = re.compile(r'["\\\x00-\x1f]')
"""What msgspec refuses in the name of a field: whatever JSON escapes."""


@dataclass(frozen=True)
class RowForm:
    """What the rows of one model look like; no ``decoder`` where an input's name cannot be a field's."""

    inputs: tuple[InputColumn, ...]
    names: Mapping[str, str]
    decoder: msgspec.json.Decoder[Any] | None


def row_form(inputs: Sequence[InputColumn]) -> RowForm:
    """Make the structs of a model's rows: every field may be missing or null, no other field may be there."""
    if any(_NO_FIELD.search(column.name) for column in inputs):
        return RowForm(tuple(inputs), spellings(inputs), None)
    fields = [
        (f"f{i}", _TYPES.get(column.kind, str | None), msgspec.field(name=column.name, default=None))
        for i, column in enumerate(inputs)
    ]
    row = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
    body = msgspec.defstruct("Rows", [("rows", list[row])], forbid_unknown_fields=True)  # type: ignore[valid-type]
    return RowForm(tuple(inputs), spellings(inputs), msgspec.json.Decoder(body))


def decode_rows(form: RowForm, body: bytes) -> Columns:
    """A request's columns.  ``BadRequest`` 400 for what is not JSON, 422 for what does not fit."""
    columns = _struct_values(form, body)
    return {column.name: _array(column, columns[column.name]) for column in form.inputs}


def _struct_values(form: RowForm, body: bytes) -> dict[str, list[Any]]:
    """The values of each input by the quick way, where it is open and the body fits; else by the slow one."""
    if form.decoder is None:
        return _plain_values(form, body, None)
    try:
        rows = decode_json(form.decoder.decode, body).rows
    except msgspec.ValidationError as error:
        return _plain_values(form, body, error)
    return {column.name: list(map(attrgetter(f"f{i}"), rows)) for i, column in enumerate(form.inputs)}


def _plain_values(form: RowForm, body: bytes, reason: msgspec.ValidationError | None) -> dict[str, list[Any]]:
    rows = [_renamed(form, row, i) for i, row in enumerate(_objects(body, reason))]
    return {column.name: [row.get(column.name) for row in rows] for column in form.inputs}


def encode_rows(model: str, version: int, outputs: Sequence[Output], predictions: Predictions) -> bytes:
    """The answer: one object a row, in order.

    ``<target>_probs`` is an object from class to probability; ``nearest_centroids_distance`` a list of centroid and distance,
    nearest first.
    """
    names = [output.name for output in outputs]
    columns = [_values(output, answer) for output, answer in zip(outputs, predictions, strict=True)]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return msgspec.json.encode({"model": model, "version": version, "predictions": rows})


def _values(output: Output, answer: Answer) -> list[Any]:
    if not isinstance(answer, np.ndarray):
        return list(answer.to_pylist())
    table: list[list[float]] = answer.tolist()
    if output.classes:
        return [dict(zip(output.classes, row, strict=True)) for row in table]
    return [
        [{"centroid_id": i, "distance": value} for value, i in sorted((value, i) for i, value in enumerate(row, start=1))]
        for row in table
    ]


def _array(column: InputColumn, values: list[Any]) -> Any:
    return column_array(column, values, lambda i: f"rows[{i}].{column.name}", 422)


def _objects(body: bytes, reason: msgspec.ValidationError | None) -> list[dict[str, Any]]:
    try:
        document = decode_json(msgspec.json.decode, body)
    except msgspec.ValidationError as error:  # a number too large for any type
        why = str(reason or error).partition(" - at `$[...]")[0].replace("$.", "")  # "[...]" is any name: no help
        raise BadRequest(422, f"the body does not fit: {why}") from None
    if not isinstance(document, dict) or "rows" not in document:
        raise BadRequest(422, 'the body must be {"rows": [{…}, …]}, one object a row', "rows")
    if unknown := [name for name in document if name != "rows"]:
        raise BadRequest(422, f'unknown field {unknown[0]!r}: the body must be {{"rows": [{{…}}, …]}}', unknown[0])
    rows = document["rows"]
    if not isinstance(rows, list):
        raise BadRequest(422, f"rows: expected a list of objects, got {describe_value(rows)}", "rows")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise BadRequest(422, f"rows[{i}]: expected an object, got {describe_value(row)}", f"rows[{i}]")
    return cast(list[dict[str, Any]], rows)


def _renamed(form: RowForm, row: dict[str, Any], i: int) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for given in sorted(row, key=lambda name: name in form.names):  # exact names last: they win
        name = find_name(given, form.names)
        if name is None:
            raise BadRequest(422, f"rows[{i}].{given}: {unknown_name(given, form.inputs)}", f"rows[{i}].{given}")
        renamed[name] = row[given]
    return renamed
