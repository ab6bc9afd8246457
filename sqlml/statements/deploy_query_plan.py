"""EXPLAIN of DEPLOY QUERY and REFRESH ENDPOINT: the models, the parameters, the tables and the order of the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlml_dialect import DeployQuery, RefreshEndpoint, quote_identifier

from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog
from sqlml.composition.copies import copy_info, copy_path, describe_copy
from sqlml.composition.formulas import make_formula
from sqlml.composition.plan import Ask, Composition, LookUp, Step
from sqlml.endpoint_options import own_options
from sqlml.features.program import Select
from sqlml.statements.deploy_query import bind_deploy_query, look_ups_of, table_name
from sqlml.statements.endpoint_changes import find_endpoint
from sqlml.statements.endpoint_relations import endpoint_text
from sqlml.statements.queries import Queries
from sqlml.statements.tree import PlanNode


def plan_query(node: DeployQuery | RefreshEndpoint, parameters: Parameters, queries: Queries, catalog: Catalog) -> PlanNode:
    """What one of these statements would do; raises what is wrong with it."""
    if isinstance(node, RefreshEndpoint):
        return _plan_refresh(node, parameters.source, catalog)
    change = bind_deploy_query(node, parameters, queries, catalog)
    composition = change.composition
    fields: dict[str, Any] = {
        "endpoint": change.endpoint,
        "now": endpoint_text(change.before) if change.before else None,
        "models": [part.name for part in composition.parts],
        "parameters": {column.name: column.sql_type for column in composition.parameters},
        "answers": {result.name: result.sql_type for result in composition.results},
        "options": own_options(change.options),
        "server": "started where none runs; the statement ends when every model is warm",
    }
    children = tuple(_step_node(step, composition, queries) for step in composition.steps)
    return PlanNode("deploy", fields, children, f"DEPLOY a query at the endpoint {change.endpoint}")


def _step_node(step: Step, composition: Composition, queries: Queries) -> PlanNode:
    """One step, in the order in which they run for each request."""
    if isinstance(step, LookUp):
        return _look_up_node(step, queries)
    if isinstance(step, Ask):
        name = composition.parts[step.part].name
        fields: dict[str, Any] = {"model": name, "inputs": {key: _shown(slot) for key, slot in step.inputs.items()}}
        fields["answers"] = list(step.answers)
        inputs = [_named(key, shown) for key, shown in fields["inputs"].items()]
        return PlanNode("ask", fields, (), f"ask {name} for {', '.join(step.answers)}", (f"inputs: {', '.join(inputs)}",))
    return _select_node(step, composition)


def _look_up_node(step: LookUp, queries: Queries) -> PlanNode:
    keys = {key.name: _shown(slot) for key, slot in zip(step.keys, step.values, strict=True)}
    fields: dict[str, Any] = {
        "table": step.table,
        "keys": keys,
        "columns": [column.name for column in step.columns],
        "rows_to_copy": queries.places.table_rows(table_name(step.table)),
    }
    return PlanNode("look_up", fields, (), f"look up {step.table} by {', '.join(keys)}")


def _select_node(step: Select, composition: Composition) -> PlanNode:
    """What is computed, by formulas or by the private database."""
    types = {given.name.lower(): given.cast or given.kind_type for given in step.given}
    fast = all(make_formula(e.sql, types) is not None for e in step.wanted)
    asks = [one for one in composition.steps if isinstance(one, Ask)]
    answers = {slot: f"{composition.parts[ask.part].name}[{output}]" for ask in asks for output, slot in ask.answers.items()}
    reads = {given.name: answers.get(given.slot) or _shown(given.slot) for given in step.given}
    fields: dict[str, Any] = {
        "sql": [_readable(e.sql, reads) for e in step.wanted],
        "reads": reads,
        "by": "formulas" if fast else "the database's SQL",
    }
    return PlanNode("compute", fields, (), "compute", hidden=("reads",))


def _named(name: str, shown: str) -> str:
    """An input and where it comes from, in a word where both are called the same."""
    return shown if shown.removeprefix("$").lower() == name.lower() else f"{name} = {shown}"


def _readable(sql: str, reads: Mapping[str, str]) -> str:
    """An expression with what it reads in place of names of ours."""
    for name, shown in reads.items():
        sql = sql.replace(quote_identifier(name), shown)
    return sql


def _shown(slot: str) -> str:
    """A slot for a person: ``$age``, ``the table's age``, ``an answer``."""
    what, _, name = slot.partition(":")
    if what == "p":
        return f"${name}"
    if what == "l":
        return name.partition(":")[2]
    return "computed" if what == "s" else f"answer {name.partition(':')[0]}"


def _plan_refresh(node: RefreshEndpoint, source: str, catalog: Catalog) -> PlanNode:
    endpoint = find_endpoint(catalog, node.endpoint, source)
    infos = [copy_info(copy_path(catalog.home.lookups, step.copy)) for step in look_ups_of(endpoint, node.endpoint, source)]
    fields = {"endpoint": endpoint.name, "copies_now": [describe_copy(info) for info in infos if info]}
    return PlanNode("refresh_endpoint", fields, (), f"REFRESH ENDPOINT {endpoint.name}: its tables are copied again")
