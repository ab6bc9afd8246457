"""The parameters of a query that is deployed: ``$age``, their types from how they are used.

A parameter that is a model's input, or a table's key, has that one's type; one that is cast everywhere has the type of the cast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlml_dialect import Span
from sqlml_dialect.tokens import Kind as TokenKind
from sqlml_dialect.tokens import Token, scan, words

from sqlml.errors import BindError
from sqlml.features.database import bind, known_type
from sqlml.features.sqltypes import kind_of
from sqlml.plan import InputColumn
from sqlml.types import SQL_TYPE, Kind

EXAMPLES: Mapping[Kind, Any] = {
    Kind.NUMBER: 1.0,
    Kind.BOOLEAN: True,
    Kind.TEXT: "a text",
    Kind.DATE: "2024-05-31",
    Kind.TIME: "13:45:00",
    Kind.TIMESTAMP: "2024-05-31 13:45:00",
    Kind.TIMESTAMPTZ: "2024-05-31 13:45:00+00:00",
    Kind.NUMBERS: [1.0],
    Kind.TEXTS: ["a text"],
}
_CASTS = ("CAST", "TRY_CAST")
_MORE_OF_A_TYPE = words("PRECISION VARYING WITH WITHOUT TIME ZONE")


@dataclass(frozen=True)
class Use:
    """One use of a parameter that tells its type: the input of a model, the key of a table, a cast."""

    name: str
    kind: Kind
    what: str  # the input age of churn@3
    span: Span
    is_cast: bool = False
    example: Any = None


@dataclass
class ParameterTypes:
    """What is known of the parameters of one query: first what is used, then what follows of it."""

    source: str
    names: dict[str, str] = field(default_factory=dict)  # lower case → as first written
    places: dict[str, Span] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    known: dict[str, InputColumn] = field(default_factory=dict)
    settled: bool = False

    def seen(self, name: str, span: Span) -> str:
        """Note that a parameter stands somewhere; its name as it was first written."""
        key = name.lower()
        self.places.setdefault(key, span)
        return self.names.setdefault(key, name)

    def use(self, name: str, kind: Kind, what: str, span: Span, example: Any = None, *, is_cast: bool = False) -> None:
        """Note a use that tells a type."""
        if not self.settled:
            self.uses.append(Use(name.lower(), kind, what, span, is_cast, example))

    def note_casts(self, span: Span) -> None:
        """Note the casts of parameters in a stretch of text."""
        tokens = list(scan(self.source, *span))
        for index, token in enumerate(tokens):
            if token.kind is TokenKind.PARAM:
                found = _cast_type(self.source, tokens, index)
                kind = _kind_of_type(found) if found else None
                if kind is not None:
                    place = (token.start, token.end)
                    self.use(token.text[1:], kind, f"a cast to {found}", place, is_cast=True)

    def settle(self) -> None:
        """Say what each parameter is.  ``BindError`` for two uses that do not agree."""
        for key, name in self.names.items():
            uses = [use for use in self.uses if use.name == key]
            strong = [use for use in uses if not use.is_cast] or uses
            other = next((use for use in strong if use.kind is not strong[0].kind), None)
            if other is not None:
                first = strong[0]
                raise BindError(
                    f"${name} is {_a(first.kind)} for {first.what}, and {_a(other.kind)} for {other.what}",
                    source=self.source, span=other.span,
                    hint=f"give it twice under two names, or cast it in one place: CAST(${name} AS {SQL_TYPE[other.kind]})",
                )  # fmt: skip
            if strong:
                self.known[key] = InputColumn(name, SQL_TYPE[strong[0].kind], strong[0].kind)
        self.settled = True

    def check(self) -> tuple[InputColumn, ...]:
        """All parameters in the order in which they stand.  ``BindError`` for one whose type nothing tells."""
        for key, name in self.names.items():
            if key not in self.known:
                raise BindError(
                    f"nothing tells the type of ${name}", source=self.source, span=self.places[key],
                    hint=f"cast it where it is used, as in ${name}::DOUBLE; a model's input and a table's key need no cast",
                )  # fmt: skip
        return tuple(self.known[key] for key in sorted(self.names, key=lambda key: self.places[key]))

    def example(self) -> dict[str, Any]:
        """A row of values, JSON all the way down: where the parameter is a model's input, from the rows it was trained on."""
        row = {}
        for key, column in self.known.items():
            found = next((use.example for use in self.uses if use.name == key and use.example is not None), None)
            row[column.name] = EXAMPLES[column.kind] if found is None else found
        return row


def _a(kind: Kind) -> str:
    return {Kind.NUMBERS: "a list of numbers", Kind.TEXTS: "a list of texts"}.get(kind, f"a {kind}")


def _kind_of_type(text: str) -> Kind | None:
    known = known_type(text)
    return None if known is None else kind_of(bind(f"SELECT CAST(NULL AS {known})")[0])


def _cast_type(source: str, tokens: Sequence[Token], index: int) -> str | None:
    """The type that the parameter at an index is cast to: ``$x::INTEGER``, ``CAST($x AS DECIMAL(10, 2))``."""
    keys = [token.key for token in tokens]
    if keys[index + 1 : index + 2] == ["::"]:
        stop = _type_end(tokens, index + 2)
        return source[tokens[index + 2].start : tokens[stop - 1].end] if stop > index + 2 else None
    if index >= 2 and keys[index - 1] == "(" and keys[index - 2] in _CASTS and keys[index + 1 : index + 2] == ["AS"]:
        stop = _type_end(tokens, index + 2)
        return source[tokens[index + 2].start : tokens[stop - 1].end] if stop > index + 2 else None
    return None


def _type_end(tokens: Sequence[Token], first: int) -> int:
    """The index behind the type that begins at a token."""
    index = first
    while index < len(tokens):
        token = tokens[index]
        follows = index == first or token.key in _MORE_OF_A_TYPE
        if token.kind is TokenKind.WORD and follows:
            index += 1
        elif token.key in ("(", "[") and index > first:
            close = {"(": ")", "[": "]"}[token.key]
            while index < len(tokens) and tokens[index].key != close:
                index += 1
            index += 1
        else:
            break
    return min(index, len(tokens))
