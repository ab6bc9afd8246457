"""Which columns of a table a query can need: all that it names, or every one where it may read one without naming it."""

from __future__ import annotations

import pytest

from sqlml.binder.named_columns import named_columns


@pytest.mark.parametrize(
    ("query", "needed"),
    [
        ('SELECT sum(c.Age) FROM "T" c JOIN other USING (id)', {"age", "id"}),
        ('SELECT count(*), 2 * age, (age) * "Other one" FROM "T" AS "customers"', {"age", "other one"}),
        ('CREATE TABLE y AS SELECT age FROM "T" AS "t"', {"age"}),
        ("INSERT INTO y SELECT age FROM x JOIN \"T\" c ON c.id = x.id WHERE c.job = 'x'", {"age", "id", "job"}),
        ('SELECT extract(year FROM since), a IS DISTINCT FROM b FROM "T" c', {"since", "a", "b"}),
        ('SELECT 1 WHERE 3 IN (SELECT k FROM "T" c) UNION ALL SELECT j FROM x', {"k", "j"}),
        ('SELECT CASE WHEN age > 3 THEN a * b END, list(x -> x * -2) FROM "T"', {"age", "a", "b", "x"}),
        ('WITH q AS (SELECT age FROM "T" c) SELECT age FROM q', {"age"}),
    ],
)
def test_columns_by_name(query: str, needed: set[str]) -> None:
    found = named_columns(query, "T")
    assert found is not None
    assert needed <= found
    assert "balance" not in found


@pytest.mark.parametrize(
    "query",
    [
        'SELECT * FROM "T" c',
        'SELECT c.*, 1 FROM "T" c',
        'SELECT DISTINCT ON (job) * FROM "T" c',
        'SELECT * EXCLUDE (age) FROM "T" c',
        'SELECT count(DISTINCT *) FROM "T" c',
        'SELECT age FROM "T" c WHERE EXISTS (SELECT * FROM "T2")',
        'WITH q AS (SELECT age FROM "T" c) SELECT * FROM q',
        'FROM "T" c',
        'SELECT age FROM (FROM "T" c)',
        'SELECT age FROM other UNION ALL FROM "T" c',
        'INSERT INTO y FROM "T" c',
        'CREATE TABLE y AS FROM "T" c',
        'UPDATE y SET a = c.a FROM "T" c',
        'MERGE INTO y USING "T" c ON (id) WHEN NOT MATCHED THEN INSERT *',
        'TABLE "T"',
        'SUMMARIZE SELECT age FROM "T" c',
        'SELECT age FROM y NATURAL JOIN "T" c',
        "SELECT COLUMNS('a.*') FROM \"T\" c",
        'SELECT #1 FROM "T" c',
        'SELECT c FROM "T" c',
        'SELECT to_json(c) FROM "T" c',
        'SELECT (c).age FROM "T" c',
        "SELECT c['age'] FROM \"T\" c",
        'SELECT to_json("T") FROM "T"',
        'SELECT a FROM "T" AS c(a, b)',
        'PIVOT "T" ON age USING sum(balance)',
    ],
)
def test_every_column_may_be_read(query: str) -> None:
    assert named_columns(query, "T") is None
