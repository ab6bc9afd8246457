"""Arrow bodies: a stream or a file of record batches, columns by name; and answers as Arrow.  No I/O.

An answer has a column for each output; probabilities are a struct from class to number, distances a list, nearest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.bundles.answers import DISTANCE, structs
from sqlml.features.dataset import canonical
from sqlml.plan import InputColumn
from sqlml.types import Kind, kind_of_arrow
from sqlml_runners.serving.arrow_limits import check_messages, check_values
from sqlml_runners.serving.limits import Policy
from sqlml_runners.serving.outputs import Answer, Output, Predictions
from sqlml_runners.serving.protocol import (
    FINITE,
    BadRequest,
    Columns,
    arrow_of,
    find_name,
    given_twice,
    parse_values,
    unknown_name,
    wrong_value,
)
from sqlml_runners.serving.rows import RowForm, key_text

_MAGIC = b"ARROW1\0\0"
_JSON_KINDS = frozenset({Kind.NUMBER, Kind.BOOLEAN, Kind.TEXT, Kind.NUMBERS, Kind.TEXTS})
"""Kinds that JSON has values of; those of the others are texts in it."""
_MOMENTS = frozenset({Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})


@dataclass(frozen=True)
class Bulk:
    """Many rows: the inputs' columns, what the rows are known by, where they say, and the other columns (``more``)."""

    n: int
    columns: Columns
    keys: Sequence[str | None] | None
    more: Columns = field(default_factory=dict)


def read_arrow_body(form: RowForm, body: bytes, policy: Policy) -> Bulk:
    """The rows of an Arrow body.  ``BadRequest`` 400 for no Arrow, 413 for too much of it, 422 for columns that do not fit.

    A file is read as the stream that it is between its magic and its footer, whose offsets nobody has to believe.
    """
    stream = pa.py_buffer(body).slice(len(_MAGIC) if body.startswith(_MAGIC) else 0)
    try:
        check_messages(stream, policy)
        table = pa.ipc.open_stream(stream).read_all()
        table.validate(full=True)  # whatever the bytes say, nothing points outside of them
        names = table.column_names
    except (pa.ArrowException, OSError, ValueError) as error:
        what = "is empty" if not body else f"is not Arrow: {str(error).splitlines()[0]}"
        raise BadRequest(400, f"the body {what}") from error
    if double := next((name for name in names if names.count(name) > 1), None):
        raise BadRequest(422, f"column {double} is there twice", double)
    check_values(table, policy)
    return bulk_of(form, dict(zip(table.column_names, table.columns, strict=True)), table.num_rows)


def bulk_of(form: RowForm, given: Mapping[str, Any], n: int) -> Bulk:
    """Columns as they came → the inputs in their own types; one that is missing is NULL.  422 names what does not fit."""
    found: dict[str, str] = {}
    for column in given:
        name = find_name(column, form.names)
        if name is None:
            raise BadRequest(422, f"column {column}: {unknown_name(column, form.known)}", column)
        if name in found:
            raise BadRequest(422, given_twice(name, given, form.names), column)
        found[name] = column
    columns = {c.name: _typed(given[found[c.name]], c) for c in form.known if c.name in found}
    inputs = {c.name: columns.pop(c.name, None) for c in form.inputs}
    whole = {c.name: inputs[c.name] if c.name in found else pa.nulls(n, arrow_of(c.kind)) for c in form.inputs}
    more = columns | {key: given[found[key]] for key in (*form.keys, *form.spare.keys) if key in found}
    return Bulk(n, whole, _keys(form, given, found), more)


def _typed(values: Any, column: InputColumn) -> pa.Array:
    _refuse_other_kind(values, column)
    try:
        own = canonical(values, column.kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise BadRequest(422, f"column {column.name} is {column.sql_type} to the model: {reason}", column.name) from error
    whole = own.combine_chunks() if isinstance(own, pa.ChunkedArray) else own
    if column.kind in (Kind.NUMBER, Kind.NUMBERS):
        _refuse_infinite(whole, column)
    return whole


def _refuse_other_kind(values: Any, column: InputColumn) -> None:
    """422 for the first value that JSON would not take either, such as the text '1' for a number; a cast would."""
    storage = values.type.storage_type if isinstance(values.type, pa.BaseExtensionType) else values.type
    given = kind_of_arrow(storage)
    if given == column.kind or given not in _JSON_KINDS or (given is Kind.TEXT and column.kind in _MOMENTS):
        return
    plain = pc.cast(values, pa.float64()) if pa.types.is_decimal(storage) else values
    parse_values(column, plain.to_pylist(), lambda i: f"rows[{i}].{column.name}", 422)


def _refuse_infinite(values: pa.Array, column: InputColumn) -> None:
    """422 for the first number that is infinite, which JSON could not have said either; NaN is NULL."""
    if pa.types.is_list(values.type):
        places = np.flatnonzero(pc.is_inf(pc.list_flatten(values)).to_numpy(zero_copy_only=False))
        if not len(places):
            return
        row, at = pc.list_parent_indices(values)[places[0]].as_py(), int(places[0])
        at -= pc.list_parent_indices(values).index(row).as_py()
        raise wrong_value(422, f"rows[{row}].{column.name}[{at}]", FINITE, values[row][at].as_py())
    places = np.flatnonzero(pc.fill_null(pc.is_inf(values), False).to_numpy(zero_copy_only=False))
    if len(places):
        raise wrong_value(422, f"rows[{places[0]}].{column.name}", FINITE, values[int(places[0])].as_py())


def _keys(form: RowForm, given: Mapping[str, Any], found: Mapping[str, str]) -> list[str | None] | None:
    columns = [given[found[key]].to_pylist() for key in form.keys if key in found]
    if not columns:
        return None
    if len(form.keys) == 1:
        return [None if value is None else key_text(value) for value in columns[0]]
    whole = [given[found[key]].to_pylist() if key in found else [None] * len(columns[0]) for key in form.keys]
    return [form.key([None] * len(form.inputs) + list(row)) for row in zip(*whole, strict=True)]


def write_arrow_body(outputs: Sequence[Output], predictions: Predictions) -> bytes:
    """The answer as an Arrow stream."""
    batch = answer_batch(outputs, predictions)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def answer_batch(outputs: Sequence[Output], predictions: Predictions) -> pa.RecordBatch:
    """The outputs as columns."""
    arrays = [answer_array(output, answer) for output, answer in zip(outputs, predictions, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names=[output.name for output in outputs])


def answer_array(output: Output, answer: Answer) -> pa.Array:
    """One output as an Arrow array."""
    if isinstance(answer, np.ndarray) and answer.ndim == 2:
        if not output.classes:
            return _distances(answer)
        fields = [np.ascontiguousarray(answer[:, i], np.float64) for i in range(len(output.classes))]
        return pa.StructArray.from_arrays([pa.array(values) for values in fields], names=list(output.classes))
    if isinstance(answer, np.ndarray):
        return pa.array(answer.astype(np.float64) if answer.dtype == np.float32 else answer)
    return pa.array(answer, output.type) if isinstance(answer, list) else answer


def _distances(values: np.ndarray[Any, Any]) -> pa.Array:
    order = np.argsort(values, axis=1, kind="stable")
    nearest = np.take_along_axis(values, order, 1).astype(np.float64)
    return structs(DISTANCE, values.shape, pa.array(order.ravel() + 1, pa.int64()), pa.array(nearest.ravel()))
