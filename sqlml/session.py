"""The session: text in, results out.

    text → statements → one authorisation point → the function for its kind → a result

It alone holds everything; each statement is given only what it needs.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sqlml_dialect import (
    AlterModel,
    Deploy,
    DescribeModel,
    DialectError,
    DropModel,
    Evaluate,
    ExplainModel,
    ExplainPlan,
    Node,
    Predict,
    Show,
    ShowCreateModel,
    ShowLogs,
    Span,
    Statement,
    Train,
    Undeploy,
    parse,
    statement_kind,
)

from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog
from sqlml.catalog.database import parse_url
from sqlml.catalog.rows import user
from sqlml.contracts import EndpointServer, Event, JobHandle
from sqlml.engines.duckdb import MEMORY, DuckDBEngine
from sqlml.errors import Cancelled, EngineError, NotSupportedError, ProgrammingError, not_yet, parse_error
from sqlml.home import home_of
from sqlml.registry import SERVER, TARGETS, load
from sqlml.statements.deploy import run_deploy, run_undeploy
from sqlml.statements.evaluate import run_evaluate
from sqlml.statements.explain import run_explain_model, run_explain_plan
from sqlml.statements.models import run_alter_model, run_drop_model
from sqlml.statements.predict import run_predict
from sqlml.statements.queries import Queries
from sqlml.statements.relations import relations
from sqlml.statements.result import Result, stream_result
from sqlml.statements.schema import install_schema
from sqlml.statements.show import misspelt_show, run_describe, run_show, run_show_create, run_show_logs
from sqlml.statements.train import run_train


@dataclass(frozen=True)
class Place:
    """What a connection works on: the database, the folder of its models, and whether the database was there before."""

    database: str
    home: Path
    is_new: bool


class Session:
    """One connection's work.  Not safe for use from several threads at once, except ``interrupt``."""

    def __init__(
        self,
        database: str,
        *,
        catalog: str | None = None,
        schema: str | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.on_event = on_event
        self.notices: list[str] = []
        self._job: JobHandle | None = None
        self._interrupted = threading.Event()
        self._closed = False
        is_memory = database == MEMORY
        self._temporary = tempfile.mkdtemp(prefix="sqlml-") if is_memory else None
        home = Path(self._temporary) if self._temporary else home_of(database, catalog)
        self.place = Place(database, home, is_memory or not Path(database).exists())
        try:
            self._open(catalog, schema)
        except BaseException:
            self._remove_temporary()
            raise
        _sessions.add(self)

    def _open(self, catalog: str | None, schema: str | None) -> None:
        if catalog is not None:
            parse_url(catalog)  # before anything is made
        self._engine = DuckDBEngine.open(self.place.database)
        try:
            self._catalog = Catalog.open(self.place.home, catalog)
            self._catalog.recover()
            self._server = cast(EndpointServer, load(SERVER)(self.place.home, catalog))
            found = relations(self._catalog, lambda: (self._server.url(), self._server.states()))
            self.schema = install_schema(self._engine, found, self._catalog.url, schema, self._notice)
            target = load(TARGETS["duckdb"])(self._engine)
            self._queries = Queries(self._engine, self._catalog, target, self.schema, self._notice)
        except BaseException:
            self._engine.close()
            raise

    # --- statements -------------------------------------------------------------------------------------------------

    def execute(self, text: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> tuple[str, Result]:
        """Run every statement of a text; the kind and the result of the last.  Values are for a text of one statement."""
        try:
            statements = parse(text)
        except DialectError as error:
            raise parse_error(error) from None
        if values and len(statements) > 1:
            raise ProgrammingError(
                f"values can be given for one statement at a time; this text has {len(statements)}",
                hint="run them one by one",
            )
        self.notices.clear()
        self._interrupted.clear()
        kind, result = "sql", Result()
        for statement in statements:
            if result.batches is not None:
                for _ in result.batches:  # run it to its end, as it would have been alone
                    continue
            kind, result = statement.kind, self._run(statement, text, values)
        return kind, result

    def execute_many(self, text: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement of the database once for each row of values."""
        self.notices.clear()
        sql = self._queries.bind(text, (0, len(text)))
        self._engine.run_many(sql.text, rows)

    def _run(self, statement: Statement, source: str, values: Sequence[Any] | Mapping[str, Any]) -> Result:
        authorise(user(), statement)
        parameters = Parameters(source, statement.span, values)
        if statement.node is None:
            return self._run_query(statement.span, source, parameters)
        parameters.check()
        self._check_transaction(statement, source)
        return self._run_node(statement.node, parameters)

    def _run_query(self, span: Span, source: str, parameters: Parameters) -> Result:
        try:
            return stream_result(self._queries.run_bound(source, span, parameters.values))
        except EngineError as error:
            error.hint = misspelt_show(source[slice(*span)]) or error.hint
            raise

    def _run_node(self, node: Node, parameters: Parameters) -> Result:
        source, queries, catalog, engine = parameters.source, self._queries, self._catalog, self._engine
        match node:
            case Train():
                return run_train(node, parameters, queries, catalog, self._emit, self._follow)
            case Evaluate():
                return run_evaluate(node, parameters, queries, catalog)
            case Predict():
                return run_predict(node, parameters, queries, catalog, engine)
            case ExplainModel():
                return run_explain_model(node, parameters, queries, catalog, engine)
            case ExplainPlan():
                return run_explain_plan(node, parameters, queries, catalog, engine)
            case Deploy():
                self._check_can_serve(source, node.span)
                return run_deploy(node, source, catalog, self._server, self._emit, self._interrupted.is_set)
            case Undeploy():
                return run_undeploy(node, source, catalog, self._server)
            case Show():
                return run_show(node, source, engine, catalog, self.schema)
            case ShowLogs():
                return run_show_logs(node, source, catalog)
            case ShowCreateModel():
                return run_show_create(node, source, catalog)
            case DescribeModel():
                return run_describe(node, source, catalog)
            case AlterModel():
                return run_alter_model(node, source, catalog)
            case DropModel():
                return run_drop_model(node, source, catalog)
        place = _first_word(source, node.span)
        raise not_yet(statement_kind(node).replace("_", " ").upper(), source, place)

    def _check_transaction(self, statement: Statement, source: str) -> None:
        """What writes to the catalog cannot be undone by the database's ROLLBACK, so it is refused inside a transaction."""
        node = statement.node
        if isinstance(node, Train | Deploy | Undeploy | AlterModel | DropModel) and self._engine.transaction() is not None:
            raise NotSupportedError(
                f"{source[slice(*_first_word(source, statement.span))].upper()} cannot run inside an open transaction",
                source=source,
                span=_first_word(source, statement.span),
                hint="COMMIT or ROLLBACK first",
            )

    def _check_can_serve(self, source: str, span: Span) -> None:
        if self._temporary:
            raise NotSupportedError(
                "an in-memory database cannot be deployed from: its models go when the connection closes",
                source=source,
                span=_first_word(source, span),
                hint='connect to a file, as in sqlml.connect("bank.duckdb")',
            )

    # --- around them ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._engine.run("BEGIN TRANSACTION")

    def commit(self) -> None:
        if self._engine.transaction() is not None:
            self._engine.run("COMMIT")

    def rollback(self) -> None:
        if self._engine.transaction() is not None:
            self._engine.run("ROLLBACK")

    def interrupt(self) -> None:
        """Cancel what runs, from any thread."""
        self._interrupted.set()
        job = self._job
        if job is not None:
            job.cancel()
        self._engine.interrupt()

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Tables, columns, models and endpoints, for completion."""
        found = dict(self._engine.names())
        found["models"] = self._catalog.model_names()
        found["endpoints"] = tuple(e.name for e in self._catalog.endpoints())
        return found

    def close(self) -> None:
        """Close the database.  Endpoints stay; the models of an in-memory database go."""
        if self._closed:
            return
        self._closed = True
        self._engine.close()
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
        if self.on_event is not None:
            self.on_event(event)
        if self._interrupted.is_set() and self._job is None:
            raise Cancelled("cancelled")

    def _notice(self, text: str) -> None:
        self._emit({"event": "notice", "text": text})


def authorise(principal: str, statement: Statement) -> None:
    """The one point that every statement passes before it runs.  Whoever can open the database may do everything with it."""


def _first_word(source: str, span: Span) -> Span:
    word = source[span[0] : span[1]].split(maxsplit=1)
    return (span[0], span[0] + len(word[0])) if word else span


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A database left open with functions in it makes DuckDB's module complain about leaks when Python ends.
    for session in list(_sessions):
        session.close()
