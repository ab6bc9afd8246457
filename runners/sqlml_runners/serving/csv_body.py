"""CSV bodies: a header with the columns' names, one row a line, nothing between two commas is NULL.  No I/O.

An answer has a column for each output; probabilities have one for each class, ``predicted_y_probs.yes``, distances one for each
cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv

from sqlml.errors import listing
from sqlml.plan import InputColumn
from sqlml.types import Kind
from sqlml_runners.serving.arrow_body import Bulk, answer_array, bulk_of
from sqlml_runners.serving.limits import Policy
from sqlml_runners.serving.outputs import Output, Predictions
from sqlml_runners.serving.protocol import ITEM, BadRequest, arrow_of, find_name, parse_values
from sqlml_runners.serving.rows import RowForm

_TRUE, _FALSE = ["true", "True", "TRUE", "1", "t"], ["false", "False", "FALSE", "0", "f"]
_BLOCK = 1 << 24


def read_csv_body(form: RowForm, body: bytes, policy: Policy) -> Bulk:
    """The rows of a CSV body.  ``BadRequest`` 400 for no CSV, 413 for too many rows, 422 for what does not fit."""
    _refuse_lists(column for column in form.inputs if column.name.lower() not in form.spare.optional)
    if not body.strip():
        raise BadRequest(400, "the body is empty: the first line has the columns' names")
    if body.count(b'"') % 2:
        raise BadRequest(400, 'the body is not CSV: a quote (") is not closed; one within a text is written twice')
    header = _read(body.split(b"\n", 1)[0] + b"\n", {}).column_names
    if double := next((name for name in header if header.count(name) > 1), None):
        raise BadRequest(422, f"column {double} is there twice", double)
    kinds = {column.name: column for column in form.known}
    inputs = {given: kinds[name] for given in header if (name := find_name(given, form.names)) in kinds}
    _refuse_lists(inputs.values())
    try:
        types = {given: arrow_of(column.kind) for given, column in inputs.items()}
        table = _read(body, types)
    except pa.ArrowInvalid as error:
        raise _wrong(body, header, inputs, error) from error
    policy.check_rows(table.num_rows)
    return bulk_of(form, dict(zip(table.column_names, table.columns, strict=True)), table.num_rows)


def _refuse_lists(columns: Iterable[InputColumn]) -> None:
    if lists := [column.name for column in columns if column.kind in ITEM]:
        raise BadRequest(415, f"the model takes lists ({listing(lists)}), which CSV cannot hold: send JSON or Arrow")


def _read(body: bytes, types: dict[str, pa.DataType]) -> pa.Table:
    convert = pc_csv.ConvertOptions(
        column_types=types, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False,
        true_values=_TRUE, false_values=_FALSE, timestamp_parsers=[pc_csv.ISO8601],
    )  # fmt: skip
    read = pc_csv.ReadOptions(use_threads=False, block_size=max(len(body) + 1, _BLOCK))
    parse = pc_csv.ParseOptions(newlines_in_values=True)
    return pc_csv.read_csv(pa.BufferReader(body), read, parse, convert)


def _wrong(body: bytes, header: Sequence[str], inputs: dict[str, InputColumn], error: pa.ArrowInvalid) -> BadRequest:
    """What is wrong: the first value that its column does not take, else Arrow's own words."""
    try:
        texts = _read(body, dict.fromkeys(header, pa.string()))
    except pa.ArrowInvalid:
        return BadRequest(400, f"the body is not CSV: {str(error).splitlines()[0]}")
    for given, column in inputs.items():
        values = texts.column(given).to_pylist()
        if column.kind in (Kind.NUMBER, Kind.BOOLEAN):
            values = [value if value is None else _plain(value, column.kind) for value in values]
        try:
            parse_values(column, values, lambda i, name=given: f"rows[{i}].{name}", 422)  # type: ignore[misc]
        except BadRequest as wrong:
            return wrong
    return BadRequest(422, f"the body does not fit: {str(error).splitlines()[0]}")


def _plain(text: str, kind: Kind) -> float | bool | str:
    if kind is Kind.BOOLEAN:
        return text in _TRUE if text in (*_TRUE, *_FALSE) else text
    try:
        return float(text)
    except ValueError:
        return text


def write_csv_body(outputs: Sequence[Output], predictions: Predictions) -> bytes:
    """The answer as CSV."""
    columns: dict[str, pa.Array] = {}
    for output, answer in zip(outputs, predictions, strict=True):
        if isinstance(answer, np.ndarray) and answer.ndim == 2:
            names = output.classes or tuple(str(i) for i in range(1, answer.shape[1] + 1))
            columns |= {f"{output.name}.{name}": pa.array(answer[:, i].astype(np.float64)) for i, name in enumerate(names)}
        else:
            columns[output.name] = _flat(answer_array(output, answer))
    sink = pa.BufferOutputStream()
    pc_csv.write_csv(pa.table(columns), sink)
    return bytes(sink.getvalue())


def _flat(values: pa.Array) -> pa.Array:
    """Lists as JSON texts: CSV has no other."""
    if not pa.types.is_list(values.type):
        return values
    import msgspec

    return pa.array([None if value is None else msgspec.json.encode(value).decode() for value in values.to_pylist()], pa.string())
