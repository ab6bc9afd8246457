"""``sqlml serve``: PostgreSQL's protocol in this process, the HTTP endpoints in a child; one log, one end.

database → WireServer → HTTP server → both until a signal, or until one of them ends
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from sqlml.errors import Error
from sqlml.home import CATALOG_VARIABLE, catalog_url, home_of
from sqlml.wire.server import WireOptions, WireServer

log = logging.getLogger("sqlml.wire")

HTTP_MODULE = "sqlml_runners.serving"
STOP_SECONDS = 15.0


def run_serve(options: WireOptions, http: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.  ``http``: arguments of the endpoints' server."""
    _log_to_stderr()
    try:
        server = WireServer(options)
    except Error as error:
        log.error("%s", error)
        return 1
    return asyncio.run(_serve(server, http))


async def _serve(server: WireServer, http: Sequence[str]) -> int:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        await server.start()
    except Error as error:
        log.error("%s", error)
        server.close()
        return 1
    child = _start_http(server.options, http)
    status = 0
    try:
        status = await _until(stopped, child)
    finally:
        ended = await asyncio.gather(server.stop(), loop.run_in_executor(None, _end, child), return_exceptions=True)
        for problem in ended:
            if isinstance(problem, BaseException):
                log.error("while ending: %s", problem)
    log.info("ended")
    return status


async def _until(stopped: asyncio.Event, child: subprocess.Popen[bytes]) -> int:
    """Wait for a signal, or for the child's end, which is everybody's."""
    while not stopped.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), 0.2)
        status = child.poll()
        if status is not None and not stopped.is_set():
            log.log(logging.ERROR if status else logging.INFO, "the server of the HTTP endpoints has ended (status %d)", status)
            return 1 if status else 0
    return 0


def _start_http(options: WireOptions, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    home = home_of(options.database, options.catalog)
    environment = dict(os.environ)
    url = catalog_url(options.database, options.catalog)
    if url is not None:
        environment[CATALOG_VARIABLE] = url
    command = [
        sys.executable,
        "-m",
        "sqlml.wire.tethered",
        str(os.getpid()),
        HTTP_MODULE,
        "--home",
        str(home),
        "--foreground",
        *arguments,
    ]
    # a session of its own: Ctrl-C is for this process, which ends the other
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
