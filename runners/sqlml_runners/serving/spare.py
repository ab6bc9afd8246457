"""Columns of an endpoint's other versions: what a request may have, or lack, for their sake.  Pure functions.

inputs and keys of all arms, and of earlier ones → for each arm its Spare
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlml.earlier_columns import EarlierColumns, Reader
from sqlml.plan import InputColumn


@dataclass(frozen=True)
class Spare:
    """Beside a version's own columns: ``columns`` are inputs of others, ``keys`` what others know rows by.

    Both are read, checked and left out.  ``optional`` are its own inputs (in lower case) that not all others read: where even
    a missing column is an error, theirs are NULL.
    """

    columns: tuple[InputColumn, ...] = ()
    keys: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()


NO_SPARE = Spare()


def spare_of(own: Reader, others: Sequence[Reader], earlier: EarlierColumns) -> Spare:
    """What one version leaves out and may miss beside others, and after those that the endpoint had earlier."""
    mine = own.names
    columns: dict[str, InputColumn] = {}
    for column in (*earlier.inputs, *(column for other in others for column in other.inputs)):
        columns.setdefault(column.name.lower(), column)
    keys = {key.lower(): key for other in others for key in other.keys} | {key.lower(): key for key in earlier.keys}
    answering = [{column.name.lower() for column in other.inputs} for other in others if other.answers]
    optional = {name for column in own.inputs if not all((name := column.name.lower()) in theirs for theirs in answering)}
    return Spare(
        tuple(column for name, column in columns.items() if name not in mine),
        tuple(key for name, key in keys.items() if name not in mine and name not in columns),
        frozenset(optional | (mine & earlier.lacked)),
    )
