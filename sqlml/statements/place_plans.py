"""EXPLAIN of what concerns other places: connections, runners, functions of databases.  Nothing is opened but what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlml_dialect import CreateResource, DeployFunction, DropResource, UndeployFunction

from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog
from sqlml.contracts import HomeEngine
from sqlml.errors import BindError, NotSupportedError, listing
from sqlml.statements.database_functions import (
    EngineOf,
    deployed_function,
    function_engine,
    function_name,
    installer_of,
    name_of,
    plan_version,
)
from sqlml.statements.places import Places
from sqlml.statements.resources import bind_resource, check_built_in, deployed_there, masked
from sqlml.statements.tree import PlanNode

PlaceNode = CreateResource | DropResource | DeployFunction | UndeployFunction


def plan_place(node: PlaceNode, parameters: Parameters, catalog: Catalog, places: Places, schema: str) -> PlanNode:
    """What one of these statements would do; raises what is wrong with it.  ``schema`` is that of our relations."""
    match node:
        case CreateResource():
            return plan_create_resource(node, parameters, catalog, places.home, schema)
        case DropResource():
            return plan_drop_resource(node, parameters.source, catalog)
        case DeployFunction():
            return plan_deploy_function(node, parameters.source, catalog, places.engine)
        case UndeployFunction():
            return plan_undeploy_function(node, parameters.source, catalog, places.engine)


def plan_create_resource(
    node: CreateResource, parameters: Parameters, catalog: Catalog, home: HomeEngine, schema: str
) -> PlanNode:
    """What CREATE would keep; raises what is wrong with it."""
    parameters = replace(parameters, source=masked(node, parameters.source))
    options = bind_resource(node, parameters, catalog, home, schema)
    now = catalog.find_resource(node.what, node.name.name)
    fields = {"name": node.name.name, "type": node.type.name.lower(), "options": options, "now": now.type if now else None}
    return PlanNode(f"create_{node.what}", fields, (), f"CREATE {node.what.upper()} {node.name.name}: nothing is opened")


def plan_drop_resource(node: DropResource, source: str, catalog: Catalog) -> PlanNode:
    """What DROP would forget."""
    found = catalog.find_resource(node.what, node.name.name)
    if found is None and not node.if_exists:
        try:
            check_built_in(node)
            catalog.resource(node.what, node.name.name)
        except BindError as error:
            raise error.located(source, node.name.span) from None
    functions = [function.text for function in deployed_there(node, catalog)]
    refused = bool(functions) and not node.cascade
    fields: Mapping[str, Any] = {
        "name": node.name.name,
        "type": found.type if found else None,
        "functions": functions,
        "refused": refused,
    }
    verdict = f": refused, since models are deployed there: {listing(functions)}" if refused else ""
    return PlanNode(f"drop_{node.what}", fields, (), f"DROP {node.what.upper()} {node.name.name}{verdict}")


def plan_deploy_function(node: DeployFunction, source: str, catalog: Catalog, engine_of: EngineOf) -> PlanNode:
    """What DEPLOY … TO DATABASE would install: the function is made, and shown to nobody."""
    version = resolve_model(catalog, node.model, source)
    engine = function_engine(node.database, node.model, source, engine_of)
    installer = installer_of(engine)
    name = function_name(node, version, source, installer)
    try:
        function = plan_version(version, installer, name)
    except (BindError, NotSupportedError) as error:
        raise error.located(source, node.model.span) from None
    place = name_of(node.database)
    there = [f for f in catalog.functions() if (f.connection, f.name) == (place.lower() if place else None, name[-1])]
    fields: Mapping[str, Any] = {
        "model": version.model,
        "version": version.version,
        "database": place,
        "engine": engine.name,
        "function": function.text,
        "nodes": function.size,
        "memory": function.memory,
        "now": [f"{f.text} is {f.model}@{f.version}" for f in there],
    }
    title = f"DEPLOY {version.name} as the function {'.'.join(name)}: in one transaction, in place of what it was"
    return PlanNode("deploy", fields, (), title)


def plan_undeploy_function(node: UndeployFunction, source: str, catalog: Catalog, engine_of: EngineOf) -> PlanNode:
    """What UNDEPLOY FUNCTION would remove."""
    found = deployed_function(node, source, catalog, engine_of)
    fields = {"function": found.text, "database": found.connection, "now": f"{found.model}@{found.version}"}
    return PlanNode("undeploy", fields, (), f"UNDEPLOY FUNCTION {found.text}")
