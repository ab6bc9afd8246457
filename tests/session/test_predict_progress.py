"""PREDICT … INTO tells how far it is."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

import sqlml
from sqlml.errors import Cancelled
from sqlml.shell.progress import LiveProgress, step_text
from sqlml.statements import progress
from sqlml.statements.progress import counted
from sqlml.wire.progress import Progress

MANY = "PREDICT MODEL buys INTO scored REPLACE AS SELECT people.* FROM people, range(1000)"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told from the start, and often."""
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(progress, "AGAIN_SECONDS", 0.001)


@pytest.mark.usefixtures("impatient")
def test_the_rows_of_a_statement_of_the_database(connection: sqlml.Connection) -> None:
    events: list[Mapping[str, Any]] = []
    connection.execute("CREATE TABLE many AS SELECT people.* FROM people, range(1000)")
    rows = connection.execute("SELECT count(*) FROM many").fetchall()[0][0]
    connection.on_event = events.append
    connection.execute("PREDICT MODEL buys INTO scored AS FROM many")
    assert {event["event"] for event in events} == {"stage", "step"}
    steps = [event for event in events if event["event"] == "step"]
    assert all(0 <= step["step"] <= step["total"] == rows and step["rows_per_second"] >= 0 for step in steps)
    assert all(before["step"] <= after["step"] for before, after in pairwise(steps))
    assert connection.execute("SELECT count(*) FROM scored").fetchall() == [(rows,)]


@pytest.mark.usefixtures("impatient")
def test_who_looks_on_may_stop_it(connection: sqlml.Connection) -> None:
    def stop(event: Mapping[str, Any]) -> None:
        connection.interrupt()

    connection.on_event = stop
    with pytest.raises(Cancelled):
        connection.execute(MANY)
    connection.on_event = None
    assert connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'scored'").fetchall() == [(0,)]


def test_what_is_over_at_once_tells_nothing(connection: sqlml.Connection) -> None:
    events: list[Mapping[str, Any]] = []
    connection.on_event = events.append
    connection.execute("PREDICT MODEL buys INTO scored AS FROM people")
    assert events == []


@pytest.mark.usefixtures("impatient")
def test_batches_are_counted_as_they_pass() -> None:
    batch = pa.record_batch({"a": [1, 2, 3]})

    def batches() -> Iterator[pa.RecordBatch]:
        yield from [batch] * 4

    events: list[Mapping[str, Any]] = []
    found = list(counted(batches(), "predicting", 10, events.append))  # type: ignore[arg-type]
    assert found == [batch] * 4
    assert events[0] == {"event": "stage", "name": "predicting"}
    assert events[-1]["step"] <= events[-1]["total"]
    assert list(counted(batches(), "predicting", None, pytest.fail)) == found  # type: ignore[arg-type]


def test_how_it_is_shown() -> None:
    step = {"event": "step", "step": 250_000, "total": 1_000_000, "rows_per_second": 1_240_000.0}
    assert step_text(step) == "1.24 M rows/s"
    assert step_text(step | {"rows_per_second": 12_300}) == "12.3 k rows/s"
    assert step_text(step | {"rows_per_second": 950.4}) == "950 rows/s"
    stream = io.StringIO()
    bar = LiveProgress(pytest.fail, stream)
    bar({"event": "stage", "name": "predicting"})
    bar(step)
    bar.close()
    notices: list[str] = []
    Progress(notices.append)(step)
    assert notices == ["250,000 of about 1,000,000 rows, 1,240,000 a second"]
