"""Workers die, are stopped, replaced, added and taken away, and nobody who asks notices more than they must."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlml_runners.serving.control import LocalServer
from sqlml_runners.serving.state import read_state

from sqlml.catalog.shares import Share
from sqlml.types import Task
from tests.serving.conftest import EXAMPLE, Place
from tests.serving.load import load, until
from tests.serving.test_lifecycle import left_in, process
from tests.soak import serving as soak

pytestmark = pytest.mark.slow

BODY = {"rows": [EXAMPLE]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[soak.Scene]:
    """A server with two workers."""
    with soak.scene(tmp_path_factory.mktemp("pair") / "bank.sqlml") as scene:
        yield scene


def put(place: Place, model: str, endpoint: str, **options: Any) -> None:
    """Put a model's newest version behind an endpoint with options; not waited for."""
    version = place.catalog.resolve(model)
    place.catalog.put_endpoint(endpoint, [Share(version.uid)], options=options, reason="DEPLOY")


def test_a_flood_is_answered_or_refused_with_a_time_to_come_again(tmp_path: Path) -> None:
    with soak.scene(tmp_path / "flood.sqlml", replicas=1) as at:
        found = soak.overload(at, 2.0)
        calm, full = found.calm, found.flood
        assert (calm.broken, sum(calm.others.values())) == (0, 0)
        assert (full.broken, sum(full.others.values()), full.without_retry_after) == (0, 0, 0)
        assert len(full.accepted) > 0
        assert len(full.refused) > 0
        assert until(lambda: at.place.server.states()["m"].queue == 0)
        assert at.place.call("/models/m/predict", soak.BODY)[0] == 200


def test_a_worker_that_is_killed_costs_no_more_than_what_it_was_answering(pair: soak.Scene) -> None:
    kills = soak.kill_workers(pair, 4, random.Random(0))
    assert kills.above == 0
    assert kills.outcome.lost == 0
    assert max(kills.respawn) < 10  # soak measures: 2 s


def test_versions_are_swapped_without_a_failure(pair: soak.Scene) -> None:
    swaps = soak.swap_under_load(pair, 4)
    assert swaps.outcome.failed == 0, swaps.outcome.reasons
    assert swaps.swaps >= 5
    assert set(swaps.outcome.versions) == {1, 2}


def test_a_hundred_swaps_leave_nothing_behind(pair: soak.Scene) -> None:
    growth = soak.swap_many(pair, 100)
    assert growth["descriptors"] <= 2
    assert growth["threads"] <= 2


def test_workers_are_replaced_without_a_failure(pair: soak.Scene) -> None:
    outcome, restarts = soak.restart_rolling(pair, 1000)
    assert restarts >= 1
    assert outcome.failed == 0, outcome.reasons


def test_a_worker_that_is_stopped_in_order_finishes_and_another_comes(pair: soak.Scene) -> None:
    with load(pair.url, BODY) as running:
        running.wait_for(50)
        [first, _] = sorted(pair.pids())
        os.kill(first, signal.SIGTERM)
        assert until(lambda: first not in pair.pids() and len(pair.pids()) == 2, 20)
    assert running.outcome.failed == 0, running.outcome.reasons


def test_the_process_that_forks_is_killed_and_workers_still_come(pair: soak.Scene) -> None:
    workers = pair.pids()
    children = [p for p in psutil.Process(pair.supervisor()).children() if p.pid not in workers and p.status() != "zombie"]
    [nursery] = [p for p in children if "settling" not in "".join(p.cmdline())]  # which makes Parquet now and then
    nursery.kill()
    os.kill(min(workers), signal.SIGKILL)
    assert until(lambda: len(pair.pids()) == 2 and min(workers) not in pair.pids(), 30)
    assert pair.place.call("/models/m/predict", BODY)[0] == 200


def test_connections_move_to_workers_that_have_few(pair: soak.Scene) -> None:
    with load(pair.url, BODY, 12) as running:
        running.wait_for(50)
        os.kill(max(pair.pids()), signal.SIGKILL)  # its connections go to the other
        assert until(lambda: len(pair.pids()) == 2, 20)

        def even() -> bool:
            counts = [worker["connections"] for worker in pair.place.server.workers()]
            return len(counts) == 2 and min(counts) >= 3

        assert until(even, 20), pair.place.server.workers()


def test_the_server_stops_in_order_under_load(pair: soak.Scene) -> None:  # the last with this server
    outcome = soak.stop_under_load(pair)
    assert outcome.failed == 0, outcome.reasons
    assert outcome.refused == soak.CONNECTIONS
    assert left_in(pair.place.folder) == set()


def test_a_supervisor_that_is_killed_leaves_nobody_on_the_port(tmp_path: Path) -> None:
    folder = tmp_path / "bank.sqlml"
    with socket.create_server(("127.0.0.1", 0)) as free:  # no port that a server of another test takes by itself
        port = str(free.getsockname()[1])
    with process(folder, "--port", port):
        assert until(lambda: LocalServer(folder).url() is not None, 20)
        with soak.scene(folder) as scene:
            assert str(soak.read_port(scene)) == port
            assert soak.kill_supervisor(scene) < 10  # soak measures: 2 s
            with process(folder, "--port", port):
                assert until(lambda: scene.place.server.url() is not None, 20)
                assert scene.place.server.wait_ready("m", 1, 20)


def test_a_stuck_worker_is_replaced(place: Place) -> None:
    place.catalog.deploy("m", place.publish("m"))
    with process(place.folder, "--hang-seconds", "1.5"):
        assert until(lambda: len(place.server.workers()) == 1, 20)
        assert place.server.wait_ready("m", 1, 20)
        [worker] = place.server.workers()
        os.kill(worker["pid"], signal.SIGSTOP)
        assert until(lambda: [w["pid"] for w in place.server.workers() if w["takes_requests"]] not in ([], [worker["pid"]]), 20)
        assert place.call("/models/m/predict", BODY)[0] == 200


def test_workers_come_while_requests_wait_and_go_when_none_do(place: Place) -> None:
    place.publish("m")
    put(place, "m", "m", min_replicas=1, max_replicas=3)
    with process(place.folder, "--calm-seconds", "1.5"):
        assert until(lambda: place.server.url() is not None, 20)
        assert place.server.wait_ready("m", 1, 20)
        assert len(place.server.workers()) == 1
        with load(f"{place.server.url()}/models/m/predict", BODY, 24) as running:
            assert until(lambda: place.server.states()["m"].replicas == 3, 30)
        assert running.outcome.failed == 0, running.outcome.reasons
        with load(f"{place.server.url()}/models/m/predict", BODY, 1) as running:
            assert until(lambda: place.server.states()["m"].replicas == 1, 30)
        assert running.outcome.failed == 0, running.outcome.reasons


def test_another_number_of_replicas(place: Place) -> None:
    place.publish("m")
    for replicas in (1, 3, 2):
        put(place, "m", "m", replicas=replicas)
        place.server.ensure()
        assert until(partial(are, place, replicas), 20)


def are(place: Place, workers: int) -> bool:
    return place.server.states()["m"].replicas == len(place.server.workers()) == workers


def test_an_idle_model_leaves_memory_and_comes_back_for_the_first_request(place: Place) -> None:
    place.publish("m")
    put(place, "m", "m", idle_timeout=1.0)
    place.server.ensure()
    assert place.server.wait_ready("m", 1, 20)
    assert until(lambda: place.server.states()["m"].state == "idle", 10)
    assert place.call("/v2/health/ready")[0] == 200
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: place.call("/models/m/predict", BODY), range(8)))
    assert {status for status, _ in answers} == {200}
    assert place.server.states()["m"].state == "ready"
    assert place.server.wait_ready("m", 1, 1)
    put(place, "m", "m", idle_timeout=1.0)
    assert until(lambda: place.server.states()["m"].state == "idle", 10)
    assert place.server.wait_ready("m", 2, 1)  # known to work, loaded when it is asked for
    assert place.call("/v2/models/m")[0] == 200


def test_more_models_than_fit(tmp_path: Path) -> None:
    place = Place(tmp_path / "bank.sqlml", Task.CLUSTERING)
    version, names = place.publish("m"), [f"e{i}" for i in range(60)]
    size = sum(path.stat().st_size for path in version.bundle.rglob("*") if path.is_file())
    for name in names:
        put(place, "m", name)
    with process(place.folder, "--memory", str(20 * size)):
        assert until(lambda: place.server.url() is not None, 20)
        assert until(lambda: len(place.server.states()) == 60 and "loading" not in kinds(place), 30)
        assert 1 <= kinds(place).count("ready") <= 20
        answers = [place.call(f"/models/{name}/predict", BODY)[0] for name in names * 2]
        assert set(answers) == {200}
        assert kinds(place).count("ready") <= 20
        assert place.server.states()["e59"].state == "ready"  # the last that was used
    place.close()


def test_a_control_socket_that_was_tidied_away_comes_back(place: Place) -> None:
    place.deploy("m")
    state = read_state(place.folder)
    assert state is not None
    shutil.rmtree(Path(state.control).parent)
    assert place.server.states() == {}
    assert until(lambda: place.server.states() != {}, 10)
    place.server.stop()
    assert left_in(place.folder) == set()


def kinds(place: Place) -> list[str]:
    return [state.state for state in place.server.states().values()]


def test_figures_of_each_version(place: Place) -> None:
    place.deploy("m")
    for _ in range(20):
        assert place.call("/models/m/predict", BODY)[0] == 200
    place.call("/models/m/predict", {"rows": [{"age": "old"}]})
    assert until(lambda: place.server.states()["m"].arms[0].requests == 21, 5)
    [arm] = place.server.states()["m"].arms
    assert arm.errors == 0
    assert arm.latency_p50 is not None
    assert arm.latency_p99 is not None
    assert 0 < arm.latency_p50 <= arm.latency_p99 < 5
    time.sleep(0.6)
    assert place.server.states()["m"].queue == 0
