"""How a statement is carried out: what every area of statements gives to the session, as a table from node to handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlml.binder.parameters import Parameters
from sqlml.statements.result import Result


@dataclass(frozen=True)
class Handler:
    """One kind of statement: ``run`` carries it out, and has what it needs already.

    ``writes``: it writes to the catalog, so it is refused inside an open transaction.  ``lasts``: in words, what it makes or
    starts that must outlive the connection, so that it is refused for a database in memory; None where nothing must.
    """

    run: Callable[[Any, Parameters], Result]
    writes: Callable[[Any], bool] = lambda node: False
    lasts: Callable[[Any], str | None] = lambda node: None


Handlers: TypeAlias = Mapping[type, Handler]


def always(node: Any) -> bool:
    """For ``writes``: every statement of the kind."""
    return True
