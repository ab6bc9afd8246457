"""The names in one SELECT of a query that is deployed: columns of its sources, its own earlier items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlml.errors import BindError, did_you_mean, listing
from sqlml.features.program import Given
from sqlml.types import Kind


@dataclass(frozen=True)
class Value:
    """A column on its way: where it is, how SQL sees it, what it is to a model, and the stage after which it is known."""

    slot: str
    sql_type: str  # of what lies in the slot
    kind: Kind | None
    stage: int = 0
    cast: str | None = None  # the type that SQL sees instead
    classes: tuple[str, ...] = ()  # of a column of probabilities

    def given(self, name: str) -> Given:
        """The column for a SELECT that reads it under a name."""
        return Given(name, self.slot, self.sql_type, self.cast)


class Columns(Protocol):
    """The columns of a source: of a table they are taken only when they are asked for."""

    def names(self) -> Sequence[str]: ...

    def value(self, name: str) -> Value: ...


@dataclass(frozen=True)
class Computed:
    """The columns of an inner query."""

    values: Mapping[str, Value]

    def names(self) -> Sequence[str]:
        return tuple(self.values)

    def value(self, name: str) -> Value:
        return self.values[name]


@dataclass
class Scope:
    """What names mean; ``sources`` in order, each under the name that stands before the dot (None: it has none)."""

    sources: list[tuple[str | None, Columns]] = field(default_factory=list)
    items: dict[str, Value] = field(default_factory=dict)  # in lower case: those of this SELECT that have a name

    @property
    def aliases(self) -> frozenset[str]:
        """The names before dots, in lower case."""
        return frozenset(alias.lower() for alias, _ in self.sources if alias is not None)

    def names(self) -> tuple[str, ...]:
        """Every column of every source."""
        return tuple(name for _, columns in self.sources for name in columns.names())

    def qualified(self, alias: str, name: str) -> Value:
        """``alias.name``.  ``BindError`` where there is none."""
        columns = next(columns for known, columns in self.sources if known is not None and known.lower() == alias.lower())
        found = _find(name, columns.names())
        if found is None:
            hint = did_you_mean(name, columns.names()) or f"it has: {listing(columns.names())}"
            raise BindError(f"{alias} has no column {name}", hint=hint)
        return columns.value(found)

    def lookup(self, name: str) -> Value | None:
        """A column by its name alone, or an earlier item; None where there is none.  ``BindError`` where there are several."""
        found = [(alias, columns, match) for alias, columns in self.sources if (match := _find(name, columns.names()))]
        if len(found) > 1:
            owners = [alias or "a query without a name" for alias, _, _ in found]
            raise BindError(
                f"{name} is a column of {' and of '.join(owners)}", hint=f"say which: {owners[0]}.{name} or {owners[1]}.{name}"
            )
        if found:
            return found[0][1].value(found[0][2])
        return self.items.get(name.lower())

    def column(self, name: str) -> Value:
        """A column by its name alone, or an earlier item.  ``BindError`` where there is none, or several."""
        value = self.lookup(name)
        if value is None:
            known = (*self.names(), *self.items)
            near = did_you_mean(name, known)
            there = f"there are: {listing(known)}" if known else "a value of the request is a parameter: $" + name
            raise BindError(f"there is no column {name}", hint=near or there)
        return value

    def stars(self, star: str, convert: Callable[[str], str]) -> Iterable[tuple[str, str | None, Value]]:
        """(name, alias, value) of each column that ``*`` or ``c.*`` stands for."""
        prefix = star.removesuffix("*").removesuffix(".")
        wanted = convert(prefix) if prefix else None
        if wanted is not None and wanted.lower() not in self.aliases:
            raise BindError(f"there is no {wanted} behind FROM", hint=did_you_mean(wanted, self.aliases))
        for alias, columns in self.sources:
            if wanted is None or (alias is not None and alias.lower() == wanted.lower()):
                yield from ((name, alias, columns.value(name)) for name in columns.names())


def _find(name: str, names: Sequence[str]) -> str | None:
    """A name in any case."""
    return next((known for known in names if known.lower() == name.lower()), None)
