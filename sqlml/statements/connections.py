"""Connections by name, as a session uses them: those that CREATE CONNECTION made, and the runners of type spark."""

from __future__ import annotations

from collections.abc import Mapping

from sqlml.catalog import Catalog, Resource
from sqlml.connections import resolve_url
from sqlml.contracts import Engine
from sqlml.errors import Error
from sqlml.registry import ENGINES, load


def known_connections(catalog: Catalog) -> Mapping[str, str]:
    """What a query may name before a table: name in lower case → name."""
    return {found.name.lower(): found.name for found in (*_spark_runners(catalog), *catalog.resources("connection"))}


def open_connection(catalog: Catalog, name: str) -> Engine:
    """The engine of a connection.  ``BindError`` where there is none of the name; an error of opening it says whose it is."""
    found = next((r for r in _spark_runners(catalog) if r.name.lower() == name.lower()), None)
    if found is None:
        found = catalog.resource("connection", name)
    address = dict(found.options) if found.type == "spark" else resolve_url(found.name, found.options)
    try:
        opened: Engine = load(ENGINES[found.type]).open(address)
    except Error as error:
        if found.name not in error.message:
            error.message = f"connection {found.name}: {error.message}"
        raise
    return opened


def _spark_runners(catalog: Catalog) -> list[Resource]:
    return [runner for runner in catalog.resources("runner") if runner.type == "spark"]
