"""The Open Inference Protocol over gRPC, in a worker: beside HTTP, on the same event loop, by the same reception and batches.

    bytes → the model's name → Job → Reception: queue, API key (metadata ``authorization``), size
    → message → batching, or a thread → message, or a status

A worker listens by itself on the port that the server holds.  What is refused over HTTP is refused here for the same reasons.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

from sqlml.version import __version__
from sqlml_runners.serving.batching import as_refusal
from sqlml_runners.serving.doors import Door
from sqlml_runners.serving.grpc_form import GrpcForm, metadata_message, read_infer, read_message, read_name
from sqlml_runners.serving.grpc_messages import SERVICE, message_class
from sqlml_runners.serving.hot import Hot
from sqlml_runners.serving.job import Job, Result
from sqlml_runners.serving.paths import Target
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.v2_metadata import server_metadata

MESSAGE_BYTES = 64 * 1024 * 1024
"""What gRPC itself takes of a message; ``max_body`` of the endpoint counts below it."""
SMALL_BYTES = 64 * 1024
"""What a question about health or metadata may have."""
AGE_MILLISECONDS = 300_000
"""How old a connection becomes: then its caller makes another, maybe to a worker that has fewer."""
_PATH = f"/{SERVICE}/ModelInfer"
MOST_CALLS = 256
"""Calls that are taken up at once, each with a body in memory; others are RESOURCE_EXHAUSTED."""
_OPTIONS = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_connection_age_ms", AGE_MILLISECONDS),
    ("grpc.max_connection_age_grace_ms", 30_000),
)
_STATUS: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

Context: TypeAlias = Any  # grpc.aio.ServicerContext, which has no types


class GrpcServer:
    """A worker's gRPC side."""

    def __init__(self, hot: Hot, door: Door, address: str, tls: tuple[str, str] | None) -> None:
        """``address``: ``host:port``; ``tls``: the files of the certificate and the key."""
        self._hot = hot
        self._door = door
        self._reception = hot.reception
        self._models = hot.reception.models
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
        handlers = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
        }
        calls = {name: _handler(name, handle) for name, handle in handlers.items()}
        calls["ModelInfer"] = grpc.unary_unary_rpc_method_handler(self._infer)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, calls),))
        if tls is None:
            self._server.add_insecure_port(address)
        else:
            certificate, key = (Path(path).read_bytes() for path in tls)
            self._server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Take no more, and let those under way end within some seconds."""
        await self._server.stop(seconds)

    # --- health and metadata ---

    async def _live(self, _request: Any, _context: Context) -> Any:
        return message_class("ServerLiveResponse")(live=True)

    async def _ready(self, _request: Any, _context: Context) -> Any:
        return message_class("ServerReadyResponse")(ready=self._models.ready())

    async def _metadata(self, _request: Any, _context: Context) -> Any:
        return message_class("ServerMetadataResponse")(**server_metadata(__version__))

    async def _model_ready(self, request: Any, _context: Context) -> Any:
        slot = self._models.slot(request.name)
        if slot.route is not None and request.version:
            slot.route.need(request.version)
        return message_class("ModelReadyResponse")(ready=slot.parked or slot.route is not None)

    async def _model_metadata(self, request: Any, context: Context) -> Any:
        await self._reception.wake(request.name, _headers(context))
        route = self._models.route(request.name)
        self._door.check_metadata(route, _headers(context))
        return metadata_message(route.need(request.version).metadata() if request.version else route.metadata())

    # --- predictions ---

    def read(self, body: bytes, name: str) -> Any:
        """The message of a call that was let in."""
        return read_infer(body, name)

    async def _infer(self, body: bytes, context: Context) -> bytes:
        reception, began, headers = self._reception, time.perf_counter(), _headers(context)
        job = Job(Target(""), "POST", _PATH, b"", headers, _client(context), reception.number(headers), began)
        job.size = len(body)
        try:
            result = await self._answer(job, body, context)
        except asyncio.CancelledError:
            job.gone = True
            reception.note(job, 499, 0)
            raise
        except Exception as error:
            result = as_refusal(error)
        if isinstance(result, BadRequest):
            job.error = result.message
            reception.note(job, result.status, 0)
            await _refuse(context, result, job.number)
            raise AssertionError("abort raises")
        reception.note(job, result.status, len(result.body))
        context.set_trailing_metadata((("x-request-id", job.number),))
        return result.body

    async def _answer(self, job: Job, body: bytes, context: Context) -> Result:
        name = read_name(body)
        job.target = Target(name)
        await self._reception.wake(name, job.headers)
        self._reception.admit(job)
        try:
            if job.size > job.policy.max_body:
                raise job.policy.too_large(job.size)
            request = self.read(body, name)
            job.target = Target(name, request.model_version or None, GrpcForm(request))
            remaining = context.time_remaining()
            if remaining is not None:  # nobody waits any longer than that
                job.deadline = min(job.deadline, time.perf_counter() + remaining)
            return await self._hot.answer(job, body)
        finally:
            self._reception.tally.end(job.endpoint)


def _handler(name: str, handle: Any) -> Any:
    kind = f"{name}Request"

    async def answer(body: bytes, context: Context) -> Any:
        try:
            if len(body) > SMALL_BYTES:
                raise BadRequest(413, f"a {kind} of {len(body):,} bytes; it may have {SMALL_BYTES:,}")
            return await handle(read_message(kind, body), context)
        except Exception as error:
            await _refuse(context, as_refusal(error), "")

    return grpc.unary_unary_rpc_method_handler(answer, response_serializer=lambda message: message.SerializeToString())


async def _refuse(context: Context, refusal: BadRequest, number: str) -> None:
    trailing = [("x-request-id", number)] if number else []
    trailing += [(name.decode(), value.decode()) for name, value in refusal.headers if name == b"retry-after"]
    text = refusal.message if refusal.hint is None else f"{refusal.message} ({refusal.hint})"
    await context.abort(_STATUS.get(refusal.status, grpc.StatusCode.INTERNAL), text, tuple(trailing))


def _headers(context: Context) -> dict[bytes, bytes]:
    given = context.invocation_metadata() or ()
    headers = {key.encode(): value if isinstance(value, bytes) else value.encode() for key, value in given}
    headers.pop(b"content-type", None)  # the form is known
    return headers


def _client(context: Context) -> str:
    """The caller's address, from ``ipv4:127.0.0.1:54321``."""
    kind, _, rest = context.peer().partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""
