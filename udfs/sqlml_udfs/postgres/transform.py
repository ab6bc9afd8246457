"""TRANSFORM in PL/pgSQL: one query over the arguments, whose columns go into variables.

Its expressions are PostgreSQL's own: where a function differs from DuckDB's, so does the feature.  Features are compared with the
model's own, on rows made for it, before a function is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlml.errors import NotSupportedError
from sqlml.features.transform import Transform
from sqlml.registry import missing_extra
from sqlml_udfs.postgres.body import Body
from sqlml_udfs.postgres.text import TYPES

if TYPE_CHECKING:
    from sqlglot import exp

_ROW = "__sqlml_row"

_PARTS = {
    "Hour": "hour",
    "Minute": "minute",
    "Second": "second",
    "Quarter": "quarter",
    "Week": "week",
    "DayOfWeek": "dow",
    "DayOfWeekIso": "isodow",
    "DayOfYear": "doy",
}
"""Functions of DuckDB that are EXTRACT here, and that sqlglot leaves as they are."""


def transform(body: Body, given: Transform, places: Mapping[str, str]) -> dict[str, str]:
    """Add the query; the variable of each output by name.  ``places`` is the parameter (``1``, ``2``, …) of each input.

    ``NotSupportedError`` names what cannot be SQL; ``MissingExtra`` where sqlglot is not installed.
    """
    try:
        from sqlml.exports.sql_build import Stages
        from sqlml.exports.sql_transform import transform_sql
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error
    names = [i.name for i in given.inputs]
    if len({name.lower() for name in names}) < len(names):
        raise NotSupportedError(
            "TRANSFORM has no form in PostgreSQL: it reads columns whose names differ in case alone", hint="rename one of them"
        )
    stages = Stages(_ROW, [], names)
    try:
        found = transform_sql(given, stages, "postgres")
    except NotSupportedError as error:
        raise NotSupportedError(error.message, hint="PREDICT MODEL … INTO a table computes it outside the database") from error
    variables = {column.name: body.declare(TYPES[column.kind]) for column in given.outputs}
    query = stages.finish([(f"o{i}", found[name]) for i, name in enumerate(variables)], "postgres")
    text = _with_row(query, {name: places[name] for name in names}).transform(_moment_part).sql("postgres", copy=False)
    casts = ", ".join(f"o{i}::{TYPES[column.kind]}" for i, column in enumerate(given.outputs))
    body.prefer_columns()
    into = ", ".join(variables.values())
    body.add(f"SELECT {casts} FROM ({text}) AS q INTO STRICT {into};")  # noqa: S608 - written by sqlglot
    return variables


def _moment_part(node: Any) -> Any:
    """``hour(at)`` → ``EXTRACT(hour FROM at)``"""
    from sqlglot import exp

    part = _PARTS.get(type(node).__name__)
    return exp.Extract(this=exp.Var(this=part), expression=node.this) if part else node


def _with_row(query: Any, places: Mapping[str, str]) -> exp.Select:
    """The query with one row of the arguments as its table."""
    from sqlglot import exp

    from sqlml.exports.sql_build import name

    values: list[Any] = [exp.alias_(exp.Parameter(this=exp.Literal.number(place)), name(text)) for text, place in places.items()]
    row = exp.CTE(this=exp.Select(expressions=values), alias=exp.TableAlias(this=name(_ROW)))
    steps = query.args.get("with_")
    query.set("with_", exp.With(expressions=[row, *(steps.expressions if steps else [])]))
    found: exp.Select = query
    return found
