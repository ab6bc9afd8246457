"""Calls of ours inside the database's queries: the golden files, spans, names of columns, and what is not a call."""

import re
from collections.abc import Iterable, Iterator

import duckdb
import pytest
from sqlml_dialect import TABLE_FUNCTIONS, Argument, Calls, DialectError, ModelCall, find_calls, parse, quote_identifier
from sqlml_dialect.generator import options_sql

from tests.dialect.golden import read_blocks, read_messages

FUNCTIONS = frozenset({"churn", "sales.fraud", "目标"})
CASES = read_blocks("calls")
MESSAGES = read_messages("errors/calls.txt")


def show(calls: Iterable[ModelCall], depth: int = 0) -> Iterator[str]:
    for call in calls:
        parts = [call.function, call.model.text]
        parts += [f"extra {call.extra.text}"] if call.extra else []
        parts += ["using " + (", ".join(map(show_argument, call.using)) or "()")] if call.using is not None else []
        parts += [f"query {call.query.text}"] if call.query else []
        parts += [f"options {options_sql(call.options)}"] if call.options else []
        yield "  " * depth + " ".join(parts)
        yield from show(call.inner, depth + 1)


def show_argument(argument: Argument) -> str:
    if argument.star:
        return f"<{argument.star}>"
    mark = ":=" if argument.named else "="
    return f"{argument.name.name}{mark}{argument.text}" if argument.name else argument.text


def show_all(found: Calls) -> list[str]:
    return [*show(found.calls), *(f"unnamed {item.text}" for item in found.unnamed)] or ["none"]


@pytest.mark.parametrize(("source", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_golden(source: str, expected: list[str]) -> None:
    found = find_calls(source, FUNCTIONS)
    assert show_all(found) == expected
    for call in every(found.calls):
        written = source[slice(*call.span)]
        assert written.endswith(")")
        assert call.function == "model" or re.sub(r'[\s"]', "", written).lower().removeprefix("sqlml.").startswith(
            call.function + "("
        )
        for argument in call.using or ():
            assert argument.text in source[slice(*argument.span)]
        for option in call.options:
            assert option.name.name in source[slice(*option.span)] or option.name.name == "thresholds"
            assert source[slice(*option.value_span)] in source[slice(*option.span)]
        if call.extra:
            assert source[slice(*call.extra.span)] == call.extra.text
        for inner in call.inner:
            assert call.span[0] < inner.span[0] < inner.span[1] < call.span[1]
    for item in found.unnamed:
        assert source[slice(*item.span)] == item.text


def every(calls: Iterable[ModelCall]) -> Iterator[ModelCall]:
    for call in calls:
        yield call
        yield from every(call.inner)


@pytest.mark.parametrize(("source", "message"), MESSAGES, ids=[source for source, _ in MESSAGES])
def test_messages(source: str, message: str) -> None:
    with pytest.raises(DialectError) as raised:
        find_calls(source, FUNCTIONS)
    assert str(raised.value) == message
    assert parse(source)[0].kind in {"query", "sql"}


def test_spans_count_from_the_start_that_is_given() -> None:
    query = "SELECT PREDICT_PROBA(a, 'x' USING churn(b) AS c), 1 FROM ML.PREDICT(MODEL d, (SELECT 1))"
    text = "TRAIN MODEL m TARGET y AS " + query
    here, there = find_calls(query, FUNCTIONS), find_calls(query, FUNCTIONS, text.index(query))
    assert here == there
    for call in every(there.calls):
        assert text[slice(*call.span)].lower().startswith(("predict_proba(a", "churn(b)", "ml.predict("))
        assert text[slice(*call.model.name.span)] in {"a", "churn", "d"}
    outer = there.calls[0]
    assert outer.extra
    assert outer.using
    assert outer.using[0].name
    assert there.calls[1].query
    places = [outer.extra.span, outer.using[0].span, outer.using[0].name.span, there.calls[1].query.span, there.unnamed[0].span]
    assert [text[slice(*place)] for place in places] == ["'x'", "churn(b) AS c", "c", "SELECT 1", query[7:48]]


def test_spans_of_options_count_from_the_start_too() -> None:
    query = "SELECT * FROM ML.EVALUATE(MODEL m, STRUCT(0.5 AS threshold), TABLE t)"
    text = "TRAIN MODEL m TARGET y AS " + query
    (call,) = find_calls(query, start=text.index(query)).calls
    (option,) = call.options
    places = (option.name.span, option.value_span, option.span)
    assert [text[slice(*place)] for place in places] == ["threshold", "0.5", "0.5 AS threshold"]


@pytest.mark.parametrize("function", sorted(TABLE_FUNCTIONS))
def test_every_table_function_takes_a_model_and_a_query(function: str) -> None:
    (call,) = find_calls(f"SELECT * FROM {function.upper()}(MODEL churn, (SELECT 1))").calls
    assert (call.function, call.model.text, call.query and call.query.text) == (function, "churn", "SELECT 1")
    assert parse(f"FROM {function}(MODEL churn, TABLE t)")[0].kind == "query"


def test_generated_thresholds_are_exact() -> None:
    (call,) = find_calls("FROM ML.ROC_CURVE(MODEL m, TABLE t, GENERATE_ARRAY(0.1, 0.9, 0.1))").calls
    assert call.options[0].value == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_functions_of_the_database_are_skipped() -> None:
    source = "SELECT predict(1 + 1), PREDICT_PROBA(m), ml.predict(2), churn(a) FROM t"
    assert show_all(find_calls(source, {"churn"}, skip={"predict", "ml.predict", "churn"})) == [
        "predict_proba m",
        "unnamed PREDICT_PROBA(m)",
    ]


def test_without_functions_only_our_own_words_are_calls() -> None:
    assert find_calls("SELECT churn(a), f(b) FROM t") == Calls()


def test_appended_aliases_give_the_columns_their_written_names() -> None:
    source = (
        "SELECT abs(x) + 1, [abs(x)], abs(x) AS a, abs(x) b, c: abs(x), x FROM (SELECT 1 AS x) WHERE abs(x) IS DISTINCT FROM 2"
    )
    found = find_calls(source, {"abs"})
    for item in reversed(found.unnamed):
        source = source[: item.span[1]] + f" AS {quote_identifier(item.text)}" + source[item.span[1] :]
    with duckdb.connect() as connection:
        assert connection.sql(source).columns == ["abs(x) + 1", "[abs(x)]", "a", "b", "c", "x"]


ALIASABLE = """
SELECT DISTINCT ON (abs(x)) abs(x), x FROM t
FROM t SELECT abs(x)
SELECT abs(x) FROM t UNION ALL SELECT abs(x) FROM t ORDER BY 1
SELECT abs(x) IS NULL, abs(x) ISNULL, CASE WHEN abs(x) > 1 THEN 1 END FROM t GROUP BY ALL
SELECT abs(x)::DOUBLE PRECISION, abs(x)::VARCHAR COLLATE nocase, date '2020-01-01' + INTERVAL (abs(x)) DAY FROM t
SELECT max(abs(x)) OVER (PARTITION BY abs(x) ORDER BY x), quantile_cont(abs(x), 0.5) FILTER (WHERE abs(x) > 0) OVER () FROM t
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(x)) FROM t
SELECT * REPLACE (abs(x) AS x), * EXCLUDE (x) FROM (SELECT x, 1 AS y FROM t)
SELECT (SELECT abs(x)), EXISTS (SELECT abs(x)), x IN (SELECT abs(x)), ARRAY(SELECT abs(x)) FROM t
SELECT [abs(y) for y in [x] if abs(y) > 0], list_transform([x], lambda y: abs(y)), {'a': abs(x)}, [abs(x)][1:1] FROM t
WITH abs(a) AS (SELECT abs(1)), u AS (SELECT abs(2)) SELECT a, abs(a) FROM abs
SELECT a FROM t AS abs(a)
SELECT a, b FROM t abs(a), (SELECT abs(1)) u(b)
SELECT abs(x) FROM t USING SAMPLE 1
SELECT x, abs(x) FROM t WHERE abs(x) > 0 QUALIFY row_number() OVER (ORDER BY abs(x)) = 1 ORDER BY abs(x) LIMIT 1 OFFSET 0
SELECT DISTINCT abs(x), count(*) FROM t GROUP BY abs(x) HAVING abs(x) > 0
SELECT abs(x) IS DISTINCT FROM 1, abs(x) IS NOT DISTINCT FROM x, NOT abs(x) = 1, -abs(x), x BETWEEN abs(x) AND 2 FROM t
SELECT x.abs(), abs(x).abs(), abs(x) + abs(-x) AS s FROM t
""".strip().splitlines()


@pytest.mark.parametrize("source", ALIASABLE)
def test_appended_aliases_never_change_a_result(source: str) -> None:
    found = find_calls(source, {"abs"})
    written = source
    for place in sorted(found.unnamed, key=lambda item: (item.span[1], -item.span[0]), reverse=True):
        written = written[: place.span[1]] + f" AS {quote_identifier(place.text)}" + written[place.span[1] :]
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
        assert connection.execute(written).fetchall() == connection.execute(source).fetchall()


NOT_CALLS = """
CREATE TABLE predict (m INT, n INT)
CREATE TABLE IF NOT EXISTS predict (m INT)
INSERT INTO predict (m) VALUES (1)
CREATE INDEX i ON predict (m)
WITH predict(m) AS (SELECT 1) FROM predict
WITH a AS (SELECT 1), predict(m) AS NOT MATERIALIZED (SELECT 1) FROM predict
SELECT m FROM range(3) AS predict(m)
SELECT m FROM range(3) predict(m)
CREATE MACRO predict(m) AS m + 1
CREATE OR REPLACE TEMP MACRO predict(m) AS TABLE SELECT m
CREATE VIEW predict(m) AS SELECT 1
CREATE TABLE x (a INT REFERENCES predict(m))
COPY predict (m) FROM 'x'
SELECT s.predict(m) FROM s
SELECT 'a'.predict(m)
""".strip().splitlines()


@pytest.mark.parametrize("source", NOT_CALLS)
def test_what_duckdb_means_otherwise_is_no_call(source: str) -> None:
    assert duckdb.extract_statements(source)
    assert find_calls(source) == Calls()
    assert [statement.kind for statement in parse(source)] == ["sql"]


def test_calls_are_not_nested_without_end() -> None:
    query = "SELECT " + "PREDICT(m USING " * 1000 + "1" + " AS a)" * 1000
    with pytest.raises(DialectError, match="50 deep"):
        find_calls(query, start=10)
    assert len(list(every(find_calls("SELECT " + "churn(" * 50 + ")" * 50, FUNCTIONS, 10).calls))) == 50
    assert find_calls("SELECT " + "(" * 5000 + "PREDICT(m)" + ")" * 5000).calls
