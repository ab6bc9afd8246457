"""ALTER MODEL and DROP MODEL."""

from __future__ import annotations

from sqlml_dialect import AlterModel, DropModel, SetAlias

from sqlml.catalog import Catalog
from sqlml.errors import BindError, Error, NotSupportedError, UnknownModel, UnknownVersion
from sqlml.statements.result import Result


def run_alter_model(node: AlterModel, source: str, catalog: Catalog) -> Result:
    """SET ALIAS: point a name at a version."""
    action = node.action
    if not isinstance(action, SetAlias):
        raise NotSupportedError(
            "this form of ALTER MODEL: understood, but this version cannot carry it out yet", source=source, span=action.span,
            hint=f"ALTER MODEL {node.model.text} SET ALIAS champion = 1 works",
        )  # fmt: skip
    if not action.alias.name.replace("_", "").replace("-", "").isalnum() or action.alias.name.isdigit():
        raise BindError(
            f"{action.alias.name!r} cannot be an alias: letters, digits, _ and -, and not a number alone", source=source,
            span=action.alias.span,
        )  # fmt: skip
    try:
        catalog.set_alias(node.model.name.text, action.alias.name, action.version)
    except Error as error:
        raise error.located(source, action.span if isinstance(error, UnknownVersion) else node.model.span) from None
    return Result()


def run_drop_model(node: DropModel, source: str, catalog: Catalog) -> Result:
    """Remove a model, or one version of it."""
    ref = node.model
    try:
        version = catalog.resolve(ref.name.text, ref.version, ref.alias).version if ref.version or ref.alias else None
        catalog.drop(ref.name.text, version, cascade=node.cascade)
    except BindError as error:
        if node.if_exists and isinstance(error, UnknownModel | UnknownVersion):
            return Result()
        raise error.located(source, ref.span) from None
    return Result()
