"""How a statement is carried out: what every area of statements gives to the session, as a table from node to handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlml.binder.parameters import Parameters
from sqlml.statements.result import Result, own_columns
from sqlml.types import Column

Columns: TypeAlias = Callable[[Any, Parameters], tuple[Column, ...] | None]


@dataclass(frozen=True)
class Handler:
    """One kind of statement: ``run`` carries it out, and has what it needs already.

    ``writes``: it writes to the catalog, so it is refused inside an open transaction.  ``lasts``: in words, what it makes or
    starts that must outlive the connection, so that it is refused for a database in memory; None where nothing must.
    ``columns``: those of its answer, () where it gives none, found without carrying it out; None where nobody knows them before.
    """

    run: Callable[[Any, Parameters], Result]
    writes: Callable[[Any], bool] = lambda node: False
    lasts: Callable[[Any], str | None] = lambda node: None
    columns: Columns = lambda node, parameters: None


Handlers: TypeAlias = Mapping[type, Handler]


def no_columns(node: Any, parameters: Parameters) -> tuple[Column, ...]:
    """For ``columns``: a statement without an answer."""
    return ()


def same_columns(columns: Sequence[tuple[str, str]]) -> Columns:
    """For ``columns``: every statement of the kind has these, as ``rows_result`` takes them."""
    return lambda node, parameters: own_columns(columns)


def always(node: Any) -> bool:
    """For ``writes``: every statement of the kind."""
    return True
