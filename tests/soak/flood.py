"""More requests than a server can carry: sent when they are due, whether or not the last ones were answered (an open loop)."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np


@dataclass
class Flood:
    """What became of the requests: seconds that answers took, by what they were; ``unsent``: no connection was free."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    others: Counter[int] = field(default_factory=Counter)
    without_retry_after: int = 0
    unsent: int = 0
    broken: int = 0

    @property
    def sent(self) -> int:
        return len(self.accepted) + len(self.refused) + sum(self.others.values()) + self.broken


def quantile(seconds: list[float], share: float) -> float:
    """The time that a share of the answers kept, in seconds."""
    return float(np.quantile(seconds, share)) if seconds else float("nan")


class _Caller(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, found: Flood, idle: list[_Caller]) -> None:
        self._found = found
        self._idle = idle
        self._answer = b""
        self._began = 0.0
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._idle.append(self)

    def send(self, request: bytes, now: float) -> None:
        self._began, self._busy = now, True
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        lowered = head.lower()
        at = lowered.find(b"content-length:")
        if not end or len(body) < int(lowered[at + 15 :].split(b"\r\n", 1)[0]):
            return
        seconds, status = asyncio.get_running_loop().time() - self._began, int(head[9:12])
        self._answer, self._busy = b"", False
        if status == 200:
            self._found.accepted.append(seconds)
        elif status == 503:
            self._found.refused.append(seconds)
            self._found.without_retry_after += b"retry-after:" not in lowered
        else:
            self._found.others[status] += 1
        if b"connection: close" not in lowered:
            self._idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._found.broken += self._busy
        if self in self._idle:
            self._idle.remove(self)


async def _flood(url: str, body: bytes, rate: float, seconds: float, connections: int) -> Flood:
    parts, loop, found, idle = urlsplit(url), asyncio.get_running_loop(), Flood(), list[_Caller]()
    head = f"POST {parts.path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    for _ in range(connections):
        await loop.create_connection(lambda: _Caller(found, idle), str(parts.hostname), parts.port or 80)
    callers, began, due = list(idle), loop.time(), 0
    while (now := loop.time()) < began + seconds:
        while due < (now - began) * rate:
            due += 1
            if idle:
                idle.pop().send(request, loop.time())
            else:
                found.unsent += 1
        await asyncio.sleep(0.0005)
    while len(idle) < sum(not caller.transport.is_closing() for caller in callers):
        await asyncio.sleep(0.01)
    for caller in callers:
        caller.transport.close()
    return found


def flood(url: str, body: bytes, rate: float, seconds: float, connections: int = 64) -> Flood:
    """Send so many requests a second for so long; every one that was sent is answered by the end."""
    return asyncio.run(asyncio.wait_for(_flood(url, body, rate, seconds, connections), seconds + 60))
