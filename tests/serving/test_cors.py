"""Pages of other origins: off by default, by option for named ones, whichever way a request goes."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlml_runners.serving.state import read_state

from sqlml.catalog import Share
from sqlml.types import Task
from tests.serving.conftest import EXAMPLE, Place
from tests.serving.test_tls import server

pytestmark = pytest.mark.slow  # servers of their own

SHOP = "https://shop.example"
ROW = json.dumps({"rows": [EXAMPLE]}).encode()
MANY = json.dumps({"rows": [EXAMPLE] * 1000}).encode()
ASKS = {
    "origin": SHOP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


Asked = Callable[..., tuple[int, Mapping[str, str], bytes]]


@contextmanager
def asking(folder: Path, *arguments: str) -> Iterator[Asked]:
    """A server with a keyed endpoint ``m``, and how to ask it."""
    place = Place(folder / "bank.sqlml", Task.CLUSTERING)
    place.catalog.put_endpoint("m", [Share(place.publish("m").uid)], options={"auth": "key"}, reason="DEPLOY")
    secret = place.catalog.create_api_key("k", ["m"])
    with server(place.folder, *arguments):
        place.server.wait_ready("m", 1, 20)
        state = read_state(place.folder)
        assert state is not None
        connection = http.client.HTTPConnection("127.0.0.1", state.port, timeout=20)

        def ask(method: str, path: str, body: bytes | None = None, *, key: bool = True, **headers: str) -> Any:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named | ({"x-api-key": secret} if key else {}))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

        yield ask
        connection.close()
        place.close()


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    with asking(tmp_path_factory.mktemp("cors"), "--cors-origin", SHOP, "--cors-origin", "http://localhost:3000") as found:
        yield found


@pytest.mark.parametrize("path", ["/models/m/predict", "/v2/models/m/infer", "/v2/health/ready", "/models/nothing/predict"])
def test_a_browser_may_ask_before_without_a_key(ask: Asked, path: str) -> None:
    status, headers, body = ask("OPTIONS", path, key=False, **ASKS)
    assert (status, body) == (204, b"")
    assert headers["access-control-allow-origin"] == SHOP
    assert headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("path", ["/metrics", "/sqlml/endpoints", "/openapi.json", "/docs"])
def test_no_page_may_read_what_callers_on_this_machine_see_without_a_key(ask: Asked, path: str) -> None:
    status, headers, _ = ask("GET", path, key=False, origin=SHOP)
    assert (status, [name for name in headers if name.startswith("access-control")]) == (200, [])
    status, headers, _ = ask("OPTIONS", path, key=False, **ASKS)
    assert (status, [name for name in headers if name.startswith("access-control")]) == (405, [])


def test_a_stranger_is_told_so(ask: Asked) -> None:
    status, headers, body = ask("OPTIONS", "/models/m/predict", key=False, **ASKS | {"origin": "https://evil.example"})
    assert (status, json.loads(body)["error"]) == (403, "pages of https://evil.example may not ask this server")
    assert "access-control-allow-origin" not in headers
    status, headers, _ = ask("POST", "/models/m/predict", ROW, origin="https://evil.example")
    assert status == 200  # whoever is no browser may say any origin
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    ("method", "path", "body", "more", "status"),
    [
        ("POST", "/models/m/predict", ROW, {}, 200),  # the short way
        ("POST", "/models/m/predict", MANY, {}, 200),  # through ASGI
        ("POST", "/models/m/predict", b'{"rows": 7}', {}, 422),
        ("POST", "/models/m/predict", b"age\n41\n", {"content_type": "text/csv"}, 200),
        ("GET", "/v2/models/m", None, {}, 200),  # FastAPI
        ("GET", "/v2/health/ready", None, {}, 200),
    ],
)
def test_every_answer_says_that_the_page_may_read_it(
    ask: Asked, method: str, path: str, body: bytes | None, more: dict[str, str], status: int
) -> None:
    found, headers, _ = ask(method, path, body, origin="http://localhost:3000", **more)
    assert (found, headers["access-control-allow-origin"]) == (status, "http://localhost:3000")
    assert headers["vary"] == "origin"
    assert "x-request-id" in headers["access-control-expose-headers"]


def test_a_refusal_for_want_of_a_key_can_be_read_too(ask: Asked) -> None:
    status, headers, _ = ask("POST", "/models/m/predict", ROW, key=False, origin=SHOP)
    assert (status, headers["access-control-allow-origin"]) == (401, SHOP)


def test_off_by_default(tmp_path: Path) -> None:
    with asking(tmp_path) as ask:
        assert ask("OPTIONS", "/models/m/predict", key=False, **ASKS)[0] == 405
        for path, body in (("/models/m/predict", ROW), ("/models/m/predict", MANY)):
            status, headers, _ = ask("POST", path, body, origin=SHOP)
            assert (status, [name for name in headers if name.startswith("access-control") or name == "vary"]) == (200, [])


def test_all_origins(tmp_path: Path) -> None:
    with asking(tmp_path, "--cors-origin", "*") as ask:
        assert ask("POST", "/models/m/predict", ROW, origin="https://any.example")[1]["access-control-allow-origin"] == "*"
        assert ask("OPTIONS", "/models/m/predict", key=False, **ASKS)[1]["access-control-allow-origin"] == "*"


def test_what_is_no_origin_is_refused_before_anything_listens(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sqlml_runners.serving",
        "--home",
        str(tmp_path),
        "--cors-origin",
        "https://shop.example/app",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "'https://shop.example/app' is no origin: write scheme, host and port alone" in done.stderr
