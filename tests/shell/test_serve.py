"""``sqlml serve`` in the foreground and ``sqlml stop``, with a model behind an endpoint."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import sqlml as engine
from sqlml.home import home_of
from sqlml.registry import SERVER, load
from tests.shell.test_command import COMMAND, ENVIRONMENT, sqlml

pytestmark = pytest.mark.slow
TRAIN = "TRAIN MODEL spends USING linear_regression TARGET y ON inline AS SELECT range AS x, 2 * range AS y FROM range(50)"


@pytest.fixture(params=["beside the database", "elsewhere"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """The catalog's URL, None for the usual place."""
    return f"sqlite:///{tmp_path / 'elsewhere.db'}" if request.param == "elsewhere" else None


@pytest.fixture
def deployed(tmp_path: Path, catalog: str | None) -> Iterator[tuple[str, ...]]:
    """A database with an endpoint ``spends``, as arguments; a detached server runs."""
    database = tmp_path / "a.duckdb"
    with engine.connect(database, catalog=catalog) as connection:
        connection.execute(TRAIN)
        connection.execute("DEPLOY MODEL spends")
    yield (str(database), *(("--catalog", catalog) if catalog else ()))
    load(SERVER)(home_of(database, catalog), catalog).stop()


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``sqlml serve`` as a child that answers, and its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*COMMAND, "serve", *arguments, "--port", "0", "--http-port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as child:
        try:
            yield child, f"http://127.0.0.1:{port}"
        finally:
            child.kill()


def answer(url: str, row: Mapping[str, Any]) -> Any:
    """What the endpoint says to one row, once it is there."""
    body = json.dumps({"rows": [row]}).encode()
    request = urllib.request.Request(f"{url}/models/spends/predict", body, {"content-type": "application/json"})
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_stop_ends_the_server_that_deploy_started(deployed: tuple[str, ...], catalog: str | None) -> None:
    done = sqlml("stop", *deployed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
    assert load(SERVER)(home_of(deployed[0], catalog), catalog).url() is None
    done = sqlml("stop", *deployed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no server was running\n", "")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, None], ids=["ctrl-c", "kill", "stop"])
def test_serve_answers_until_it_is_told_to_end(
    end: signal.Signals | None, deployed: tuple[str, ...], catalog: str | None
) -> None:
    assert sqlml("stop", *deployed).returncode == 0
    with serving(*deployed) as (child, url):
        (prediction,) = answer(url, {"x": 100})["predictions"]
        assert prediction["predicted_y"] == pytest.approx(200, abs=0.1)
        if end is None:
            assert sqlml("stop", *deployed).stdout == "stopped\n"
        else:
            child.send_signal(end)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 0
    assert "Traceback" not in out + err
    assert load(SERVER)(home_of(deployed[0], catalog), catalog).url() is None
    assert not (home_of(deployed[0], catalog) / "server.json").exists()


def test_serve_says_who_serves_already(deployed: tuple[str, ...]) -> None:
    done = sqlml("serve", *deployed)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the endpoints of {deployed[0]} are served already at http://127.0.0.1:")
    assert done.stderr.endswith(f"  stop that server first: sqlml stop {' '.join(deployed)}\n")


@pytest.mark.parametrize(("origin", "message"), [("foo", "'foo' is no origin"), ("", "no origin is given"), ("*, x", "'*' lets")])
def test_serve_says_in_a_line_what_is_no_origin(tmp_path: Path, origin: str, message: str) -> None:
    done = sqlml("serve", str(tmp_path / "a.duckdb"), "--cors-origin", origin)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"error: --cors-origin: {message}")
    assert list(tmp_path.iterdir()) == []
