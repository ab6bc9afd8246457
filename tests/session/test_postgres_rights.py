"""A role of PostgreSQL that may not do everything: what works all the same, and what the refusals say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

import sqlml
from sqlml.errors import EngineError, Error, NotSupportedError

pytestmark = pytest.mark.slow


@pytest.fixture
def guest(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlml.Connection]:
    """A connection of a role that may read ``people``, append to ``log``, and nothing else; with a model ``m``."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    database = urlsplit(postgres).path[1:]
    role = f"guest_{database}"
    with sqlml.connect(postgres) as owner:
        owner.execute(
            "CREATE TABLE people AS SELECT i AS id, i % 60 AS age, i % 60 > 30 AS old FROM generate_series(1, 300) AS i"
        )
        owner.execute("CREATE TABLE log (age integer, predicted_old boolean, predicted_old_probs jsonb)")
        owner.execute("CREATE TABLE secrets AS TABLE people")
        owner.execute("TRAIN MODEL m TARGET old EXCLUDE (id) WITH (n_estimators = 3) ON inline AS SELECT * FROM people")
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN")
        owner.execute(f'REVOKE TEMPORARY ON DATABASE "{database}" FROM PUBLIC')
        owner.execute(f"GRANT SELECT ON people TO {role}")
        owner.execute(f"GRANT INSERT ON log TO {role}")
    with sqlml.connect(postgres.replace("postgres:@", f"{role}@")) as opened:
        yield opened
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute(f"DROP OWNED BY {role}")
        owner.execute(f"DROP ROLE {role}")


def test_predictions_without_the_right_to_temporary_things(guest: sqlml.Connection) -> None:
    """As a column of the SELECT they are computed here; inside the query they would take a function of the session's own."""
    found = guest.execute("SELECT id, PREDICT(m) AS p, m(*) FROM people WHERE id IN (1, 59) ORDER BY id").fetchall()
    assert found == [(1, False, False), (59, True, True)]
    assert len(guest.execute("EVALUATE MODEL m AS SELECT * FROM people").fetchall()) == 1
    assert [row[0] for row in guest.execute("SHOW MODELS LIKE 'M'")] == ["m"]
    assert len(guest.execute("SHOW VERSIONS OF m").fetchall()) == 1
    assert guest.execute("SHOW MODELS LIKE 'x%'").fetchall() == []
    for query in ("SELECT id FROM people WHERE PREDICT(m)", "SELECT id FROM people ORDER BY PREDICT_PROBA(m, true)"):
        with pytest.raises(NotSupportedError, match="permission denied to create temporary functions") as raised:
            guest.execute(query)
        assert "GRANT TEMPORARY ON DATABASE test_" in str(raised.value)
        assert "as a column of the outermost SELECT" in str(raised.value)
        assert "line 1" in str(raised.value)
    with pytest.raises(EngineError, match="permission denied to create temporary tables") as other:
        guest.execute("SELECT * FROM ML.PREDICT(MODEL m, (SELECT * FROM people))")
    assert "GRANT TEMPORARY ON DATABASE test_" in str(other.value)
    assert "__sqlml" not in str(other.value)


def test_predictions_in_a_transaction_that_only_reads(guest: sqlml.Connection) -> None:
    guest.execute("BEGIN READ ONLY")
    assert guest.execute("SELECT PREDICT(m) FROM people WHERE id = 59").fetchall() == [(True,)]
    with pytest.raises(NotSupportedError, match="read-only transaction"):
        guest.execute("SELECT count(*) FROM people WHERE PREDICT(m)")
    guest.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("statement", "place", "message", "hint"),
    [
        ("TRAIN MODEL x TARGET old AS SELECT * FROM secrets", "secrets", "denied for table secrets", "GRANT SELECT ON secrets"),
        ("PREDICT MODEL m INTO mine AS SELECT * FROM people", "mine", "denied for schema public", "GRANT CREATE ON SCHEMA"),
        ("EXPLAIN MODEL m INTO mine AS SELECT * FROM people", "mine", "denied for schema public", "GRANT CREATE ON SCHEMA"),
        ("PREDICT MODEL m INTO people REPLACE AS SELECT age FROM people", "people", "must be owner of table", "only its owner"),
        ("PREDICT MODEL m INTO secrets APPEND AS SELECT age FROM people", "secrets", "no column predicted_old", "it has 3"),
        ("PREDICT MODEL m INTO nowhere.t AS SELECT * FROM people", "nowhere.t", 'schema "nowhere" does not exist', ""),
        ("DEPLOY MODEL m TO DATABASE AS FUNCTION f", "f", "denied for schema public", "GRANT CREATE ON SCHEMA"),
    ],
)  # fmt: skip
def test_refusals_point_at_what_was_typed(guest: sqlml.Connection, statement: str, place: str, message: str, hint: str) -> None:
    with pytest.raises(Error, match=message) as raised:
        guest.execute(statement)
    error = raised.value
    assert error.source == statement
    assert error.span is not None
    assert statement[slice(*error.span)] == place
    assert hint in (error.hint or "")


def test_what_may_be_written_but_not_read(guest: sqlml.Connection, postgres: str) -> None:
    assert guest.execute("PREDICT MODEL m INTO log APPEND AS SELECT age FROM people").rowcount == 300
    with psycopg.connect(postgres) as owner:
        assert owner.execute("SELECT count(*) FROM log").fetchone() == (300,)


def test_a_catalog_that_is_there_needs_no_right_to_make_one(guest: sqlml.Connection, postgres: str) -> None:
    role = f"guest_{urlsplit(postgres).path[1:]}"
    url = postgres.replace("postgres:@", f"{role}@")
    with pytest.raises(EngineError, match="permission denied for database") as raised:
        sqlml.connect(url, catalog="database")
    assert "GRANT CREATE ON DATABASE" in str(raised.value)
    sqlml.connect(postgres, catalog="database").close()
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute(f"GRANT USAGE ON SCHEMA sqlml_catalog TO {role}")
        for what in ("TABLES", "SEQUENCES"):
            owner.execute(f"GRANT ALL ON ALL {what} IN SCHEMA sqlml_catalog TO {role}")
    with sqlml.connect(url, catalog="database") as connection:
        assert connection.execute("SHOW MODELS").fetchall() == []
