"""The session: text in, results out.

    text → statements → one authorisation point → the function for its kind → a result

It alone holds everything; each statement is given only what it needs.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sqlml_dialect import (
    AlterEndpoint,
    DeployQuery,
    Node,
    RollbackEndpoint,
    Span,
    Statement,
)
from sqlml_dialect.table_functions import TABLE_FUNCTIONS

from sqlml.binder.feedback import FeedbackInsert, find_feedback
from sqlml.binder.parameters import Parameters, foreign_parameters
from sqlml.binder.remote_tables import is_query
from sqlml.catalog import Catalog
from sqlml.catalog.database import absolute_url
from sqlml.catalog.rows import user
from sqlml.contracts import EndpointServer, Event, JobHandle, OnEvent
from sqlml.errors import BindError, Cancelled, EngineError, NotSupportedError, ProgrammingError, not_yet
from sqlml.home import IN_DATABASE
from sqlml.registry import SERVER, get, load, missing_extra
from sqlml.statements.answer_columns import statement_columns
from sqlml.statements.areas import Areas
from sqlml.statements.changes import CHANGES
from sqlml.statements.door import door_error, find_door
from sqlml.statements.door_run import DoorRuns
from sqlml.statements.named_connections import known_connections, open_connection
from sqlml.statements.own_database import MEMORY, Place, calls_functions, catalog_in, check_catalog, open_database, place_of
from sqlml.statements.places import Places, changes_hint
from sqlml.statements.queries import Queries
from sqlml.statements.refresh_schedule import RefreshSchedule
from sqlml.statements.refusals import check_schema, check_statement, in_memory, in_transaction
from sqlml.statements.relations import relations
from sqlml.statements.result import Result, stream_result
from sqlml.statements.schema import install_schema
from sqlml.statements.texts import first_word, parse_text, statement_name
from sqlml.types import Column

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.statements.log_relations import FileRelation
    from sqlml.statements.relations import Relation


class Session:
    """One connection's work.  Not safe for use from several threads at once, except ``interrupt``."""

    through: str | None = None
    is_lost = False
    place: Place
    schema: str
    _catalog: Catalog
    _server: EndpointServer
    _relations: Mapping[str, Relation | FileRelation]
    _queries: Queries
    _schedule: RefreshSchedule | None

    def __init__(
        self,
        database: str,
        *,
        catalog: str | None = None,
        schema: str | None = None,
        on_event: OnEvent | None = None,
        keeps_schedules: bool = True,
        beside: Session | None = None,
    ) -> None:
        """``keeps_schedules``: as long as it is open, it refreshes the endpoints that are to be refreshed now and then.

        ``beside``: see ``another``.
        """
        self.on_event = on_event
        self.notices: list[str] = []
        self.footer: str | None = None
        self._job: JobHandle | None = None
        self._watch: OnEvent | None = None
        self._interrupted = threading.Event()
        self._closed = False
        self._changed = False  # tables, since the transaction began that is open
        self.process = os.getpid()
        self._database = database
        self._beside = beside
        check_catalog(database, catalog)
        catalog = catalog if catalog in (None, IN_DATABASE) else absolute_url(catalog)  # before anything is made
        is_memory = database == MEMORY
        self._temporary = tempfile.mkdtemp(prefix="sqlml-") if is_memory else None
        self.place = place_of(database, catalog, self._temporary) if beside is None else beside.place
        try:
            self._open(database, catalog, schema)
        except BaseException as error:
            self._remove_temporary()
            if isinstance(error, ModuleNotFoundError):
                raise missing_extra(error) from None
            raise
        _sessions.add(self)
        again = partial(_run_once, database, catalog, schema)
        if beside is not None:
            self._schedule = beside._schedule
            return
        self._schedule = RefreshSchedule(self._catalog, again) if keeps_schedules and not is_memory else None
        if self._schedule is not None:
            weakref.finalize(self, self._schedule.close)
            self._schedule.look()

    def keep_schedules(self) -> None:
        """Refresh from now on what is due, also by schedules that others make: for whoever owns the database."""
        if self._schedule is not None:
            self._schedule.look(stays=True)

    def another(self) -> Session:
        """A session beside this one, on the same database, catalog and schema, which it shares: open in a tenth of the time.

        This one must outlive it.  Of the database it has connections of its own: settings, transactions and temporary tables are
        each session's alone.
        """
        return Session(self._database, beside=self)

    def keep_settings(self) -> None:
        """From now on SET is for this session alone, also where DuckDB would set it for all that have the database open."""
        if calls_functions(self._engine):
            self._engine.keeps_settings = True

    def recover(self) -> None:
        """Clean up after processes that died, as every session does that is opened by itself."""
        self._catalog.recover()

    def _open(self, database: str, catalog: str | None, schema: str | None) -> None:
        with ExitStack() as opened:
            self._engine = open_database(database)
            opened.callback(self._engine.close)
            beside = self._beside
            if beside is not None:
                self.keep_settings()
            self._catalog = beside._catalog if beside else self._open_catalog(database, catalog)
            if beside is None:
                opened.callback(self._catalog.close)
            self._prepare(schema)
            opened.pop_all()

    def _open_catalog(self, database: str, catalog: str | None) -> Catalog:
        return Catalog.open(self.place.home, catalog_in(database, catalog, self._engine))

    def _prepare(self, schema: str | None) -> None:
        """Everything that stands on the database and the catalog."""
        known, connect = partial(known_connections, self._catalog), partial(open_connection, self._catalog)
        if schema is not None and schema.lower() in known():
            raise BindError(f"{schema} is a connection: the models' relations need another name", hint='connect(schema="…")')
        self._places = Places(self._engine, known, connect, self._notice)
        beside = self._beside
        if beside is not None:
            self._server, self._relations, self.schema = beside._server, beside._relations, beside.schema
        else:
            self._install(schema)
        target = get("target", self._engine.name)(self._engine)
        copied = {} if calls_functions(self._engine) else self._relations
        views = None if beside is None else beside._queries.views
        self._queries = Queries(self._places, self._catalog, target, self.schema, self._notice, copied, views)
        self._doors = DoorRuns(self._queries, self._run, self.answer_columns, calls_functions(self._engine))
        self._areas = Areas(
            self._queries, self._catalog, self._places, self._engine, self._server, self.schema,
            self._emit, self._follow, self._notice, self._interrupted.is_set, self._run_watched,
        )  # fmt: skip

    def _install(self, schema: str | None) -> None:
        """What all sessions on the database and the catalog may share."""
        self._catalog.recover()
        self._server = cast(EndpointServer, load(SERVER)(self.place.home, self._catalog.url))
        found = relations(self._catalog, lambda: (self._server.url(), self._server.states()), self._server.write_predictions)
        self._relations = {relation.name: relation for relation in found}
        self.schema = install_schema(self._engine, found, self._catalog.url, schema, self._notice)

    # --- statements -------------------------------------------------------------------------------------------------

    def execute(self, text: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> tuple[str, Result]:
        """Run every statement of a text; the kind and the result of the last.  Values are for a text of one statement."""
        statements = parse_text(text)
        if values and len(statements) > 1:
            raise ProgrammingError(
                f"values can be given for one statement at a time; this text has {len(statements)}",
                hint="run them one by one",
            )
        self.notices = []  # whoever has the old ones keeps them
        self._interrupted.clear()
        kind, result = "sql", Result()
        for statement in statements:
            if result.batches is not None:
                for _ in result.batches:  # run it to its end, as it would have been alone
                    continue
            kind, result = statement.kind, self._run(statement, text, values)
        self.footer = result.footer
        return kind, result

    def execute_many(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement of the database once for each row of values."""
        statements = parse_text(text)
        if len(statements) != 1:
            raise ProgrammingError(
                f"values for many rows are for one statement; this text has {len(statements)}", hint="run them one by one"
            )
        self.notices = []  # whoever has the old ones keeps them
        self._interrupted.clear()
        [statement] = statements
        authorise(user(), statement)
        if statement.node is not None:
            raise NotSupportedError(
                f"values for many rows are for the database's own statements, not for {statement_name(statement.node)}",
                source=text, span=first_word(text, statement.span), hint="run it once for each",
            )  # fmt: skip
        feedback = find_feedback(text, statement.span, self.schema)
        if feedback is not None:
            self._run_feedback(feedback, [Parameters(text, statement.span, row) for row in rows])
            return
        if not rows:
            return
        if any(call.function in TABLE_FUNCTIONS for call in self._queries.find(text, (0, len(text))).calls):
            raise NotSupportedError("a table function of ML cannot be run for many rows of values", hint="run it once for each")
        for row in rows:
            self._queries.check_labels(text, statement.span, row)
        sql = self._queries.bind(text, (0, len(text)))
        try:
            self._engine.run_many(sql.text, rows)
        finally:
            self._changed = CHANGES.note(statement.text, self._changed)

    def describe(self, text: str) -> tuple[Column, ...] | None:
        """The columns of a query, bound and not run; None for a statement of any other kind."""
        statements = parse_text(text)
        if len(statements) != 1 or statements[0].node is not None:
            return None
        [statement] = statements
        authorise(user(), statement)
        if not is_query(text, statement.span):
            return None
        door = find_door(text, statement.span)
        if door is not None:
            return self._doors.describe_door(door, text, statement.span)
        sql = self._queries.bind_there(text, statement.span) or self._queries.bind(text, statement.span)
        try:
            return self._queries.describe(sql)
        except EngineError as error:
            called = door_error(error, text, statement.span)
            if called is error:
                self._hint(error, text, statement.span)
            raise called from None

    def answer_columns(self, text: str) -> tuple[Column, ...] | None:
        """The columns of one statement's answer, found without carrying it out.

        () where it answers nothing, None where nobody knows them before it runs.
        """
        statements = parse_text(text)
        if len(statements) != 1:
            return None
        [statement] = statements
        if statement.node is None:
            return self.describe(text)
        authorise(user(), statement)
        return statement_columns(statement, text, self._areas, self._run_node)

    def _run(self, statement: Statement, source: str, values: Sequence[Any] | Mapping[str, Any]) -> Result:
        try:
            return self._run_statement(statement, source, values)
        except ModuleNotFoundError as error:  # of whatever this statement is the first to need
            raise missing_extra(error) from None

    def _run_statement(self, statement: Statement, source: str, values: Sequence[Any] | Mapping[str, Any]) -> Result:
        authorise(user(), statement)
        parameters = Parameters(source, statement.span, values)
        if statement.node is None:
            try:
                return self._run_query(statement.span, source, parameters)
            finally:
                self._changed = CHANGES.note(statement.text, self._changed)
        parameters = replace(parameters, foreign=foreign_parameters(statement.node))
        parameters.check()
        node = parameters.filled(statement.node)
        if self._areas.writes(node) and self._engine.transaction() is not None:
            raise in_transaction(source, statement.span)
        try:
            return self._run_node(node, parameters)
        finally:
            self._changed = CHANGES.note(before=self._changed)

    def _run_query(self, span: Span, source: str, parameters: Parameters) -> Result:
        text = source[slice(*span)]
        if self._queries.inside:
            check_schema(text, self.schema)
        if calls_functions(self._engine):
            check_statement(text, source, span, serves=self._engine.keeps_settings)
        door = find_door(source, span)
        if door is not None:
            return self._doors.run_door(door, source, span, parameters)
        feedback = find_feedback(source, span, self.schema)
        if feedback is not None:
            return self._run_feedback(feedback, [parameters])
        try:
            return stream_result(self._queries.run_bound(source, span, parameters.values))
        except EngineError as error:
            called = door_error(error, source, span)
            if called is not error:
                raise called from None
            self._hint(error, source, span)
            raise

    def _hint(self, error: EngineError, source: str, span: Span) -> None:
        """What the database cannot know of."""
        from sqlml.statements.show import our_hint

        text = source[slice(*span)]
        hint = our_hint(text, error, self._relations, self._catalog.model_names(), self.schema)
        changed = self._places.changed(text) if hint is None and not is_query(source, span) else None
        error.hint = hint or (changes_hint(changed) if changed else error.hint)

    def _run_feedback(self, feedback: FeedbackInsert, runs: Sequence[Parameters]) -> Result:
        from sqlml.statements.feedback import run_feedback

        return run_feedback(feedback, runs, self._queries, self._catalog, self._engine.transaction())

    def _run_node(self, node: Node, parameters: Parameters) -> Result:
        handler = self._areas.get(type(node))
        if handler is None:
            raise not_yet(statement_name(node), parameters.source, first_word(parameters.source, node.span))
        lasts = handler.lasts(node)
        if lasts is not None and self._temporary:
            raise in_memory(lasts, parameters.source, node.span)
        result = handler.run(node, parameters)
        if self._schedule is not None and isinstance(node, DeployQuery | AlterEndpoint | RollbackEndpoint):
            self._schedule.look()
        return result

    def _run_watched(self, node: Node, parameters: Parameters, watch: OnEvent) -> Result:
        """Run a statement as it would run alone, and let somebody see its events."""
        self._watch = watch
        try:
            return self._run_node(node, parameters)
        finally:
            self._watch = None

    # --- around them ------------------------------------------------------------------------------------------------

    @property
    def dialect(self) -> str:
        """Whose SQL the database speaks."""
        return self._engine.dialect

    def install(self, name: str, statements: Iterable[str]) -> None:
        """Make a schema of our own in the database, which nothing on disk knows of."""
        if not calls_functions(self._engine):
            raise NotSupportedError(f"a schema of our own cannot be made in {self._engine.name}")
        self._engine.attach_schema(name)
        for statement in statements:
            self._engine.define(statement)

    @contextmanager
    def lend(self, name: str, rows: pa.RecordBatchReader) -> Iterator[None]:
        """Let one statement read Arrow rows under a name as they come."""
        if not calls_functions(self._engine):
            raise NotSupportedError(f"rows cannot be lent to {self._engine.name} as they come")
        self._engine.stream(name, rows)
        try:
            yield
        finally:
            self._engine.unregister(name)

    def begin(self) -> None:
        self._engine.run("BEGIN TRANSACTION")
        self._changed = False

    def commit(self) -> None:
        if self._engine.transaction() is not None:
            self._engine.run("COMMIT")
            self._changed = CHANGES.note("COMMIT", self._changed)

    def rollback(self) -> None:
        if self._engine.transaction() is not None:
            self._engine.run("ROLLBACK")
            self._changed = CHANGES.note("ROLLBACK", self._changed)

    def interrupt(self) -> None:
        """Cancel what runs, from any thread."""
        self._interrupted.set()
        job = self._job
        if job is not None:
            job.cancel()
        self._places.interrupt()

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Tables, columns, models, endpoints and the like, for completion."""
        found = dict(self._engine.names())
        found["models"] = self._catalog.model_names()
        found["endpoints"] = tuple(e.name for e in self._catalog.endpoints())
        found["connections"] = tuple(known_connections(self._catalog).values())
        found["runners"] = tuple(runner.name for runner in self._catalog.resources("runner"))
        found["api_keys"] = tuple(key.name for key in self._catalog.api_keys())
        return found

    def close(self) -> None:
        """Close the database.  Endpoints stay; the models of an in-memory database go."""
        if self._closed:
            return
        self._closed = True
        if self._schedule is not None and self._beside is None:
            self._schedule.close()
        self._places.close()
        if self._beside is None:
            self._catalog.close()
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _follow(self, job: JobHandle | None) -> None:
        self._job = job
        if job is not None and self._interrupted.is_set():
            job.cancel()

    def _emit(self, event: Event) -> None:
        if event["event"] == "notice":
            self.notices.append(str(event["text"]))
        if self._watch is not None:
            self._watch(event)
        if self.on_event is not None:
            self.on_event(event)
        if self._interrupted.is_set() and self._job is None:
            raise Cancelled("cancelled")

    def _notice(self, text: str) -> None:
        self._emit({"event": "notice", "text": text})


def authorise(principal: str, statement: Statement) -> None:
    """The one point that every statement passes before it runs.  Whoever can open the database may do everything with it."""


def _run_once(database: str, catalog: str | None, schema: str | None, statement: str) -> None:
    """Run a statement in a session of its own."""
    session = Session(database, catalog=catalog, schema=schema, keeps_schedules=False)
    try:
        session.execute(statement)
    finally:
        session.close()


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A database left open with functions in it makes DuckDB's module complain about leaks when Python ends.
    for session in list(_sessions):
        if session.process == os.getpid():  # a process that was forked leaves the one that it came from its own
            session.close()
