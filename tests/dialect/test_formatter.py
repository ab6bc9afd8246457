"""Scripts laid out: golden files, and for any script the same trees, tokens and comments, and no change the second time."""

import doctest
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlml_dialect import DialectError, Node, find_calls, format_sql, formatter, parse, to_sql
from sqlml_dialect.layout import WIDTH
from sqlml_dialect.tokens import comment_end, scan

from tests.dialect.golden import FIXTURES, read_blocks, read_messages
from tests.dialect.strategies import PLANS, STATEMENTS

CASES = [case for path in sorted((FIXTURES / "format").glob("*.txt")) for case in read_messages(f"format/{path.name}")]
GOLDEN = [source for folder in ("parse", "calls") for _, source, _ in read_blocks(folder)]


@pytest.mark.parametrize(("source", "expected"), CASES, ids=[source[:60] for source, _ in CASES])
def test_golden(source: str, expected: str) -> None:
    assert format_sql(source) == expected + "\n"
    check(source)


@pytest.mark.parametrize("source", GOLDEN)
def test_the_parser_s_golden_files(source: str) -> None:
    check(source)


def check(source: str) -> None:
    written = format_sql(source)
    assert format_sql(written) == written
    assert [shown(*pair) for pair in trees(written)] == [shown(*pair) for pair in trees(source)]
    assert [token.text.upper() for token in scan(written)] == [token.text.upper() for token in scan(source)]
    assert list(comments(written)) == list(comments(source))


def trees(text: str) -> list[tuple[Node | None, str]]:
    return [(statement.node, statement.text) for statement in parse(text)]


def shown(node: Node | None, text: str) -> object:
    return text if node is None else node


def comments(text: str) -> Iterator[str]:
    ends = [0]
    for token in scan(text):
        yield from gap_comments(text, ends[-1], token.start)
        ends.append(token.end)
    yield from gap_comments(text, ends[-1], len(text))


def gap_comments(text: str, start: int, end: int) -> Iterator[str]:
    while start < end:
        if text.startswith("--", start):
            stop = min((at for mark in "\r\n" if (at := text.find(mark, start, end)) >= 0), default=end)
        elif text.startswith("/*", start):
            stop = comment_end(text, start + 2, end)[0]
        else:
            start += 1
            continue
        yield text[start:stop].rstrip()
        start = stop


BLANKS = st.sampled_from([" ", " ", " ", "\n", "\t", "  \n\n\n  "])
COMMENTS = st.sampled_from(
    [" -- why\n", "\n-- a; b (\n", " /* c */ ", "\n/* d\n  e */ ", "\n\n  /* f */\n", "--g\n", "/*h /* i */ -- */"]
)
GAPS = st.one_of(BLANKS, BLANKS, BLANKS, COMMENTS)
NO_GAPS = st.one_of(st.just(""), st.just(""), st.just(""), COMMENTS)
ENDS = st.sampled_from([";", ";", " ; ", ";\n\n\n\n", "; -- end\n", ";;", "\n;", " /* x */;\n", "-- y\n;", ";/* z */ "])
PLAIN = st.sampled_from(
    ["SELECT 1", "select  a -- b\n  from t", "FROM t SELECT PREDICT(m)", "CREATE TABLE model (a INT)", "SELECT ';', $$;$$"]
)
EDGES = st.sampled_from(["", "\n\n", "-- top\n", "/* top */", "  \n\t", "\n\n-- top\n\n\n-- again\n"])


@st.composite
def own_texts(draw: st.DrawFn) -> str:
    text = to_sql(draw(STATEMENTS | PLANS))
    if draw(st.booleans()):
        return text
    ends, parts = [0], list[str]()
    for token in scan(text):
        gap = text[ends[-1] : token.start]
        parts += [gap if gap.strip(" ") else draw(GAPS if gap else NO_GAPS), token.text]
        ends.append(token.end)
    return "".join(parts)


SCRIPTS = st.builds(
    lambda edge, parts, last: edge + "".join(part for pair in parts for part in pair) + last,
    EDGES,
    st.lists(st.tuples(own_texts() | PLAIN, ENDS), max_size=4),
    own_texts() | PLAIN | EDGES,
)


@settings(max_examples=300, deadline=None)
@given(SCRIPTS)
def test_any_script_keeps_its_trees_tokens_and_comments(source: str) -> None:
    check(source)


@settings(max_examples=200, deadline=None)
@given(SCRIPTS)
def test_windows_lines(source: str) -> None:
    check("\r\n".join(source.split("\n")))


@settings(max_examples=100, deadline=None)
@given(STATEMENTS)
def test_a_tree_has_one_layout(node: Node) -> None:
    written = format_sql(to_sql(node))
    (statement,) = parse(written)
    assert statement.node is not None
    assert statement.node == node
    assert format_sql(to_sql(statement.node)) == written


def test_lists_stay_within_the_width() -> None:
    names = ", ".join(f"column_{number}" for number in range(60))
    numbers = ", ".join(map(str, range(200)))
    source = f"TRAIN MODEL m TARGET {names} EXCLUDE ({names}) WITH (a = [{numbers}]) TUNE (b IN ({numbers})) AS SELECT {names}"
    *lines, query = format_sql(source).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert sum(len(line) > WIDTH - 20 for line in lines) > 10
    assert query == f"SELECT {names}"


@pytest.mark.parametrize(
    "source", ["", "SELECT 1\n", "SELECT 1 ; select  2;\n", "SELECT 'open ", "  SELECT 1;\n\n  SELECT 2\n;\n", "SELECT 1 -- a\n"]
)
def test_what_is_not_ours_is_left_alone(source: str) -> None:
    assert format_sql(source) == source


def test_a_statement_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(DialectError) as raised:
        format_sql("SELECT 1;\n  TRAIN MODEL m TARGTE y AS SELECT 1")
    assert (raised.value.line, raised.value.column) == (2, 17)


def test_calls_are_found_in_what_is_written() -> None:
    written = format_sql("train model m target y as select *, predict(n) from t")
    assert find_calls(written[written.index("select") :]).calls[0].model.text == "n"


def test_the_example_in_the_docstring() -> None:
    assert doctest.testmod(formatter).failed == 0
