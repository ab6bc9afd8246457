"""Models as SQL around ``__sqlml_trees`` or ``__sqlml_linear``, which DuckDB calls from all of its threads without Python.

The function gives one number: the probability of the second of two classes, of a class by its number, the number of the likeliest
class, or the value.  What is made of it is DuckDB's own SQL, which computes a call that is repeated in one SELECT once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from sqlml_dialect import quote_identifier, quote_string

from sqlml.native.duckdb_function import BEST
from sqlml.types import SQL_TYPE, Kind, label_text

if TYPE_CHECKING:
    from sqlml.bundles.compiled import Compiled

ANSWERS = frozenset({"predict", "proba", "full"})
"""Outputs that follow from the scores; DuckDB makes maps slower than Arrow does."""
_PLAIN = (str, bool, int)
"""Types of classes that are written as they are read."""
_COLUMN = re.compile(r'NULL|"(?:[^"]|"")*"')


def native_sql(model: Compiled, output: str, given: Mapping[str, str], plain: Collection[str] = ()) -> str | None:
    """SQL for an output; None for one that takes more than the scores.  Arguments ``given`` that are ``plain`` may go without a
    cast.
    """
    what, _, argument = output.partition(":")
    arguments = {name: _column(given[name], kind, used, name in plain) for name, kind, used in model.inputs}
    if not model.classes:
        value = f"CAST({_score(model, 0, arguments)} AS DOUBLE)"
        return {"predict": value, "full": _struct({f"predicted_{model.target}": value})}.get(what)
    if not all(type(value) in _PLAIN for value in model.classes):
        return None
    two = len(model.classes) == 2
    if what == "full" and not all(_COLUMN.fullmatch(text) for text in given.values()):
        return None  # a call that is repeated must not ask an expression twice
    if what == "proba":
        return _probability(model, int(argument), arguments)
    if what == "predict":
        if two:
            return f"CASE WHEN {_score(model, 0, arguments)} > 0.5 THEN {_label(model, 1)} ELSE {_label(model, 0)} END"
        return f"({_labels(model)})[1 + CAST({_score(model, BEST, arguments)} AS INTEGER)]"
    if what == "full" and two:
        return _full(model, arguments)
    return None


def _full(model: Compiled, arguments: Mapping[str, str]) -> str:
    """The answer, and both classes with their probabilities, the likelier first.

    No CASE: DuckDB does not see that its branches repeat a call.
    """
    second = f"CAST({_score(model, 0, arguments)} > 0.5 AS INTEGER)"
    probabilities = f"{_probability(model, 0, arguments)}, {_probability(model, 1, arguments)}"
    first = f"({_labels(model)})[1 + {second}]"
    other = f"({_labels(model)})[2 - {second}]"
    pairs = [
        _struct({"label": first, "prob": f"greatest({probabilities})"}),
        _struct({"label": other, "prob": f"least({probabilities})"}),
    ]
    return _struct({f"predicted_{model.target}": first, f"predicted_{model.target}_probs": f"[{', '.join(pairs)}]"})


def _probability(model: Compiled, index: int, arguments: Mapping[str, str]) -> str:
    if len(model.classes) > 2:
        return f"CAST({_score(model, index, arguments)} AS DOUBLE)"
    second = f"CAST({_score(model, 0, arguments)} AS DOUBLE)"
    return second if index else f"(1.0::DOUBLE - {second})"


def _score(model: Compiled, output: int, arguments: Mapping[str, str]) -> str:
    columns = "".join(f", {arguments[name]}" for name, _, _ in model.inputs)
    return f"{model.function}({model.slot}, {output}{columns})"


def _column(argument: str, kind: Kind, used: bool, plain: bool) -> str:
    """A column in a type that the function reads: numbers of most types.  One that the model does not look at is named, and not
    read.
    """
    value = argument if plain and kind is Kind.NUMBER else f"CAST({argument} AS {SQL_TYPE[kind]})"
    return value if used else f"CASE WHEN false THEN {value} END"


def _labels(model: Compiled) -> str:
    return f"[{', '.join(_label(model, i) for i in range(len(model.classes)))}]"


def _label(model: Compiled, index: int) -> str:
    value: Any = model.classes[index]
    if isinstance(value, str):
        return quote_string(value)
    return label_text(value) if isinstance(value, bool) else f"{value}::BIGINT"


def _struct(fields: Mapping[str, str]) -> str:
    return f"struct_pack({', '.join(f'{quote_identifier(name)} := {value}' for name, value in fields.items())})"
