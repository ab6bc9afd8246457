"""Functions that versions have become in databases: which version stands behind which name there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from sqlml.catalog import tables as t
from sqlml.catalog.api_keys import LeftKeys
from sqlml.catalog.database import reading, writing
from sqlml.catalog.endpoints import drop_arms
from sqlml.catalog.rows import now, user
from sqlml.errors import BindError


@dataclass(frozen=True)
class DatabaseFunction:
    """A version as a function of a database.  ``connection`` is None for the home's own; ``outputs`` are calls of it."""

    connection: str | None
    schema: str
    name: str
    model: str
    version: int
    uid: str
    outputs: tuple[str, ...]
    owner: str
    created_at: datetime

    @property
    def text(self) -> str:
        """``public.churn``"""
        return f"{self.schema}.{self.name}"


class Functions:
    """The database functions' part of ``Catalog``."""

    _engine: sa.Engine

    def functions(self) -> tuple[DatabaseFunction, ...]:
        """Every function that is deployed."""
        query = (
            sa.select(t.functions, t.versions.c.uid, t.versions.c.version, t.models.c.name.label("model"))
            .join(t.versions, t.functions.c.version_id == t.versions.c.id)
            .join(t.models, t.versions.c.model_id == t.models.c.id)
            .order_by(t.functions.c.key)
        )
        with reading(self._engine) as c:
            return tuple(
                DatabaseFunction(
                    r["connection"], r["schema"], r["name"], r["model"], r["version"], r["uid"], tuple(r["outputs"]), r["owner"],
                    r["created_at"],
                )
                for r in c.execute(query).mappings()
            )  # fmt: skip

    def find_function(self, connection: str | None, schema: str, name: str) -> DatabaseFunction | None:
        """One of them; None where there is none.  Schema and name as the database has them."""
        wanted = function_key(connection, schema, name)
        return next((f for f in self.functions() if function_key(f.connection, f.schema, f.name) == wanted), None)

    def record_function(self, connection: str | None, schema: str, name: str, uid: str, outputs: Sequence[str]) -> None:
        """A version is now behind a function, new or not.  ``BindError`` where the version was dropped meanwhile."""
        key = function_key(connection, schema, name)
        with writing(self._engine) as c:
            version_id = c.execute(sa.select(t.versions.c.id).where(t.versions.c.uid == uid)).scalar_one_or_none()
            if version_id is None:
                raise BindError("the version was dropped meanwhile")
            c.execute(sa.delete(t.functions).where(t.functions.c.key == key))
            row: dict[str, Any] = {
                "connection": connection.lower() if connection else None,
                "schema": schema,
                "name": name,
                "key": key,
            }
            row |= {"version_id": version_id, "outputs": list(outputs), "owner": user(), "created_at": now()}
            c.execute(sa.insert(t.functions).values(row))

    def forget_function(self, connection: str | None, schema: str, name: str) -> None:
        """The function is gone."""
        with writing(self._engine) as c:
            c.execute(sa.delete(t.functions).where(t.functions.c.key == function_key(connection, schema, name)))


def function_key(connection: str | None, schema: str, name: str) -> str:
    """What tells one function from another: connections ignore case, the database's own names do not."""
    return json.dumps([connection.lower() if connection else None, schema, name], ensure_ascii=False)


def undeploy_versions(c: sa.Connection, versions: Any, what: str, *, cascade: bool) -> LeftKeys:
    """Take versions from their endpoints and functions.  ``BindError`` where there are any and not ``cascade``.

    What else an endpoint serves goes on; one that only had these goes.  What becomes of the API keys of those.
    """
    behind = t.endpoints.c.id.in_(sa.select(t.arms.c.endpoint_id).where(t.arms.c.version_id.in_(versions)))
    endpoints = c.execute(sa.select(t.endpoints.c.name).where(behind).order_by(t.endpoints.c.key)).scalars().all()
    functions = _deployed_functions(c, versions)
    if (endpoints or functions) and not cascade:
        places = [f"at the endpoint {', '.join(endpoints)}"] if endpoints else []
        places += [f"as the function {', '.join(name for name, _ in functions)}"] if functions else []
        first = f"UNDEPLOY ENDPOINT {endpoints[0]}" if endpoints else f"UNDEPLOY FUNCTION {' '.join(functions[0]).rstrip()}"
        raise BindError(f"model {what} is deployed {' and '.join(places)}", hint=f"{first} first, or DROP MODEL {what} CASCADE")
    keys = drop_arms(c, endpoints, versions) if endpoints else LeftKeys()
    c.execute(sa.delete(t.functions).where(t.functions.c.version_id.in_(versions)))
    return keys


def _deployed_functions(c: sa.Connection, versions: Any) -> list[tuple[str, str]]:
    """The functions behind which some versions stand, and ``FROM DATABASE …`` of each; ``versions`` is a query of their ids."""
    own = sa.select(t.functions).where(t.functions.c.version_id.in_(versions)).order_by(t.functions.c.key)
    return [
        (f"{row['schema']}.{row['name']}", f"FROM DATABASE {row['connection']}" if row["connection"] else "")
        for row in c.execute(own).mappings()
    ]
