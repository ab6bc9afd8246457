"""A SELECT of one row, taken apart by its tokens."""

from __future__ import annotations

import pytest
from sqlml_dialect import DialectError
from sqlml_dialect.selects import Equality, Select, read_select


def read(text: str) -> Select:
    return read_select(text, (0, len(text)))


def sides(text: str, equalities: tuple[Equality, ...]) -> list[tuple[str, str]]:
    return [(text[slice(*e.left)], text[slice(*e.right)]) for e in equalities]


@pytest.mark.parametrize(
    ("item", "text", "alias"),
    [
        ("a + b AS c", "a + b", "c"),
        ("a + b c", "a + b", "c"),
        ('f(x) "my name"', "f(x)", "my name"),
        ("total: a + b", "a + b", "total"),
        ("a IS NULL", "a IS NULL", None),
        ("CASE WHEN a THEN b END", "CASE WHEN a THEN b END", None),
        ("x::DOUBLE PRECISION", "x::DOUBLE PRECISION", None),
        ("a IS DISTINCT FROM b", "a IS DISTINCT FROM b", None),
        ("t.from", "t.from", None),
        ("$age", "$age", None),
    ],
)
def test_items(item: str, text: str, alias: str | None) -> None:
    [first, second] = read(f"SELECT {item}, 1 AS one FROM t").items
    assert (first.text, first.alias and first.alias.name) == (text, alias)
    assert second.alias is not None


def test_stars_and_a_comma_at_the_end() -> None:
    assert [item.star for item in read("SELECT *, c.*, x, FROM t").items] == ["*", "c.*", None]


def test_sources_and_their_keys() -> None:
    text = (
        "WITH s AS (SELECT 1 AS x) SELECT x FROM s q LEFT OUTER JOIN pg.public.t AS t ON (t.a = q.x AND t.b = f($k, 2)) "
        "LEFT JOIN u USING (id, day) WHERE q.x = $y"
    )
    tree = read(text)
    [(name, inner)] = tree.named
    assert (name.name, inner.items[0].text) == ("s", "1")
    first, second, third = tree.sources
    assert (first.name and first.name.text, first.alias and first.alias.name) == ("s", "q")
    assert second.name is not None
    assert second.name.text == "pg.public.t"
    assert sides(text, second.on) == [("t.a", "q.x"), ("t.b", "f($k, 2)")]
    assert [column.name for column in third.using] == ["id", "day"]
    assert sides(text, tree.where) == [("q.x", "$y")]


def test_a_query_as_a_source() -> None:
    [source] = read("SELECT a FROM (SELECT 1 AS a FROM t WHERE t.k = $k) x").sources
    assert source.query is not None
    assert source.query.sources[0].name is not None


def test_places_count_from_the_start_of_the_text() -> None:
    text = "DEPLOY QUERY e AS SELECT a FROM t"
    tree = read_select(text, (18, len(text)))
    assert text[slice(*tree.items[0].span)] == "a"


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("SELECT a FROM t ORDER BY a", "ORDER cannot stand", "ORDER"),
        ("SELECT DISTINCT a FROM t", "DISTINCT cannot stand", "DISTINCT"),
        ("SELECT a UNION SELECT b", "UNION cannot stand", "UNION"),
        ("SELECT a FROM t GROUP BY a", "GROUP cannot stand", "GROUP"),
        ("SELECT a FROM t, u", "a comma between tables", ","),
        ("SELECT a FROM t JOIN u ON u.a = t.a", "JOIN between tables", "JOIN"),
        ("SELECT a FROM t CROSS JOIN u", "CROSS JOIN between tables", "CROSS"),
        ("SELECT a FROM t LEFT JOIN u", "expected ON", ""),
        ("SELECT a FROM t WHERE a > 2", "a > 2 is no comparison", "a > 2"),
        ("SELECT a FROM t WHERE a = 1 OR b = 2", "no comparison", "a = 1 OR b = 2"),
        ("SELECT a FROM range(3)", "a table function", "range("),
        ("SELECT * EXCLUDE (a) FROM t", "a star with changes", "* EXCLUDE (a)"),
        ("FROM t SELECT a", "expected SELECT", "FROM"),
        ("WITH RECURSIVE t AS (SELECT 1) SELECT 1", "this query cannot have RECURSIVE", "RECURSIVE"),
        ("SELECT a FROM t WHERE", "expected a condition", "WHERE"),
        ("SELECT", "expected a column", "SELECT"),
        ("SELECT a FROM (SELECT 1", "never closed", "("),
        ("VALUES (1)", "expected SELECT", "VALUES"),
    ],
)
def test_what_belongs_to_many_rows_is_refused(text: str, message: str, at: str) -> None:
    with pytest.raises(DialectError, match=None) as caught:
        read(text)
    assert message in caught.value.message
    assert caught.value.text[slice(*caught.value.span)] == at
