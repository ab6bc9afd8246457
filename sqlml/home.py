"""Where a database's models live.

    bank.sqlml/         beside bank.duckdb
        catalog.db      the catalog (SQLite, unless another URL was given)
        .catalog        says that it was there, should it be lost
        bundles/        one folder per bundle, named by its SHA-256
        jobs/           one folder per job: events, log, held-out scores
        predictions/    one folder per endpoint: what was asked and answered
        feedback/       one folder per endpoint: what turned out to be true
        lookups/        copies of tables that deployed queries read by key
        runtimes/       for each bundle how many rows its library is slower for than ONNX Runtime, as measured on this machine
        logs/           the endpoint server's log, and the requests to it
        serving.json    what the endpoints' server is told at its start: ports, TLS, other origins
        serving.lock    held while serving.json is changed
        server.json     who serves the endpoints, while somebody does
        server.lock     held by who serves them
        refresh.lock    held by who refreshes lookups
        owner.json      who has the database file open and lets others in, while somebody does
        catalog-1f3c…/  the same for a catalog elsewhere, one folder each

Nothing else writes there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from sqlml.address import LOOPBACK, PORT, Address, read_address
from sqlml.errors import OperationalError

SUFFIX = ".sqlml"
CATALOG_VARIABLE = "SQLML_CATALOG"
"""The environment variable that tells the endpoints' server a catalog's URL."""
DATABASE_SUFFIXES = (".duckdb", ".db", ".ddb")
IN_DATABASE = "database"
"""``catalog="database"``: the catalog lies in the same PostgreSQL as the data."""
CATALOG_SCHEMA = "sqlml_catalog"
"""… in this schema."""


@dataclass(frozen=True)
class Home:
    """The folder of one catalog."""

    folder: Path

    @property
    def catalog(self) -> Path:
        return self.folder / "catalog.db"

    @property
    def catalog_mark(self) -> Path:
        """Says that the catalog was there, should it be lost."""
        return self.folder / ".catalog"

    @property
    def catalog_url(self) -> str:
        return f"sqlite:///{quote(str(self.catalog))}"

    @property
    def bundles(self) -> Path:
        return self.folder / "bundles"

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    @property
    def feedback(self) -> Path:
        return self.folder / "feedback"

    @property
    def lookups(self) -> Path:
        return self.folder / "lookups"

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
    return home if catalog in (None, IN_DATABASE) else home / f"catalog-{_mark(catalog)}"


def catalog_url(database: str, catalog: str | None) -> str | None:
    """The URL that a catalog is opened by; of ``database`` a schema of its own in the same PostgreSQL."""
    if catalog != IN_DATABASE:
        return catalog
    plain = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", database, flags=re.IGNORECASE)
    return f"{plain}{'&' if '?' in plain else '?'}options=-csearch_path%3D{CATALOG_SCHEMA}"


def _home_of_url(url: str) -> Path:
    """The same for whoever logs in and however the server is written: ``localhost`` or ``127.0.0.1``, with its port or without.

    A folder from before that was so, when each way of writing had its own, is used on.
    """
    address = read_address(url)
    hosts = ["localhost" if host in LOOPBACK else host for host, _ in address.hosts]
    place = ",".join(f"{host}:{port}" for host, (_, port) in zip(hosts, address.hosts, strict=True))
    home = _server_home(address, hosts[0], f"{place}/{address.database}")
    if home.exists():
        return home
    return next((found for found in _former_homes(url, address) if found.exists()), home)


def _former_homes(url: str, address: Address) -> Iterator[Path]:
    """Where the models of a server were kept when a home's name came from the letters of its URL: this URL's first."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a URL that had no home
        return
    yield _server_home(address, parts.hostname or "local", f"{parts.netloc.rpartition('@')[2]}{parts.path}?{parts.query}")
    [host, port], *others = address.hosts
    if others or host not in LOOPBACK:
        return
    for name in LOOPBACK:
        written = f"[{name}]" if ":" in name else name
        for end in [f":{port}", *([""] if port == PORT else [])]:
            yield _server_home(address, name, f"{written}{end}{parts.path}?")


def _server_home(address: Address, host: str, place: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9_.@-]", "_", f"{address.database or 'postgres'}@{host or 'local'}")
    return Path.home() / SUFFIX / f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:6]}{SUFFIX}"


def short_name(database: str) -> str:
    """A database in a word: ``bank`` for ``/data/bank.duckdb`` and for ``postgresql://db.example/bank``."""
    if database == ":memory:":
        return "memory"
    if "://" in database:
        return read_address(database).database or "postgres"
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


def generate_url(base: str, endpoint: str) -> str:
    """Where an endpoint of a language model takes a prompt."""
    return f"{base}/models/{quote(endpoint, safe='')}/generate"


def _mark(catalog: str) -> str:
    """A short name for a catalog's URL, whatever the password in it."""
    scheme, separator, rest = catalog.partition("://")
    plain = without_password(catalog if separator else f"{scheme}://{rest}")
    return hashlib.sha256(plain.encode()).hexdigest()[:12]
