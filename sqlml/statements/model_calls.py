"""The calls of models inside a statement's query, as nodes of its plan."""

from __future__ import annotations

from collections.abc import Iterator

from sqlml_dialect import Span

from sqlml.binder.models import resolve_model
from sqlml.binder.select_items import ItemPiece
from sqlml.binder.table_calls import TablePiece
from sqlml.binder.text import Piece, Sql
from sqlml.catalog import Catalog, Version
from sqlml.errors import listing
from sqlml.statements.missing import all_calls
from sqlml.statements.queries import Queries
from sqlml.statements.tree import PlanNode

INSIDE = "inside the database, chunk by chunk"
IN_ITS_SQL = "inside the database, by a function in its own SQL"
BESIDE = "here, batch by batch as the rows come from the database"
BEFORE = "here, before the query runs: its rows are copied into the database"


def call_nodes(sql: Sql, span: Span, queries: Queries, catalog: Catalog) -> tuple[PlanNode, ...]:
    """A node for each call of ours in a stretch of a query's source: which version it means now, what it takes, and where it is
    computed.  ``sql`` is the query as it is sent.
    """
    elsewhere = dict(_elsewhere(sql.pieces))
    within = INSIDE if queries.inside else IN_ITS_SQL
    nodes = []
    for call in all_calls(queries.find(sql.source, span)):
        version = resolve_model(catalog, call.model, sql.source)
        function = "predict" if call.function == "model" else call.function
        where = elsewhere.get(call.span, within)
        nodes.append(scoring_node(version, function, f"{function.upper()}({version.name})", where))
    return tuple(nodes)


def _elsewhere(pieces: tuple[Piece, ...]) -> Iterator[tuple[Span | None, str]]:
    """The places of the calls that the database does not compute, and who does."""
    for piece in pieces:
        if isinstance(piece, ItemPiece):
            yield piece.span, BESIDE
        elif isinstance(piece, TablePiece):
            yield piece.span, BEFORE
            body = getattr(piece.table, "body", None)
            yield from _elsewhere(body.pieces if isinstance(body, Sql) else ())


def scoring_node(version: Version, function: str, title: str, where: str) -> PlanNode:
    """A version that scores rows; ``where``: inside the database, on a runner, or on this side of the connection."""
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
