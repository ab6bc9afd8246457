"""ALTER ENDPOINTS: a memory budget for all models of the server, by SQL."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlml_runners.serving.control import LocalServer

import sqlml
from sqlml.home import home_of

pytestmark = pytest.mark.slow  # a server with several models


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "a.duckdb"
    LocalServer(home_of(tmp_path / "a.duckdb")).stop()


def states(connection: sqlml.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT endpoint, state FROM sqlml.endpoints").fetchall())


def ask(connection: sqlml.Connection, endpoint: str) -> int:
    [(url,)] = connection.execute("SELECT url FROM sqlml.endpoints WHERE endpoint = ?", [endpoint]).fetchall()
    body = json.dumps({"rows": [{"x": 1}]}).encode()
    with urllib.request.urlopen(f"{url.replace('/v2', '')}/predict", body, timeout=30) as answer:
        return int(answer.status)


def test_models_leave_when_the_budget_shrinks_and_come_back_when_asked(database: Path) -> None:
    with sqlml.connect(database) as connection:
        for name in ("a", "b"):  # trees enough for more than a megabyte each
            connection.execute(
                f"TRAIN MODEL {name} USING random_forest_regressor TARGET y WITH (n_estimators = 120) ON inline AS "
                "SELECT random() AS x, random() AS y FROM range(600)"
            )
            connection.execute(f"DEPLOY MODEL {name}")
        assert states(connection) == {"a": "ready", "b": "ready"}
        assert connection.execute("ALTER ENDPOINTS SET (memory = '1 MB')").fetchall() == [("memory", 10**6, None)]
        deadline = time.monotonic() + 20
        while "idle" not in states(connection).values():
            assert time.monotonic() < deadline, states(connection)
            time.sleep(0.1)
        assert [ask(connection, name) for name in ("a", "b", "a")] == [200, 200, 200]
        assert connection.execute("ALTER ENDPOINTS SET (memory = NULL)").fetchall() == [("memory", None, 10**6)]
        assert [ask(connection, name) for name in ("a", "b")] == [200, 200]
        assert states(connection) == {"a": "ready", "b": "ready"}


def test_what_is_wrong_changes_nothing(database: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute("ALTER ENDPOINTS SET (memory = '2 GB')")
        for options in ("()", "(memory = 'much')", "(memory = 5)", "(memories = '1 GB')"):
            with pytest.raises(sqlml.Error):
                connection.execute(f"ALTER ENDPOINTS SET {options}")
        assert connection.execute("ALTER ENDPOINTS SET (memory = '2 GB')").fetchall() == [("memory", 2 * 10**9, 2 * 10**9)]
