"""Where every request for a prediction comes in, whichever way: who may come, what for, and what is noted of it.

head of a request → Job → admit: endpoint, queue, API key → prepare: form, version, body → batching, or a thread → note
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Mapping

from sqlml_runners.serving.access_log import Access, AccessLog
from sqlml_runners.serving.batching import Batcher
from sqlml_runners.serving.cors import NO_CORS
from sqlml_runners.serving.forms import form_of
from sqlml_runners.serving.job import Job, choose
from sqlml_runners.serving.keys import KeyRing
from sqlml_runners.serving.models import Models
from sqlml_runners.serving.paths import Target, parse_path
from sqlml_runners.serving.prediction_writer import PredictionLog
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.served import Served
from sqlml_runners.serving.shadows import REFUSALS, Shadows

INLINE_BYTES = 48 * 1024
"""A body longer than this is answered in a thread."""
_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_ALLOW = ((b"allow", b"POST"),)
_KNOWN_PATHS = 4096


class Reception:
    """A worker's models, keys, figures and logs, as requests meet them.  For one event loop."""

    def __init__(self, models: Models, predictions: PredictionLog | None = None, access: AccessLog | None = None) -> None:
        self.models = models
        self.tally = models.tally
        self.predictions = predictions
        self.access = access
        self.batcher = Batcher(predictions)
        self.shadows = Shadows(models.tally, predictions)
        self.keys = KeyRing()
        self.cors = NO_CORS
        self.closing = False  # every answer says that its connection ends
        self.shed = 0  # so many connections shall end with their next answer
        self._targets: dict[str, Target | None] = {}
        self._prefix = f"{os.getpid():x}-{time.time_ns() & 0xFFFFFFFF:08x}-"
        self._numbers = itertools.count(1)

    def target(self, path: str) -> Target | None:
        """What a path means; None for one that is FastAPI's."""
        try:
            return self._targets[path]
        except KeyError:
            if len(self._targets) >= _KNOWN_PATHS:
                self._targets.clear()
            found = self._targets[path] = parse_path(path)
            return found

    def number(self, headers: Mapping[bytes, bytes]) -> str:
        """The id of a request: the caller's own, where it gives one that can be written down."""
        given = headers.get(b"x-request-id")
        if given is not None and _ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._prefix}{next(self._numbers):x}"

    async def wake(self, name: str, headers: Mapping[bytes, bytes]) -> None:
        """Let an endpoint that is parked be loaded, for a caller whom it would answer."""
        slot = self.models.slot(name)
        if slot.parked:
            if slot.endpoint.options.get("auth") == "key":
                self.keys.opens(headers, slot.endpoint.name.lower())
            await self.models.wake(name)

    def admit(self, job: Job) -> None:
        """Let a request in whose body is there."""
        self.check(job)
        self.enter(job)

    def check(self, job: Job) -> None:
        """Whether it may be asked, before anything of its body is read.  The endpoint must not be parked."""
        if job.method != "POST":
            raise BadRequest(405, f"{job.method} {job.path}: Method Not Allowed; see /docs", headers=_ALLOW)
        route = job.route = self.models.route(job.target.name)
        policy = job.policy = route.policy
        key = job.endpoint = route.key
        job.deadline = job.began + policy.timeout
        if policy.keyed:
            job.key = self.keys.check(job.headers, key)

    def enter(self, job: Job) -> None:
        """Take a place in the endpoint's queue, where there is room, until ``tally.end``."""
        policy, key = job.policy, job.endpoint
        if (waiting := self.tally.waiting(key)) >= policy.max_queue:
            raise policy.too_many(waiting, self.tally.pace(key))
        self.tally.begin(key)

    def prepare(self, job: Job, body: bytes) -> bool:
        """Choose the form and the version; whether the request may be answered on the event loop."""
        target = job.target
        assert target.form is not None
        form = job.form = form_of(target.form, job.headers)
        job.body, job.size = body, len(body)
        job.served = job.route.need(target.version) if target.version is not None else choose(job.route, job.headers)
        return not form.bulk and job.size <= INLINE_BYTES and (job.served or job.route.main).quick

    def says_farewell(self) -> bool:
        """Whether the connection shall end with this answer."""
        if self.shed:
            self.shed -= 1
            return True
        return self.closing

    def note(self, job: Job, status: int, size: int) -> None:
        """A request is over: count it, and note it in the access log."""
        served, call = job.served, job.call
        seconds, rows = time.perf_counter() - job.began, 0 if call is None else call.n
        if served is not None:
            if not self._in_doubt(job, served, seconds, status):
                self.tally.count(job.endpoint, served.arm.uid, seconds, status, rows, served.name)
            if job.route.shadows and call is not None:
                self.shadows.copy(job, status)
        elif job.endpoint:
            self.tally.count(job.endpoint, "", seconds, status)
        if self.access is not None:
            version = 0 if served is None else served.arm.version
            self.access.add(
                Access(
                    time.time(), job.number, job.method, job.path, status, round(seconds * 1000, 3), job.client, job.endpoint,
                    version, rows, job.size, size, job.key, job.error,
                )
            )  # fmt: skip

    def _in_doubt(self, job: Job, served: Served, seconds: float, status: int) -> bool:
        """Whether it is to be seen who is to blame for a refusal: the caller, or a version that takes less than another does."""
        measure = job.route.measure
        return status in REFUSALS and served is not measure and self.shadows.blame(job, served, measure, seconds, status)

    def write_log(self, done: Callable[[], None]) -> None:
        """Let others read what the prediction log holds, and call ``done``, in any thread, when they can."""
        if self.predictions is None:
            done()
        else:
            self.predictions.write(done)

    def flush(self) -> None:
        """Hand over what was logged; to be called a few times a second."""
        if self.predictions is not None:
            self.predictions.flush()
        if self.access is not None:
            self.access.flush()
