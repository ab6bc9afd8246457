"""DEPLOY MODEL … TO DATABASE and UNDEPLOY FUNCTION: versions as functions of a database, for any client of it.

version → [installer: its functions, in one transaction of the database] → (catalog) which version stands behind which function
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from sqlml_dialect import DeployFunction, Ident, QualifiedName, UndeployFunction

from sqlml.binder.models import resolve_model
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog, DatabaseFunction, Version
from sqlml.contracts import Engine, Installer, Notice, StoredFunction
from sqlml.errors import BindError, DatabaseError, Error, NotSupportedError, did_you_mean
from sqlml.registry import get, names
from sqlml.statements.handler import Handler, Handlers, always
from sqlml.statements.own_database import calls_functions
from sqlml.statements.result import Result, rows_result

EngineOf = Callable[[str | None], Engine]
"""The engine of a connection, by its name; of the home's own database for None."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COLUMNS = (("function", "string"), ("version", "string"), ("database", "string"), ("arguments", "string"))


def function_handlers(catalog: Catalog, engine_of: EngineOf, notice: Notice) -> Handlers:
    """DEPLOY … TO DATABASE and UNDEPLOY FUNCTION."""
    return {
        DeployFunction: Handler(
            lambda n, p: run_deploy_function(n, p.source, catalog, engine_of, notice),
            writes=always,
            lasts=lambda node: "be deployed from",
        ),
        UndeployFunction: Handler(lambda n, p: run_undeploy_function(n, p.source, catalog, engine_of, notice), writes=always),
    }


def run_deploy_function(node: DeployFunction, source: str, catalog: Catalog, engine_of: EngineOf, notice: Notice) -> Result:
    """Make a version a function of a database, new or in place of another version's, and remember it."""
    version = resolve_model(catalog, node.model, source)
    engine = function_engine(node.database, node.model, source, engine_of)
    installer, place = installer_of(engine), name_of(node.database)
    name = function_name(node, version, source, installer)
    before = _deployed(catalog, place, name[-1])
    try:
        made = installer.install(name, _model(version), version.signature, comment_of(version))
    except DatabaseError as error:
        raise error.pointed(source, (node.function or node.model).span) from None
    schema, plain = made[0].name
    try:
        catalog.record_function(place, schema, plain, version.uid, [function.text for function in made])
    except BaseException:
        _put_back(installer, (schema, plain), before.get(schema), notice)
        raise
    arguments = ", ".join(f"{argument} {kind}" for argument, kind in made[0].arguments)
    row = {"function": f"{schema}.{plain}", "version": version.name, "database": place or engine.name, "arguments": arguments}
    example = {column.name: version.example.get(column.name) for column in version.inputs}
    return rows_result([row], _COLUMNS, footer=f"try: SELECT {installer.call((schema, plain), example)}")


def _deployed(catalog: Catalog, place: str | None, name: str) -> dict[str, Version]:
    """The versions behind the functions of a name, by their schema."""
    at = place.lower() if place else None
    found = [f for f in catalog.functions() if (f.connection, f.name) == (at, name)]
    return {f.schema: catalog.resolve(f.model, f.version) for f in found}


def _put_back(installer: Installer, name: tuple[str, str], was: Version | None, notice: Notice) -> None:
    """What the database had before an installation that the catalog could not note; the error that is told is the catalog's."""
    try:
        if was is None:
            installer.remove(name)
        else:
            installer.install(name, _model(was), was.signature, comment_of(was))
    except Exception as error:
        said = error.message if isinstance(error, Error) else str(error)
        known = f"{was.name} is noted for it" if was else "nothing is noted of it"
        notice(f"the database keeps the new function {'.'.join(name)}, while {known}: {said}")


def run_undeploy_function(node: UndeployFunction, source: str, catalog: Catalog, engine_of: EngineOf, notice: Notice) -> Result:
    """Remove a function that DEPLOY has made, and forget it."""
    found = deployed_function(node, source, catalog, engine_of)
    function_engine(node.database, node.function, source, engine_of)
    remove_function(found, catalog, engine_of, notice)
    return Result()


def remove_function(function: DatabaseFunction, catalog: Catalog, engine_of: EngineOf, notice: Notice) -> None:
    """Remove a function from its database, and forget it; what is not ours any more stays."""
    _remove(function, installer_of(engine_of(function.connection)), notice)
    catalog.forget_function(function.connection, function.schema, function.name)


def remove_or_forget(function: DatabaseFunction, catalog: Catalog, engine_of: EngineOf, notice: Notice) -> None:
    """The same for CASCADE: in a database that cannot be reached the function stays, and is forgotten all the same."""
    try:
        installer = installer_of(engine_of(function.connection))
    except Error as error:
        notice(f"{error.message}: {function.text} may be there still, and is forgotten")
    else:
        _remove(function, installer, notice)
    catalog.forget_function(function.connection, function.schema, function.name)


def _remove(function: DatabaseFunction, installer: Installer, notice: Notice) -> None:
    try:
        installer.remove((function.schema, function.name))
    except BindError as error:
        notice(f"{error.message}: {function.text} is forgotten")


def installer_of(engine: Engine) -> Installer:
    """What makes functions that stay in a database; ``function_engine`` tells whether there is one."""
    made: Installer = get("installer", engine.name)(engine)
    return made


def plan_version(version: Version, installer: Installer, name: Sequence[str]) -> StoredFunction:
    """The function that a version would be."""
    return installer.plan(name, _model(version), version.signature, comment_of(version))


def comment_of(version: Version) -> str:
    return f"{version.name}, deployed by sqlml"


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
    types = names("installer")
    if engine.name not in types:
        which = f"connection {database.name}" if database else "this database"
        hint = f"name a connection of type {' or '.join(types)}, as in TO DATABASE pg"
        if calls_functions(engine):
            hint = f"here PREDICT(m) calls a model that is not deployed; {hint}"
        message = f"models can be deployed as functions of {' and '.join(types)} databases only: {which} is of type {engine.name}"
        raise NotSupportedError(message, source=source, span=place.span, hint=hint)
    return engine


def function_name(node: DeployFunction, version: Version, source: str, installer: Installer) -> tuple[str, ...]:
    """The name, perhaps with a schema, as the database folds it.  Without AS FUNCTION the model's own name."""
    if node.function is not None:
        return _folded(node.function, source, installer.fold)
    if not _PLAIN.fullmatch(version.model):
        statement = f"DEPLOY MODEL {node.model.text} TO DATABASE {name_of(node.database) or ''}".rstrip()
        message = f"the model's name {version.model} cannot be a function's"
        raise BindError(message, source=source, span=node.model.span, hint=f"give it one: {statement} AS FUNCTION …")
    return (installer.fold(version.model),)


def _folded(function: QualifiedName, source: str, fold: Callable[[str], str]) -> tuple[str, ...]:
    if len(function.parts) > 2:
        message = "a function is named by its schema and its name, at most"
        raise BindError(message, source=source, span=function.span, hint="as in AS FUNCTION public.churn")
    return tuple(part.name if part.quoted else fold(part.name) for part in function.parts)


def _fold(database: Ident | None, catalog: Catalog, engine_of: EngineOf) -> Callable[[str], str]:
    """How a database folds names of functions; no connection is opened to find out."""
    if database is None:
        kind = engine_of(None).name
    else:
        found = catalog.find_resource("connection", database.name) or catalog.find_resource("runner", database.name)
        kind = found.type if found else ""
    fold: Callable[[str], str] = get("installer", kind).fold if kind in names("installer") else str
    return fold


def deployed_function(node: UndeployFunction, source: str, catalog: Catalog, engine_of: EngineOf) -> DatabaseFunction:
    """The function that is meant.  ``BindError`` where there is none, or several of the name in different schemas."""
    parts, place = _folded(node.function, source, _fold(node.database, catalog, engine_of)), name_of(node.database)
    there = [f for f in catalog.functions() if f.connection == (place.lower() if place else None)]
    found = [f for f in there if f.name == parts[-1] and f.schema in (parts[0], *([f.schema] if len(parts) == 1 else []))]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f.text for f in found)
        raise BindError(f"{parts[-1]} is a function of several schemas", source=source, span=node.function.span, hint=listed)
    elsewhere = [f for f in catalog.functions() if f.name.lower() == parts[-1].lower() and f not in there]
    if elsewhere:
        at = elsewhere[0].connection
        hint: str | None = (
            f"it is in {at}: UNDEPLOY FUNCTION {parts[-1]} FROM DATABASE {at}" if at else "it is in the home's own database"
        )
    else:
        hint = did_you_mean(parts[-1], [f.name for f in there]) or "SHOW DEPLOYED FUNCTIONS lists all"
    where = f" of connection {place}" if place else ""
    raise BindError(f"unknown function {'.'.join(parts)}{where}", source=source, span=node.function.span, hint=hint)
