"""Pieces of PostgreSQL's SQL as text: literals that are read back exactly, names, types; no user text is ever pasted.

Every literal is read the same whatever the session's settings (standard_conforming_strings, extra_float_digits).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlml_dialect import quote_identifier
from sqlml_dialect.tokens import words

from sqlml.errors import NotSupportedError
from sqlml.types import Kind

TYPES: Mapping[Kind, str] = {
    Kind.NUMBER: "double precision",
    Kind.BOOLEAN: "boolean",
    Kind.TEXT: "text",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.TIMESTAMP: "timestamp",
    Kind.TIMESTAMPTZ: "timestamptz",
    Kind.NUMBERS: "double precision[]",
    Kind.TEXTS: "text[]",
}
"""The type of a function's argument, by the kind of its input."""

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_RESERVED = words("""
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation column
    concurrently constraint create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze from
    full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit localtime
    localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references returning
    right select session_user similar some symmetric system_user table tablesample then to trailing true union unique user
    using variadic verbose when where window with
""")
"""What PostgreSQL reserves: pg_get_keywords(), the categories R and T."""
_RESULTS = {"DOUBLE": "double precision", "BIGINT": "bigint", "VARCHAR": "text", "BOOLEAN": "boolean"}

_NEGLIGIBLE = 1e-100
"""A constant nearer to 0 adds nothing to any answer, and PostgreSQL raises where a product of it underflows."""


def result_type(sql_type: str) -> str:
    """A signature's type as PostgreSQL has it: ``DOUBLE[]`` → ``double precision[]``; jsonb for a STRUCT or a MAP."""
    if sql_type.endswith("[]"):
        return f"{result_type(sql_type[:-2])}[]"
    return _RESULTS.get(sql_type, "jsonb")


def string(text: str) -> str:
    """A string literal.  ``NotSupportedError`` for the character NUL, which PostgreSQL's texts cannot hold."""
    if "\0" in text:
        raise NotSupportedError(
            "the model has a text with the character NUL, which PostgreSQL cannot hold", hint="PREDICT MODEL … INTO a table"
        )
    quoted = text.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in text else f"'{quoted}'"


def real_text(value: Any) -> str:
    """A float32 in the fewest digits that give it back: ``0.1``, ``1e-30``, ``inf``."""
    return str(np.float32(value)).removesuffix(".0")


def real(value: Any) -> str:
    """A float32 as a literal of type real."""
    return f"'{real_text(value)}'::real"


def double(value: float) -> str:
    """A float64 as a literal of type double precision; one that is next to nothing as 0."""
    number = float(value)
    text = "0" if abs(number) < _NEGLIGIBLE else repr(number).removesuffix(".0")
    return f"'{text}'::float8"


def doubles(values: Iterable[float]) -> str:
    """An array of float64."""
    texts = ("0" if abs(float(value)) < _NEGLIGIBLE else repr(float(value)).removesuffix(".0") for value in values)
    return f"'{{{','.join(texts)}}}'::float8[]"


def jsonb(value: Any) -> str:
    """A JSON value as a literal."""
    return f"{string(json.dumps(value, ensure_ascii=False))}::jsonb"


def constant(value: Any) -> str:
    """A class as a literal of its own type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"'{value}'::bigint"
    return f"'{value!r}'::float8" if isinstance(value, float) else f"{string(str(value))}::text"


def value(given: Any, kind: Kind) -> str:
    """A value of an input as a literal: what Arrow's ``to_pylist`` gives, None as NULL."""
    if given is None:
        return f"NULL::{TYPES[kind]}"
    if isinstance(given, list):
        inner = {Kind.NUMBERS: Kind.NUMBER}.get(kind, Kind.TEXT)
        return f"ARRAY[{', '.join(value(item, inner) for item in given)}]::{TYPES[kind]}"
    return f"{string(given if isinstance(given, str) else str(given).lower())}::{TYPES[kind]}"


def json_object(pairs: Sequence[tuple[str, str]]) -> str:
    """A jsonb object of names and SQL values; a function of PostgreSQL takes 100 arguments at most."""
    pieces = [pairs[start : start + 40] for start in range(0, len(pairs), 40)]
    calls = (f"jsonb_build_object({', '.join(f'{string(name)}, {value}' for name, value in piece)})" for piece in pieces)
    return " || ".join(calls)


def dotted(parts: Sequence[str]) -> str:
    """A qualified name: ``"public"."churn"``."""
    return ".".join(quote_identifier(part) for part in parts)


def shown(parts: Sequence[str]) -> str:
    """A qualified name for people, quoted where it must be: ``public."Churn"``."""
    return ".".join(part if _PLAIN.fullmatch(part) and part not in _RESERVED else quote_identifier(part) for part in parts)


def plain_literal(given: Any) -> str:
    """A value as a person would write it, for an argument whose type is known."""
    if given is None:
        return "NULL"
    if isinstance(given, bool):
        return str(given).lower()
    if isinstance(given, int | float):
        return repr(given) if math.isfinite(given) else f"'{given}'"
    if isinstance(given, Sequence) and not isinstance(given, str):
        return f"ARRAY[{', '.join(map(plain_literal, given))}]" if given else "'{}'"
    return string(str(given))


def dollar_quoted(body: str) -> str:
    """A body between marks that do not occur in it."""
    mark = "$sqlml$"
    while mark in body:
        mark = f"${mark[1:-1]}_$"
    return f"{mark}{body}{mark}"
