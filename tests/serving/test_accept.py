"""Which type an answer has: what ``Accept`` says of it, on a real server."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pyarrow as pa
import pytest

from tests.serving.conftest import Place


def send(bank: Place, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
    """The status, the type and the body of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{bank.server.url()}{path}", body, headers), timeout=20) as answer:
            return answer.status, answer.headers["content-type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["content-type"], error.read()


def answered(bank: Place, path: str, accept: str | None, content_type: str = "application/json") -> tuple[int, str, bytes]:
    """Two JSON rows, answered as ``accept`` says: status, type and body."""
    headers = {"content-type": content_type} | ({"accept": accept} if accept is not None else {})
    return send(bank, path, b'{"rows": [{"age": 41}, {"job": "admin"}]}', headers)


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("application/*", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/csv;q=0.5, */*", "application/json"),
        ("text/csv, */*;q=0.5", "text/csv"),
        ("text/html, text/*", "text/csv"),
        ("application/json;q=0, TEXT/CSV;q=0.1", "text/csv"),
        ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
        ("text/html, application/x-apache-arrow-stream;q=0.5", "application/vnd.apache.arrow.stream"),
    ],
)
def test_json_rows_are_answered_as_is_accepted(bank: Place, accept: str | None, kind: str, content_type: str) -> None:
    status, found, body = answered(bank, "/models/deposit/predict", accept, content_type)
    assert (status, found) == (200, kind)
    _, expected = bank.call("/models/deposit/predict", {"rows": [{"age": 41}, {"job": "admin"}]})
    labels = [row["predicted_y"] for row in expected["predictions"]]
    if kind == "application/json":
        assert json.loads(body) == expected
    elif kind == "text/csv":
        assert [line.split(",")[0].strip('"') for line in body.decode().splitlines()] == ["predicted_y", *labels]
    else:
        assert pa.ipc.open_stream(body).read_all().column("predicted_y").to_pylist() == labels


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "image/*, text/html"])
def test_what_cannot_be_answered_as_is_accepted_is_refused(bank: Place, accept: str) -> None:
    status, kind, body = answered(bank, "/models/deposit/predict", accept)
    assert (status, kind) == (406, "application/json")
    error = f"accept: nothing of {accept!r} is answered; this path answers application/json"
    assert json.loads(body)["error"] == f"{error}, application/vnd.apache.arrow.stream, text/csv"
    assert answered(bank, "/models/deposit:explain", accept)[0] == 406


def test_a_body_of_another_kind_is_answered_as_is_accepted(bank: Place) -> None:
    def of_csv(accept: str) -> tuple[int, str]:
        return send(bank, "/models/deposit/predict", b"age\n41\n", {"content-type": "text/csv", "accept": accept})[:2]

    assert of_csv("text/html, */*;q=0.1") == (200, "text/csv")
    assert of_csv("application/json;q=0.2, application/vnd.apache.arrow.stream") == (200, "application/vnd.apache.arrow.stream")
    assert of_csv("text/html") == (406, "application/json")
