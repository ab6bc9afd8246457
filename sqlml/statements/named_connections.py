"""Connections by name, as a session uses them: those that CREATE CONNECTION made, and the runners that read themselves."""

from __future__ import annotations

from collections.abc import Mapping

from sqlml.catalog import Catalog, Resource
from sqlml.connections import CONNECTION_TYPES, resolve_url
from sqlml.contracts import Engine, OptionSpec
from sqlml.errors import Error
from sqlml.registry import ENGINES, get, names


def known_connections(catalog: Catalog) -> Mapping[str, str]:
    """What a query may name before a table: name in lower case → name."""
    known: Mapping[str, str] = catalog.remembered(
        "known_connections",
        lambda: {found.name.lower(): found.name for found in (*_readers(catalog), *catalog.resources("connection"))},
    )
    return known


def open_connection(catalog: Catalog, name: str) -> Engine:
    """The engine of a connection.  ``BindError`` where there is none of the name; an error of opening it says whose it is."""
    found = next((r for r in _readers(catalog) if r.name.lower() == name.lower()), None)
    if found is None:
        found = catalog.resource("connection", name)
    address = resolve_url(found.name, found.options) if "url" in found.options else dict(found.options)
    try:
        opened: Engine = get("engine", found.type).open(address)
    except Error as error:
        if f"connection {found.name}" not in error.message:
            error.message = f"connection {found.name}: {error.message}"
        raise
    return opened


def connection_types() -> tuple[str, ...]:
    """What CREATE CONNECTION makes: ours, and the engines of other packages that have ``options``."""
    return (*CONNECTION_TYPES, *(name for name in names("engine") if name not in ENGINES and connection_options(name)))


def connection_options(type_name: str) -> tuple[OptionSpec, ...] | None:
    """The options of a type of connection; None where there is none of the name."""
    known = next((name for name in names("engine") if name.lower() == type_name.lower()), None)
    if known is None or known in ENGINES:
        return CONNECTION_TYPES.get(type_name.lower())
    options: tuple[OptionSpec, ...] | None = getattr(get("engine", known), "options", None)
    return options


def reads_itself(runner_type: str) -> bool:
    """Whether runners of a type run queries of tables that their name stands before; of an unknown type none do."""
    known = (name.lower() for name in names("runner_type"))
    return runner_type.lower() in known and bool(get("runner_type", runner_type).reads)


def _readers(catalog: Catalog) -> list[Resource]:
    """Runners that are connections too: an engine of the same name as their type reads for them."""
    return [runner for runner in catalog.resources("runner") if reads_itself(runner.type)]
