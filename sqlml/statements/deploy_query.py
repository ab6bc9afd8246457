"""DEPLOY QUERY and REFRESH ENDPOINT: an endpoint that computes a query over several models, and the tables that it looks into.

query → settled (binder/compose) → its tables copied beside their places → all in place → catalog → the server is ready
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlml_dialect import DeployQuery, Ident, QualifiedName, RefreshEndpoint, Span
from sqlml_dialect.tokens import Kind as TokenKind
from sqlml_dialect.tokens import name_value, scan

from sqlml.binder.compose import Settled, compose
from sqlml.binder.compose_expressions import Names
from sqlml.binder.models import check_name, resolve_model
from sqlml.binder.options import bind_option
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Endpoint, Share
from sqlml.catalog.shares import PART
from sqlml.composition.copies import CopyInfo, copy_path, open_copy, write_copy
from sqlml.composition.plan import Composition, LookUp
from sqlml.endpoint_options import KEPT_OPTIONS, OWNER, merged, option_fault
from sqlml.errors import BindError, Error
from sqlml.home import rows_url
from sqlml.statements.deploy import Serving, restore, wait_for
from sqlml.statements.endpoint_changes import QUERY, find_endpoint
from sqlml.statements.endpoint_copies import remove_unused
from sqlml.statements.handler import Handler, Handlers, always
from sqlml.statements.queries import Queries
from sqlml.statements.refresh_schedule import forget_failure
from sqlml.statements.result import Result, rows_result
from sqlml.types import Column


@dataclass(frozen=True)
class QueryChange:
    """What DEPLOY QUERY makes, all checked: nothing is copied and nothing is written yet."""

    endpoint: str
    before: Endpoint | None
    settled: Settled
    options: Mapping[str, Any]

    @property
    def composition(self) -> Composition:
        return self.settled.composition

    @property
    def shares(self) -> tuple[Share, ...]:
        """The models, as arms of the endpoint."""
        return tuple(Share(part.uid, PART, 0) for part in self.composition.parts)


def query_handlers(serving: Serving, queries: Queries) -> Handlers:
    """DEPLOY QUERY and REFRESH ENDPOINT."""
    return {
        DeployQuery: Handler(
            lambda n, p: run_deploy_query(n, p, serving, queries), writes=always, lasts=lambda node: "be deployed from"
        ),
        RefreshEndpoint: Handler(lambda n, p: run_refresh(n, p.source, serving, queries), writes=always),
    }


# --- DEPLOY QUERY -----------------------------------------------------------------------------------------------------


def bind_deploy_query(node: DeployQuery, parameters: Parameters, queries: Queries, catalog: Catalog) -> QueryChange:
    """What DEPLOY QUERY makes; raises what is wrong with it."""
    source, name = parameters.source, node.endpoint
    check_name(name.name, source, name.span, OWNER)
    before = catalog.endpoint(name.name)
    if before is not None and before.kind != QUERY:
        raise BindError(
            f"endpoint {before.name} serves a model, no query", source=source, span=name.span,
            hint="give the query another name, or UNDEPLOY ENDPOINT it first",
        )  # fmt: skip
    names = Names(
        lambda span: queries.find(source, span),
        lambda ref: resolve_model(catalog, ref, source),
        lambda span: _columns(queries, source, span),
    )
    settled = compose(source, node.query.span, before.name if before else name.name, names)
    return QueryChange(before.name if before else name.name, before, settled, _options(node, before, settled, parameters))


def _columns(queries: Queries, source: str, span: Span) -> Sequence[Column]:
    """The columns of a table whose name stands at a place."""
    query = f"SELECT * FROM {source[slice(*span)]}"  # noqa: S608 - a name, as it was written
    try:
        return queries.describe(queries.bind(query, (0, len(query))))
    except Error as error:
        raise type(error)(error.message, source=source, span=span, hint=error.hint) from None


def _options(node: DeployQuery, before: Endpoint | None, settled: Settled, parameters: Parameters) -> dict[str, Any]:
    given = dict(bind_option(option, KEPT_OPTIONS, OWNER, parameters) for option in node.options)
    options = merged(before.options if before else {}, given)
    fault = option_fault(
        options, [column.name for column in settled.composition.parameters], looks_up=bool(settled.composition.look_ups)
    )
    if fault is not None:
        span = next((o.span for o in node.options if o.name.name.lower() == fault.option), node.endpoint.span)
        raise BindError(fault.message, source=parameters.source, span=span, hint=fault.hint)
    return options


def run_deploy_query(node: DeployQuery, parameters: Parameters, serving: Serving, queries: Queries) -> Result:
    """Copy the query's tables, put it behind the endpoint, start the server where none runs, and wait until it answers."""
    catalog = serving.catalog
    change = bind_deploy_query(node, parameters, queries, catalog)
    look_ups, places = change.composition.look_ups, change.settled.places
    with _copied(catalog, look_ups, dict(zip(look_ups, places, strict=True)), parameters.source, serving, queries) as copies:
        serving.on_event({"event": "stage", "name": "starting the server"})
        serving.server.ensure()
        copies.place()
    revision = catalog.put_endpoint(
        change.endpoint, change.shares, options=change.options, reason="DEPLOY", kind=QUERY,
        of=change.before.revision if change.before else 0, definition=change.composition.to_json(),
    )  # fmt: skip
    try:
        url = wait_for(change.endpoint, revision, serving)
    except BaseException:
        restore(catalog, change.endpoint, change.before, "DEPLOY", revision)
        raise
    remove_unused(catalog)
    return _deployed(change, url, catalog.home.lookups)


def _deployed(change: QueryChange, url: str | None, copies: Path) -> Result:
    composition = change.composition
    row = {
        "endpoint": change.endpoint,
        "models": ", ".join(part.name for part in composition.parts),
        "parameters": ", ".join(f"{column.name} {column.sql_type}" for column in composition.parameters),
        "answers": ", ".join(result.name for result in composition.results),
        "url": url,
        "state": "ready" if url else "stopped",
    }
    return rows_result([row], [(name, "string") for name in row], footer=_try_it(change, url, copies) if url else None)


def _try_it(change: QueryChange, url: str, copies: Path) -> str:
    row = {**change.composition.example, **_example_keys(change.composition, copies)}
    body = json.dumps({"rows": [row]}, ensure_ascii=False).replace("'", "'\\''")
    return f"try: curl -s {rows_url(url.partition('/v2/')[0], change.endpoint)} -d '{body}'"


def _example_keys(composition: Composition, copies: Path) -> dict[str, Any]:
    """Parameters that are keys of tables, with values that are there.  They are told to who deploys, and kept nowhere."""
    names = {f"p:{column.name.lower()}": column.name for column in composition.parameters}
    found: dict[str, Any] = {}
    for look_up in composition.look_ups:
        key = open_copy(copy_path(copies, look_up.copy)).example_key(look_up.keys) or ()
        for slot, value in zip(look_up.values, key, strict=False):
            if slot.lower() in names:
                found.setdefault(names[slot.lower()], value)
    return found


# --- REFRESH ENDPOINT ---------------------------------------------------------------------------------------------------


def run_refresh(node: RefreshEndpoint, source: str, serving: Serving, queries: Queries) -> Result:
    """Copy an endpoint's tables again; its server goes over to the new copies with the next request."""
    began = time.perf_counter()
    look_ups = look_ups_of(find_endpoint(serving.catalog, node.endpoint, source), node.endpoint, source)
    places = dict.fromkeys(look_ups, node.endpoint.span)
    with _copied(serving.catalog, look_ups, places, source, serving, queries) as copies:
        copies.place()
    forget_failure(serving.catalog.home, node.endpoint.name)
    seconds = time.perf_counter() - began
    rows = [
        {"endpoint": node.endpoint.name, "table": info.table, "rows": info.rows, "bytes": info.bytes, "seconds": seconds}
        for info in copies.infos
    ]
    columns = [("endpoint", "string"), ("table", "string"), ("rows", "int64"), ("bytes", "int64"), ("seconds", "double")]
    return rows_result(rows, columns)


def look_ups_of(endpoint: Endpoint, name: Ident, source: str) -> tuple[LookUp, ...]:
    """The tables that an endpoint looks into.  ``BindError`` where it looks into none."""
    found = Composition.from_json(endpoint.definition).look_ups if endpoint.definition else ()
    if not found:
        raise BindError(
            f"endpoint {endpoint.name} looks nothing up: there is nothing to refresh", source=source, span=name.span,
            hint="DEPLOY QUERY … AS SELECT … FROM t WHERE t.key = $key makes one that does",
        )  # fmt: skip
    return found


# --- copies -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Copies:
    """Copies that are whole, beside their places."""

    draft: Path
    folder: Path
    names: tuple[str, ...]
    infos: tuple[CopyInfo, ...]

    def place(self) -> None:
        """Put them into their places, each in one step."""
        for name in self.names:
            copy_path(self.draft, name).replace(copy_path(self.folder, name))


@contextmanager
def _copied(
    catalog: Catalog,
    look_ups: Sequence[LookUp],
    places: Mapping[LookUp, Span],
    source: str,
    serving: Serving,
    queries: Queries,
) -> Iterator[_Copies]:
    """Copies of tables; what is not put into its place by the end is removed.  ``places``: where an error of each points."""
    folder = catalog.home.lookups
    draft = folder / f"new-{uuid.uuid4().hex[:12]}"
    infos = []
    try:
        for look_up in look_ups:
            serving.on_event({"event": "stage", "name": f"copying {look_up.table}"})
            try:
                infos.append(_copy(look_up, copy_path(draft, look_up.copy), queries))
            except Error as error:
                raise type(error)(error.message, source=source, span=places[look_up], hint=error.hint) from None
        yield _Copies(draft, folder, tuple(look_up.copy for look_up in look_ups), tuple(infos))
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _copy(look_up: LookUp, path: Path, queries: Queries) -> CopyInfo:
    connection, _ = queries.places.table(table_name(look_up.table))
    quote = queries.places.engine(connection).quote
    columns = ", ".join(quote(column.name) for column in (*look_up.keys, *look_up.columns))
    query = f"SELECT {columns} FROM {look_up.table}"  # noqa: S608 - a name as it was written, when it was deployed
    with closing(queries.run_bound(query, (0, len(query))).batches) as batches:  # what is refused half-way must not stay open
        return write_copy(path, look_up.table, look_up.keys, look_up.columns, batches)


def table_name(text: str) -> QualifiedName:
    """The name of a table that a query has written."""
    tokens = [token for token in scan(text) if token.kind in (TokenKind.WORD, TokenKind.QUOTED)]
    return QualifiedName(tuple(Ident(name_value(token), token.kind is TokenKind.QUOTED) for token in tokens))
