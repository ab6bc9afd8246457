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
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

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
    """The models' folder of a database file: ``bank.duckdb`` → ``bank.sqlml``; other suffixes are kept.

    With a catalog elsewhere it is a folder of that catalog's own in there, so that no catalog cleans up after another.
    """
    path = Path(database).absolute()
    name = path.stem if path.suffix.lower() in DATABASE_SUFFIXES else path.name
    home = path.with_name(name + SUFFIX)
    return home if catalog is None else home / f"catalog-{_mark(catalog)}"


def endpoint_url(base: str, endpoint: str) -> str:
    """Where an endpoint answers the Open Inference Protocol."""
    return f"{base}/v2/models/{quote(endpoint, safe='')}"


def rows_url(base: str, endpoint: str) -> str:
    """Where an endpoint takes plain rows."""
    return f"{base}/models/{quote(endpoint, safe='')}/predict"


def _mark(catalog: str) -> str:
    """A short name for a catalog's URL, whatever the password in it."""
    scheme, _, rest = catalog.partition("://")
    credentials, at, place = rest.rpartition("@")
    plain = f"{scheme}://{credentials.partition(':')[0]}{at}{place}"
    return hashlib.sha256(plain.encode()).hexdigest()[:12]
