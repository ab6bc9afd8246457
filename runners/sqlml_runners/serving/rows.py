"""The plain form: ``{"rows": [{"age": 41, "job": "technician"}, …]}``, columns by name.  No I/O.

A body of the exact right form is decoded by msgspec straight into structs made from the model's inputs.  Any other body is
decoded as plain values and looked at one by one, to find names in another case or to say exactly what is wrong; so is every
body for a model with an input that no struct can have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from functools import cached_property
from itertools import starmap
from typing import Annotated, Any, cast

import msgspec
import numpy as np

from sqlml.plan import InputColumn
from sqlml.types import Kind
from sqlml_runners.serving.outputs import Answer, Output, Predictions, plain_values
from sqlml_runners.serving.protocol import (
    BadRequest,
    Rows,
    decode_json,
    describe_value,
    does_not_fit,
    find_name,
    given_twice,
    not_json,
    parse_values,
    spellings,
    unknown_name,
    wrong_value,
)
from sqlml_runners.serving.spare import NO_SPARE, Spare

_TYPES: Mapping[Kind, Any] = {
    Kind.NUMBER: float | None,
    Kind.BOOLEAN: bool | None,
    Kind.TEXT: str | None,
    Kind.DATE: date | None,
    Kind.TIME: Annotated[time, msgspec.Meta(tz=False)] | None,
    Kind.TIMESTAMP: Annotated[datetime, msgspec.Meta(tz=False)] | None,
    Kind.TIMESTAMPTZ: Annotated[datetime, msgspec.Meta(tz=True)] | None,
    Kind.NUMBERS: list[float | None] | None,
    Kind.TEXTS: list[str | None] | None,
}
_NAN = float("nan")
_NO_FIELD = re.compile(r'["\\\x00-\x1f]')
"""What msgspec refuses in the name of a field: whatever JSON escapes."""
_MOST_FIELDS = 512
"""Answers with more columns, or probabilities of more classes, are written the slow way."""


@dataclass(frozen=True)
class RowForm:
    """What the rows of one model look like; no ``decoder`` where an input's name cannot be a field's.

    ``keys`` are the columns that a row may have beside the inputs, to be known by in the prediction log; they follow the inputs
    in a row.  Last come those that the row may have for other versions' sake.
    """

    inputs: tuple[InputColumn, ...]
    names: Mapping[str, str]
    decoder: msgspec.json.Decoder[Any] | None
    keys: tuple[str, ...] = ()
    spare: Spare = NO_SPARE

    @cached_property
    def known(self) -> tuple[InputColumn, ...]:
        """Every input that a request may have: the version's own, then the others'."""
        return (*self.inputs, *self.spare.columns)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """The columns of a row, as ``decode_rows`` gives it."""
        return (*(c.name for c in self.inputs), *self.keys, *(c.name for c in self.spare.columns), *self.spare.keys)

    def key(self, row: Sequence[Any]) -> str | None:
        """What a row is known by: its key as text, several as a JSON list; None where it gives none."""
        width = len(self.inputs)
        found = [None if value != value else value for value in row[width : width + len(self.keys)]]
        if all(value is None for value in found):
            return None
        return key_text(found[0]) if len(found) == 1 else msgspec.json.encode(found).decode()

    def row_keys(self, rows: Rows) -> list[str | None] | None:
        """The key of each row; None where no row gives one."""
        width = len(self.inputs)
        for place in range(width, width + len(self.keys)):
            found = {row[place] for row in rows}
            if any(value is not None and value == value for value in found):
                return [self.key(row) for row in rows]
        return None


def key_text(value: Any) -> str:
    """A key as text: whole numbers without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def row_form(inputs: Sequence[InputColumn], keys: Sequence[str] = (), spare: Spare = NO_SPARE) -> RowForm:
    """Make the structs of a model's rows: every field may be missing or null, no other field may be there.

    ``keys`` are the columns that training took as KEY; without one a row may have a field ``key``.
    """
    taken = {column.name.lower() for column in (*inputs, *spare.columns)}
    kept = tuple(key for key in keys or ("key",) if key.lower() not in taken)
    keyed = (*kept, *spare.keys)
    names = {key.lower(): key for key in keyed} | {key: key for key in keyed} | dict(spellings([*spare.columns, *inputs]))
    form = RowForm(tuple(inputs), names, None, kept, spare)
    if any(_NO_FIELD.search(name) for name in form.order):
        return form
    fields = [*_fields("f", inputs), *_key_fields("k", kept), *_fields("o", spare.columns), *_key_fields("p", spare.keys)]
    row = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
    body = msgspec.defstruct("Body", [("rows", list[row])], forbid_unknown_fields=True, gc=False)  # type: ignore[valid-type]
    return replace(form, decoder=msgspec.json.Decoder(body))


def _fields(letter: str, columns: Sequence[InputColumn]) -> list[tuple[str, Any, Any]]:
    return [
        (f"{letter}{i}", _TYPES[c.kind], msgspec.field(name=c.name, default=_NAN if c.kind is Kind.NUMBER else None))
        for i, c in enumerate(columns)
    ]


def _key_fields(letter: str, keys: Sequence[str]) -> list[tuple[str, Any, Any]]:
    return [(f"{letter}{i}", str | int | float | None, msgspec.field(name=key, default=_NAN)) for i, key in enumerate(keys)]


def decode_rows(form: RowForm, body: bytes) -> Rows:
    """A request's rows.  ``BadRequest`` 400 for what is not JSON, 422 for what does not fit."""
    if form.decoder is None:
        return _plain_rows(form, body, None)
    try:
        return list(map(msgspec.structs.astuple, form.decoder.decode(body).rows))
    except msgspec.ValidationError as error:
        return _plain_rows(form, body, error)
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_json(body, error) from error


def _plain_rows(form: RowForm, body: bytes, reason: msgspec.ValidationError | None) -> Rows:
    rows = [_renamed(form, row, i) for i, row in enumerate(_objects(body, reason))]
    columns = [
        *(_parsed(column, rows) for column in form.inputs),
        *(_keyed(key, rows) for key in form.keys),
        *(_parsed(column, rows) for column in form.spare.columns),
        *(_keyed(key, rows) for key in form.spare.keys),
    ]
    return list(zip(*columns, strict=True))


def _parsed(column: InputColumn, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    return parse_values(column, [row.get(column.name) for row in rows], lambda i: f"rows[{i}].{column.name}", 422)


def _keyed(key: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [_key_value(row.get(key), f"rows[{i}].{key}") for i, row in enumerate(rows)]


def _key_value(value: Any, path: str) -> str | int | float | None:
    if isinstance(value, bool | list | dict):
        raise wrong_value(422, path, "a text or a number", value)
    return cast(str | int | float | None, value)


# --- answers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowWriter:
    """How the answers of one version are written; without ``row`` as plain objects, where a name cannot be a field's."""

    head: bytes  # up to the list of rows
    outputs: tuple[Output, ...]
    row: Callable[..., Any] | None
    probs: tuple[Callable[..., Any] | None, ...] = ()

    def encode(self, predictions: Predictions) -> bytes:
        """The whole answer: one object a row, in order.

        ``<target>_probs`` is an object from class to probability; ``nearest_centroids_distance`` a list of centroid and
        distance, nearest first.
        """
        return self.head + msgspec.json.encode(self.objects(predictions)) + b"}"

    def objects(self, predictions: Predictions) -> list[Any]:
        """The rows as what msgspec writes."""
        if self.row is not None:
            columns = [
                starmap(probs, plain_values(answer)) if probs else _values(output, answer)
                for output, answer, probs in zip(self.outputs, predictions, self.probs, strict=True)
            ]
            return list(map(self.row, *columns))
        names = [output.name for output in self.outputs]
        values = [_values(output, answer) for output, answer in zip(self.outputs, predictions, strict=True)]
        return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def row_writer(model: str, version: int, outputs: Sequence[Output]) -> RowWriter:
    """Make the structs of a version's answers."""
    head = msgspec.json.encode({"model": model, "version": version})[:-1] + b',"predictions":'
    names = [output.name for output in outputs]
    probs = [_struct("Probs", output.classes) if output.classes else None for output in outputs]
    row = _struct("Prediction", names)
    if row is None or any(output.classes and not made for output, made in zip(outputs, probs, strict=True)):
        return RowWriter(head, tuple(outputs), None)
    return RowWriter(head, tuple(outputs), row, tuple(probs))


def encode_rows(model: str, version: int, outputs: Sequence[Output], predictions: Predictions) -> bytes:
    """The answer of a version whose writer nobody keeps."""
    return row_writer(model, version, outputs).encode(predictions)


def _struct(name: str, fields: Sequence[str]) -> Callable[..., Any] | None:
    if not fields or len(fields) > _MOST_FIELDS or any(_NO_FIELD.search(field) for field in fields):
        return None
    named = [(f"f{i}", Any, msgspec.field(name=field)) for i, field in enumerate(fields)]
    return msgspec.defstruct(name, named, gc=False)


def _values(output: Output, answer: Answer) -> list[Any]:
    values = plain_values(answer)
    if not isinstance(answer, np.ndarray) or answer.ndim == 1:
        return values
    if output.classes:
        return [dict(zip(output.classes, row, strict=True)) for row in values]
    return [
        [{"centroid_id": i, "distance": value} for value, i in sorted((value, i) for i, value in enumerate(row, start=1))]
        for row in values
    ]


# --- what does not fit ------------------------------------------------------------------------------------------------


def _objects(body: bytes, reason: msgspec.ValidationError | None) -> list[dict[str, Any]]:
    try:
        document = decode_json(msgspec.json.decode, body)
    except msgspec.ValidationError as error:  # a number too large for any type
        raise does_not_fit(reason or error) from None
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
    for given in row:
        name = find_name(given, form.names)
        if name is None:
            raise BadRequest(422, f"rows[{i}].{given}: {unknown_name(given, form.known)}", f"rows[{i}].{given}")
        if name in renamed:
            raise BadRequest(422, f"rows[{i}]: {given_twice(name, row, form.names)}", f"rows[{i}].{given}")
        renamed[name] = row[given]
    return renamed
