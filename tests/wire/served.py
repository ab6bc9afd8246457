"""One ``sqlml serve`` for the tests of HTTP and of guests."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.wire.places import Place

JSON = {"Content-Type": "application/json"}
ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3"
LARGE = "SELECT range, repeat('x', 1000) FROM range(100000000)"
MOST = 8
"""The most clients of the server."""


@dataclass(frozen=True)
class Served:
    """A database file that a server has open."""

    file: Path
    place: Place
    process: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.place.port}/sql"


def post(url: str, body: Any, headers: dict[str, str] | None = None, **more: Any) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    status, found = raw(url, json.dumps(body).encode(), JSON | (headers or {}), **more)
    return status, json.loads(found)


def raw(url: str, body: bytes | None, headers: dict[str, str], **more: Any) -> tuple[int, bytes]:
    """The status and the bytes of an answer."""
    request = urllib.request.Request(url, body, headers, method=more.pop("method", None))
    try:
        with urllib.request.urlopen(request, timeout=60, **more) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def head_of(length: int) -> bytes:
    """The head of a request with a body of so many bytes."""
    lines = ("POST /sql HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}", "", "")
    return "\r\n".join(lines).encode()


@contextlib.contextmanager
def asking(place: Place, statement: str) -> Iterator[socket.socket]:
    """A client that has asked and does not read."""
    body = json.dumps({"statement": statement}).encode()
    with socket.create_connection((place.host, place.port)) as client:
        client.sendall(head_of(len(body)) + body)
        yield client
