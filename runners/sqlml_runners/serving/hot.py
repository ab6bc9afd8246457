"""A worker's application: one small ASGI function before FastAPI's router, which has everything that is no prediction.

path → Reception: queue, API key → size → body → answered on the event loop with others (``batching``), or in a thread

Short requests do not even come here: see ``connection``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sqlml.generation.generator import Wish
from sqlml_runners.serving.access_log import Access
from sqlml_runners.serving.batching import answer_alone, as_refusal
from sqlml_runners.serving.feedback import decode_feedback
from sqlml_runners.serving.forms import EXPLAIN, JSON, Reply
from sqlml_runners.serving.job import Job, Result
from sqlml_runners.serving.outputs import Predictions
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.reception import Reception

log = logging.getLogger("sqlml.serving")

DISCARD_BYTES = 256_000_000
DISCARD_SECONDS = 10.0
IDLE_SECONDS = 0.5
"""What of a body that is too large is still taken, so that the caller reads the refusal."""


class _Gone(Exception):
    """The caller has left."""


class Hot:
    """Predictions here, everything else in ``app``."""

    def __init__(self, app: ASGIApp, reception: Reception) -> None:
        self._app = app
        self.reception = reception
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="predict")
        self._receiving: set[Job] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        target = self.reception.target(scope["path"]) if scope["type"] == "http" else None
        if scope["type"] == "http" and self.reception.cors.on and scope["method"] == "OPTIONS":
            headers = dict(scope["headers"])
            if self.reception.cors.is_preflight("OPTIONS", scope["path"], headers):
                await self._preflight(headers, send)
                return
        if target is None:
            await self._pass_on(scope, receive, send)
            return
        headers = dict(scope["headers"])
        number, began = self.reception.number(headers), time.perf_counter()
        job = Job(target, scope["method"], scope["path"], scope["query_string"], headers, client_of(scope), number, began)
        try:
            if job.method == "POST":
                await self.reception.wake(target.name, headers)
            self.reception.check(job)
            body = b"" if target.action == "generate" else await self._body(job, receive)
            self.reception.enter(job)
            try:
                if target.action == "generate":
                    await self._pass_on({**scope, "job": job, "keep": self._keep}, receive, send, job)
                    return
                result = await self._answer(job, body)
            finally:
                self.reception.tally.end(job.endpoint)
        except _Gone:
            self.reception.note(job, 499, 0)
            return
        except Exception as error:
            result = as_refusal(error)
        await self._send(job, result, send)

    async def _answer(self, job: Job, body: bytes) -> Result:
        if job.target.action == "feedback":
            return self._feedback(job, body)
        return await self.answer(job, body)

    async def answer(self, job: Job, body: bytes) -> Result:
        """The prediction that a request asks for, once its body is there.  ``BadRequest`` for what does not fit."""
        if not self.reception.prepare(job, body):
            return await self._in_thread(job)
        answered: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        job.finish = lambda result: None if answered.done() else answered.set_result(result)
        self.reception.batcher.put(job)
        return await answered

    # --- bodies ---

    async def _body(self, job: Job, receive: Receive) -> bytes:
        length = int(job.headers.get(b"content-length", 0))
        if length > job.policy.max_body:
            if b"expect" not in job.headers:
                await self._discard(receive)
            raise job.policy.too_large(length)
        receiving = sum(other.endpoint == job.endpoint for other in self._receiving)
        if receiving >= job.policy.max_queue:  # so many bodies in memory; who sends slowly keeps out no short request
            raise job.policy.too_many(receiving, self.reception.tally.pace(job.endpoint))
        job.task = asyncio.current_task()
        self._receiving.add(job)
        try:
            return await self._parts(job, receive)
        except asyncio.CancelledError:
            if not job.late or job.task is None:
                raise
            job.task.uncancel()
            raise job.policy.too_slow() from None
        finally:
            self._receiving.discard(job)

    async def _parts(self, job: Job, receive: Receive) -> bytes:
        parts = list[bytes]()
        while job.size <= job.policy.max_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            job.size += len(parts[-1])
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)
        await self._discard(receive)
        raise job.policy.too_large(None)

    async def _discard(self, receive: Receive) -> None:
        """Take the rest of a body that is too large, for a while: who still sends does not read."""
        size = 0
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while size <= DISCARD_BYTES:
                    message = await asyncio.wait_for(receive(), IDLE_SECONDS)
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return
                    size += len(message.get("body", b""))
        except TimeoutError:
            return

    def sweep(self) -> None:
        """End the requests whose bodies do not arrive; to be called a few times a second."""
        now = time.perf_counter()
        for job in list(self._receiving):
            if now > job.deadline and job.task is not None:
                job.late = True
                job.task.cancel()

    # --- answers ---

    def put(self, job: Job) -> None:
        """Answer a request that takes long in a thread; ``job.finish`` is called when it is done, or too late."""
        task = asyncio.get_running_loop().create_task(self._finish(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, job: Job) -> None:
        try:
            result = await self._in_thread(job)
        except Exception as error:
            result = as_refusal(error)
        job.finish(result)

    async def _in_thread(self, job: Job) -> Result:
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._alone, job)
        try:
            return await asyncio.wait_for(asyncio.shield(work), job.deadline - time.perf_counter())
        except TimeoutError:
            tally, key = self.reception.tally, job.endpoint
            tally.begin(key)  # it counts until it is done: there are no more threads than before
            work.add_done_callback(lambda _done: tally.end(key))
            return job.policy.too_late()

    def _alone(self, job: Job) -> Result:
        result, predictions = answer_alone(job)
        kept = isinstance(result, Reply) and job.served is not None and job.form is not EXPLAIN
        if kept and self.reception.predictions is not None and job.served is not None:
            self.reception.predictions.record_alone(job.served, job, predictions)
        return result

    def _feedback(self, job: Job, body: bytes) -> Reply:
        rows = decode_feedback(job.route, body, job.key)
        predictions = self.reception.predictions
        if predictions is None or not predictions.keep_feedback(job.endpoint, rows):
            raise BadRequest(503, "feedback cannot be kept now: the disk is full or too slow", retry_after=5)
        return Reply(b'{"accepted":%d}' % rows.num_rows, status=202)

    async def _send(self, job: Job, result: Result, send: Send) -> None:
        if isinstance(result, BadRequest):
            job.error = result.message
            body, kind = result.body(), JSON
        else:
            body, kind = result.body, result.content_type
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"x-request-id", job.number.encode())]
        headers += [*self.reception.cors.headers(job.headers.get(b"origin")), *result.headers]
        if result.status in (408, 413) or self.reception.says_farewell():
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": result.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self.reception.note(job, result.status, len(body))

    async def _preflight(self, headers: dict[bytes, bytes], send: Send) -> None:
        """Tell a browser whether a page of another origin may ask; no key is needed to be told."""
        result: Result
        try:
            result = self.reception.cors.preflight(headers)
            body, kind = result.body, result.content_type
        except BadRequest as refused:
            result, body, kind = refused, refused.body(), JSON
        told = [*result.headers, *([(b"content-type", kind), (b"content-length", b"%d" % len(body))] if body else [])]
        await send({"type": "http.response.start", "status": result.status, "headers": told})
        await send({"type": "http.response.body", "body": body})

    # --- everything else ---

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, job: Job | None = None) -> None:
        """``job``: of a text from a language model, which is written down when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reception, began, asked = self.reception, time.perf_counter(), dict(scope["headers"])
        number = job.number if job is not None else reception.number(asked)
        status, size = 0, 0

        async def send_on(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                headers: list[Any] = [*message.get("headers", ()), (b"x-request-id", number.encode())]
                if reception.cors.covers(scope["path"]):
                    headers += reception.cors.headers(asked.get(b"origin"))
                if reception.says_farewell():
                    headers.append((b"connection", b"close"))
                message, status = {**message, "headers": headers}, message["status"]
                if job is None:
                    self._note(Access(time.time(), number, scope["method"], scope["path"], status, 0.0, client_of(scope)), began)
            size += len(message.get("body", b""))
            await send(message)

        answered = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope  # uvicorn leaves its body out
        try:
            await self._app(answered, receive, send_on)
        finally:
            if job is not None:
                version, rows = (0, 0) if job.served is None else (job.served.arm.version, 1)
                told = Access(
                    time.time(), number, job.method, job.path, status or 499, 0.0, job.client, job.endpoint, version, rows,
                    job.size, size, job.key,
                )  # fmt: skip
                self._note(told, began)

    def _note(self, access: Access, began: float) -> None:
        if self.reception.access is not None:
            access.ms = round((time.perf_counter() - began) * 1000, 3)
            self.reception.access.add(access)

    def _keep(self, job: Job, predictions: Predictions, wish: Wish) -> None:
        """Let the prediction log have a text that was written elsewhere, and the shadows write theirs."""
        if job.route.shadows:
            self.reception.shadows.write(job, wish)
        if self.reception.predictions is not None and job.served is not None:
            self.reception.predictions.record_alone(job.served, job, predictions)


def client_of(scope: Scope) -> str:
    """The caller's address."""
    client = scope.get("client")
    return client[0] if client else ""
