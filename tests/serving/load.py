"""Load on an endpoint: connections that are kept alive, each sending its next request when the last is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

RETRY_SECONDS = 0.05


@dataclass
class Outcome:
    """What became of the requests: ``failed`` at the first try, ``lost`` after one retry 50 ms later on a new connection.

    ``reasons`` counts failures; ``versions`` answers by the version that gave them; ``refused``: nobody listened any more.
    """

    done: int = 0
    failed: int = 0
    lost: int = 0
    refused: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    longest: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.done / self.seconds if self.seconds else 0.0


class Load:
    """Closed-loop load in a thread of its own; ``outcome`` grows while it runs."""

    def __init__(self, url: str, body: Any, connections: int = 8, *, until_refused: bool = False) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        content = json.dumps(body).encode()
        head = (
            f"POST {parts.path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        self._request = head.encode() + content
        self._connections = connections
        self._until_refused = until_refused
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        self.outcome = Outcome()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Outcome:
        """Let every request under way be answered; what became of them all."""
        self._stop.set()
        self._thread.join()
        return self.outcome

    def wait_for(self, requests: int, seconds: float = 120) -> None:
        """Until so many requests are done."""
        deadline = time.monotonic() + seconds
        while self.outcome.done < requests:
            assert time.monotonic() < deadline, f"{self.outcome.done} of {requests} requests in {seconds} s"
            time.sleep(0.01)

    async def _run(self) -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(self._client())
        self.outcome.seconds = time.perf_counter() - began

    async def _client(self) -> None:
        connection = _Connection(self._host, self._port)
        while not self._stop.is_set():
            began = time.perf_counter()
            try:
                self._note(*await connection.ask(self._request), began)
                continue
            except ConnectionRefusedError:
                if self._until_refused:
                    self.outcome.refused += 1
                    return
                reason = "refused"
            except (OSError, EOFError, _BadAnswer) as error:
                reason = str(error) or type(error).__name__
            self.outcome.failed += 1
            self.outcome.reasons[reason] += 1
            connection.close()
            await asyncio.sleep(RETRY_SECONDS)
            try:
                self._note(*await connection.ask(self._request), began)
            except (OSError, EOFError, _BadAnswer) as error:
                self.outcome.lost += 1
                self.outcome.reasons[f"again: {str(error) or type(error).__name__}"] += 1
                connection.close()
        connection.close()

    def _note(self, status: int, body: bytes, began: float) -> None:
        if status != 200:
            raise _BadAnswer(f"{status} {body[:200]!r}")
        self.outcome.done += 1
        self.outcome.longest = max(self.outcome.longest, time.perf_counter() - began)
        at = body.find(b'"version":')
        self.outcome.versions[int(body[at + 10 : body.index(b",", at)])] += 1


class _BadAnswer(Exception):
    pass


class _Connection:
    """One connection, opened when there is something to ask."""

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._place)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        at = head.index(b"content-length:") + 15
        body = await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
        if b"\nconnection: close" in head:
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        if self._streams is not None:
            with contextlib.suppress(OSError):
                self._streams[1].close()
            self._streams = None


@contextmanager
def load(url: str, body: Any, connections: int = 8) -> Iterator[Load]:
    """Load while the ``with`` lasts."""
    running = Load(url, body, connections)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether a condition becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
