"""``WITH (option = value, …)`` and the options of ML functions, checked against what there is to set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlml_dialect import Option, Placeholder, Span, Struct
from sqlml_dialect.clause_nodes import Value

from sqlml.algorithms.options import check_value
from sqlml.binder.parameters import Parameters
from sqlml.contracts import OptionSpec
from sqlml.errors import BindError, Error, did_you_mean
from sqlml.types import label_text


def bind_options(options: Sequence[Option], specs: Sequence[OptionSpec], owner: str, parameters: Parameters) -> dict[str, Any]:
    """Every option with its value, given or default, under the name of its spec.

    ``owner`` is whose options they are, for messages.  ``BindError`` points at the option that is wrong.
    """
    given = dict(bind_option(option, specs, owner, parameters) for option in options)
    return {spec.name: spec.default for spec in specs} | given


def bind_option(option: Option, specs: Sequence[OptionSpec], owner: str, parameters: Parameters) -> tuple[str, Any]:
    """The name and the value of one option that was given."""
    spec = next((spec for spec in specs if spec.name.lower() == option.name.name.lower()), None)
    if spec is None:
        raise _unknown(option, specs, owner, parameters.source)
    value = parameters.resolve(option.value)
    if spec.name == "class" and value is not None:
        value = label_text(value)  # a class is written as it stands in its column: 'yes', 3, true
    try:
        return spec.name, check_value(spec, value, owner)
    except Error as error:
        raise error.located(parameters.source, option.value_span or option.span) from None


def option_span(options: Sequence[Option], name: str) -> Span | None:
    """Where an option was given; None where it was not."""
    return next((option.span for option in options if option.name.name.lower() == name), None)


def check_literals(options: Sequence[Option], owner: str, source: str) -> None:
    """``BindError`` for a prepared parameter, where the SQL that is written depends on the option's value."""
    for option in options:
        mark = _placeholder(option.value)
        if mark is not None:
            message = f"an option of {owner} is a literal, no parameter"
            raise BindError(message, source=source, span=mark.span, hint="write the value")


def _placeholder(value: Value) -> Placeholder | None:
    if isinstance(value, Placeholder):
        return value
    items: Sequence[Value] = ()
    if isinstance(value, Struct):
        items = [item for _, item in value.items]
    elif isinstance(value, tuple):
        items = value
    return next((mark for mark in map(_placeholder, items) if mark is not None), None)


def _unknown(option: Option, specs: Sequence[OptionSpec], owner: str, source: str) -> BindError:
    names = [spec.name for spec in specs]
    near = did_you_mean(option.name.name, names)
    known = f"it has: {', '.join(names)}" if names else "it has none"
    hint = f"{near}\n{known}" if near else known
    return BindError(f"{owner} has no option {option.name.name}", source=source, span=option.name.span, hint=hint)
