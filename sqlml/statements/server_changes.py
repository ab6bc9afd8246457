"""ALTER ENDPOINTS: what holds for all endpoints together, and for the server that answers for them.

options → ServerChange (all checked, nothing written) → applied, or shown by EXPLAIN
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlml_dialect import AlterEndpoints

from sqlml.binder.options import option_span
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog
from sqlml.contracts import EndpointServer
from sqlml.endpoint_options import SERVER_OPTIONS
from sqlml.errors import BindError, listing
from sqlml.server_settings import DEFAULT_PORT, locked_settings, origins_of, read_settings, write_settings
from sqlml.statements.endpoint_changes import bind_given, option_names
from sqlml.statements.result import Result, own_columns, rows_result
from sqlml.types import Column

_NUMBER_COLUMNS = [("option", "string"), ("value", "int64"), ("before", "int64")]
_TEXT_COLUMNS = [("option", "string"), ("value", "string"), ("before", "string")]
_AT_START = "the server that runs takes {} up when it starts next: after `sqlml stop`, a DEPLOY starts it"


@dataclass(frozen=True)
class ServerChange:
    """Options of the server, as given and as they were; None: none.  ``memory`` lies in the catalog, the others beside it."""

    given: Mapping[str, Any]
    before: Mapping[str, Any]

    @property
    def at_start(self) -> dict[str, Any]:
        """Those that a server reads when it starts."""
        return {name: value for name, value in self.given.items() if name != "memory"}


def bind_alter_endpoints(node: AlterEndpoints, parameters: Parameters, catalog: Catalog) -> ServerChange:
    """What ALTER ENDPOINTS makes; raises what is wrong with it."""
    given = bind_given(node.options, SERVER_OPTIONS, parameters, "the endpoints' server")
    if not given:
        hint = f"there are: {option_names(SERVER_OPTIONS)}"
        raise BindError("no option is given", source=parameters.source, span=node.span, hint=hint)
    place = partial(option_span, node.options)
    for name in ("tls_certificate", "tls_key"):
        if given.get(name) is not None:
            given[name] = _readable(given[name], name, parameters.source, place(name))
    kept = read_settings(catalog.home.folder)
    whole = kept | given
    if (whole.get("tls_certificate") is None) != (whole.get("tls_key") is None):
        there, other = ("tls_certificate", "tls_key") if whole.get("tls_certificate") else ("tls_key", "tls_certificate")
        span, hint = place(there) or place(other) or node.span, f"give both, or NULL for both: {other} = '/path/file.pem'"
        raise BindError(f"{there} needs {other}", source=parameters.source, span=span, hint=hint)
    if whole.get("tls_certificate") is not None and not given.keys().isdisjoint(("tls_certificate", "tls_key")):
        newer = place("tls_key") or place("tls_certificate")
        _check_pair(whole["tls_certificate"], whole["tls_key"], parameters.source, newer)
    port, span = whole.get("port"), place("grpc_port") or place("port") or node.span
    if whole.get("grpc_port") == (port or DEFAULT_PORT) and not given.keys().isdisjoint(("port", "grpc_port")):
        message = f"port and grpc_port are both {port}" if port else f"grpc_port is {DEFAULT_PORT}, HTTP's where no port is set"
        raise BindError(message, source=parameters.source, span=span, hint="give gRPC a port of its own: grpc_port = 8081")
    try:
        origins_of(given.get("cors_origins"))
    except ValueError as error:
        raise BindError(str(error), source=parameters.source, span=place("cors_origins") or node.span) from None
    before = kept | {"memory": catalog.endpoints_memory()}
    return ServerChange(given, {name: before.get(name) for name in given})


def _readable(path: str, option: str, source: str, span: tuple[int, int] | None) -> str:
    """The whole path of a file that this user may read."""
    found = Path(path).expanduser().absolute()
    try:
        with found.open("rb") as file:
            file.read(1)
    except OSError as error:
        message = f"{option}: cannot read {found}: {error.strerror or error}"
        raise BindError(message, source=source, span=span, hint="give a PEM file that you may read") from None
    return str(found)


def _check_pair(certificate: str, key: str, source: str, span: tuple[int, int] | None) -> None:
    """``BindError`` where a certificate and a key do not make a server."""

    def refuse(message: str, hint: str) -> BindError:
        return BindError(message, source=source, span=span, hint=hint)

    def no_password() -> str:
        message = f"tls_key: the key {key} is encrypted, and a server has nobody to ask for its password"
        raise refuse(message, "give a key without one: openssl pkey -in key.pem -out server-key.pem")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            hint = "give the key that the certificate was made for, and the server's certificate first in its file"
            raise refuse(f"the key {key} does not belong to the certificate {certificate}", hint) from None
        hint = "both are PEM: tls_certificate the certificate, then those that signed it; tls_key its private key"
        raise refuse(f"no TLS with {certificate} and {key}: {error.reason or error}", hint) from None
    except OSError as error:  # the one that was set before is gone
        message = f"cannot read {certificate} and {key}: {error.strerror or error}"
        raise refuse(message, "give both tls_certificate and tls_key, as PEM files that you may read") from None


def run_alter_endpoints(node: AlterEndpoints, parameters: Parameters, catalog: Catalog, server: EndpointServer) -> Result:
    """Say what holds for all endpoints; a running server keeps to ``memory`` within the second."""
    change = bind_alter_endpoints(node, parameters, catalog)
    if change.at_start:
        with locked_settings(catalog.home):  # what somebody else has set meanwhile stays, and must fit with this
            change = bind_alter_endpoints(node, parameters, catalog)
            write_settings(catalog.home, read_settings(catalog.home.folder) | change.at_start)
    if "memory" in change.given:
        catalog.set_endpoints_memory(change.given["memory"])
    waits = change.at_start and server.url() is not None
    rows = [{"option": name, "value": value, "before": change.before[name]} for name, value in change.given.items()]
    columns = _columns(change.given)
    if columns is _TEXT_COLUMNS:
        rows = [{name: None if value is None else str(value) for name, value in row.items()} for row in rows]
    return rows_result(rows, columns, _AT_START.format(listing(change.at_start)) if waits else None)


def describe_alter_endpoints(node: AlterEndpoints, parameters: Parameters) -> tuple[Column, ...]:
    """The columns of the statement's answer."""
    return own_columns(_columns([option.name.name.lower() for option in node.options]))


def _columns(options: Iterable[str]) -> list[tuple[str, str]]:
    """Numbers, unless an option is a text."""
    texts = {spec.name for spec in SERVER_OPTIONS if spec.type == "str"}
    return _NUMBER_COLUMNS if texts.isdisjoint(options) else _TEXT_COLUMNS
