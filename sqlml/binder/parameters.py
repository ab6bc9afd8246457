"""Values of prepared parameters, and which of them belong to which part of a statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlml_dialect import DeployQuery, DialectError, ExplainPlan, Node, Placeholder, Span, Struct, Value, fill_parameters
from sqlml_dialect.tokens import Kind, Token, scan

from sqlml.errors import BindError, ProgrammingError, parse_error


@dataclass(frozen=True)
class Parameters:
    """The values given for one statement: a sequence for ``?`` and ``$1``, a mapping for ``$name``.

    ``foreign`` is a part of it whose parameters are not the statement's own: those of a query that is deployed.
    """

    source: str
    statement: Span
    values: Sequence[Any] | Mapping[str, Any] = ()
    foreign: Span = (0, 0)

    def value(self, placeholder: Placeholder) -> Any:
        """The value of one parameter.  ``BindError`` where it was not given."""
        key: Any = placeholder.name if placeholder.name is not None else placeholder.index
        if isinstance(self.values, Mapping):
            found, value = str(key) in self.values, self.values.get(str(key))
        else:
            found = isinstance(key, int) and 1 <= key <= len(self.values)
            value = self.values[key - 1] if found else None
        if not found:
            raise BindError(f"the parameter ${key} has no value", source=self.source, span=placeholder.span)
        return value

    def resolve(self, value: Value) -> Any:
        """An option's value with its parameters filled in; lists become tuples, structs dictionaries."""
        if isinstance(value, Placeholder):
            return self.value(value)
        if isinstance(value, Struct):
            return {name: self.resolve(item) for name, item in value.items}
        if isinstance(value, tuple):
            return tuple(self.resolve(item) for item in value)
        return value

    def filled(self, node: Node) -> Node:
        """The statement with its values in place of the parameters outside options and queries: ``SPLIT RANDOM ?``, ``TO ?``.

        ``BindError`` for a value that could not stand there as a literal.
        """
        try:
            return fill_parameters(node, self.source, self.value)
        except DialectError as error:
            wrong = parse_error(error)
            raise BindError(wrong.message, source=wrong.source, span=wrong.span, hint=wrong.hint) from None

    def within(self, span: Span) -> Sequence[Any] | Mapping[str, Any]:
        """The values for a part of a checked statement, in the form that the database takes for that part alone."""
        names = [t.text for t in self._tokens(span)]
        if not names:
            return ()
        if isinstance(self.values, Mapping):
            return {name[1:]: self.values[name[1:]] for name in names}
        if names[0] == "?":
            before = len(self._tokens((self.statement[0], span[0])))
            return list(self.values[before : before + len(names)])
        return {name[1:]: self.values[int(name[1:]) - 1] for name in names}

    def check(self) -> None:
        """``ProgrammingError`` unless each parameter of the statement has a value, and each value a parameter."""
        tokens = self._tokens(self.statement)
        marks = [t for t in tokens if t.text == "?"]
        if marks and (len(marks) < len(tokens) or isinstance(self.values, Mapping)):
            what = (
                "a sequence of values, not a mapping" if isinstance(self.values, Mapping) else "one kind of parameters: ? or $1"
            )
            raise ProgrammingError(f"give {what}", source=self.source, span=(marks[0].start, marks[0].end))
        if marks or not tokens:
            self._check_count(len(tokens))
            return
        for token in tokens:
            name = token.text[1:]
            place = (token.start, token.end)
            self.value(Placeholder(int(name), span=place) if name.isdigit() else Placeholder(name=name, span=place))
        self._check_names({token.text[1:] for token in tokens})

    def _tokens(self, span: Span) -> list[Token]:
        first, last = self.foreign
        return [t for t in scan(self.source, *span) if t.kind is Kind.PARAM and not first <= t.start < last]

    def _check_count(self, needed: int) -> None:
        given = len(self.values)
        if given != needed:
            parameters = f"{needed} parameter" + ("" if needed == 1 else "s")
            raise ProgrammingError(f"the statement has {parameters}, {given} value{' was' if given == 1 else 's were'} given")

    def _check_names(self, names: set[str]) -> None:
        given = map(str, self.values) if isinstance(self.values, Mapping) else map(str, range(1, len(self.values) + 1))
        unused = [name for name in given if name not in names]
        if unused:
            raise ProgrammingError(f"values were given for parameters that the statement does not have: ${', $'.join(unused)}")


def foreign_parameters(node: Node) -> Span:
    """The part of a statement whose parameters are filled by requests."""
    inner = node.statement if isinstance(node, ExplainPlan) else node
    return inner.query.span if isinstance(inner, DeployQuery) else (0, 0)
