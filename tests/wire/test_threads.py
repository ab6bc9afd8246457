"""The server's threads: no more than are busy at once, and none that has nothing to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait

import pytest

from sqlml.wire.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(3, "work", idle_seconds=0.05)
    yield made
    made.shutdown()


def alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("work-")]


def test_answers_and_errors(threads: Threads) -> None:
    assert threads.submit(divmod, 7, 2).result(10) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(10)


def test_one_thread_does_one_after_the_other() -> None:
    threads = Threads(3, "work", idle_seconds=60)
    names = set()
    for _ in range(50):
        names.add(threads.submit(lambda: threading.current_thread().name).result(10))
        while not threads._idle:  # the answer is there a moment before the thread is free
            continue
    threads.shutdown()
    assert names == {"work-1"}


def test_no_more_than_allowed_and_everything_is_done(threads: Threads) -> None:
    gate, busy, most = threading.Event(), [0, 0], threading.Lock()

    def work(number: int) -> int:
        with most:
            busy[0] += 1
            busy[1] = max(busy)
        gate.wait(10)
        with most:
            busy[0] -= 1
        return number

    futures: list[Future[int]] = [threads.submit(work, number) for number in range(20)]
    assert len(alive()) == 3
    gate.set()
    assert [future.result(10) for future in futures] == list(range(20))
    assert busy == [0, 3]


def test_idle_threads_end_and_new_ones_begin(threads: Threads) -> None:
    for _ in range(3):
        assert threads.submit(int, "7").result(10) == 7
        for thread in alive():
            thread.join(10)
        assert alive() == []


def test_many_tasks_while_threads_come_and_go() -> None:
    threads = Threads(4, "work", idle_seconds=0.0001)
    futures = [threads.submit(pow, number, 2) for number in range(5000)]
    assert [future.result(30) for future in futures] == [number**2 for number in range(5000)]
    threads.shutdown()
    assert alive() == []


def test_shutdown_cancels_what_waits(threads: Threads) -> None:
    gate = threading.Event()
    running = [threads.submit(gate.wait, 10) for _ in range(3)]
    waiting = [threads.submit(int) for _ in range(5)]
    threads.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    gate.set()
    assert wait(running, 10).not_done == set()
    with pytest.raises(RuntimeError):
        threads.submit(int)
