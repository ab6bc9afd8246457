"""TRANSFORM as SQL: its own expressions, transpiled, and those fitted functions whose state is a few numbers or words.

An expression's functions are the target database's: where upper('ß') or round(0.5) differ between two, so do the features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlglot
from sqlglot import exp

from sqlml.errors import NotSupportedError
from sqlml.exports.blame import about
from sqlml.exports.sql_build import (
    Stages,
    choose,
    column,
    constant,
    double,
    integer,
    is_null,
    minus,
    number,
    when,
    without_nan,
)
from sqlml.features.fitted.buckets import bucket_names
from sqlml.features.program import Call, Nested, Program, Select
from sqlml.features.transform import Transform
from sqlml.types import Kind

Columns = dict[str, exp.Expression]
"""What stands for each slot: a column of the query, or an expression over its table."""


def transform_sql(transform: Transform, stages: Stages, dialect: str) -> Columns:
    """Add the steps of a transform; its outputs by name.  ``NotSupportedError`` names what cannot be SQL."""
    program = Program.from_json(transform.to_json()["program"])
    names = {i.name: stages.fresh("i") for i in program.inputs}
    values = [(names[i.name], double(column(i.name)) if i.kind is Kind.NUMBER else column(i.name)) for i in program.inputs]
    stages.add("inputs", values)
    return _program(program, {name: column(own) for name, own in names.items()}, stages, dialect)


def _program(program: Program, given: Columns, stages: Stages, dialect: str) -> Columns:
    slots: Columns = {f"i:{name}": value for name, value in given.items()}
    for step in program.steps:
        if isinstance(step, Select):
            _select(step, slots, stages, dialect)
        elif isinstance(step, Call):
            name = stages.fresh("t")
            stages.add("fitted", [(name, _call(step, slots[step.source].copy(), stages, dialect))])
            slots[step.slot] = column(name)
        else:
            _nested(step, slots, stages, dialect)
    for output in program.outputs:
        if output.path or output.kind in (Kind.NUMBERS, Kind.TEXTS):
            raise _refused(f"{output.name} ({output.sql}), which is a list or a field of a STRUCT")
    return {output.name: slots[output.slot].copy() for output in program.outputs}


def _nested(step: Nested, slots: Columns, stages: Stages, dialect: str) -> None:
    inner = Program.from_json(step.document["program"])
    found = _program(inner, {name: slots[slot].copy() for name, slot in step.inputs.items()}, stages, dialect)
    slots |= {f"n:{step.number}:{name}": value for name, value in found.items()}


# --- expressions ------------------------------------------------------------------------------------------------------


def _select(step: Select, slots: Columns, stages: Stages, dialect: str) -> None:
    """Each expression may use those before it by name: then it needs a step of its own."""
    known: Columns = {}
    for given in step.given:
        value = slots[given.slot].copy()
        known[given.name.lower()] = exp.TryCast(this=value, to=_type(given.cast)) if given.cast else value
    waiting: list[tuple[str, exp.Expression]] = []
    for item in step.expressions:
        tree = sqlglot.parse_one(item.sql, read="duckdb")
        names = {c.name.lower() for c in tree.find_all(exp.Column)}
        if any(known.get(name) == column(own) for name in names for own, _ in waiting):
            stages.add("computed", waiting)
            waiting = []
        own = stages.fresh("t")
        waiting.append((own, _expression(tree, item.sql, known, dialect)))
        known[item.name.lower()] = column(own)
        if item.slot is not None:
            slots[item.slot] = exp.cast(column(own), _type(item.sql_type))
    stages.add("computed", waiting)


def _expression(tree: Any, text: str, known: Columns, dialect: str) -> exp.Expression:
    unknown = [f.name for f in tree.find_all(exp.Anonymous)]
    if unknown and dialect != "duckdb":
        foreign = f"TRANSFORM uses {unknown[0]}, which has no known counterpart in {dialect}"
        raise about("dialect", NotSupportedError(foreign, hint="WITH (dialect = 'duckdb'), or FORMAT bundle"))
    if tree.find(exp.Query) is not None:
        raise _refused(text)

    def replace(node: Any) -> Any:
        if not isinstance(node, exp.Column):
            return node
        value = known.get(node.name.lower())
        if value is None or node.args.get("table"):
            raise _refused(text)
        return value.copy() if isinstance(value, exp.Column | exp.Cast) else exp.Paren(this=value.copy())

    replaced: exp.Expression = tree.transform(replace, copy=True)
    return replaced


def _type(text: str) -> exp.DataType:
    return exp.DataType.build(text, dialect="duckdb")


def _refused(what: str) -> NotSupportedError:
    return NotSupportedError(
        f"TRANSFORM has what cannot be written as plain SQL: {what}", hint="FORMAT bundle keeps it; DEPLOY serves it as it is"
    )


# --- fitted functions -------------------------------------------------------------------------------------------------


def _call(step: Call, value: exp.Expression, stages: Stages, dialect: str) -> exp.Expression:
    make = _FUNCTIONS.get(step.function)
    if make is None:
        raise _refused(f"ML.{step.function}")
    return make(step.options, step.state, value, dialect)


def _scaler(options: Mapping[str, Any], state: Mapping[str, Any], value: exp.Expression, dialect: str) -> exp.Expression:
    if state["shift"] is None:
        return double(exp.null())
    apart = minus(without_nan(double(value), dialect), state["shift"])
    return exp.Div(this=apart, expression=number(state["scale"]), typed=False, safe=False)


def _min_max(options: Mapping[str, Any], state: Mapping[str, Any], value: exp.Expression, dialect: str) -> exp.Expression:
    if state["shift"] is None:
        return double(exp.null())
    scaled = _scaler(options, state, value, dialect)
    below = exp.LT(this=scaled, expression=number(0.0))
    above = exp.GT(this=scaled.copy(), expression=number(1.0))
    return when([(below, number(0.0)), (above, number(1.0))], scaled.copy())


def _imputer(options: Mapping[str, Any], state: Mapping[str, Any], value: exp.Expression, dialect: str) -> exp.Expression:
    filled = state["value"]
    if filled is None:
        return value
    known = value if isinstance(filled, str) else without_nan(double(value), dialect)
    return exp.Coalesce(this=known, expressions=[constant(filled) if isinstance(filled, str) else number(filled)])


def _buckets(options: Mapping[str, Any], state: Mapping[str, Any], value: exp.Expression, dialect: str) -> exp.Expression:
    points = state.get("points", options.get("array_split_points"))
    points = points[1:-1] if options.get("exclude_boundaries") else points
    names = [exp.Literal.string(name) for name in bucket_names(points, options["output_format"])]
    known = without_nan(double(value), dialect)
    below = [
        (exp.LT(this=known.copy(), expression=number(float(point))), name) for point, name in zip(points, names, strict=False)
    ]
    return when([(is_null(known), exp.null()), *below], names[-1])


def _labels(options: Mapping[str, Any], state: Mapping[str, Any], value: exp.Expression, dialect: str) -> exp.Expression:
    return choose(value, [(constant(word), integer(i + 1)) for i, word in enumerate(state["words"])], integer(0))


_FUNCTIONS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any], exp.Expression, str], exp.Expression]] = {
    "STANDARD_SCALER": _scaler,
    "MAX_ABS_SCALER": _scaler,
    "ROBUST_SCALER": _scaler,
    "MIN_MAX_SCALER": _min_max,
    "IMPUTER": _imputer,
    "BUCKETIZE": _buckets,
    "QUANTILE_BUCKETIZE": _buckets,
    "LABEL_ENCODER": _labels,
}
"""The functions that are plain SQL once their state is known."""
