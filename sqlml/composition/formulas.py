"""Short expressions as numpy functions: what a vote or an average over models is made of, hundreds of times faster than a query.

A formula knows finite numbers, truth values and texts, none of them NULL, and gives what the database would; for any other value,
and wherever a number is no longer finite, it gives nothing, and the database computes the expression itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sqlml.features.database import parse_expression

if TYPE_CHECKING:
    from numpy.typing import NDArray

Columns: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Values by the columns' names in lower case: float64, bool, or str objects."""
_Run: TypeAlias = "Callable[[Columns], Any]"

NUMBER, TRUTH, TEXT = "DOUBLE", "BOOLEAN", "VARCHAR"
_DIGITS = 15
"""A literal of so many digits is the same number as a decimal and as a double's shortest form."""


@dataclass(frozen=True)
class Formula:
    """``run`` gives an array of the type ``sql_type``, or one value for all rows; ``reads`` are the columns it needs.

    ``is_exact``: one of several literals, a decimal to the database, which goes on with decimals where it can.
    """

    run: _Run
    sql_type: str
    reads: frozenset[str] = frozenset()
    is_exact: bool = False


@dataclass(frozen=True)
class _Constant:
    """A literal, exact: decimals are not yet doubles."""

    value: Decimal | float | str | bool
    sql_type: str


_Part: TypeAlias = Formula | _Constant


class _Beyond(Exception):
    """The expression is none of these."""


def make_formula(sql: str, types: Mapping[str, str]) -> Formula | None:
    """The formula of an expression over columns of these types, by name in lower case; None where there is none."""
    tree = parse_expression(sql)
    try:
        part = _part(tree, types)
    except _Beyond:
        return None
    return replace(_formula(part), reads=frozenset(_names(tree)))


def _names(node: Any) -> Iterator[str]:
    """The columns in a tree."""
    if isinstance(node, list):
        for inner in node:
            yield from _names(inner)
    elif isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield node["column_names"][0].lower()
        for inner in node.values():
            yield from _names(inner)


def evaluate(formula: Formula, columns: Columns, n: int) -> NDArray[Any] | None:
    """The values for n rows of clean columns; None where a number is not finite."""
    with np.errstate(all="ignore"):
        values = np.asarray(formula.run(columns))
    if formula.sql_type == NUMBER and not np.isfinite(values).all():
        return None
    return values if values.shape else np.full(n, values)


def _formula(part: _Part) -> Formula:
    if isinstance(part, Formula):
        return part
    value = float(part.value) if isinstance(part.value, Decimal) else part.value
    return Formula(lambda columns: value, part.sql_type)


def _part(node: Mapping[str, Any], types: Mapping[str, str]) -> _Part:
    match node["class"]:
        case "COLUMN_REF":
            return _column(node["column_names"], types)
        case "CONSTANT":
            return _constant(node["literal"])
        case "FUNCTION":
            return _function(node, types)
        case "COMPARISON":
            return _comparison(node, types)
        case "CONJUNCTION":
            return _conjunction(node, types)
        case "CASE":
            return _case(node, types)
        case "CAST":
            return _cast(node, types)
        case "OPERATOR" if node["type"] == "OPERATOR_NOT":
            [inner] = [_typed(child, TRUTH, types) for child in node["children"]]
            return Formula(lambda columns: np.logical_not(inner(columns)), TRUTH)
    raise _Beyond


def _column(names: Sequence[str], types: Mapping[str, str]) -> Formula:
    key = names[0].lower()
    if len(names) > 1 or types.get(key) not in (NUMBER, TRUTH, TEXT):
        raise _Beyond
    return Formula(lambda columns: columns[key], types[key])


def _constant(literal: Mapping[str, Any]) -> _Constant:
    kind, text = literal["kind"], str(literal.get("text", ""))
    if kind == "STRING":
        return _Constant(text, TEXT)
    if kind in ("INTEGER", "NUMERIC") and sum(character.isdigit() for character in text) <= _DIGITS:
        if "e" in text.lower():
            return _Constant(float(text), NUMBER)
        return _Constant(Decimal(text), NUMBER)
    raise _Beyond


def _typed(node: Mapping[str, Any], sql_type: str, types: Mapping[str, str]) -> _Run:
    part = _formula(_part(node, types))
    if part.sql_type != sql_type:
        raise _Beyond
    return part.run


# --- arithmetic -------------------------------------------------------------------------------------------------------

_ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
_EXACT: Mapping[str, Callable[[Decimal, Decimal], Decimal]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}
_OF_SEVERAL: Mapping[str, Any] = {"greatest": np.maximum, "least": np.minimum}


def _function(node: Mapping[str, Any], types: Mapping[str, str]) -> _Part:
    name = str(node["function_name"]).lower()
    if node["filter"] is not None or node["order_bys"]["orders"] or any(a["name"] for a in node["arguments"]):
        raise _Beyond
    parts = [_part(a["expression"], types) for a in node["arguments"]]
    if any(part.sql_type != NUMBER for part in parts):
        raise _Beyond
    if all(isinstance(part, _Constant) for part in parts):
        return _folded(name, [part.value for part in parts if isinstance(part, _Constant)])
    runs, is_exact = [_formula(part).run for part in parts], all(map(_is_exact, parts))
    if is_exact and len(runs) == 2 and name in _EXACT:
        raise _Beyond
    if len(runs) == 2 and name in _ARITHMETIC:
        operation, (left, right) = _ARITHMETIC[name], runs
        return Formula(lambda columns: operation(left(columns), right(columns)), NUMBER)
    if len(runs) == 1 and name in ("-", "+", "abs"):
        single = {"-": np.negative, "+": np.positive, "abs": np.abs}[name]
        return Formula(lambda columns: single(runs[0](columns)), NUMBER, is_exact=is_exact)
    if name in _OF_SEVERAL:
        several = _OF_SEVERAL[name]
        return Formula(
            lambda columns: several.reduce(np.broadcast_arrays(*(run(columns) for run in runs))), NUMBER, is_exact=is_exact
        )
    raise _Beyond


def _is_exact(part: _Part) -> bool:
    return part.is_exact if isinstance(part, Formula) else isinstance(part.value, Decimal)


def _folded(name: str, values: Sequence[Any]) -> _Constant:
    """Arithmetic of literals: exact, as the database has decimals."""
    if name == "-" and len(values) == 1:
        return _Constant(-values[0], NUMBER)
    if name in _EXACT and len(values) == 2 and all(isinstance(value, Decimal) for value in values):
        found = _EXACT[name](*values)
        if len(found.as_tuple().digits) <= _DIGITS:
            return _Constant(found, NUMBER)
    if name == "/" and len(values) == 2 and values[1]:
        return _Constant(float(values[0]) / float(values[1]), NUMBER)
    raise _Beyond


def _cast(node: Mapping[str, Any], types: Mapping[str, str]) -> _Part:
    """A cast of a value to the type that it has."""
    inner = _part(node["child"], types)
    kind = node["type_expr"]
    known = {"DOUBLE": NUMBER, "FLOAT8": NUMBER, "VARCHAR": TEXT, "TEXT": TEXT, "STRING": TEXT, "BOOLEAN": TRUTH, "BOOL": TRUTH}
    wanted = known.get(str(kind.get("type_name", "")).upper())
    if wanted is None or kind.get("children") or kind.get("schema") or kind.get("catalog") or inner.sql_type != wanted:
        raise _Beyond
    return replace(_formula(inner), is_exact=False)


# --- conditions -------------------------------------------------------------------------------------------------------

_COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "COMPARE_EQUAL": np.equal,
    "COMPARE_NOTEQUAL": np.not_equal,
    "COMPARE_LESSTHAN": np.less,
    "COMPARE_LESSTHANOREQUALTO": np.less_equal,
    "COMPARE_GREATERTHAN": np.greater,
    "COMPARE_GREATERTHANOREQUALTO": np.greater_equal,
}
_EQUALITY = ("COMPARE_EQUAL", "COMPARE_NOTEQUAL")


def _comparison(node: Mapping[str, Any], types: Mapping[str, str]) -> Formula:
    left, right = (_formula(_part(node[side], types)) for side in ("left", "right"))
    compare = _COMPARED.get(node["type"])
    if compare is None or left.sql_type != right.sql_type or (left.sql_type != NUMBER and node["type"] not in _EQUALITY):
        raise _Beyond
    return Formula(lambda columns: compare(left.run(columns), right.run(columns)), TRUTH)


def _conjunction(node: Mapping[str, Any], types: Mapping[str, str]) -> Formula:
    runs = [_typed(child, TRUTH, types) for child in node["children"]]
    combine = np.logical_and if node["type"] == "CONJUNCTION_AND" else np.logical_or
    return Formula(lambda columns: combine.reduce(np.broadcast_arrays(*(run(columns) for run in runs))), TRUTH)


def _case(node: Mapping[str, Any], types: Mapping[str, str]) -> Formula:
    parts = [_part(c["then_expr"], types) for c in node["case_checks"]] + [_part(node["else_expr"], types)]
    *results, otherwise = map(_formula, parts)
    checks = [(_typed(c["when_expr"], TRUTH, types), then) for c, then in zip(node["case_checks"], results, strict=True)]
    if any(then.sql_type != otherwise.sql_type for _, then in checks):
        raise _Beyond

    def run(columns: Columns) -> Any:
        found = otherwise.run(columns)
        for when, then in reversed(checks):
            found = np.where(when(columns), then.run(columns), found)
        return found

    return Formula(run, otherwise.sql_type, is_exact=all(map(_is_exact, parts)))
