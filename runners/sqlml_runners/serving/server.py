"""A server process: one home, one lock, one port.

    nursery → lock → socket → catalog → supervisor → workers → server.json

It stops at a signal, or in the background when nothing is left to serve, and undoes the same in reverse.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType

from sqlml.catalog import Catalog, FrozenCatalog
from sqlml.errors import ServingError
from sqlml.home import Home
from sqlml.server_settings import DEFAULT_PORT
from sqlml.version import __version__
from sqlml_runners.serving.crew import Nest
from sqlml_runners.serving.exposure import clear_line
from sqlml_runners.serving.grpc_port import check_grpc, held_port
from sqlml_runners.serving.options import ServerOptions
from sqlml_runners.serving.state import ServerLock, ServerState, process_start, read_left_behind
from sqlml_runners.serving.supervisor import Supervisor
from sqlml_runners.serving.tls import tls_context

log = logging.getLogger("sqlml.serving")

LEFT_SECONDS = 3.0
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - only where the user asks for it


def run_server(options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way; to be called in the main thread.

    ``ServingError`` where another server has the home or the port is taken.
    """
    if options.tls_cert is not None and options.tls_key is not None:
        tls_context(options.tls_cert, options.tls_key)  # before anything listens
    if options.grpc_port is not None:
        check_grpc()
    Home(options.home).create()
    with (
        closing(Nest()) as nest,
        _leaving_on_signals(),
        ServerLock(options.home) as lock,
        _bind(options, read_left_behind(options.home)) as listener,
        held_port(options.host, options.grpc_port) as grpc,
        closing(_open_catalog(options)) as catalog,
    ):
        state = replace(_own_state(options, listener), grpc=grpc or "")
        if (line := clear_line(options)) is not None:
            log.log(*line)
        with catalog.claim_serving(f"process {state.pid} on {socket.gethostname()} at {state.url}") as claim:
            asyncio.run(Supervisor(options, lock, catalog, claim).run(nest, listener, state))


def _open_catalog(options: ServerOptions) -> Catalog | FrozenCatalog:
    if options.frozen is not None:
        return FrozenCatalog(options.frozen, options.arm)
    return Catalog.open(options.home, options.catalog)


def _bind(options: ServerOptions, left: ServerState | None) -> socket.socket:
    """The listening socket.  A port that a server of this home has left by ``kill -9`` is worth a moment: its workers go."""
    host, port = options.host, options.port
    first = DEFAULT_PORT if port is None else port
    patience = time.monotonic() + (LEFT_SECONDS if left is not None and left.port == first else 0)
    while True:
        try:
            return _listen(host, first)
        except OSError as error:
            if time.monotonic() < patience:
                time.sleep(0.05)
            elif port is None:
                break
            else:
                raise _cannot_listen(host, port, error) from error
    try:
        return _listen(host, 0)
    except OSError as error:
        raise _cannot_listen(host, None, error) from error


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    listener.setblocking(False)
    return listener


def _cannot_listen(host: str, port: int | None, error: OSError) -> ServingError:
    return ServingError(
        f"cannot listen on {host} port {port or 'any'}: {error.strerror or error}",
        hint="give another port, or none: a free one is then taken" if port else "give an address of this machine",
    )


def _own_state(options: ServerOptions, listener: socket.socket) -> ServerState:
    host, scheme = options.host, "http" if options.tls_cert is None else "https"
    port = listener.getsockname()[1]
    reachable = WILDCARDS.get(host, host)
    url = f"{scheme}://{f'[{reachable}]' if ':' in reachable else reachable}:{port}"
    return ServerState(os.getpid(), process_start(os.getpid()), host, port, url, __version__)


@contextmanager
def _leaving_on_signals() -> Iterator[None]:
    """SIGTERM and SIGINT end the ``with`` in order, until the supervisor takes them."""

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
