"""A PostgreSQL server's URL, read as libpq reads it: where it leads, what may be shown of it, what is wrong with it.

The form: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from sqlml.errors import OperationalError

PORT = "5432"
EXAMPLE = "postgresql://user@host:5432/database"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine: the same server answers, whichever is written."""

_URL = re.compile(
    r"[a-z][a-z0-9+]*://(?:[^:/@]*(?::(?P<password>[^/@]*))?@)?(?P<hosts>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?",
    re.IGNORECASE | re.DOTALL,
)
_HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>.*))?", re.DOTALL)
_ESCAPES = (
    "in a user or a password, @ is written as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25\n"
    "or leave the password out: PGPASSWORD or ~/.pgpass can have it"
)


@dataclass(frozen=True)
class Address:
    """Where a URL leads: hosts with their ports (of a socket its folder), and the database."""

    hosts: tuple[tuple[str, str], ...]
    database: str

    @property
    def shown(self) -> str:
        """``localhost:5432/db``"""
        hosts = ",".join(f"{_bracketed(host) or 'the local socket'}:{port}" for host, port in self.hosts)
        return f"{hosts}/{self.database}" if self.database else hosts


def read_address(url: str) -> Address:
    """Where a URL leads.  ``OperationalError``, which shows nothing of it, for one that would be misread: an ``@`` unescaped."""
    match = _URL.fullmatch(url)
    if match is None or "@" in match["hosts"] or "@" in (match["database"] or ""):
        raise _unescaped("the PostgreSQL server")
    settings = parse_qs(match["query"] or "")
    hosts = tuple(_hosts(match["hosts"], settings))
    return Address(hosts, _last(settings, "dbname") or unquote(match["database"] or ""))


def check_escaped(host: str | None, database: str | None, *, has_password: bool) -> None:
    """``OperationalError`` where parts of a URL, as any other library reads them, hold a piece of its password: an ``@``."""
    if "@" in (host or "") or (has_password and host and "@" in (database or "")):
        raise _unescaped("the database")


def _unescaped(whose: str) -> OperationalError:
    return OperationalError(f"the URL of {whose} cannot be read: it has a character that must be escaped", hint=_ESCAPES)


def secrets_of(url: str) -> tuple[str, ...]:
    """The passwords in a URL, as written and decoded."""
    match = _URL.fullmatch(url)
    if match is None:
        return ()
    given = [match["password"] or "", *parse_qs(match["query"] or "").get("password", [])]
    return tuple(dict.fromkeys(word for each in given for word in (each, unquote(each)) if word))


def _hosts(written: str, settings: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Each host with its port; the settings ``host``, ``hostaddr`` and ``port`` take the place of what is written."""
    found = []
    for each in written.split(","):
        match = _HOST.fullmatch(each)
        host, port = (match["host"], match["port"]) if match else (each, None)
        if port and not port.isdecimal():
            raise OperationalError(
                "the URL of the PostgreSQL server has no number where its port belongs", hint=f"as in {EXAMPLE}\n{_ESCAPES}"
            )
        found.append((unquote(host.strip("[]")).lower(), port or PORT))
    instead = _last(settings, "host") or _last(settings, "hostaddr")
    names = instead.split(",") if instead else [host for host, _ in found]
    ports = (_last(settings, "port") or ",".join(port for _, port in found)).split(",")
    yield from ((name, ports[index] if index < len(ports) else ports[-1]) for index, name in enumerate(names))


def _last(settings: dict[str, list[str]], name: str) -> str | None:
    return settings[name][-1] if name in settings else None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
