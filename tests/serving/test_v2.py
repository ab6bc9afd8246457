"""The Open Inference Protocol's bodies, as functions of bytes."""

from __future__ import annotations

import json
import struct
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlml_runners.serving.outputs import Output
from sqlml_runners.serving.protocol import BadRequest, columns_of
from sqlml_runners.serving.v2 import InferCall, decode_infer, encode_infer, example_request
from sqlml_runners.serving.v2_metadata import model_metadata

from sqlml.plan import InputColumn
from sqlml.types import Kind

INPUTS = (
    InputColumn("age", "BIGINT", Kind.NUMBER),
    InputColumn("job", "VARCHAR", Kind.TEXT),
    InputColumn("own", "BOOLEAN", Kind.BOOLEAN),
    InputColumn("day", "DATE", Kind.DATE),
)
OUTPUTS = (Output("predicted_y", type=pa.string()), Output("predicted_y_probs", ("no", "yes")))
PREDICTIONS = (pa.array(["no", "yes"]), np.array([[0.75, 0.25], [0.5, 0.5]]))


def request(**changes: dict[str, Any]) -> dict[str, Any]:
    tensors: dict[str, dict[str, Any]] = {
        "age": {"name": "age", "shape": [2], "datatype": "INT64", "data": [41, None]},
        "job": {"name": "job", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], [None]]},
        "own": {"name": "own", "shape": [2, 1], "datatype": "BOOL", "data": [True, None]},
        "day": {"name": "day", "shape": [2], "datatype": "BYTES", "data": ["2024-05-31", None]},
    }
    return {"id": "7", "inputs": [tensors[name] | changes.get(name, {}) for name in tensors]}


def decode(document: dict[str, Any]) -> InferCall:
    return decode_infer(INPUTS, json.dumps(document).encode())


def test_tensors_become_rows() -> None:
    call = decode(request())
    assert (call.id, call.outputs) == ("7", ())
    assert call.rows == [(41, "a", True, date(2024, 5, 31)), (None, None, None, None)]
    arrays = columns_of(INPUTS, call.rows)
    assert [str(array.type) for array in arrays.values()] == ["double", "string", "bool", "date32[day]"]


@pytest.mark.parametrize(
    "datatype", ["UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]
)
@pytest.mark.parametrize("inputs", [INPUTS, INPUTS[:3]])
def test_numbers_of_every_datatype(datatype: str, inputs: tuple[InputColumn, ...]) -> None:
    document = request(age={"datatype": datatype, "data": [1, 127]})
    document["inputs"] = document["inputs"][: len(inputs)]
    assert [row[0] for row in decode_infer(inputs, json.dumps(document).encode()).rows] == [1.0, 127.0]


def test_no_rows() -> None:
    empty = {"shape": [0], "data": []}
    assert decode(request(age=empty, job=empty, own=empty, day=empty)).rows == []


def test_the_quick_way_and_the_slow_one_agree() -> None:
    """Names in another case go the slow way."""
    document = request()
    document["inputs"] = document["inputs"][:3]
    quick = decode_infer(INPUTS[:3], json.dumps(document).encode())
    document["inputs"][0]["name"] = "AGE"
    slow = decode_infer(INPUTS[:3], json.dumps(document).encode())
    assert list(quick.rows) == list(slow.rows)


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


BINARY = {
    "age": ("INT32", np.array([41, 3], "<i4").tobytes()),
    "job": ("BYTES", struct.pack("<I", 1) + b"a" + struct.pack("<I", 4) + "é☺"[:1].encode() + b"xy"),
    "own": ("BOOL", b"\x01\x00"),
    "day": ("BYTES", b"".join(struct.pack("<I", 10) + day for day in (b"2024-05-31", b"2020-01-01"))),
}


def binary_request(**changes: bytes) -> tuple[bytes, int]:
    """A request with every tensor in binary, and the length of its JSON document."""
    blobs = {name: changes.get(name, blob) for name, (_, blob) in BINARY.items()}
    inputs = [
        {"name": name, "shape": [2], "datatype": BINARY[name][0], "parameters": {"binary_data_size": len(blob)}}
        for name, blob in blobs.items()
    ]
    document = json.dumps({"inputs": inputs}).encode()
    return document + b"".join(blobs.values()), len(document)


def test_binary_tensors() -> None:
    call = decode_infer(INPUTS, *binary_request())
    assert call.rows == [(41.0, "a", True, date(2024, 5, 31)), (3.0, "éxy", False, date(2020, 1, 1))]


def test_a_missing_number_in_binary_is_nan() -> None:
    blob = np.array([np.nan, 2.0]).tobytes()
    inputs = [{"name": "age", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": len(blob)}}]
    document = json.dumps({"inputs": inputs}).encode()
    rows = decode_infer(INPUTS[:1], document + blob, len(document)).rows
    assert columns_of(INPUTS[:1], rows)["age"].to_pylist() == [None, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age": b"\x00" * 7}, "input 'age' has 7 bytes; 2 values of INT32 are 8"),
        ({"job": b"\xff\xff\xff\xff"}, "input 'job' is not 2 texts"),
        ({"job": struct.pack("<I", 1) + b"\xff" + struct.pack("<I", 0)}, "input 'job': the text 0 is not UTF-8"),
        ({"day": BINARY["day"][1][:-1]}, "input 'day' is not 2 texts"),
        ({"day": b"".join(struct.pack("<I", 1) + b"x" for _ in range(2))}, "inputs[3].data[0] (day): expected a date"),
    ],
)
def test_binary_tensors_that_do_not_fit(changes: dict[str, bytes], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_infer(INPUTS, *binary_request(**changes))
    assert (caught.value.status, caught.value.message[: len(message)]) == (400, message)


@pytest.mark.parametrize(
    ("tail", "message"), [(b"\x00", "1 bytes follow the last binary tensor"), (None, "binary_data_size is 28, and 27 bytes")]
)
def test_binary_tensors_of_another_length_in_all(tail: bytes | None, message: str) -> None:
    body, size = binary_request()
    with pytest.raises(BadRequest, match=message):
        decode_infer(INPUTS, body[:-1] if tail is None else body + tail, size)


def test_answers_in_binary() -> None:
    document = request() | {"parameters": {"binary_data_output": True}}
    answer = encode_infer("m", "1", decode(document), OUTPUTS, PREDICTIONS)
    assert answer.json_size is not None
    tensors = json.loads(answer.body[: answer.json_size])["outputs"]
    assert [tensor["parameters"]["binary_data_size"] for tensor in tensors] == [13, 32]
    assert tensors[1]["parameters"]["classes"] == ["no", "yes"]
    texts, figures = answer.body[answer.json_size :][:13], answer.body[answer.json_size :][13:]
    assert texts == struct.pack("<I", 2) + b"no" + struct.pack("<I", 3) + b"yes"
    assert np.frombuffer(figures).tolist() == [0.75, 0.25, 0.5, 0.5]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"classification": 2}, "the classification extension"), ({"shared_memory_region": "r"}, "the shared memory extension")],
)
def test_extensions_that_are_not_there_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        decode(request() | {"outputs": [{"name": "predicted_y", "parameters": parameters}]})


def test_a_tensor_without_data() -> None:
    document = request()
    del document["inputs"][0]["data"]
    with pytest.raises(BadRequest, match="input 'age' has no data"):
        decode(document)


def test_a_key_beside_the_inputs() -> None:
    document = request()
    document["inputs"].append({"name": "customer", "shape": [2], "datatype": "INT64", "data": [7, 8]})
    call = decode_infer(INPUTS, json.dumps(document).encode(), keys=("customer",))
    assert [row[-1] for row in call.rows] == [7, 8]
    assert [len(row) for row in decode_infer(INPUTS, json.dumps(request()).encode(), keys=("customer",)).rows] == [5, 5]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"inputs": 3}', b'{"inputs": [], "id": 7}'])
def test_a_body_that_is_no_request(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_infer(INPUTS, body)
    assert caught.value.status == 400


def test_answers() -> None:
    assert json.loads(encode_infer("deposit", "2", decode(request()), OUTPUTS, PREDICTIONS).body) == {
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
    assert [tensor["name"] for tensor in json.loads(encode_infer("m", "1", call, OUTPUTS, PREDICTIONS).body)["outputs"]] == [
        "predicted_y_probs"
    ]
    with pytest.raises(BadRequest, match="the model has no output 'p'; it has: predicted_y, predicted_y_probs"):
        encode_infer("m", "1", decode(request() | {"outputs": [{"name": "p"}]}), OUTPUTS, PREDICTIONS)


@pytest.mark.parametrize(
    ("answers", "datatype"),
    [(pa.array([True]), "BOOL"), (pa.array([1]), "INT64"), (pa.array([1.5]), "FP64"), (pa.array(["a"]), "BYTES")],
)
def test_metadata(answers: pa.Array, datatype: str) -> None:
    metadata = model_metadata("m", ["3", "2"], INPUTS, [Output("predicted_y", type=answers.type)], [answers])
    assert metadata["versions"] == ["3", "2"]
    assert [(i["name"], i["datatype"], i["shape"]) for i in metadata["inputs"]] == [
        ("age", "FP64", [-1]), ("job", "BYTES", [-1]), ("own", "BOOL", [-1]), ("day", "BYTES", [-1]),
    ]  # fmt: skip
    assert metadata["outputs"] == [{"name": "predicted_y", "datatype": datatype, "shape": [-1]}]


def test_the_example_is_a_request_that_fits() -> None:
    assert decode(example_request(INPUTS, {"age": 3, "job": "a", "own": None, "day": "2024-05-31"})).rows[0][0] == 3


def infer_outputs(outputs: list[Output], predictions: list[Any]) -> Any:
    call = decode(request())
    return json.loads(encode_infer("m", "1", call, outputs, predictions).body)["outputs"]


def test_every_output_is_a_tensor_of_its_own() -> None:
    outputs = [
        *OUTPUTS, Output("predicted_n"), Output("is_anomaly", type=pa.bool_()), Output("day", nullable=True, type=pa.string()),
    ]  # fmt: skip
    answers = [*PREDICTIONS, np.array([1.5, 2.5]), np.array([True, False]), pa.array(["2024-05-31", None])]
    tensors = infer_outputs(outputs, answers)
    assert [(t["name"], t["datatype"], t["shape"]) for t in tensors] == [
        ("predicted_y", "BYTES", [2]), ("predicted_y_probs", "FP64", [2, 2]), ("predicted_n", "FP64", [2]),
        ("is_anomaly", "BOOL", [2]), ("day", "BYTES", [2]),
    ]  # fmt: skip
    assert tensors[-1]["data"] == ["2024-05-31", None]


def test_lists_are_filled_up_to_the_longest() -> None:
    outputs = [
        Output("vec", nullable=True, type=pa.list_(pa.float64())), Output("words", nullable=True, type=pa.list_(pa.string())),
    ]  # fmt: skip
    answers = [pa.array([[1.0, 2.0], None]), pa.array([["a"], ["b", "c"]])]
    assert infer_outputs(outputs, answers) == [
        {"name": "vec", "datatype": "FP64", "shape": [2, 2], "data": [1.0, 2.0, None, None]},
        {"name": "words", "datatype": "BYTES", "shape": [2, 2], "data": ["a", None, "b", "c"]},
    ]
    metadata = model_metadata("m", ["3"], INPUTS, outputs, answers)
    assert [(o["datatype"], o["shape"]) for o in metadata["outputs"]] == [("FP64", [-1, -1]), ("BYTES", [-1, -1])]


LISTS = (InputColumn("tags", "VARCHAR[]", Kind.TEXTS), InputColumn("vec", "DOUBLE[]", Kind.NUMBERS))


def test_lists_are_tensors_of_two_dimensions() -> None:
    tensors = [
        {"name": "tags", "shape": [2, 2], "datatype": "BYTES", "data": [["a", None], ["b", "c"]]},
        {"name": "vec", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, None, 6]},
    ]
    rows = decode_infer(LISTS, json.dumps({"inputs": tensors}).encode()).rows
    assert rows == [(["a", None], [1.0, 2.0, 3.0]), (["b", "c"], [4.0, None, 6.0])]
    tensors[1] |= {"shape": [6]}
    with pytest.raises(BadRequest, match="input 'vec' holds lists: it must have the shape"):
        decode_infer(LISTS, json.dumps({"inputs": tensors}).encode())
    tensors[1] |= {"shape": [2, 3], "data": [1, 2, 3, 4, "x", 6]}
    with pytest.raises(BadRequest, match=r"inputs\[1\].data\[4\] \(vec\): expected a number, got the text 'x'"):
        decode_infer(LISTS, json.dumps({"inputs": tensors}).encode())
    assert [i["shape"] for i in model_metadata("m", ["3"], LISTS, OUTPUTS, PREDICTIONS)["inputs"]] == [[-1, -1], [-1, -1]]


def test_the_example_of_lists_fits() -> None:
    document = example_request(LISTS, {"tags": ["a"], "vec": [1.0, 2.0]})
    assert decode_infer(LISTS, json.dumps(document).encode()).rows == [(["a"], [1.0, 2.0])]
