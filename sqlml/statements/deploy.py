"""DEPLOY and UNDEPLOY: versions behind endpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from sqlml_dialect import Deploy, Undeploy

from sqlml.binder.models import check_name, resolve_model
from sqlml.catalog import Catalog, Version
from sqlml.contracts import EndpointServer, Event
from sqlml.errors import BindError, NotSupportedError, not_yet
from sqlml.home import rows_url
from sqlml.statements.result import Result, rows_result

READY_SECONDS = 60.0
GONE_SECONDS = 10.0


def run_deploy(
    node: Deploy,
    source: str,
    catalog: Catalog,
    server: EndpointServer,
    on_event: Callable[[Event], None],
    cancelled: Callable[[], bool],
) -> Result:
    """Put a version behind an endpoint, start the server where none runs, and wait until the model is warm."""
    if node.options:
        option = node.options[0].name
        raise not_yet(f"DEPLOY … WITH ({option.name} = …)", source, option.span)
    if node.runner is not None:
        raise NotSupportedError("DEPLOY … ON: this version serves on this machine only", source=source, span=node.runner.span)
    version = resolve_model(catalog, node.model, source)
    endpoint = node.endpoint.name if node.endpoint else version.model
    check_name(endpoint, source, node.endpoint.span if node.endpoint else node.model.span, "an endpoint")
    before = {e.name.lower(): e for e in catalog.endpoints()}.get(endpoint.lower())
    on_event({"event": "stage", "name": "starting the server"})
    server.ensure()
    try:
        catalog.deploy(endpoint, version)
        on_event({"event": "stage", "name": "loading the model"})
        url = server.wait_ready(endpoint, version.version, READY_SECONDS, cancelled)
    except BaseException:
        _restore(catalog, endpoint, before.uid if before else None)
        raise
    row = {"endpoint": endpoint, "version": version.name, "url": url, "state": "ready"}
    columns = [("endpoint", "string"), ("version", "string"), ("url", "string"), ("state", "string")]
    return rows_result([row], columns, footer=_try_it(url, endpoint, version))


def _restore(catalog: Catalog, endpoint: str, uid: str | None) -> None:
    """The version could not be served, or nobody waits for it: what was behind the endpoint before is behind it again."""
    if uid is None and endpoint.lower() not in {e.name.lower() for e in catalog.endpoints()}:
        return
    if uid is None:
        catalog.undeploy(endpoint)
    else:
        catalog.deploy(endpoint, catalog.by_uid(uid))


def _try_it(url: str, endpoint: str, version: Version) -> str:
    address = rows_url(url.partition("/v2/")[0], endpoint)
    body = json.dumps({"rows": [dict(version.example)]}, ensure_ascii=False).replace("'", "'\\''")
    return f"try: curl -s {address} -d '{body}'"


def run_undeploy(node: Undeploy, source: str, catalog: Catalog, server: EndpointServer) -> Result:
    """Take an endpoint away; with the last one a detached server goes too."""
    try:
        catalog.undeploy(node.endpoint.name)
    except BindError as error:
        raise error.located(source, node.endpoint.span) from None
    _wait_gone(node.endpoint.name, server)
    return Result()


def _wait_gone(endpoint: str, server: EndpointServer) -> None:
    """Let the running server drop the endpoint before the statement is over."""
    deadline = time.monotonic() + GONE_SECONDS
    while endpoint.lower() in {name.lower() for name in server.states()} and time.monotonic() < deadline:
        time.sleep(0.02)
