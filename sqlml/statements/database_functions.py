"""DEPLOY MODEL … TO DATABASE and UNDEPLOY FUNCTION: versions as functions of a database, for any client of it.

version → [target: its functions, in one transaction of the database] → (catalog) which version stands behind which function
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from sqlml_dialect import DeployFunction, Ident, QualifiedName, UndeployFunction, quote_identifier, quote_string

from sqlml.binder.models import resolve_model
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog, DatabaseFunction, Version
from sqlml.contracts import Engine
from sqlml.errors import BindError, Error, NotSupportedError, did_you_mean
from sqlml.registry import INSTALLERS, load
from sqlml.statements.result import Result, rows_result

EngineOf = Callable[[str | None], Engine]
"""The engine of a connection, by its name; of the home's own database for None."""

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_COLUMNS = (("function", "string"), ("version", "string"), ("database", "string"), ("arguments", "string"))


def run_deploy_function(node: DeployFunction, source: str, catalog: Catalog, engine_of: EngineOf) -> Result:
    """Make a version a function of a database, new or in place of another version's, and remember it."""
    version = resolve_model(catalog, node.model, source)
    name = function_name(node, version, source)
    engine = function_engine(node.database, node.model, source, engine_of)
    place = name_of(node.database)
    try:
        made = installer(engine, "install")(engine, name, _model(version), version.signature, comment_of(version))
    except (BindError, NotSupportedError) as error:
        raise error.located(source, (node.function or node.model).span) from None
    schema, plain = made[0].name
    known = catalog.find_function(place, schema, plain)
    try:
        catalog.record_function(place, schema, plain, version.uid, [output_text(function) for function in made])
    except BaseException:
        if known is None:
            installer(engine, "remove")(engine, (schema, plain))  # nobody would know of it
        raise
    arguments = ", ".join(f"{argument} {kind}" for argument, kind in made[0].arguments)
    row = {"function": f"{schema}.{plain}", "version": version.name, "database": place or engine.name, "arguments": arguments}
    return rows_result([row], _COLUMNS, footer=f"try: SELECT {_call(schema, plain, version)}")


def run_undeploy_function(
    node: UndeployFunction, source: str, catalog: Catalog, engine_of: EngineOf, notice: Callable[[str], None]
) -> Result:
    """Remove a function that DEPLOY has made, and forget it."""
    found = deployed_function(node, source, catalog)
    function_engine(node.database, node.function, source, engine_of)
    remove_function(found, catalog, engine_of, notice)
    return Result()


def remove_function(function: DatabaseFunction, catalog: Catalog, engine_of: EngineOf, notice: Callable[[str], None]) -> None:
    """Remove a function from its database, and forget it; what is not ours any more stays."""
    engine = engine_of(function.connection)
    try:
        installer(engine, "remove")(engine, (function.schema, function.name))
    except BindError as error:
        notice(f"{error.message}: {function.text} is forgotten")
    catalog.forget_function(function.connection, function.schema, function.name)


def installer(engine: Engine, what: str) -> Any:
    """``install``, ``remove`` or ``compile_function`` of a database."""
    return load(f"{INSTALLERS[engine.name]}:{what}")


def compile_version(version: Version, engine: Engine, name: Sequence[str]) -> Any:
    """The function that a version would be: its ``arguments``, ``result``, ``size`` and ``memory``."""
    return installer(engine, "compile_function")(_model(version), version.signature, "predict", name, comment_of(version))


def comment_of(version: Version) -> str:
    return f"{version.name}, deployed by sqlml"


def output_text(function: Any) -> str:
    """``public.churn(age double precision, job text) text``"""
    arguments = ", ".join(f"{_shown(name)} {kind}" for name, kind in function.arguments)
    return f"{'.'.join(map(_shown, function.name))}({arguments}) {function.result}"


def _model(version: Version) -> Model:
    return Model.open(version.bundle, version.sha256)


# --- names ------------------------------------------------------------------------------------------------------------


def name_of(database: Ident | None) -> str | None:
    return database.name if database else None


def function_engine(database: Ident | None, at: Any, source: str, engine_of: EngineOf) -> Engine:
    """The database's engine.  ``NotSupportedError`` where models cannot be functions of it."""
    place = database or at
    try:
        engine = engine_of(name_of(database))
    except Error as error:
        raise error.located(source, place.span) from None
    if engine.name not in INSTALLERS:
        which = f"connection {database.name}" if database else "this database"
        hint = "name a connection of type postgres: TO DATABASE c"
        if engine.name == "duckdb":
            hint = f"here PREDICT(m) calls a model that is not deployed; {hint}"
        message = f"models can be deployed as functions of PostgreSQL only: {which} is of type {engine.name}"
        raise NotSupportedError(message, source=source, span=place.span, hint=hint)
    return engine


def function_name(node: DeployFunction, version: Version, source: str) -> tuple[str, ...]:
    """The name, perhaps with a schema, as the database folds it.  Without AS FUNCTION the model's own name."""
    if node.function is not None:
        return _folded(node.function, source)
    name = version.model.lower()
    if not _PLAIN.fullmatch(name):
        statement = f"DEPLOY MODEL {node.model.text} TO DATABASE {name_of(node.database) or ''}".rstrip()
        message = f"the model's name {version.model} cannot be a function's"
        raise BindError(message, source=source, span=node.model.span, hint=f"give it one: {statement} AS FUNCTION …")
    return (name,)


def _folded(function: QualifiedName, source: str) -> tuple[str, ...]:
    if len(function.parts) > 2:
        message = "a function is named by its schema and its name, at most"
        raise BindError(message, source=source, span=function.span, hint="as in AS FUNCTION public.churn")
    return tuple(part.name if part.quoted else part.name.lower() for part in function.parts)


def deployed_function(node: UndeployFunction, source: str, catalog: Catalog) -> DatabaseFunction:
    """The function that is meant.  ``BindError`` where there is none, or several of the name in different schemas."""
    parts, place = _folded(node.function, source), name_of(node.database)
    there = [f for f in catalog.functions() if f.connection == (place.lower() if place else None)]
    found = [f for f in there if f.name == parts[-1] and f.schema in (parts[0], *([f.schema] if len(parts) == 1 else []))]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f.text for f in found)
        raise BindError(f"{parts[-1]} is a function of several schemas", source=source, span=node.function.span, hint=names)
    elsewhere = [f for f in catalog.functions() if f.name == parts[-1]]
    if elsewhere:
        at = elsewhere[0].connection
        hint: str | None = (
            f"it is in {at}: UNDEPLOY FUNCTION {parts[-1]} FROM DATABASE {at}" if at else "it is in the home's own database"
        )
    else:
        hint = did_you_mean(parts[-1], [f.name for f in there]) or "SHOW DEPLOYED FUNCTIONS lists all"
    where = f" of connection {place}" if place else ""
    raise BindError(f"unknown function {'.'.join(parts)}{where}", source=source, span=node.function.span, hint=hint)


# --- a call to try ----------------------------------------------------------------------------------------------------


def _call(schema: str, name: str, version: Version) -> str:
    """A call with the values of a row that the version was trained on."""
    arguments = (f"{_shown(c.name)} => {_literal(version.example.get(c.name))}" for c in version.inputs)
    return f"{_shown(schema)}.{_shown(name)}({', '.join(arguments)})"


def _shown(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else quote_identifier(name)


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"ARRAY[{', '.join(map(_literal, value))}]"
    return quote_string(str(value))
