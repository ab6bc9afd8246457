"""Any text at all: what is not ours passes untouched, what is ours and wrong is a DialectError, nothing else happens."""

import random
from collections.abc import Callable
from functools import partial

import duckdb
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlml_dialect import DialectError, ExplainPlan, Node, find_calls, parse
from sqlml_dialect.tokens import SPACES, Kind, scan, split_statements

from tests.soak import fuzz

WORDS = r"""
TRAIN MODEL m TARGET y EXCLUDE ( ) AS SELECT FROM t ; , . @ 3 1.5 -1 'a' "b" WITH a = [ ] { } : ? $1 $name $$ $t$ ' " /* */ --
EXPLAIN ANALYZE (FORMAT JSON) SHOW MODELS VERSIONS OF DESCRIBE ALTER DROP PREDICT INTO APPEND EVALUATE BY DEPLOY TO ENDPOINT
SET TRAFFIC ALIAS champion TUNE IN BETWEEN AND LOG TRIALS SPLIT RANDOM TIME LIMIT MEMORY '8 GB' ROWS INTERVAL '10 min' MINUTES
NULL TRUE VALIDATE ON WARM START ASYNC EXPORT IMPORT CREATE RUNNER TYPE CANCEL JOB LOGS FOR PREDICT( PREDICT_PROBA( ML.PREDICT(
churn( USING c.* * := => :: DISTINCT TABLE E'\' 日本 😀 é #
"""
SOUP_WORDS = st.lists(st.sampled_from([*WORDS.split(), "\n", "\u00a0", "\u200b"]), max_size=30)
SOUP = st.builds(str.join, st.sampled_from([" ", ""]), SOUP_WORDS)
PUNCTUATION = st.text(st.sampled_from("'\"$;()-/*\n aeE1?@."), max_size=40)
TEXTS = st.one_of(SOUP, st.text(max_size=80), PUNCTUATION)


@settings(max_examples=600, deadline=None)
@given(TEXTS)
@example("EXPLAIN " * 5000)
@example("TRAIN MODEL m WITH (a = " + "[" * 5000 + "]" * 5000 + ") AS SELECT 1")
@example("TRAIN MODEL m WITH (a = " + "9" * 10000 + ") AS SELECT 1")
@example("TRAIN MODEL m WITH (a = INTERVAL '" + "9" * 10000 + " s') AS SELECT 1")
@example("TRAIN MODEL m@" + "9" * 10000)
@example('SELECT "churn@' + "9" * 10000 + '"(a)')
@example("TRAIN MODEL m WITH (a = $" + "9" * 10000 + ") AS SELECT 1")
@example("TRAIN MODEL m WITH (a = $٣) AS SELECT 1")
@example("TRAIN MODEL m WITH (a = E'\\U00110000') AS SELECT 1")
def test_nothing_but_our_own_error(text: str) -> None:
    for error in (error_of(lambda: parse(text)), error_of(lambda: find_calls(text, {"churn"}, 7))):
        assert error is None or (str(error) and error.line >= 1 and error.column >= 1)


def error_of(read: Callable[[], object]) -> DialectError | None:
    try:
        read()
    except DialectError as error:
        return error
    return None


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_pieces_and_tokens_cover_the_text(text: str) -> None:
    end = 0
    for piece in split_statements(text):
        assert end <= piece.start < piece.end
        between = list(scan(text, end, piece.start))
        assert all(token.text == ";" for token in between)
        written = text[piece.start : piece.end]
        assert written[0] not in SPACES
        tokens = list(scan(text, piece.start, piece.end))
        assert tokens[-1].kind is Kind.OPEN or written[-1] not in SPACES
        assert tokens[0].start == piece.start
        assert tokens[-1].end == piece.end
        assert all(token.text == text[token.start : token.end] for token in tokens)
        assert piece.params == sum(token.kind is Kind.PARAM and token.text == "?" for token in tokens)
        end = piece.end
    assert all(token.text == ";" for token in scan(text, end))


def test_a_small_soak() -> None:
    report = fuzz.Report()
    for text in fuzz.texts(2_000, seed=1):
        fuzz.check(text, report)
    assert report.faults == []
    assert min(report.outcomes[outcome] for outcome in ("ours", "refused", "the database's", "calls refused")) > 20


def test_the_grammar_of_the_soak_writes_every_statement() -> None:
    chance = random.Random(0)
    texts = [fuzz.generate("own", chance) for _ in range(3_000)]
    kinds = {type(statement.node) for text in texts if error_of(partial(parse, text)) is None for statement in parse(text)}
    assert set(Node.__args__) - kinds == {ExplainPlan}


PLAIN = st.sampled_from(
    [
        "SELECT 1",
        "SELECT ';', \"a;b\" FROM t",
        "SELECT E'\\';' , e'a'",
        "SELECT $$;'$$, $x$ ; $$ $x$",
        "SELECT 1 -- ; '\n + 2",
        "SELECT 1 /* ; ' /* ; */ ; */ + 2",
        "SELECT a$b, é, 日本 FROM 😀",
        "SELECT @-5, 1 // 2, x::INT, [1, 2][1:2], {'a;': 1}, -1, 1e5, .5, 1_000, 0x1F",
        "DESCRIBE model",
        "SHOW TABLES",
        "EXPLAIN SELECT 1",
        "FROM train SELECT predict, target",
        "CREATE TABLE model (train INT, label INT)",
        "INSERT INTO predict (a) VALUES (?)",
        "ROLLBACK",
        "SELECT x'AB', date'2020-01-01', interval '1' day",
        "SELECT 'it''s'",
        "SELECT `;` AS `a``;b`",
        "CREATE MACRO f(a) AS a || ';'",
    ]
)
GAPS = st.sampled_from([";", " ; ", ";\n", "; -- x;\n", ";/* a;b */", ";;", " -- '\n;", "\t;\n\n"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(PLAIN, GAPS), min_size=1, max_size=6))
def test_scripts_are_cut_where_duckdb_cuts_them(parts: list[tuple[str, str]]) -> None:
    script = "".join(source + gap for source, gap in parts)
    statements = parse(script)
    assert [statement.text for statement in statements] == [source for source, _ in parts]
    assert {statement.kind for statement in statements} == {"sql"}
    assert len(duckdb.extract_statements(script)) == len(parts)


def test_every_space_of_duckdb_is_one() -> None:
    for space in SPACES:
        script = f"{space}SELECT{space}1{space};{space}TRAIN{space}MODEL{space}m{space}AS{space}SELECT 2{space}"
        assert [statement.kind for statement in parse(script)] == ["sql", "train"]
        assert len(duckdb.extract_statements(f"{space}SELECT{space}1{space};{space}SELECT 2{space}")) == 2


@settings(max_examples=600, deadline=None)
@given(SOUP)
def test_what_duckdb_reads_is_never_refused(text: str) -> None:
    try:
        theirs = duckdb.extract_statements(text)
    except duckdb.Error:
        return
    ours = parse(text)
    assert len(ours) == len(theirs)
    for statement in ours:
        words = statement.text.upper().split()
        assert statement.kind in {"sql", "query"} or words[-2:] == ["SHOW", "MODELS"]
