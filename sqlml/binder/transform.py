"""TRANSFORM: its items over the query's columns, and the transform-only models that they call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlml_dialect import Calls, Expression, Ident, ModelCall, ModelRef, Placeholder, QualifiedName, Span, Train, quote_string
from sqlml_dialect.tokens import Kind as TokenKind
from sqlml_dialect.tokens import scan

from sqlml.binder.columns import Columns
from sqlml.binder.parameters import Parameters
from sqlml.bundles.manifest import Manifest
from sqlml.catalog import Version
from sqlml.errors import BindError
from sqlml.features.transform import TransformError, plan_transform
from sqlml.plan import TrainPlan, TransformItem, TransformPlan
from sqlml.types import Column, Task

_BY_VERSION = re.compile(r"(?P<name>\w+(?:\.\w+)*)\s*@\s*(?P<version>\w+)\s*\(\s*\*\s*\)")
"""``prep@2(*)``, which inside a query would be the database's own ``@``."""


@dataclass(frozen=True)
class Models:
    """What the binder of TRAIN asks about models that are there already."""

    resolve: Callable[[ModelRef], Version]
    find: Callable[[Span], Calls]  # the calls of models in a stretch of the statement
    plan: Callable[[Version], TrainPlan]


def bind_transform(
    node: Train, parameters: Parameters, columns: Columns, others: Mapping[str, str], models: Models
) -> tuple[TransformPlan, tuple[Column, ...]] | None:
    """The plan of TRANSFORM and the columns that it gives; None where there is no such clause.

    ``others`` are the columns that take part otherwise, each with what it is (``the target``).  An item that is nothing but such
    a column's name is left out.  ``BindError`` points at the item and at the place in it.
    """
    if not node.transform:
        return None
    source = parameters.source
    used = {name.lower() for name, what in others.items() if what != "excluded"}
    expressions = [e for e in node.transform if _plain_name(e) not in used]
    if not expressions:
        raise BindError("TRANSFORM gives no features: it names only the target", source=source, span=node.transform[0].span)
    items, frozen = [], {}
    for expression in expressions:
        item = _item(expression, parameters)
        found = _frozen(expression, source, models)
        if found is not None:
            frozen[item.text] = found
        items.append(item)
    try:
        return plan_transform(items, columns.without(others), frozen, others)
    except TransformError as error:
        raise _placed(error, expressions, items, source) from None


def _item(expression: Expression, parameters: Parameters) -> TransformItem:
    """An item with the values of prepared parameters written into it: it is computed again long after they are gone."""
    name = expression.alias.name if expression.alias else None
    start, text = expression.span[0], expression.text
    marks = [t for t in scan(parameters.source, *expression.span) if t.kind is TokenKind.PARAM]
    for token in reversed(marks):
        value = _literal(parameters, (token.start, token.end))
        text = f"{text[: token.start - start]}{value}{text[token.end - start :]}"
    return TransformItem(text, name)


def _literal(parameters: Parameters, span: Span) -> str:
    """A parameter's value as SQL."""
    text = parameters.source[span[0] : span[1]]
    if text == "?":
        values = parameters.within(span)
        value: Any = next(iter(values))
    else:
        word = text[1:]
        value = parameters.value(Placeholder(int(word), span=span) if word.isdigit() else Placeholder(name=word, span=span))
    if value is None or isinstance(value, bool):
        return "NULL" if value is None else str(value).upper()
    if isinstance(value, int | float | Decimal):
        return f"({value})" if value == value and abs(value) != float("inf") else f"CAST('{value}' AS DOUBLE)"
    if isinstance(value, str):
        return quote_string(value)
    words = {datetime: "TIMESTAMP", date: "DATE"}
    for kind, word in words.items():
        if isinstance(value, kind):
            return f"{word} {quote_string(str(value))}"
    if isinstance(value, timedelta):
        return f"INTERVAL {quote_string(f'{value.total_seconds():f} seconds')}"
    raise BindError(
        f"a value of the type {type(value).__name__} cannot stand in TRANSFORM", source=parameters.source, span=span,
        hint="give a number, a text, a boolean, a date or an interval",
    )  # fmt: skip


# --- models that only transform ---------------------------------------------------------------------------------------


def _frozen(expression: Expression, source: str, models: Models) -> Mapping[str, Any] | None:
    """The fitted transform that an item calls; None for an item that calls none."""
    span = expression.span
    ref = _by_version(expression.text.strip(), span)
    if ref is None:
        calls = models.find(span).calls
        if not calls:
            return None
        ref = _called(calls[0], span, source)
    version = models.resolve(ref)
    if version.task is not Task.TRANSFORM:
        raise BindError(
            f"{version.name} predicts: TRANSFORM can call models trained with USING transform_only alone", source=source,
            span=ref.span, hint=f"put PREDICT({ref.text}) AS name into the query",
        )  # fmt: skip
    return Manifest.read(version.bundle, version.sha256).transform


def _by_version(text: str, span: Span) -> ModelRef | None:
    found = _BY_VERSION.fullmatch(text)
    if found is None:
        return None
    name = QualifiedName(tuple(Ident(part) for part in found["name"].split(".")))
    number = int(found["version"]) if found["version"].isdigit() else None
    return ModelRef(name, number, None if number is not None else found["version"], span=span)


def _called(call: ModelCall, span: Span, source: str) -> ModelRef:
    """The model of an item that is one call of it, with the columns by name."""
    whole = source[span[0] : call.span[0]].strip() == source[call.span[1] : span[1]].strip() == ""
    by_name = call.using is None or (len(call.using) == 1 and call.using[0].star == "*")
    if not whole or not by_name or call.function not in ("predict", "model"):
        raise BindError(
            "in TRANSFORM a model is called by itself, with the columns by name", source=source, span=call.span,
            hint=f"as an item of its own: PREDICT({call.model.text}); what it gives can be read by the other items",
        )  # fmt: skip
    return call.model


# --- places -----------------------------------------------------------------------------------------------------------


def _plain_name(expression: Expression) -> str | None:
    """The name, in lower case, of an item that is nothing but a column under its own name."""
    text = expression.text.strip()
    name = text[1:-1].replace('""', '"') if text.startswith('"') and text.endswith('"') and len(text) > 1 else text
    alone = re.fullmatch(r"\w+", text) is not None or text != name
    kept = expression.alias is None or expression.alias.name.lower() == name.lower()
    return name.lower() if alone and kept else None


def _placed(error: TransformError, expressions: Sequence[Expression], items: Sequence[TransformItem], source: str) -> BindError:
    """An error within an item, at its place in the statement."""
    expression, item = expressions[max(error.item, 0)], items[max(error.item, 0)]
    span = expression.span
    if error.span is not None and item.text == expression.text:
        span = (span[0] + error.span[0], span[0] + error.span[1])
    return BindError(error.message, source=source, span=span, hint=error.hint)
