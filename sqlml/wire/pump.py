"""An answer's bytes from the pool's threads to a socket, at the pace at which the client reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from typing import TypeVar

from sqlml.wire.desk import Desk

T = TypeVar("T")

PIECES_BYTES = 1 << 18
"""So much is made before it is handed to the socket."""
GONE = "the client has gone"
LINGER_SECONDS = 2.0
"""How long a client may take to read the end of an answer when the server ends."""


async def pump(desk: Desk, pool: Executor, answer: Generator[T, None, None], send: Callable[[list[T]], Awaitable[None]]) -> None:
    """Send an answer that is made at a desk; where it cannot be sent any more, what runs is stopped."""
    loop = asyncio.get_running_loop()
    step = loop.run_in_executor(pool, _pieces, answer)
    try:
        is_over = False
        while not is_over:
            pieces, is_over = await step
            if not is_over:
                step = loop.run_in_executor(pool, _pieces, answer)  # the next is made while this one is sent
            await send(pieces)
    finally:
        while not step.done():
            desk.cancel(GONE)
            await asyncio.wait([step], timeout=0.2)
        if not step.cancelled():
            step.exception()  # was raised above, or nobody is left to hear it
        await loop.run_in_executor(pool, answer.close)


async def stop_work(desk: Desk, work: asyncio.Future[None], reason: str, *, keeps: bool = False) -> None:
    """Cancel what runs until it has ended; ``keeps``: a job of ours goes on."""
    while not work.done():
        if not (keeps and desk.trains):
            desk.cancel(reason)
        await asyncio.wait([work], timeout=0.2)  # one call may come before the statement has begun
    with suppress(Exception):
        await work


def _pieces(answer: Iterator[T]) -> tuple[list[T], bool]:
    """The next of an answer, and whether they are the last."""
    pieces: list[T] = []
    size = 0
    for piece in answer:
        pieces.append(piece)
        size += _size(piece)
        if size >= PIECES_BYTES:
            return pieces, False
    return pieces, True


def _size(piece: object) -> int:
    if isinstance(piece, list):
        return sum(map(_size, piece))
    return len(piece) if isinstance(piece, bytes | memoryview) else 0
