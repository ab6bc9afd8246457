"""A place in the tokens of one statement: what the grammar asks, takes, and complains with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import NoReturn, TypeVar

from sqlml_dialect.clause_nodes import Expression, Ident, ModelRef, QualifiedName, Query, Span
from sqlml_dialect.errors import DialectError
from sqlml_dialect.names import name_sql
from sqlml_dialect.similar import nearest
from sqlml_dialect.tokens import Kind, Token, name_value, string_value

OPENING = {"(": ")", "[": "]", "{": "}"}
CLOSING = frozenset(OPENING.values())
_INTEGER = re.compile(r"[0-9][0-9_]*")
T = TypeVar("T")


class Cursor:
    """Reads tokens from left to right; every complaint carries the place and what was expected there.

    It keeps what has been read for whoever lays the statement out anew: the indexes of the tokens that were read as
    ``keywords``, of those that begin a clause (``openings``), and the ranges that are the database's own text (``raws``).
    """

    def __init__(self, text: str, tokens: Sequence[Token], position: int = 0) -> None:
        self.text = text
        self.tokens = tokens
        self.position = position
        self.keywords: set[int] = set()
        self.openings: list[int] = []
        self.raws: dict[int, int] = {}

    # --- looking ---

    def peek(self, ahead: int = 0) -> Token:
        """The token some places ahead; behind the last one, an END token."""
        index = self.position + ahead
        if index < len(self.tokens):
            return self.tokens[index]
        return Token(Kind.END, "", self.last_end(), self.last_end())

    def last_end(self) -> int:
        """Where the last token ends."""
        return self.tokens[-1].end if self.tokens else 0

    def taken_since(self, start: int) -> Span:
        """The span from an offset to the end of the token taken last."""
        return start, self.tokens[self.position - 1].end

    def at_name(self, ahead: int = 0) -> bool:
        """Whether a name stands here: quoted, or any word but AS."""
        token = self.peek(ahead)
        return token.kind is Kind.QUOTED or (token.kind is Kind.WORD and token.key != "AS")

    def at_words(self, *words: str) -> bool:
        """Whether these keywords come next."""
        return all(self.peek(ahead).key == word for ahead, word in enumerate(words))

    @cached_property
    def question_marks(self) -> dict[int, int]:
        """The number of each parameter ``?``, counted from 1 over the whole statement, by the index of its token."""
        marks = (index for index, token in enumerate(self.tokens) if token.kind is Kind.PARAM and token.text == "?")
        return {index: number for number, index in enumerate(marks, 1)}

    # --- taking ---

    def take(self) -> Token:
        """The next token."""
        token = self.peek()
        self.position += 1
        return token

    def keyword(self) -> Token:
        """The next token, read as a keyword."""
        self.keywords.add(self.position)
        return self.take()

    def accept(self, *words: str) -> bool:
        """Take these keywords if they come next."""
        if not self.at_words(*words):
            return False
        for _ in words:
            self.keyword()
        return True

    def expect(self, *words: str) -> Token:
        """Take these keywords, which must come next; gives the last one."""
        token = self.peek()
        for word in words:
            token = self.keyword() if self.peek().key == word else self.fail(_shown(word), words=(word,))
        return token

    def choose(self, what: str, words: Sequence[str]) -> str:
        """Take one of some keywords."""
        token = self.peek()
        if token.key in words:
            return self.keyword().key
        if token.kind is Kind.WORD:
            self.fail(either(words), message=f"unknown {what} {token.text}", words=words)
        self.fail(either(words))

    def ident(self, what: str) -> Ident:
        """Take one name."""
        if not self.at_name():
            text = string_value(self.peek().text) if self.peek().kind is Kind.STRING else None
            self.fail(
                what, hint=None if text is None else f"a name stands without quotes or between double quotes: {name_sql(text)}"
            )
        token = self.take()
        quoted = token.kind is Kind.QUOTED
        name = name_value(token)
        if not name:
            self.fail(what, token, message="a name cannot be empty")
        return Ident(name, quoted, span=(token.start, token.end))

    def qualified_name(self, what: str) -> QualifiedName:
        """Take a name, dotted or not."""
        parts = [self.ident(what)]
        while self.accept("."):
            parts.append(self.ident(what))
        return QualifiedName(tuple(parts), span=(parts[0].span[0], parts[-1].span[1]))

    def model_ref(self) -> ModelRef:
        """Take ``m``, ``s.m``, ``m@3`` or ``m@champion``."""
        name = self.qualified_name("a model's name")
        start, end = name.span
        if not self.accept("@"):
            return ModelRef(name, span=name.span)
        token = self.peek()
        if token.kind is Kind.NUMBER:
            version = self.integer("a version's number", least=1)
            return ModelRef(name, version, span=(start, token.end))
        alias = self.ident("a version's number or an alias after @")
        return ModelRef(name, alias=alias.name, span=(start, max(end, alias.span[1])))

    def integer(self, what: str, least: int = 0) -> int:
        """Take a whole number written as digits."""
        token = self.peek()
        if token.kind is not Kind.NUMBER or not _INTEGER.fullmatch(token.text):
            self.fail(what)
        value = whole_number(token.text)
        if value is None or value < least:
            self.fail(f"{what} of at least {least}" if value is not None else what)
        self.take()
        return value

    def string(self, what: str) -> str:
        """Take a string literal."""
        token = self.peek()
        if token.kind is not Kind.STRING:
            hint = f"write it between single quotes: '{token.text.strip(chr(34))}'" if token.kind in NAMES else None
            self.fail(what, hint=hint)
        self.take()
        return string_value(token.text)

    def listed(self, item: Callable[[], T]) -> tuple[T, ...]:
        """Take one or more items with commas between."""
        items = [item()]
        while self.accept(","):
            items.append(item())
        return tuple(items)

    def in_parens(self, item: Callable[[], T]) -> tuple[T, ...]:
        """Take ``(item, …)``, at least one."""
        self.expect("(")
        items = self.listed(item)
        self.end_list(")")
        return items

    def end_list(self, closing: str) -> Token:
        """Take the bracket that ends a list; says so where a comma is missing."""
        token = self.peek()
        if token.key != closing and (token.kind in (*NAMES, Kind.STRING, Kind.NUMBER, Kind.PARAM) or token.key in OPENING):
            self.fail(f'"," or "{closing}"', hint=f"is a comma missing before {describe(token)}?")
        return self.expect(closing)

    def raw(self, first: int, last: int, alias: Ident | None = None) -> Expression:
        """The text of a range of tokens as an expression of the database."""
        start, end = self.tokens[first].start, self.tokens[last - 1].end
        self.raws[first] = last
        return Expression(self.text[start:end], alias, span=(start, end))

    def query_until(self, stop: int) -> Query:
        """The text from here to a token as a query of the database."""
        if self.position >= stop:
            self.fail("a query")
        expression = self.raw(self.position, stop)
        self.position = stop
        return Query(expression.text, span=expression.span)

    def closing(self) -> int:
        """The index of the bracket that closes the one standing here."""
        depth = 0
        for index in range(self.position, len(self.tokens)):
            key = self.tokens[index].key
            depth += (key in OPENING) - (key in CLOSING)
            if not depth:
                return index
        raise unclosed(self.text, self.tokens[self.position])

    def split_at_commas(self, stop: int) -> list[tuple[int, int]]:
        """The ranges of tokens between the commas from here to a token, brackets kept whole."""
        ranges, depth, first = [], 0, self.position
        for index in range(self.position, stop):
            key = self.tokens[index].key
            depth += (key in OPENING) - (key in CLOSING)
            if key == "," and not depth:
                ranges.append((first, index))
                first = index + 1
        return [*ranges, (first, stop)]

    # --- complaining ---

    def fail(
        self,
        expected: str,
        token: Token | None = None,
        *,
        message: str | None = None,
        words: Iterable[str] = (),
        hint: str | None = None,
    ) -> NoReturn:
        """Raise the error for what stands here, with the nearest of the words that could."""
        found = token or self.peek()
        meant = nearest(found.text, words) if found.kind is Kind.WORD else None
        raise DialectError(
            message or f"expected {expected}, found {describe(found)}",
            self.text,
            (found.start, found.end),
            expected,
            f"did you mean {meant}?" if meant else hint,
        )


NAMES = (Kind.WORD, Kind.QUOTED)


def describe(token: Token) -> str:
    """A token as a complaint names it."""
    if token.kind is Kind.END:
        return "the end of the statement"
    return token.text if len(token.text) <= 40 else token.text[:39] + "…"


def either(words: Sequence[str]) -> str:
    """Words as a choice: ``A, B or C``."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def whole_number(digits: str) -> int | None:
    """The value of digits with underscores between, None when there are more of them than any number here can need."""
    return int(digits.replace("_", "")) if len(digits) <= 40 else None


def is_star(tokens: Sequence[Token]) -> bool:
    """Whether an item is ``*``, ``t.*`` or COLUMNS(…), with or without changes behind: what stands for many columns."""
    if tokens[0].key == "COLUMNS" and len(tokens) > 1 and tokens[1].key == "(":
        return True
    index = 0
    while index + 1 < len(tokens) and tokens[index].kind in NAMES and tokens[index + 1].key == ".":
        index += 2
    return index < len(tokens) and tokens[index].key == "*"


def unclosed(text: str, token: Token) -> DialectError:
    """The error for a bracket, string, name or comment that nothing ends."""
    what = OPENING.get(token.key)
    if what is not None:
        return DialectError(f"this {token.key} is never closed", text, (token.start, token.end), f'"{what}"')
    mark = token.text[: 2 if token.text.startswith(("/*", "E'", "e'")) else 1]
    kind = {"/*": "comment", '"': "quoted name", "`": "quoted name"}.get(mark, "string")
    hint = f"a {mark} inside is written twice, and one ends the {kind}" if mark in ("'", '"', "`") else None
    return DialectError(f"this {kind} is never closed", text, (token.start, token.start + len(mark)), hint=hint)


def check_closed(text: str, tokens: Sequence[Token]) -> None:
    """Raise for what is opened in a statement and never closed, pointing at where it opens."""
    if tokens and tokens[-1].kind is Kind.OPEN:
        raise unclosed(text, tokens[-1])
    opened: list[Token] = []
    for token in tokens:
        if token.key in OPENING:
            opened.append(token)
        elif token.key in CLOSING and opened:
            last = opened.pop()
            if OPENING[last.key] != token.key:
                raise unclosed(text, last)
    if opened:
        raise unclosed(text, opened[-1])


def _shown(word: str) -> str:
    """A keyword or symbol as an error names it."""
    return word if word.isalpha() else f'"{word}"'
