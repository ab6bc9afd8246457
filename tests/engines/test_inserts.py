"""INSERT with a row of values, told from what only looks like it."""

from __future__ import annotations

import pytest

from sqlml.engines.inserts import values_at


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t VALUES (?)",
        "insert into s.t (a, b)\n values ( ?, ? ) ;",
        'INSERT INTO "VALUES (?)" /* VALUES (?) */ (a) VALUES (?) -- one',
    ],
)
def test_an_insert_of_values(text: str) -> None:
    place = values_at(text)
    assert place is not None
    assert text[place : place + 6].upper() == "VALUES"
    assert "(?)" not in text[place:].replace("VALUES (?)", "", 1)


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (?, 1)",
        "INSERT INTO t VALUES (?), (?)",
        "INSERT INTO t VALUES (? + 1)",
        "INSERT INTO t VALUES (?) RETURNING a",
        "INSERT INTO t VALUES (?) ON CONFLICT DO NOTHING",
        "INSERT OR REPLACE INTO t VALUES (?)",
        "INSERT INTO t SELECT * FROM (VALUES (?))",
        "UPDATE t SET a = ?",
        "INSERT INTO t VALUES (?) /* open",
        "",
    ],
)
def test_anything_else(text: str) -> None:
    assert values_at(text) is None
