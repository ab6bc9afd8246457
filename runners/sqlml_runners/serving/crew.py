"""The supervisor's hands: the nursery, the workers' channels, who was born and who died.  No decisions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from sqlml_runners.serving.channel import ToSupervisor, ToWorker, decode_to_supervisor, encode_message
from sqlml_runners.serving.flight import new_record, read_marks
from sqlml_runners.serving.nursery import Born, Died, Fork, Import, Imported, decode_news, encode_news, run_nursery

log = logging.getLogger("sqlml.serving")

STATUS_SECONDS = 1.0
"""How long after the end of a worker's channel the nursery may take to say how it died."""
ORDER_SECONDS = 60.0
"""How long the nursery may take for an order, the first of which waits until it has imported everything."""
LINE_LIMIT = 1 << 24
"""Bytes of one message."""


class Nest:
    """A nursery that was forked before this process had threads; to be made first of all."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.channel = ours
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ours.close()
                run_nursery(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def close(self) -> None:
        """Send it away, where it has not gone yet."""
        self.channel.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


class Nursery:
    """The supervisor's end of a nursery.  It obeys one order at a time."""

    def __init__(self, channel: socket.socket, died: Callable[[Died], None], gone: Callable[[Nursery], None]) -> None:
        """``died`` for each worker of its that ended, ``gone`` when it is no more itself; not after ``close``."""
        channel.setblocking(False)
        self._channel = channel
        self._died = died
        self._gone = gone
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[Born | None] | None = None
        self._task = asyncio.create_task(self._hear())

    async def tell(self, order: Fork | Import, descriptors: list[int]) -> Born | None:
        """Give an order and wait for its answer.  ``OSError`` where it is gone, or does not answer in time."""
        async with self._turn:
            self._answer = asyncio.get_running_loop().create_future()
            socket.send_fds(self._channel, [encode_news(order)], descriptors)
            try:
                return await asyncio.wait_for(self._answer, ORDER_SECONDS)
            except TimeoutError:  # what it answers later would be taken for the answer to something else
                self.close()
                self._gone(self)
                raise

    def close(self) -> None:
        """Send it away."""
        self._task.cancel()
        self._channel.close()

    async def _hear(self) -> None:
        loop, rest = asyncio.get_running_loop(), b""
        while chunk := await _received(loop, self._channel):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._note(decode_news(line))
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the process that forks the workers died"))
        self._channel.close()
        self._gone(self)

    def _note(self, news: Born | Imported | Died) -> None:
        if isinstance(news, Died):
            self._died(news)
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(news if isinstance(news, Born) else None)


@dataclass
class _Worker:
    writer: asyncio.StreamWriter
    record: int
    nursery: Nursery
    pid: int = 0
    status: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Crew:
    """The workers.  ``hear(id, message)`` for each message; ``gone(id, status, marks)`` at the end: how it ended, None where
    nobody knows, and the marks of what it was running.
    """

    def __init__(
        self,
        nest: Nest,
        listener: socket.socket,
        hear: Callable[[int, ToSupervisor], None],
        gone: Callable[[int, int | None, set[int]], None],
    ) -> None:
        self._nest = nest
        self._listener = listener
        self._hear = hear
        self._gone = gone
        self._workers: dict[int, _Worker] = {}
        self._ids = itertools.count(1)
        self._nursery: Nursery | None = None  # that forks the next one
        self._older: list[Nursery] = []  # that have workers still
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to hear the nursery."""
        self._nursery = Nursery(self._nest.channel, self._died, self._nursery_gone)

    async def hire(self) -> int:
        """Another worker; its id.  ``OSError`` where none can be had."""
        number = next(self._ids)
        nursery = self._nursery = self._nursery or self._new_nursery()
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_LIMIT)
            worker = self._workers[number] = _Worker(writer, new_record(), nursery)
            try:
                born = await nursery.tell(Fork(number), [theirs.fileno(), self._listener.fileno(), worker.record])
            except BaseException:
                del self._workers[number]
                os.close(worker.record)
                writer.close()
                raise
        worker.pid = born.pid if born else 0
        self._start(self._follow(number, worker, reader))
        return number

    async def renew(self, libraries: tuple[str, ...]) -> None:
        """Let workers to come be forked from a fresh Python, with the libraries as they are installed now."""
        nursery = self._new_nursery()
        await nursery.tell(Import(libraries), [])
        if self._nursery is not None:
            self._older.append(self._nursery)
        self._nursery = nursery
        self._close_childless()

    async def import_ahead(self, names: tuple[str, ...]) -> None:
        """Let workers to come have libraries that take long to import."""
        if self._nursery is not None:
            await self._nursery.tell(Import(names), [])

    def send(self, number: int, message: ToWorker) -> None:
        """Send; nothing happens where the worker is gone."""
        worker = self._workers.get(number)
        if worker is not None and not worker.writer.is_closing():
            worker.writer.write(encode_message(message))

    def numbers(self) -> list[int]:
        """The workers that live."""
        return list(self._workers)

    def pid(self, number: int) -> int:
        """Its process; 0 where it is gone."""
        worker = self._workers.get(number)
        return worker.pid if worker else 0

    def kill(self, number: int, how: int = signal.SIGKILL) -> None:
        """End a worker that lives."""
        worker = self._workers.get(number)
        if worker is not None and worker.pid and not worker.status.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, how)

    async def close(self) -> None:
        """Send the nursery away and stop hearing; the workers are gone by now."""
        for task in list(self._tasks):
            task.cancel()
        for nursery in [*self._older, *filter(None, [self._nursery])]:
            nursery.close()

    async def _follow(self, number: int, worker: _Worker, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._hear(number, decode_to_supervisor(line))
        except ConnectionError:
            pass  # as its end
        except Exception:  # it talks nonsense, or what it says cannot be dealt with: better another
            log.exception("worker %s cannot be understood and is ended", number)
            self.kill(number)
        worker.writer.close()
        status = None
        with contextlib.suppress(TimeoutError):
            status = await asyncio.wait_for(asyncio.shield(worker.status), STATUS_SECONDS)
        if status is None:
            self.kill(number)  # it has closed its channel and lives on: it is of no use
        del self._workers[number]
        self._close_childless()
        running = read_marks(worker.record)
        os.close(worker.record)
        self._gone(number, status, running)

    # --- nurseries ---

    def _new_nursery(self) -> Nursery:
        return Nursery(_start_python(), self._died, self._nursery_gone)

    def _died(self, news: Died) -> None:
        worker = self._workers.get(news.id)
        if worker is not None and not worker.status.done():
            worker.status.set_result(news.status)

    def _nursery_gone(self, nursery: Nursery) -> None:
        if nursery is self._nursery:
            log.error("the process that forks the workers died; another takes its place")
            self._nursery = None

    def _close_childless(self) -> None:
        """Send older nurseries away when the last of their workers is gone: until then they know how workers end."""
        for nursery in [n for n in self._older if not any(worker.nursery is n for worker in self._workers.values())]:
            self._older.remove(nursery)
            nursery.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _received(loop: asyncio.AbstractEventLoop, channel: socket.socket) -> bytes:
    try:
        return await loop.sock_recv(channel, 65536)
    except OSError:
        return b""


def _start_python() -> socket.socket:
    """Another nursery's channel: a fork of this process would copy its threads' locks, so it is a Python of its own."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "sqlml_runners.serving.nursery", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
    return ours
