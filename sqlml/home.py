"""Where a database's models live.

    bank.sqlml/         beside bank.duckdb
        catalog.db      the catalog (SQLite, unless another URL was given)
        bundles/        one folder per bundle, named by its SHA-256
        jobs/           one folder per job: events, log, held-out scores
        logs/           the endpoint server's log
        server.json     who serves the endpoints, while somebody does

Nothing else writes there.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from sqlml.errors import OperationalError

SUFFIX = ".sqlml"
CATALOG_VARIABLE = "SQLML_CATALOG"
"""The environment variable that tells the endpoints' server a catalog's URL."""
DATABASE_SUFFIXES = (".duckdb", ".db", ".ddb")


@dataclass(frozen=True)
class Home:
    """The folder of one catalog."""

    folder: Path

    @property
    def catalog_url(self) -> str:
        return f"sqlite:///{quote(str(self.folder / 'catalog.db'))}"

    @property
    def bundles(self) -> Path:
        return self.folder / "bundles"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def create(self) -> None:
        """Make the folders.  ``OperationalError`` where the place is read-only."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # labels and scores lie in here
            for folder in (self.bundles, self.jobs, self.logs):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OperationalError(
                f"cannot write the models' folder {self.folder}: {error.strerror or error}",
                hint="give a database in a folder that you may write to",
            ) from error
        if not os.access(self.folder, os.W_OK):
            raise OperationalError(
                f"cannot write the models' folder {self.folder}: it is read-only",
                hint="give a database in a folder that you may write to",
            )


def home_of(database: str | os.PathLike[str], catalog: str | None = None) -> Path:
    """The models' folder of a database.

    Of a file it lies beside it, ``bank.duckdb`` → ``bank.sqlml`` (other suffixes are kept); of a server, whose URL is given, in
    the user's own folder: ``~/.sqlml/bank@db.example-1a2b3c.sqlml``.  With a catalog elsewhere it is a folder of that catalog's
    own in there, so that no catalog cleans up after another.
    """
    text = os.fspath(database)
    if "://" in text:
        home = _home_of_url(text)
    else:
        path = Path(text).absolute()
        home = path.with_name((path.stem if path.suffix.lower() in DATABASE_SUFFIXES else path.name) + SUFFIX)
    return home if catalog is None else home / f"catalog-{_mark(catalog)}"


def _home_of_url(url: str) -> Path:
    """The same for whoever logs in: the user's name is no part of it."""
    parts = urlsplit(url)
    place = f"{parts.netloc.rpartition('@')[2]}{parts.path}?{parts.query}"
    name = re.sub(r"[^A-Za-z0-9_.@-]", "_", f"{short_name(url)}@{parts.hostname or 'local'}")
    return Path.home() / SUFFIX / f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:6]}{SUFFIX}"


def short_name(database: str) -> str:
    """A database in a word: ``bank`` for ``/data/bank.duckdb`` and for ``postgresql://db.example/bank``."""
    if database == ":memory:":
        return "memory"
    if "://" in database:
        return unquote(urlsplit(database).path.strip("/")) or "postgres"
    return Path(database).stem


def without_password(url: str) -> str:
    """A URL without the password that may be in it."""
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    return f"{scheme}{separator}{credentials.partition(':')[0]}{at}{place}"


def endpoint_url(base: str, endpoint: str) -> str:
    """Where an endpoint answers the Open Inference Protocol."""
    return f"{base}/v2/models/{quote(endpoint, safe='')}"


def rows_url(base: str, endpoint: str) -> str:
    """Where an endpoint takes plain rows."""
    return f"{base}/models/{quote(endpoint, safe='')}/predict"


def _mark(catalog: str) -> str:
    """A short name for a catalog's URL, whatever the password in it."""
    scheme, separator, rest = catalog.partition("://")
    plain = without_password(catalog if separator else f"{scheme}://{rest}")
    return hashlib.sha256(plain.encode()).hexdigest()[:12]
