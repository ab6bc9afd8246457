"""A query that is sent again is bound as before only while nothing that it stands on has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

import sqlml
from sqlml.engines.duckdb.engine import DuckDBEngine
from sqlml.kept_texts import KEPT
from sqlml.session import Session
from sqlml.statements.bound_texts import is_constant
from sqlml.statements.queries import Queries

COUNT = "SELECT count(*) FROM people WHERE buys(age, job, balance) = 'yes'"
OTHER = "TRAIN MODEL buys USING naive_bayes TARGET bought EXCLUDE (id, spent) AS FROM people WHERE age BETWEEN 30 AND 52"
MACRO = "CREATE MACRO buys(a, b, c) AS 'yes'"


def count(connection: sqlml.Connection) -> int:
    row = connection.execute(COUNT).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were bound."""
    texts: list[str] = []
    bind = Queries.bind

    def noted(self: Queries, source: str, *arguments: object, **options: object) -> object:
        texts.append(source)
        return bind(self, source, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Queries, "bind", noted)
    return texts


def test_the_same_text_is_bound_once(connection: sqlml.Connection, bound: list[str]) -> None:
    first = count(connection)
    connection.execute("SELECT 1").fetchall()
    assert count(connection) == first
    assert bound.count(COUNT) == 1


def by_model(connection: sqlml.Connection) -> None:
    connection.execute(OTHER)


def by_another_connection(connection: sqlml.Connection) -> None:
    with sqlml.connect(connection.database) as other:
        other.execute(OTHER)


def by_macro(connection: sqlml.Connection) -> None:
    connection.execute(MACRO)


def by_macro_within(connection: sqlml.Connection) -> None:
    connection.begin()
    count(connection)
    connection.execute(MACRO)
    connection.commit()


def by_macro_explained(connection: sqlml.Connection) -> None:
    connection.execute(f"EXPLAIN ANALYZE {MACRO}")


@pytest.mark.parametrize("change", [by_model, by_another_connection, by_macro, by_macro_within, by_macro_explained])
def test_bound_anew_after_a_change(connection: sqlml.Connection, change: Callable[[sqlml.Connection], None]) -> None:
    before = count(connection)
    change(connection)
    assert count(connection) != before
    rows = connection.execute("SELECT count(*) FROM people").fetchone()
    if change in (by_macro, by_macro_within, by_macro_explained):
        assert (count(connection),) == rows
        connection.execute("DROP MACRO buys")
        assert count(connection) == before


def test_a_function_that_went_with_a_transaction(connection: sqlml.Connection) -> None:
    """Models that are called by Arrow have functions, which a transaction takes along when it rolls back."""
    connection.execute("TRAIN MODEL simple USING naive_bayes TARGET bought EXCLUDE (id, spent) AS FROM people")
    query = "SELECT count(*) FROM people WHERE PREDICT(simple) = 'yes'"
    connection.begin()
    within = connection.execute(query).fetchall()
    connection.rollback()
    assert connection.execute(query).fetchall() == within
    connection.begin()
    assert connection.execute(query).fetchall() == within
    connection.rollback()
    assert connection.execute(query).fetchall() == within


def test_transactions_of_another_session_bind_nothing_anew(connection: sqlml.Connection, bound: list[str]) -> None:
    count(connection)
    with sqlml.connect(connection.database) as other:
        for statement in ("BEGIN", "SELECT 1", "COMMIT", "BEGIN", "ROLLBACK"):
            other.execute(statement)
    bound.clear()
    count(connection)
    assert bound == []


def test_a_table_that_changed_its_columns(tmp_path: Path) -> None:
    with sqlml.connect(tmp_path / "t.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
        assert connection.execute("SELECT * FROM t").fetchall() == [(1,)]
        connection.execute("ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 2")
        assert connection.execute("SELECT * FROM t").fetchall() == [(1, 2)]
        connection.execute("DROP TABLE t")
        with pytest.raises(sqlml.Error, match="t does not exist"):
            connection.execute("SELECT * FROM t")


def test_no_more_are_kept_than_said(tmp_path: Path, bound: list[str]) -> None:
    with sqlml.connect(tmp_path / "t.duckdb") as connection:
        for number in range(2 * KEPT + 10):
            assert connection.execute(f"SELECT {number}").fetchall() == [(number,)]
        bound.clear()
        for number in range(KEPT + 10, 2 * KEPT + 10):  # the newest are all there
            assert connection.execute(f"SELECT {number}").fetchall() == [(number,)]
        assert bound == []
        session = cast(Session, connection._session)
        assert 0 < len(session._queries._bound.constant) <= KEPT
        assert 0 < len(cast(DuckDBEngine, session._engine)._selects.kept) <= KEPT


def test_a_prepared_statement_says_that_it_stays_with_its_version(connection: sqlml.Connection) -> None:
    open_one = connection.execute("PREPARE p AS SELECT PREDICT(buys), PREDICT_PROBA(buys, 'yes') FROM people WHERE id = $1")
    assert open_one.notices == ("the prepared statement stays with buys@1: PREPARE it anew where it is to take another version",)
    assert connection.execute("PREPARE q AS SELECT PREDICT(buys@1) FROM people WHERE id = $1").notices == ()


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("SELECT 1", True),
        ("select -1.5 AS x, 'it''s' as y, ?, $2, NULL", True),
        ("SELECT 1 AS churn", True),
        ("SELECT x", False),
        ("SELECT now()", False),
        ("SELECT current_date", False),
        ("SELECT 1 FROM t", False),
        ("TABLE t", False),
        ("SELECT 1 UNION TABLE t", False),
        ('SELECT 1 AS "a"', False),
        ("FROM t", False),
        ("SELECT " + ", ".join(f"{i} AS c{i}" for i in range(200)), True),
        ("SELECT " + ", ".join(f"{i} AS c{i}" for i in range(200)) + " FROM t", False),
        ("SELECT " + " " * 5000 + "'" + "1 as a " * 5000, False),
    ],
)
def test_what_names_nothing(text: str, constant: bool) -> None:
    """A text is looked through once: the last ones would take for ever."""
    assert is_constant(text) is constant
