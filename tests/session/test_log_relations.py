"""``sqlml.predictions`` over files of any content: what it shows as JSON is JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest

import sqlml
from sqlml.home import Home, home_of
from sqlml.prediction_log import predictions_folder, predictions_schema, write_part
from sqlml.statements.log_relations import finite_sql, log_relations

INPUTS = pa.struct([
    ("a \"b\"", pa.float64()), ("n", pa.int64()), ("text", pa.string()), ("vec", pa.list_(pa.float64())),
    ("words", pa.list_(pa.string())),
])  # fmt: skip
OUTPUTS = pa.struct([("predicted_y", pa.float64()), ("predicted_y_probs", pa.struct([("yes", pa.float64())]))])
ROWS = [
    (
        {'a "b"': math.nan, "n": 1, "text": ":NaN, [Infinity", "vec": [math.inf, 1.0, None], "words": ["NaN"]},
        (-math.inf, math.nan),
    ),
    ({'a "b"': 2.5, "n": None, "text": None, "vec": None, "words": None}, (1.0, 0.5)),
]
SHOWN = [
    {'a "b"': None, "n": 1, "text": ":NaN, [Infinity", "vec": [None, 1.0, None], "words": ["NaN"]},
    {'a "b"': 2.5, "n": None, "text": None, "vec": None, "words": None},
]
ANSWERED = [
    {"predicted_y": None, "predicted_y_probs": {"yes": None}},
    {"predicted_y": 1.0, "predicted_y_probs": {"yes": 0.5}},
]


def write(home: Home) -> None:
    rows = []
    for i, (given, (number, prob)) in enumerate(ROWS):
        answer = {"predicted_y": number, "predicted_y_probs": {"yes": prob}}
        rows.append({"endpoint": "e", "request_id": "r", "row": i, "inputs": given, "outputs": answer})
    write_part(predictions_folder(home, "e", "u"), pa.Table.from_pylist(rows, schema=predictions_schema(INPUTS, OUTPUTS)))


def strict(text: str) -> object:
    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    database = tmp_path / "a.duckdb"
    with sqlml.connect(database) as connection:
        write(Home(home_of(database)))
        shown = connection.execute("SELECT inputs, outputs FROM sqlml.predictions ORDER BY row").fetchall()
    assert [strict(inputs) for inputs, _ in shown] == SHOWN
    assert [strict(outputs) for _, outputs in shown] == ANSWERED


def test_the_same_where_the_rows_are_copied(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write(home)
    predictions, _ = log_relations(home)
    rows = predictions.reader().read_all().to_pylist()
    assert [strict(row["inputs"]) for row in rows] == SHOWN
    assert [strict(row["outputs"]) for row in rows] == ANSWERED


@pytest.mark.parametrize("kind", [pa.string(), pa.struct([("a", pa.int64())]), pa.list_(pa.list_(pa.string()))])
def test_what_has_no_such_number_is_left_as_it_is(kind: pa.DataType) -> None:
    assert finite_sql("x", kind) == "x"
