"""Calls of ours inside the database's own queries, found by reading tokens; the query itself is never written anew.

One pass with a stack of frames, one frame per open bracket.  A frame knows whether its bracket belongs to a call, where the
current item of a select list begins, and which calls it holds; a call is built when its bracket closes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from sqlml_dialect.call_nodes import Argument, Calls, ModelCall, UnnamedItem
from sqlml_dialect.clause_nodes import Expression, Ident, ModelRef, QualifiedName
from sqlml_dialect.cursor import CLOSING, NAMES, OPENING, Cursor, is_star, unclosed
from sqlml_dialect.errors import DialectError
from sqlml_dialect.table_functions import SCHEMA, TABLE_FUNCTIONS, check_function, parse_table_function
from sqlml_dialect.tokens import Kind, Token, name_value, scan, string_value, words

BUILTINS = ("predict", "predict_proba", "predict_reasons")
QUALIFIED = {f"sqlml.{name}": name for name in BUILTINS}
"""With the schema of ours: for tools that take PREDICT(…) for a function of another database and refuse it."""
MAX_DEPTH = 50
_EXTRAS = {"predict_proba": "a class", "predict_reasons": "a number of reasons"}

# A function is called only behind one of these words (or a symbol): behind any other, NAME(…) defines or aliases something.
_BEFORE_EXPRESSION = words(
    """
    ALL AND ANY ASYMMETRIC BETWEEN BY CALL CASE DEFAULT DISTINCT ELSE ESCAPE FOR FROM GLOB HAVING IF ILIKE IN INTERVAL IS JOIN
    LATERAL LIKE LIMIT NOT OFFSET ON OR OVERLAPS QUALIFY RETURNING SELECT SOME SYMMETRIC THEN TO USING WHEN WHERE ZONE
    """
)
_BEHIND_OPERAND = frozenset({".", "::", ")", "]", "}"})
_STARTS_LIST = frozenset({"SELECT", "RETURNING"})
_ENDS_LIST = words("FROM WHERE HAVING WINDOW QUALIFY LIMIT OFFSET UNION INTERSECT EXCEPT INTO ON FETCH USING GROUP ORDER")
_NO_ALIAS = words("END FALSE ISNULL NOTNULL NULL TRUE")
_OPERATOR_WORDS = words(
    """
    ALL AND ANY AT BETWEEN CASE COLLATE DISTINCT ELSE ESCAPE FROM GLOB ILIKE IN IS LIKE NOT OR OVER SIMILAR SOME THEN TO WHEN
    ZONE
    """
)
_TWO_WORD_TYPES = frozenset({("DOUBLE", "PRECISION"), ("TIME", "ZONE"), ("CHARACTER", "VARYING"), ("CHAR", "VARYING")})
_SPANS = frozenset({"span", "value_span"})
_CONSTANTS = frozenset({"NULL", "TRUE", "FALSE"})
_SCHEMA = re.compile(rf"\b{SCHEMA}\b")


def find_calls(text: str, functions: Collection[str] = (), start: int = 0, *, skip: Collection[str] = ()) -> Calls:
    """The calls of ours in a query of the database, and the select items that would lose their name.

    ``functions`` are the lower-case names of the models that have a function of their own, ``skip`` the lower-case names of
    functions that the database itself defines.  Spans count from ``start``.  Raises DialectError for a call of ours that
    cannot be read; a query that the database cannot read either has no calls.
    """
    lowered = text.lower()
    names = [*BUILTINS, *functions]
    if not (any(name.rpartition(".")[2].replace('"', '""') in lowered for name in names) or _SCHEMA.search(lowered)):
        return Calls()
    found = _Finder(text, frozenset(functions), frozenset(skip)).find()
    moved: Calls = _moved(found, start) if start else found
    return moved


def may_have_calls(text: str) -> bool:
    """Whether a query has a call that is ours whatever models there are."""
    try:
        return bool(find_calls(text).calls)
    except DialectError:
        return True


@dataclass(frozen=True)
class _Head:
    """What stands before the bracket of a call."""

    function: str
    start: int
    model: ModelRef | None = None  # of a model's own function

    @property
    def shown(self) -> str:
        """The function's name as an error gives it."""
        return self.function.upper()


@dataclass
class _Frame:
    """One open bracket; the lowest frame is the query itself."""

    opening: int
    head: _Head | None = None
    depth: int = 0  # how many calls are open
    item: int | None = None  # where the current item of a select list begins
    calls: list[ModelCall] = field(default_factory=list)


class _Finder:
    """One pass over a query."""

    def __init__(self, text: str, functions: frozenset[str], skip: frozenset[str]) -> None:
        self.text = text
        self.tokens: Sequence[Token] = list(scan(text))
        self.functions = functions
        self.skip = skip
        self.unnamed: list[UnnamedItem] = []
        self.distinct_on_end = -1
        keys = [token.key for token in self.tokens[:5]]
        self.is_macro = keys[:1] == ["CREATE"] and not {"MACRO", "FUNCTION"}.isdisjoint(keys)
        self.is_index = keys[:1] == ["CREATE"] and "INDEX" in keys

    def find(self) -> Calls:
        """All calls; none where brackets or strings do not close, for the database to complain about."""
        if self.tokens and self.tokens[-1].kind is Kind.OPEN:
            return Calls()
        stack = [_Frame(-1)]
        for index, token in enumerate(self.tokens):
            if token.key in OPENING:
                head = self._head_before(index, len(stack) == 1) if token.key == "(" else None
                stack.append(_Frame(index, head, depth=stack[-1].depth + (head is not None)))
                self._check_depth(stack[-1])
            elif token.key in CLOSING:
                if len(stack) == 1 or OPENING[self.tokens[stack[-1].opening].key] != token.key:
                    return Calls()
                self._close(stack.pop(), stack[-1], index)
            elif token.key:
                self._follow_clause(stack[-1], index)
        for frame in stack[1:]:
            if frame.head is not None:
                raise unclosed(self.text, self.tokens[frame.opening])
        self._end_item(stack[0], len(self.tokens))
        return Calls(tuple(stack[0].calls), tuple(sorted(self.unnamed, key=lambda item: item.span)))

    # --- frames ---

    def _check_depth(self, frame: _Frame) -> None:
        """Refuse calls inside calls without end."""
        if frame.head is not None and frame.depth > MAX_DEPTH:
            span = (frame.head.start, self.tokens[frame.opening].end)
            raise DialectError(f"calls of models may be nested {MAX_DEPTH} deep at most", self.text, span)

    def _close(self, frame: _Frame, parent: _Frame, closing: int) -> None:
        """End a frame and give what it holds to the one around it."""
        self._end_item(frame, closing)
        if self._key(frame.opening - 1) == "ON" and self._key(frame.opening - 2) == "DISTINCT":
            self.distinct_on_end = closing
        if frame.head is None or self._names_table_expression(closing):
            parent.calls.extend(frame.calls)
        else:
            parent.calls.append(self._build(frame.head, frame, closing))

    def _follow_clause(self, frame: _Frame, index: int) -> None:
        """Keep track of select lists as keywords and commas pass."""
        key = self.tokens[index].key
        if key == ",":
            if frame.item is not None:
                self._end_item(frame, index)
                frame.item = index + 1
        elif self._key(index - 1) == ".":
            return
        elif key in _STARTS_LIST:
            self._end_item(frame, index)
            frame.item = index + 1
        elif frame.item is not None and key in _ENDS_LIST and not self._is_inside_item(index):
            self._end_item(frame, index)

    def _is_inside_item(self, index: int) -> bool:
        """Whether a word that can end a select list is part of an item: IS DISTINCT FROM, * EXCEPT, WITHIN GROUP, DISTINCT ON."""
        key, before = self.tokens[index].key, self._key(index - 1)
        if key in {"GROUP", "ORDER"}:
            return self._key(index + 1) != "BY"
        if key in {"FROM", "ON"}:
            return before == "DISTINCT" and (key == "ON" or self._key(index - 2) in {"IS", "NOT"})
        return key == "EXCEPT" and before == "*"

    def _end_item(self, frame: _Frame, stop: int) -> None:
        """Note the select item that ends here if it has a call and no name."""
        if frame.item is None:
            return
        first = self._behind_distinct(frame.item)
        frame.item = None
        if first >= stop or not frame.calls or frame.calls[-1].span[0] < self.tokens[first].start:
            return
        if not is_star(self.tokens[first:stop]) and not _has_name(self.tokens[first:stop]):
            span = (self.tokens[first].start, self.tokens[stop - 1].end)
            self.unnamed.append(UnnamedItem(self.text[span[0] : span[1]], span=span))

    def _behind_distinct(self, index: int) -> int:
        """The first token of a select list behind ALL, DISTINCT or DISTINCT ON (…)."""
        if self._key(index) == "DISTINCT" and self._key(index + 1) == "ON" and self._key(index + 2) == "(":
            return Cursor(self.text, self.tokens, index + 2).closing() + 1
        return index + 1 if self._key(index) in {"DISTINCT", "ALL"} else index

    def _key(self, index: int) -> str:
        """The keyword or symbol at an index, empty outside the query."""
        return self.tokens[index].key if 0 <= index < len(self.tokens) else ""

    # --- recognition ---

    def _head_before(self, opening: int, outermost: bool) -> _Head | None:
        """The function of ours whose bracket opens here, if it is one."""
        first = opening
        while first and self.tokens[first - 1].kind in NAMES:
            first -= 1
            if self._key(first - 1) != "." or first < 2 or self.tokens[first - 2].kind not in NAMES:
                break
            first -= 1
        parts = [_ident(token) for token in self.tokens[first:opening] if token.key != "."]
        if not parts or not self._may_be_called(first, outermost):
            return None
        start = self.tokens[first].start
        name = ".".join(part.name for part in parts).lower()
        if name in self.skip:
            return None
        if name in TABLE_FUNCTIONS or name in BUILTINS or name in QUALIFIED:
            return _Head(QUALIFIED.get(name, name), start)
        if len(parts) == 2 and parts[0].name.lower() == SCHEMA:
            check_function(Cursor(self.text, self.tokens, opening + 1), parts[1])
        model = self._model_of(parts, name)
        return _Head("model", start, model) if model else None

    def _may_be_called(self, first: int, outermost: bool) -> bool:
        """Whether an expression can begin at this token."""
        if not first or first - 1 == self.distinct_on_end:
            return True
        before = self.tokens[first - 1]
        if before.kind is Kind.SYMBOL:
            return before.key not in _BEHIND_OPERAND
        if before.key == "AS":
            return self.is_macro and outermost
        if before.key == "ON" and self.is_index and outermost:
            return False
        return before.key in _BEFORE_EXPRESSION

    def _model_of(self, parts: Sequence[Ident], name: str) -> ModelRef | None:
        """The model that a function's name means: the name itself or, quoted, the name with a version or alias."""
        span = (parts[0].span[0], parts[-1].span[1])
        if name in self.functions:
            return ModelRef(QualifiedName(tuple(parts), span=span), span=span)
        base, mark, suffix = parts[-1].name.rpartition("@")
        if not mark or not suffix or name.rpartition("@")[0] not in self.functions:
            return None
        qualified = QualifiedName((*parts[:-1], Ident(base, parts[-1].quoted, span=parts[-1].span)), span=span)
        is_version = suffix.isascii() and suffix.isdecimal() and len(suffix) < 19 and int(suffix) > 0
        return ModelRef(qualified, int(suffix), span=span) if is_version else ModelRef(qualified, alias=suffix, span=span)

    def _names_table_expression(self, closing: int) -> bool:
        """Whether NAME(…) up to here is the head of a WITH query: ``t(a, b) AS (…)``."""
        behind = tuple(self._key(closing + ahead) for ahead in (1, 2, 3))
        return behind[:2] in {("AS", "("), ("AS", "MATERIALIZED"), ("USING", "KEY")} or behind == ("AS", "NOT", "MATERIALIZED")

    # --- building ---

    def _build(self, head: _Head, frame: _Frame, closing: int) -> ModelCall:
        """The call whose bracket closes here."""
        cursor = Cursor(self.text, self.tokens, frame.opening + 1)
        inner = tuple(frame.calls)
        span = (head.start, self.tokens[closing].end)
        if head.function in TABLE_FUNCTIONS:
            return replace(parse_table_function(cursor, head.function, closing), inner=inner, span=span)
        if head.model is not None:
            using = () if cursor.position == closing else _arguments(cursor, closing)
            return ModelCall(head.function, head.model, using, inner=inner, span=span)
        model = _model_argument(cursor, head, closing)
        extra = _extra_argument(cursor, head, closing)
        listed = _arguments(cursor, closing) if cursor.accept("USING") else None
        return ModelCall(head.function, model, listed, extra, inner=inner, span=span)


# --- the arguments of a call ------------------------------------------------------------------------------------------


def _model_argument(cursor: Cursor, head: _Head, closing: int) -> ModelRef:
    """The model's name, which comes first."""
    opening = cursor.position
    model = cursor.model_ref() if cursor.at_name() else None
    if model is None or (cursor.position != closing and cursor.peek().key not in {",", "USING"}):
        first = cursor.tokens[opening]
        last = cursor.tokens[max(closing - 1, opening)]
        hint = _model_hint(cursor, head, opening, closing)
        message, expected = f"{head.shown} takes a model name first", "a model's name, such as churn or churn@3"
        raise DialectError(message, cursor.text, (first.start, last.end), expected, hint)
    return model


def _model_hint(cursor: Cursor, head: _Head, opening: int, closing: int) -> str | None:
    """What was probably meant where a model's name should stand alone."""
    first, second, third = (cursor.tokens[min(opening + ahead, closing)] for ahead in range(3))
    if first.kind in (Kind.STRING, Kind.NUMBER) and second.key == "," and third.kind in NAMES and head.function in _EXTRAS:
        return f"write {head.shown}({third.text}, {first.text})"
    if first.kind is Kind.STRING:
        return f"write it without quotes: {head.shown}({string_value(first.text)})"
    if first.key == "MODEL" and second.kind in NAMES:
        return f"write it without MODEL: {head.shown}({second.text})"
    if first.kind in NAMES and second.kind in (Kind.STRING, Kind.NUMBER) and head.function in _EXTRAS:
        return f"write {head.shown}({first.text}, {second.text})"
    if first.kind in NAMES and (second.kind in NAMES or second.key in {"(", "*"}):
        return f"write {head.shown}({first.text} USING column, …)"
    return None


def _extra_argument(cursor: Cursor, head: _Head, closing: int) -> Expression | None:
    """The class of PREDICT_PROBA or the count of PREDICT_REASONS, if one is given."""
    if cursor.peek().key != ",":
        return None
    if head.function not in _EXTRAS:
        items = (
            cursor.text[cursor.peek(1).start : cursor.tokens[closing - 1].end] if cursor.position + 1 < closing else "column, …"
        )
        hint = f"write {head.shown}({cursor.tokens[cursor.position - 1].text} USING {items if len(items) < 60 else 'column, …'})"
        cursor.fail("USING and the features, or the end of the call", hint=hint)
    cursor.take()
    stop = _using_or(cursor, closing)
    ranges = cursor.split_at_commas(stop)
    first, last = ranges[0]
    if first == last:
        cursor.fail(_EXTRAS[head.function])
    if len(ranges) > 1:
        cursor.fail("USING and the features, or the end of the call", cursor.tokens[last])
    cursor.position = stop
    return cursor.raw(first, last)


def _using_or(cursor: Cursor, closing: int) -> int:
    """The index of the call's own USING, else of its closing bracket."""
    depth = 0
    for index in range(cursor.position, closing):
        key = cursor.tokens[index].key
        depth += (key in OPENING) - (key in CLOSING)
        if key == "USING" and not depth and cursor.tokens[index - 1].key != ".":
            return index
    return closing


def _arguments(cursor: Cursor, closing: int) -> tuple[Argument, ...]:
    """The features that a call is given."""
    return tuple(_argument(cursor, first, last) for first, last in cursor.split_at_commas(closing))


def _argument(cursor: Cursor, first: int, last: int) -> Argument:
    """One feature: a star, a named expression, or an expression."""
    if first == last:
        hint = "as in PREDICT(churn USING age, balance * 2 AS balance), or USING * for all columns"
        cursor.fail("a feature: a column, an expression AS name, * or t.*", cursor.tokens[last], hint=hint)
    tokens = cursor.tokens[first:last]
    whole = cursor.raw(first, last)
    if is_star(tokens) and tokens[-1].key == "*":
        return Argument(whole.text, star=whole.text, span=whole.span)
    if len(tokens) > 2 and tokens[0].kind in NAMES and tokens[1].key in {":=", "=>"}:
        return Argument(cursor.raw(first + 2, last).text, _ident(tokens[0]), named=True, span=whole.span)
    if len(tokens) > 2 and tokens[-2].key == "AS" and tokens[-1].kind in NAMES:
        return Argument(cursor.raw(first, last - 2).text, _ident(tokens[-1]), span=whole.span)
    return Argument(whole.text, _column_name(tokens), span=whole.span)


def _column_name(tokens: Sequence[Token]) -> Ident | None:
    """The column's own name if the tokens are no more than a column, qualified or not."""
    names, dots = tokens[::2], tokens[1::2]
    is_column = len(tokens) % 2 and all(token.kind in NAMES for token in names) and all(token.key == "." for token in dots)
    return _ident(names[-1]) if is_column and tokens[-1].key not in _CONSTANTS else None


# --- select items -----------------------------------------------------------------------------------------------------


def _has_name(tokens: Sequence[Token]) -> bool:
    """Whether an item has a name of its own: ``e AS n``, ``n: e`` or ``e n``."""
    if len(tokens) > 1 and tokens[0].kind in NAMES and tokens[1].key == ":":
        return True
    depth = 0
    for token in tokens:
        depth += (token.key in OPENING) - (token.key in CLOSING)
        if token.key == "AS" and not depth:
            return True
    return len(tokens) > 1 and is_alias(tokens)


def is_alias(tokens: Sequence[Token]) -> bool:
    """Whether the last of several tokens is an alias written without AS: a name right behind an operand."""
    before, last = tokens[-2], tokens[-1]
    if last.kind not in NAMES or last.key in _NO_ALIAS or (before.key, last.key) in _TWO_WORD_TYPES:
        return False
    if len(tokens) > 2 and tokens[-3].key == "INTERVAL" and last.kind is Kind.WORD:
        return False
    if before.kind is Kind.SYMBOL:
        return before.key in {")", "]", "}"}
    return before.key not in _OPERATOR_WORDS


def _ident(token: Token) -> Ident:
    """A name from its token."""
    return Ident(name_value(token), token.kind is Kind.QUOTED, span=(token.start, token.end))


def _moved(value: Any, by: int) -> Any:
    """The same with every span in it moved."""
    if isinstance(value, tuple):
        return tuple(_moved(part, by) for part in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changes = {part.name: getattr(value, part.name) for part in fields(value)}
    for name, part in changes.items():
        changes[name] = (part[0] + by, part[1] + by) if name in _SPANS else _moved(part, by)
    return replace(value, **changes)
