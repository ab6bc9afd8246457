"""Copies of requests, scored in threads and sent to nobody: for the versions in the shadow, and to see who is to blame.

    a request was answered → a queue of bounded length → one thread → each shadow's answer → figures, prediction log
    one was refused by an arm → the same queue → would the main version have answered it? → an error of the arm, or the caller's

Texts of language models, which take long, have a thread of their own: nobody else's copies wait for them.
Nothing waits for a copy.  One for which there is no room is left out and counted, and the log says so once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sqlml.errors import DataError
from sqlml.generation.generator import Ending, Wish
from sqlml_runners.serving.batching import answer_alone
from sqlml_runners.serving.figures import Tally
from sqlml_runners.serving.forms import EXPLAIN, Reply
from sqlml_runners.serving.job import Job
from sqlml_runners.serving.prediction_writer import PredictionLog
from sqlml_runners.serving.served import Served

log = logging.getLogger("sqlml.serving")

MOST_COPIES = 1024
"""So many copies may wait in a worker."""
MOST_TEXTS = 8
"""So many requests for texts may wait for the shadows to write theirs."""
REFUSALS = (400, 415, 422)
"""What a version says of a request that does not fit it."""


class Line:
    """Work that waits for a thread, ``most`` pieces at once; the thread begins with the first and ends with the process."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(most)
        self._thread: threading.Thread | None = None
        self._full = False

    def put(self, work: Callable[[], None], endpoint: str) -> bool:
        """Let work wait its turn; False where there is no room."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            if not self._full:
                log.warning("copies of requests for %s come quicker than they are answered: some are left out", endpoint)
            self._full = True
            return False
        return True

    def _work(self) -> None:
        while True:
            self._waiting.get()()


class Shadows:
    """Filled on the event loop."""

    def __init__(self, tally: Tally, predictions: PredictionLog | None) -> None:
        self._tally = tally
        self._predictions = predictions
        self._copies = Line("shadows", MOST_COPIES)
        self._texts = Line("shadows' texts", MOST_TEXTS)

    def copy(self, job: Job, status: int) -> None:
        """Let the shadows of an endpoint answer a prediction that somebody else has answered, with this status."""
        if job.target.form in (None, EXPLAIN):
            return
        loop = asyncio.get_running_loop()
        if not self._copies.put(lambda: self._shadow(job, status, loop), job.endpoint):
            self._drop(job)

    def write(self, job: Job, wish: Wish) -> None:
        """Let the shadows write a text that somebody else has written whole."""
        loop = asyncio.get_running_loop()
        if not self._texts.put(lambda: self._write_texts(job, wish, loop), job.endpoint):
            self._drop(job)

    def blame(self, job: Job, served: Served, measure: Served, seconds: float, status: int) -> bool:
        """Count a request that ``served`` has refused, once it is known whether the version ``measure`` would have answered it.

        False where there is no room: nobody counts it.
        """
        loop = asyncio.get_running_loop()

        def judge() -> None:
            result, _ = answer_alone(_copy_of(job, measure))
            self._count(job, served, seconds, status, loop, to_blame=result.status < 400)

        return self._copies.put(judge, job.endpoint)

    def _drop(self, job: Job) -> None:
        """Count a request that no shadow of its endpoint will see."""
        for served in job.route.shadows:
            self._tally.drop(job.endpoint, served.arm.uid, served.name)

    def _shadow(self, job: Job, status: int, loop: asyncio.AbstractEventLoop) -> None:
        for served in job.route.shadows:
            copy = _copy_of(job, served)
            result, predictions = answer_alone(copy)
            if self._predictions is not None and isinstance(result, Reply):
                self._predictions.record_alone(served, copy, predictions)
            to_blame = result.status in REFUSALS and status < 400
            self._count(copy, served, time.perf_counter() - copy.began, result.status, loop, to_blame=to_blame)

    def _write_texts(self, job: Job, wish: Wish, loop: asyncio.AbstractEventLoop) -> None:
        for served in job.route.shadows:
            copy, status = _text_of(job, served), 200
            try:
                with served.flight:
                    *_, ending = served.model.generator.generate(wish)
                if self._predictions is not None and isinstance(ending, Ending):
                    self._predictions.record_alone(served, copy, [[ending.text]])
            except Exception as error:
                status = 422 if isinstance(error, DataError) else 500
                log.warning("the shadow %s of endpoint %s wrote no text: %s", served.name, job.endpoint, error)
            self._count(copy, served, time.perf_counter() - copy.began, status, loop, to_blame=status == 422)

    def _count(
        self, job: Job, served: Served, seconds: float, status: int, loop: asyncio.AbstractEventLoop, *, to_blame: bool
    ) -> None:
        rows = 0 if job.call is None else job.call.n
        count = partial(self._tally.count, to_blame=to_blame)
        with suppress(RuntimeError):  # the loop is closed: the worker is leaving, and nobody counts any more
            loop.call_soon_threadsafe(count, job.endpoint, served.arm.uid, seconds, status, rows, served.name)


def _text_of(job: Job, served: Served) -> Job:
    """The same request for a text, for another version."""
    copy = Job(job.target, job.method, job.path, job.query, job.headers, job.client, job.number, time.perf_counter())
    copy.endpoint, copy.key, copy.size, copy.route, copy.policy = job.endpoint, job.key, job.size, job.route, job.policy
    copy.served, copy.call = served, job.call
    return copy


def _copy_of(job: Job, served: Served) -> Job:
    """The same request, for another version, and without haste."""
    copy = Job(job.target, job.method, job.path, job.query, job.headers, job.client, job.number, time.perf_counter())
    copy.endpoint, copy.key, copy.size = job.endpoint, job.key, job.size
    copy.route, copy.policy, copy.form, copy.body = job.route, job.policy, job.form, job.body
    copy.served, copy.deadline = served, math.inf
    return copy
