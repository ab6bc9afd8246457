"""A catalog in PostgreSQL: a real server, written to by several connections at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import sqlml
from tests.servers import new_postgres

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")]

TRAIN = "TRAIN MODEL m TARGET y WITH (n_estimators = 3) ON inline AS FROM t"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    for database in new_postgres():
        yield database.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def database(tmp_path: Path, url: str) -> Path:
    path = tmp_path / "bank.duckdb"
    with sqlml.connect(path, catalog=url) as connection:
        connection.execute("CREATE TABLE t AS SELECT i, i % 2 AS y FROM range(300) r(i)")
        for (model,) in connection.execute("SELECT model FROM sqlml.models").fetchall():
            connection.execute(f"DROP MODEL {model} CASCADE")
    return path


def test_everything_is_remembered_there(database: Path, url: str) -> None:
    with sqlml.connect(database, catalog=url) as connection:
        connection.execute(TRAIN)
        connection.execute("ALTER MODEL m SET ALIAS champion = 1")
    with sqlml.connect(database, catalog=url) as connection:
        assert connection.execute("SELECT model, version, aliases FROM sqlml.versions").fetchall() == [("m", 1, ["champion"])]
        assert connection.execute("SELECT count(PREDICT(m@champion)) FROM t").fetchall() == [(300,)]
        connection.execute("DROP MODEL m")
        assert connection.execute("SHOW MODELS").fetchall() == []
    with sqlml.connect(database) as connection:  # its own catalog knows nothing of it
        assert connection.execute("SHOW MODELS").fetchall() == []


def test_four_writers_make_four_versions(database: Path, url: str) -> None:
    errors: list[BaseException] = []

    def train() -> None:
        try:
            with sqlml.connect(database, catalog=url) as connection:
                connection.execute(TRAIN)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with sqlml.connect(database, catalog=url) as connection:
        versions = [version for (version,) in connection.execute("SELECT version FROM sqlml.versions ORDER BY 1").fetchall()]
        assert versions == list(range(versions[0], versions[0] + 4))
        assert connection.execute(f"SELECT count(PREDICT(m@{versions[0]})) FROM t").fetchall() == [(300,)]


def test_an_endpoint_is_served_from_there(database: Path, url: str) -> None:
    with sqlml.connect(database, catalog=url) as connection:
        connection.execute(TRAIN)
        try:
            [(_, _, _, _, state)] = connection.execute("DEPLOY MODEL m").fetchall()
            assert state == "ready"
        finally:
            connection.execute("UNDEPLOY ENDPOINT m")


def test_a_server_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(sqlml.OperationalError) as caught:
        sqlml.connect(tmp_path / "a.duckdb", catalog="postgresql+psycopg://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
