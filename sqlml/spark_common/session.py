"""A Spark session, opened from the options of a runner or a connection; Spark's errors as ours.

    options → Java found → the versions fit → one session for the whole process, or a client of a Spark Connect server

Options: ``master`` (``local[2]``, ``local-cluster[2,1,1024]``, ``spark://host:7077``, ``yarn``) or ``connect``
(``sc://host:15002``); ``memory`` (bytes, or as Spark writes it: ``4g``) of the driver and of
each executor; ``config``, Spark's own settings.  What Java writes
to its standard error goes to a file (``spark_log``), not to the screen.

Who holds a session by ``acquire`` lets go of it by ``release``: one that was begun here ends with the last who held it.
``open_spark`` holds it for as long as the process lasts.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlml.errors import Error, MissingExtra, OperationalError
from sqlml.spark_common.errors import first_line, spark_error, spark_errors
from sqlml.spark_common.java import INSTALL, find_java

LOWEST, BEYOND = (4, 0), (5, 0)
"""Versions of pyspark that fit: from the first, below the second."""

_QUIET = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
_CONNECT_PORT = 15002
_REACH_SECONDS = 10.0
_ALONE = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
"""Of a master on this machine: nothing outside reaches it, and it runs without a network."""

_LOUD = ("SQLQueryContextLogger", "DataFrameQueryContextLogger", "pyspark.sql.connect.client")
"""Loggers of pyspark's that write every error, with Java's stack traces, to the screen."""

_lock = threading.Lock()
_log: list[Path] = []
_OWN = ""
_CONNECT_MODE = "SPARK_CONNECT_MODE_ENABLED"
_mode: list[str] = []
"""The variable, where it was set here."""


@dataclass
class _Held:
    """A session that was begun here, how many hold it, and whether it stays until the process ends."""

    session: Any
    holders: int = 0
    stays: bool = False


_held: dict[str, _Held] = {}
"""By the URL of a Spark Connect server; ``_OWN``: the Spark of this process."""
_kept: set[Path] = set()
"""Logs that an error has named: they outlive the process."""


def open_spark(options: Mapping[str, Any]) -> Any:
    """The Spark session of ``options``.

    A session that runs in this process already is used as it is: without ``master``, or where ``master`` is its own.  One that
    is begun here stays until the process ends, whoever else lets go of it: a runner's jobs may need it at any time.
    ``MissingExtra`` where pyspark or Java is not installed, ``OperationalError`` where they do not fit or Spark does not start.
    """
    with _lock:
        session = _opened(options)
        held = _entry(session)
        if held is not None:
            held[1].stays = True
        return session


def acquire(options: Mapping[str, Any]) -> Any:
    """As ``open_spark``, until ``release``."""
    with _lock:
        session = _opened(options)
        held = _entry(session)
        if held is not None:
            held[1].holders += 1
        return session


def release(session: Any) -> None:
    """Let go of a session of ``acquire``.

    Where it was begun here, nobody else holds it and nobody has work in it, it is stopped.
    """
    with _lock:
        key, held = _entry(session) or (_OWN, None)
        if held is None:
            return
        held.holders = max(held.holders - 1, 0)
        if not held.holders and not held.stays and not _is_busy(session):
            del _held[key]
            with spark_errors():
                held.session.stop()
            _forget_stopped()


def _opened(options: Mapping[str, Any]) -> Any:
    _check_pyspark()
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _forget_stopped()
    if options.get("connect"):
        return _open_connect(str(options["connect"]), options)
    return _running(options) or _start(options)


def _entry(session: Any) -> tuple[str, _Held] | None:
    for key, held in _held.items():
        if held.session is session:
            return key, held
        if key == _OWN and not is_connect(session) and held.session.sparkContext is session.sparkContext:
            return key, held  # another session of the same Spark
    return None


def _is_busy(session: Any) -> bool:
    return not is_connect(session) and bool(session.sparkContext.statusTracker().getActiveJobsIds())


def _forget_stopped() -> None:
    """Forget sessions that somebody has stopped.  Without a client, a Spark of this process's own may start again."""
    for key in [key for key, held in _held.items() if _is_stopped(held.session)]:
        del _held[key]
    if _mode and _held.keys() <= {_OWN}:
        os.environ.pop(_mode.pop(), None)


def _is_stopped(session: Any) -> bool:
    if is_connect(session):
        return bool(session.is_stopped)
    context = session.sparkContext
    return context._jsc is None or not _alive(context._gateway)


def is_connect(session: Any) -> bool:
    """Whether a session is a client of a Spark Connect server: without SparkContext, RDDs and ``pyspark.ml`` of Java."""
    return type(session).__module__.startswith("pyspark.sql.connect")


def spark_log() -> Path | None:
    """The file with what Spark's Java process, if we started it, has written to its standard error."""
    return _log[-1] if _log else None


def _check_pyspark() -> None:
    try:
        import pyspark
    except ModuleNotFoundError as error:
        raise MissingExtra("the Python package pyspark is not installed", hint=f"install it with: {INSTALL}") from error
    version = str(pyspark.__version__)
    if not LOWEST <= _numbers(version) < BEYOND:
        wanted = f"{LOWEST[0]}.{LOWEST[1]} ≤ pyspark < {BEYOND[0]}"
        raise OperationalError(f"pyspark {version} does not fit: sqlml works with {wanted}", hint=f"install it with: {INSTALL}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def check_spark(version: str, pyspark: str, server: str | None = None) -> None:
    """``OperationalError`` where a session's Spark, by the version that it reports, and the package pyspark do not fit.

    ``server`` is the URL of a Spark Connect server, which may be of another release of the same line; in this process both must
    be of one release.
    """
    if server is not None:
        if not LOWEST <= _numbers(version) < BEYOND:
            raise OperationalError(
                f"the Spark Connect server at {server} is Spark {version}, and pyspark {pyspark} does not speak to it",
                hint=f"sqlml works with servers from {LOWEST[0]}.{LOWEST[1]} on, below {BEYOND[0]}",
            )
    elif _numbers(version) != _numbers(pyspark):
        home = os.environ.get("SPARK_HOME")
        where = f" of SPARK_HOME ({home})" if home else ""
        raise OperationalError(
            f"the Spark{where} is {version}, and pyspark is {pyspark}: they must be of one release",
            hint=f"pip install 'pyspark=={'.'.join(map(str, _numbers(version)))}.*'"
            + (", or unset SPARK_HOME: pyspark has a Spark of its own" if home else ""),
        )


# --- a session in this process ----------------------------------------------------------------------------------------


def _running(options: Mapping[str, Any]) -> Any:
    """The session that runs here, or None.  ``OperationalError`` where it is of another master than the one asked for."""
    import pyspark
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    context = SparkContext._active_spark_context
    if context is None or context._jsc is None or not _alive(context._gateway):
        return None
    wanted = options.get("master")
    if wanted and wanted != context.master:
        raise OperationalError(
            f"a Spark session of {context.master} runs in this process, and {wanted} is asked for: there can be one only",
            hint="leave master out to use the one that runs, or end it: spark.stop(), or this process",
        )
    session = SparkSession.builder.getOrCreate()
    check_spark(str(session.version), str(pyspark.__version__))
    return session


def _check_release(session: Any) -> None:
    """Of a Spark that has just begun here: one that does not fit ends again."""
    import pyspark

    try:
        check_spark(str(session.version), str(pyspark.__version__))
    except OperationalError:
        session.stop()
        raise


def _start(options: Mapping[str, Any]) -> Any:
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    clients = [url for url in _held if url != _OWN]
    if clients:
        raise OperationalError(
            f"this process is a client of Spark Connect ({clients[0]}): it cannot have a Spark of its own as well",
            hint="use another process for one of the two",
        )
    master = str(options.get("master") or os.environ.get("MASTER") or "local[*]")
    os.environ["JAVA_HOME"] = str(find_java())
    _forget_dead()
    try:
        conf = SparkConf(loadDefaults=False)
        for name, value in _settings(master, options).items():
            conf.set(name, value)
        gateway = _launch(conf)
        SparkContext(conf=conf, gateway=gateway)
        session = SparkSession.builder.getOrCreate()
        _check_release(session)
    except Error:
        raise
    except Exception as error:
        raise _did_not_start(master, error) from None
    _held[_OWN] = _Held(session)
    return session


def _settings(master: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Spark's settings: ours, over them the user's."""
    local = master.startswith("local")
    settings = {"spark.master": master, "spark.app.name": "sqlml", **_QUIET, **(_ALONE if local else {})}
    if options.get("memory"):
        size = options["memory"]
        size = f"{size >> 20}m" if isinstance(size, int) else str(size)
        settings["spark.driver.memory"] = settings["spark.executor.memory"] = size
    if local or "PYSPARK_PYTHON" not in os.environ:
        settings["spark.pyspark.python"] = settings["spark.pyspark.driver.python"] = sys.executable
    given = {name: _plain(value) for name, value in (options.get("config") or {}).items()}
    python = given.get("spark.pyspark.python") or settings.get("spark.pyspark.python")
    if python:
        os.environ["PYSPARK_PYTHON"] = python  # the variable decides, where both are set
    return settings | given


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _launch(conf: Any) -> Any:
    """Java's process, its standard error in a file; the one that runs already where there is one."""
    from pyspark import SparkContext
    from pyspark.java_gateway import launch_gateway

    if SparkContext._gateway is not None:
        return SparkContext._gateway
    handle, name = tempfile.mkstemp(prefix="sqlml-spark-", suffix=".log")
    _log.append(Path(name))
    atexit.register(_remove_log, Path(name))
    with os.fdopen(handle, "wb") as log:
        launch: Any = launch_gateway
        return launch(conf, {"stderr": log, "stdout": log})


def _remove_log(path: Path) -> None:
    if path not in _kept:
        path.unlink(missing_ok=True)


def _forget_dead() -> None:
    """Let go of what a Java process held that has ended."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if SparkContext._gateway is not None and not _alive(SparkContext._gateway):
        SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
        SparkSession._instantiatedSession = None


def _alive(gateway: Any) -> bool:
    process = getattr(gateway, "proc", None)
    return process is None or process.poll() is None


def _did_not_start(master: str, error: BaseException) -> Error:
    """Why there is no session: what Java said last, where it ended at once."""
    log = spark_log()
    _kept.update([log] if log else [])
    said = log.read_text(encoding="utf-8", errors="replace") if log and log.exists() else ""
    reason = spark_error(error).message
    if "JAVA_GATEWAY_EXITED" in str(error):
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        telling = [line for line in lines if "rror" in line or "xception" in line] or lines
        reason = first_line(telling[-1]) if telling else "its Java process ended at once"
    hint = f"JAVA_HOME is {os.environ.get('JAVA_HOME')}"
    return OperationalError(f"Spark ({master}) did not start: {reason}", hint=f"{hint}\nits log: {log}" if log else hint)


# --- Spark Connect ----------------------------------------------------------------------------------------------------


def _open_connect(url: str, options: Mapping[str, Any]) -> Any:
    """A client of the server at ``url``; the one that there is already."""
    if url not in _held:
        _held[url] = _Held(_connect(url, options))
    return _held[url].session


def _connect(url: str, options: Mapping[str, Any]) -> Any:
    import pyspark
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:
        raise OperationalError(
            "a Spark session of its own runs in this process: it cannot be a client of Spark Connect at the same time",
            hint="end it first: spark.stop()",
        )
    try:
        from pyspark.sql.connect.session import SparkSession
    except ImportError as error:
        hint = "install it with: pip install grpcio grpcio-status googleapis-common-protos zstandard"
        raise MissingExtra(f"Spark Connect needs packages that are not installed ({first_line(str(error))})", hint=hint) from None
    _check_reachable(url)
    if _CONNECT_MODE not in os.environ:
        os.environ[_CONNECT_MODE] = "1"  # pyspark.sql.functions and the like then speak to servers
        _mode.append(_CONNECT_MODE)
    try:
        builder = SparkSession.builder.remote(url)
        for name, value in (options.get("config") or {}).items():
            builder = builder.config(name, _plain(value))
        session = builder.create()
        version = str(session.version)  # the server answers
    except Exception as error:
        found = spark_error(error)
        raise OperationalError(f"no Spark Connect server answers at {url}: {found.message}", hint=found.hint) from None
    try:
        check_spark(version, str(pyspark.__version__), url)
    except OperationalError:
        session.stop()
        raise
    return session


def _check_reachable(url: str) -> None:
    """``OperationalError`` where nothing listens: pyspark itself would try for ten minutes."""
    parts = urlsplit(url)
    if parts.scheme != "sc" or not parts.hostname:
        raise OperationalError(f"'{url}' is no address of Spark Connect", hint="write it as 'sc://host:15002'")
    try:
        socket.create_connection((parts.hostname, parts.port or _CONNECT_PORT), timeout=_REACH_SECONDS).close()
    except OSError as error:
        hint = "start one with Spark's sbin/start-connect-server.sh"
        raise OperationalError(f"no Spark Connect server answers at {url}: {error.strerror or error}", hint=hint) from None
