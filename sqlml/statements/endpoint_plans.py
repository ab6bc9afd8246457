"""EXPLAIN of the statements about endpoints and their keys: what would be there after, and what is there now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from sqlml_dialect import (
    AlterApiKey,
    AlterEndpoint,
    AlterEndpoints,
    CreateApiKey,
    Deploy,
    DropApiKey,
    EvaluateEndpoint,
    RollbackEndpoint,
    RotateApiKey,
    Undeploy,
)

from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog
from sqlml.endpoint_options import own_options
from sqlml.errors import BindError
from sqlml.rollout import guard_of
from sqlml.statements.api_keys import bind_alter_key, bind_create_key, bind_rotate_key, endpoints_text, find_key
from sqlml.statements.endpoint_changes import EndpointChange, bind_alter, bind_deploy, find_endpoint
from sqlml.statements.endpoint_relations import endpoint_text, guard_text, shares_text
from sqlml.statements.evaluate_endpoint import bind_evaluate_endpoint
from sqlml.statements.server_changes import bind_alter_endpoints
from sqlml.statements.tree import PlanNode

EndpointNode: TypeAlias = (
    Deploy
    | Undeploy
    | AlterEndpoint
    | AlterEndpoints
    | RollbackEndpoint
    | EvaluateEndpoint
    | CreateApiKey
    | RotateApiKey
    | AlterApiKey
    | DropApiKey
)


def plan_endpoint(node: EndpointNode, parameters: Parameters, catalog: Catalog) -> PlanNode:
    """What one of these statements would do; raises what is wrong with it."""
    match node:
        case Deploy():
            return plan_deploy(node, parameters, catalog)
        case Undeploy():
            return plan_undeploy(node, parameters.source, catalog)
        case AlterEndpoint():
            change = bind_alter(node, parameters, catalog)
            return PlanNode("alter_endpoint", _changed(change), (), f"ALTER ENDPOINT {change.endpoint}")
        case AlterEndpoints():
            server = bind_alter_endpoints(node, parameters, catalog)
            now = {f"{name}_now" if len(server.given) > 1 else "now": value for name, value in server.before.items()}
            return PlanNode("alter_endpoints", {**server.given, **now}, (), "ALTER ENDPOINTS")
        case RollbackEndpoint():
            return plan_rollback(node, parameters.source, catalog)
        case EvaluateEndpoint():
            return plan_evaluate(node, parameters, catalog)
        case CreateApiKey():
            new = bind_create_key(node, parameters, catalog)
            fields = {"api_key": new.name, "endpoints": endpoints_text(new.endpoints), "rate_limit": new.rate_limit}
            fields["seconds"] = new.lasts.total_seconds() if new.lasts else None
            return PlanNode("create_api_key", fields, (), f"CREATE API KEY {new.name}: its secret is shown once")
        case AlterApiKey():
            given = bind_alter_key(node, parameters, catalog)
            key = find_key(catalog, node.name, parameters.source)
            return PlanNode("alter_api_key", {"api_key": key.name, **given}, (), f"ALTER API KEY {key.name}")
        case RotateApiKey():
            options = bind_rotate_key(node, parameters, catalog)
            fields = {"api_key": find_key(catalog, node.name, parameters.source).name, **options}
            return PlanNode("alter_api_key", fields, (), f"ALTER API KEY {fields['api_key']}: a new secret, shown once")
        case DropApiKey():
            return plan_drop_key(node, parameters.source, catalog)


def plan_deploy(node: Deploy, parameters: Parameters, catalog: Catalog) -> PlanNode:
    """What would stand behind the endpoint."""
    change = bind_deploy(node, parameters, catalog)
    version = change.versions[change.shares[-1].uid]
    fields = {"endpoint": change.endpoint, "model": version.model, "version": version.version, **_changed(change)}
    fields["server"] = "started where none runs; the statement ends when the version is warm"
    return PlanNode("deploy", fields, (), f"DEPLOY {version.name} at the endpoint {change.endpoint}")


def _changed(change: EndpointChange) -> dict[str, Any]:
    """An endpoint before and after a change."""
    names = {uid: version.name for uid, version in change.versions.items()}
    guard = guard_of(change.options)
    return {
        "endpoint": change.endpoint,
        "now": endpoint_text(change.before) if change.before else None,
        "then": shares_text(change.shares, names),
        "options": own_options(change.options),
        "rollout": guard_text(guard) if guard else None,
        "notices": list(change.notices),
    }


def plan_undeploy(node: Undeploy, source: str, catalog: Catalog) -> PlanNode:
    """What would go."""
    if node.if_exists and catalog.endpoint(node.endpoint.name) is None:
        return PlanNode("undeploy", {"endpoint": None}, (), f"UNDEPLOY ENDPOINT {node.endpoint.name}: there is none")
    endpoint = find_endpoint(catalog, node.endpoint, source)
    keys = [key for key in catalog.api_keys() if endpoint.name.lower() in key.endpoints]
    fields = {"endpoint": endpoint.name, "now": endpoint_text(endpoint), "last_one": len(catalog.endpoints()) == 1}
    fields["api_keys"] = [key.name for key in keys if key.opens_only(endpoint.name)]
    fields["narrowed_api_keys"] = [key.name for key in keys if not key.opens_only(endpoint.name)]
    return PlanNode("undeploy", fields, (), f"UNDEPLOY ENDPOINT {endpoint.name}")


def plan_rollback(node: RollbackEndpoint, source: str, catalog: Catalog) -> PlanNode:
    """What would be there again."""
    endpoint = find_endpoint(catalog, node.endpoint, source)
    earlier = catalog.earlier(endpoint.name)
    if earlier is None:
        message = f"endpoint {endpoint.name} has no earlier state to go back to"
        raise BindError(message, source=source, span=node.endpoint.span, hint="SHOW ENDPOINTS tells what it serves")
    shares, options = earlier
    names: dict[str, str] = {}
    for share in shares:
        try:
            names[share.uid] = catalog.by_uid(share.uid).name
        except BindError as error:
            raise error.located(source, node.endpoint.span) from None
    fields: dict[str, Any] = {
        "endpoint": endpoint.name,
        "now": endpoint_text(endpoint),
        "options_now": own_options(endpoint.options),
    }
    fields |= {"then": shares_text(shares, names), "options_then": own_options(options)}
    return PlanNode("rollback_endpoint", fields, (), f"ROLLBACK ENDPOINT {endpoint.name}")


def plan_evaluate(node: EvaluateEndpoint, parameters: Parameters, catalog: Catalog) -> PlanNode:
    """What would be measured."""
    live = bind_evaluate_endpoint(node, parameters, catalog)
    fields: Mapping[str, Any] = {
        "endpoint": live.endpoint.name,
        "versions": live.names,
        "by": list(live.by),
        "options": {name: value for name, value in live.options.items() if value is not None},
        "reads": "the prediction log of the endpoint, joined with its feedback by request id or key",
    }
    return PlanNode("evaluate", fields, (), f"EVALUATE ENDPOINT {live.endpoint.name}")


def plan_drop_key(node: DropApiKey, source: str, catalog: Catalog) -> PlanNode:
    """What would open nothing any more."""
    names = {key.name.lower() for key in catalog.api_keys()}
    if node.if_exists and node.name.name.lower() not in names:
        return PlanNode("drop_api_key", {"api_key": None}, (), f"DROP API KEY {node.name.name}: there is none")
    key = find_key(catalog, node.name, source)
    fields = {"api_key": key.name, "endpoints": endpoints_text(key.endpoints)}
    return PlanNode("drop_api_key", fields, (), f"DROP API KEY {key.name}")
