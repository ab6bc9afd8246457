"""What stands around a prediction, on a real server: keys, limits, other bodies, explanations, logs, figures, feedback."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sqlml.catalog import Share
from sqlml.prediction_log import feedback_files, prediction_files
from sqlml.types import Task
from tests.serving.conftest import EXAMPLE, Place

PREDICT = "/models/deposit/predict"
ROWS = json.dumps({"rows": [EXAMPLE]}).encode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, str]]:
    """An endpoint with keys and small limits, and the secret of a key."""
    place = Place(tmp_path_factory.mktemp("guarded") / "bank.sqlml", Task.CLASSIFICATION)
    version = place.publish("deposit")
    options = {"auth": "key", "max_rows": 5, "max_body": 2_000, "timeout": 2.0}
    revision = place.catalog.put_endpoint("deposit", [Share(version.uid)], options=options, reason="DEPLOY")
    secret = place.catalog.create_api_key("k", ["deposit"])
    place.server.wait_ready("deposit", revision, 60)
    place.server.states()
    yield place, secret
    place.close()


def ask(guarded: tuple[Place, str], path: str, body: bytes | None, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
    place, secret = guarded
    given = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{place.server.url()}{path}", body, given)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


def test_metadata_of_a_keyed_endpoint_need_the_key(guarded: tuple[Place, str]) -> None:
    place, _ = guarded
    for path in ("/v2/models/deposit", "/v2/models/deposit/versions/1"):
        assert ask(guarded, path, None)[0] == 200
        status, body, headers = ask(guarded, path, None, authorization="")
        assert (status, json.loads(body)["error"]) == (401, "the endpoint needs an API key")
        assert headers["www-authenticate"] == "Bearer"
    assert ask(guarded, "/v2/models/deposit/ready", None, authorization="")[0] == 200
    assert not [path for path in place.call("/openapi.json")[1]["paths"] if "deposit" in path]


def test_who_has_no_key_is_refused(guarded: tuple[Place, str]) -> None:
    place, secret = guarded
    assert ask(guarded, PREDICT, ROWS)[0] == 200
    assert ask(guarded, PREDICT, ROWS, authorization="", x_api_key=secret)[0] == 200
    status, body, headers = ask(guarded, PREDICT, ROWS, authorization="")
    assert (status, json.loads(body)["error"]) == (401, "the endpoint needs an API key")
    assert headers["www-authenticate"] == "Bearer"
    assert ask(guarded, PREDICT, ROWS, authorization="Bearer sqlml_wrong")[0] == 401
    other = place.catalog.create_api_key("other", ["elsewhere"])
    slow = place.catalog.create_api_key("slow", [], rate_limit=1)
    place.server.states()
    assert ask(guarded, PREDICT, ROWS, authorization=f"Bearer {other}")[0] == 403
    answers = [ask(guarded, PREDICT, ROWS, authorization=f"Bearer {slow}") for _ in range(3)]
    assert 429 in [status for status, _, _ in answers]
    assert all(int(headers["retry-after"]) >= 1 for status, _, headers in answers if status == 429)


def test_limits(guarded: tuple[Place, str]) -> None:
    status, body, _ = ask(guarded, PREDICT, json.dumps({"rows": [{}] * 6}).encode())
    assert (status, json.loads(body)["error"]) == (413, "6 rows; one request may have 5 rows (option max_rows)")
    status, body, _ = ask(guarded, PREDICT, b" " * 100_000_000)
    assert (status, json.loads(body)["error"].partition(";")[0]) == (413, "the body has 100,000,000 bytes")
    assert ask(guarded, PREDICT, ROWS)[0] == 200


def raw(guarded: tuple[Place, str], text: bytes, *, half_close: bool = False) -> bytes:
    address = urlsplit(str(guarded[0].server.url()))
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=20) as connection:
        connection.sendall(text)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        return connection.recv(4096)


def head(guarded: tuple[Place, str], length: int) -> bytes:
    return (
        f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {guarded[1]}\r\ncontent-length: {length}\r\n\r\n".encode()
    )


def test_who_closes_its_side_still_gets_the_answer(guarded: tuple[Place, str]) -> None:
    assert raw(guarded, head(guarded, len(ROWS)) + ROWS, half_close=True).startswith(b"HTTP/1.1 200 OK")


def test_a_body_that_does_not_arrive_is_given_up(guarded: tuple[Place, str]) -> None:
    assert raw(guarded, head(guarded, len(ROWS)) + ROWS[:10]).startswith(b"HTTP/1.1 408")


def test_several_requests_in_one_go(guarded: tuple[Place, str]) -> None:
    one = head(guarded, len(ROWS)) + ROWS
    address = urlsplit(str(guarded[0].server.url()))
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=20) as connection:
        connection.sendall(one * 5)
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < 5 or got.count(b"predicted_y_probs") < 5:
            got += connection.recv(65536)


def test_arrow_and_csv(guarded: tuple[Place, str]) -> None:
    plain = json.loads(ask(guarded, PREDICT, json.dumps({"rows": [{"age": 70}, {"job": "admin"}]}).encode())[1])["predictions"]
    table, sink = pa.table({"age": [70, None], "job": [None, "admin"]}), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = "application/vnd.apache.arrow.stream"
    status, body, headers = ask(guarded, PREDICT, bytes(sink.getvalue()), content_type=arrow)
    assert (status, headers["content-type"]) == (200, arrow)
    assert pa.ipc.open_stream(body).read_all().to_pylist() == plain
    status, body, _ = ask(guarded, PREDICT, b"age,job\n70,\n,admin\n", content_type="text/csv")
    assert (status, body.count(b"\n")) == (200, 3)
    assert body.startswith(b'"predicted_y","predicted_y_probs.no","predicted_y_probs.yes"\n')
    for kind, wrong, status in (
        ("text/csv", b"age\nold\n", 422), ("text/csv", b"agee\n1\n", 422), (arrow, b"no arrow", 400), ("image/png", b"", 415),
    ):  # fmt: skip
        assert ask(guarded, PREDICT, wrong, content_type=kind)[0] == status


def test_what_made_a_prediction(guarded: tuple[Place, str]) -> None:
    answer = json.loads(ask(guarded, "/models/deposit:explain?top=2", ROWS)[1])["explanations"][0]
    assert len(answer["top_feature_attributions"]) == 2
    whole = json.loads(ask(guarded, "/models/deposit:explain", ROWS)[1])["explanations"][0]
    parts = sum(part["attribution"] for part in whole["top_feature_attributions"])
    assert parts + whole["baseline_prediction_value"] == pytest.approx(whole["prediction_value"], abs=1e-5)


def test_ids_logs_figures_and_feedback(guarded: tuple[Place, str]) -> None:
    place, secret = guarded
    keyed = json.dumps({"rows": [EXAMPLE | {"key": 17}]}).encode()
    assert ask(guarded, PREDICT, keyed, x_request_id="r-1")[2]["x-request-id"] == "r-1"
    truths = json.dumps({"feedback": [{"request_id": "r-1", "truth": "yes"}, {"key": 17, "truth": "no"}]}).encode()
    assert ask(guarded, "/models/deposit/feedback", truths)[:2] == (202, b'{"accepted":2}')
    assert ask(guarded, "/models/deposit/feedback", b'{"truth": "yes"}')[0] == 422
    wrong = json.dumps({"feedback": [{"request_id": "r-1", "truth": "no"}, {"key": 17, "truth": "yess"}]}).encode()
    status, body, _ = ask(guarded, "/models/deposit/feedback", wrong)
    assert (status, json.loads(body)) == (
        422,
        {
            "error": "feedback[1]: the truth 'yess' is none of the classes of y",
            "field": "feedback[1].truth",
            "hint": "did you mean yes?",
        },
    )
    status, body, _ = ask(guarded, "/models/deposit/feedback", b'{"key": 1, "target": "Y", "truth": 3}')
    assert (status, json.loads(body)["field"], json.loads(body)["hint"]) == (422, "truth", "they are: no, yes")
    found = until(lambda: [row for row in logged(place) if row["request_id"] == "r-1"])
    assert [(row["key"], row["model"], row["version"], row["inputs"]["age"]) for row in found] == [("17", "deposit", 1, 41.0)]
    assert found[0]["outputs"]["predicted_y"] in ("no", "yes")
    assert len(until(lambda: feedback_files(place.catalog.home))) == 1
    lines = until(lambda: [line for line in access(place) if line["id"] == "r-1"])
    assert (lines[0]["status"], lines[0]["key"], lines[0]["rows"]) == (200, "k", 1)
    assert secret not in (place.folder / "logs" / "access.log").read_text(encoding="utf-8")
    text = ask(guarded, "/metrics", None)[1].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    ok = [s.value for s in families["sqlml_requests"].samples if s.labels.get("status") == "200" and s.labels["version"]]
    assert ok[0] >= 1


def logged(place: Place) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    files = [file for files in prediction_files(place.catalog.home).values() for file in files]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def access(place: Place) -> list[dict[str, Any]]:
    path = place.folder / "logs" / "access.log"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def until(look: Any, seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_a_full_disk_costs_log_rows_and_no_request(tmp_path: Path) -> None:
    place = Place(tmp_path / "bank.sqlml", Task.CLUSTERING)
    (tmp_path / "bank.sqlml" / "predictions").write_text("a file where the folder should be", encoding="utf-8")
    try:
        place.deploy("groups")
        assert place.call("/models/groups/predict", {"rows": [EXAMPLE]})[0] == 200
        line = until(lambda: [x for x in place.call("/metrics")[1].splitlines() if x.startswith("sqlml_unlogged_rows_total{")])
        assert line
        assert place.call("/models/groups/predict", {"rows": [EXAMPLE]})[0] == 200
    finally:
        place.close()
