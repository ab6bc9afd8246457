"""Values of prepared parameters, and which of them belong to which part of a statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlml_dialect import Placeholder, Span, Struct, Value
from sqlml_dialect.tokens import Kind, scan

from sqlml.errors import BindError, ProgrammingError


@dataclass(frozen=True)
class Parameters:
    """The values given for one statement: a sequence for ``?`` and ``$1``, a mapping for ``$name``."""

    source: str
    statement: Span
    values: Sequence[Any] | Mapping[str, Any] = ()

    def value(self, placeholder: Placeholder) -> Any:
        """The value of one parameter.  ``BindError`` where it was not given."""
        key: Any = placeholder.name if placeholder.name is not None else placeholder.index
        if isinstance(self.values, Mapping):
            found = key in self.values or str(key) in self.values
            value = self.values.get(key, self.values.get(str(key)))
        else:
            found = isinstance(key, int) and 1 <= key <= len(self.values)
            value = self.values[key - 1] if found else None
        if not found:
            name = f"${key}" if placeholder.name is not None else f"number {key}"
            raise BindError(f"the parameter {name} has no value", source=self.source, span=placeholder.span)
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

    def within(self, span: Span) -> Sequence[Any] | Mapping[str, Any]:
        """The values for a part of the statement, in the form that the database takes for that part alone."""
        names = [t.text for t in scan(self.source, *span) if t.kind is Kind.PARAM]
        if not names:
            return ()
        if all(name == "?" for name in names):
            if isinstance(self.values, Mapping):
                raise ProgrammingError("the statement has ? parameters: give a sequence of values, not a mapping")
            before = sum(t.kind is Kind.PARAM and t.text == "?" for t in scan(self.source, self.statement[0], span[0]))
            self._check_count(before + len(names))
            return list(self.values[before : before + len(names)])
        if isinstance(self.values, Mapping):
            return {name[1:]: self.values[name[1:]] for name in names if name[1:] in self.values}
        numbers = [int(name[1:]) for name in names if name[1:].isdigit()]
        return {str(number): self.values[number - 1] for number in numbers if number <= len(self.values)}

    def check_all_used(self) -> None:
        """``ProgrammingError`` unless there is one value for each ``?`` of the statement."""
        params = [t.text for t in scan(self.source, *self.statement) if t.kind is Kind.PARAM]
        if (params and all(name == "?" for name in params)) or (not params and not isinstance(self.values, Mapping)):
            self._check_count(len(params), exact=True)

    def _check_count(self, needed: int, *, exact: bool = False) -> None:
        if len(self.values) < needed or (exact and len(self.values) != needed):
            raise ProgrammingError(f"the statement has {needed} parameters, {len(self.values)} values were given")
