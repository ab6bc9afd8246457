"""What the OpenAPI document says of many rows at once: CSV and Arrow, with examples that work when pasted.  No I/O."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from sqlml.plan import InputColumn
from sqlml.types import Kind
from sqlml_runners.serving.csv_body import write_csv_body
from sqlml_runners.serving.forms import ARROW, CSV
from sqlml_runners.serving.protocol import ITEM
from sqlml_runners.serving.served import Served

_TYPES: Mapping[Kind, str] = {
    Kind.NUMBER: "pa.float64()",
    Kind.BOOLEAN: "pa.bool_()",
    Kind.NUMBERS: "pa.list_(pa.float64())",
    Kind.TEXTS: "pa.list_(pa.string())",
}
_PASTE = """import urllib.request
import pyarrow as pa

schema = pa.schema({schema})
rows = pa.Table.from_pylist([{row}], schema=schema)
body = pa.BufferOutputStream()
with pa.ipc.new_stream(body, schema) as writer:
    writer.write_table(rows)
request = urllib.request.Request(
    "http://127.0.0.1:8080{path}",  # where your server is
    body.getvalue().to_pybytes(),
    {{"content-type": "{arrow}"}},
)
with urllib.request.urlopen(request) as answer:
    print(pa.ipc.open_stream(answer.read()).read_all())
"""


def add_bulk(post: dict[str, Any], served: Served) -> None:
    """Add the two other bodies of a prediction, and their answers, to what JSON's operation says."""
    inputs, example, arrow, as_csv = served.rows.inputs, served.example, ARROW.decode(), CSV.decode()
    content, answers = post["requestBody"]["content"], post["responses"]["200"]["content"]
    content[arrow] = {"schema": _binary("an Arrow IPC stream or file, columns by name; one that is missing is NULL")}
    answers[arrow] = {"schema": _binary("an Arrow IPC stream, a column for each output")}
    schema = ", ".join(f"({column.name!r}, {_TYPES.get(column.kind, 'pa.string()')})" for column in inputs)
    path = f"/models/{quote(served.endpoint, safe='')}/predict"
    source = _PASTE.format(schema=f"[{schema}]", row=repr(example), path=path, arrow=arrow)
    post["x-codeSamples"] = [{"lang": "Python", "label": "Arrow", "source": source}]
    if not any(column.kind in ITEM for column in inputs):
        what = "the first line has the columns' names; nothing between two commas is NULL"
        content[as_csv] = {"schema": {"type": "string", "description": what}, "example": csv_text(inputs, example)}
    answers[as_csv] = {"schema": {"type": "string"}, "example": write_csv_body(served.outputs, served.sample).decode()}


def _binary(what: str) -> dict[str, Any]:
    return {"type": "string", "contentMediaType": ARROW.decode(), "description": what}


def csv_text(inputs: Sequence[InputColumn], row: Mapping[str, Any]) -> str:
    """A row of JSON values as CSV, with its header."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([column.name for column in inputs])
    writer.writerow([_cell(row.get(column.name)) for column in inputs])
    return sink.getvalue()


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else value
