"""EVALUATE … WITH (folds = k): whose query is run, what is said, and what an interrupt leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import sqlml
from sqlml.catalog import tables as t
from sqlml.catalog.database import writing
from tests.sessions import session_of


def folds(connection: sqlml.Connection, model: str, query: str = "") -> sqlml.Cursor:
    return connection.execute(f"EVALUATE MODEL {model} WITH (folds = 2){query}")


@pytest.fixture
def imported(connection: sqlml.Connection, tmp_path: Path) -> sqlml.Connection:
    """With ``theirs``: an imported version whose plan asks for a runner that is not there."""
    connection.execute(f"EXPORT MODEL buys TO '{tmp_path / 'theirs'}'")
    connection.execute(f"IMPORT MODEL theirs FROM '{tmp_path / 'theirs'}'")
    version = session_of(connection)._catalog.resolve("theirs")
    with writing(session_of(connection)._catalog._engine) as c:
        plan = c.execute(sa.select(t.versions.c.plan).where(t.versions.c.uid == version.uid)).scalar_one()
        c.execute(sa.update(t.versions).where(t.versions.c.uid == version.uid).values(plan=plan | {"runner": "theirs"}))
    return connection


def test_the_query_of_an_imported_version_is_not_run(imported: sqlml.Connection) -> None:
    with pytest.raises(sqlml.ProgrammingError, match="theirs@1 was imported") as raised:
        folds(imported, "theirs")
    assert raised.value.hint == "give rows: EVALUATE MODEL theirs@1 WITH (folds = 2) AS SELECT …"
    assert imported.execute("SELECT count(*) FROM sqlml.jobs WHERE kind = 'folds'").fetchone() == (0,)


@pytest.mark.slow
def test_an_imported_version_on_rows_that_are_given(imported: sqlml.Connection) -> None:
    assert len(folds(imported, "theirs", " AS FROM people").fetchall()) == 4
    [(runner,)] = imported.execute("SELECT runner FROM sqlml.jobs WHERE kind = 'folds'").fetchall()
    assert runner == "process"


def test_what_is_said_of_time_and_tuning(connection: sqlml.Connection) -> None:
    base = "USING random_forest_classifier TARGET bought EXCLUDE (id, spent)"
    connection.execute(f"TRAIN MODEL timed {base} SPLIT TIME balance 0.2 ON inline AS FROM people")
    notices = folds(connection, "timed").notices
    assert [text for text in notices if "SPLIT TIME balance; folds are random" in text]
    connection.execute(f"TRAIN MODEL tuned {base} WITH (n_estimators = 3) TUNE (max_depth IN (2, 3)) ON inline AS FROM people")
    notices = folds(connection, "tuned").notices
    assert [text for text in notices if "tuned@1 were found by TUNE" in text]
    assert not [text for text in folds(connection, "buys").notices if "folds are random" in text or "TUNE" in text]


def test_what_is_said_of_a_transform_fitted_before(connection: sqlml.Connection) -> None:
    connection.execute(
        "TRAIN MODEL prep USING transform_only TRANSFORM (ML.STANDARD_SCALER(age) OVER () AS a) ON inline AS FROM people"
    )
    train = "TRAIN MODEL m USING linear_regression TARGET spent TRANSFORM (prep(*)){} ON inline AS FROM people"
    said = "TRANSFORM takes prep(*) as it was fitted before"
    assert [said in text for text in connection.execute(train.format("")).notices].count(True) == 1
    assert [said in text for text in folds(connection, "m").notices].count(True) == 1
    assert not [text for text in connection.execute(train.format(" SPLIT NONE")).notices if said in text]


@pytest.mark.parametrize("moment", ["reading", "training", "end"])
def test_an_interrupt_leaves_no_running_job(database: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(event: Any) -> None:
        if event.get("name") == moment:
            raise KeyboardInterrupt

    with sqlml.connect(database, on_event=stop) as connection:
        if moment == "end":
            import sqlml.statements.folds as module

            def interrupted(*_: Any) -> None:
                raise KeyboardInterrupt

            monkeypatch.setattr(module, "read_result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folds(connection, "spends")
        found = connection.execute("SELECT state FROM sqlml.jobs WHERE kind = 'folds'").fetchall()
        assert found == [("cancelled",)]
    assert not list(database.with_suffix(".sqlml").glob("jobs/*/train.arrow"))
