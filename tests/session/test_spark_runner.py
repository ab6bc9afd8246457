"""Statements ON a Spark runner of this machine: where its rows are read, and what ASYNC does."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sqlml
from tests.servers import spark_session

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

QUICK = "{'spark.driver.extraJavaOptions': '-XX:TieredStopAtLevel=1 -XX:+UseSerialGC', 'spark.sql.shuffle.partitions': 2}"


@pytest.fixture
def near(database: Path) -> Iterator[sqlml.Connection]:
    """A connection with a runner and two connections of Spark's, ``lake`` to the same one."""
    spark_session().range(200).selectExpr("id", "id % 60 AS age", "id % 60 > 30 AS old").createOrReplaceTempView("people")
    opened = sqlml.connect(database)
    opened.execute(f"CREATE RUNNER near TYPE spark WITH (master = 'local[2]', config = {QUICK})")
    opened.execute("CREATE CONNECTION lake TYPE spark WITH (master = 'local[2]', staging = '/tmp')")
    opened.execute("CREATE CONNECTION far TYPE spark WITH (connect = 'sc://127.0.0.1:1')")
    yield opened
    opened.close()


def job_document(connection: sqlml.Connection, job: int) -> dict[str, Any]:
    path = connection.session.place.home / "jobs" / str(job) / "job.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def last_job(connection: sqlml.Connection) -> tuple[int, str]:
    [(job, state)] = connection.execute("SELECT job, state FROM sqlml.jobs ORDER BY job DESC LIMIT 1").fetchall()
    return int(job), str(state)


def test_tables_of_the_same_spark_are_read_by_the_runner(near: sqlml.Connection) -> None:
    train = "TRAIN MODEL m USING xgboost TARGET old WITH (n_estimators = 2) ON near AS SELECT age, old FROM {}"
    for table in ("lake.people", "near.people"):
        near.execute(train.format(table))
        assert "people" in job_document(near, last_job(near)[0])["query"]
    near.execute(train.format("people").replace("age, old", "age, age > 30 AS old"))
    assert job_document(near, last_job(near)[0])["query"] is None
    with pytest.raises(sqlml.OperationalError, match="connection far"):
        near.execute(train.format("far.people"))
    near.execute("PREDICT MODEL m INTO lake.scores REPLACE ON near AS SELECT id, age FROM lake.people")
    near.execute("PREDICT MODEL m INTO near.scores APPEND ON near AS SELECT id, age FROM people WHERE id < 5")
    assert near.execute("SELECT count(*), count(predicted_old) FROM lake.scores").fetchall() == [(205, 205)]


def test_async_begins_a_spark_of_its_own_and_says_so(near: sqlml.Connection) -> None:
    told: list[str] = []
    near.session.on_event = lambda event: told.append(str(event.get("text")))
    near.execute(
        "TRAIN MODEL m USING xgboost TARGET old WITH (n_estimators = 2) ON near ASYNC AS SELECT age, old FROM near.people"
    )
    assert any("ASYNC: the job starts a Spark of its own (local[2])" in text for text in told)
    job, _ = last_job(near)
    assert job_document(near, job)["query"] is None
    deadline = time.monotonic() + 120
    while last_job(near)[1] == "running" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert last_job(near) == (job, "done")
    assert near.execute("SELECT PREDICT(m USING 50 AS age)").fetchall() == [(True,)]
