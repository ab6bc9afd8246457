"""Models of every sort behind an endpoint: both forms give what the model itself gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlml_runners.serving.openapi import openapi_document
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.served import Served
from sqlml_runners.serving.v2 import example_request

from sqlml.engines.duckdb.engine import DuckDBEngine
from sqlml.registry import get
from sqlml.types import Kind, Task
from tests.bundles.handmade import HEADS, TABLE, Learn, fit_transform, make_sort, open_bundle, rows_of, same
from tests.serving.conftest import Place, served_from

ROWS = 40
Serve = Callable[[str], Served]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """A model of each sort, loaded when it is first asked for."""

    @cache
    def load(sort: str) -> Served:
        folder = tmp_path_factory.mktemp("bundle")
        make_sort(folder, sort)
        return served_from(folder)

    return load


def given_rows(served: Served, sort: str) -> pa.Table:
    """Rows with the inputs and nothing else: a column that is none would be refused."""
    return rows_of(sort).slice(0, ROWS).select([i.name for i in served.model.inputs])


def asked(served: Served, rows: Any) -> list[dict[str, Any]]:
    """The predictions of the rows form."""
    answer: list[dict[str, Any]] = json.loads(served.predict(json.dumps({"rows": rows}).encode()))["predictions"]
    return answer


def inferred(served: Served, rows: pa.Table) -> dict[str, dict[str, Any]]:
    """The outputs of the V2 form, by name."""
    request = example_request(served.model.inputs, {})
    for tensor in request["inputs"]:
        tensor |= {"shape": [rows.num_rows], "data": rows[tensor["name"]].to_pylist()}
    return {tensor["name"]: tensor for tensor in json.loads(served.infer(json.dumps(request).encode()))["outputs"]}


def expected_rows(served: Served, rows: pa.Table) -> list[dict[str, Any]]:
    """What PREDICT MODEL adds to each row, as JSON writes it."""
    found: list[dict[str, Any]] = served.model.full(rows).to_pylist()
    kinds = dict(served.model.features)
    for row in found:
        for head in served.model.heads:
            if head.task is Task.CLASSIFICATION:
                probs = {str(p["label"]): p["prob"] for p in row[f"predicted_{head.target}_probs"]}
                names = {str(value): name for value, name in zip(head.classes, head.class_names, strict=True)}
                row[f"predicted_{head.target}_probs"] = {name: probs[text] for text, name in names.items()}
        if not served.model.heads:
            times = [name for name in row if kinds[name] in (Kind.DATE, Kind.TIMESTAMP)]
            row |= {name: None if row[name] is None else str(row[name]) for name in times}
    return found


@pytest.mark.parametrize("sort", HEADS)
def test_rows_get_all_that_the_model_adds(serve: Serve, sort: str) -> None:
    served, rows = serve(sort), given_rows(serve(sort), sort)
    answers = asked(served, rows.to_pylist())
    assert same(answers, expected_rows(served, rows))
    assert list(answers[0]) == served.model.full_schema.names
    assert asked(served, []) == []
    assert len(asked(served, [{}])) == 1


@pytest.mark.parametrize("sort", [sort for sort in HEADS if sort != "lists"])
def test_tensors_hold_the_same(serve: Serve, sort: str) -> None:
    served, rows = serve(sort), given_rows(serve(sort), sort)
    outputs, answers = inferred(served, rows), asked(served, rows.to_pylist())
    assert list(outputs) == served.model.full_schema.names
    described = {o["name"]: o for o in json.loads(json.dumps(served.metadata()))["outputs"]}
    for name, tensor in outputs.items():
        assert tensor["shape"][0] == ROWS
        assert (tensor["datatype"], len(tensor["shape"])) == (described[name]["datatype"], len(described[name]["shape"]))
        values = [answer[name] for answer in answers]
        if len(tensor["shape"]) == 1:
            assert same(tensor["data"], values)
            continue
        width = tensor["shape"][1]
        table = [tensor["data"][i * width : (i + 1) * width] for i in range(ROWS)]
        if "classes" in tensor.get("parameters", {}):
            values = [list(value.values()) for value in values]
            assert list(answers[0][name]) == tensor["parameters"]["classes"] == described[name]["parameters"]["classes"]
        elif name == "nearest_centroids_distance":
            values = [[d["distance"] for d in sorted(value, key=lambda d: d["centroid_id"])] for value in values]
        assert same(table, [value or [None] * width for value in values])
    assert {tensor["shape"][0] for tensor in inferred(served, rows.slice(0, 0)).values()} == {0}


def test_datatypes_of_the_new_outputs(serve: Serve) -> None:
    def described(sort: str) -> list[tuple[str, str, list[int]]]:
        return [(o["name"], o["datatype"], o["shape"]) for o in serve(sort).metadata()["outputs"]]

    assert described("components") == [(f"principal_component_{i}", "FP64", [-1]) for i in (1, 2)]
    assert described("anomalies") == [("is_anomaly", "BOOL", [-1]), ("anomaly_score", "FP64", [-1])]
    assert described("several") == [
        ("predicted_y", "BYTES", [-1]), ("predicted_y_probs", "FP64", [-1, 2]), ("predicted_the value", "FP64", [-1]),
        ("predicted_z", "INT64", [-1]), ("predicted_z_probs", "FP64", [-1, 3]),
    ]  # fmt: skip
    assert described("only transform") == [
        ("a scaled", "FP64", [-1]), ("both", "FP64", [-1]), ("word", "BYTES", [-1]), ("day", "BYTES", [-1]),
        ("at", "BYTES", [-1]), ("pair", "FP64", [-1, -1]), ("tags", "BYTES", [-1, -1]),
    ]  # fmt: skip


@pytest.mark.parametrize("sort", HEADS)
def test_the_document_describes_it(serve: Serve, sort: str) -> None:
    served = serve(sort)
    paths = json.loads(json.dumps(openapi_document("1", [served])))["paths"]
    post = paths["/models/e/predict"]["post"]
    content = post["requestBody"]["content"]["application/json"]
    example = content["example"]["rows"][0]
    assert len(asked(served, [example])) == 1
    assert list(content["schema"]["properties"]["rows"]["items"]["properties"]) == [i.name for i in served.model.inputs]
    answer = post["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["predictions"]["items"]
    assert list(answer["properties"]) == served.model.full_schema.names
    infer = paths["/v2/models/e/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert json.loads(served.infer(json.dumps(infer["example"]).encode()))["outputs"]


def test_lists_in_the_document(serve: Serve) -> None:
    post = openapi_document("1", [serve("lists")])["paths"]["/models/e/predict"]["post"]
    row = post["requestBody"]["content"]["application/json"]["schema"]["properties"]["rows"]["items"]["properties"]
    assert row["vec"] == {"type": ["array", "null"], "items": {"type": ["number", "null"]}, "title": "vec (DOUBLE[])"}
    assert row["tags"] == {"type": ["array", "null"], "items": {"type": ["string", "null"]}, "title": "tags (VARCHAR[])"}
    post = openapi_document("1", [serve("only transform")])["paths"]["/models/e/predict"]["post"]
    answer = post["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["predictions"]["items"]["properties"]
    assert answer["pair"] == {"type": ["array", "null"], "items": {"type": ["number", "null"]}}
    assert answer["word"] == {"type": ["string", "null"]}


def test_a_list_that_does_not_fit(serve: Serve) -> None:
    with pytest.raises(BadRequest) as caught:
        asked(serve("lists"), [{"tags": ["a", "b", 3]}])
    assert (caught.value.status, caught.value.field) == (422, "rows[0].tags[2]")
    with pytest.raises(BadRequest, match="vec") as caught:
        asked(serve("lists"), [{"vec": [1, 2, 3, 4]}])
    assert caught.value.status == 422


def test_lists_as_tensors_give_the_same(serve: Serve) -> None:
    rows: list[dict[str, Any]] = [
        {"vec": [0.5, -1.0, 2.0], "tags": ["t1", "all"], "n": 0.3},
        {"vec": [1.5, None, 0.0], "tags": ["t0", "t2"], "n": None},
    ]
    tensors = [
        {"name": "vec", "shape": [2, 3], "datatype": "FP64", "data": [value for row in rows for value in row["vec"]]},
        {"name": "tags", "shape": [2, 2], "datatype": "BYTES", "data": [row["tags"] for row in rows]},
        {"name": "n", "shape": [2], "datatype": "FP64", "data": [row["n"] for row in rows]},
    ]
    outputs = json.loads(serve("lists").infer(json.dumps({"inputs": tensors}).encode()))["outputs"]
    assert outputs[0]["data"] == [row["predicted_y"] for row in asked(serve("lists"), rows)]


def test_a_row_that_a_transform_cannot_compute(tmp_path: Path) -> None:
    rows = pa.table({"word": ["1", "2"]})
    transform = fit_transform(rows, number="CAST(word AS DOUBLE)")
    open_bundle(tmp_path, rows, transform=transform, example={"word": "1"})
    served = served_from(tmp_path)
    assert asked(served, [{"word": "3"}, {}]) == [{"number": 3}, {"number": None}]
    with pytest.raises(BadRequest, match="TRANSFORM cannot compute a row: Could not convert string 'x'") as caught:
        asked(served, [{"word": "3"}, {"word": "x"}])
    assert caught.value.status == 422
    with pytest.raises(BadRequest) as caught:
        inferred(served, pa.table({"word": ["x"]}))
    assert caught.value.status == 400


def test_a_transform_gives_the_same_over_http_as_in_sql(bank: Place) -> None:
    """Raw columns in, the TRANSFORM inside the server's process; SQL's function beside it."""
    items = {
        "a scaled": "ML.STANDARD_SCALER(a) OVER ()",
        "pieces": 'ML.BUCKETIZE("B b", [-0.5, 0.5])',
        "both": 'coalesce(a, 0) * "B b"',
        "word": "upper(word)",
        "set": "flag IS NOT NULL",
    }
    head = Learn("xgboost_classifier", "y", pa.array(TABLE["B b"].to_numpy() > 0.1), {"n_estimators": 10})
    transform = fit_transform(TABLE, **items)
    version = bank.publish_made("shaped", TABLE, head, transform=transform, example=TABLE.slice(20, 1).to_pylist()[0])
    bank.serve(version, "shaped")
    metadata = bank.call("/v2/models/shaped")[1]
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["a", "B b", "word", "flag"]
    for rows in (TABLE, TABLE.slice(3, 1)):
        status, answer = bank.call("/models/shaped/predict", {"rows": rows.to_pylist()})
        assert status == 200
        given = [row["predicted_y_probs"]["true"] for row in answer["predictions"]]
        assert given == pytest.approx(sql_probabilities(version, rows), abs=1e-9)
    bank.undeploy("shaped")


def sql_probabilities(version: Any, rows: pa.Table) -> list[float]:
    """The probability of the second class, by the version's function in DuckDB."""
    from sqlml.bundles.model import Model

    model = Model.open(version.bundle, version.sha256)
    engine = DuckDBEngine.open(":memory:")
    try:
        engine.connection.register("t", rows)
        arguments = {i.name: f'"{i.name}"' for i in model.inputs}
        call = get("target", "duckdb")(engine).call_sql("u", "proba:1", model.signature, lambda: model, arguments)
        return [value for (value,) in engine.connection.execute(f"SELECT {call} FROM t").fetchall()]
    finally:
        engine.close()
