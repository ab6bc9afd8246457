"""Checks options before any work starts: names, types, ranges, choices.  Imports no library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

from sqlml.contracts import Algorithm, OptionSpec
from sqlml.errors import BindError, did_you_mean

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


def all_options(algorithm: Algorithm) -> tuple[OptionSpec, ...]:
    """Its own options, then those that every algorithm takes."""
    early = (VALIDATION_FRACTION,) if algorithm.early_stopping else ()
    return (*algorithm.options, *early, MAX_CATEGORIES, SEED)


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
            raise BindError(f"{algorithm.name} has no option {name}", hint=f"{near}\n{known}" if near else known)
        resolved[spec.name] = check_value(spec, value, algorithm.name)
    return resolved


def check_value(spec: OptionSpec, value: Any, owner: str) -> Any:
    """The value as the option's type; ``BindError`` where it is not one that the option may have."""
    if value is None and spec.default is None:
        return None
    plain = _convert(spec.type, value)
    if plain is None or not _within(spec, plain):
        raise BindError(f"option {spec.name} of {owner} is {expectation(spec)} (got {got(value)})")
    return plain


def expectation(spec: OptionSpec) -> str:
    """``an integer ≥ 0``, ``a number > 0 and ≤ 1``, ``one of 'k-means++', 'random'``."""
    if spec.choices:
        words = ", ".join(f"'{choice}'" for choice in spec.choices)
        return words if len(spec.choices) == 1 else f"one of {words}"
    kind = {
        "int": "an integer",
        "float": "a number",
        "bool": "true or false",
        "str": "a text",
        "list[float]": "a list of numbers",
    }[spec.type]
    ends = []
    if spec.low is not None:
        ends.append(f"{'>' if spec.open_low else '≥'} {spec.low:.15g}")
    if spec.high is not None:
        ends.append(f"{'<' if spec.open_high else '≤'} {spec.high:.15g}")
    return f"{kind} {' and '.join(ends)}".rstrip()


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
    return f"a {type(value).__name__}"


def _convert(kind: str, value: Any) -> Any:
    """The value in the option's type, or None."""
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind == "str":
        return value if isinstance(value, str) else None
    if kind == "list[float]":
        items = [_number(item) for item in value] if isinstance(value, list | tuple) else [None]
        return None if None in items else items
    number = _number(value)
    if number is None or kind == "float":
        return number
    return int(value) if number == math.floor(number) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return None
    return float(value)


def _within(spec: OptionSpec, value: Any) -> bool:
    if spec.choices and value not in spec.choices:
        return False
    items = value if isinstance(value, list) else [value]
    if spec.low is not None and not all(item > spec.low if spec.open_low else item >= spec.low for item in items):
        return False
    return spec.high is None or all(item < spec.high if spec.open_high else item <= spec.high for item in items)
