"""One connection: uvicorn's protocol, with a short way for short predictions.

A request whose head says that it is a prediction of at most 48 kB is answered without the machinery of ASGI: no scope, no task,
no messages; its head goes to ``Reception``, its body to ``batching``, and the answer is one write.  Any other request goes
uvicorn's own way, to ``Hot`` and FastAPI.  Whatever the way, heads and bodies that do not arrive are given up, and who closes its
side of the connection after a request still gets the answer.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, cast

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import is_ssl
from uvicorn.server import ServerState

from sqlml_runners.serving.batching import as_refusal
from sqlml_runners.serving.forms import JSON
from sqlml_runners.serving.job import Job, Result
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.reception import INLINE_BYTES, Reception

HEAD_SECONDS = 20.0
"""How long the head of a request may take, from the connection or its first byte on."""
MOST_HEAD = 64 * 1024
"""Bytes of a head that has not ended yet; what comes with the last of them is read still."""
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n\r\n%b"
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class _Event:
    """Stands for the event that wakes uvicorn's cycles: there is nobody to wake."""

    def set(self) -> None:
        """Nothing."""


class Short:
    """A short request under way: to uvicorn a cycle like its own."""

    __slots__ = ("body", "connection", "disconnected", "entered", "job", "keep_alive", "more_body", "response_complete")

    message_event = _Event()

    def __init__(self, connection: Connection, job: Job, keep_alive: bool) -> None:
        self.connection = connection
        self.job = job
        self.keep_alive = keep_alive
        self.body = b""
        self.more_body = True
        self.entered = False
        self.response_complete = False
        self.disconnected = False

    def answer(self, result: Result) -> None:
        """Send the answer."""
        connection, job = self.connection, self.job
        if self.entered:
            self.entered = False
            connection.reception.tally.end(job.endpoint)
        if self.response_complete:
            return
        self.response_complete = True
        if self.disconnected or connection.transport.is_closing():
            connection.reception.note(job, 499, 0)
            return
        if connection.reception.says_farewell():
            self.keep_alive = False
        size = self._write(result)
        if not self.keep_alive:
            connection.transport.close()
        connection.over()
        connection.reception.note(job, result.status, size)

    def _write(self, result: Result) -> int:
        job = self.job
        if isinstance(result, BadRequest):
            job.error = result.message
            body, kind = result.body(), JSON
            self.keep_alive = self.keep_alive and result.status not in (408, 413)
        else:
            body, kind = result.body, result.content_type
        cors = self.connection.reception.cors
        if result.status == 200 and self.keep_alive and kind is JSON and not result.headers and not cors.on:
            self.connection.transport.write(_OK % (len(body), job.number.encode(), body))
            return len(body)
        lines = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"x-request-id", job.number.encode())]
        lines += [
            *cors.headers(job.headers.get(b"origin")),
            *result.headers,
            *(() if self.keep_alive else ((b"connection", b"close"),)),
        ]
        head = _LINES[result.status] + b"".join(b"%b: %b\r\n" % line for line in lines)
        self.connection.transport.write(head + b"\r\n" + body)
        return len(body)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol; ``config.app`` is a ``Hot``, whose reception it shares."""

    reception: Reception
    head_began: float | None
    head_size: int
    idle_since: float | None

    def connection_made(self, transport: Any) -> None:
        """The clock runs from here."""
        super().connection_made(transport)
        self.reception = cast(Any, self.app).reception
        self.head_began, self.head_size, self.idle_since = self.loop.time(), 0, None

    def data_received(self, data: bytes) -> None:
        """Bytes: of a head that does not end no more are taken than a head may have."""
        if self.head_began is not None:
            if self.head_size > MOST_HEAD:
                self._refuse(431, f"the head of the request is larger than {MOST_HEAD // 1024} kB")
                return
            self.head_size += len(data)
        super().data_received(data)

    def _refuse(self, status: int, text: str) -> None:
        """End the connection in the middle of a head, where it has not ended yet."""
        if not self.transport.is_closing():
            body = msgspec.json.encode({"error": text})
            head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
            self.transport.write(_LINES[status] + head + body)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller has gone: nothing is computed for it any more."""
        if isinstance(self.cycle, Short) and not self.cycle.response_complete:
            self.cycle.job.gone = True
            if self.cycle.more_body:  # it waits for nothing else
                self.cycle.disconnected = True
                self.cycle.answer(BadRequest(499, "gone"))
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self.head_began, self.head_size, self.idle_since = self.loop.time(), 0, None

    def on_headers_complete(self) -> None:
        """The head is there: which way?"""
        self.head_began = None
        short = self._short()
        if short is None:
            url, headers, expect = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.headers, self.expect_100_continue = url, headers, expect
            self.scope["headers"] = headers
            super().on_headers_complete()
            return
        self.cycle = cast(Any, short)
        try:
            self.reception.check(short.job)
        except Exception as error:
            short.answer(as_refusal(error))

    def _short(self) -> Short | None:
        """The request, where it goes the short way."""
        before = self.cycle
        if self.parser.get_method() != b"POST" or self.expect_100_continue or self.flow.write_paused or self.pipeline:
            return None
        if before is not None and not before.response_complete:
            return None
        path = self.url.decode("latin-1")
        target = self.reception.target(path)
        if target is None or target.form is None or "%" in path or "?" in path:
            return None
        headers = dict(self.headers)
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > INLINE_BYTES or b"transfer-encoding" in headers:
            return None
        slot = self.reception.models.find(target.name)
        if slot is None or slot.parked or slot.route is None or int(length) > slot.route.policy.max_body:
            return None
        client = self.client[0] if self.client else ""
        job = Job(target, "POST", path, b"", headers, client, self.reception.number(headers), time.perf_counter())
        keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        return Short(self, job, keep_alive)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        cycle: Any = self.cycle
        if isinstance(cycle, Short):
            if not cycle.response_complete:
                cycle.body = cycle.body + body if cycle.body else body
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        cycle: Any = self.cycle
        if not isinstance(cycle, Short):
            super().on_message_complete()
            return
        cycle.more_body = False
        if cycle.response_complete:
            return
        job, reception = cycle.job, self.reception
        try:
            reception.enter(job)
            cycle.entered = True
            quick = reception.prepare(job, cycle.body)
        except Exception as error:
            cycle.answer(as_refusal(error))
            return
        job.finish = cycle.answer
        if quick:
            reception.batcher.put(job)
        else:
            cast(Any, self.app).put(job)

    def over(self) -> None:
        """A short request was answered: what follows?  Without one that waits the connection is idle from now on."""
        if self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.idle_since = self.loop.time()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The caller has closed its side: it may still wait for a short prediction; of anything longer it has gone away."""
        cycle: Any = self.cycle
        if not isinstance(cycle, Short) or cycle.response_complete or cycle.more_body or is_ssl(self.transport):
            return None
        cycle.keep_alive = False
        return True

    def end_if_slow(self, now: float, limit: float = HEAD_SECONDS) -> None:
        """Give up a head or a short body that does not arrive, and a connection on which nothing comes."""
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle
        if self.head_began is not None and now - self.head_began > limit:
            self._refuse(408, f"the head of the request did not arrive within {limit:.0f} s")
        elif isinstance(cycle, Short) and cycle.more_body and time.perf_counter() > cycle.job.deadline:
            cycle.answer(cycle.job.policy.too_slow())
        elif self.idle_since is not None and now - self.idle_since > self.timeout_keep_alive:
            self.transport.close()


def sweep(state: ServerState, now: float, limit: float = HEAD_SECONDS) -> None:
    """End every connection on which nothing happens; to be called a few times a second."""
    for connection in list(state.connections):
        cast(Connection, connection).end_if_slow(now, limit)
