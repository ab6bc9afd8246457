"""EXPLAIN of what concerns other places: connections, runners, functions of databases.  Nothing is opened but what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlml_dialect import CreateResource, DeployFunction, DropResource, UndeployFunction

from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog
from sqlml.contracts import Engine
from sqlml.errors import BindError, NotSupportedError
from sqlml.statements.database_functions import (
    EngineOf,
    deployed_function,
    function_engine,
    function_name,
    installer_of,
    name_of,
    plan_version,
)
from sqlml.statements.resources import bind_resource, check_built_in, masked
from sqlml.statements.tree import PlanNode

PlaceNode = CreateResource | DropResource | DeployFunction | UndeployFunction


def plan_place(node: PlaceNode, parameters: Parameters, catalog: Catalog, engine_of: EngineOf) -> PlanNode:
    """What one of these statements would do; raises what is wrong with it."""
    match node:
        case CreateResource():
            return plan_create_resource(node, parameters, catalog, engine_of(None))
        case DropResource():
            return plan_drop_resource(node, parameters.source, catalog)
        case DeployFunction():
            return plan_deploy_function(node, parameters.source, catalog, engine_of)
        case UndeployFunction():
            return plan_undeploy_function(node, parameters.source, catalog, engine_of)


def plan_create_resource(node: CreateResource, parameters: Parameters, catalog: Catalog, home: Engine) -> PlanNode:
    """What CREATE would keep; raises what is wrong with it."""
    parameters = replace(parameters, source=masked(node, parameters.source))
    options = bind_resource(node, parameters, catalog, home)
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
    functions = [f.text for f in catalog.functions() if node.what == "connection" and f.connection == node.name.name.lower()]
    fields = {"name": node.name.name, "type": found.type if found else None, "functions": functions, "refused": bool(functions)}
    return PlanNode(f"drop_{node.what}", fields, (), f"DROP {node.what.upper()} {node.name.name}")


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
