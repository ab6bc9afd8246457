"""A worker: one process that takes connections from the shared socket and answers them.

    nursery forks it → Configure → app → Load, Route … → Listen: uvicorn on the inherited socket → Drain → gone

The supervisor's messages are heard in a thread, and versions are loaded in another, so that neither ever waits for a request.
When the supervisor dies the worker closes the socket at once, finishes what is under way, and goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import importlib
import itertools
import logging
import os
import queue
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import uvicorn
from starlette.types import ASGIApp

from sqlml.catalog import Endpoint
from sqlml.errors import BundleError
from sqlml.home import Home
from sqlml_runners.serving.acceptor import Acceptor
from sqlml_runners.serving.access_log import AccessLog
from sqlml_runners.serving.app import make_app
from sqlml_runners.serving.channel import (
    Configure,
    Drain,
    Failed,
    Figures,
    Hello,
    Keyed,
    Keys,
    Know,
    Listen,
    Listening,
    Load,
    Loaded,
    Loading,
    LogToSupervisor,
    Park,
    Question,
    Refuse,
    Remove,
    Reply,
    Route,
    Routed,
    Shed,
    Synced,
    ToWorker,
    Wanted,
    WorkerLink,
    Write,
    Written,
)
from sqlml_runners.serving.connection import Connection, sweep
from sqlml_runners.serving.cors import Cors
from sqlml_runners.serving.doors import Door
from sqlml_runners.serving.flight import Recorder
from sqlml_runners.serving.hot import Hot
from sqlml_runners.serving.keys import KeyEntry, KeyRing, RateLimiter
from sqlml_runners.serving.models import Models
from sqlml_runners.serving.prediction_writer import PredictionLog
from sqlml_runners.serving.reception import Reception
from sqlml_runners.serving.tls import tls_context

if TYPE_CHECKING:
    from sqlml_runners.serving.grpc_server import GrpcServer

log = logging.getLogger("sqlml.serving")

GRACE_SECONDS = 8
"""How long requests under way may take when the worker leaves."""
DRAIN_SECONDS = 1.0
"""How long answers say ``connection: close`` before connections that say nothing are closed."""
LAST_SECONDS = 0.05
REPORT_SECONDS = 0.5
SWEEP_SECONDS = 0.25
ANSWER_SECONDS = 5.0
HEAVY = ("xgboost", "onnxruntime", "sklearn", "torch", "duckdb", "pandas")
"""What takes long to import: once a model needed it, the nursery imports it for the workers to come."""
SWITCH_SECONDS = 0.0005
"""How long another thread may compute in Python while requests wait; Python's own 5 ms are ten requests' time."""
WITH_THE_FIRST_REQUEST = ("pyarrow.parquet", "pandas")
"""What would be imported then, and keep it waiting: the prediction log's files, and what pyarrow takes where it is installed."""


def run_worker(channel: socket.socket, listener: socket.socket, record: int) -> None:
    """Serve until told to leave, or until the supervisor is no more.  ``record``: of ``flight.new_record``."""
    faulthandler.enable()
    Worker(channel, listener, Recorder(record)).run()


def rehearse() -> None:
    """Make once, for nobody, what each worker makes at its start: what is imported and computed by it is there after a fork."""

    async def nobody(_what: str) -> None:
        return None

    _config(make_app(Models(), nobody)).load()
    for name in WITH_THE_FIRST_REQUEST:
        if find_spec(name) is not None:
            importlib.import_module(name)


class Worker:
    """The process' parts and how it stands."""

    def __init__(self, channel: socket.socket, listener: socket.socket, recorder: Recorder) -> None:
        self._listener = listener
        self._link = WorkerLink(channel)
        self._models = Models(lambda key: self._link.send(Wanted(key)), recorder)
        self._to_load: queue.SimpleQueue[Load] = queue.SimpleQueue()
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._configured: asyncio.Future[Configure] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reception: Reception | None = None
        self._lock = threading.Lock()
        self._entries: tuple[KeyEntry, ...] = ()
        self._limiter: RateLimiter | None = None
        self._server: Server | None = None
        self._grpc: GrpcServer | None = None
        self._alone = True

    def run(self) -> None:
        """Until the end."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the supervisor decides
        sys.setswitchinterval(SWITCH_SECONDS)
        with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
            runner.run(self._serve())

    # --- the event loop's side ---

    async def _serve(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._configured = loop.create_future()
        self._listen = asyncio.Event()
        self._leave: asyncio.Future[_Farewell] = loop.create_future()
        loop.add_signal_handler(signal.SIGTERM, self._say_farewell, _Farewell())
        self._link.start(self._hear, self._orphaned)
        self._link.send(Hello(os.getpid()))
        configured = await self._configured
        self._log_to_supervisor(configured)
        tls = None if configured.tls is None else tls_context(*map(Path, configured.tls))
        home = Home(Path(configured.home))
        predictions, access = PredictionLog(home), AccessLog(home.logs)
        predictions.start()
        access.start()
        threading.Thread(target=self._load_all, name="models", daemon=True).start()
        reception = self._reception = Reception(self._models, predictions, access)
        reception.cors = Cors(configured.cors)
        door = Door(lambda: reception.keys, configured.open_metrics)
        hot = Hot(make_app(self._models, self._ask, door), reception)
        self._set_keys(limiter=RateLimiter(Path(configured.limits)))
        server = self._server = Server(_config(hot), self._listener, tls)
        if configured.grpc:
            from sqlml_runners.serving.grpc_server import GrpcServer  # after the fork: gRPC has threads

            self._grpc = GrpcServer(hot, door, configured.grpc, configured.tls)
        tasks = [asyncio.create_task(work) for work in (self._report(server, reception, predictions), self._sweep(server, hot))]
        with contextlib.suppress(asyncio.CancelledError):
            await self._take_connections(server)
        for task in tasks:
            task.cancel()
        predictions.close()
        access.close()
        self._send_figures(server, reception, predictions)  # the last ones count, too
        self._link.flush()

    async def _take_connections(self, server: Server) -> None:
        await _first(asyncio.ensure_future(self._listen.wait()), self._leave)
        if self._leave.done():
            return
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        if self._grpc is not None:
            await self._grpc.start()
        server.set_alone(self._alone)
        self._link.send(Listening())
        await _first(serving, self._leave)
        if not serving.done():
            last = [] if self._grpc is None else [self._grpc.stop(GRACE_SECONDS)]
            await asyncio.gather(self._drain(server, self._leave.result()), *last)
        await serving

    async def _drain(self, server: Server, farewell: _Farewell) -> None:
        """Let every connection end with an answer that says so; those that say nothing are closed after a moment."""
        threading.Timer(GRACE_SECONDS + 3, os._exit, [1]).start()  # should all else fail
        assert self._reception is not None
        self._reception.closing = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        if farewell.last:
            await asyncio.sleep(LAST_SECONDS)  # nobody new can begin: those who had begun have knocked by now
            server.take_all()
        server.stop_listening()
        while not farewell.orphan and server.server_state.connections and loop.time() < began + DRAIN_SECONDS:
            await asyncio.sleep(0.02)
        server.should_exit = True

    async def _report(self, server: Server, reception: Reception, predictions: PredictionLog) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            if self._link.waiting() < 100:
                self._send_figures(server, reception, predictions)

    def _send_figures(self, server: Server, reception: Reception, predictions: PredictionLog) -> None:
        tally, connections = self._models.tally, len(server.server_state.connections)
        logged, unlogged = predictions.take_counts()
        sizes = reception.batcher.take_sizes()
        self._link.send(Figures(tally.take_queues(), connections, tally.under_way(), tally.take(), sizes, logged, unlogged))

    async def _sweep(self, server: Server, hot: Hot) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            hot.sweep()
            self._models.sweep()
            hot.reception.flush()
            sweep(server.server_state, asyncio.get_running_loop().time())

    async def _ask(self, what: str) -> Any:
        """Ask the supervisor."""
        number = next(self._numbers)
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        self._link.send(Question(number, what))
        try:
            return await asyncio.wait_for(answer, ANSWER_SECONDS)
        finally:
            del self._questions[number]

    def _log_to_supervisor(self, configured: Configure) -> None:
        root = logging.getLogger()
        for handler in list(root.handlers):
            root.removeHandler(handler)
        root.addHandler(LogToSupervisor(self._link, configured.name))
        root.setLevel(logging.INFO)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)

    def _set_keys(self, entries: Sequence[KeyEntry] | None = None, limiter: RateLimiter | None = None) -> None:
        """From now on these keys count (None: the same), counted there; from either side, in one step."""
        with self._lock:
            self._entries = self._entries if entries is None else tuple(entries)
            self._limiter = limiter or self._limiter
            if self._reception is not None and self._limiter is not None:
                self._reception.keys = KeyRing(self._entries, self._limiter)

    # --- the channel's threads ---

    def _hear(self, message: ToWorker) -> None:
        match message:
            case Keys(entries, number):
                self._set_keys(entries)
                self._link.send(Keyed(number))
            case Know(endpoint):
                self._models.announce(endpoint)
            case Load():
                self._to_load.put(message)
            case Route(key, revision):
                if self._models.switch(key, revision):
                    self._link.send(Routed(key, revision))
            case Refuse(endpoint, reason):
                self._models.refuse(endpoint, reason)
            case Park(endpoint):
                self._models.park(endpoint)
            case Remove(key):
                self._models.remove(key)
            case Synced():
                self._models.synced()
            case _:
                self._on_loop(self._hear_on_loop, message)

    def _hear_on_loop(self, message: ToWorker) -> None:
        match message:
            case Configure():
                assert self._configured is not None
                self._configured.set_result(message)
            case Listen(alone):
                self._alone = alone
                if self._server is not None:
                    self._server.set_alone(alone)
                self._listen.set()
            case Shed(connections):
                assert self._reception is not None
                self._reception.shed = connections
            case Write(number):
                assert self._reception is not None
                self._reception.write_log(lambda: self._link.send(Written(number)))
            case Drain(last):
                self._say_farewell(_Farewell(last=last))
            case Reply(number, answer):
                question = self._questions.get(number)
                if question is not None and not question.done():
                    question.set_result(answer)
            case _:
                raise AssertionError(message)

    def _on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # it is closed: we are leaving
            self._loop.call_soon_threadsafe(call, *arguments)

    def _orphaned(self) -> None:
        timer = threading.Timer(GRACE_SECONDS + 3, os._exit, [1])  # should the loop be stuck
        timer.daemon = True
        timer.start()
        self._on_loop(self._say_farewell, _Farewell(last=True, orphan=True))

    def _say_farewell(self, farewell: _Farewell) -> None:
        if not self._leave.done():
            self._leave.set_result(farewell)

    def _load_all(self) -> None:
        while True:
            order = self._to_load.get()
            self._link.send(Loading(order.endpoint.name.lower(), order.endpoint.revision))
            if not self._models.has(order.endpoint):
                self._link.wait_until_sent()  # should loading it be the end of this process, they know what was loaded
            self._link.send(self._load(order.endpoint, order.mark))

    def _load(self, endpoint: Endpoint, mark: int) -> Loaded | Failed:
        key, revision = endpoint.name.lower(), endpoint.revision
        names = " and ".join(arm.name for arm in endpoint.arms)
        new = not self._models.has(endpoint)
        before, libraries = _resident() if new else 0, _libraries()
        try:
            self._models.load(endpoint, mark)
        except Exception as error:  # whatever a bundle does must not stop the others
            log.error("cannot load %s behind %s: %s", names, endpoint.name, error, exc_info=not isinstance(error, BundleError))
            return Failed(key, revision, str(error) or type(error).__name__)
        grown = _resident() - before if new else 0
        if libraries != _libraries():  # a library's own memory is not the model's, and it stays
            grown = 0
            gc.freeze()
        size = max(grown, *(folder_bytes(arm.bundle) for arm in endpoint.arms)) if new else 0
        return Loaded(key, revision, size, _libraries())


def _resident() -> int:
    return int(_this_process(os.getpid()).memory_info().rss)


@cache
def _this_process(pid: int) -> psutil.Process:
    """A worker is forked: what its parent knew of itself is of no use."""
    return psutil.Process(pid)


def _libraries() -> tuple[str, ...]:
    return tuple(name for name in HEAVY if name in sys.modules)


@lru_cache(maxsize=1024)
def folder_bytes(folder: Path) -> int:
    """The size of the files in a bundle, which never changes: a model takes about as much memory, at least."""
    size = 0
    for root, _folders, files in os.walk(folder):
        size += sum(os.stat(os.path.join(root, name)).st_size for name in files)
    return size


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


class _Farewell:
    """How to leave: ``last`` where nobody else listens; ``orphan`` where the supervisor is dead."""

    def __init__(self, *, last: bool = False, orphan: bool = False) -> None:
        self.last = last
        self.orphan = orphan


class Server(uvicorn.Server):
    """uvicorn's, without its signal handlers (the worker decides when to leave), and fair to the other workers."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._listener = listener
        self._tls = tls
        self._acceptor: Acceptor | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None are."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await self.lifespan.startup()
        self.servers = []  # uvicorn would close them
        self._acceptor = Acceptor(self._listener, self._protocol, lambda: len(self.server_state.connections), self._tls)
        self._acceptor.start()
        self.started = True

    def _protocol(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return made

    def set_alone(self, alone: bool) -> None:
        """Whether other workers take connections, too."""
        if self._acceptor is not None:
            self._acceptor.alone = alone

    def take_all(self) -> None:
        """Take whoever has knocked."""
        if self._acceptor is not None:
            self._acceptor.take_all()

    def stop_listening(self) -> None:
        """Take no more connections; those there are go on."""
        if self._acceptor is not None:
            self._acceptor.stop()


def _config(app: ASGIApp) -> uvicorn.Config:
    # httptools' protocol is asked for by name: uvicorn's own parser of last resort is several times slower
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who a request comes from is who has the connection
        timeout_keep_alive=65,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
