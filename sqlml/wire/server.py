"""The server: a port, its clients, their limits, and the way to the end.

socket → Front → Connection (PostgreSQL's protocol) → Backend → the sqlml session; all of one database, which this process owns
               → HttpConnection (POST /sql; guests)  → Desk    ↗
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlml_dialect import quote_string

from sqlml.catalog.database import absolute_url
from sqlml.errors import Error, OperationalError
from sqlml.guest.owner import Owner, remove_owner, write_owner
from sqlml.home import short_name, without_password
from sqlml.session import Session
from sqlml.statements.own_database import MEMORY
from sqlml.wire.backend import Backend
from sqlml.wire.catalog import SystemCatalog
from sqlml.wire.connection import Connection
from sqlml.wire.errors import TOO_MANY, Refused
from sqlml.wire.front import Front
from sqlml.wire.http.connection import HttpConnection
from sqlml.wire.known_tables import KnownTables
from sqlml.wire.rewrite import Rewriter
from sqlml.wire.runner import Runner
from sqlml.wire.settings import Settings
from sqlml.wire.threads import Threads
from sqlml.wire.tidy import give_back, settle_in
from sqlml.wire.users import Users

log = logging.getLogger("sqlml.wire")

DEFAULT_PORT = 5433
MAX_CONNECTIONS = 250
OPENING = 4
"""So many clients are let in at once; the others wait, as each keeps a processor busy."""
TIDY_SECONDS = 5.0
"""How long after a client has left memory is given back, once for all that left meanwhile."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class WireOptions:
    """How to serve a database."""

    database: str
    catalog: str | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    users: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    max_connections: int = MAX_CONNECTIONS

    def check(self) -> None:
        """``OperationalError`` for what cannot be shared, and for what would let everybody in."""
        if self.database == MEMORY:
            raise OperationalError(
                "a database in memory cannot be served: each client would have its own",
                hint="give a file: sqlml serve bank.duckdb",
            )
        if self.host not in LOOPBACK and self.users is None:
            raise OperationalError(
                f"{self.host} can be reached from other machines, and nobody would be asked for a password",
                hint="give --users FILE (sqlml passwd FILE NAME makes one), or listen on 127.0.0.1",
            )
        if (self.certificate is None) != (self.key is None):
            raise OperationalError("TLS needs both a certificate and its key", hint="--tls-cert FILE --tls-key FILE")


class WireServer:
    """PostgreSQL's protocol over one database.  ``start``, then ``stop``; both on one event loop."""

    def __init__(self, options: WireOptions) -> None:
        options.check()
        self.options = options
        self.name = short_name(options.database)
        self.users = Users(options.users) if options.users is not None else None
        self.tls = _tls(options)
        self.tls_required = options.host not in LOOPBACK
        self.pool = Threads(options.max_connections + 4, "sqlml-wire")
        self.opening = asyncio.Semaphore(OPENING)
        self._root = Session(options.database, catalog=options.catalog)  # what is shared lasts as long as this one
        self._known = KnownTables(self._root.another)
        try:
            self._system = SystemCatalog(self._root, self.name)
        except BaseException:
            self._root.close()
            raise
        self._rewriter = Rewriter(self._system.rewrite, self._system.has_public)
        self._clients: dict[int, Connection] = {}
        self._every: set[Connection | HttpConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._inside: set[HttpConnection] = set()
        self._front = Front(self._welcome, self.tls)
        self._next = 1000
        self._tidying: asyncio.TimerHandle | None = None
        self.owner: Owner | None = None
        """The notice that other processes find."""

    @property
    def port(self) -> int:
        return self._front.port

    @property
    def database(self) -> Path:
        return Path(self.options.database)

    async def start(self) -> None:
        """Listen.  ``OperationalError`` where the port is taken."""
        options = self.options
        try:
            self._front.start(options.host, options.port)
        except OSError as error:
            raise OperationalError(
                f"cannot listen on {options.host} port {options.port}: {error.strerror or error}",
                hint="give another one: --port N",
            ) from None
        settle_in()
        self._root.keep_schedules()
        log.info("PostgreSQL clients: psql -h %s -p %s %s", options.host, self.port, self.name)
        log.info("SQL over HTTP: POST %s://%s:%s/sql", "https" if self.tls else "http", options.host, self.port)
        try:
            self._leave_notice()
        except OSError as error:
            log.warning("sqlml %s in another process cannot come in here: no notice could be left: %s", options.database, error)

    def _leave_notice(self) -> None:
        """Tell other processes of this user, which find the file taken, that they may come in here."""
        options = self.options
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(options.host, options.host)  # noqa: S104
        self.owner = Owner(
            os.getpid(), host, self.port, secrets.token_urlsafe(32), os.path.realpath(options.database),
            None if options.catalog is None else without_password(absolute_url(options.catalog)), os.getcwd(),
            _fingerprint(options.certificate) if self.tls_required and options.certificate else "",
        )  # fmt: skip
        write_owner(self.owner)
        log.info("sqlml %s in another process goes through this one", options.database)

    async def stop(self) -> None:
        """Listen no more, stop what runs, let everybody go."""
        if self._tidying is not None:
            self._tidying.cancel()
        if self.owner is not None:
            remove_owner(self.owner)
        self._front.close()
        await asyncio.gather(*(client.stop() for client in list(self._every)), return_exceptions=True)
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=30)
        self.close()

    def close(self) -> None:
        """Close the database."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        self._known.close()
        self._checkpoint()
        self._root.close()

    def _checkpoint(self) -> None:
        """Write what was committed into the file itself.  Closing does so too, but only where nobody else in this process has it
        open any more, a refresh of an endpoint for example; transactions that are open are of no use to anybody now.
        """
        if not self.database.with_name(f"{self.database.name}.wal").exists():
            return
        for statement in ("CHECKPOINT", "FORCE CHECKPOINT"):
            try:
                self._root.execute(statement)
            except Error as error:
                log.info("%s: %s", statement, error.message)
            else:
                return
        log.warning("what was written last stays in %s.wal, from which the next one who opens the file takes it", self.database)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes) -> None:
        kind = HttpConnection if first[:1].isalpha() else Connection
        connection = kind(self, reader, writer, first)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._every.add(connection)
        try:
            await connection.serve()
        finally:
            self._every.discard(connection)
            self._tasks.discard(task)
            if self._tidying is None:
                self._tidying = asyncio.get_running_loop().call_later(TIDY_SECONDS, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        with suppress(RuntimeError):  # the server has ended
            self.pool.submit(self._clean_up)

    def _clean_up(self) -> None:
        self._root.recover()
        give_back()

    # --- for connections --------------------------------------------------------------------------------------------------------

    def admit(self, connection: Connection, database: str, *, given: bool) -> None:
        """Give it a number and a secret.  ``Refused`` where there is no room, or no such database."""
        if given and database.lower() not in (self.name.lower(), "postgres", "sqlml"):
            raise Refused(f'database "{database}" does not exist', "3D000", fatal=True, hint=f"this server has one: {self.name}")
        self._check_room()
        self._next += 1
        connection.process, connection.secret = self._next, secrets.randbits(32)
        self._clients[connection.process] = connection

    def enter(self, connection: HttpConnection) -> None:
        """Count it among the clients.  ``Refused`` where there is no room."""
        self._check_room()
        self._inside.add(connection)

    def _check_room(self) -> None:
        if len(self._clients) + len(self._inside) >= self.options.max_connections:
            raise Refused("sorry, too many clients already", TOO_MANY, fatal=True)

    def forget(self, connection: Connection | HttpConnection) -> None:
        """It is over."""
        if isinstance(connection, Connection):
            self._clients.pop(connection.process, None)
        else:
            self._inside.discard(connection)

    def cancel(self, process: int, secret: int) -> None:
        """A request to cancel; a wrong secret is nothing, as in PostgreSQL."""
        client = self._clients.get(process)
        if client is not None and secrets.compare_digest(str(client.secret), str(secret)) and client.backend is not None:
            client.cancel("canceling statement due to user request")

    def open_session(self, schema: str | None) -> Session:
        """A session for a client, in a thread of the pool."""
        if schema in (None, self._root.schema):
            return self._root.another()
        session = Session(self.options.database, catalog=self.options.catalog, schema=schema, keeps_schedules=False)
        session.keep_settings()
        return session

    def open_backend(self, parameters: dict[str, str], encrypted: bool, tell: Callable[[bytes], None]) -> Backend:
        """A session for a client that was let in, in a thread of the pool."""
        session = self.open_session(None)
        try:
            _, result = session.execute("SELECT current_setting('TimeZone')")
            [zone] = [value for batch in result.batches or () for value in batch.column(0).to_pylist()]
            settings = Settings(
                parameters["user"], timezone=zone, ssl=self.tls is not None, max_connections=self.options.max_connections
            )
            session.execute(f"SET VARIABLE __pg_user = {quote_string(parameters['user'])}")
            backend = Backend(Runner(session, self._known), settings, self._rewriter, tell)
            backend.start_with(parameters)
        except BaseException:
            session.close()
            raise
        return backend


def _tls(options: WireOptions) -> ssl.SSLContext | None:
    if options.certificate is None or options.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["postgresql", "http/1.1"])
    try:
        context.load_cert_chain(options.certificate, options.key)
    except (OSError, ssl.SSLError) as error:
        raise OperationalError(
            f"the certificate {options.certificate} and its key {options.key} cannot be used: {error}", hint="both as PEM"
        ) from None
    return context


def _fingerprint(certificate: Path) -> str:
    """The SHA-256 of the first certificate of a file."""
    text = certificate.read_text(encoding="utf-8")
    _, begin, rest = text.partition("-----BEGIN CERTIFICATE-----")
    body, end, _ = rest.partition("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(f"{begin}{body}{end}\n")).hexdigest()


async def serve_until(server: WireServer, stopped: asyncio.Event) -> None:
    """Serve until the event is set."""
    await server.start()
    try:
        await stopped.wait()
    finally:
        with suppress(Error):
            await server.stop()
