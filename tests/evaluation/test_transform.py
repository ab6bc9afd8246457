"""ML.TRANSFORM in SQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sqlml

ROWS = "SELECT i AS id, CASE WHEN i % 9 > 0 THEN i % 50 END AS age, i % 7 AS balance, i % 50 > 20 AS y FROM range(300) AS t(i)"
ITEMS = "age * 2 AS twice, ML.STANDARD_SCALER(balance) OVER () AS scaled"


@pytest.fixture(scope="module")
def c() -> Iterator[sqlml.Connection]:
    with sqlml.connect() as connection:
        connection.execute(f"CREATE TABLE people AS {ROWS}")
        train = "TRAIN MODEL m USING logistic_regression TARGET y"
        connection.execute(f"{train} EXCLUDE (id) TRANSFORM ({ITEMS}) ON inline AS FROM people")
        connection.execute(f"TRAIN MODEL only USING transform_only TRANSFORM ({ITEMS}) ON inline AS FROM people")
        yield connection


@pytest.mark.parametrize("model", ["m", "only"])
def test_transformed_columns_stand_beside_those_that_are_not_read(c: sqlml.Connection, model: str) -> None:
    cursor = c.execute(f"SELECT * FROM ML.TRANSFORM(MODEL {model}, (FROM people)) ORDER BY id")
    assert [column[0] for column in cursor.description or ()] == ["id", "y", "twice", "scaled"]
    found = cursor.fetchall()
    assert [row[2] for row in found] == [None if i % 9 == 0 else i % 50 * 2 for i in range(300)]
    assert sum(row[3] for row in found) == pytest.approx(0, abs=30)  # scaled by the training rows


def test_the_query_may_have_the_inputs_alone(c: sqlml.Connection) -> None:
    cursor = c.execute("SELECT * FROM ML.TRANSFORM(MODEL only, (SELECT balance, age FROM people))")
    assert [column[0] for column in cursor.description or ()] == ["twice", "scaled"]
    with pytest.raises(sqlml.ProgrammingError, match="needs columns that this query does not have: balance"):
        c.execute("SELECT * FROM ML.TRANSFORM(MODEL only, (SELECT age FROM people))")


def test_it_stands_in_a_view(c: sqlml.Connection) -> None:
    c.execute("CREATE VIEW v AS SELECT id, twice FROM ML.TRANSFORM(MODEL m, (FROM people))")
    assert c.execute("SELECT twice FROM v WHERE id = 10").fetchone() == (20,)
