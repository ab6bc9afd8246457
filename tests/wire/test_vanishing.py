"""Client processes that are killed in the middle: what they ran goes on or is stopped, and nothing else of them is left."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

from sqlml.home import home_of
from tests.wire.places import Place, serving
from tests.wire.served import ENDLESS

pytestmark = pytest.mark.slow

PSYCOPG = """
import psycopg, sys
connection = psycopg.connect(sys.argv[1], autocommit=True)
for statement in sys.argv[2:]:
    connection.execute(statement.encode())
"""
GUEST = """
import sqlml, sys
connection = sqlml.connect(sys.argv[1])
for statement in sys.argv[2:]:
    connection.execute(statement)
"""
HTTP = """
import json, sys, urllib.request
body = json.dumps({"statement": sys.argv[2], "on_disconnect": sys.argv[3]}).encode()
urllib.request.urlopen(urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})).read()
"""
TRAIN = "TRAIN MODEL {} USING xgboost_regressor TARGET y WITH (n_estimators = {}) AS FROM numbers"
QUICK, LONG = 60, 20_000


@dataclass(frozen=True)
class Left:
    """What a server has open."""

    files: tuple[str, ...]  # pipes, sockets, and files but for those that are always there
    sockets: int
    children: int
    data: frozenset[str]  # of jobs


@dataclass(frozen=True)
class Watched:
    """A server, and somebody in it who looks."""

    place: Place
    file: Path
    process: psutil.Process
    witness: psycopg.Connection[tuple[object, ...]]

    def left(self) -> Left:
        sockets = [one for one in self.process.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
        jobs = home_of(self.file) / "jobs"
        data = frozenset(str(path) for path in jobs.glob("*/data*"))
        return Left(self._files(), len(sockets), len(self.process.children()), data)

    def _files(self) -> tuple[str, ...]:
        found = []
        for each in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                name = os.readlink(each)
                if not name.startswith(str(self.file)) and "catalog.db" not in name and "onnxruntime" not in name:
                    found.append(name.partition(":[")[0])
        return tuple(sorted(found))

    def states(self, model: str) -> list[str]:
        """The states of a model's jobs."""
        query = "SELECT state FROM sqlml.jobs WHERE model = %s"
        return [str(state) for (state,) in self.witness.execute(query, (model,)).fetchall()]

    def kill_while(self, holds: Callable[[], bool], code: str, *arguments: str) -> None:
        """Start a client, and kill it as soon as something holds."""
        with subprocess.Popen([sys.executable, "-c", code, *arguments]) as client:
            wait_until(lambda: holds() or client.poll() is not None)
            assert client.poll() is None, "it came to its end"
            client.kill()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    file = tmp_path_factory.mktemp("watched") / "bank.duckdb"
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see what a process has open")
    with serving(file) as (place, child), psycopg.connect(place.conninfo, autocommit=True) as witness:
        witness.execute("CREATE TABLE numbers AS SELECT random() AS x, random() AS y FROM range(2000)")
        witness.execute(TRAIN.format("warm", 2).encode())
        yield Watched(place, file, psutil.Process(child.pid), witness)


@pytest.fixture
def nothing_left(watched: Watched) -> Iterator[None]:
    """What was there before is there afterwards, and no more; and whatever was locked can be changed."""
    wait_until(lambda: watched.left().sockets == 1)
    before, threads = watched.left(), watched.process.num_threads()
    yield
    wait_until(lambda: watched.left() == before)
    watched.witness.execute("UPDATE numbers SET x = x")
    assert watched.process.num_threads() <= threads + 6  # those of the pool end when they have been idle for a while


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def client_of(kind: str, watched: Watched) -> tuple[str, str]:
    """A client's program, and how it is told where the server is."""
    place = watched.place
    return {
        "psycopg": (PSYCOPG, place.conninfo),
        "guest": (GUEST, str(watched.file)),
        "http": (HTTP, f"http://{place.host}:{place.port}/sql"),
    }[kind]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kind", ["psycopg", "guest", "http"])
def test_a_training_goes_on(watched: Watched, kind: str) -> None:
    program, address = client_of(kind, watched)
    more = ["keep"] if kind == "http" else []
    watched.kill_while(lambda: watched.states(kind) == ["running"], program, address, TRAIN.format(kind, QUICK), *more)
    wait_until(lambda: watched.states(kind) == ["done"])


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kind", ["psycopg", "http"])
def test_a_training_is_cancelled_where_that_is_wanted(watched: Watched, kind: str) -> None:
    model = f"cancelled_by_{kind}"
    program, address = client_of(kind, watched)
    train = TRAIN.format(model, LONG)
    asked = [train, "cancel"] if kind == "http" else ["SET on_disconnect = 'cancel'", train]
    watched.kill_while(lambda: watched.states(model) == ["running"], program, address, *asked)
    wait_until(lambda: watched.states(model) == ["cancelled"])


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("kind", ["psycopg", "guest"])
def test_a_transaction_is_undone(watched: Watched, kind: str) -> None:
    """While a query runs in it that has no end."""
    program, address = client_of(kind, watched)
    cpu = sum(watched.process.cpu_times()[:2])
    asked = ["BEGIN", "CREATE TABLE never (a INT)", "UPDATE numbers SET x = 0", ENDLESS]
    watched.kill_while(lambda: sum(watched.process.cpu_times()[:2]) > cpu + 1.5, program, address, *asked)
    wait_until(lambda: watched.left().sockets == 1)
    assert watched.witness.execute("SELECT count(*) FROM numbers WHERE x = 0").fetchone() == (0,)
    watched.witness.execute("CREATE TABLE never (a INT)")
    watched.witness.execute("DROP TABLE never")
