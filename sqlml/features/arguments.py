"""The arguments of an ML function: which is the value, and what the constants are."""

from __future__ import annotations

import math
from typing import Any

from sqlml_dialect.fitted import FittedArgument, FittedCall

from sqlml.errors import BindError, did_you_mean
from sqlml.features.database import ComputeError, constant
from sqlml.features.fitted.base import FittedFunction, Parameter


def value_argument(function: FittedFunction, call: FittedCall) -> FittedArgument:
    """The argument that is a column.  ``BindError`` with the place in the text where it is missing."""
    first = next((a for i, a in enumerate(call.arguments) if (i == 0 and a.name is None) or a.name == function.value), None)
    if first is None:
        raise BindError(f"ML.{function.name} needs {function.takes}", span=call.span, hint=f"write {usage(function)}")
    return first


def constant_options(function: FittedFunction, call: FittedCall) -> dict[str, Any]:
    """The other arguments, by position or by name, with defaults.  ``BindError`` with the place of the one that is wrong."""
    value = value_argument(function, call)
    by_place = [a for a in call.arguments if a is not value and a.name is None]
    by_name = [a for a in call.arguments if a is not value and a.name is not None]
    if len(by_place) > len(function.parameters):
        extra = by_place[len(function.parameters)]
        raise BindError(f"ML.{function.name} takes no argument {extra.text}", span=extra.span, hint=f"write {usage(function)}")
    given = {p.name: a for p, a in zip(function.parameters, by_place, strict=False)}
    for argument in by_name:
        _add_named(function, given, argument)
    missing = [p for p in function.parameters if p.required and p.name not in given]
    if missing:
        raise BindError(f"ML.{function.name} needs {missing[0].name}", span=call.span, hint=f"write {usage(function)}")
    options = {p.name: _constant(p, given[p.name]) if p.name in given else p.default for p in function.parameters}
    try:
        function.check(options)
    except ValueError as error:
        raise BindError(f"ML.{function.name}: {error}", span=call.span) from None
    return {name: "inf" if value == math.inf else value for name, value in options.items()}  # JSON has no infinity


def usage(function: FittedFunction) -> str:
    """How a function is written: ``ML.BUCKETIZE(x, array_split_points [, exclude_boundaries] [, output_format])``."""
    rest = "".join(f", {p.name}" if p.required else f" [, {p.name}]" for p in function.parameters)
    return f"ML.{function.name}({function.value}{rest})" + (" OVER ()" if function.over else "")


def _add_named(function: FittedFunction, given: dict[str, FittedArgument], argument: FittedArgument) -> None:
    names = {p.name for p in function.parameters}
    name = (argument.name or "").lower()
    if name not in names:
        hint = did_you_mean(name, names) or f"write {usage(function)}"
        raise BindError(f"ML.{function.name} has no argument {argument.name}", span=argument.span, hint=hint)
    if name in given:
        raise BindError(f"{name} is given twice", span=argument.span)
    given[name] = argument


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text between single quotes",
    "floats": "a list of numbers such as [1, 2]",
    "ints": "a list of whole numbers such as [1, 2]",
}


def _constant(parameter: Parameter, argument: FittedArgument) -> Any:
    """The value of a constant argument, as JSON has it."""
    try:
        found = constant(argument.text)
    except ComputeError:
        raise _wrong(parameter, argument) from None
    value = _converted(parameter.type, found)
    if value is None:
        raise _wrong(parameter, argument)
    for number in value if isinstance(value, list) else [value]:
        low, high = parameter.low, parameter.high
        if (low is not None and number < low) or (high is not None and number > high):
            ends = f"{low:g} to {high:g}" if low is not None and high is not None else f"{low:g} or more"
            raise BindError(f"{parameter.name} is {ends}, not {argument.text}", span=argument.span)
    if parameter.choices and value not in parameter.choices:
        hint = did_you_mean(str(value), parameter.choices)
        choices = ", ".join(f"'{c}'" for c in parameter.choices)
        raise BindError(f"{parameter.name} is one of {choices}, not {argument.text}", span=argument.span, hint=hint)
    return value


def _converted(kind: str, found: Any) -> Any:
    """A value as a parameter's type; None where it is none."""
    if kind in ("floats", "ints"):
        if kind == "ints" and not isinstance(found, list | tuple):
            found = [found]
        if not isinstance(found, list | tuple):
            return None
        parts = [_converted(kind[:-1], part) for part in found]
        return None if any(part is None for part in parts) else parts
    if kind == "bool":
        return found if isinstance(found, bool) else None
    if kind == "str":
        return found if isinstance(found, str) else None
    if isinstance(found, bool | str) or found is None:
        return None
    try:
        number = float(found)
    except (TypeError, ValueError):
        return None
    if kind == "float":
        return None if math.isnan(number) else number
    return int(number) if number.is_integer() else None


def _wrong(parameter: Parameter, argument: FittedArgument) -> BindError:
    return BindError(f"{parameter.name} is {_WORDS[parameter.type]}, not {argument.text}", span=argument.span)
