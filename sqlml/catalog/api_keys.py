"""API keys of endpoints: who may ask.  Only the SHA-256 of a secret is kept; the secret is given back once, when it is made."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

import sqlalchemy as sa

from sqlml.catalog import counters
from sqlml.catalog import tables as t
from sqlml.catalog.database import reading, writing
from sqlml.catalog.rows import now, user
from sqlml.errors import BindError, count_of, did_you_mean, listing

PREFIX = "sqlml_"
SHOWN = len(PREFIX) + 4
"""So many letters of a secret may be shown, to tell keys apart."""
SECRET_BYTES = 32


@dataclass(frozen=True)
class ApiKey:
    """A key: ``hashes`` are those of its secrets, the newest first, each with the time (UTC) when it ends before the key does.

    ``endpoints`` are names in lower case, none: every endpoint; ``rate_limit`` is requests per second, in all.
    """

    name: str
    hashes: tuple[tuple[str, datetime | None], ...]
    prefix: str
    endpoints: tuple[str, ...]
    rate_limit: float | None
    expires_at: datetime | None
    owner: str
    created_at: datetime

    def valid_hashes(self, when: datetime) -> tuple[str, ...]:
        """Those of the secrets that count at a time."""
        if self.expires_at is not None and self.expires_at <= when:
            return ()
        return tuple(found for found, end in self.hashes if end is None or end > when)

    def opens(self, endpoint: str) -> bool:
        """Whether the key is for an endpoint."""
        return not self.endpoints or endpoint.lower() in self.endpoints

    def opens_only(self, endpoint: str) -> bool:
        """Whether the key is for an endpoint and for no other: it goes with it."""
        return self.endpoints == (endpoint.lower(),)


@dataclass(frozen=True)
class LeftKeys:
    """API keys whose endpoints went, by name: ``gone`` were for those alone, and went too; ``narrowed`` open others still, each
    under the endpoint that it lost.
    """

    gone: tuple[str, ...] = ()
    narrowed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def and_then(self, later: LeftKeys) -> LeftKeys:
        """Both together: a key that went later has lost nothing else."""
        narrowed = {endpoint: tuple(k for k in keys if k not in later.gone) for endpoint, keys in self.narrowed.items()}
        return LeftKeys(self.gone + later.gone, {e: keys for e, keys in {**narrowed, **later.narrowed}.items() if keys})

    def notices(self, what: str) -> list[str]:
        """What a person should know of it; ``what`` names what went, as in ``the endpoint``."""
        texts = [f"{count_of(len(self.gone), 'API key')} went with {what}: {listing(self.gone)}"] if self.gone else []
        for endpoint, keys in self.narrowed.items():
            opens = "opens" if len(keys) == 1 else "open"
            texts.append(
                f"{count_of(len(keys), 'API key')} lost the endpoint {endpoint} and {opens} others still: {listing(keys)}"
            )
        return texts


def hash_secret(secret: str) -> str:
    """What is kept of a secret: its SHA-256 as hexadecimal digits (a secret is 256 random bits, so no slower hash is needed)."""
    return hashlib.sha256(secret.encode()).hexdigest()


class _Kept(Enum):
    """What says that something stays as it is, where None says that there is none."""

    KEPT = 0


KEPT = _Kept.KEPT


class ApiKeys:
    """The keys' part of ``Catalog``.  Every change counts as one of the endpoints: their server polls it."""

    _engine: sa.Engine

    def api_keys(self) -> tuple[ApiKey, ...]:
        """Every key, by name."""
        with reading(self._engine) as c:
            return tuple(_api_key(dict(row)) for row in c.execute(sa.select(t.api_keys).order_by(t.api_keys.c.key)).mappings())

    def api_key(self, name: str) -> ApiKey:
        """One key, whatever the case of its name.  ``BindError`` names the nearest where there is none."""
        with reading(self._engine) as c:
            return _find(c, name)

    def create_api_key(
        self, name: str, endpoints: Sequence[str], rate_limit: float | None = None, lasts: timedelta | None = None
    ) -> str:
        """Make a key; its secret, which nobody can ask for again.  ``BindError`` where there is one of the name."""
        secret = _new_secret()
        with writing(self._engine) as c:
            there = c.execute(sa.select(t.api_keys.c.name).where(t.api_keys.c.key == name.lower())).scalar()
            if there is not None:
                raise BindError(
                    f"there is an API key {there} already", hint=f"ALTER API KEY {there} ROTATE gives it a new secret"
                )
            row: dict[str, Any] = {"name": name, "key": name.lower(), "endpoints": sorted({e.lower() for e in endpoints})}
            row |= {"hashes": [[hash_secret(secret), None]], "prefix": secret[:SHOWN], "rate_limit": rate_limit}
            row |= {"expires_at": _end(lasts), "owner": user(), "created_at": now()}
            c.execute(sa.insert(t.api_keys).values(row))
            counters.count_up(c, counters.ENDPOINTS)
        return secret

    def rotate_api_key(self, name: str, grace: timedelta, lasts: timedelta | None = None) -> str:
        """Give a key a new secret; those of before end after ``grace``.  ``lasts``: how long the key itself goes on from now.

        ``BindError`` where there is no such key, or its time is over and no other is given.
        """
        secret = _new_secret()
        with writing(self._engine) as c:
            found = _find(c, name)
            expires = _end(lasts) if lasts is not None else found.expires_at
            if expires is not None and expires <= now():
                raise BindError(
                    f"the API key {found.name} ended at {expires:%Y-%m-%d %H:%M} UTC",
                    hint=f"give it another time: ALTER API KEY {found.name} ROTATE WITH (expires = '90 days')",
                )
            until = now() + grace
            kept = [(old, end if end is not None and end < until else until) for old, end in found.hashes]
            kept = [(old, end) for old, end in kept if end > now()]
            hashes = [[hash_secret(secret), None], *([old, end.isoformat()] for old, end in kept)]
            values = {"hashes": hashes, "prefix": secret[:SHOWN], "expires_at": expires}
            c.execute(sa.update(t.api_keys).where(t.api_keys.c.key == name.lower()).values(values))
            counters.count_up(c, counters.ENDPOINTS)
        return secret

    def alter_api_key(
        self, name: str, *, rate_limit: float | _Kept | None = KEPT, lasts: timedelta | _Kept | None = KEPT
    ) -> ApiKey:
        """Change a key's rate, or how long it goes on from now (None: without a limit, without an end); its secrets stay.

        ``BindError`` where there is none of the name.
        """
        values: dict[str, Any] = {} if isinstance(rate_limit, _Kept) else {"rate_limit": rate_limit}
        values |= {} if isinstance(lasts, _Kept) else {"expires_at": _end(lasts)}
        with writing(self._engine) as c:
            _find(c, name)
            if values:
                c.execute(sa.update(t.api_keys).where(t.api_keys.c.key == name.lower()).values(values))
                counters.count_up(c, counters.ENDPOINTS)
            return _find(c, name)

    def drop_api_key(self, name: str) -> None:
        """Forget a key: its secrets open nothing from now on.  ``BindError`` where there is none of the name."""
        with writing(self._engine) as c:
            _find(c, name)
            c.execute(sa.delete(t.api_keys).where(t.api_keys.c.key == name.lower()))
            counters.count_up(c, counters.ENDPOINTS)


def forget_endpoint(c: sa.Connection, endpoint: str) -> LeftKeys:
    """An endpoint goes: keys of it alone go with it, others open it no more, so that none opens the next of that name."""
    gone, narrowed = [], []
    for row in c.execute(sa.select(t.api_keys).order_by(t.api_keys.c.key)).mappings().all():
        key, own = _api_key(dict(row)), t.api_keys.c.id == row["id"]
        if key.opens_only(endpoint):
            c.execute(sa.delete(t.api_keys).where(own))
            gone.append(key.name)
        elif endpoint.lower() in key.endpoints:
            left = [name for name in key.endpoints if name != endpoint.lower()]
            c.execute(sa.update(t.api_keys).where(own).values(endpoints=left))
            narrowed.append(key.name)
    return LeftKeys(tuple(gone), {endpoint: tuple(narrowed)} if narrowed else {})


def _new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def _end(lasts: timedelta | None) -> datetime | None:
    return None if lasts is None else now() + lasts


def _find(c: sa.Connection, name: str) -> ApiKey:
    row = c.execute(sa.select(t.api_keys).where(t.api_keys.c.key == name.lower())).mappings().first()
    if row is None:
        known = c.execute(sa.select(t.api_keys.c.name)).scalars().all()
        hint = did_you_mean(name, known) or ("SHOW API KEYS lists all" if known else "CREATE API KEY makes one")
        raise BindError(f"unknown API key {name}", hint=hint)
    return _api_key(dict(row))


def _api_key(row: Mapping[str, Any]) -> ApiKey:
    hashes = tuple((found, None if end is None else datetime.fromisoformat(end)) for found, end in row["hashes"])
    return ApiKey(
        row["name"], hashes, row["prefix"], tuple(row["endpoints"]), row["rate_limit"], row["expires_at"], row["owner"],
        row["created_at"],
    )  # fmt: skip
