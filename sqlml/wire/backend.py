"""One session of one client: its messages in, bytes out.  Nothing here knows of sockets.

    messages → prepared statements and portals → Runner (the sqlml session) → Arrow batches → DataRow messages

It runs in a worker thread, which pulls the bytes; a client that reads slowly holds up nobody but itself.  ``cancel`` may be
called from any thread.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from sqlml_dialect.tokens import Piece, split_statements

from sqlml.errors import Cancelled, Error
from sqlml.registry import missing_extra
from sqlml.statements.door import find_door
from sqlml.wire import messages as m
from sqlml.wire.commands import Commands
from sqlml.wire.copying import CopyIn
from sqlml.wire.errors import Refused, error_fields
from sqlml.wire.parameters import count_parameters, with_oid_casts
from sqlml.wire.portals import Outcome, Portal, Prepared, column_formats
from sqlml.wire.progress import Progress
from sqlml.wire.rewrite import Rewriter, serial_sequences
from sqlml.wire.rows import row_messages
from sqlml.wire.runner import Runner, one_statement
from sqlml.wire.settings import REPORTED, Settings
from sqlml.wire.tags import is_own, verb_of
from sqlml.wire.transaction import Transaction
from sqlml.wire.types import format_code
from sqlml.wire.values import read_value

Message = tuple[bytes, bytes]
"""A message's kind and body."""

_EXTENDED = frozenset(b"PBDEC")


class Backend:
    """What a PostgreSQL server keeps for a connection.  ``tell`` sends bytes at once, while a statement still runs."""

    def __init__(self, runner: Runner, settings: Settings, rewriter: Rewriter, tell: Callable[[bytes], None]) -> None:
        self.runner = runner
        self.settings = settings
        self.rewriter = rewriter
        self.transaction = Transaction(runner.session)
        runner.sees_more = lambda: self.transaction.wrote
        self.prepared: dict[str, Prepared] = {}
        self.portals: dict[str, Portal] = {}
        self.copying: CopyIn | None = None
        self.on_statement: Callable[[float], None] = lambda seconds: None
        """Called when a statement begins, with the seconds that it may take; 0: any time."""
        self._commands = Commands(self)
        self._tell = tell
        self._skipping = False  # after an error, until Sync
        self._in_query = False  # COPY FROM STDIN of a simple query
        self._reported = {name: settings.get(name) for name in REPORTED}
        self._guard = threading.Lock()
        self._busy = False
        self._statement = 0  # counts them
        self._own = False
        self._cancelled: str | None = None
        progress = Progress(self.notice)
        runner.session.on_event = progress

    # --- from other threads ---------------------------------------------------------------------------------------------

    def cancel(self, reason: str, statement: int | None = None) -> int | None:
        """Stop the statement that runs, if one does, or only if it is that one; its number, None where there is none."""
        with self._guard:
            if not self._busy or statement not in (None, self._statement):
                return None
            self._cancelled = reason
            self.runner.session.interrupt()
            return self._statement

    def check_cancelled(self) -> None:
        """``Cancelled`` where the statement was cancelled: for work of the session's own thread."""
        if self._cancelled is not None:
            raise Cancelled(self._cancelled)

    @property
    def trains(self) -> bool:
        """Whether a statement of ours runs, which may go on when its client has gone."""
        return self._own

    # --- messages ---------------------------------------------------------------------------------------------------------

    def start_with(self, parameters: Mapping[str, str]) -> None:
        """The parameters of the start-up packet; ``options`` has more of them: ``-c statement_timeout=5s``."""
        given = {name: value for name, value in parameters.items() if name not in ("user", "database", "options", "replication")}
        options = parameters.get("options", "")
        for match in re.finditer(r"(?:-c\s*|--)([\w.-]+)=((?:\\.|[^\s\\])*)", options):
            given[match[1].replace("-", "_")] = re.sub(r"\\(.)", r"\1", match[2])
        for name, value in given.items():
            if not name.startswith("_pq_."):
                self._commands.start_with(name, value)
        self._reported = {name: self.settings.get(name) for name in REPORTED}

    def greeting(self) -> Iterator[bytes]:
        """What a client is told once it is in, but for its key."""
        for name in REPORTED:
            yield m.parameter_status(name, self.settings.get(name))

    def receive(self, received: Sequence[Message]) -> Iterator[bytes | memoryview]:
        """Answer messages, in their order."""
        with self._guard:
            self._busy, self._cancelled = True, None
        try:
            for index, (kind, body) in enumerate(received):
                following = received[index + 1][0] if index + 1 < len(received) else b""
                yield from self._receive(kind, body, following)
        finally:
            with self._guard:
                self._busy = False
                self._statement += 1

    def _receive(self, kind: bytes, body: bytes, following: bytes) -> Iterator[bytes | memoryview]:
        if self.copying is not None:
            yield from self._receive_copy(kind, body)
            return
        if kind == b"S":
            yield from self._sync()
            return
        if self._skipping:
            return
        try:
            handler = self._HANDLERS.get(kind)
            if handler is None:
                if kind in (b"d", b"c", b"f", b"H"):  # of a COPY that has failed; Flush: all is sent anyway
                    return
                raise Refused(f"invalid frontend message type {kind[0]}", "08P01", fatal=True)
            yield from handler(self, body, following)
        except Exception as error:
            yield from self._failed(error)
            self._skipping = kind[0] in _EXTENDED
            if isinstance(error, Refused) and error.fatal:
                raise

    def _failed(self, error: Exception, offset: int | None = 0) -> Iterator[bytes]:
        """The error as the client gets it; an open transaction has failed."""
        self.copying = None
        self.transaction.fail()
        if isinstance(error, ModuleNotFoundError):
            error = missing_extra(error)
        if isinstance(error, Cancelled) and self._cancelled is not None:
            error = Cancelled(self._cancelled)
        yield m.error_response(error_fields(error, getattr(error, "wire_offset", offset)))

    def _changes(self) -> Iterator[bytes]:
        """ParameterStatus for what has changed."""
        for name in REPORTED:
            value = self.settings.get(name)
            if self._reported[name] != value:
                self._reported[name] = value
                yield m.parameter_status(name, value)

    def notice(self, text: str, severity: str = "NOTICE", sqlstate: str = "00000") -> None:
        """Tell the client something beside its results, at once."""
        if self.settings.get("client_min_messages").lower() not in ("error", "warning") or severity != "NOTICE":
            self._tell(m.notice_response(text, severity=severity, sqlstate=sqlstate))

    # --- simple queries ---------------------------------------------------------------------------------------------------

    def _query(self, body: bytes, following: bytes) -> Iterator[bytes | memoryview]:
        try:
            yield from self._run_query(m.Body(body).text())
        except Exception as error:
            yield from self._failed(error)
            self.transaction.end_implicit(failed=True)
        if self.copying is not None:
            self._in_query = True
            return
        yield from self._changes()
        yield m.ready(self.transaction.status)

    def _run_query(self, text: str) -> Iterator[bytes | memoryview]:
        self._drop_portal("")
        pieces = split_statements(text)
        if not pieces:
            yield m.EMPTY_QUERY
        for number, piece in enumerate(pieces):
            if len(pieces) > 1:
                self.transaction.begin_implicit()
            yield from self._run_piece(text, piece)
            if self.copying is not None:
                if number + 1 < len(pieces):
                    raise Refused("COPY FROM STDIN must be the last statement of a query", "0A000")
                return
        self.transaction.end_implicit(failed=False)

    def _run_piece(self, text: str, piece: Piece) -> Iterator[bytes | memoryview]:
        statement = text[piece.start : piece.end]
        self._begin_time()
        try:
            portal = Portal(Prepared(statement, verb_of(statement)))
            outcome = self.start(portal)
            if outcome is None:  # COPY FROM STDIN
                assert self.copying is not None
                yield self.copying.response()
                return
            portal.begin(outcome)
            self.portals[""] = portal
            if portal.fields is not None:
                yield m.row_description(portal.fields, (0,) * len(portal.fields))
            yield from self._rows(portal, 0)
            self._drop_portal("")
        except Error as error:
            if getattr(error, "wire_offset", 0) is not None:
                error.wire_offset = piece.start  # type: ignore[attr-defined]
            raise

    def _rows(self, portal: Portal, limit: int, *, tag: bool = True) -> Iterator[bytes | memoryview]:
        """Rows, then CommandComplete, or PortalSuspended where more are left."""
        count = 0
        if portal.outcome is not None and portal.outcome.raw is not None:
            yield from portal.outcome.raw
        if portal.fields is not None:
            formats = column_formats(portal.formats, len(portal.fields))
            binary = [format_code(code) for code in formats]
            for batch in portal.fetch(limit):
                count += batch.num_rows
                yield from row_messages(batch, portal.types, binary)
            if limit and count == limit and not portal.is_over():
                yield m.PORTAL_SUSPENDED
                return
        if tag and portal.outcome is not None:
            yield m.command_complete(portal.outcome.tag(count))

    def _begin_time(self) -> None:
        with self._guard:
            self._statement += 1
        self.on_statement(self.settings.milliseconds("statement_timeout") / 1000)

    # --- running ------------------------------------------------------------------------------------------------------------

    def start(self, portal: Portal, described: bool = False) -> Outcome | None:
        """Begin a statement; None where it waits for the client's COPY data."""
        statement = portal.prepared
        self.transaction.check(statement.verb)
        outcome = self._commands.run(portal)
        if outcome is not None or self.copying is not None:
            return outcome
        return self.run_sql(statement.text, statement.verb, portal.values, statement.fields if statement.described else None)

    def run_sql(self, text: str, verb: str, values: Sequence[Any] = (), described: tuple[m.Field, ...] | None = None) -> Outcome:
        """Run a statement of the database, or one of ours, in the transaction that is open."""
        self.settle()
        sql = self.rewriter.rewrite(text, self.settings)
        self.transaction.enter(sql, verb, self.notice)
        for sequence in serial_sequences(text) if verb == "CREATE" else ():
            self.runner.session.execute(f"CREATE SEQUENCE IF NOT EXISTS {sequence}")
        self._own = is_own(sql)
        owned = self.runner.owned_sequences(text) if verb == "DROP" else ()
        try:
            found = self.runner.run(sql, values[: count_parameters(sql)], described)
        except Error as error:
            if sql != text:
                self.rewriter.restore(error, text)
            raise
        for sequence in owned:
            self.runner.session.execute(f"DROP SEQUENCE IF EXISTS {sequence}")
        footer = self.runner.session.footer
        if footer:
            self.notice(footer, "INFO")
        return found

    # --- the extended protocol ------------------------------------------------------------------------------------------------

    def _parse(self, body: bytes, following: bytes) -> Iterator[bytes]:
        given = m.read_parse(body)
        if given.name and given.name in self.prepared:
            raise Refused(f'prepared statement "{given.name}" already exists', "42P05")
        verb = verb_of(given.query)
        self.transaction.check(verb)
        if verb:
            one_statement(given.query)
        oids = given.oids
        if count_parameters(given.query) or oids:
            self.settle()
            oids = self.runner.infer(self.rewriter.rewrite(given.query, self.settings), with_oid_casts(given.query, given.oids))
        self.prepared[given.name] = Prepared(given.query, verb, oids)
        yield m.PARSE_COMPLETE

    def settle(self) -> None:
        """Put aside what still streams: the session is needed."""
        for portal in self.portals.values():
            portal.settle()

    def statement(self, name: str) -> Prepared:
        """A prepared statement.  ``Refused`` where there is none."""
        found = self.prepared.get(name)
        if found is None:
            shown = f'prepared statement "{name}" does not exist' if name else "unnamed prepared statement does not exist"
            raise Refused(shown, "26000")
        return found

    def portal(self, name: str) -> Portal:
        """An open portal.  ``Refused`` where there is none."""
        found = self.portals.get(name)
        if found is None:
            raise Refused(f'portal "{name}" does not exist', "34000")
        return found

    def _bind(self, body: bytes, following: bytes) -> Iterator[bytes]:
        given = m.read_bind(body)
        statement = self.statement(given.statement)
        self.transaction.check(statement.verb)
        if given.portal and given.portal in self.portals:
            raise Refused(f'portal "{given.portal}" already exists', "42P03")
        if len(given.values) != len(statement.oids):
            raise Refused(
                f'bind message supplies {len(given.values)} parameters, but prepared statement "{given.statement}" requires '
                f"{len(statement.oids)}", "08P01",
            )  # fmt: skip
        if len(given.formats) > 1 and len(given.formats) != len(given.values):
            raise Refused("bind message has another number of formats than of parameters", "08P01")
        formats = column_formats(given.formats, len(given.values))
        values = tuple(
            read_value(value, oid, binary=format_code(form))
            for value, oid, form in zip(given.values, statement.oids, formats, strict=True)
        )
        for code in given.result_formats:
            format_code(code)
        self._drop_portal(given.portal)
        self.portals[given.portal] = Portal(statement, values, given.result_formats)
        yield m.BIND_COMPLETE

    def _describe(self, body: bytes, following: bytes) -> Iterator[bytes | memoryview]:
        kind, name = m.read_target(body)
        if kind == "S":
            statement = self.statement(name)
            yield m.parameter_description(statement.oids)
            self._describe_statement(statement)
            yield self._description(statement.fields, ())
            return
        portal = self.portal(name)
        if portal.fields is None and portal.outcome is None:
            if following == b"E" and not portal.prepared.described and self._is_own(portal.prepared):
                yield from self._begin(name, portal)  # it is about to run: then its columns are known
                return
            self._describe_statement(portal.prepared)
            portal.fields = portal.prepared.fields
        yield self._description(portal.fields, portal.formats)

    def _is_own(self, statement: Prepared) -> bool:
        found = one_statement(statement.text) if statement.verb else None
        return found is not None and (found.node is not None or find_door(statement.text, (0, len(statement.text))) is not None)

    def _describe_statement(self, statement: Prepared) -> None:
        if statement.described:
            return
        own = self._commands.describe(statement)
        if own is not NotImplemented:
            statement.fields = own
        elif statement.verb:
            self.settle()
            sql = self.rewriter.rewrite(statement.text, self.settings)
            try:
                statement.fields = self.runner.describe(sql, statement.oids)
            except Error as error:
                if sql != statement.text:
                    self.rewriter.restore(error, statement.text)
                raise
        statement.described = True

    def _description(self, fields: tuple[m.Field, ...] | None, formats: Sequence[int]) -> bytes:
        if fields is None:
            return m.NO_DATA
        return m.row_description(fields, column_formats(formats, len(fields)))

    def _begin(self, name: str, portal: Portal) -> Iterator[bytes | memoryview]:
        """Run a statement whose columns nobody knows before, and describe it then."""
        outcome = self.start(portal)
        assert outcome is not None
        portal.begin(outcome)
        yield self._description(portal.fields, portal.formats)

    def _execute(self, body: bytes, following: bytes) -> Iterator[bytes | memoryview]:
        name, limit = m.read_execute(body)
        portal = self.portal(name)
        self._begin_time()
        if not portal.prepared.verb:
            yield m.EMPTY_QUERY
            return
        if portal.outcome is None:
            if following != b"S":  # what is sent before the next Sync is one transaction
                self.transaction.begin_implicit()
            outcome = self.start(portal)
            if outcome is None:
                assert self.copying is not None
                self._in_query = False
                yield self.copying.response()
                return
            if portal.fields is not None and outcome.fields is not None:
                outcome = Outcome(portal.fields, outcome.batches, outcome.tag)
            portal.begin(outcome)
        yield from self._rows(portal, max(limit, 0))

    def _close(self, body: bytes, following: bytes) -> Iterator[bytes]:
        kind, name = m.read_target(body)
        if kind == "S":
            self.prepared.pop(name, None)
        else:
            self._drop_portal(name)
        yield m.CLOSE_COMPLETE

    def _sync(self) -> Iterator[bytes]:
        failed, self._skipping = self._skipping, False
        try:
            self.transaction.end_implicit(failed=failed)
        except Exception as error:
            yield from self._failed(error)
        if self.transaction.status == "I":
            self.drop_portals()
        yield from self._changes()
        yield m.ready(self.transaction.status)

    def _drop_portal(self, name: str) -> None:
        found = self.portals.pop(name, None)
        if found is not None:
            found.close()

    def drop_portals(self, *, all_of_them: bool = False) -> None:
        """A transaction is over: its portals go, but those WITH HOLD."""
        for name in [name for name, portal in self.portals.items() if all_of_them or not portal.holdable]:
            self._drop_portal(name)

    # --- COPY FROM STDIN ------------------------------------------------------------------------------------------------------

    def _receive_copy(self, kind: bytes, body: bytes) -> Iterator[bytes]:
        copying = self.copying
        assert copying is not None
        if kind in (b"S", b"H"):
            return
        try:
            if kind == b"d":
                copying.feed(body)
                return
            if kind == b"f":
                raise Refused(f"COPY from stdin failed: {m.Body(body).text()}", "57014")
            if kind != b"c":
                raise Refused(f"unexpected message type 0x{kind.hex()} during COPY from stdin", "08P01")
            rows = copying.finish(self)
            self.copying = None
            if self._in_query:
                self.transaction.end_implicit(failed=False)
            yield m.command_complete(f"COPY {rows}")
        except Exception as error:
            copying.close()
            yield from self._failed(error)
            if self._in_query:
                self.transaction.end_implicit(failed=True)
            else:
                self._skipping = True
        if self._in_query:
            yield m.ready(self.transaction.status)

    def _bye(self, body: bytes, following: bytes) -> Iterator[bytes]:
        yield from ()
        raise Goodbye

    def close(self) -> None:
        """Let go of everything; an open transaction is rolled back."""
        if self.copying is not None:
            self.copying.close()
        self.drop_portals(all_of_them=True)
        self.runner.session.close()

    _HANDLERS: ClassVar[dict[bytes, Callable[[Backend, bytes, bytes], Iterator[bytes | memoryview]]]] = {
        b"Q": _query, b"P": _parse, b"B": _bind, b"D": _describe, b"E": _execute, b"C": _close, b"X": _bye,
    }  # fmt: skip


class Goodbye(BaseException):
    """The client leaves."""
