"""The body of a PL/pgSQL function as it grows: variables, statements, and how large it is.

Everything is an assignment of a simple expression, which PL/pgSQL computes without starting a query.  Arguments are written as
``$1``, so that no input's name can be taken for a variable.
"""

from __future__ import annotations

from collections.abc import Sequence

_AT_ONCE = 32
"""So many terms of a sum stand in one expression: PostgreSQL limits how deep one may be."""


class Body:
    """The variables and statements of one function."""

    def __init__(self, inputs: Sequence[str]) -> None:
        self._stem = "f"
        while any(name.lower().startswith(self._stem) for name in inputs):  # shadowing a parameter may be an error
            self._stem += "_"
        self._declared: list[str] = []
        self._statements: list[str] = []
        self._options = ""
        self.size = 0

    def declare(self, sql_type: str, start: str = "") -> str:
        """A new variable; ``start`` is the expression that it begins with."""
        name = f"{self._stem}{len(self._declared)}"
        self._declared.append(f"{name} {sql_type};")
        if start:
            self.add(f"{name} := {start};")
        return name

    def add(self, statement: str) -> None:
        """One more statement."""
        self._statements.append(statement)

    def prefer_columns(self) -> None:
        """A name in a query is a column's, where a parameter has it as well."""
        self._options = "#variable_conflict use_column"

    def sum(self, sql_type: str, start: str, terms: Sequence[str], at_once: int = _AT_ONCE) -> str:
        """A new variable that holds ``start`` and the terms, added one by one from left to right."""
        name = self.declare(sql_type, start)
        for i in range(0, len(terms), at_once):
            self.add(f"{name} := {name}+{'+'.join(terms[i : i + at_once])};")
        return name

    def text(self, answer: str) -> str:
        """The whole, which returns the expression ``answer``."""
        lines = ["DECLARE", *self._declared] if self._declared else []
        return "\n".join([self._options, *lines, "BEGIN", *self._statements, f"RETURN {answer};", "END", ""])
