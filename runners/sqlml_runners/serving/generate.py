"""Texts from language models: ``POST /models/{m}/generate`` with a prompt, answered whole or as server-sent events.

body → Wish → a thread that writes tokens → a queue → events as they come, or one answer; whoever goes away stops the thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sqlml.errors import DataError, Error, InternalError, did_you_mean, listing
from sqlml.generation.generator import DEFAULT_TOKENS, INPUT, MOST_TOKENS, Ending, Piece, Wish
from sqlml.generation.sampling import Sampling
from sqlml.types import Task
from sqlml_runners.serving.batching import FAULT
from sqlml_runners.serving.forms import Call
from sqlml_runners.serving.job import Job, choose
from sqlml_runners.serving.limits import Policy
from sqlml_runners.serving.models import Models
from sqlml_runners.serving.protocol import BadRequest, decode_json, describe_value, does_not_fit, wrong_value
from sqlml_runners.serving.served import Served

log = logging.getLogger("sqlml.serving")

MOST_WAITING = 64
"""So many texts may wait for a thread; more are refused."""
STREAM = "text/event-stream"
GONE = 499
"""The status of a request whose client went away, as nginx counts it."""

Happening = Piece | Ending | Error


class GenerateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body; ``temperature`` 0 takes the likeliest token each time."""

    prompt: str
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)] = DEFAULT_TOKENS
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] = 1.0
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 0
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    seed: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop: str | Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta(max_length=8)] = []
    stream: bool = False

    def wish(self) -> Wish:
        """What is asked of the generator."""
        words = [self.stop] if isinstance(self.stop, str) else self.stop
        sampling = Sampling(self.temperature, self.top_k, self.top_p)
        return Wish(self.prompt, self.max_new_tokens, sampling, self.seed, tuple(word for word in words if word))


_decoder = msgspec.json.Decoder(GenerateRequest)
_EXPECTED: Mapping[str, str] = {
    "prompt": "a text",
    "max_new_tokens": f"a whole number from 1 to {MOST_TOKENS}",
    "temperature": "a number from 0 to 100",
    "top_k": "a whole number from 0",
    "top_p": "a number above 0, and 1 at most",
    "seed": "a whole number from 0",
    "stop": "a text, or a list of 8 at most",
    "stream": "true or false",
}


def decode_generate(body: bytes) -> GenerateRequest:
    """A request's body.  ``BadRequest`` 400 for what is not JSON, 422 with the field for what does not fit."""
    try:
        found: GenerateRequest = decode_json(_decoder.decode, body)
    except msgspec.ValidationError as error:
        raise _unfit(body, error) from None
    return found


def _unfit(body: bytes, error: msgspec.ValidationError) -> BadRequest:
    """What to say of JSON that is no request, in the words in which ``predict`` says it."""
    plainly = does_not_fit(error)
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:  # a number too large for any type
        return plainly
    if not isinstance(document, dict):
        return BadRequest(422, f'the body must be {{"prompt": "…"}}, got {describe_value(document)}')
    fields = GenerateRequest.__struct_fields__
    if unknown := next((name for name in document if name not in fields), None):
        there = did_you_mean(unknown, fields) or f"there are: {listing(fields)}"
        return BadRequest(422, f"unknown field {unknown!r}; {there}", unknown)
    if "prompt" not in document:
        return BadRequest(422, 'prompt is missing: the body must be {"prompt": "…"}', "prompt")
    path = plainly.field or ""
    name, _, place = path.partition("[")
    try:
        if place:
            return wrong_value(422, path, "a text that is not empty", document[name][int(place.rstrip("]"))])
        return wrong_value(422, path, _EXPECTED[name], document[name])
    except (LookupError, TypeError):  # a field that is there twice
        return plainly


def encode_event(happening: Happening) -> bytes:
    """One server-sent event: a token, the end with its figures, or what went wrong."""
    return b"data: " + msgspec.json.encode(_document(happening)) + b"\n\n"


def _document(happening: Happening) -> dict[str, Any]:
    if isinstance(happening, Piece):
        return {"token": happening.token, "text": happening.text}
    if isinstance(happening, Ending):
        return {"done": True, "rest": happening.rest, **encode_ending(happening)}
    return {"done": True, "error": happening.message} | ({"hint": happening.hint} if happening.hint else {})


def encode_ending(ending: Ending) -> dict[str, Any]:
    """The whole text with its figures; seconds."""
    return {
        "text": ending.text,
        "finish_reason": ending.reason,
        "prompt_tokens": ending.prompt_tokens,
        "new_tokens": ending.new_tokens,
        "first_token_seconds": ending.first_token_seconds,
        "seconds": ending.seconds,
        "tokens_per_second": ending.tokens_per_second,
    }


# --- writing ----------------------------------------------------------------------------------------------------------


class Writers:
    """The threads that write, as many as there are cores; the others wait."""

    def __init__(self, threads: int = 0) -> None:
        self._pool = ThreadPoolExecutor(threads or os.cpu_count() or 1, thread_name_prefix="generate")
        self._waiting = 0

    async def write(self, served: Served, wish: Wish) -> AsyncIterator[Happening]:
        """What happens while a text is written; whoever stops to read stops it.

        ``BadRequest`` 422 for a prompt that the model cannot take, 503 where too many wait; both before anything happens.
        """
        if self._waiting >= MOST_WAITING:
            raise BadRequest(503, f"{self._waiting} texts wait to be written; try again in a moment", retry_after=1)
        left = threading.Event()
        try:
            pieces = served.model.generator.generate(wish, left.is_set)
        except DataError as error:
            raise BadRequest(422, f"prompt: {error.message}", "prompt", hint=error.hint) from error
        return self._follow(served, pieces, left)

    async def _follow(self, served: Served, pieces: Iterator[Piece | Ending], left: threading.Event) -> AsyncIterator[Happening]:
        loop = asyncio.get_running_loop()
        happenings: asyncio.Queue[Happening | None] = asyncio.Queue()

        def tell(happening: Happening | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens
                loop.call_soon_threadsafe(happenings.put_nowait, happening)

        self._waiting += 1
        task = loop.run_in_executor(self._pool, _run, served, pieces, tell)
        try:
            while (happening := await happenings.get()) is not None:
                yield happening
        finally:
            left.set()
            self._waiting -= 1
            task.cancel()  # one that still waits for a thread never begins


def _run(served: Served, pieces: Iterator[Piece | Ending], tell: Callable[[Happening | None], None]) -> None:
    try:
        with served.flight:
            for piece in pieces:
                tell(piece)
    except Error as error:
        tell(error)
    except Exception as error:
        log.error("a text could not be written", exc_info=error)
        tell(InternalError(FAULT))
    finally:
        tell(None)


# --- answering --------------------------------------------------------------------------------------------------------


def generate_handler(models: Models) -> Callable[[Request], Awaitable[Response]]:
    """The route's handler."""
    writers = Writers()

    async def handle(request: Request) -> Response:
        name = request.path_params["name"]
        await models.wake(name)
        route = models.route(name)
        served = choose(route, dict(request.headers.raw)) or route.choose()  # a prompt has no column to stick by
        if served.arm.task != Task.GENERATION:
            raise BadRequest(400, f"endpoint {served.endpoint} serves no language model: POST /models/{served.endpoint}/predict")
        body = await _body(request, route.policy)
        asked = decode_generate(body)
        wish = asked.wish()
        happenings = _kept(await writers.write(served, wish), request, served, wish, len(body))
        count = _counter(models, served)
        if asked.stream:
            return StreamingResponse(_events(happenings, count), media_type=STREAM, headers={"cache-control": "no-store"})
        return await _whole(request, happenings, count, route.policy)

    return handle


async def _kept(
    happenings: AsyncIterator[Happening], request: Request, served: Served, wish: Wish, size: int
) -> AsyncIterator[Happening]:
    """The same.  By the road of ``Hot`` (where it is asked for by that) the prediction log has the whole text, the shadows the
    wish.
    """
    job: Job | None = request.scope.get("job")
    if job is not None:
        job.served, job.size = served, size
        job.call = Call(1, columns={INPUT: pa.array([wish.prompt])})
    try:
        async for happening in happenings:
            if job is not None and isinstance(happening, Ending):
                request.scope["keep"](job, [[happening.text]], wish)
            yield happening
    finally:
        await happenings.aclose()  # type: ignore[attr-defined]


async def _body(request: Request, policy: Policy) -> bytes:
    """The body.  ``BadRequest`` 413 where it is too large."""
    parts: list[bytes] = []
    async for part in request.stream():
        parts.append(part)
        if (size := sum(map(len, parts))) > policy.max_body:
            raise policy.too_large(size)
    return b"".join(parts)


def _counter(models: Models, served: Served) -> Callable[[int], None]:
    """Count a request that begins now; to be called once, with its status, when it is over.  That it is there counts ``Hot``."""
    key, began = served.endpoint.lower(), time.perf_counter()

    def count(status: int) -> None:
        models.tally.count(key, served.arm.uid, time.perf_counter() - began, status, 1, served.arm.name)

    return count


async def _events(happenings: AsyncIterator[Happening], count: Callable[[int], None]) -> AsyncIterator[bytes]:
    status = GONE
    try:
        async for happening in happenings:
            status = 500 if isinstance(happening, Error) else 200 if isinstance(happening, Ending) else GONE
            yield encode_event(happening)
    finally:
        await happenings.aclose()  # type: ignore[attr-defined]
        count(status)


async def _whole(
    request: Request, happenings: AsyncIterator[Happening], count: Callable[[int], None], policy: Policy
) -> Response:
    """The whole text at once, unless the client goes away before, or it takes too long."""
    last = asyncio.ensure_future(_last(happenings))
    gone = asyncio.ensure_future(_gone(request))
    status = GONE
    try:
        await asyncio.wait((last, gone), timeout=policy.timeout, return_when=asyncio.FIRST_COMPLETED)
        if not last.done() and not gone.done():
            status = 504
            raise policy.too_late()
        if not last.done():
            return Response(status_code=400)  # nobody reads it
        found = last.result()
        if not isinstance(found, Ending):
            status = 500
            raise BadRequest(status, found.message, hint=found.hint) if isinstance(found, Error) else BadRequest(status, FAULT)
        status = 200
        return Response(msgspec.json.encode(encode_ending(found)), media_type="application/json")
    finally:
        gone.cancel()
        last.cancel()
        count(status)


async def _last(happenings: AsyncIterator[Happening]) -> Happening | None:
    found = None
    try:
        async for happening in happenings:
            found = happening
    finally:
        await happenings.aclose()  # type: ignore[attr-defined]
    return found


async def _gone(request: Request) -> None:
    """Wait until the client is no more."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
