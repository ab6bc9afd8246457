"""Requests that arrive together are scored together, without a timer.

    put → [the loop goes round once] → decode each → one call of the model for all of a version → encode each → finish

One connection alone waits for nothing: its request is taken up in the next round of the loop.  Work is done in slices, so that
between two of them the loop takes up, refuses or cancels others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from sqlml.errors import BindError, DataError
from sqlml_runners.serving.job import Job, Result
from sqlml_runners.serving.outputs import Predictions, part_of
from sqlml_runners.serving.protocol import BadRequest, Rows
from sqlml_runners.serving.served import Block, Served

log = logging.getLogger("sqlml.serving")

SLICE_BYTES = 160 * 1024
SLICE_REQUESTS = 48
"""So much is done at a time: about a millisecond's work, or two."""
FAULT = "internal error of the server; its log (logs/server.log) says more"


class Recorder(Protocol):
    """Who writes down what was answered."""

    def record(self, served: Served, jobs: Sequence[Job], predictions: Predictions, block: Block | None) -> None:
        """The answers of some requests to a version, one after the other; ``block``: their rows as ``Served.block`` has them."""


class Batcher:
    """The queue of one worker's event loop."""

    def __init__(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._waiting: deque[Job] = deque()
        self._planned = False
        self._sizes: dict[int, int] = {}

    def put(self, job: Job) -> None:
        """Let a request be answered: ``job.finish`` is called in a moment."""
        self._waiting.append(job)
        if not self._planned:
            self._planned = True
            asyncio.get_running_loop().call_soon(self._work)

    def take_sizes(self) -> dict[int, int]:
        """How many requests were scored together, and how often, since the last time."""
        sizes, self._sizes = self._sizes, {}
        return sizes

    def _work(self) -> None:
        """One slice."""
        groups: dict[int, list[Job]] = {}
        now, size, waiting = time.perf_counter(), 0, self._waiting
        for _ in range(min(len(waiting), SLICE_REQUESTS)):
            job = waiting.popleft()
            if job.gone:
                continue
            if now > job.deadline:
                job.finish(job.policy.too_late())
                continue
            size += job.size
            try:
                served = job.decode()
            except Exception as error:
                job.finish(as_refusal(error))
            else:
                groups.setdefault(id(served), []).append(job)
            if size > SLICE_BYTES:
                break
        for jobs in groups.values():
            self._score(jobs)
        if waiting:
            asyncio.get_running_loop().call_soon(self._work)
        else:
            self._planned = False

    def _score(self, jobs: list[Job]) -> None:
        n, served = len(jobs), jobs[0].served
        assert served is not None
        self._sizes[n] = self._sizes.get(n, 0) + 1
        try:
            rows: Rows = jobs[0].call.rows if n == 1 else [row for job in jobs for row in job.call.rows]  # type: ignore[union-attr, assignment]
            block = served.block(rows)
            predictions = served.run_rows(rows) if block is None else served.run_block(block)
        except Exception as error:
            if n == 1:
                jobs[0].finish(as_refusal(error, jobs[0].form.wrong))
                return
            for job in jobs:  # one of them is to blame: each by itself
                self._score([job])
            return
        if self._recorder is not None:
            self._recorder.record(served, jobs, predictions, block)
        start = 0
        for job in jobs:
            call = job.call
            assert call is not None
            stop = start + call.n
            try:
                own = predictions if n == 1 else [part_of(answer, start, stop) for answer in predictions]
                reply = job.form.encode(served, call, own)
            except Exception as error:
                job.finish(as_refusal(error, job.form.wrong))
            else:
                job.finish(reply)
            start = stop


def as_refusal(error: Exception, wrong: int = 422) -> BadRequest:
    """What the caller hears of an error; ``wrong`` is the status of a row that cannot be computed."""
    if isinstance(error, BadRequest):
        return error
    if isinstance(error, DataError | BindError):
        return BadRequest(wrong, error.message)
    log.error("a request could not be answered", exc_info=error)
    return BadRequest(500, FAULT)


def answer_alone(job: Job) -> tuple[Result, Predictions]:
    """Answer one request in the calling thread."""
    try:
        if time.perf_counter() > job.deadline:
            return job.policy.too_late(), ()
        served = job.decode()
        assert job.call is not None
        predictions = job.form.run(served, job.call)
        return job.form.encode(served, job.call, predictions), predictions
    except Exception as error:
        return as_refusal(error, job.form.wrong), ()
