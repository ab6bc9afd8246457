"""A server process: one home, one lock, one port.

    lock → socket → catalog → models follow it → uvicorn → server.json

It stops at a signal, or in the background when nothing is left to serve, and undoes the same in reverse.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType

import psutil
import uvicorn
from fastapi import FastAPI

from sqlml.catalog import Catalog
from sqlml.errors import ServingError
from sqlml.home import Home
from sqlml.version import __version__
from sqlml_runners.serving.app import make_app
from sqlml_runners.serving.models import Models
from sqlml_runners.serving.state import ServerLock, ServerState, remove_state, write_state

log = logging.getLogger("sqlml.serving")

DEFAULT_PORT = 8080
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - only where the user asks for it
GRACE_SECONDS = 8


@dataclass(frozen=True)
class ServerOptions:
    """How to serve.  ``port`` None: 8080 where it is free, else any.

    A server in the background leaves by itself: ``idle_seconds`` after its start where nothing was ever deployed,
    ``linger_seconds`` after its last endpoint was undeployed, and when its home has been deleted.
    """

    home: Path
    catalog: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    foreground: bool = False
    idle_seconds: float = 30
    linger_seconds: float = 2


def run_server(options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way; to be called in the main thread.

    ``ServingError`` where another server has the home or the port is taken.
    """
    Home(options.home).create()
    with _leaving_on_signals(), ServerLock(options.home) as lock, _bind(options.host, options.port) as listener:
        catalog = Catalog.open(options.home, options.catalog)
        try:
            _serve(options, lock, listener, Models(catalog))
        finally:
            catalog.close()


def _serve(options: ServerOptions, lock: ServerLock, listener: socket.socket, models: Models) -> None:
    state = _own_state(options.host, listener)
    app = make_app(models)
    server = uvicorn.Server(_config(app))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        models.start()
        write_state(options.home, state)
        log.info("listening on %s, home %s, process %s", state.url, options.home, state.pid)
        leaver = asyncio.create_task(_leave_when_idle(options, lock, models, server))
        try:
            yield
        finally:
            leaver.cancel()

    app.router.lifespan_context = lifespan
    try:
        server.run(sockets=[listener])
    finally:
        remove_state(options.home, state)
        models.close()
        log.info("stopped")


def _config(app: FastAPI) -> uvicorn.Config:
    # httptools is asked for by name: uvicorn's own parser of last resort is several times slower
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


async def _leave_when_idle(options: ServerOptions, lock: ServerLock, models: Models, server: uvicorn.Server) -> None:
    if options.foreground:
        return
    limit = options.idle_seconds
    while True:
        await asyncio.sleep(0.1)
        empty = models.empty_seconds()
        if empty is None:
            limit = options.linger_seconds
        elif empty > limit:
            log.info("nothing is deployed any more")
            break
        if not lock.held():
            log.info("the home has been deleted")
            break
    server.should_exit = True


def _bind(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if port is None:
        with suppress(OSError):
            return socket.create_server((host, DEFAULT_PORT), family=family, backlog=2048)
    try:
        return socket.create_server((host, port or 0), family=family, backlog=2048)
    except OSError as error:
        raise ServingError(
            f"cannot listen on {host} port {port or 'any'}: {error.strerror or error}",
            hint="give another port, or none: a free one is then taken" if port else "give an address of this machine",
        ) from error


def _own_state(host: str, listener: socket.socket) -> ServerState:
    port = listener.getsockname()[1]
    reachable = WILDCARDS.get(host, host)
    url = f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{port}"
    return ServerState(os.getpid(), psutil.Process().create_time(), host, port, url, __version__)


@contextmanager
def _leaving_on_signals() -> Iterator[None]:
    """SIGTERM and SIGINT end the ``with`` in order, also when uvicorn, having stopped, raises them once more."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise _Leave

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with suppress(_Leave):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Leave(BaseException):
    """A signal asked the server to stop."""


def log_to_file(home: Path) -> None:
    """Send the log to ``logs/server.log`` of the home, two files of 5 MB at most."""
    folder = Home(home).logs
    folder.mkdir(parents=True, exist_ok=True)
    _log_to(RotatingFileHandler(folder / "server.log", maxBytes=5_000_000, backupCount=1, encoding="utf-8"))


def log_to_stderr() -> None:
    """Send the log to the terminal."""
    _log_to(logging.StreamHandler(sys.stderr))


def _log_to(handler: logging.Handler) -> None:
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
