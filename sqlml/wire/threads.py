"""Threads that do a server's work: the one that was used last is taken first, and one that has nothing to do for a while ends.

A thread keeps memory as long as it lives (its stack, and what the libraries' allocators hold for it): so there are as many as are
busy at once, not as many as ever were.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

IDLE_SECONDS = 10.0

Task = tuple["Future[Any]", Callable[[], Any]]


class _Worker:
    """A thread that waits: ``task`` is what it is given, None to end."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.task: Task | None = None


class Threads(Executor):
    """At most so many threads; what comes while all are busy waits for its turn."""

    def __init__(self, most: int, name: str, idle_seconds: float = IDLE_SECONDS) -> None:
        self._most = most
        self._name = name
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._waiting: deque[Task] = deque()
        self._threads: set[threading.Thread] = set()
        self._number = 0
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in one of the threads.  ``RuntimeError`` after ``shutdown``."""
        future: Future[Any] = Future()
        task = (future, lambda: fn(*args, **kwargs))
        with self._lock:
            if self._closed:
                raise RuntimeError("the server's threads have ended")
            if self._idle:
                worker = self._idle.pop()
                worker.task = task
                worker.woken.set()
            elif len(self._threads) < self._most:
                self._number += 1
                thread = threading.Thread(target=self._work, args=(task,), name=f"{self._name}-{self._number}", daemon=True)
                self._threads.add(thread)
                thread.start()
            else:
                self._waiting.append(task)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take nothing more; what waits is cancelled, or done before the threads end."""
        with self._lock:
            self._closed = True
            for worker in self._idle:
                worker.woken.set()
            self._idle.clear()
            cancelled = [*self._waiting] if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
            threads = [*self._threads]
        for future, _ in cancelled:
            future.cancel()
        if wait:
            for thread in threads:
                thread.join()

    def _work(self, first: Task) -> None:
        task: Task | None = first
        del first
        while task is not None:
            _do(*task)
            task = None  # what it held must not wait for the next one
            task = self._next()

    def _next(self) -> Task | None:
        """What waits, or what comes while this thread is idle; None: the thread ends."""
        worker = _Worker()
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._closed:
                self._threads.discard(threading.current_thread())
                return None
            self._idle.append(worker)
        worker.woken.wait(self._idle_seconds)
        with self._lock:
            if worker.task is None:
                if worker in self._idle:
                    self._idle.remove(worker)
                self._threads.discard(threading.current_thread())
            return worker.task


def _do(future: Future[Any], run: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        found = run()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(found)
