"""Endpoints as they should be: which version stands behind which name.  The server polls them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

from sqlml.catalog import counters
from sqlml.catalog import tables as t
from sqlml.catalog.database import reading, writing
from sqlml.catalog.rows import now, user
from sqlml.errors import BindError, did_you_mean
from sqlml.home import Home


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as it should be: which version stands behind which name."""

    name: str
    model: str
    version: int
    uid: str
    bundle: Path
    sha256: str
    task: str
    created_at: datetime
    owner: str = ""


class _Deployable(Protocol):
    """A version, as far as it is deployed."""

    @property
    def uid(self) -> str: ...

    @property
    def name(self) -> str: ...


class Endpoints:
    """The endpoints' part of ``Catalog``."""

    home: Home
    _engine: sa.Engine

    def deploy(self, endpoint: str, version: _Deployable) -> None:
        """Put a version behind an endpoint, new or not."""
        with writing(self._engine) as c:
            version_id = c.execute(sa.select(t.versions.c.id).where(t.versions.c.uid == version.uid)).scalar_one_or_none()
            if version_id is None:
                raise BindError(f"model {version.name} was dropped meanwhile")
            key = endpoint.lower()
            changed = c.execute(
                sa.update(t.endpoints).where(t.endpoints.c.key == key).values(version_id=version_id, created_at=now())
            )
            if changed.rowcount == 0:
                row = {"name": endpoint, "key": key, "version_id": version_id, "owner": user(), "created_at": now()}
                c.execute(sa.insert(t.endpoints).values(row))
            counters.count_up(c, counters.ENDPOINTS)

    def undeploy(self, endpoint: str) -> None:
        """Remove an endpoint.  ``BindError`` where there is none of that name."""
        with writing(self._engine) as c:
            if c.execute(sa.delete(t.endpoints).where(t.endpoints.c.key == endpoint.lower())).rowcount == 0:
                known = c.execute(sa.select(t.endpoints.c.name)).scalars().all()
                hint = did_you_mean(endpoint, known) or ("SHOW ENDPOINTS lists all" if known else "nothing is deployed")
                raise BindError(f"unknown endpoint {endpoint}", hint=hint)
            counters.count_up(c, counters.ENDPOINTS)

    def endpoints(self) -> list[Endpoint]:
        """What should be served."""
        query = (
            sa.select(
                t.versions, t.endpoints.c.name, t.models.c.name.label("model"),
                t.endpoints.c.created_at.label("since"), t.endpoints.c.owner.label("endpoint_owner"),
            )
            .join(t.versions, t.endpoints.c.version_id == t.versions.c.id)
            .join(t.models, t.versions.c.model_id == t.models.c.id)
            .order_by(t.endpoints.c.key)
        )  # fmt: skip
        with reading(self._engine) as c:
            return [
                Endpoint(
                    r["name"], r["model"], r["version"], r["uid"], self.home.bundles / r["bundle_sha256"],
                    r["bundle_sha256"], r["task"], r["since"], r["endpoint_owner"],
                )
                for r in c.execute(query).mappings()
            ]  # fmt: skip

    def endpoints_revision(self) -> int:
        """A number that grows with every change of an endpoint."""
        with reading(self._engine) as c:
            return counters.read_counter(c, counters.ENDPOINTS)
