"""Several connections, several threads, interrupts."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import sqlml

QUICK = "TRAIN MODEL {} TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 3) ON inline AS FROM people"
LONG = "TRAIN MODEL slow TARGET bought EXCLUDE (id, spent) WITH (n_estimators = 100000) ON {} AS FROM people"
pytestmark = pytest.mark.slow

MANY = "SELECT sum(hash(a.range * b.range)) FROM range(1000000) AS a, range(100000) AS b"


def test_two_trainings_of_one_name(database: Path) -> None:
    barrier = threading.Barrier(2)

    def train(_: int) -> Any:
        with sqlml.connect(database) as connection:
            barrier.wait(30)
            row = connection.execute(QUICK.format("both")).fetchone()
            return row[1] if row else None

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(train, range(2))) == [1, 2]
    with sqlml.connect(database) as connection:
        assert connection.execute("SELECT version, state FROM sqlml.runs WHERE model = 'both' ORDER BY 1").fetchall() == [
            (1, "done"),
            (2, "done"),
        ]


def test_threads_train_and_predict(database: Path) -> None:
    def work(number: int) -> int:
        with sqlml.connect(database) as connection:
            for _ in range(3):
                connection.execute(QUICK.format(f"m{number % 2}"))
                assert connection.execute(f"SELECT count(PREDICT(m{number % 2})) FROM people").fetchone() == (600,)
                connection.execute("SELECT avg(PREDICT_PROBA(buys, 'yes')) FROM people").fetchall()
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [0, 1, 2, 3]
    with sqlml.connect(database) as connection:
        assert connection.execute("SELECT max(version) FROM sqlml.versions WHERE model LIKE 'm_'").fetchone() == (6,)


def test_a_running_query_keeps_its_version(database: Path) -> None:
    with sqlml.connect(database) as connection, sqlml.connect(database) as other:
        connection.execute("CREATE TABLE many AS SELECT people.* FROM people, range(500)")
        expected = connection.execute("SELECT avg(PREDICT_PROBA(buys, 'yes')) FROM people").fetchone()
        cursor = connection.execute("SELECT PREDICT_PROBA(buys, 'yes') FROM many")
        first = cursor.fetchone()
        other.execute(QUICK.format("buys"))
        other.execute("DROP MODEL buys@1")
        assert first is not None
        rest = [first[0], *(p for (p,) in cursor.fetchall())]
        assert len(rest) == 300_000
        assert expected is not None
        assert sum(rest) / 300_000 == pytest.approx(expected[0], abs=1e-6)
        assert connection.execute("SELECT avg(PREDICT_PROBA(buys, 'yes')) FROM people").fetchone() != expected


def interrupted(connection: sqlml.Connection, statement: str, ready: Callable[[], bool]) -> float:
    """Run a statement, interrupt it once it is under way; the seconds from the interrupt to its end."""
    times: list[float] = []

    def stop() -> None:
        deadline = time.monotonic() + 20
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.01)
        times.append(time.monotonic())
        connection.interrupt()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(sqlml.OperationalError, match="cancelled"):
        connection.execute(statement).fetchall()
    thread.join()
    return time.monotonic() - times[0]


@pytest.mark.parametrize("runner", ["inline", "process"])
def test_interrupting_a_training(connection: sqlml.Connection, runner: str) -> None:
    steps: list[Any] = []
    connection.on_event = lambda event: steps.append(event) if event["event"] == "step" else None
    assert interrupted(connection, LONG.format(runner), lambda: bool(steps)) < 5
    [(state, error)] = connection.execute("SELECT state, error FROM sqlml.jobs WHERE model = 'slow'").fetchall()
    assert (state, error) == ("cancelled", "cancelled")
    assert connection.execute("SELECT count(*) FROM sqlml.models WHERE model = 'slow'").fetchone() == (0,)
    home = connection.models_home
    assert home is not None
    assert not list((Path(home) / "jobs").glob("*/train.arrow"))
    assert connection.execute("SELECT count(PREDICT(buys)) FROM people").fetchone() == (600,)


def test_interrupting_the_reading(connection: sqlml.Connection) -> None:
    started = time.monotonic()
    query = f"SELECT age, bought FROM people WHERE age < ({MANY})"
    assert interrupted(connection, f"TRAIN MODEL slow TARGET bought AS {query}", lambda: time.monotonic() > started + 0.5) < 5
    assert connection.execute("SELECT state FROM sqlml.jobs WHERE model = 'slow'").fetchall() == [("cancelled",)]


def test_interrupting_a_prediction(connection: sqlml.Connection) -> None:
    started = time.monotonic()
    query = "SELECT avg(PREDICT_PROBA(buys, 'yes')) FROM people, range(1000000)"
    assert interrupted(connection, query, lambda: time.monotonic() > started + 0.5) < 5
    assert connection.execute("SELECT count(PREDICT(buys)) FROM people").fetchone() == (600,)
    into = "PREDICT MODEL buys INTO scores AS SELECT people.* FROM people, range(1000000)"
    started = time.monotonic()
    assert interrupted(connection, into, lambda: time.monotonic() > started + 0.5) < 5
    assert connection.execute("SHOW TABLES").fetchall() == [("people",)]


def test_an_interrupt_with_nothing_running_is_nothing(connection: sqlml.Connection) -> None:
    connection.interrupt()
    assert connection.execute(QUICK.format("m")).fetchone() is not None


@pytest.mark.parametrize("runner", ["inline", "process"])
def test_a_keyboard_interrupt(connection: sqlml.Connection, runner: str) -> None:
    fired: list[bool] = []

    def on_event(event: Any) -> None:
        if event["event"] == "step" and not fired:
            fired.append(True)
            signal.raise_signal(signal.SIGINT)

    connection.on_event = on_event
    with pytest.raises(KeyboardInterrupt):
        connection.execute(LONG.format(runner))
    connection.on_event = None
    assert connection.execute("SELECT state FROM sqlml.jobs WHERE model = 'slow'").fetchall() == [("cancelled",)]
    assert connection.execute(QUICK.format("slow")).fetchone() is not None


def test_closing_from_another_thread_than_it_was_opened_in(database: Path) -> None:
    connection = sqlml.connect(database)
    thread = threading.Thread(target=connection.close)
    thread.start()
    thread.join(20)
    with sqlml.connect(database) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)
