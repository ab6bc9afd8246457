"""Endpoints under load while workers die, are replaced, stop, and while versions are swapped.

Each scene is a function over a server with an endpoint ``m`` and two versions; ``tests/serving`` runs them short, ``run`` long.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from sqlml_runners.serving.state import read_state
from sqlml_runners.serving.supervisor import IMPORT_PAUSE

from sqlml.catalog import Share, Version
from sqlml.types import Task
from tests.serving.conftest import EXAMPLE, Place
from tests.serving.load import Load, Outcome, load, until
from tests.soak.flood import Flood, flood, quantile
from tests.soak.swapper import put_version

BODY = {"rows": [EXAMPLE]}
CONNECTIONS = 8


class Scene:
    """A server with some workers, the endpoint ``m``, and two versions for it."""

    def __init__(self, folder: Path, replicas: int = 2) -> None:
        self.place = Place(folder, Task.CLUSTERING)
        self.replicas = replicas
        self.versions = [self.place.publish("m", seed=seed) for seed in (1, 2)]
        self.put(self.versions[0])
        assert until(lambda: len(self.pids()) == replicas, 20)

    def put(self, version: Version) -> None:
        """Put a version behind the endpoint and wait until it is warm in every worker."""
        put_version(self.place.catalog, self.place.server, version.uid, self.replicas)

    @property
    def url(self) -> str:
        """Where rows are sent."""
        return f"{self.place.server.url()}/models/m/predict"

    def pids(self) -> set[int]:
        """The workers that take requests."""
        return {worker["pid"] for worker in self.place.server.workers() if worker["takes_requests"]}

    def supervisor(self) -> int:
        """The server's process."""
        state = read_state(self.place.folder)
        assert state is not None
        return state.pid

    def family(self) -> list[psutil.Process]:
        """Every process of the server."""
        parent = psutil.Process(self.supervisor())
        return [parent, *parent.children(recursive=True)]


@contextmanager
def scene(folder: Path, replicas: int = 2) -> Iterator[Scene]:
    """A scene for the time of a ``with``."""
    made = Scene(folder, replicas)
    try:
        yield made
    finally:
        made.place.close()


@dataclass
class Kills:
    """What ``kill -9`` of workers did: ``above``: failures beyond the connections that the victim had, over all rounds."""

    outcome: Outcome
    above: int = 0
    respawn: list[float] = field(default_factory=list)


def _replaced(at: Scene, old: set[int]) -> bool:
    """Whether there are as many workers as there should be, and none of the old ones."""
    pids = at.pids()
    return len(pids) == at.replicas and not pids & old


def kill_workers(at: Scene, rounds: int, chance: random.Random) -> Kills:
    """Kill one worker after the other at random moments under load."""
    time.sleep(IMPORT_PAUSE + 1)  # what the model needs is imported where workers are born
    with load(at.url, BODY, CONNECTIONS) as running:
        result = Kills(running.outcome)
        running.wait_for(100)
        for _ in range(rounds):
            time.sleep(chance.uniform(0.1, 0.6))
            victim = psutil.Process(chance.choice(sorted(at.pids())))
            victim.suspend()  # or it takes more connections, or lets some go, while they are counted
            before, held = running.outcome.failed, len(victim.net_connections("tcp")) - 1
            began = time.monotonic()
            victim.kill()
            assert until(partial(_replaced, at, {victim.pid}), 30)
            result.respawn.append(time.monotonic() - began)
            time.sleep(0.05)
            result.above += max(0, running.outcome.failed - before - held)
    return result


def restart_rolling(at: Scene, requests: int) -> tuple[Outcome, int]:
    """Rolling restarts, one after the other, until so many requests were made; how often."""
    restarts = 0
    with load(at.url, BODY, CONNECTIONS) as running:
        running.wait_for(100)
        while running.outcome.done < requests or restarts == 0:
            old = at.pids()
            os.kill(at.supervisor(), signal.SIGHUP)
            assert until(partial(_replaced, at, old), 170), "not replaced"
            restarts += 1
            time.sleep(0.3)
        running.stop()
    return running.outcome, restarts


def stop_under_load(at: Scene, requests: int = 100) -> Outcome:
    """Stop the server in order while requests come; whoever finds nobody listening any more goes home."""
    running = Load(at.url, BODY, CONNECTIONS, until_refused=True)
    running.start()
    running.wait_for(requests)
    assert at.place.server.stop()
    return running.stop()


@dataclass
class Swaps:
    """What swapping did: ``ratio`` of the requests a second while swapping to those without."""

    outcome: Outcome
    swaps: int
    ratio: float


def swap_under_load(at: Scene, seconds: float, per_second: float = 5.0, window: float = 2.0) -> Swaps:
    """Swap two versions back and forth in every second window of time: the others are what it is compared with."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with _swapper(at, per_second) as swapper, load(at.url, BODY, CONNECTIONS) as running:
        running.wait_for(100)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for swapping in (True, False):
                _tell(swapper, "go" if swapping else "rest")
                time.sleep(0.3)  # until it does as it was told
                began, done = time.monotonic(), running.outcome.done
                time.sleep(window)
                rates[swapping].append((running.outcome.done - done) / (time.monotonic() - began))
    swaps = int(swapper.communicate()[0])
    return Swaps(running.outcome, swaps, statistics.median(rates[True]) / statistics.median(rates[False]))


@contextmanager
def _swapper(at: Scene, per_second: float) -> Iterator[subprocess.Popen[str]]:
    uids = [version.uid for version in at.versions]
    command = [sys.executable, "-m", "tests.soak.swapper", str(at.place.folder), str(at.replicas), str(per_second), *uids]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    except BaseException:
        process.kill()
        raise


def _tell(swapper: subprocess.Popen[str], word: str) -> None:
    assert swapper.stdin is not None
    swapper.stdin.write(word + "\n")
    swapper.stdin.flush()


def swap_many(at: Scene, swaps: int) -> dict[str, float]:
    """Swap so often, under light load; by how many bytes, threads and descriptors the processes grew after a tenth of it."""
    with load(at.url, BODY, 1):
        for i in range(swaps // 10):
            at.put(at.versions[i % 2])
        before = _size(at)
        for i in range(swaps // 10, swaps):
            at.put(at.versions[i % 2])
        after = _size(at)
    return {what: after[what] - before[what] for what in before}


def _size(at: Scene) -> dict[str, float]:
    family = at.family()
    return {
        "bytes": sum(process.memory_info().rss for process in family),
        "threads": sum(process.num_threads() for process in family),
        "descriptors": sum(process.num_fds() for process in family),
    }


def kill_supervisor(at: Scene) -> float:
    """``kill -9`` of the supervisor under load: how long until no process of the server lives and the port is free."""
    family, port = at.family(), read_port(at)
    running = Load(at.url, BODY, CONNECTIONS, until_refused=True)
    running.start()
    running.wait_for(50)
    began = time.monotonic()
    family[0].kill()
    assert until(lambda: not any(map(_lives, family)), 15)
    with socket.create_server(("127.0.0.1", port)):
        seconds = time.monotonic() - began
    running.stop()
    return seconds


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False


def read_port(at: Scene) -> int:
    """The port that the server listens on."""
    state = read_state(at.place.folder)
    assert state is not None
    return state.port


FLOOD_BODY = json.dumps({"rows": [EXAMPLE] * 20}).encode()
"""Requests that take the server about a millisecond, so that one Python can send four times as many as it can answer."""
FLOOD_QUEUE = 16


@dataclass
class Overload:
    """``calm``: what requests take while every one can be answered; ``flood``: what became of four times as many."""

    capacity: float
    calm: Flood
    flood: Flood


def overload(at: Scene, seconds: float, times: float = 4.0) -> Overload:
    """Find out what one worker can carry, then send ``times`` as much in an open loop."""
    options = {"replicas": at.replicas, "max_queue": FLOOD_QUEUE}
    shares = [Share(at.versions[0].uid)]
    at.place.server.wait_ready("m", at.place.catalog.put_endpoint("m", shares, options=options, reason="SET"), 60)
    with load(at.url, json.loads(FLOOD_BODY), CONNECTIONS) as running:
        running.wait_for(50)
        began, done = time.monotonic(), running.outcome.done
        time.sleep(max(1.0, seconds / 2))
        capacity = (running.outcome.done - done) / (time.monotonic() - began)
    calm = flood(at.url, FLOOD_BODY, capacity * 0.6, seconds)
    return Overload(capacity, calm, flood(at.url, FLOOD_BODY, capacity * times, seconds))


# --- long -------------------------------------------------------------------------------------------------------------


def run(rounds: int, requests: int, swaps: int, seed: int) -> int:
    """Every scene, long; how many went wrong."""
    chance = random.Random(seed)
    scenes: list[Callable[[Path], str | None]] = [
        lambda folder: _long_kills(folder, rounds, chance),
        lambda folder: _long_restarts(folder, requests),
        lambda folder: _long_swaps(folder, swaps),
        lambda folder: _long_orphans(folder, rounds // 10 + 1),
        _long_flood,
    ]
    wrong = 0
    for play in scenes:
        with tempfile.TemporaryDirectory() as folder:
            problem = play(Path(folder))
        if problem:
            wrong += 1
            print(f"  WRONG: {problem}")
    return wrong


def _long_kills(folder: Path, rounds: int, chance: random.Random) -> str | None:
    with scene(folder / "a.sqlml") as at:
        kills = kill_workers(at, rounds, chance)
    o, slowest = kills.outcome, max(kills.respawn)
    print(
        f"serving: {rounds} workers killed, {o.done:,} requests, {o.failed} failed, {kills.above} beyond those in flight, "
        f"{o.lost} after one retry; back after {statistics.median(kills.respawn):.2f} s, at most {slowest:.2f} s"
    )
    return str(o.reasons) if kills.above or o.lost or slowest > 2 else None


def _long_restarts(folder: Path, requests: int) -> str | None:
    with scene(folder / "a.sqlml") as at:
        outcome, restarts = restart_rolling(at, requests)
        stopped = stop_under_load(at)
    print(
        f"serving: {restarts} rolling restarts, {outcome.done:,} requests, {outcome.failed} failed; "
        f"stopped in order, {stopped.done:,} requests, {stopped.failed} failed"
    )
    return str(outcome.reasons + stopped.reasons) if outcome.failed or stopped.failed else None


def _long_flood(folder: Path) -> str | None:
    with scene(folder / "a.sqlml", replicas=1) as at:
        found = overload(at, 10)
    calm, full = found.calm, found.flood
    normal, p99 = quantile(calm.accepted, 0.99), quantile(full.accepted, 0.99)
    half, most = quantile(full.refused, 0.5), quantile(full.refused, 0.99)
    print(
        f"serving: {found.capacity:,.0f} requests a second can be answered; of four times as many {len(full.accepted):,} were, "
        f"p99 {p99 * 1000:.1f} ms ({p99 / normal:.1f} x normal), {len(full.refused):,} refused, half of them within "
        f"{half * 1000:.1f} ms, 99 % within {most * 1000:.1f} ms; {full.unsent:,} could not be sent"
    )
    if full.others or full.broken or full.without_retry_after or not full.refused:
        return f"{full.others}, {full.broken} broken, {full.without_retry_after} without Retry-After"
    return "refusals or answers took too long" if p99 > 3 * normal or half > 0.005 else None


def _long_swaps(folder: Path, swaps: int) -> str | None:
    with scene(folder / "a.sqlml", replicas=1) as at:  # a core for the worker, another for everything else
        done = swap_under_load(at, 60)
    with scene(folder / "b.sqlml") as at:
        growth = swap_many(at, swaps)
    print(
        f"serving: {done.swaps} swaps under load, {done.outcome.done:,} requests, {done.outcome.failed} failed, "
        f"{done.ratio:.2f} x of the requests a second without; {swaps:,} more: grown by {growth['bytes'] / 1e6:.1f} MB, "
        f"{growth['threads']:+.0f} threads, {growth['descriptors']:+.0f} descriptors"
    )
    grown = growth["bytes"] > 30e6 or growth["descriptors"] > 5 or growth["threads"] > 3
    return str(done.outcome.reasons) if done.outcome.failed or done.ratio < 0.95 or grown else None


def _long_orphans(folder: Path, rounds: int) -> str | None:
    slowest = 0.0
    for i in range(rounds):
        with scene(folder / f"{i}.sqlml") as at:
            slowest = max(slowest, kill_supervisor(at))
    print(f"serving: {rounds} supervisors killed; nobody left on the port after {slowest:.2f} s at most")
    return "slow" if slowest > 2 else None
