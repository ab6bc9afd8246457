"""CREATE and DROP of connections and runners."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlml_dialect import CreateResource, DropResource, Placeholder, Struct

from sqlml.binder.models import check_name
from sqlml.binder.options import bind_options, option_span
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, DatabaseFunction
from sqlml.connections import PASSWORD_FILE, OptionFault, connection_fault, resolve_url, secrets_in
from sqlml.contracts import HomeEngine, Notice, OptionSpec
from sqlml.errors import BindError, Error, OperationalError, did_you_mean
from sqlml.registry import get, names
from sqlml.statements.handler import Handler, Handlers, always, no_columns
from sqlml.statements.named_connections import connection_options, connection_types, reads_itself
from sqlml.statements.result import Result

RESERVED = ("sqlml", "ml")
"""Names before a dot that mean something else in a query."""


def resource_handlers(
    catalog: Catalog,
    home: HomeEngine,
    schema: str,
    forget: Callable[[str], None],
    remove: Callable[[DatabaseFunction], None],
    notice: Notice,
) -> Handlers:
    """CREATE and DROP of connections and runners; ``schema`` is that of our relations."""
    return {
        CreateResource: Handler(
            lambda n, p: run_create_resource(n, p, catalog, home, schema, notice, forget), writes=always, columns=no_columns
        ),
        DropResource: Handler(
            lambda n, p: run_drop_resource(n, p.source, catalog, forget, remove), writes=always, columns=no_columns
        ),
    }


def run_create_resource(
    node: CreateResource,
    parameters: Parameters,
    catalog: Catalog,
    home: HomeEngine,
    schema: str,
    notice: Notice,
    forget: Callable[[str], None],
) -> Result:
    """Keep a connection or a runner; nothing is opened.  ``forget`` closes what was opened by the name before."""
    parameters = replace(parameters, source=masked(node, parameters.source))
    if node.if_not_exists and catalog.find_resource(node.what, node.name.name):
        return Result()
    options = bind_resource(node, parameters, catalog, home, schema)
    try:
        catalog.create_resource(node.what, node.name.name, node.type.name.lower(), options, replace=node.or_replace)
    except BindError as error:
        raise error.located(parameters.source, node.name.span) from None
    forget(node.name.name)
    if node.what == "connection" and "url" in options:
        _tell_if_unready(node.name.name, options, notice)
    return Result()


def run_drop_resource(
    node: DropResource,
    source: str,
    catalog: Catalog,
    forget: Callable[[str], None],
    remove: Callable[[DatabaseFunction], None],
) -> Result:
    """Forget a connection or a runner; with CASCADE first the functions that models are there (``remove``)."""
    if node.if_exists and catalog.find_resource(node.what, node.name.name) is None:
        return Result()
    try:
        check_built_in(node)
        for function in deployed_there(node, catalog) if node.cascade else ():
            remove(function)
        catalog.drop_resource(node.what, node.name.name)
    except BindError as error:
        raise error.located(source, node.name.span) from None
    forget(node.name.name)
    return Result()


def deployed_there(node: DropResource, catalog: Catalog) -> list[DatabaseFunction]:
    """The functions that models are in the database of a connection."""
    return [f for f in catalog.functions() if node.what == "connection" and f.connection == node.name.name.lower()]


def bind_resource(
    node: CreateResource, parameters: Parameters, catalog: Catalog, home: HomeEngine, schema: str
) -> dict[str, Any]:
    """The options given, checked, as JSON can hold them.  ``BindError`` points at the name, type or option that is wrong."""
    specs = _specs(node, parameters.source)
    _check_free(node, parameters.source, catalog, home, schema)
    owner = f"a {node.what} of type {node.type.name.lower()}"
    bound = bind_options(node.options, specs, owner, parameters)
    options: dict[str, Any] = {name: value for name, value in bound.items() if value is not None}
    fault = connection_fault(node.type.name.lower(), options) or _runner_fault(node, options)
    if fault is not None:
        span = option_span(node.options, fault.option) if fault.option else None
        raise BindError(fault.message, source=parameters.source, span=span or node.type.span, hint=fault.hint)
    if PASSWORD_FILE in options:
        options[PASSWORD_FILE] = str(Path(options[PASSWORD_FILE]).expanduser().absolute())
    return dict(json.loads(json.dumps(options, ensure_ascii=False, default=str)))


def _specs(node: CreateResource, source: str) -> tuple[OptionSpec, ...]:
    """The options of a type."""
    name = node.type.name
    if node.what == "connection":
        specs = connection_options(name)
        if specs is not None:
            return specs
        known = connection_types()
        near, more = did_you_mean(name, known), f"there are: {', '.join(known)}"
        hint = f"{near}  ({more})" if near else more
        raise BindError(f"unknown connection type {name}", source=source, span=node.type.span, hint=hint)
    try:
        return tuple(get("runner_type", name).options)
    except Error as error:
        raise error.located(source, node.type.span) from None


def _runner_fault(node: CreateResource, options: Mapping[str, Any]) -> OptionFault | None:
    """What the runner's own class says of its options together, where it says anything."""
    if node.what != "runner":
        return None
    check: Callable[[Mapping[str, Any]], OptionFault | None] | None = getattr(get("runner_type", node.type.name), "fault", None)
    return check(options) if check is not None else None


# --- names ------------------------------------------------------------------------------------------------------------


def _check_free(node: CreateResource, source: str, catalog: Catalog, home: HomeEngine, schema: str) -> None:
    """``BindError`` for a name that cannot be one, or that means something else already."""
    name, span = node.name.name, node.name.span
    check_name(name, source, span, f"a {node.what}")
    if "." in name:
        raise BindError(f"{name!r} cannot be the name of a {node.what}: it contains a dot", source=source, span=span)
    is_place = node.what == "connection" or reads_itself(node.type.name)
    why = _built_in(node.what, name)
    if why is None and is_place:
        why = _other_place(node, catalog) or _taken_at_home(name, home, schema)
    if why is not None:
        raise BindError(f"a {node.what} cannot be called {name}: {why}", source=source, span=span, hint="choose another name")


def _built_in(what: str, name: str) -> str | None:
    if what == "runner" and name.lower() in (known.lower() for known in names("runner")):
        return "that runner is built in"
    return None


def _other_place(node: CreateResource, catalog: Catalog) -> str | None:
    """Connections and runners that read themselves both stand before a table's name."""
    if node.what == "runner":
        return "there is a connection of that name" if catalog.find_resource("connection", node.name.name) else None
    runner = catalog.find_resource("runner", node.name.name)
    return "the runner of that name is a connection already" if runner is not None and reads_itself(runner.type) else None


def _taken_at_home(name: str, home: HomeEngine, schema: str) -> str | None:
    """``c.t`` would be the home's own table."""
    if name.lower() in (*RESERVED, schema.lower()):
        return f"{name}.… is sqlml's own"
    taken = home.has_schema(name) or home.has_schema(home.fold(name))
    return "the database has a schema or database of that name" if taken else None


def check_built_in(node: DropResource) -> None:
    why = _built_in(node.what, node.name.name)
    if why is not None:
        raise BindError(f"{node.what} {node.name.name} cannot be dropped: {why}")


# --- secrets ----------------------------------------------------------------------------------------------------------


def masked(node: CreateResource, source: str) -> str:
    """The text with stars for what looks like a secret, for the line that an error shows; every place stays where it is."""
    for option in node.options:
        first, last = option.value_span
        written = source[first:last]
        for _, secret in secrets_in({option.name.name: _plain(option.value)}):
            text = str(secret)
            whole = "%" in written or text not in written  # it may be there in other letters, or in part
            written = "*" * len(written) if whole else written.replace(text, "*" * len(text))
        source = source[:first] + written + source[last:]
    return source


def _plain(value: Any) -> Any:
    """An option's value as it stands in the text; a parameter's is not there."""
    if isinstance(value, Struct):
        return {name: _plain(item) for name, item in value.items}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, Placeholder) else value


def _tell_if_unready(name: str, options: Mapping[str, Any], notice: Notice) -> None:
    try:
        resolve_url(name, options)
    except OperationalError as error:
        notice(f"{error.message}; it is needed when the connection is first used")
