"""The two servers that every operation of every client runs on: sqlml, and a real PostgreSQL with the same tables."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from sqlml.home import home_of
from tests.servers import new_postgres
from tests.shell.test_command import COMMAND, ENVIRONMENT

SETUP = Path(__file__).with_name("setup.sql").read_text(encoding="utf-8")
USER = "postgres"


@dataclass(frozen=True)
class Place:
    """Where a server listens: an address or the folder of a socket, and the database."""

    host: str
    port: int
    database: str

    @property
    def conninfo(self) -> str:
        return f"host={self.host} port={self.port} dbname={self.database} user={USER}"

    def url(self, driver: str) -> str:
        """As SQLAlchemy has it."""
        return f"postgresql+{driver}://{USER}@/{self.database}?host={self.host}&port={self.port}"


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def serving(database: Path, *arguments: str) -> Iterator[tuple[Place, subprocess.Popen[str]]]:
    """``sqlml serve`` as a child that lets clients in."""
    port = free_port()
    command = [*COMMAND, "serve", str(database), "--port", str(port), "--http-port", "0", *arguments]
    place = Place("127.0.0.1", port, database.stem)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT) as child:
        try:
            _wait(port, child, home_of(database) / "owner.json")
            yield place, child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                try:
                    child.wait(30)
                except subprocess.TimeoutExpired:
                    child.kill()


def _wait(port: int, child: subprocess.Popen[str], notice: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise AssertionError(child.stdout.read() if child.stdout else "it ended")
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0 and notice.exists():
                return
        time.sleep(0.05)
    raise AssertionError("it does not listen")


@contextmanager
def both() -> Iterator[tuple[Place, Place]]:
    """sqlml and PostgreSQL, with the same tables in both."""
    folder = Path(tempfile.mkdtemp(prefix="sqlml-wire-"))
    try:
        with contextmanager(new_postgres)() as url, serving(folder / "bank.duckdb") as (ours, _):
            parts = urlsplit(url)
            theirs = Place(parse_qs(parts.query)["host"][0], 5432, parts.path.lstrip("/"))
            for place in (ours, theirs):
                with psycopg.connect(place.conninfo, autocommit=True) as connection:
                    for statement in SETUP.split(";\n"):
                        if statement.strip():
                            connection.execute(statement.encode())
            yield ours, theirs
    finally:
        shutil.rmtree(folder, ignore_errors=True)
