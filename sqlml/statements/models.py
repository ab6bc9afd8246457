"""ALTER MODEL and DROP MODEL."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlml_dialect import AlterModel, DropModel, ModelRef, RenameTo, SetAlias, SetComment, SetTag, Span, Unset, name_sql
from sqlml_dialect.tokens import Kind, scan

from sqlml.binder.calls import parse_macro_name
from sqlml.binder.models import check_name, resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, DatabaseFunction
from sqlml.contracts import HomeEngine, Notice
from sqlml.errors import BindError, Error, UnknownModel, UnknownVersion, count_of, listing
from sqlml.statements.handler import Handler, Handlers, always, no_columns
from sqlml.statements.own_database import calls_functions
from sqlml.statements.result import Result
from sqlml.types import label_text

ViewsCalling = Callable[[str], Sequence[str]]
"""Model's name → the views of the database that call it."""


def model_handlers(
    catalog: Catalog, views_calling: ViewsCalling, remove: Callable[[DatabaseFunction], None], notice: Notice
) -> Handlers:
    """ALTER and DROP MODEL."""
    return {
        AlterModel: Handler(
            lambda n, p: run_alter_model(n, p, catalog, views_calling, notice), writes=always, columns=no_columns
        ),
        DropModel: Handler(lambda n, p: run_drop_model(n, p.source, catalog, remove, notice), writes=always, columns=no_columns),
    }


def run_alter_model(
    node: AlterModel, parameters: Parameters, catalog: Catalog, views_calling: ViewsCalling, notice: Notice
) -> Result:
    """Aliases, tags, comment and name of a model; tags and comment of one of its versions."""
    source, name, action = parameters.source, node.model.name.text, node.action
    try:
        match action:
            case SetAlias():
                _check_whole(node.model, source, f"ALTER MODEL {name} SET ALIAS {action.alias.name} = {action.version}")
                _check_alias(action, source)
                catalog.set_alias(name, action.alias.name, action.version)
            case SetTag():
                _check_tag(action.tag.name, source, action.tag.span)
                value = tag_text(parameters.resolve(action.value), action, source)
                catalog.set_tag(name, _number(node.model, source, catalog), action.tag.name, value)
            case SetComment():
                catalog.set_comment(name, _number(node.model, source, catalog), action.comment)
            case RenameTo():
                _check_whole(node.model, source, f"ALTER MODEL {name} RENAME TO {action.name.text}")
                _rename(node, action, source, catalog, views_calling, notice)
            case Unset():
                _unset(node, action, source, catalog)
    except Error as error:
        raise error.located(source, node.model.span if isinstance(error, UnknownModel) else action.span) from None
    return Result()


def _unset(node: AlterModel, action: Unset, source: str, catalog: Catalog) -> None:
    name = node.model.name.text
    what = action.name.name if action.name else ""
    if action.what == "alias":
        _check_whole(node.model, source, f"ALTER MODEL {name} UNSET ALIAS {what}")
        catalog.unset_alias(name, what)
    elif action.what == "tag":
        catalog.unset_tag(name, _number(node.model, source, catalog), what)
    else:
        catalog.set_comment(name, _number(node.model, source, catalog), None)


def _rename(
    node: AlterModel,
    action: RenameTo,
    source: str,
    catalog: Catalog,
    views_calling: ViewsCalling,
    notice: Notice,
) -> None:
    old, new = node.model.name.text, action.name.text
    check_name(new, source, action.name.span, "a model")
    try:
        catalog.rename(old, new)
    except UnknownModel:
        raise
    except BindError as error:
        raise error.located(source, action.name.span) from None
    views = views_calling(old) if old.lower() != new.lower() else ()
    if views:
        call, calls = ("calls", "it") if len(views) == 1 else ("call", "them")
        notice(f"{listing(views)} still {call} {old}, a name that now means nothing: make {calls} again with {name_sql(new)}")


def _number(ref: ModelRef, source: str, catalog: Catalog) -> int | None:
    """The version that is altered; None: the model itself."""
    return resolve_model(catalog, ref, source).version if ref.version is not None or ref.alias is not None else None


def _check_whole(ref: ModelRef, source: str, instead: str) -> None:
    if ref.version is not None or ref.alias is not None:
        message = f"names and aliases are the model's, not a version's: write {ref.name.text}, not {ref.text}"
        raise BindError(message, source=source, span=ref.span, hint=f"as in {instead}")


def _check_alias(action: SetAlias, source: str) -> None:
    if not action.alias.name.replace("_", "").replace("-", "").isalnum() or action.alias.name.isdigit():
        raise BindError(
            f"{action.alias.name!r} cannot be an alias: letters, digits, _ and -, and not a number alone", source=source,
            span=action.alias.span,
        )  # fmt: skip


def _check_tag(tag: str, source: str, span: Span) -> None:
    if not tag.strip() or not tag.isprintable():
        message = f"{tag!r} cannot be a tag: it needs a name that can be read"
        raise BindError(message, source=source, span=span, hint="as in SET TAG team = 'risk'")


def tag_text(value: Any, action: SetTag, source: str) -> str:
    """A tag's value as it is kept: text as it is, numbers and truth as SQL writes them, lists and structs as JSON."""
    if value is None:
        raise BindError(
            f"the tag {action.tag.name} needs a value", source=source, span=action.span,
            hint=f"UNSET TAG {action.tag.name} takes it away",
        )  # fmt: skip
    if isinstance(value, Mapping | tuple | list):
        return json.dumps(value, ensure_ascii=False, default=label_text)
    return str(value) if isinstance(value, timedelta) else label_text(value)


def find_views(views: Sequence[tuple[str, str]], model: str) -> list[str]:
    """The views, of those given with their SQL, that call a model by name: any version of it."""
    found = []
    for view, text in views:
        names = [t.text[1:-1].replace('""', '"') for t in scan(text) if t.kind is Kind.QUOTED]
        called = [parsed[1].lower() for parsed in map(parse_macro_name, names) if parsed]
        if model.lower() in called:
            found.append(view)
    return found


def views_calling(engine: HomeEngine, schema: str, model: str) -> list[str]:
    """The views of a database that call a model; ``schema`` is ours, through which they do."""
    return find_views(engine.views_with(f"{name_sql(schema)}.main."), model) if calls_functions(engine) else []


def run_drop_model(
    node: DropModel, source: str, catalog: Catalog, remove: Callable[[DatabaseFunction], None], notice: Notice
) -> Result:
    """Remove a model, or one version of it; with CASCADE first the functions that it is in databases (``remove``)."""
    ref = node.model
    try:
        version = catalog.resolve(ref.name.text, ref.version, ref.alias).version if ref.version or ref.alias else None
        if node.cascade:
            for function in catalog.functions():
                if function.model.lower() == ref.name.text.lower() and version in (None, function.version):
                    remove(function)
        before = [endpoint.name for endpoint in catalog.endpoints()] if node.cascade else []
        keys = catalog.drop(ref.name.text, version, cascade=node.cascade)
    except BindError as error:
        if node.if_exists and isinstance(error, UnknownModel | UnknownVersion):
            return Result()
        raise error.located(source, ref.span) from None
    gone = [name for name in before if catalog.endpoint(name) is None]
    if gone:
        notice(f"{count_of(len(gone), 'endpoint')} went with it, of which nothing was left: {listing(gone)}")
    for text in keys.notices("the endpoint" if len(gone) == 1 else "the endpoints"):
        notice(text)
    return Result()
