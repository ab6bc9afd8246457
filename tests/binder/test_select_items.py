"""Which calls are columns of a statement by themselves, so that their answers can be put there afterwards."""

from __future__ import annotations

import pytest

from sqlml.binder.select_items import is_select_item

CALL = "PREDICT(m)"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT PREDICT(m) FROM t", True),
        ("SELECT id, PREDICT(m) AS p, age FROM t WHERE age > 3 ORDER BY id LIMIT 3", True),
        ('SELECT id, PREDICT(m) "the answer" FROM t', True),
        ("WITH x AS (SELECT 1 AS a) SELECT PREDICT(m), a FROM x", True),
        ("SELECT PREDICT(m)", True),
        ("SELECT PREDICT(m) || '!' FROM t", False),
        ("SELECT upper(PREDICT(m)) FROM t", False),
        ("SELECT 1 + PREDICT(m) FROM t", False),
        ("SELECT id FROM t WHERE PREDICT(m) = 'yes'", False),
        ("SELECT id FROM t ORDER BY PREDICT(m)", False),
        ("SELECT * FROM (SELECT PREDICT(m) FROM t) x", False),
        ("SELECT DISTINCT PREDICT(m) FROM t", False),
        ("SELECT PREDICT(m) FROM t UNION SELECT 'a'", False),
        ("SELECT id, PREDICT(m) FROM t ORDER BY 2", False),
        ("SELECT id, PREDICT(m) FROM t ORDER BY age + 2", True),
        ("SELECT id, PREDICT(m) AS p FROM t ORDER BY p DESC LIMIT 3", False),
        ('SELECT id, PREDICT(m) "P" FROM t ORDER BY id, "P"', False),
        ("SELECT PREDICT(m) AS p, count(*) FROM t GROUP BY p", False),
        ("SELECT id, PREDICT(m) AS p FROM t ORDER BY id", True),
        ("INSERT INTO x SELECT PREDICT(m) FROM t", False),
    ],
)
def test_items(query: str, expected: bool) -> None:
    start = query.index(CALL)
    assert is_select_item(query, (0, len(query)), (start, start + len(CALL))) is expected
