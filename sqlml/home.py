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

import os
from dataclasses import dataclass
from pathlib import Path

from sqlml.errors import OperationalError

SUFFIX = ".sqlml"
DATABASE_SUFFIXES = (".duckdb", ".db", ".ddb")


@dataclass(frozen=True)
class Home:
    """The folder of one catalog."""

    folder: Path

    @property
    def catalog_url(self) -> str:
        return f"sqlite:///{self.folder / 'catalog.db'}"

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
            for folder in (self.bundles, self.jobs, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
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


def home_of(database: str | os.PathLike[str]) -> Path:
    """The models' folder of a database file: ``bank.duckdb`` → ``bank.sqlml``; other suffixes stay, ``a.v2`` → ``a.v2.sqlml``."""
    path = Path(database).absolute()
    name = path.stem if path.suffix.lower() in DATABASE_SUFFIXES else path.name
    return path.with_name(name + SUFFIX)
