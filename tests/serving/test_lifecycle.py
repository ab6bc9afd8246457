"""Servers start, are found, stop, die, and leave nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlml_runners.serving.control import LocalServer
from sqlml_runners.serving.state import ServerLock, read_state

from sqlml.errors import ServingError
from sqlml.home import Home
from tests.serving.conftest import EXAMPLE, Place, call

pytestmark = pytest.mark.slow  # real servers that start, idle and stop


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def left_in(home: Path) -> set[str]:
    stays = {
        "bundles",
        "jobs",
        "logs",
        "predictions",
        "feedback",
        "runtimes",
        ".catalog",
        "catalog.db",
        "catalog.db-wal",
        "catalog.db-shm",
    }
    return {path.name for path in home.iterdir()} - stays


@contextmanager
def process(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "sqlml_runners.serving", "--home", str(home), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def test_nothing_runs_where_nothing_was_started(place: Place) -> None:
    assert place.server.url() is None
    assert place.server.states() == {}
    assert place.server.stop() is False


def test_start_find_stop(place: Place) -> None:
    url = place.deploy("deposit")
    other = LocalServer(place.folder)
    assert url == f"{other.url()}/v2/models/deposit" == f"{other.ensure()}/v2/models/deposit"
    assert [(name, s.state, s.error) for name, s in other.states().items()] == [("deposit", "ready", None)]
    state = read_state(place.folder)
    assert state is not None
    assert (state.host, os.getsid(state.pid)) == ("127.0.0.1", state.pid)
    assert (place.folder / "server.json").stat().st_mode & 0o077 == 0
    assert other.stop() is True
    assert not state.alive()
    assert left_in(place.folder) == set()
    assert other.stop() is False
    log = (place.folder / "logs" / "server.log").read_text()
    assert log.index("loading: deposit@1 behind deposit") < log.index("ready: deposit@1 behind deposit, loaded in ")


def test_many_starters_start_one(place: Place) -> None:
    place.catalog.deploy("deposit", place.publish("deposit"))
    with ThreadPoolExecutor(3) as pool:
        urls = set(pool.map(lambda _: LocalServer(place.folder).ensure(), range(3)))
    assert len(urls) == 1
    assert place.server.wait_ready("deposit", 1, 10)


def test_a_second_server_says_who_is_first(place: Place) -> None:
    url = place.server.ensure()
    state = read_state(place.folder)
    assert state is not None
    with process(place.folder, "--foreground") as second:
        _, errors = second.communicate(timeout=20)
    assert second.returncode == 1
    assert f"are served already by process {state.pid} at {url}" in errors
    assert place.server.url() == url


def test_kill_leaves_a_file_that_nobody_believes(place: Place) -> None:
    place.deploy("deposit")
    state = read_state(place.folder)
    assert state is not None
    os.kill(state.pid, signal.SIGKILL)
    assert until(lambda: place.server.url() is None)
    assert (place.folder / "server.json").exists()
    assert place.server.states() == {}
    assert place.server.stop() is False
    assert place.server.wait_ready("deposit", 1, 20)  # starts another
    new = read_state(place.folder)
    assert new is not None
    assert new.pid != state.pid


def test_a_file_of_another_process_is_not_believed(place: Place) -> None:
    me = psutil.Process()
    fields = {"pid": me.pid, "started": me.create_time() - 60, "host": "", "port": 1, "url": "http://x", "version": "0"}
    for text in (json.dumps(fields), "{", '{"pid": 1}'):
        (place.folder / "server.json").write_text(text)
        assert place.server.url() is None
        assert place.server.stop() is False


def test_only_one_holds_the_lock(tmp_path: Path) -> None:
    with ServerLock(tmp_path), pytest.raises(ServingError, match="served already by another process"), ServerLock(tmp_path):
        pass
    with ServerLock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_bundle_fails_and_the_old_version_serves_on(place: Place) -> None:
    url = place.deploy("deposit", seed=1)
    second = place.publish("deposit", seed=2)
    damaged = next((second.bundle / "native").iterdir())
    content = damaged.read_bytes()
    damaged.write_bytes(b"rubbish")
    place.catalog.deploy("deposit", second)
    with pytest.raises(ServingError, match=rf"endpoint deposit cannot serve: the model's file .*{damaged.name} is damaged"):
        place.server.wait_ready("deposit", 2, 10)
    state = place.server.states()["deposit"]
    assert (state.state, state.revision) == ("failed", 2)
    assert str(damaged) in str(state.error)
    assert call(url.replace("/v2", "") + "/predict", {"rows": [EXAMPLE]})[1]["version"] == 1
    assert place.call("/v2/health/ready")[0] == 200

    damaged.write_bytes(content)  # repaired, and deployed again
    assert place.server.wait_ready("deposit", place.catalog.deploy("deposit", second), 10) == url


def test_a_missing_bundle_fails_with_its_name(place: Place) -> None:
    version = place.publish("deposit")
    shutil.rmtree(version.bundle)
    place.catalog.deploy("deposit", version)
    with pytest.raises(ServingError, match=rf"{version.sha256}.* is missing"):
        place.server.wait_ready("deposit", 1, 10)
    status, answer = place.call("/models/deposit/predict", {"rows": []})
    assert status == 503
    assert "could not be loaded" in answer["error"]
    assert place.call("/v2/models/deposit/ready")[0] == 503
    with pytest.raises(ServingError, match=r"not ready within 0.1 s: the server does not know it"):
        place.server.wait_ready("other", 1, 0.1)


def test_a_server_with_nothing_to_serve_leaves(place: Place) -> None:
    place.deploy("deposit")
    assert not until(lambda: place.server.url() is None, 0.5)
    place.catalog.undeploy("deposit")
    assert until(lambda: place.server.url() is None, 6)
    assert until(lambda: left_in(place.folder) == set(), 3)


@pytest.mark.parametrize("again", [False, True])
def test_a_server_whose_home_is_deleted_leaves(place: Place, again: bool) -> None:
    place.deploy("deposit")
    state = read_state(place.folder)
    assert state is not None
    shutil.rmtree(place.folder)
    if again:
        place.folder.mkdir()
        (place.folder / "server.lock").touch()
    assert until(lambda: not state.alive(), 6)
    assert place.folder.exists() == again
    assert not again or [path.name for path in place.folder.iterdir()] == ["server.lock"]


def test_one_that_is_never_used_leaves(place: Place) -> None:
    with process(place.folder, "--idle-seconds", "0.3") as child:
        assert child.wait(timeout=20) == 0
    assert left_in(place.folder) == set()


def test_the_foreground_stays_and_stops_on_a_signal(place: Place) -> None:
    with process(place.folder, "--foreground", "--idle-seconds", "0") as child:
        assert until(lambda: place.server.url() is not None, 20)
        time.sleep(0.5)
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
    assert child.returncode == 0
    assert "Traceback" not in errors
    assert left_in(place.folder) == set()


def test_a_request_under_way_is_finished_before_the_end(place: Place) -> None:
    place.deploy("deposit")
    body = {"rows": [EXAMPLE] * 50_000}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(place.call, "/models/deposit/predict", body)
        time.sleep(0.3)
        assert place.server.stop() is True
        status, answer = asked.result(timeout=20)
    assert (status, len(answer["predictions"])) == (200, 50_000)


def test_a_taken_port(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with process(place.folder, "--foreground", "--port", port) as child:
            _, errors = child.communicate(timeout=20)
    assert child.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in errors
    assert left_in(place.folder) == set()


def test_a_server_that_cannot_start_says_why(place: Place) -> None:
    broken = LocalServer(place.folder, "sqlite:////nowhere/at/all.db")
    log = Home(place.folder).logs / "server.log"
    Home(place.folder).create()
    log.write_text("a line of an earlier run\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ServingError, match=r"could not start(.|\n)*the catalog sqlite:") as caught:
            broken.ensure()
        assert str(caught.value).count("ERROR") == 1, "only what this start has said"
        assert "earlier run" not in str(caught.value)
    assert log.read_text(encoding="utf-8").startswith("a line of an earlier run\n")


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("sqlml_runners.serving.control", ("fastapi", "uvicorn", "numpy", "sqlalchemy")),
        ("sqlml_runners.serving.server", ("duckdb", "sklearn", "pandas", "xgboost")),
    ],
)
def test_what_is_not_imported(module: str, without: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print([name for name in {without} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
