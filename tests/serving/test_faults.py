"""Versions that kill, bundles that vanish, catalogs that are gone, clocks that jump, servers that meet."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest
from sqlml_runners.serving.control import LocalServer
from sqlml_runners.serving.state import read_state

from sqlml.catalog import Catalog
from sqlml.catalog.shares import Share
from sqlml.errors import ServingError
from sqlml.types import Task
from tests.bundles.handmade import Learn
from tests.servers import new_postgres
from tests.serving.conftest import EXAMPLE, Place, call
from tests.serving.grenade import install_grenade
from tests.serving.load import load, until

pytestmark = pytest.mark.slow

BODY = {"rows": [EXAMPLE]}
ROWS = pa.table({"x": pa.array([1.0, 2.0, 3.0])})


@pytest.fixture
def armed(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place where the algorithm ``grenade`` is installed."""
    install_grenade(tmp_path / "site", monkeypatch)
    return place


def publish(place: Place, when: str) -> str:
    """A version that kills its process at a time; its uid."""
    y = pa.array([1.0, 2.0, 3.0])
    return place.publish_made("m", ROWS, Learn("grenade", "y", y, {"when": when}), example={"x": 1.0}).uid


def put(place: Place, uid: str, replicas: int) -> int:
    return place.catalog.put_endpoint("m", [Share(uid)], options={"replicas": replicas}, reason="DEPLOY")


def test_a_version_that_kills_whoever_loads_it_is_taken_back(armed: Place) -> None:
    good = publish(armed, "never")
    url = armed.server.wait_ready("m", put(armed, good, 2), 30).replace("/v2", "") + "/predict"
    assert until(lambda: len(armed.server.workers()) == 2)
    with load(url, {"rows": [{"x": 5}]}) as running:
        running.wait_for(50)
        revision = put(armed, publish(armed, "load"), 2)
        with pytest.raises(ServingError, match=r"endpoint m cannot serve: m@2 killed the worker that loaded it \(SIGSEGV\)"):
            armed.server.wait_ready("m", revision, 20)
        assert until(lambda: len(armed.server.workers()) == 2)
    assert running.outcome.lost == 0, running.outcome.reasons
    assert set(running.outcome.versions) == {1}
    assert until(lambda: armed.server.states()["m"].state == "ready")
    found = armed.catalog.endpoint("m")
    assert found is not None
    assert (found.main.version, found.revision) == (1, revision + 1)
    [*_, change] = armed.catalog.endpoint_changes()
    assert "m@2 killed the worker" in change["reason"]


def test_a_version_that_kills_on_some_rows_is_taken_back(armed: Place) -> None:
    url = armed.server.wait_ready("m", put(armed, publish(armed, "never"), 1), 30).replace("/v2", "") + "/predict"
    revision = put(armed, publish(armed, "row"), 1)
    armed.server.wait_ready("m", revision, 20)
    deaths = 0
    while call(url, {"rows": [{"x": 5}]})[1]["version"] == 2:
        with pytest.raises(OSError, match=r"reset|closed"):
            call(url, {"rows": [{"x": 666}]})
        deaths += 1
        assert deaths <= 5
    assert deaths == 3
    assert call(url, {"rows": [{"x": 666}]})[0] == 200
    assert until(lambda: (found := armed.catalog.endpoint("m")) is not None and found.main.version == 1)
    state = armed.server.states()["m"]
    assert state.state == "ready"
    assert "m@2 killed workers that answered with it, again and again (SIGSEGV)" in state.undone[revision]


def test_the_first_version_kills_and_there_is_nothing_to_go_back_to(armed: Place) -> None:
    revision = put(armed, publish(armed, "load"), 1)
    with pytest.raises(ServingError, match="killed the worker that loaded it"):
        armed.server.wait_ready("m", revision, 30)
    assert armed.server.states()["m"].state == "failed"
    assert until(lambda: len(armed.server.workers()) == 1)
    assert armed.call("/models/m/predict", {"rows": [{"x": 1}]})[0] == 503


def test_a_bundle_that_is_deleted_while_it_is_served(place: Place) -> None:
    version = place.publish("m")
    revision = place.catalog.put_endpoint("m", [Share(version.uid)], options={"replicas": 2}, reason="DEPLOY")
    place.server.wait_ready("m", revision, 30)
    url = f"{place.server.url()}/models/m/predict"
    assert until(lambda: len(place.server.workers()) == 2)
    assert until(lambda: place.server.states()["m"].replicas == 2)
    kept = place.folder / "kept"
    assert until(lambda: "damaged" not in str(place.server.states()))
    shutil.move(version.bundle, kept)
    assert until(lambda: place.server.states()["m"].arms[0].state == "damaged", 20)
    state = place.server.states()["m"]
    assert state.state == "ready"
    assert "manifest.json is missing" in str(state.error)
    with load(url, BODY) as running:
        running.wait_for(20)
        [first, second] = place.server.workers()
        os.kill(first["pid"], signal.SIGKILL)
        assert until(lambda: len(place.server.workers()) == 2, 20)
        count = running.outcome.done
        running.wait_for(count + 200)
    assert running.outcome.lost == 0, running.outcome.reasons
    assert [w["pid"] for w in place.server.workers() if w["takes_requests"]] == [second["pid"]]
    shutil.move(kept, version.bundle)
    assert until(lambda: place.server.states()["m"].replicas == 2, 20)
    assert until(lambda: place.server.states()["m"].arms[0].state == "ready", 20)


def test_a_bundle_that_is_gone_when_every_worker_must_load_it_anew(place: Place) -> None:
    version = place.publish("m")
    url = place.serve(version, "m").replace("/v2", "") + "/predict"
    kept = place.folder / "kept"
    shutil.move(version.bundle, kept)
    for worker in place.server.workers():
        os.kill(worker["pid"], signal.SIGKILL)
    assert until(lambda: place.server.states()["m"].state == "failed", 20)
    assert f"the model's file {version.bundle / 'manifest.json'} is missing" in str(place.server.states()["m"].error)
    assert until(lambda: [w["takes_requests"] for w in place.server.workers()] == [True], 20)
    status, told = call(url, BODY)
    assert status == 503
    assert told["error"] == "endpoint m (m@1) could not be loaded (SHOW ENDPOINTS tells why)"  # no path of this machine
    shutil.move(kept, version.bundle)
    assert until(lambda: place.server.states()["m"].state == "ready", 20)
    assert call(url, BODY)[0] == 200


def test_an_idle_endpoint_whose_bundle_is_gone_has_failed(place: Place) -> None:
    version = place.publish("m")
    revision = place.catalog.put_endpoint("m", [Share(version.uid)], options={"idle_timeout": 0.2}, reason="DEPLOY")
    place.server.wait_ready("m", revision, 20)
    assert until(lambda: place.server.states()["m"].state == "idle", 20)
    kept = place.folder / "kept"
    shutil.move(version.bundle, kept)
    assert until(lambda: place.server.states()["m"].state == "failed", 20)
    assert "is missing" in str(place.server.states()["m"].error)
    shutil.move(kept, version.bundle)
    assert until(lambda: place.server.states()["m"].state == "idle", 20)


def answers(url: str, x: float) -> int | None:
    """Which version answers; None where the worker that was asked is just being ended."""
    try:
        return int(call(url, {"rows": [{"x": x}]})[1]["version"])
    except OSError:
        return None


def test_while_the_catalog_is_locked_all_goes_on_and_what_kills_is_not_served(armed: Place) -> None:
    armed.server.wait_ready("m", put(armed, publish(armed, "never"), 2), 30)
    revision = put(armed, publish(armed, "row"), 2)
    armed.server.wait_ready("m", revision, 20)
    url = f"{armed.server.url()}/models/m/predict"
    lock = sqlite3.connect(armed.folder / "catalog.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    for _ in range(3):
        with pytest.raises(OSError, match=r"reset|closed"):
            call(url, {"rows": [{"x": 666}]})
    assert until(lambda: armed.server.states()["m"].state == "failed")
    assert until(lambda: answers(url, 666) == 1)
    found = armed.catalog.endpoint("m")
    assert found is not None
    assert (found.main.version, found.revision) == (2, revision)
    lock.execute("ROLLBACK")
    lock.close()
    assert until(lambda: armed.server.states()["m"].state == "ready")
    assert armed.server.states()["m"].revision == revision + 1


def test_a_catalog_that_is_gone_changes_nothing(place: Place) -> None:
    place.deploy("m")
    for path in place.folder.glob("catalog.db*"):
        path.unlink()
    assert until(lambda: "the catalog cannot be read, serving on" in (place.folder / "logs" / "server.log").read_text())
    assert place.server.states()["m"].state == "ready"
    os.kill(place.server.workers()[0]["pid"], signal.SIGKILL)
    assert until(lambda: [w["takes_requests"] for w in place.server.workers()] == [True], 20)
    assert place.call("/models/m/predict", BODY)[0] == 200
    assert place.server.stop()


JUMPING = """
import time
_real, _count = time.time, [0]
def jumping():
    _count[0] += 1
    return _real() + (86400 if _count[0] % 7 < 3 else -86400)
time.time = jumping
"""


def test_a_clock_that_jumps_changes_nothing(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(JUMPING, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, sys.path)]))
    check = "import time; times = [time.time() for _ in range(20)]; print(max(times) - min(times) > 80000)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "True\n"
    place.publish("m")
    version = place.catalog.resolve("m")
    place.catalog.put_endpoint("m", [Share(version.uid)], options={"replicas": 2}, reason="DEPLOY")
    place.server.wait_ready("m", 1, 30)
    with load(f"{place.server.url()}/models/m/predict", BODY) as running:
        for i in range(3):
            place.server.wait_ready("m", place.catalog.deploy("m", place.publish("m", seed=i)), 20)
        running.wait_for(300)
    assert running.outcome.failed == 0, running.outcome.reasons
    [state] = [place.server.states()["m"]]
    assert (state.state, state.replicas) == ("ready", 2)
    os.kill(place.server.workers()[0]["pid"], signal.SIGKILL)
    assert until(lambda: place.server.states()["m"].replicas == 2, 20)
    assert place.server.stop()


# --- two servers, one catalog -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres_catalog() -> Iterator[str]:
    for database in new_postgres():
        yield database.replace("postgresql://", "postgresql+psycopg://")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_two_homes_on_one_catalog_have_one_server(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/shared.db" if kind == "sqlite" else request.getfixturevalue("postgres_catalog")
    first, second = LocalServer(tmp_path / "a.sqlml", url), LocalServer(tmp_path / "b.sqlml", url)
    address = first.ensure()
    state = read_state(tmp_path / "a.sqlml")
    assert state is not None
    said = rf"the endpoints of the catalog {kind}.* are served already by process {state.pid} on "
    with pytest.raises(ServingError, match=rf"(?s)could not start.*{said}"):
        second.ensure()
    assert first.url() == address
    os.kill(state.pid, signal.SIGKILL)
    assert until(lambda: not state.alive())
    assert second.ensure()
    assert second.stop()


def test_a_claim_that_was_lost_with_its_connection_is_taken_again(tmp_path: Path, postgres_catalog: str) -> None:
    import psycopg

    with (
        closing(Catalog.open(tmp_path / "a.sqlml", postgres_catalog)) as catalog,
        catalog.claim_serving("process 1 on x at y") as claim,
    ):
        claim.check()
        with psycopg.connect(postgres_catalog.replace("+psycopg", ""), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'sqlml serve%'")
        claim.check()
        with (
            closing(Catalog.open(tmp_path / "b.sqlml", postgres_catalog)) as rival,
            pytest.raises(ServingError, match="served already by process 1 on x at y"),
            rival.claim_serving("process 2 on x at z"),
        ):
            pass


def test_a_place_is_what_it_says(tmp_path: Path) -> None:
    place = Place(tmp_path / "bank.sqlml", Task.CLUSTERING)
    with place.catalog.claim_serving("me"), place.catalog.claim_serving("me"):  # the home's own lock guards it
        assert not list(place.folder.glob("*.server"))
    place.close()
