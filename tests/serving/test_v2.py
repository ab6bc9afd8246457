"""The Open Inference Protocol's bodies, as functions of bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlml_runners.serving.outputs import Output
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.v2 import decode_infer, encode_infer, example_request, model_metadata

from sqlml.plan import InputColumn
from sqlml.types import Kind

INPUTS = (
    InputColumn("age", "BIGINT", Kind.NUMBER),
    InputColumn("job", "VARCHAR", Kind.TEXT),
    InputColumn("own", "BOOLEAN", Kind.BOOLEAN),
    InputColumn("day", "DATE", Kind.DATE),
)
OUTPUTS = (Output("predicted_y"), Output("predicted_y_probs", ("no", "yes")))
PREDICTIONS = (pa.array(["no", "yes"]), np.array([[0.75, 0.25], [0.5, 0.5]]))


def request(**changes: dict[str, Any]) -> dict[str, Any]:
    tensors: dict[str, dict[str, Any]] = {
        "age": {"name": "age", "shape": [2], "datatype": "INT64", "data": [41, None]},
        "job": {"name": "job", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], [None]]},
        "own": {"name": "own", "shape": [2, 1], "datatype": "BOOL", "data": [True, None]},
        "day": {"name": "day", "shape": [2], "datatype": "BYTES", "data": ["2024-05-31", None]},
    }
    return {"id": "7", "inputs": [tensors[name] | changes.get(name, {}) for name in tensors]}


def decode(document: dict[str, Any]) -> Any:
    return decode_infer(INPUTS, json.dumps(document).encode())


def test_tensors_become_columns() -> None:
    call = decode(request())
    assert (call.id, call.outputs) == ("7", ())
    assert {name: array.to_pylist() for name, array in call.columns.items()} | {"day": None} == {
        "age": [41, None], "job": ["a", None], "own": [True, None], "day": None,
    }  # fmt: skip
    assert [str(array.type) for array in call.columns.values()] == ["double", "string", "bool", "date32[day]"]


@pytest.mark.parametrize(
    "datatype", ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]
)
def test_numbers_of_every_datatype(datatype: str) -> None:
    assert decode(request(age={"datatype": datatype, "data": [1, 127]})).columns["age"].to_pylist() == [1.0, 127.0]


def test_no_rows() -> None:
    empty = {"shape": [0], "data": []}
    assert len(decode(request(age=empty, job=empty, own=empty, day=empty)).columns["age"]) == 0


AGE = "inputs[0].data[0] (age): expected a whole number from"
WRONG = [
    ({"age": {"datatype": "INT8", "data": [300, 1]}}, f"{AGE} -128 to 127 (INT8), got the number 300"),
    ({"age": {"datatype": "UINT16", "data": [-1, 1]}}, f"{AGE} 0 to 65535 (UINT16), got the number -1"),
    ({"age": {"datatype": "UINT64", "data": [-1, 1]}}, f"{AGE} 0 to 18446744073709551615 (UINT64)"),
    ({"age": {"datatype": "FP64", "data": [1, "old"]}}, "inputs[0].data[1] (age): expected a number, got the text 'old'"),
    ({"age": {"datatype": "FP64", "data": [["old"], [1]]}}, "inputs[0].data[0][0] (age): expected a number, got the text 'old'"),
    ({"age": {"datatype": "FP64", "data": [[1], 2]}}, "inputs[0].data[1] (age): Expected array, got int"),
    ({"age": {"data": [1.5, 1]}}, "inputs[0].data[0] (age): expected a whole number from -9223372036854775808 to "),
    ({"job": {"data": ["a", 3]}}, "inputs[1].data[1] (job): expected a text, got the number 3"),
    ({"age": {"data": 7}}, "inputs[0].data (age): expected a list, got the number 7"),
    ({"own": {"data": [1, 0]}}, "inputs[2].data[0] (own): expected true or false, got the number 1"),
    ({"age": {"datatype": "BYTES"}}, "input 'age' must be UINT8, UINT16, UINT32, UINT64, INT8, "),
    ({"job": {"datatype": "FP64"}}, "input 'job' must be BYTES, not FP64"),
    ({"job": {"datatype": "STRING"}}, "input 'job' has the unknown datatype 'STRING'; known: BOOL, "),
    ({"age": {"shape": [3]}}, "input 'age' has the shape [3] but 2 values"),
    ({"age": {"data": [1]}}, "input 'age' has the shape [2] but 1 value"),
    ({"age": {"shape": [1, 2]}}, "input 'age' must have the shape [n] or [n, 1], not [1, 2]"),
    ({"age": {"shape": [-1]}}, "input 'age' must have the shape [n] or [n, 1], not [-1]"),
    ({"age": {"shape": []}}, "input 'age' must have the shape [n] or [n, 1], not []"),
    ({"age": {"shape": ["2"]}}, "the body is not an inference request: Expected int, got str - at inputs[0].shape[0]"),
    ({"age": {"name": "agee"}}, "the model has no input 'agee'; did you mean age?"),
    ({"age": {"name": "job"}}, "the input 'job' is given twice"),
    ({"age": {"shape": [1], "data": [1]}}, "the inputs differ in length: age has 1, job has 2, own has 2, day has 2"),
    ({"day": {"data": ["2024-05-31", "x"]}}, "inputs[3].data[1] (day): expected a date such as '2024-05-31', got the text 'x'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(request(**changes))
    assert caught.value.status == 400
    assert caught.value.message.startswith(message)


def test_the_place_of_a_wrong_value_is_the_field() -> None:
    document = request(day={"shape": [2, 1], "data": [["2024-05-31"], ["x"]]})
    document["inputs"].reverse()
    with pytest.raises(BadRequest) as caught:
        decode(document)
    assert caught.value.field == "inputs[0].data[1][0]"


def test_a_number_too_large_for_any_type() -> None:
    body = json.dumps(request(age={"datatype": "FP64", "data": [1, "huge"]})).replace('"huge"', "1e999")
    with pytest.raises(BadRequest) as caught:
        decode_infer(INPUTS, body.encode())
    assert (caught.value.status, caught.value.message) == (400, "inputs[0].data[1] (age): Number out of range")


def test_a_missing_input_is_named() -> None:
    document = request()
    del document["inputs"][0]
    with pytest.raises(BadRequest, match="missing inputs: age"):
        decode(document)


def test_binary_tensors_are_refused() -> None:
    document = request()
    del document["inputs"][0]["data"]
    document["inputs"][0]["parameters"] = {"binary_data_size": 16}
    with pytest.raises(BadRequest, match="binary tensor extension is not supported: send JSON"):
        decode(document)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"inputs": 3}', b'{"inputs": [], "id": 7}'])
def test_a_body_that_is_no_request(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_infer(INPUTS, body)
    assert caught.value.status == 400


def test_answers() -> None:
    assert json.loads(encode_infer("deposit", 2, decode(request()), OUTPUTS, PREDICTIONS)) == {
        "model_name": "deposit",
        "model_version": "2",
        "id": "7",
        "outputs": [
            {"name": "predicted_y", "datatype": "BYTES", "shape": [2], "data": ["no", "yes"]},
            {
                "name": "predicted_y_probs", "datatype": "FP64", "shape": [2, 2], "data": [0.75, 0.25, 0.5, 0.5],
                "parameters": {"classes": ["no", "yes"]},
            },
        ],
    }  # fmt: skip


def test_only_the_outputs_that_were_asked_for() -> None:
    call = decode(request() | {"outputs": [{"name": "predicted_y_probs", "parameters": {"binary_data": False}}]})
    assert [tensor["name"] for tensor in json.loads(encode_infer("m", 1, call, OUTPUTS, PREDICTIONS))["outputs"]] == [
        "predicted_y_probs"
    ]
    with pytest.raises(BadRequest, match="the model has no output 'p'; it has: predicted_y, predicted_y_probs"):
        encode_infer("m", 1, decode(request() | {"outputs": [{"name": "p"}]}), OUTPUTS, PREDICTIONS)


@pytest.mark.parametrize(
    ("answers", "datatype"),
    [(pa.array([True]), "BOOL"), (pa.array([1]), "INT64"), (pa.array([1.5]), "FP64"), (pa.array(["a"]), "BYTES")],
)
def test_metadata(answers: pa.Array, datatype: str) -> None:
    metadata = model_metadata("m", 3, INPUTS, [Output("predicted_y")], [answers])
    assert metadata["versions"] == ["3"]
    assert [(i["name"], i["datatype"], i["shape"]) for i in metadata["inputs"]] == [
        ("age", "FP64", [-1]), ("job", "BYTES", [-1]), ("own", "BOOL", [-1]), ("day", "BYTES", [-1]),
    ]  # fmt: skip
    assert metadata["outputs"] == [{"name": "predicted_y", "datatype": datatype, "shape": [-1]}]


def test_the_example_is_a_request_that_fits() -> None:
    assert decode(example_request(INPUTS, {"age": 3, "job": "a", "own": None, "day": "2024-05-31"})).columns[
        "age"
    ].to_pylist() == [3]


def infer_outputs(outputs: list[Output], predictions: list[Any]) -> Any:
    call = decode(request())
    return json.loads(encode_infer("m", 1, call, outputs, predictions))["outputs"]


def test_every_output_is_a_tensor_of_its_own() -> None:
    outputs = [*OUTPUTS, Output("predicted_n"), Output("is_anomaly"), Output("day", nullable=True)]
    answers = [*PREDICTIONS, pa.array([1.5, 2.5]), pa.array([True, False]), pa.array(["2024-05-31", None])]
    tensors = infer_outputs(outputs, answers)
    assert [(t["name"], t["datatype"], t["shape"]) for t in tensors] == [
        ("predicted_y", "BYTES", [2]), ("predicted_y_probs", "FP64", [2, 2]), ("predicted_n", "FP64", [2]),
        ("is_anomaly", "BOOL", [2]), ("day", "BYTES", [2]),
    ]  # fmt: skip
    assert tensors[-1]["data"] == ["2024-05-31", None]


def test_lists_are_filled_up_to_the_longest() -> None:
    outputs = [Output("vec", nullable=True), Output("words", nullable=True)]
    answers = [pa.array([[1.0, 2.0], None]), pa.array([["a"], ["b", "c"]])]
    assert infer_outputs(outputs, answers) == [
        {"name": "vec", "datatype": "FP64", "shape": [2, 2], "data": [1.0, 2.0, None, None]},
        {"name": "words", "datatype": "BYTES", "shape": [2, 2], "data": ["a", None, "b", "c"]},
    ]
    metadata = model_metadata("m", 3, INPUTS, outputs, answers)
    assert [(o["datatype"], o["shape"]) for o in metadata["outputs"]] == [("FP64", [-1, -1]), ("BYTES", [-1, -1])]


def test_a_model_that_takes_lists_is_asked_by_rows() -> None:
    inputs = [*INPUTS, InputColumn("tags", "VARCHAR[]", Kind.TEXTS), InputColumn("vec", "DOUBLE[]", Kind.NUMBERS)]
    for body in (b'{"inputs": []}', json.dumps(request()).encode()):
        with pytest.raises(BadRequest) as caught:
            decode_infer(inputs, body)
        assert (caught.value.status, caught.value.message) == (
            400,
            "the model takes lists (tags, vec), which fit no tensor: "
            'use the rows form, POST /models/{model}/predict with {"rows": [{…}]}',
        )
    assert model_metadata("m", 3, inputs, OUTPUTS, PREDICTIONS)["inputs"][-2:] == [
        {"name": "tags", "datatype": "BYTES", "shape": [-1, -1], "parameters": {"rows_form_only": True}},
        {"name": "vec", "datatype": "FP64", "shape": [-1, -1], "parameters": {"rows_form_only": True}},
    ]
