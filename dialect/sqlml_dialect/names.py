"""Writing names and texts as SQL."""

from __future__ import annotations

import re

from sqlml_dialect.tokens import words

PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Reserved by DuckDB: as a name each needs quotes.
RESERVED = words(
    """
    all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create default
    deferrable desc describe distinct do else end except false fetch for foreign from group having in initially intersect into
    lambda lateral leading limit not null offset on only or order pivot pivot_longer pivot_wider placing primary qualify
    references returning select show some summarize symmetric table then to trailing true union unique unpivot using variadic
    when where window with
    """
)


def quote_identifier(name: str) -> str:
    """A name between double quotes, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def quote_string(text: str) -> str:
    """A text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def name_sql(name: str) -> str:
    """A name as a person would write it: quoted only where SQL needs it."""
    plain = PLAIN_NAME.fullmatch(name) is not None and name.lower() not in RESERVED
    return name if plain else quote_identifier(name)
