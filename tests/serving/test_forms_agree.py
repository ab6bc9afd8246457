"""The same row gives the same answer, alone and among others; what one form of request refuses, all refuse."""

from __future__ import annotations

import json
import random
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlml_runners.serving.arrow_body import bulk_of
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.rows import row_form

from sqlml.native.library import library
from sqlml.plan import InputColumn
from sqlml.types import Kind
from tests.serving.conftest import Place


@pytest.mark.skipif(
    library() is None, reason="without the native library few rows are ONNX Runtime's, which adds up in another order"
)
def test_a_row_alone_and_among_others_has_the_same_answer_to_the_last_digit(bank: Place) -> None:
    chance = random.Random(3)
    rows = [
        {
            "age": chance.choice([chance.randint(18, 90), chance.uniform(18, 90), None]),
            "job": chance.choice(["technician", "admin", "retired", "unheard of", None]),
            "own house": chance.choice([True, False, None]),
            "since": f"20{chance.randint(10, 24)}-0{chance.randint(1, 9)}-11",
        }
        for _ in range(300)
    ]
    status, whole = bank.call("/models/deposit/predict", {"rows": rows})
    assert status == 200
    for size in (1, 7):
        parts = [bank.call("/models/deposit/predict", {"rows": rows[i : i + size]})[1] for i in range(0, 300, size)]
        assert [row for part in parts for row in part["predictions"]] == whole["predictions"]


def post(bank: Place, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{bank.server.url()}{path}", body, named), timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def tensor(values: list[float]) -> tuple[bytes, str]:
    """The age as a binary tensor; every other input as JSON."""
    rest = {"job": ("BYTES", "admin"), "own house": ("BOOL", True), "since": ("BYTES", "2024-05-31"),
            "seen": ("BYTES", "2024-05-31 13:45:00")}  # fmt: skip
    inputs = [{"name": name, "datatype": kind, "shape": [len(values)], "data": [value] * len(values)}
              for name, (kind, value) in rest.items()]  # fmt: skip
    blob = np.array(values, np.float32).tobytes()
    age = {"name": "age", "datatype": "FP32", "shape": [len(values)], "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [*inputs, age]}).encode()
    return head + blob, str(len(head))


@pytest.mark.parametrize(("text", "value"), [("inf", np.inf), ("-inf", -np.inf)])
def test_an_infinity_is_refused_in_every_form_with_its_place(bank: Place, text: str, value: float) -> None:
    error = f"rows[1].age: expected a finite number, got the number {text}"
    expected = (422, {"error": error, "field": "rows[1].age"})
    assert post(bank, "/models/deposit/predict", f"age\n41\n{text}\n".encode(), content_type="text/csv") == expected
    for kind in (pa.float64(), pa.float32(), pa.float16()):
        body = arrow(pa.table({"age": pa.array(np.array([41, value], kind.to_pandas_dtype()), kind)}))
        kinds = {"content_type": "application/vnd.apache.arrow.stream"}
        assert post(bank, "/models/deposit/predict", body, **kinds) == expected
    body, size = tensor([41, value])
    status, answer = post(bank, "/v2/models/deposit/infer", body, inference_header_content_length=size)
    assert (status, answer["field"]) == (400, "inputs[4].data[1]")
    assert "expected a finite number" in answer["error"]
    sign = text.removesuffix("inf")
    status, answer = post(bank, "/models/deposit/predict", f'{{"rows": [{{"age": 41}}, {{"age": {sign}1e999}}]}}'.encode())
    assert (status, "out of range" in answer["error"]) == (422, True)


def test_nan_is_null_where_a_form_has_it(bank: Place) -> None:
    _, null = bank.call("/models/deposit/predict", {"rows": [{}]})
    for body, kind in ((b"age\nnan\n", "text/csv"), (arrow(pa.table({"age": [np.nan]})), "application/vnd.apache.arrow.stream")):
        status, answer = post(bank, "/models/deposit/predict", body, content_type=kind, accept="application/json")
        assert (status, json.loads(answer)) == (200, null)


def test_an_infinity_in_a_list_has_its_place_too() -> None:
    form = row_form([InputColumn("vec", "DOUBLE[]", Kind.NUMBERS)])
    lists = pa.array([None, [1.0], [], [2.0, None, float("inf")]], pa.list_(pa.float64()))
    with pytest.raises(BadRequest, match=r"rows\[3\]\.vec\[2\]: expected a finite number") as refused:
        bulk_of(form, {"vec": lists}, 4)
    assert refused.value.field == "rows[3].vec[2]"
    with pytest.raises(BadRequest, match=r"rows\[1\]\.vec\[2\]"):
        bulk_of(form, {"vec": lists.slice(2)}, 2)


@pytest.mark.parametrize(
    ("name", "values", "value"),
    [
        ("age", pa.array([None, "41"]), "41"),
        ("age", pa.array([None, "41"]).dictionary_encode(), "41"),
        ("age", pa.array([None, True]), True),
        ("job", pa.array([None, 3]), 3),
        ("own house", pa.array([None, 1]), 1),
        ("own house", pa.array([None, "true"]), "true"),
        ("since", pa.array([None, 19_000], pa.int32()), 19_000),
        ("age", pa.array([None, [41.0]]), [41.0]),
    ],
)
def test_a_value_of_another_kind_is_refused_alike_in_json_and_arrow(bank: Place, name: str, values: pa.Array, value: Any) -> None:
    expected = bank.call("/models/deposit/predict", {"rows": [{}, {name: value}]})
    assert (expected[0], expected[1]["field"]) == (422, f"rows[1].{name}")
    body = arrow(pa.table({name: values}))
    assert post(bank, "/models/deposit/predict", body, content_type="application/vnd.apache.arrow.stream") == expected


def test_columns_without_a_value_and_dates_as_texts_are_taken_in_arrow(bank: Place) -> None:
    _, expected = bank.call("/models/deposit/predict", {"rows": [{"since": "2024-05-31"}]})
    rows = pa.table({"age": pa.nulls(1, pa.string()), "job": pa.nulls(1), "since": ["2024-05-31"]})
    kinds = {"content_type": "application/vnd.apache.arrow.stream", "accept": "application/json"}
    status, answer = post(bank, "/models/deposit/predict", arrow(rows), **kinds)
    assert (status, json.loads(answer)) == (200, expected)


def test_lists_of_other_values_are_refused_at_the_value() -> None:
    form = row_form([InputColumn("vec", "DOUBLE[]", Kind.NUMBERS), InputColumn("tags", "VARCHAR[]", Kind.TEXTS)])
    with pytest.raises(BadRequest, match=r"rows\[1\]\.vec\[1\]: expected a number, got the text '2'"):
        bulk_of(form, {"vec": pa.array([[], [None, "2"]])}, 2)
    empty = bulk_of(form, {"tags": pa.array([[], None], pa.list_(pa.null()))}, 2)
    assert empty.columns["tags"].to_pylist() == [[], None]
