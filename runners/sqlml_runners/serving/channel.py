"""What the supervisor and its workers say to each other: one JSON document a line over a socket pair.

    supervisor → worker   Configure, Keys, Know, Load, Route, Refuse, Park, Remove, Synced, Listen, Shed, Write, Drain, Reply
    worker → supervisor   Hello, Loading, Loaded, Failed, Routed, Wanted, Keyed, Listening, Written, Figures, Question, Log

An endpoint goes live in two steps: ``Load`` makes a revision warm in each worker (``Loaded``), and only when all have said so
does ``Route`` swap it in (``Routed``).  The end of the stream is the death of the other side.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from sqlml.catalog import Endpoint
from sqlml_runners.serving.keys import KeyEntry


class Configure(msgspec.Struct, frozen=True, tag=True):
    """The first message: how to serve.

    ``limits``: the file in which rate limits are counted; ``tls``: certificate and key; ``grpc``: where to listen for it, too;
    ``open_metrics``: whoever asks may see the figures; ``cors``: the origins whose pages may ask.
    """

    home: str
    name: str  # of the worker, for its log
    foreground: bool = False
    limits: str = ""
    tls: tuple[str, str] | None = None
    grpc: str = ""
    open_metrics: bool = False
    cors: tuple[str, ...] = ()


class Keys(msgspec.Struct, frozen=True, tag=True):
    """The API keys that count from now on; ``number`` grows with each change."""

    entries: tuple[KeyEntry, ...] = ()
    number: int = 0


class Know(msgspec.Struct, frozen=True, tag=True):
    """There is an endpoint of this name, or will be in a moment."""

    endpoint: Endpoint


class Load(msgspec.Struct, frozen=True, tag=True):
    """Make a revision of an endpoint warm, beside the one that takes traffic; ``mark`` stands for it in the flight record."""

    endpoint: Endpoint
    mark: int


class Route(msgspec.Struct, frozen=True, tag=True):
    """Let a warm revision take the traffic."""

    key: str
    revision: int


class Refuse(msgspec.Struct, frozen=True, tag=True):
    """A revision will not be served, for this reason; what takes the traffic goes on."""

    endpoint: Endpoint
    reason: str


class Park(msgspec.Struct, frozen=True, tag=True):
    """Unload an endpoint's versions until a request comes; ``endpoint`` as it is known."""

    endpoint: Endpoint


class Remove(msgspec.Struct, frozen=True, tag=True):
    """The endpoint is no more."""

    key: str


class Synced(msgspec.Struct, frozen=True, tag=True):
    """The catalog has been read: what is not known by now does not exist."""


class Listen(msgspec.Struct, frozen=True, tag=True):
    """Take connections; ``alone``: no other worker does.  It may come again."""

    alone: bool


class Shed(msgspec.Struct, frozen=True, tag=True):
    """Let so many connections end with their next answer: others have fewer, and their callers will find them."""

    connections: int


class Write(msgspec.Struct, frozen=True, tag=True):
    """Let others read what the prediction log still holds, and say so; ``number`` grows with each time."""

    number: int


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Finish what is under way and leave.  ``last``: nobody else listens, so take who has already knocked."""

    last: bool = False


class Reply(msgspec.Struct, frozen=True, tag=True):
    """The answer to a ``Question``."""

    number: int
    answer: Any = None


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The worker is there."""

    pid: int


class Loading(msgspec.Struct, frozen=True, tag=True):
    """It begins to load a revision: who dies now died of it."""

    key: str
    revision: int


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """A revision is warm.  ``memory``: the bytes it takes, about, 0 where all of it was in memory; ``libraries``: what had to be
    imported so far.
    """

    key: str
    revision: int
    memory: int = 0
    libraries: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A revision cannot be loaded."""

    key: str
    revision: int
    reason: str


class Routed(msgspec.Struct, frozen=True, tag=True):
    """A revision takes the traffic."""

    key: str
    revision: int


class Wanted(msgspec.Struct, frozen=True, tag=True):
    """A request came for an endpoint that is parked."""

    key: str


class Keyed(msgspec.Struct, frozen=True, tag=True):
    """The keys of this number count."""

    number: int


class Written(msgspec.Struct, frozen=True, tag=True):
    """What the prediction log held at this ``Write`` can be read."""

    number: int


class Listening(msgspec.Struct, frozen=True, tag=True):
    """Connections are taken."""


class ArmFigures(msgspec.Struct, frozen=True):
    """What one version did behind one endpoint since the last report; ``latencies`` counts requests by ``figures.bucket``,
    ``statuses`` by their HTTP status; ``dropped``: copies for which it, a shadow, had no room.  ``name`` is the version's
    (``churn@3``); with an empty uid no version had a part in it.
    """

    key: str
    uid: str
    requests: int
    errors: int
    latencies: dict[int, int]
    statuses: dict[int, int] = {}
    rows: int = 0
    name: str = ""
    dropped: int = 0


class Figures(msgspec.Struct, frozen=True, tag=True):
    """Sent twice a second, also with nothing to tell: a worker that says nothing for long is stuck.

    ``queues``: how many requests of an endpoint there were when one was taken up, itself included, on average; ``under_way``: how
    many there are now; ``connections``: those that are open.  ``batches``: how many requests were scored together, how often;
    ``logged`` and ``unlogged``: rows that the prediction log took and had to drop, by the endpoint.
    """

    queues: dict[str, float]
    connections: int
    under_way: dict[str, int]
    arms: tuple[ArmFigures, ...] = ()
    batches: dict[int, int] = {}
    logged: dict[str, int] = {}
    unlogged: dict[str, int] = {}


class Question(msgspec.Struct, frozen=True, tag=True):
    """Something only the supervisor knows: ``endpoints`` (their states, after a look at the catalog), ``metrics``."""

    number: int
    what: str


class Log(msgspec.Struct, frozen=True, tag=True):
    """A line for the log, which the supervisor alone writes."""

    level: int
    name: str
    text: str


ToWorker: TypeAlias = (
    Configure | Keys | Know | Load | Route | Refuse | Park | Remove | Synced | Listen | Shed | Write | Drain | Reply
)
ToSupervisor: TypeAlias = (
    Hello | Loading | Loaded | Failed | Routed | Wanted | Keyed | Listening | Written | Figures | Question | Log
)


def _encode(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def _decode(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)


_encoder = msgspec.json.Encoder(enc_hook=_encode)
_to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker, dec_hook=_decode)
_to_supervisor: msgspec.json.Decoder[ToSupervisor] = msgspec.json.Decoder(ToSupervisor, dec_hook=_decode)


def encode_message(message: ToWorker | ToSupervisor) -> bytes:
    """A message as its line."""
    return _encoder.encode(message) + b"\n"


def decode_to_worker(line: bytes) -> ToWorker:
    """What the supervisor said."""
    return _to_worker.decode(line)


def decode_to_supervisor(line: bytes) -> ToSupervisor:
    """What a worker said."""
    return _to_supervisor.decode(line)


class WorkerLink:
    """The worker's end.  Sending never waits, whatever becomes of the supervisor; messages are heard in a thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._outbox: queue.SimpleQueue[bytes | threading.Event | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="channel-out", daemon=True)

    def start(self, hear: Callable[[ToWorker], None], gone: Callable[[], None]) -> None:
        """Call ``hear`` for each message, and ``gone`` when the supervisor is no more."""
        self._writer.start()
        threading.Thread(target=self._read, args=(hear, gone), name="channel-in", daemon=True).start()

    def send(self, message: ToSupervisor) -> None:
        """Send, from any thread."""
        self._outbox.put(encode_message(message))

    def waiting(self) -> int:
        """How many messages the supervisor has not taken yet."""
        return self._outbox.qsize()

    def wait_until_sent(self, seconds: float = 1.0) -> None:
        """Wait until all that was said so far is on its way, whatever becomes of this process then."""
        sent = threading.Event()
        self._outbox.put(sent)
        sent.wait(seconds)

    def flush(self, seconds: float = 1.0) -> None:
        """Wait until all that was said is on its way; nothing can be said after it."""
        self._outbox.put(None)
        self._writer.join(seconds)

    def _write(self) -> None:
        while (line := self._outbox.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            try:
                self._connection.sendall(line)
            except OSError:
                return  # the reader notices, too

    def _read(self, hear: Callable[[ToWorker], None], gone: Callable[[], None]) -> None:
        try:
            with self._connection.makefile("rb") as lines:
                for line in lines:
                    hear(decode_to_worker(line))
        except OSError:
            pass
        finally:
            gone()


class LogToSupervisor(logging.Handler):
    """Sends log records through the channel: one process writes the file."""

    def __init__(self, link: WorkerLink, worker: str) -> None:
        super().__init__()
        self._link = link
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, its traceback included."""
        self._link.send(Log(record.levelno, f"{record.name}[{self._worker}]", self.format(record)))
