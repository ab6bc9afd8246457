"""Checks options before any work starts: names, types, ranges, choices.  Imports no library."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlml.contracts import Algorithm, OptionSpec
from sqlml.errors import BindError, did_you_mean
from sqlml.types import UNSUPERVISED, Task, label_text

SEED = OptionSpec("seed", "int", 0, "what every random choice starts from", low=0, high=2**31 - 1)
VALIDATION_FRACTION = OptionSpec(
    "validation_fraction",
    "float",
    0.1,
    "the part of the training rows that decides when to stop early",
    low=0,
    high=1,
    open_low=True,
    open_high=True,
)
MAX_CATEGORIES = OptionSpec(
    "max_categories",
    "int",
    None,
    "how many values of a text column are told apart, the most frequent ones (1000; 100 where each becomes a feature of its own)",
    low=1,
)
CLASS_WEIGHT = OptionSpec(
    "class_weight",
    "class_weight",
    None,
    "what a row of each class weighs; 'balanced': each class the same in all; a class left out weighs 1",
)
REFIT = OptionSpec("refit", "bool", False, "fit again on all rows, those held out included, once the figures are taken")

_UNIONS = {"int | float": ("int", "part"), "float | str": ("float", "str"), "int | float | str": ("int", "part", "str")}
"""Options of several types, each with the plain types that are tried in turn."""
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


def all_options(algorithm: Algorithm) -> tuple[OptionSpec, ...]:
    """Its own options, then those that all of its kind take."""
    more: list[OptionSpec] = [VALIDATION_FRACTION] if algorithm.early_stopping else []
    if algorithm.task is Task.CLASSIFICATION:
        more.append(CLASS_WEIGHT)
    if algorithm.task not in UNSUPERVISED or algorithm.task is Task.CLUSTERING:
        more.append(REFIT)
    if algorithm.task is not Task.TRANSFORM:
        more.append(MAX_CATEGORIES)
    return (*algorithm.options, *more, SEED)


def check_options(algorithm: Algorithm, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option with its value, given or default, as int, float, bool, str, list or None.

    ``given`` holds Python values of SQL literals.  Raises ``BindError`` that names the option and says what it may be.  Options
    once checked pass again unchanged.
    """
    specs = {spec.name.lower(): spec for spec in all_options(algorithm)}
    resolved = {spec.name: spec.default for spec in specs.values()}
    for name, value in given.items():
        spec = specs.get(name.lower())
        if spec is None:
            near = did_you_mean(name, resolved)
            known = f"it has: {', '.join(resolved)}"
            raise BindError(f"{algorithm.name} has no option {name}", hint=f"{near}\n{known}" if near else known, about=name)
        resolved[spec.name] = check_value(spec, value, algorithm.name)
    return resolved


def check_value(spec: OptionSpec, value: Any, owner: str) -> Any:
    """The value as the option's type; ``BindError`` where it is not one that the option may have."""
    if value is None and spec.default is None:
        return None
    plain = _convert(spec.type, value)
    if plain is None or not _within(spec, plain):
        raise BindError(f"option {spec.name} of {owner} is {expectation(spec)} (got {got(value)})", about=spec.name)
    return plain


def expectation(spec: OptionSpec) -> str:
    """``an integer ≥ 0``, ``a number > 0 and ≤ 1``, ``one of 'k-means++', 'random'``, ``a number > 0 and ≤ 0.5, or 'auto'``."""
    if spec.type == "class_weight":
        return "'balanced' or a positive number for each class, as in {'yes': 5, 'no': 1}"
    if spec.type == "device":
        return "'auto', 'cpu', 'cuda' or 'cuda:<number>'"
    words = ", ".join(f"'{choice}'" for choice in spec.choices)
    if spec.type == "str" and words:
        return words if len(spec.choices) == 1 else f"one of {words}"
    if spec.type.startswith("int | float"):
        numbers = f"an integer ≥ 1 or a part {_ends(spec)}".rstrip()
    else:
        numbers = f"{_KINDS[spec.type.split(' | ')[0]]} {_ends(spec)}".rstrip()
    return f"{numbers}, or {words}" if words else numbers


_KINDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "list[float]": "a list of numbers",
    "list[int]": "a list of integers",
    "struct": "a struct such as {'name': 'value'}",
    "size": "a size such as '8 GB' or a number of bytes",
    "duration": "a length of time such as '10 min' or a number of seconds",
}


def _ends(spec: OptionSpec) -> str:
    """``> 0 and ≤ 1``"""
    ends = []
    if spec.low is not None:
        ends.append(f"{'>' if spec.open_low else '≥'} {spec.low:.15g}")
    if spec.high is not None:
        ends.append(f"{'<' if spec.open_high else '≤'} {spec.high:.15g}")
    return " and ".join(ends)


def got(value: Any) -> str:
    """A value in words: ``the text 'deep'``."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text '{value}'"
    if isinstance(value, int | float | Decimal):
        return f"the number {value}"
    if isinstance(value, timedelta):
        return "an interval"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, Mapping):
        return "a struct"
    return f"a {type(value).__name__}"


def _convert(kind: str, value: Any) -> Any:
    """The value in the option's type, or None."""
    if kind in _UNIONS:
        return next((plain for plain in (_convert(one, value) for one in _UNIONS[kind]) if plain is not None), None)
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind == "str":
        return value if isinstance(value, str) else None
    if kind == "class_weight":
        return value if value == "balanced" else _class_weights(value)
    if kind == "struct":
        return dict(value) if isinstance(value, Mapping) else None
    if kind == "size" and isinstance(value, str):
        from sqlml_dialect.values import parse_size

        return parse_size(value)
    if kind == "duration" and isinstance(value, str | timedelta):
        from sqlml_dialect.values import parse_duration

        length = parse_duration(value) if isinstance(value, str) else value
        return None if length is None else length.total_seconds()
    if kind == "device":
        found = _DEVICE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
        return found[0] if found else None
    if kind.startswith("list["):
        items = [_convert(kind[5:-1], item) for item in value] if isinstance(value, list | tuple) else [None]
        return None if None in items else items
    number = _number(value)
    if number is None or kind in ("float", "duration"):
        return number
    whole = number == math.floor(number)
    if kind == "part":  # of all rows or features
        return None if whole else number
    return int(value) if whole else None


def _class_weights(value: Any) -> dict[str, float] | None:
    """A struct from classes, as text, to positive numbers."""
    if not isinstance(value, Mapping) or not value:
        return None
    weights = {label_text(name): _number(weight) for name, weight in value.items()}
    kept = {name: weight for name, weight in weights.items() if weight is not None and weight > 0}
    return kept if len(kept) == len(value) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return None
    return float(value)


def _within(spec: OptionSpec, value: Any) -> bool:
    if isinstance(value, str):
        return not spec.choices or value in spec.choices
    if spec.type.startswith("int | float") and isinstance(value, int):
        return value >= 1
    if spec.type == "class_weight":
        return True
    items = value if isinstance(value, list) else [value]
    if spec.low is not None and not all(item > spec.low if spec.open_low else item >= spec.low for item in items):
        return False
    return spec.high is None or all(item < spec.high if spec.open_high else item <= spec.high for item in items)
