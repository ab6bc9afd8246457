"""Names of models: which are allowed, and which version a reference means."""

from __future__ import annotations

import unicodedata

from sqlml_dialect import ModelRef

from sqlml.catalog import Catalog, Version
from sqlml.errors import BindError, Error

LONGEST_NAME = 128
FORBIDDEN = "/\\\"'`@;:?*<>|%$"


def resolve_model(catalog: Catalog, ref: ModelRef, source: str) -> Version:
    """The version that a reference means.  ``BindError`` points at it."""
    try:
        return catalog.resolve(ref.name.text, ref.version, ref.alias)
    except Error as error:
        raise error.located(source, ref.span) from None


def check_new_name(ref: ModelRef, source: str, what: str = "a model") -> str:
    """The name for something new.  ``BindError`` where it has a character that a file or a URL cannot carry."""
    name = ref.name.text
    if ref.version is not None or ref.alias is not None:
        suffix = ref.version if ref.version is not None else ref.alias
        raise BindError(
            f"a new version gets its number by itself: write {name}, not {name}@{suffix}", source=source, span=ref.span
        )
    check_name(name, source, ref.span, what)
    return name


def check_name(name: str, source: str, span: tuple[int, int], what: str) -> None:
    """``BindError`` unless the name can be a model's or an endpoint's."""
    bad = sorted({c for c in name if c in FORBIDDEN or unicodedata.category(c).startswith("C")})
    if bad or ".." in name or name != name.strip() or name.startswith(".") or not name:
        wrong = f"contains {' '.join(bad)}" if bad else "begins or ends with a blank or a dot, has two dots, or is empty"
        raise BindError(
            f"{name!r} cannot be the name of {what}: it {wrong}",
            source=source,
            span=span,
            hint="letters, digits, _ and - of any script, single dots and inner blanks are fine",
        )
    if len(name) > LONGEST_NAME:
        message = f"the name of {what} can have {LONGEST_NAME} characters, this one has {len(name)}"
        raise BindError(message, source=source, span=span)
