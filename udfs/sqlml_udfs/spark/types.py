"""SQL types, as DuckDB writes them, in Spark's words."""

from __future__ import annotations

from sqlml_dialect.tokens import Kind as Token
from sqlml_dialect.tokens import name_value, scan

from sqlml.types import Kind

CASTS: dict[Kind, str] = {
    Kind.NUMBER: "DOUBLE",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.TEXT: "STRING",
    Kind.DATE: "DATE",
    Kind.TIME: "STRING",  # Spark's functions take no TIME: the workers read it from its text
    Kind.TIMESTAMP: "TIMESTAMP_NTZ",
    Kind.TIMESTAMPTZ: "TIMESTAMP",
    Kind.NUMBERS: "ARRAY<DOUBLE>",
    Kind.TEXTS: "ARRAY<STRING>",
}
"""What a value is cast to before a model sees it."""

_NAMES = {
    "DOUBLE": "DOUBLE",
    "BIGINT": "BIGINT",
    "BOOLEAN": "BOOLEAN",
    "VARCHAR": "STRING",
    "DATE": "DATE",
    "TIME": "STRING",
    "TIMESTAMP": "TIMESTAMP_NTZ",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
}


def spark_type(sql_type: str) -> str:
    """``STRUCT("a b" DOUBLE[])`` → ``STRUCT<`a b`: ARRAY<DOUBLE>>``.  ``ValueError`` for a type that no signature has."""
    reader = _Reader(sql_type)
    found = reader.type()
    if reader.peek():
        raise ValueError(f"not one SQL type: {sql_type}")
    return found


class _Reader:
    """Reads one type, token by token."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(scan(text))
        self._next = 0

    def peek(self) -> str:
        return self._tokens[self._next].key or "name" if self._next < len(self._tokens) else ""

    def type(self) -> str:
        word = self._take()
        if word == "STRUCT":
            found = f"STRUCT<{', '.join(self._fields())}>"
        elif word == "MAP":
            self._take("(")
            key = self.type()
            self._take(",")
            found = f"MAP<{key}, {self.type()}>"
            self._take(")")
        else:
            while self.peek() in ("WITH", "TIME", "ZONE"):
                word += f" {self._take()}"
            if word not in _NAMES:
                raise ValueError(f"Spark has no type for {word} of {self._text}")
            found = _NAMES[word]
        while self.peek() == "[":
            self._take("[")
            self._take("]")
            found = f"ARRAY<{found}>"
        return found

    def _fields(self) -> list[str]:
        fields = []
        self._take("(")
        while True:
            token = self._tokens[self._next]
            self._next += 1
            name = name_value(token) if token.kind in (Token.QUOTED, Token.WORD) else ""
            fields.append(f"{quote(name)}: {self.type()}")
            if self._take() == ")":
                return fields

    def _take(self, wanted: str | None = None) -> str:
        found = self.peek()
        if not found or (wanted is not None and found != wanted):
            raise ValueError(f"{self._text} is no SQL type: {wanted or 'more'} expected")
        self._next += 1
        return found


def quote(name: str) -> str:
    """A name as Spark takes it."""
    return "`" + name.replace("`", "``") + "`"
