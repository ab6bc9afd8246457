"""Numbers: what only grows and is polled to see a change, the last version of a model that is gone, a size that was set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from sqlml.catalog import tables as t

ENDPOINTS, MODELS = "endpoints_revision", "models_revision"
MEMORY = "memory of endpoints"


def count_up(c: sa.Connection, name: str) -> None:
    """Say that something changed."""
    counter = t.counters.c.name == name
    if c.execute(sa.update(t.counters).where(counter).values(value=t.counters.c.value + 1)).rowcount == 0:
        c.execute(sa.insert(t.counters).values(name=name, value=1))


def read_counter(c: sa.Connection, name: str) -> int:
    """How often it was counted up."""
    return int(c.execute(sa.select(t.counters.c.value).where(t.counters.c.name == name)).scalar() or 0)


def set_number(c: sa.Connection, name: str, value: int | None) -> None:
    """Make a number what is given; None: there is none any more."""
    c.execute(sa.delete(t.counters).where(t.counters.c.name == name))
    if value is not None:
        c.execute(sa.insert(t.counters).values(name=name, value=value))


def last_version(c: sa.Connection, name: str) -> int:
    """The last version number of a dropped or renamed model of that name, 0 where there was none."""
    return read_counter(c, _dropped(name))


def remember_last(c: sa.Connection, model: Mapping[str, Any]) -> None:
    """Keep a model's last version number: ``m@1`` in a view must never come to mean another."""
    c.execute(sa.delete(t.counters).where(t.counters.c.name == _dropped(model["name"])))
    c.execute(sa.insert(t.counters).values(name=_dropped(model["name"]), value=model["last_version"]))


def _dropped(name: str) -> str:
    return f"last version of {name.lower()}"
