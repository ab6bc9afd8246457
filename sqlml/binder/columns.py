"""The columns of a training query, found by the names that clauses use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlml_dialect import Ident, Query

from sqlml.errors import BindError, did_you_mean, listing
from sqlml.types import Column


class Columns:
    """The columns of a query, found by name whatever the case."""

    def __init__(self, columns: Sequence[Column], query: Query, source: str) -> None:
        self.all = tuple(columns)
        self._source = source
        self._by_key = {c.name.lower(): c for c in columns}
        if len(self._by_key) < len(columns):
            keys = [c.name.lower() for c in columns]
            twice = next(c.name for index, c in enumerate(columns) if keys[index] in keys[:index])
            raise BindError(
                f"the query has two columns called {twice}", source=source, span=query.span,
                hint=f"give one another name: … AS {twice}_2",
            )  # fmt: skip

    def find(self, name: Ident) -> Column:
        """The column of that name.  ``BindError`` with the nearest one where there is none."""
        column = self._by_key.get(name.name.lower())
        if column is None:
            names = [c.name for c in self.all]
            raise BindError(
                f"the query has no column {name.name}",
                source=self._source,
                span=name.span,
                hint=did_you_mean(name.name, names) or f"it has: {listing(names, 20)}",
            )
        return column

    def find_all(self, names: Iterable[Ident], clause: str) -> tuple[Column, ...]:
        """The columns of several names, none twice."""
        found: list[Column] = []
        for name in names:
            column = self.find(name)
            if column in found:
                raise BindError(f"{clause} names {column.name} twice", source=self._source, span=name.span)
            found.append(column)
        return tuple(found)

    def without(self, names: Iterable[str]) -> tuple[Column, ...]:
        """All but some."""
        gone = set(names)
        return tuple(c for c in self.all if c.name not in gone)
