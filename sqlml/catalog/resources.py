"""Connections and runners that a user has created: where data is, and where jobs run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sqlml.catalog import tables as t
from sqlml.catalog.database import reading, writing
from sqlml.catalog.rows import now, user
from sqlml.errors import BindError, count_of, did_you_mean, listing

TABLES: Mapping[str, sa.Table] = {"connection": t.connections, "runner": t.runners}


@dataclass(frozen=True)
class Resource:
    """A connection or a runner, as CREATE made it.  ``options`` hold no secret, only the name of what holds one."""

    what: str  # connection, runner
    name: str
    type: str
    options: Mapping[str, Any]
    owner: str
    created_at: datetime


class Resources:
    """The connections' and runners' part of ``Catalog``."""

    _engine: sa.Engine
    remembered: Callable[[str, Callable[[], Any]], Any]

    def resources(self, what: str) -> tuple[Resource, ...]:
        """The connections, or the runners, by name; cheap enough to ask with every statement."""
        found: tuple[Resource, ...] = self.remembered(f"{what}s", lambda: self._read(what))
        return found

    def _read(self, what: str) -> tuple[Resource, ...]:
        table = TABLES[what]
        with reading(self._engine) as c:
            return tuple(_resource(what, dict(row)) for row in c.execute(sa.select(table).order_by(table.c.key)).mappings())

    def find_resource(self, what: str, name: str) -> Resource | None:
        """One of them, whatever the case of its name; None where there is none."""
        return next((found for found in self.resources(what) if found.name.lower() == name.lower()), None)

    def resource(self, what: str, name: str) -> Resource:
        """One of them.  ``BindError`` names the nearest where there is none."""
        found = self.find_resource(what, name)
        if found is None:
            raise _unknown(what, name, [known.name for known in self.resources(what)])
        return found

    def create_resource(self, what: str, name: str, type_name: str, options: Mapping[str, Any], *, replace: bool = False) -> None:
        """Keep a new one.  ``BindError`` where there is one of the name, unless ``replace``, or it is in use."""
        table = TABLES[what]
        with writing(self._engine) as c:
            before = c.execute(sa.select(table.c.name).where(table.c.key == name.lower())).scalar()
            if before is not None and not replace:
                hint = f"CREATE OR REPLACE {what.upper()} {name} …, or IF NOT EXISTS"
                raise BindError(f"there is a {what} {before} already", hint=hint)
            if before is not None:
                _check_unused(c, what, before)
                c.execute(sa.delete(table).where(table.c.key == name.lower()))
            row = {"name": name, "key": name.lower(), "type": type_name, "options": dict(options)}
            c.execute(sa.insert(table).values(row | {"owner": user(), "created_at": now()}))

    def drop_resource(self, what: str, name: str) -> None:
        """Forget one.  ``BindError`` where there is none of the name, functions are deployed there, or jobs run on it."""
        table = TABLES[what]
        with writing(self._engine) as c:
            known = c.execute(sa.select(table.c.name).order_by(table.c.key)).scalars().all()
            found = next((other for other in known if other.lower() == name.lower()), None)
            if found is None:
                raise _unknown(what, name, list(known))
            _check_unused(c, what, found, gone=True)
            c.execute(sa.delete(table).where(table.c.key == name.lower()))


def _resource(what: str, row: Mapping[str, Any]) -> Resource:
    return Resource(what, row["name"], row["type"], row["options"], row["owner"], row["created_at"])


def _unknown(what: str, name: str, known: list[str]) -> BindError:
    hint = did_you_mean(name, known) or (f"SHOW {what.upper()}S lists all" if known else f"CREATE {what.upper()} makes one")
    return BindError(f"unknown {what} {name}", hint=hint)


def _check_unused(c: sa.Connection, what: str, name: str, *, gone: bool = False) -> None:
    """``BindError`` while jobs run on a runner; while functions are deployed by a connection that is to be ``gone``."""
    if what == "runner":
        running = c.execute(sa.select(t.jobs.c.id, t.jobs.c.runner).where(t.jobs.c.state == "running")).all()
        jobs = [str(number) for number, runner in running if runner.lower() == name.lower()]
        if jobs:
            raise BindError(
                f"{count_of(len(jobs), 'job')} of runner {name} still run{'s' if len(jobs) == 1 else ''}: {listing(jobs)}",
                hint=f"wait for the end, or CANCEL JOB {jobs[0]}",
            )
    elif gone:
        own = sa.select(t.functions.c.schema, t.functions.c.name).where(t.functions.c.connection == name.lower())
        functions = [f"{schema}.{function}" for schema, function in c.execute(own).all()]
        if functions:
            raise BindError(
                f"models are deployed as functions in connection {name}: {listing(functions)}",
                hint=f"UNDEPLOY FUNCTION {functions[0]} FROM DATABASE {name} first, or DROP CONNECTION {name} CASCADE",
            )
