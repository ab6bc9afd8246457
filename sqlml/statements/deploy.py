"""DEPLOY, UNDEPLOY, ALTER and ROLLBACK of endpoints: versions behind them, with their shares of the traffic."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlml_dialect import AlterEndpoint, AlterEndpoints, Deploy, RollbackEndpoint, Undeploy, name_sql

from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Endpoint, Version
from sqlml.catalog.shares import SERVES
from sqlml.contracts import EndpointServer, Notice, OnEvent
from sqlml.errors import BindError, ServingError, listing
from sqlml.home import generate_url, rows_url
from sqlml.statements.endpoint_changes import EndpointChange, bind_alter, bind_deploy, find_endpoint
from sqlml.statements.endpoint_copies import copies_of, remove_copies
from sqlml.statements.handler import Handler, Handlers, always, no_columns, same_columns
from sqlml.statements.refresh_schedule import forget_failure
from sqlml.statements.result import Result, rows_result
from sqlml.statements.server_changes import describe_alter_endpoints, run_alter_endpoints
from sqlml.types import Task

_COLUMNS = [("endpoint", "string"), ("version", "string"), ("traffic", "int64"), ("url", "string"), ("state", "string")]
READY_SECONDS = 60.0
BACK_SECONDS = 5.0
GONE_SECONDS = 10.0


@dataclass(frozen=True)
class Serving:
    """What a statement about endpoints works with."""

    catalog: Catalog
    server: EndpointServer
    on_event: OnEvent
    notice: Notice
    cancelled: Callable[[], bool]


def endpoint_handlers(serving: Serving) -> Handlers:
    """DEPLOY, UNDEPLOY, ALTER and ROLLBACK of endpoints."""
    versions = same_columns(_COLUMNS)
    return {
        Deploy: Handler(
            lambda n, p: run_deploy(n, p, serving), writes=always, lasts=lambda node: "be deployed from", columns=versions
        ),
        Undeploy: Handler(lambda n, p: run_undeploy(n, p.source, serving), writes=always, columns=no_columns),
        AlterEndpoint: Handler(lambda n, p: run_alter_endpoint(n, p, serving), writes=always, columns=versions),
        AlterEndpoints: Handler(
            lambda n, p: run_alter_endpoints(n, p, serving.catalog, serving.server),
            writes=always,
            columns=describe_alter_endpoints,
        ),
        RollbackEndpoint: Handler(lambda n, p: run_rollback(n, p.source, serving), writes=always, columns=versions),
    }


def run_deploy(node: Deploy, parameters: Parameters, serving: Serving) -> Result:
    """Put a version behind an endpoint, start the server where none runs, and wait until the model is warm."""
    change = bind_deploy(node, parameters, serving.catalog)
    serving.on_event({"event": "stage", "name": "starting the server"})
    serving.server.ensure()
    url = _apply(change, serving)
    version = change.versions[change.shares[-1].uid]
    return _result(serving.catalog, change.endpoint, url, footer=_try_it(url, change.endpoint, version) if url else None)


def run_alter_endpoint(node: AlterEndpoint, parameters: Parameters, serving: Serving) -> Result:
    """Divide the traffic anew, or set options; where the server runs, it serves so when the statement is over."""
    change = bind_alter(node, parameters, serving.catalog)
    url = _apply(change, serving)
    return _result(serving.catalog, change.endpoint, url)


def run_rollback(node: RollbackEndpoint, source: str, serving: Serving) -> Result:
    """Make an endpoint what it was before its last change; a version that is tried out leaves with it."""
    catalog = serving.catalog
    before = find_endpoint(catalog, node.endpoint, source)
    try:
        catalog.rollback_endpoint(before.name)
    except BindError as error:
        raise error.located(source, node.endpoint.span) from None
    try:
        url = wait_for(before.name, _revision(catalog, before.name), serving)
    except BaseException:
        _put_back(catalog, before)
        raise
    after = catalog.endpoint(before.name)
    if after is not None and before.options.get("auth") == "key" != after.options.get("auth"):
        serving.notice(
            f"endpoint {before.name} answers without an API key again: what stands now is older than auth = 'key'; "
            f"ALTER ENDPOINT {name_sql(before.name)} SET (auth = 'key') asks for one"
        )
    return _result(catalog, before.name, url)


def _apply(change: EndpointChange, serving: Serving) -> str | None:
    """Write a change and wait until the server serves it; its URL, None where no server runs.

    If it cannot, or nobody waits for it, what was there before is there again.
    """
    before = change.before
    for text in change.notices:
        serving.notice(text)
    _tell_if_locked(change, serving)
    revision = serving.catalog.put_endpoint(
        change.endpoint, change.shares, options=change.options, reason=change.reason, of=change.revision,
        kind=before.kind if before else "model", definition=before.definition if before else None,
    )  # fmt: skip
    try:
        return wait_for(change.endpoint, revision, serving)
    except ServingError:
        restore(serving.catalog, change.endpoint, change.before, change.reason, revision)
        _wait_until_back(change, serving)
        raise
    except BaseException:
        restore(serving.catalog, change.endpoint, change.before, change.reason, revision)
        raise


def wait_for(endpoint: str, revision: int, serving: Serving) -> str | None:
    """Wait until the server serves a revision; the endpoint's URL, None where no server runs."""
    if serving.server.url() is None:
        return None
    serving.on_event({"event": "stage", "name": "loading the model"})
    return serving.server.wait_ready(endpoint, revision, READY_SECONDS, serving.cancelled)


def _wait_until_back(change: EndpointChange, serving: Serving) -> None:
    """Wait until the server has heard that what was there is there again, so that whoever looks next finds it ready."""
    if change.before is not None and serving.server.url() is not None:
        with suppress(ServingError):  # what went wrong is told already
            serving.server.wait_ready(
                change.endpoint, _revision(serving.catalog, change.endpoint), BACK_SECONDS, serving.cancelled
            )


def _revision(catalog: Catalog, endpoint: str) -> int:
    found = catalog.endpoint(endpoint)
    return found.revision if found else 0


def restore(catalog: Catalog, endpoint: str, before: Endpoint | None, reason: str, revision: int) -> None:
    """Take back a change that led to a revision, unless another came after it.  ``before``: what was there."""
    if _revision(catalog, endpoint) != revision:
        return
    if before is None:
        catalog.undeploy(endpoint, f"{reason} failed")
    else:
        catalog.rollback_endpoint(endpoint, f"{reason} failed", of=revision)


def _put_back(catalog: Catalog, before: Endpoint) -> None:
    """A rollback could not be served: what was there is there again."""
    catalog.put_endpoint(
        before.name, before.shares, options=before.options, reason="ROLLBACK failed", kind=before.kind,
        definition=before.definition,
    )  # fmt: skip


def _tell_if_locked(change: EndpointChange, serving: Serving) -> None:
    """Say that nobody has a key, where one is needed from now on."""
    before = change.before.options if change.before else {}
    if change.options.get("auth") != "key":
        named = [key.name for key in serving.catalog.api_keys() if change.endpoint.lower() in key.endpoints]
        if named and change.before is None:
            serving.notice(
                f"endpoint {change.endpoint} answers without a key, though there are some for it ({listing(named)}): "
                f"ALTER ENDPOINT {change.endpoint} SET (auth = 'key')"
            )
        return
    if before.get("auth") == "key":
        return
    if any(key.opens(change.endpoint) for key in serving.catalog.api_keys()):
        return
    serving.notice(f"no API key opens endpoint {change.endpoint} yet: CREATE API KEY name FOR ENDPOINT {change.endpoint}")


def _result(catalog: Catalog, endpoint: str, url: str | None, footer: str | None = None) -> Result:
    """A row for each version; a shadow has no share of the traffic."""
    found = catalog.endpoint(endpoint)
    shared: dict[str, Any] = {"endpoint": endpoint, "url": url, "state": "ready" if url else "stopped"}
    rows = [
        shared | {"version": arm.name, "traffic": arm.weight if arm.role == SERVES else None}
        for arm in (found.arms if found else ())
    ]
    return rows_result(rows, _COLUMNS, footer=footer)


def _try_it(url: str, endpoint: str, version: Version) -> str:
    base = url.partition("/v2/")[0]
    writes = version.task is Task.GENERATION
    address = generate_url(base, endpoint) if writes else rows_url(base, endpoint)
    asked = dict(version.example) if writes else {"rows": [dict(version.example)]}
    body = json.dumps(asked, ensure_ascii=False).replace("'", "'\\''")
    return f"try: curl -s {address} -d '{body}'"


def run_undeploy(node: Undeploy, source: str, serving: Serving) -> Result:
    """Take an endpoint away, its copies of tables and the API keys of it alone; with the last one a detached server goes too."""
    catalog = serving.catalog
    if node.if_exists and catalog.endpoint(node.endpoint.name) is None:
        return Result()
    copies = copies_of(catalog, node.endpoint.name)
    try:
        keys = catalog.undeploy(node.endpoint.name)
    except BindError as error:
        raise error.located(source, node.endpoint.span) from None
    _wait_gone(node.endpoint.name, serving.server)
    remove_copies(catalog, copies)
    forget_failure(catalog.home, node.endpoint.name)
    for text in keys.notices("it"):
        serving.notice(text)
    return Result()


def _wait_gone(endpoint: str, server: EndpointServer) -> None:
    """Let the running server drop the endpoint before the statement is over."""
    deadline = time.monotonic() + GONE_SECONDS
    while endpoint.lower() in {name.lower() for name in server.states()} and time.monotonic() < deadline:
        time.sleep(0.02)
