"""Values in statements."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest

from sqlml.engines.postgres.engine import PostgresEngine
from sqlml.errors import DataError, ProgrammingError
from tests.engines.postgres.asking import values

PARAMETERS = [
    'it\'s \\ "ß" $1 ?',
    "",
    -5,
    2**40,
    2**70,
    1.5,
    float("-inf"),
    True,
    None,
    Decimal("1.50"),
    b"\x00'\\",
    [1, -2, None],
    ['a,"}', None, "\\"],
    [],
    [1.5, 2],
    dt.date(1960, 1, 1),
    dt.datetime(2020, 1, 1, 2, 3, 4, 5),
    dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    dt.time(10, 0),
]


@pytest.mark.parametrize("value", PARAMETERS, ids=repr)
def test_values_come_back(engine: PostgresEngine, value: Any) -> None:
    if value == [] or (isinstance(value, list) and isinstance(value[0], str)):
        assert values(engine, "SELECT ?::text[]", [value]) == [value]
    else:
        assert values(engine, "SELECT ?", [value]) == [value]


def test_a_text_is_what_its_place_asks_for(engine: PostgresEngine) -> None:
    engine.run("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    engine.run("CREATE TABLE t (d date, m mood, u uuid, n numeric(6,2), j jsonb)")
    key = uuid.uuid4()
    engine.run("INSERT INTO t VALUES (?, ?, ?, ?, ?)", ["2020-01-01", "ok", str(key), 1.5, {"a": 1}])
    query = "SELECT count(*) AS c FROM t WHERE d = ? AND m = ? AND u = ? AND n = ? AND d > $$1999-01-01$$"
    assert values(engine, query, ["2020-01-01", "ok", key, "1.5"]) == [1]
    assert values(engine, "SELECT count(*) FROM t WHERE m = ANY(?)", [["ok", "sad"]]) == [1]
    assert values(
        engine, "SELECT count(*) AS c FROM t WHERE d BETWEEN $from AND $to", {"from": dt.date(2019, 1, 1), "to": "2021-01-01"}
    ) == [1]
    assert values(engine, "SELECT $2, $1, $2", [1, 2]) == [2, 1, 2]
    assert values(engine, "SELECT $1 AS a", {"1": 7}) == [7]
    assert values(engine, "SELECT ($1)[2]", [[5, 6]]) == [6]
    assert values(engine, "SELECT - ?", [-5]) == [5]


def test_question_marks_are_operators_too(engine: PostgresEngine) -> None:
    jsonb = "'{\"a\": 1}'::jsonb"
    assert values(engine, f"SELECT {jsonb} ? 'a', {jsonb} ?| ARRAY['b'], {jsonb} ?& ARRAY['a']") == [True, False, True]
    assert values(engine, f"SELECT {jsonb} ? $1, {jsonb} ?| ARRAY['b']", ["a"]) == [True, False]
    assert values(engine, f"SELECT {jsonb} ?| ARRAY[?], ?||'x'", ["a", "b"]) == [True, "bx"]


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("SELECT ?, ?", [1], "has no value"),
        ("SELECT $a", {"b": 1}, r"\$a has no value"),
        ("SELECT $a", [1], "is named"),
        ("SELECT ?", [1, 2], r"does not have: \$2"),
        ("SELECT 1", {"b": 1}, r"does not have: \$b"),
        ("SELECT ?", ["\0"], "NUL"),
        ("SELECT ?", [object()], "no SQL form"),
    ],
)
def test_values_that_do_not_fit(engine: PostgresEngine, text: str, given: Any, message: str) -> None:
    with pytest.raises((ProgrammingError, DataError), match=message):
        engine.run(text, given)
