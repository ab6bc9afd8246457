"""A real server on loopback, asked over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow as pa
import pytest
from sqlml_runners.serving.app import make_app
from sqlml_runners.serving.hot import Hot
from sqlml_runners.serving.models import Models, Slot
from sqlml_runners.serving.openapi import openapi_document
from sqlml_runners.serving.reception import Reception
from sqlml_runners.serving.v2 import example_request

from sqlml.bundles.model import Model
from sqlml.types import Task
from sqlml.version import __version__
from tests.bundles.handmade import Learn, open_bundle
from tests.serving.conftest import EXAMPLE, INPUTS, Place, call, make_rows, served_from

PREDICT = "/models/deposit/predict"
INFER = "/v2/models/deposit/infer"


def test_rows_are_predicted(bank: Place) -> None:
    status, answer = bank.call(PREDICT, {"rows": [EXAMPLE, {}]})
    assert status == 200
    assert (answer["model"], answer["version"], len(answer["predictions"])) == ("deposit", 1, 2)
    first = answer["predictions"][0]
    assert first["predicted_y"] in ("no", "yes")
    assert sum(first["predicted_y_probs"].values()) == pytest.approx(1)
    assert bank.call(PREDICT, {"rows": []}) == (200, {"model": "deposit", "version": 1, "predictions": []})


def test_both_forms_agree(bank: Place) -> None:
    rows = [EXAMPLE, EXAMPLE | {"age": None}, dict.fromkeys(EXAMPLE)]
    plain = bank.call(PREDICT, {"rows": rows})[1]["predictions"]
    outputs = bank.call(INFER, {"inputs": tensors(rows)})[1]["outputs"]
    assert outputs[0]["data"] == [row["predicted_y"] for row in plain]
    assert outputs[1]["data"] == [p for row in plain for p in row["predicted_y_probs"].values()]


def tensors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    datatypes = {"number": "FP64", "boolean": "BOOL"}
    return [
        {
            "name": column.name,
            "shape": [len(rows), 1],
            "datatype": datatypes.get(column.kind, "BYTES"),
            "data": [row[column.name] for row in rows],
        }
        for column in INPUTS
    ]


def test_head_is_answered_as_get_without_a_body(bank: Place) -> None:
    paths = ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/deposit", "/openapi.json", "/docs", "/metrics", "/nowhere"]
    with httpx.Client(base_url=bank.server.url() or "", timeout=20) as client:
        for path in paths:
            whole, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (whole.status_code, b"")
            assert head.headers["content-type"] == whole.headers["content-type"]
            if path != "/metrics":  # its figures go on
                assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.content))
        assert [client.head("/nowhere").status_code, client.head(PREDICT).status_code] == [404, 405]
        assert client.post(PREDICT, json={"rows": [EXAMPLE]}).status_code == 200  # on the same connection


def test_a_regression(bank: Place) -> None:
    bank.deploy("price", task=Task.REGRESSION)
    _, answer = bank.call("/models/price/predict", {"rows": [EXAMPLE]})
    assert answer["predictions"] == [{"predicted_y": pytest.approx(EXAMPLE["age"], abs=15)}]
    _, answer = bank.call("/v2/models/price/infer", {"inputs": tensors([EXAMPLE])})
    assert [(output["datatype"], output["shape"]) for output in answer["outputs"]] == [("FP64", [1])]
    bank.undeploy("price")


def test_clusters(bank: Place) -> None:
    bank.deploy("groups", task=Task.CLUSTERING)
    _, answer = bank.call("/models/groups/predict", {"rows": [EXAMPLE]})
    row = answer["predictions"][0]
    distances = row["nearest_centroids_distance"]
    assert row["centroid_id"] == distances[0]["centroid_id"]
    assert sorted(entry["centroid_id"] for entry in distances) == [1, 2, 3]
    assert distances == sorted(distances, key=lambda entry: entry["distance"])
    metadata = bank.call("/v2/models/groups")[1]["outputs"]
    assert [(output["name"], output["datatype"], output["shape"]) for output in metadata] == [
        ("centroid_id", "INT64", [-1]), ("nearest_centroids_distance", "FP64", [-1, 3]),
    ]  # fmt: skip
    bank.undeploy("groups")


def test_no_rows_in_either_form(bank: Place) -> None:
    _, answer = bank.call(INFER, {"inputs": tensors([])})
    assert [(output["shape"], output["data"]) for output in answer["outputs"]] == [([0], []), ([0, 2], [])]
    assert bank.call(PREDICT, {"rows": []})[1]["predictions"] == []


def test_the_answers_are_the_models_own(bank: Place) -> None:
    rows = make_rows(50)
    expected = Model.open(bank.catalog.resolve("deposit").bundle).raw(rows)[:, 1]
    body = {"rows": json.loads(json.dumps(pa.table(rows).to_pylist(), default=str))}
    given = [row["predicted_y_probs"]["yes"] for row in bank.call(PREDICT, body)[1]["predictions"]]
    assert given == pytest.approx(list(expected), abs=1e-9)


def test_v2_health_and_metadata(bank: Place) -> None:
    assert bank.call("/v2") == (200, {"name": "sqlml", "version": __version__, "extensions": ["binary_tensor_data"]})
    assert bank.call("/v2/health/live") == (200, {"live": True})
    assert bank.call("/v2/health/ready") == (200, {"ready": True})
    for path in ("/v2/models/deposit", "/v2/models/DEPOSIT", "/v2/models/deposit/versions/1"):
        status, metadata = bank.call(path)
        assert (status, metadata["name"], metadata["versions"]) == (200, "deposit", ["1"])
        assert [column["name"] for column in metadata["inputs"]] == [column.name for column in INPUTS]
        assert metadata["outputs"][1] == {
            "name": "predicted_y_probs", "datatype": "FP64", "shape": [-1, 2], "parameters": {"classes": ["no", "yes"]},
        }  # fmt: skip
        assert bank.call(f"{path}/ready") == (200, {"name": "deposit", "ready": True})


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (PREDICT, {"rows": [{}, {"age": "old"}]}, 422, "rows[1].age: expected a number, got the text 'old'"),
        (PREDICT, b"{", 400, "the body is not JSON: Input data was truncated"),
        (PREDICT, b"\xff\xfe", 400, "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
        (INFER, {"inputs": []}, 400, "missing inputs: age, job, own house, since, seen"),
        ("/models/deposits/predict", {"rows": []}, 404, "unknown model 'deposits'; deployed: deposit"),
        ("/v2/models/nope", None, 404, "unknown model 'nope'; deployed: deposit"),
        ("/v2/models/deposit/versions/2", None, 404, "endpoint deposit has no version 2; it serves 1"),
        ("/v2/models/deposit/versions/1.0/infer", {"inputs": []}, 404, "endpoint deposit has no version 1.0; it serves 1"),
        ("/nope", None, 404, "GET /nope: Not Found; see /docs"),
        (PREDICT, None, 405, "GET /models/deposit/predict: Method Not Allowed; see /docs"),
    ],
)
def test_wrong_requests(bank: Place, path: str, body: Any, status: int, message: str) -> None:
    code, answer = bank.call(path, body)
    assert (code, answer["error"]) == (status, message)


def test_the_example_in_the_docs_works_when_pasted(bank: Place) -> None:
    _, document = bank.call("/openapi.json")
    for path, schema in ((PREDICT, "rows"), (INFER, "inputs")):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert schema in content["schema"]["properties"]
        assert bank.call(path, content["example"])[0] == 200
    row = document["paths"][PREDICT]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["rows"][
        "items"
    ]
    assert list(row["properties"]) == [column.name for column in INPUTS]
    assert "left out of a row is NULL" in row["description"]
    assert row["properties"]["age"] == {"type": ["number", "null"], "title": "age (BIGINT)"}


def pasted(bank: Place, path: str, content: dict[str, Any], kind: str) -> tuple[int, str]:
    """An example's text, sent as it stands."""
    text = content[kind]["example"]
    body = text if isinstance(text, str) else json.dumps(text)
    request = urllib.request.Request(f"{bank.server.url()}{path}", body.encode(), {"content-type": kind})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.status, answer.read().decode()


def test_every_other_example_in_the_docs_works_when_pasted(bank: Place) -> None:
    paths = bank.call("/openapi.json")[1]["paths"]
    post = paths[PREDICT]["post"]
    content, answers = post["requestBody"]["content"], post["responses"]["200"]["content"]
    assert set(content) == set(answers) == {"application/json", "text/csv", "application/vnd.apache.arrow.stream"}
    status, answer = pasted(bank, PREDICT, content, "text/csv")
    assert (status, answer.splitlines()[0]) == (200, answers["text/csv"]["example"].splitlines()[0])

    explain = paths["/models/deposit:explain"]["post"]
    top = explain["parameters"][0]
    status, answer = pasted(
        bank, f"/models/deposit:explain?{top['name']}={top['example']}", explain["requestBody"]["content"], "application/json"
    )
    assert status == 200
    assert len(json.loads(answer)["explanations"]) == 1

    feedback = paths["/models/deposit/feedback"]["post"]
    status, answer = pasted(bank, "/models/deposit/feedback", feedback["requestBody"]["content"], "application/json")
    assert (status, json.loads(answer), set(feedback["responses"])) == (202, {"accepted": 1}, {"202", "4XX"})


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"\x1f\x8b", {"content-type": "application/json", "content-encoding": "gzip"}, 415, "content-encoding gzip is not read"),
        (b'age,job\n33,management\n34,"x\n', {"content-type": "text/csv"}, 400, "a quote"),
    ],
)
def test_bodies_that_are_not_what_they_say(bank: Place, body: bytes, headers: dict[str, str], status: int, words: str) -> None:
    request = urllib.request.Request(f"{bank.server.url()}{PREDICT}", body, headers)
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=20)
    assert raised.value.code == status
    assert words in json.load(raised.value)["error"]


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(bank: Place) -> None:
    url = urlsplit(str(bank.server.url()))
    with socket.create_connection((str(url.hostname), int(url.port or 0)), 20) as client:
        began = time.monotonic()
        client.sendall(f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 900000000\r\n\r\n".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")
        assert time.monotonic() - began < 8


def test_the_lines_for_arrow_in_the_docs_work_when_pasted(bank: Place) -> None:
    (sample,) = bank.call("/openapi.json")[1]["paths"][PREDICT]["post"]["x-codeSamples"]
    source = sample["source"].replace("http://127.0.0.1:8080", str(bank.server.url()))
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "predicted_y: string" in done.stdout


def test_a_model_with_odd_names_is_served(tmp_path: Path) -> None:
    """Quotes, backslashes, control characters and emoji in the names of inputs, the target and its classes."""
    names = ['say "hi"', "back\\slash", "two\nlines"]
    values = {name: [float((i * step) % 17) for i in range(80)] for step, name in enumerate(names, start=1)}
    table = pa.table({**values, 'the "y"\n': ["🙂" if v > 8 else "" for v in values[names[0]]]})
    head = Learn("xgboost_classifier", 'the "y"\n', table['the "y"\n'].combine_chunks(), {"n_estimators": 3})
    rows = table.select(names)
    model = open_bundle(tmp_path, rows, head, example=rows.slice(0, 1).to_pylist()[0])
    served = served_from(tmp_path)
    answer = json.loads(served.predict(json.dumps({"rows": table.select(names).to_pylist()}).encode()))["predictions"]
    assert [row['predicted_the "y"\n'] for row in answer] == model.predict(table).to_pylist()
    assert set(answer[0]['predicted_the "y"\n_probs']) == {"", "🙂"}
    request = example_request(model.inputs, model.manifest.example)
    assert json.loads(served.infer(json.dumps(request).encode()))["outputs"][1]["parameters"] == {"classes": ["", "🙂"]}
    document = json.loads(json.dumps(openapi_document("1", [served])))
    body = document["paths"]["/models/e/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert served.predict(json.dumps(body["example"]).encode())


def test_the_docs_need_no_other_host(bank: Place) -> None:
    status, page = bank.call("/docs")
    assert status == 200
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert any(asset.endswith("swagger-ui-bundle.js") for asset in assets)
    for asset in assets:
        assert not urlsplit(asset).netloc
        with urllib.request.urlopen(f"{bank.server.url()}{asset}", timeout=10) as answer:
            assert answer.status == 200
            assert len(answer.read()) > 500
    assert bank.call("/") == (200, page)


def test_many_rows_and_many_callers_at_once(bank: Place) -> None:
    def ask(n: int) -> int:
        return len(bank.call(PREDICT, {"rows": [EXAMPLE] * n})[1]["predictions"])

    sizes = [1, 2000, 3, 500, 1, 20_000, 7, 1]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, sizes)) == sizes


def test_a_caller_that_leaves_half_way_hurts_nobody(bank: Place) -> None:
    address = urlsplit(bank.server.url())
    for sent in (
        b"POST /models/deposit/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"\x16\x03\x01 rubbish\r\n\r\n",
    ):
        with socket.create_connection((str(address.hostname), address.port or 0), timeout=5) as connection:
            connection.sendall(sent)
    assert bank.call(PREDICT, {"rows": [EXAMPLE]})[0] == 200


def test_a_new_version_takes_over_without_a_failed_request(bank: Place) -> None:
    url = bank.deploy("swap", seed=1).replace("/v2/models/swap", "/models/swap/predict")
    stop, answers = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            answers.append(call(url, {"rows": [EXAMPLE]}))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    bank.deploy("swap", seed=2)
    _, after = call(url, {"rows": [EXAMPLE]})
    stop.set()
    for thread in asking:
        thread.join()
    bank.undeploy("swap")
    assert after["version"] == 2
    assert {status for status, _ in answers} == {200}
    assert {answer["version"] for _, answer in answers} >= {1}


def test_an_undeployed_endpoint_is_gone(bank: Place) -> None:
    bank.deploy("deposit", "second")
    assert set(bank.server.states()) == {"deposit", "second"}
    bank.undeploy("second")
    assert set(bank.server.states()) == {"deposit"}
    assert bank.call("/models/second/predict", {"rows": []})[0] == 404
    assert "/models/second/predict" not in bank.call("/openapi.json")[1]["paths"]


def test_a_fault_of_ours_shows_no_stack() -> None:
    class Broken(Models):
        def slot(self, name: str) -> Slot:
            raise RuntimeError("secret")

    async def nobody(_what: str) -> None:
        return None

    async def ask(path: str) -> httpx.Response:
        models = Broken()
        transport = httpx.ASGITransport(Hot(make_app(models, nobody), Reception(models)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await (client.post(path, json={"rows": []}) if path == PREDICT else client.get(path))

    for path in (PREDICT, "/v2/models/deposit/ready"):
        answer = asyncio.run(ask(path))
        assert answer.status_code == 500
        assert answer.json() == {"error": "internal error of the server; its log (logs/server.log) says more"}


def test_health_is_answered_while_a_long_prediction_runs(bank: Place) -> None:
    body = json.dumps({"rows": [EXAMPLE] * 60_000}).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    address = urlsplit(bank.server.url())
    with socket.create_connection((str(address.hostname), address.port), timeout=60) as long:
        long.sendall(head + body)
        assert bank.call("/v2/health/live")[0] == 200
        assert select.select([long], [], [], 0)[0] == []  # nothing of the long one's answer is there yet
        assert long.recv(12) == b"HTTP/1.1 200"


def test_no_cors_header_is_sent_unless_somebody_asks_for_it(bank: Place) -> None:
    origin = {"origin": "https://elsewhere.example"}
    with httpx.Client(base_url=str(bank.server.url())) as client:
        wish = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        answers = [client.options(PREDICT, headers=wish), client.options("/v2", headers=wish)]
        answers += [client.post(PREDICT, headers=origin, json={"rows": [EXAMPLE]}), client.get("/v2", headers=origin)]
    assert [answer.status_code for answer in answers] == [405, 405, 200, 200]
    assert not [name for answer in answers for name in answer.headers if name.startswith("access-control-")]
