"""The items of TRANSFORM as text: calls of ML functions, stars, STRUCT, names."""

from __future__ import annotations

import doctest
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlml_dialect import DialectError, fitted
from sqlml_dialect.fitted import column_name, default_name, find_fitted, name_span, parse_star, struct_sql


def test_examples() -> None:
    assert doctest.testmod(fitted).failed == 0


def test_a_call_and_its_places() -> None:
    text = "1 + ml . Standard_Scaler( age /* , */ ) over ( ) * 2"
    (call,) = find_fitted(text)
    assert (call.name, call.over, call.window) == ("STANDARD_SCALER", True, "")
    assert text[slice(*call.span)] == "ml . Standard_Scaler( age /* , */ ) over ( )"
    assert text[slice(*call.name_span)] == "ml . Standard_Scaler"
    assert text[slice(*call.over_span)] == "over ( )"
    assert [(a.text, a.name, text[slice(*a.span)]) for a in call.arguments] == [("age", None, "age")]


def test_arguments() -> None:
    text = "ML.BUCKETIZE(f(a, b), [1, 2], output_format => 'x, y', \"exclude boundaries\" := {'a': 1})"
    (call,) = find_fitted(text)
    assert not call.over
    assert [(a.text, a.name) for a in call.arguments] == [
        ("f(a, b)", None),
        ("[1, 2]", None),
        ("'x, y'", "output_format"),
        ("{'a': 1}", "exclude boundaries"),
    ]
    assert all(text[slice(*a.span)] == a.text for a in call.arguments)
    assert find_fitted("ML.NORMALIZER()")[0].arguments == ()


def test_calls_inside_calls() -> None:
    text = "ML.A(x + ML.B(y) OVER (), ML.C(ML.D(z))) + ML.E(w) OVER (PARTITION BY ML.F(v))"
    first, second = find_fitted(text)
    assert [c.name for c in first.inner] == ["B", "C"]
    assert [c.name for c in first.inner[1].inner] == ["D"]
    assert text[slice(*first.inner[0].span)] == "ML.B(y) OVER ()"
    assert (second.name, second.over, second.window) == ("E", True, "PARTITION BY ML.F(v)")


@pytest.mark.parametrize(
    "text", ["ml", "ML.x", "ml + f(1)", "'ML.A(b)'", "-- ML.A(b)", "s.ml.a(1)", "", "ML.A OVER ()", "xml.a(1)", 'x."ML.A"(1)']
)
def test_what_is_no_call(text: str) -> None:
    assert find_fitted(text) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [("ML.A(b", "this ( is never closed"), ("ML.A('b)", "this string is never"), ("ML.A(a,)", "expected an argument")],
)
def test_texts_that_do_not_close(text: str, message: str) -> None:
    with pytest.raises(DialectError, match=message.replace("(", "\\(")):
        find_fitted(text)


def test_stars() -> None:
    assert parse_star("*") == fitted.StarItem()
    assert parse_star("a * 2") is parse_star("") is parse_star("f(*)") is None
    text = '* except (a, "b c") replace (x + 1 AS x, ML.F(y) OVER () AS y) rename (p as q) exclude d'
    star = parse_star(text)
    assert star is not None
    assert [name for name, _ in star.exclude] == ["a", "b c", "d"]
    assert [(name, sql) for name, sql, _ in star.replace] == [("x", "x + 1"), ("y", "ML.F(y) OVER ()")]
    assert [(old, new) for old, new, _ in star.rename] == [("p", "q")]
    assert text[slice(*star.replace[1][2])] == "ML.F(y) OVER ()"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("* EXCLUD (a)", "unknown part of a star EXCLUD"),
        ("* 2", "expected EXCLUDE, EXCEPT, REPLACE or RENAME"),
        ("* REPLACE (a + 1)", "expected expression AS column"),
        ("* REPLACE a", "expected"),
        ("* EXCLUDE ()", "expected a column"),
        ("c.*", "there are no tables in TRANSFORM, only columns"),
    ],
)
def test_stars_that_are_wrong(text: str, message: str) -> None:
    with pytest.raises(DialectError) as caught:
        parse_star(text)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("STRUCT(a)", "struct_pack(a := a)"),
        ('f(struct(a, t.b, c + 1 AS "d e"), 2)', 'f(struct_pack(a := a, b := t.b, "d e" := c + 1), 2)'),
        ("STRUCT(STRUCT(a) AS x)", "struct_pack(x := struct_pack(a := a))"),
        ('STRUCT("two words")', 'struct_pack("two words" := "two words")'),
        ("CAST(s AS STRUCT(a INTEGER))", "CAST(s AS STRUCT(a INTEGER))"),
        ("s::STRUCT(a INTEGER)", "s::STRUCT(a INTEGER)"),
        ("'STRUCT(a)'", "'STRUCT(a)'"),
        ("struct", "struct"),
    ],
)
def test_struct(text: str, sql: str) -> None:
    assert struct_sql(text) == sql


@pytest.mark.parametrize("text", ["STRUCT(a + 1)", "STRUCT(1)", "STRUCT(a,)"])
def test_struct_fields_need_names(text: str) -> None:
    with pytest.raises(DialectError):
        struct_sql(text)


def test_names() -> None:
    assert column_name(' "two words" ') == "two words"
    assert column_name("a.b") is column_name("1") is column_name("") is None
    assert default_name("'!'") == "expression"
    assert default_name("x" * 90 + " + 1") == "x" * 60
    assert name_span("f(AGE)", "age") == (2, 5)
    assert name_span("'age'", "age") is None


TEXT = st.lists(
    st.sampled_from(["ML", ".", "A", "(", ")", ",", "OVER", "STRUCT", "AS", "*", "'x'", '"q"', " ", "1", "=>", "EXCLUDE"])
)


@given(TEXT)
def test_nothing_but_our_own_error(words: list[str]) -> None:
    text = "".join(words)

    for function in (find_fitted, parse_star, struct_sql, default_name, column_name):
        with suppress(DialectError):
            function(text)
