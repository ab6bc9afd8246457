"""A model needs columns that a query does not have: all of them at once, with what the query has, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlml_dialect import Calls, ModelCall, Span, name_sql

from sqlml.binder.models import resolve_model
from sqlml.catalog import Catalog, Version
from sqlml.contracts import HomeEngine
from sqlml.errors import BindError, Error, listing


def explain_missing(
    error: Error,
    source: str,
    found: Calls,
    engine: HomeEngine,
    catalog: Catalog,
    bind_error: Callable[[Mapping[Span, frozenset[str]]], Error | None],
    scope: Callable[[Span], tuple[str, ...]],
) -> Error:
    """An error about a column that a call of ours takes from the scope, as the list of all that lack; any other as it is.

    ``bind_error`` binds the statement with some inputs taken as NULL, and gives the next error, or None where it binds; ``scope``
    gives the columns that a place can name.
    """
    calls = {call.span: call for call in all_calls(found)}
    missing: dict[Span, frozenset[str]] = {}
    current: Error | None = error
    while current is not None:
        column = engine.missing_column(current)
        call = calls.get(current.span) if column and current.span else None
        name = _input_name(source, call, column, catalog) if call and column else None
        if call is None or name is None or name in missing.get(call.span, frozenset()):
            break
        missing[call.span] = missing.get(call.span, frozenset()) | {name}
        current = bind_error(missing)
    if not missing:
        return error
    place, names = next(iter(missing.items()))
    version = resolve_model(catalog, calls[place].model, source)
    return missing_columns_error(source, place, version, names, scope(place))


def _input_name(source: str, call: ModelCall, column: str, catalog: Catalog) -> str | None:
    version = resolve_model(catalog, call.model, source)
    return next((c.name for c in version.inputs if c.name.lower() == column.lower()), None)


def missing_columns_error(source: str, span: Span, version: Version, missing: frozenset[str], have: tuple[str, ...]) -> BindError:
    """``model deposit@1 needs columns that this query does not have: …``, with what it has and how to give them."""
    names = [c.name for c in version.inputs if c.name in missing]
    present = {name.lower(): name for name in have}
    used = [c.name for c in version.inputs if c.name.lower() in present and c.name not in missing]
    example = ", ".join([*used[:2], f"… AS {name_sql(names[0])}", *(["…"] if len(names) > 1 else [])])
    hint = (f"it has: {listing(have, 20)}\n" if have else "") + (
        f"give them in the query, or pass them: PREDICT({version.model} USING {example})"
    )
    return BindError(
        f"model {version.name} needs columns that this query does not have: {listing(names, 5)}",
        source=source, span=span, hint=hint,
    )  # fmt: skip


def all_calls(found: Calls) -> list[ModelCall]:
    """The calls found, those inside others included."""
    calls: list[ModelCall] = []
    todo = list(found.calls)
    while todo:
        call = todo.pop(0)
        calls.append(call)
        todo += call.inner
    return calls
