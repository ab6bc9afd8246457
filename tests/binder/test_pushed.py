"""Which rows of a table a query's WHERE leaves: what is taken of it, and what is not."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from sqlml.binder.pushed import Filter, Mark, pushed_filters


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("age > 30", [Filter("age", ">", (30,))]),
        ("30 < age AND t.JOB = 'it''s'", [Filter("age", ">", (30,)), Filter("job", "=", ("it's",))]),
        ('"Age" BETWEEN -1 AND 2.5', [Filter("age", ">=", (-1,)), Filter("age", "<=", (Decimal("2.5"),))]),
        ("a BETWEEN 1 AND $2 AND k", [Filter("a", ">=", (1,)), Filter("a", "<=", (Mark("2"),)), Filter("k", "IS", (True,))]),
        ("id IN (1, $2, $name)", [Filter("id", "IN", (1, Mark("2"), Mark("name")))]),
        ("d >= DATE '2026-01-02' AND d IS NOT NULL", [Filter("d", ">=", (dt.date(2026, 1, 2),)), Filter("d", "IS NOT NULL")]),
        ("NOT k AND x IS NULL GROUP BY 1", [Filter("k", "IS", (False,)), Filter("x", "IS NULL")]),
        ("age == 3 AND f(age) AND job != E'a\\n'", [Filter("age", "=", (3,)), Filter("job", "<>", ("a\n",))]),
        ("age = 3 AND EXISTS (SELECT 1 FROM u WHERE a = 1 OR b = 2)", [Filter("age", "=", (3,))]),
        ("age = 3 OR k", []),
        ("NOT age = 3", []),
        ("age + 1 = 3", []),
        ("age = 3 + 1", []),
        ("age = 3::INT", []),
        ("u.age = 3", []),
        ("age NOT IN (1, 2)", []),
        ("age NOT BETWEEN 1 AND 2", []),
        ("age IN (SELECT 1)", []),
        ("job = 'x' COLLATE nocase", []),
        ("job LIKE 'x%'", []),
        ("(age = 3)", []),
        ("age = NULL", []),
        ("s.age.x = 3", []),
        ("d >= DATE 'today'", []),
        ("age = 3 USING SAMPLE 10", []),
    ],
)  # fmt: skip
def test_of_one_table(where: str, expected: list[Filter]) -> None:
    assert list(pushed_filters(f'SELECT PREDICT(x) FROM "__t" AS t WHERE {where}', "__t")) == expected
    assert list(pushed_filters(f"WITH c AS (SELECT * FROM __t t WHERE {where}) SELECT * FROM c WHERE z = 1", "__t")) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT * FROM __t t, u WHERE t.a = 1 AND b = 2 AND u.c = 3", [Filter("a", "=", (1,))]),
        ("SELECT * FROM u LEFT JOIN __t t USING (id) WHERE t.a = 1 AND t.b IS NULL", [Filter("a", "=", (1,))]),
        ("SELECT * FROM u JOIN __t t ON u.id IS NOT DISTINCT FROM t.id WHERE t.a = 1", [Filter("a", "=", (1,))]),
        ("FROM __t t WHERE a = 1 SELECT b", [Filter("a", "=", (1,))]),
        ("INSERT INTO u SELECT * FROM __t AS t WHERE a = 1", [Filter("a", "=", (1,))]),
        ("SELECT * FROM (SELECT * FROM __t) WHERE a = 1", []),
        ("SELECT * FROM (__t t JOIN u USING (id)) WHERE t.a = 1", []),
        ("SELECT * FROM u ASOF JOIN __t t ON u.d >= t.d WHERE t.a = 1", []),
        ("SELECT * FROM u POSITIONAL JOIN __t t WHERE t.a = 1", []),
        ("SELECT * FROM __t TABLESAMPLE 10% WHERE a = 1", []),
        ("SELECT * FROM __t AS t(x, a) WHERE a = 1", []),
        ("SELECT * FROM u WHERE a = 1 UNION SELECT * FROM __t", []),
        ("SELECT (SELECT max(x) FROM __t) FROM u WHERE a = 1", []),
    ],
)
def test_among_others(query: str, expected: list[Filter]) -> None:
    assert list(pushed_filters(query, "__t")) == expected
