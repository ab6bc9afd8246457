"""What an expression of TRANSFORM may be: one row's own values and the database's own functions, which give the same again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlml_dialect.fitted import name_span

from sqlml.errors import BindError, did_you_mean
from sqlml.features.database import functions, parse_expression
from sqlml.features.fitted import FUNCTIONS


@dataclass(frozen=True)
class Wording:
    """How to speak of the expressions of one clause: hints for what it cannot have."""

    place: str
    own_functions: str
    same: str  # for what changes from one time to the next
    query: str  # for a sub-query
    rows: str  # for an aggregate or a window
    parameter: str


TRANSFORM_WORDS = Wording(
    place="TRANSFORM",
    own_functions="TRANSFORM runs again at every prediction, also where there is no database, so it can only use the database's "
    "own functions",
    same="TRANSFORM runs again at every prediction, and the same row must always get the same features; compute it in the query "
    "behind AS, as a column",
    query="TRANSFORM runs again at every prediction, also where there is no database, so it can only use the database's own "
    "functions; join in the query behind AS instead",
    rows="a feature is computed from one row; what is learnt from all training rows is an ML function with OVER (), such as "
    "ML.STANDARD_SCALER(x) OVER ()",
    parameter="write the value itself: it becomes part of the model",
)


class TransformError(BindError):
    """An item of TRANSFORM is wrong; nothing has run.

    ``item`` is its number from 0, ``source`` its text and ``span`` the place within it, None where it is all of it.
    """

    def __init__(
        self,
        message: str,
        *,
        item: int = -1,
        source: str | None = None,
        span: tuple[int, int] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, source=source, span=span, hint=hint)
        self.item = item

    def of_item(self, item: int, text: str) -> TransformError:
        """The same error, of the item with that number and text."""
        self.item, self.source = item, text
        return self

    def inside(self, place: tuple[int, int]) -> TransformError:
        """The same error, of a text that stands at a place in its item."""
        self.span = (self.span[0] + place[0], self.span[1] + place[0]) if self.span else place
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.message, self.item, self.source, self.span, self.hint))


def _rebuild(message: str, item: int, source: str | None, span: tuple[int, int] | None, hint: str | None) -> TransformError:
    return TransformError(message, item=item, source=source, span=span, hint=hint)


def check_expression(text: str, sql: str, resolve: Callable[[Sequence[str]], None], wording: Wording = TRANSFORM_WORDS) -> None:
    """Refuse what the expression of a row cannot have; ``resolve`` is told every reference that is no parameter of a lambda.

    ``text`` is how ``sql`` was written.  Raises ``TransformError`` with a place in it, ``ComputeError`` where ``sql`` is no
    expression.
    """
    _Checker(text, resolve, wording).walk(parse_expression(sql), frozenset())


class _Checker:
    """One walk over an expression's tree."""

    def __init__(self, text: str, resolve: Callable[[Sequence[str]], None], wording: Wording) -> None:
        self.text = text
        self.resolve = resolve
        self.wording = wording

    def walk(self, node: Any, bound: frozenset[str]) -> None:
        """``bound`` are the parameters of the lambdas around."""
        if isinstance(node, list):
            for part in node:
                self.walk(part, bound)
        elif isinstance(node, dict):
            kind = node.get("class")
            if kind == "LAMBDA":
                inner = bound | {ref.lower() for ref in _names_in(node["lhs"])}
                self.walk(node["expr"], inner)
                return
            if kind == "COLUMN_REF":
                names = node["column_names"]
                if names[0].lower() not in bound:
                    self.resolve(names)
                return
            self._refuse(kind, node)
            for part in node.values():
                self.walk(part, bound)

    def _refuse(self, kind: str | None, node: Mapping[str, Any]) -> None:
        if kind == "WINDOW":
            name = str(node.get("function_name", "")).lower()
            raise self._error(f"{name}() OVER looks at several rows", name, self.wording.rows)
        if kind == "SUBQUERY":
            raise TransformError(f"a sub-query cannot stand in {self.wording.place}", hint=self.wording.query)
        if kind == "STAR":
            raise TransformError("columns cannot be chosen by a pattern here", hint="write * by itself, or name the columns")
        if kind == "PARAMETER":
            raise TransformError(f"a parameter cannot stand in {self.wording.place}", hint=self.wording.parameter)
        if kind == "FUNCTION" and not node.get("is_operator"):
            self._check_function(str(node["function_name"]).lower().replace("count_star", "count"), node)

    def _check_function(self, name: str, node: Mapping[str, Any]) -> None:
        known = functions()
        if name == "unnest":
            raise self._error("unnest makes several rows of one", name, "use list functions: list_sum(l), l[1], len(l)")
        if name in known.aggregate:
            raise self._error(f"{name}() is an aggregate: it looks at several rows", name, self.wording.rows)
        if name in known.changing or (name == "age" and len(node["arguments"]) == 1):
            raise changing(self.text, name, self.wording)
        if name not in known.scalar:
            near = did_you_mean(name, known.scalar) or did_you_mean(f"ml.{name}", [f"ML.{n}" for n in FUNCTIONS])
            own = self.wording.own_functions
            raise self._error(f"there is no function {name}", name, own if near is None else f"{near}\n{own}")

    def _error(self, message: str, name: str, hint: str) -> TransformError:
        return TransformError(message, span=name_span(self.text, name), hint=hint)


def _names_in(node: Any) -> Iterator[str]:
    """The names in a lambda's head."""
    if isinstance(node, list):
        for part in node:
            yield from _names_in(part)
    elif isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield node["column_names"][0]
        for part in node.values():
            yield from _names_in(part)


def changing(text: str, name: str, wording: Wording = TRANSFORM_WORDS) -> TransformError:
    """The error for what gives another value each time."""
    return TransformError(f"{name} gives another value each time", span=name_span(text, name), hint=wording.same)
