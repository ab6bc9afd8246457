"""The plain form, as functions of bytes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlml_runners.serving.arrow_body import bulk_of
from sqlml_runners.serving.outputs import Output
from sqlml_runners.serving.protocol import BadRequest, columns_of
from sqlml_runners.serving.rows import decode_rows, encode_rows, row_form

from sqlml.plan import InputColumn
from sqlml.types import Kind

FORM = row_form(
    (
        InputColumn("age", "BIGINT", Kind.NUMBER),
        InputColumn("job", "VARCHAR", Kind.TEXT),
        InputColumn("Größe in cm", "DOUBLE", Kind.NUMBER),
        InputColumn("own", "BOOLEAN", Kind.BOOLEAN),
        InputColumn("day", "DATE", Kind.DATE),
        InputColumn("at", "TIME", Kind.TIME),
        InputColumn("seen", "TIMESTAMP", Kind.TIMESTAMP),
        InputColumn("zoned", "TIMESTAMPTZ", Kind.TIMESTAMPTZ),
    )
)


def decode(rows: Any) -> dict[str, list[Any]]:
    columns = columns_of(FORM.inputs, decode_rows(FORM, json.dumps({"rows": rows}).encode()))
    assert {len(array) for array in columns.values()} == {len(rows)}
    return {name: array.to_pylist() for name, array in columns.items()}


def test_values_arrive_in_the_types_of_the_model() -> None:
    row = {
        "age": 41, "job": "técnico", "Größe in cm": 180.5, "own": True, "day": "2024-05-31", "at": "13:45:00",
        "seen": "2024-05-31 13:45:00", "zoned": "2024-05-31T13:45:00+02:00",
    }  # fmt: skip
    columns = columns_of(FORM.inputs, decode_rows(FORM, json.dumps({"rows": [row]}).encode()))
    assert [str(array.type) for array in columns.values()] == [
        "double", "string", "double", "bool", "date32[day]", "time64[us]", "timestamp[us]", "timestamp[us, tz=UTC]",
    ]  # fmt: skip
    assert columns["zoned"][0].as_py().isoformat() == "2024-05-31T11:45:00+00:00"


def test_missing_and_null_are_null() -> None:
    columns = decode([{}, {"age": None, "job": "a"}])
    assert columns["age"] == [None, None]
    assert columns["job"] == [None, "a"]
    assert columns["zoned"] == [None, None]


@pytest.mark.parametrize("other", ["", ', "JOB": "a"'])  # read into a struct, and name by name
def test_of_the_very_same_name_twice_the_last_counts(other: str) -> None:
    rows = decode_rows(FORM, b'{"rows": [{"age": 1, "age": "2", "age": 3%s}]}' % other.encode())
    assert rows[0][0] == 3


def test_integers_and_floats_are_numbers() -> None:
    assert decode([{"age": 1}, {"age": 1.5}, {"age": -(2**63)}, {"age": 2**70}])["age"] == [1, 1.5, -(2**63), 2**70]


def test_names_match_in_any_case_and_exactly_first() -> None:
    assert decode([{"AGE": 3, "grÖße IN CM": 1}])["age"] == [3]
    both = row_form([InputColumn("Age", "DOUBLE", Kind.NUMBER), InputColumn("age", "DOUBLE", Kind.NUMBER)])
    assert decode_rows(both, b'{"rows": [{"age": 4, "Age": 3}, {"AGE": 1, "Age": 2}]}') == [(3, 4, None), (2, 1, None)]


@pytest.mark.parametrize("names", [("AGE", "age"), ("age", "AGE"), ("Age", "aGE")])
def test_the_same_name_twice_in_one_row_is_refused(names: tuple[str, str]) -> None:
    first, second = names
    with pytest.raises(BadRequest) as caught:
        decode([{}, {first: 3, "job": "a", second: 3}])
    message = f"rows[1]: {first}, {second} mean the same input: give one of them"
    assert (caught.value.status, caught.value.message, caught.value.field) == (422, message, f"rows[1].{second}")
    with pytest.raises(BadRequest, match=f"^{first}, {second} mean the same input") as refused:
        bulk_of(FORM, {first: pa.array([3.0]), second: pa.array([3.0])}, 1)
    assert refused.value.status == 422


def test_no_rows() -> None:
    assert decode([])["age"] == []


WRONG = [
    ('{"rows": [{}, {}, {}, {"age": "old"}]}', 422, "rows[3].age: expected a number, got the text 'old'", "rows[3].age"),
    ('{"rows": [{"age": true}]}', 422, "rows[0].age: expected a number, got true", "rows[0].age"),
    ('{"rows": [{"age": [1]}]}', 422, "rows[0].age: expected a number, got a list", "rows[0].age"),
    ('{"rows": [{"age": {}}]}', 422, "rows[0].age: expected a number, got an object", "rows[0].age"),
    ('{"rows": [{"age": 1e999}]}', 422, "rows[0].age: number out of range", "rows[0].age"),
    ('{"rows": [{"job": 3}]}', 422, "rows[0].job: expected a text, got the number 3", "rows[0].job"),
    ('{"rows": [{"own": 1}]}', 422, "rows[0].own: expected true or false, got the number 1", "rows[0].own"),
    ('{"rows": [{"day": "x"}]}', 422, "rows[0].day: expected a date such as '2024-05-31', got the text 'x'", "rows[0].day"),
    ('{"rows": [{"day": 3}]}', 422, "rows[0].day: expected a date such as '2024-05-31', got the number 3", "rows[0].day"),
    ('{"rows": [{"jobb": 3}]}', 422, "rows[0].jobb: the model has no input 'jobb'; did you mean job?", "rows[0].jobb"),
    ('{"rows": [{}, 3]}', 422, "rows[1]: expected an object, got the number 3", "rows[1]"),
    ('{"rows": [null]}', 422, "rows[0]: expected an object, got null", "rows[0]"),
    ('{"rows": {}}', 422, "rows: expected a list of objects, got an object", "rows"),
    ('{"rows": [], "row": 1}', 422, """unknown field 'row': the body must be {"rows": [{…}, …]}""", "row"),
    ("{}", 422, 'the body must be {"rows": [{…}, …]}, one object a row', "rows"),
    ("[]", 422, 'the body must be {"rows": [{…}, …]}, one object a row', "rows"),
    ('{"rows": [{"age": NaN}]}', 400, "the body is not JSON: JSON is malformed: invalid character (byte 18)", None),
    ('{"rows": [', 400, "the body is not JSON: Input data was truncated", None),
    (" ", 400, "the body is empty", None),
]


@pytest.mark.parametrize(("body", "status", "message", "field"), WRONG)
def test_what_does_not_fit_is_named(body: str, status: int, message: str, field: str | None) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_rows(FORM, body.encode())
    assert (caught.value.status, caught.value.message, caught.value.field) == (status, message, field)


def test_a_body_that_nests_too_deep_is_refused() -> None:
    with pytest.raises(BadRequest, match="is not JSON"):
        decode_rows(FORM, b"[" * 100_000)


ODD = ('say "hi"', "back\\slash", "two\nlines", "nul\0", "🙂")


def test_inputs_whose_names_json_escapes() -> None:
    form = row_form([InputColumn(name, "DOUBLE", Kind.NUMBER) for name in ODD])
    rows = [{name: i for i, name in enumerate(ODD)}, {ODD[0].upper(): 9}, {}]
    columns = columns_of(form.inputs, decode_rows(form, json.dumps({"rows": rows}).encode()))
    assert [array.to_pylist() for array in columns.values()] == [
        [0, 9, None], [1, None, None], [2, None, None], [3, None, None], [4, None, None],
    ]  # fmt: skip


ODD_WRONG = [
    ('{"rows": [{"🙂": "old"}]}', 422, "rows[0].🙂: expected a number, got the text 'old'"),
    (r'{"rows": [{}, {"say \"hi\"": true}]}', 422, 'rows[1].say "hi": expected a number, got true'),
    ('{"rows": [{"🙂🙂": 1}]}', 422, "rows[0].🙂🙂: the model has no input '🙂🙂'; did you mean 🙂?"),
    ('{"rows": [{"🙂": 1e999}]}', 422, "the body does not fit: Number out of range"),
    ('{"rows": 3}', 422, "rows: expected a list of objects, got the number 3"),
    ("{", 400, "the body is not JSON: Input data was truncated"),
]


@pytest.mark.parametrize(("body", "status", "message"), ODD_WRONG)
def test_errors_with_such_names_are_the_same(body: str, status: int, message: str) -> None:
    form = row_form([InputColumn(name, "DOUBLE", Kind.NUMBER) for name in ODD])
    with pytest.raises(BadRequest) as caught:
        decode_rows(form, body.encode())
    assert (caught.value.status, caught.value.message) == (status, message)


PROBS = Output("predicted_y_probs", ("no", "yes"))


def encode(outputs: list[Output], predictions: list[Any]) -> Any:
    return json.loads(encode_rows("m", 2, outputs, predictions))["predictions"]


def test_answers() -> None:
    outputs = [Output("predicted_y"), PROBS]
    assert json.loads(encode_rows("deposit", 2, outputs, [pa.array(["no"]), np.array([[0.75, 0.25]])])) == {
        "model": "deposit",
        "version": 2,
        "predictions": [{"predicted_y": "no", "predicted_y_probs": {"no": 0.75, "yes": 0.25}}],
    }


def test_answers_that_are_not_finite_are_null() -> None:
    rows = encode([Output("predicted_y")], [pa.array([float("nan"), float("inf"), 1.0])])
    assert rows == [{"predicted_y": None}, {"predicted_y": None}, {"predicted_y": 1.0}]


def test_clusters_come_with_their_distances_nearest_first() -> None:
    outputs = [Output("centroid_id"), Output("nearest_centroids_distance")]
    assert encode(outputs, [pa.array([2], pa.int64()), np.array([[3.0, 1.0]])]) == [
        {
            "centroid_id": 2,
            "nearest_centroids_distance": [{"centroid_id": 2, "distance": 1.0}, {"centroid_id": 1, "distance": 3.0}],
        }
    ]


def test_answers_of_several_targets_and_of_lists() -> None:
    outputs = [Output("predicted_y"), PROBS, Output("predicted_n"), Output("words", nullable=True)]
    answers = [pa.array(["no"]), np.array([[0.75, 0.25]]), pa.array([3.5]), pa.array([["a", None]], pa.list_(pa.string()))]
    assert encode(outputs, answers) == [
        {"predicted_y": "no", "predicted_y_probs": {"no": 0.75, "yes": 0.25}, "predicted_n": 3.5, "words": ["a", None]}
    ]
    assert encode(outputs, [pa.array([], a.type) if isinstance(a, pa.Array) else a[:0] for a in answers]) == []


# --- inputs that are lists ---

LISTS = row_form((InputColumn("tags", "VARCHAR[]", Kind.TEXTS), InputColumn("vec", "FLOAT[3]", Kind.NUMBERS)))


def decode_lists(rows: Any) -> dict[str, list[Any]]:
    columns = columns_of(LISTS.inputs, decode_rows(LISTS, json.dumps({"rows": rows}).encode()))
    assert [str(array.type) for array in columns.values()] == ["list<item: string>", "list<item: double>"]
    return {name: array.to_pylist() for name, array in columns.items()}


def test_lists_are_arrays() -> None:
    rows: list[dict[str, Any]] = [{"tags": ["a", None], "vec": [1, 2.5, None]}, {"tags": [], "vec": None}, {}]
    expected = {"tags": [["a", None], [], None], "vec": [[1.0, 2.5, None], None, None]}
    assert decode_lists(rows) == expected
    assert decode_lists([{name.upper(): value for name, value in row.items()} for row in rows]) == expected
    assert decode_lists([]) == {"tags": [], "vec": []}


WRONG_LISTS = [
    ({"tags": ["a", "b", 3]}, "rows[0].tags[2]: expected a text, got the number 3", "rows[0].tags[2]"),
    ({"tags": ["a", ["b"]]}, "rows[0].tags[1]: expected a text, got a list", "rows[0].tags[1]"),
    ({"tags": "a"}, "rows[0].tags: expected a list of texts, got the text 'a'", "rows[0].tags"),
    ({"vec": [1, "x"]}, "rows[0].vec[1]: expected a number, got the text 'x'", "rows[0].vec[1]"),
    ({"vec": [True]}, "rows[0].vec[0]: expected a number, got true", "rows[0].vec[0]"),
    ({"VEC": [1, {}]}, "rows[0].vec[1]: expected a number, got an object", "rows[0].vec[1]"),
    ({"vec": {}}, "rows[0].vec: expected a list of numbers, got an object", "rows[0].vec"),
    ({"vec": 3}, "rows[0].vec: expected a list of numbers, got the number 3", "rows[0].vec"),
]


@pytest.mark.parametrize(("row", "message", "field"), WRONG_LISTS)
def test_what_does_not_fit_a_list_is_named(row: Any, message: str, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_lists([row])
    assert (caught.value.status, caught.value.message, caught.value.field) == (422, message, field)


def test_numbers_in_lists_beyond_64_bits() -> None:
    assert decode_lists([{"VEC": [2**70, 1e300]}])["vec"] == [[2.0**70, 1e300]]
