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
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from sqlml_dialect import (
    AlterModel,
    CancelJob,
    CompareModels,
    CreateResource,
    Deploy,
    DeployFunction,
    DescribeModel,
    DialectError,
    DropModel,
    DropResource,
    Evaluate,
    ExplainModel,
    ExplainPlan,
    Export,
    Import,
    Node,
    Predict,
    Show,
    ShowCreateModel,
    ShowLogs,
    Span,
    Statement,
    Train,
    Undeploy,
    UndeployFunction,
    name_sql,
    parse,
    statement_kind,
)
from sqlml_dialect.table_functions import TABLE_FUNCTIONS
from sqlml_dialect.tokens import name_value, scan

from sqlml.binder.connections import is_query
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog
from sqlml.catalog.database import absolute_url
from sqlml.catalog.rows import user
from sqlml.contracts import EndpointServer, Event, JobHandle
from sqlml.errors import BindError, Cancelled, EngineError, NotSupportedError, ProgrammingError, not_yet, parse_error
from sqlml.registry import SERVER, get, load
from sqlml.statements.compare import run_compare
from sqlml.statements.connections import known_connections, open_connection
from sqlml.statements.database_functions import remove_function, run_deploy_function, run_undeploy_function
from sqlml.statements.deploy import run_deploy, run_undeploy
from sqlml.statements.describe import run_describe
from sqlml.statements.evaluate import run_evaluate
from sqlml.statements.explain import run_explain_model
from sqlml.statements.export import run_export, run_import
from sqlml.statements.home import IN_DATABASE, MEMORY, calls_functions, catalog_in, check_catalog, open_home, place_of
from sqlml.statements.jobs import run_cancel_job, run_train_async
from sqlml.statements.models import find_views, run_alter_model, run_drop_model
from sqlml.statements.places import Places, changes_hint
from sqlml.statements.plans import run_explain_plan
from sqlml.statements.predict import run_predict
from sqlml.statements.predict_job import run_predict_job
from sqlml.statements.queries import Queries
from sqlml.statements.relations import relations
from sqlml.statements.resources import run_create_resource, run_drop_resource
from sqlml.statements.result import Result, stream_result
from sqlml.statements.runners import check_runner, open_runner
from sqlml.statements.schema import install_schema
from sqlml.statements.show import misplaced_function, misspelt_show, run_show, run_show_create, run_show_logs
from sqlml.statements.train import run_train


@dataclass(frozen=True)
class _Handler:
    """How a statement is carried out: ``run`` with what it needs and nothing else.

    ``writes``: it writes to the catalog, so it is refused inside an open transaction; ``lasts``: what it makes or starts must
    outlive the connection, so it is refused for a database in memory.
    """

    run: Callable[[Any, Parameters], Result]
    writes: Callable[[Any], bool] = lambda node: False
    lasts: Callable[[Any], bool] = lambda node: False


def _always(node: Node) -> bool:
    return True


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
        self._watch: Callable[[Event], None] | None = None
        self._interrupted = threading.Event()
        self._closed = False
        check_catalog(database, catalog)
        catalog = catalog if catalog in (None, IN_DATABASE) else absolute_url(catalog)  # before anything is made
        is_memory = database == MEMORY
        self._temporary = tempfile.mkdtemp(prefix="sqlml-") if is_memory else None
        self.place = place_of(database, catalog, self._temporary)
        try:
            self._open(database, catalog, schema)
        except BaseException:
            self._remove_temporary()
            raise
        _sessions.add(self)

    def _open(self, database: str, catalog: str | None, schema: str | None) -> None:
        with ExitStack() as opened:
            self._engine = open_home(database)
            opened.callback(self._engine.close)
            self._catalog = Catalog.open(self.place.home, catalog_in(database, catalog, self._engine))
            opened.callback(self._catalog.close)
            self._prepare(schema)
            opened.pop_all()

    def _prepare(self, schema: str | None) -> None:
        """Everything that stands on the database and the catalog."""
        known, connect = partial(known_connections, self._catalog), partial(open_connection, self._catalog)
        self._places = Places(self._engine, known, connect, self._notice)
        self._catalog.recover()
        self._server = cast(EndpointServer, load(SERVER)(self.place.home, self._catalog.url))
        found = relations(self._catalog, lambda: (self._server.url(), self._server.states()))
        self._relations = {relation.name: relation for relation in found}
        self.schema = install_schema(self._engine, found, self._catalog.url, schema, self._notice)
        target = get("target", self._engine.name)(self._engine)
        copied = {} if calls_functions(self._engine) else self._relations
        self._queries = Queries(self._places, self._catalog, target, self.schema, self._notice, copied)
        self._handlers = self._table()

    # --- statements -------------------------------------------------------------------------------------------------

    def execute(self, text: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> tuple[str, Result]:
        """Run every statement of a text; the kind and the result of the last.  Values are for a text of one statement."""
        statements = _parse(text)
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
        statements = _parse(text)
        if len(statements) != 1:
            raise ProgrammingError(
                f"values for many rows are for one statement; this text has {len(statements)}", hint="run them one by one"
            )
        self.notices.clear()
        self._interrupted.clear()
        [statement] = statements
        authorise(user(), statement)
        if statement.node is not None:
            raise NotSupportedError(
                f"values for many rows are for the database's own statements, not for {_shown(statement.node)}",
                source=text, span=_first_word(text, statement.span), hint="run it once for each",
            )  # fmt: skip
        if any(call.function in TABLE_FUNCTIONS for call in self._queries.find(text, (0, len(text))).calls):
            raise NotSupportedError("a table function of ML cannot be run for many rows of values", hint="run it once for each")
        sql = self._queries.bind(text, (0, len(text)))
        self._engine.run_many(sql.text, rows)

    def _run(self, statement: Statement, source: str, values: Sequence[Any] | Mapping[str, Any]) -> Result:
        authorise(user(), statement)
        parameters = Parameters(source, statement.span, values)
        if statement.node is None:
            return self._run_query(statement.span, source, parameters)
        parameters.check()
        node = parameters.filled(statement.node)
        self._check_transaction(node, source, statement.span)
        return self._run_node(node, parameters)

    def _run_query(self, span: Span, source: str, parameters: Parameters) -> Result:
        text = source[slice(*span)]
        self._check_schema(text)
        try:
            return stream_result(self._queries.run_bound(source, span, parameters.values))
        except EngineError as error:
            hint = misspelt_show(text, self._relations, self.schema) or misplaced_function(text, error.message)
            named = self._queries.named_connection(text) if hint is None and not is_query(source, span) else None
            error.hint = hint or (changes_hint(named) if named else error.hint)
            raise

    def _run_node(self, node: Node, parameters: Parameters) -> Result:
        handler = self._handlers.get(type(node))
        if handler is None:
            raise not_yet(_shown(node), parameters.source, _first_word(parameters.source, node.span))
        if handler.lasts(node):
            self._check_lasting(parameters.source, node.span)
        return handler.run(node, parameters)

    def _run_watched(self, node: Node, parameters: Parameters, watch: Callable[[Event], None]) -> Result:
        """Run a statement as it would run alone, and let somebody see its events."""
        self._watch = watch
        try:
            return self._run_node(node, parameters)
        finally:
            self._watch = None

    def _table(self) -> Mapping[type, _Handler]:
        """What is done for each statement of ours.  A statement that is not in here belongs to a later version."""
        queries, catalog, engine, places, server = self._queries, self._catalog, self._engine, self._places, self._server
        names = f"{name_sql(self.schema)}.main."

        def views_calling(model: str) -> list[str]:
            return find_views(engine.views_with(names), model) if calls_functions(engine) else []

        def train(node: Train, parameters: Parameters) -> Result:
            if node.asynchronous:
                return run_train_async(node, parameters, queries, catalog, self._emit)
            return run_train(node, parameters, queries, catalog, self._emit, self._follow)

        def predict(node: Predict, parameters: Parameters) -> Result:
            if node.runner is None or node.runner.name.lower() == "inline":
                return run_predict(node, parameters, queries, catalog)
            check_runner(catalog, node.runner, parameters.source)
            runner = open_runner(catalog, node.runner.name)
            return run_predict_job(node, parameters, queries, catalog, runner, self._emit, self._follow)

        return {
            Train: _Handler(train, writes=_always, lasts=lambda node: bool(node.asynchronous)),
            Evaluate: _Handler(
                lambda n, p: run_evaluate(n, p, queries, catalog, self._emit, self._follow),
                writes=lambda node: any(option.name.name.lower() == "folds" for option in node.options),  # a job of the catalog
            ),
            CompareModels: _Handler(lambda n, p: run_compare(n, p, queries, catalog, self._notice)),
            Predict: _Handler(predict, writes=lambda node: node.runner is not None),
            ExplainModel: _Handler(lambda n, p: run_explain_model(n, p, queries, catalog)),
            ExplainPlan: _Handler(
                lambda n, p: run_explain_plan(n, p, queries, catalog, views_calling, self._run_watched),
                writes=lambda node: node.analyze and self._writes(node.statement),
            ),
            Deploy: _Handler(
                lambda n, p: run_deploy(n, p.source, catalog, server, self._emit, self._interrupted.is_set),
                writes=_always,
                lasts=_always,
            ),
            Undeploy: _Handler(lambda n, p: run_undeploy(n, p.source, catalog, server), writes=_always),
            Show: _Handler(lambda n, p: run_show(n, p.source, queries, catalog, self.schema)),
            ShowLogs: _Handler(lambda n, p: run_show_logs(n, p.source, catalog)),
            ShowCreateModel: _Handler(lambda n, p: run_show_create(n, p.source, catalog)),
            DescribeModel: _Handler(lambda n, p: run_describe(n, p.source, catalog)),
            CancelJob: _Handler(lambda n, p: run_cancel_job(n, p.source, catalog, self._interrupted.is_set), writes=_always),
            AlterModel: _Handler(lambda n, p: run_alter_model(n, p, catalog, views_calling, self._notice), writes=_always),
            DropModel: _Handler(
                lambda n, p: run_drop_model(
                    n, p.source, catalog, lambda f: remove_function(f, catalog, places.engine, self._notice)
                ),
                writes=_always,
            ),
            CreateResource: _Handler(
                lambda n, p: run_create_resource(n, p, catalog, engine, self._notice, places.forget), writes=_always
            ),
            DropResource: _Handler(lambda n, p: run_drop_resource(n, p.source, catalog, places.forget), writes=_always),
            DeployFunction: _Handler(
                lambda n, p: run_deploy_function(n, p.source, catalog, places.engine, self._notice), writes=_always, lasts=_always
            ),
            UndeployFunction: _Handler(
                lambda n, p: run_undeploy_function(n, p.source, catalog, places.engine, self._notice), writes=_always
            ),
            Export: _Handler(lambda n, p: run_export(n, p, catalog)),
            Import: _Handler(lambda n, p: run_import(n, p, catalog, self._emit), writes=_always),
        }

    def _writes(self, node: Node) -> bool:
        """Whether a statement writes to the catalog."""
        handler = self._handlers.get(type(node))
        return handler is not None and bool(handler.writes(node))

    def _check_transaction(self, node: Node, source: str, span: Span) -> None:
        """What writes to the catalog cannot be undone by the database's ROLLBACK, so it is refused inside a transaction."""
        if self._writes(node) and self._engine.transaction() is not None:
            raise NotSupportedError(
                f"{source[slice(*_first_word(source, span))].upper()} cannot run inside an open transaction",
                source=source,
                span=_first_word(source, span),
                hint="COMMIT or ROLLBACK first",
            )

    def _check_schema(self, text: str) -> None:
        """Refuse a schema that would make the names of our relations mean two things."""
        if not calls_functions(self._engine) or self.schema.lower() not in text.lower():
            return
        tokens = [token for token in scan(text) if token.key != ";"]
        name = tokens[-1]
        if [token.key for token in tokens[:2]] == ["CREATE", "SCHEMA"] and name_value(name).lower() == self.schema.lower():
            raise BindError(
                f"{self.schema} is the schema of the models' relations", source=text, span=(name.start, name.end),
                hint='connect(schema="…") gives ours another name',
            )  # fmt: skip

    def _check_lasting(self, source: str, span: Span) -> None:
        """Refuse what outlives the connection where the models do not."""
        if self._temporary:
            deploys = source[slice(*_first_word(source, span))].upper() == "DEPLOY"
            what = "be deployed from" if deploys else "train ASYNC"
            raise NotSupportedError(
                f"an in-memory database cannot {what}: its models go when the connection closes",
                source=source,
                span=_first_word(source, span),
                hint='connect to a file, as in sqlml.connect("bank.duckdb")',
            )

    # --- around them ------------------------------------------------------------------------------------------------

    @property
    def dialect(self) -> str:
        """Whose SQL the database speaks."""
        return self._engine.dialect

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
        self._places.interrupt()

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """Tables, columns, models and endpoints, for completion."""
        found = dict(self._engine.names())
        found["models"] = self._catalog.model_names()
        found["endpoints"] = tuple(e.name for e in self._catalog.endpoints())
        found["connections"] = tuple(known_connections(self._catalog).values())
        found["runners"] = tuple(runner.name for runner in self._catalog.resources("runner"))
        return found

    def close(self) -> None:
        """Close the database.  Endpoints stay; the models of an in-memory database go."""
        if self._closed:
            return
        self._closed = True
        self._places.close()
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


def _parse(text: str) -> list[Statement]:
    try:
        return list(parse(text))
    except DialectError as error:
        raise parse_error(error) from None


def _shown(node: Node) -> str:
    """What a statement of ours is called."""
    return statement_kind(node).replace("_", " ").upper()


def _first_word(source: str, span: Span) -> Span:
    word = source[span[0] : span[1]].split(maxsplit=1)
    return (span[0], span[0] + len(word[0])) if word else span


_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # A database left open with functions in it makes DuckDB's module complain about leaks when Python ends.
    for session in list(_sessions):
        session.close()
