"""What a user reads when a statement is wrong, and the drawing of the place."""

import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlml_dialect import DialectError, find_calls, parse, point_at

from tests.dialect.golden import read_messages

MESSAGES = read_messages("errors/parse.txt")
MISTAKES = read_messages("errors/mistakes.txt")


@pytest.mark.parametrize(("source", "message"), MESSAGES, ids=[source for source, _ in MESSAGES])
def test_golden(source: str, message: str) -> None:
    with pytest.raises(DialectError) as raised:
        parse(source)
    assert str(raised.value) == message


@pytest.mark.parametrize(("source", "message"), MISTAKES, ids=[source for source, _ in MISTAKES])
def test_typical_mistakes(source: str, message: str) -> None:
    with pytest.raises(DialectError) as raised:
        read_all(source)
    assert str(raised.value) == message
    assert raised.value.hint or raised.value.expected
    assert raised.value.text[slice(*raised.value.span)] or raised.value.span[0] == len(source)


def read_all(source: str) -> None:
    for statement in parse(source):
        find_calls(source[slice(*statement.span)], {"churn"})


def test_there_are_many_mistakes_and_most_have_a_hint() -> None:
    assert len(MISTAKES) >= 100
    hints = [
        message
        for _, message in MISTAKES
        if message.split("\n")[-1].startswith(("  did you mean", "  write", "  as in", "  is "))
    ]
    assert len(hints) > 0.75 * len(MISTAKES)


def test_fields() -> None:
    with pytest.raises(DialectError) as raised:
        parse("SELECT 1;\nTRAIN MODEL m\r\n  TARGTE y AS SELECT 1")
    error = raised.value
    assert (error.message, error.hint) == ("unknown clause TARGTE", "did you mean TARGET?")
    assert (error.line, error.column) == (3, 3)
    assert error.text[slice(*error.span)] == "TARGTE"
    assert error.expected is not None
    assert "AS query" in error.expected
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)


def test_point_at_a_line_in_the_middle() -> None:
    assert point_at("a\nbcd e\nf", (3, 5)) == "  line 2:  bcd e\n            ^^"


def test_point_at_the_end() -> None:
    assert point_at("ab", (2, 2)) == "  line 1:  ab\n             ^"
    assert point_at("", (0, 0)) == "  line 1:  \n           ^"
    assert point_at("ab", (99, 99)) == "  line 1:  ab\n             ^"


def test_a_span_over_lines_ends_with_its_first() -> None:
    assert point_at("ab cd\r\nef", (3, 9)) == "  line 1:  ab cd\n              ^^"


@pytest.mark.parametrize(
    ("before", "columns"),
    [("目标", 4), ("e\u0301", 1), ("\t", 4), ("a\tb", 6), ("ﬁ", 1), ("عربي", 4), ("\x1b", 1), ("\u200d", 0), ("😀", 2)],
)
def test_the_caret_stands_below_any_script(before: str, columns: int) -> None:
    shown, carets = point_at(f"{before}X", (len(before), len(before) + 1)).split("\n")
    assert carets == " " * (len("  line 1:  ") + columns) + "^"
    assert shown.endswith("X")
    assert "\t" not in shown
    assert "\x1b" not in shown


def test_a_long_line_is_cut_around_the_span() -> None:
    text = "a" * 500 + "BAD" + "c" * 500
    shown, carets = point_at(text, (500, 503)).split("\n")
    assert shown.startswith("  line 1, column 501:  …aaa")
    assert shown.endswith("ccc…")
    assert len(shown) < 130
    assert shown[carets.index("^") :].startswith("BADc")
    assert carets.count("^") == 3


def test_a_long_line_is_cut_at_one_side_only_where_the_span_is_near_an_end() -> None:
    text = "BAD" + "c" * 500
    assert point_at(text, (0, 3)).startswith("  line 1:  BADccc")
    shown, carets = point_at(text, (503, 503)).split("\n")
    assert shown.endswith("c")
    assert len(carets) == len(shown) + 1


def _columns(text: str) -> int:
    narrow = {"Mn", "Me", "Cf"}
    return sum(0 if unicodedata.category(c) in narrow else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


@given(st.text(max_size=300), st.integers(-3, 310), st.integers(0, 50))
def test_point_at_never_fails(text: str, start: int, length: int) -> None:
    shown, carets = point_at(text, (start, start + length)).split("\n")
    assert set(carets.strip()) == {"^"}
    assert _columns(shown) <= 100 + 25
    assert len(carets.rstrip()) <= 100 + 25
