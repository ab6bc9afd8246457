"""A database with versions to deploy, its server, and how it is asked: for tests of the statements about endpoints."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlml

TRAINED = """
    CREATE TABLE t AS SELECT range % 17 AS age, range % 5 AS visits, (range % 17) * 2.0 AS spent,
        CASE WHEN range % 17 > 8 THEN 'yes' ELSE 'no' END AS bought FROM range(300);
    TRAIN MODEL m USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t;
    TRAIN MODEL m USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t WHERE age > 2;
    TRAIN MODEL m USING logistic_regression TARGET bought EXCLUDE (spent) ON inline AS FROM t WHERE age > 3;
    TRAIN MODEL small USING logistic_regression TARGET bought EXCLUDE (spent, visits) ON inline AS FROM t;
    TRAIN MODEL texts USING logistic_regression TARGET bought ON inline AS SELECT age::VARCHAR AS age, bought FROM t;
    TRAIN MODEL number USING linear_regression TARGET spent EXCLUDE (bought) ON inline AS FROM t;
"""


class Bank:
    """A database with versions to deploy, and its server."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.notices: list[str] = []
        self.connection = sqlml.connect(database, on_event=self._see)
        self.connection.execute(TRAINED)

    def _see(self, event: Any) -> None:
        if event["event"] == "notice":
            self.notices.append(event["text"])

    def run(self, statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
        self.notices.clear()
        cursor = self.connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    def dicts(self, statement: str) -> list[dict[str, Any]]:
        return list(self.connection.execute(statement).fetch_arrow_table().to_pylist())

    def traffic(self, endpoint: str = "e") -> dict[str, int | None]:
        return dict(self.run(f"SELECT version, traffic FROM sqlml.endpoints WHERE endpoint = '{endpoint}'"))

    def options(self, endpoint: str = "e") -> Any:
        return json.loads(self.run(f"SELECT options FROM sqlml.endpoints WHERE endpoint = '{endpoint}'")[0][0])

    def stop(self) -> None:
        self.connection.execute("SELECT 1")
        sqlml_server(self.database).stop()


def sqlml_server(database: Path) -> Any:
    from sqlml_runners.serving.control import LocalServer

    return LocalServer(database.with_suffix(".sqlml"))


def plan(bank: Bank, statement: str) -> Any:
    return json.loads(bank.run(f"EXPLAIN (FORMAT JSON) {statement}")[0][0])


def asked(url: str, secret: str | None) -> int:
    """The status of a request to an endpoint whose V2 address is given, with a key or without."""
    base, _, name = url.partition("/v2/models/")
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    sent = urllib.request.Request(f"{base}/models/{name}/predict", data=b'{"rows": [{}]}', headers=headers)
    try:
        with urllib.request.urlopen(sent, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def ask(url: str, rows: list[dict[str, Any]], request: str) -> Any:
    """Rows to an endpoint whose V2 address is given."""
    base, _, name = url.partition("/v2/models/")
    body = json.dumps({"rows": rows}).encode()
    sent = urllib.request.Request(f"{base}/models/{name}/predict", data=body, headers={"x-request-id": request})
    with urllib.request.urlopen(sent, timeout=20) as answer:
        return json.load(answer)["predictions"]


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()
