"""The calls of models inside a statement's query, as nodes of its plan."""

from __future__ import annotations

from sqlml_dialect import Span

from sqlml.binder.models import resolve_model
from sqlml.catalog import Catalog, Version
from sqlml.errors import listing
from sqlml.statements.missing import all_calls
from sqlml.statements.queries import Queries
from sqlml.statements.tree import PlanNode

WHERE = "inside the database, chunk by chunk"
BESIDE = "here, batch by batch as the rows come from the database"


def call_nodes(source: str, span: Span, queries: Queries, catalog: Catalog) -> tuple[PlanNode, ...]:
    """A node for each call of ours: which version it means now, what it takes, and where it is computed."""
    nodes = []
    for call in all_calls(queries.find(source, span)):
        version = resolve_model(catalog, call.model, source)
        function = "predict" if call.function == "model" else call.function
        inside = queries.inside or not function.startswith("ml.")
        nodes.append(scoring_node(version, function, f"{function.upper()}({version.name})", inside=inside))
    return tuple(nodes)


def scoring_node(version: Version, function: str, title: str, *, inside: bool = True, runner: str | None = None) -> PlanNode:
    """A version that scores rows where they are, on a runner, or on this side of the connection."""
    where = f"on {runner}" if runner else WHERE if inside else BESIDE
    fields = {
        "model": version.model,
        "version": version.version,
        "algorithm": version.algorithm,
        "function": function,
        "where": where,
        "inputs": [i.name for i in version.inputs],
    }
    lines = (f"by {version.algorithm}, {where}", f"inputs: {listing((i.name for i in version.inputs), 50)}")
    return PlanNode("scoring", fields, (), title, lines)
