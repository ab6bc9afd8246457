"""Classes that PREDICT_PROBA(m, label) names: by a literal, by a parameter's value, or by what each row has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from sqlml_dialect import ModelCall, ModelRef, Placeholder, Span
from sqlml_dialect.tokens import Kind, scan

from sqlml.binder.parameters import Parameters
from sqlml.catalog import Version
from sqlml.errors import BindError, did_you_mean, listing
from sqlml.types import BOOLEAN_WORDS, label_text


def class_index(source: str, call: ModelCall, version: Version) -> int | None:
    """The class that a literal names; None where it is an expression, looked up row by row.  ``BindError`` for an unknown one."""
    text = call.extra.text.strip() if call.extra else ""
    if not re.fullmatch(r"'(?:[^']|'')*'|[-+]?\d+(\.\d+)?|true|false", text, re.IGNORECASE):
        return None
    wanted = text[1:-1].replace("''", "'") if text.startswith("'") else text
    found = _find(version, wanted)
    if found is None:
        raise _unknown(text, wanted, source, call, version)
    return found


def check_label_values(parameters: Parameters, calls: Iterable[ModelCall], resolve: Callable[[ModelRef], Version]) -> None:
    """``BindError`` where the value of a parameter that stands for a class is none of the model's.  NULL gives NULL."""
    for call in calls:
        place = _parameter(parameters.source, call)
        if place is None:
            continue
        value = parameters.value(_placeholder(parameters, place))
        version = resolve(call.model)
        if value is None or not version.classes or _find(version, label_text(value)) is not None:
            continue
        shown = f"'{value}'" if isinstance(value, str) else label_text(value)
        raise _unknown(shown, label_text(value), parameters.source, call, version)


def _parameter(source: str, call: ModelCall) -> Span | None:
    """The parameter that is the label, with a cast behind it or without."""
    if call.function != "predict_proba" or call.extra is None:
        return None
    tokens = list(scan(source, *call.extra.span))
    if not tokens or tokens[0].kind is not Kind.PARAM or (len(tokens) > 1 and tokens[1].text != "::"):
        return None
    return tokens[0].start, tokens[0].end


def _placeholder(parameters: Parameters, place: Span) -> Placeholder:
    name = parameters.source[slice(*place)].lstrip("$?")
    if name.isdigit():
        return Placeholder(int(name), span=place)
    if name:
        return Placeholder(name=name, span=place)
    before = scan(parameters.source, parameters.statement[0], place[0])
    return Placeholder(1 + sum(token.text == "?" and token.kind is Kind.PARAM for token in before), span=place)


def _find(version: Version, wanted: str) -> int | None:
    for index, value in enumerate(version.classes):
        if label_text(value) == wanted or (isinstance(value, bool) and BOOLEAN_WORDS.get(wanted.lower()) is value):
            return index
    return None


def _unknown(shown: str, wanted: str, source: str, call: ModelCall, version: Version) -> BindError:
    labels = [label_text(value) for value in version.classes]
    near = did_you_mean(wanted, labels)
    return BindError(
        f"model {version.name} has no class {shown}", source=source, span=call.extra.span if call.extra else call.span,
        hint=f"its classes: {listing(labels, 20)}" + (f"; {near}" if near else ""),
    )  # fmt: skip
