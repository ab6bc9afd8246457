"""Columns that an endpoint goes on taking after the versions that read them have left in favour of one beside them.

    inputs of the arms that stay and of those that leave → EarlierColumns, among the endpoint's options as JSON

A roll-out that ends well must not refuse callers whom it has answered all along.  Everything here is a pure function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlml.plan import InputColumn
from sqlml.types import Kind

EARLIER = "earlier_columns"
"""Under this name they lie among an endpoint's options."""


@dataclass(frozen=True)
class Reader:
    """What one version reads: its inputs, the columns its rows are known by, and whether it answers (a shadow does not)."""

    inputs: Sequence[InputColumn]
    keys: Sequence[str] = ()
    answers: bool = True

    @property
    def names(self) -> set[str]:
        """All of it, in lower case."""
        return {column.name.lower() for column in self.inputs} | {key.lower() for key in self.keys}


@dataclass(frozen=True)
class EarlierColumns:
    """``inputs`` and ``keys`` of versions that have left: taken and left out.

    ``lacked``: the inputs (in lower case) of those that stay which they did not all read, and so callers may not send.
    """

    inputs: tuple[InputColumn, ...] = ()
    keys: tuple[str, ...] = ()
    lacked: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """As it lies among the options."""
        inputs = [[column.name, column.sql_type, column.kind.value] for column in self.inputs]
        return {"inputs": inputs, "keys": list(self.keys), "lacked": sorted(self.lacked)}


NO_EARLIER = EarlierColumns()


def earlier_columns(options: Mapping[str, Any]) -> EarlierColumns:
    """Those among an endpoint's options."""
    found = options.get(EARLIER)
    if not found:
        return NO_EARLIER
    inputs = tuple(InputColumn(name, sql_type, Kind(kind)) for name, sql_type, kind in found["inputs"])
    return EarlierColumns(inputs, tuple(found["keys"]), frozenset(found["lacked"]))


def with_earlier(options: Mapping[str, Any], earlier: EarlierColumns) -> dict[str, Any]:
    """Options with these in the place of those that are there."""
    own = {name: value for name, value in options.items() if name != EARLIER}
    return own if earlier == NO_EARLIER else own | {EARLIER: earlier.to_json()}


def carried(known: EarlierColumns, staying: Sequence[Reader], leaving: Iterable[Reader]) -> EarlierColumns:
    """What an endpoint takes for earlier callers' sake when some versions leave and others stay; ``known``: as it was before."""
    everywhere = set.intersection(*(version.names for version in staying))
    own = {column.name.lower() for version in staying for column in version.inputs}
    inputs = {column.name.lower(): column for column in known.inputs}
    keys, lacked = {key.lower(): key for key in known.keys}, set(known.lacked)
    for version in leaving:
        theirs = {column.name.lower(): column for column in version.inputs}
        inputs |= {name: column for name, column in theirs.items() if name not in everywhere}
        keys |= {key.lower(): key for key in version.keys if key.lower() not in everywhere}
        lacked |= own - theirs.keys() if version.answers else set()
    return EarlierColumns(tuple(inputs.values()), tuple(keys.values()), frozenset(lacked))
