"""Statements to trees: the golden files, the soft keywords, scripts, and the database's own word on what is not ours."""

import contextlib
import time
from datetime import timedelta
from itertools import product

import duckdb
import pytest
from sqlml_dialect import (
    DialectError,
    ModelRef,
    Option,
    Placeholder,
    Show,
    SplitTime,
    Statement,
    Struct,
    Train,
    parse,
    to_sql,
)

from tests.dialect.golden import read_blocks

CASES = read_blocks("parse")


def parse_one(text: str) -> Statement:
    (statement,) = parse(text)
    return statement


def parse_train(text: str) -> Train:
    node = parse_one(text).node
    assert isinstance(node, Train)
    return node


@pytest.mark.parametrize(("source", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_golden(source: str, expected: list[str]) -> None:
    statements = parse(source)
    shown = [
        statement.kind + (" " + to_sql(statement.node).replace("\n", "\\n") if statement.node else "") for statement in statements
    ]
    wanted = [line[:-1] + source if line.endswith(" =") else line for line in expected]
    assert (shown or ["none"]) == wanted
    for statement in statements:
        assert source[slice(*statement.span)] == statement.text
        if statement.node:
            assert parse_one(to_sql(statement.node)).node == statement.node


# --- what is ours cannot be the database's ------------------------------------------------------------------------------


def is_syntax_error(source: str) -> bool:
    try:
        duckdb.extract_statements(source)
    except duckdb.ParserException:
        return True
    return False


def test_nothing_is_taken_from_duckdb() -> None:
    ours = [statement for _, source, _ in CASES for statement in parse(source) if statement.node]
    taken = [statement.text for statement in ours if not is_syntax_error(statement.text)]
    subjects = {"MODELS", "RUNS", "JOBS", "ENDPOINTS", "ALGORITHMS", "RUNNERS", "CONNECTIONS"}
    assert len(ours) > 80
    assert [text for text in taken if text.upper().split()[-2:-1] != ["SHOW"] or text.upper().split()[-1] not in subjects] == []


ACCEPTED = """
DESCRIBE model
DESC model
DESCRIBE train
DESCRIBE "model"
SHOW "models"
SHOW versions
SHOW logs
SHOW functions
SHOW runz
SHOW modles
SUMMARIZE train
EXPLAIN SELECT 1
EXPLAIN ANALYZE SELECT 1
EXPLAIN (FORMAT JSON) SELECT 1
EXPLAIN FROM model
FROM train
FROM predict SELECT model
TABLE model
SELECT train, predict FROM model train
SELECT model: 1
SELECT 1 model
DROP TABLE model
DROP TABLE IF EXISTS train CASCADE
DROP FUNCTION churn
CREATE OR REPLACE FUNCTION connection(a) AS a
CREATE OR REPLACE MACRO runner(a) AS a
ALTER TABLE model RENAME TO train
ALTER TABLE model ADD COLUMN target INT
CREATE TABLE model (target INT, label INT, key INT, split INT)
CREATE SCHEMA model
CREATE TYPE model AS ENUM ('a')
CREATE SEQUENCE runner
EXPORT DATABASE 'model'
IMPORT DATABASE 'model'
COPY model TO 'x.csv'
COPY (SELECT 1) TO 'x.csv'
ROLLBACK
BEGIN TRANSACTION
DETACH model
ATTACH 'model' AS endpoint
USE model
SET threads = 1
RESET threads
PRAGMA version
CALL range(1)
PREPARE train AS SELECT ?
EXECUTE train(1)
DEALLOCATE train
DELETE FROM model
UPDATE model SET target = 1
INSERT INTO model VALUES (1)
TRUNCATE model
VACUUM model
ANALYZE model
CHECKPOINT model
LOAD model
INSTALL model
COMMENT ON TABLE model IS 'x'
PIVOT model ON target USING sum(label)
UNPIVOT model ON target
WITH predict AS (SELECT 1) FROM predict
VALUES (1)
""".strip().splitlines()


@pytest.mark.parametrize("source", ACCEPTED)
def test_what_duckdb_takes_stays_its_own(source: str) -> None:
    assert not is_syntax_error(source)
    (statement,) = parse(source)
    assert (statement.text, statement.kind, statement.node) == (source, "sql", None)
    assert parse(f" /* a */ {source} ;")[0].text == source


@pytest.mark.parametrize("word", ["TRIAN", "TRAN", "TRAINE", "DEPLOI", "EVALATE", "PREDIKT"])
def test_near_misses_of_verbs_are_not_sql(word: str) -> None:
    with pytest.raises(DialectError, match=r"did you mean [A-Z]+ MODEL") as raised:
        parse(f"SELECT 1;\n  {word} MODEL m TARGET y AS SELECT 1")
    assert (raised.value.line, raised.value.column) == (2, 3)


VERBS = (
    "EXPLAIN ALTER ROLLBACK SHOW DESCRIBE DESC DROP EXPORT IMPORT CREATE TRAIN PREDICT EVALUATE DEPLOY CANCEL SUMMARIZE USE FROM "
    "TABLE CALL ANALYZE EXECUTE SET DETACH COMMIT START TRAN"
)
NOUNS = "MODEL MODELS MODLE model.t RUNS JOBS RUNNER ENDPOINT JOB VERSIONS LOGS CREATE TABLE x 3 'a' ("
ENDS = ["", "m", "MODEL", "OF", "FOR", "LIKE", "3", "'a'", "AS SELECT 1", "(m)", "FROM m", "IF EXISTS m", ".x", "= 1", ", x"]


def test_no_beginning_of_a_statement_is_taken_from_duckdb() -> None:
    taken = []
    for verb, noun, end in product(VERBS.split(), NOUNS.split(), ENDS):
        source = f"{verb} {noun} {end}".strip()
        try:
            is_ours = parse(source)[0].node is not None
        except DialectError:
            is_ours = True
        if is_ours and not is_syntax_error(source):
            taken.append(source)
    assert taken == ["SHOW MODELS", "SHOW RUNS", "SHOW JOBS"]


def test_every_reserved_word_of_duckdb_is_quoted() -> None:
    words = duckdb.connect().execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'").fetchall()
    assert words
    for (word,) in words:
        train = parse_train(f'TRAIN MODEL "{word}" TARGET y AS SELECT 1')
        assert to_sql(train).startswith(f'TRAIN MODEL "{word}" ')


# --- the tree -----------------------------------------------------------------------------------------------------------


def test_spans_point_into_the_whole_script() -> None:
    source = "SELECT 1; TRAIN MODEL churn TARGET y WITH (a = [1, 2]) AS\n  SELECT * FROM t ;"
    statement = parse(source)[1]
    train = statement.node
    assert isinstance(train, Train)
    assert source[slice(*train.model.span)] == "churn"
    assert source[slice(*train.target[0].span)] == "y"
    assert source[slice(*train.options[0].span)] == "a = [1, 2]"
    assert source[slice(*train.options[0].value_span)] == "[1, 2]"
    assert source[slice(*train.query.span)] == train.query.text == "SELECT * FROM t"
    assert source[slice(*train.span)] == statement.text


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("+1", 1),
        ("- 1", -1),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1_000_000", 1_000_000),
        ("0x1F", 31),
        ("''", ""),
        ("'''a'''", "'a'"),
        ("TRUE", True),
        ("false", False),
        ("NULL", None),
        ("[]", ()),
        ("[1, 'a', [NULL]]", (1, "a", (None,))),
        ("{'a': 1}", Struct((("a", 1),))),
        ("{}", Struct(())),
        ("INTERVAL '90 seconds'", timedelta(seconds=90)),
        ("INTERVAL 1.5 HOURS", timedelta(hours=1.5)),
        ("INTERVAL '1 week 1 d'", timedelta(days=8)),
        ("INTERVAL '00:00:01.25'", timedelta(seconds=1.25)),
        ("$x", Placeholder(name="x")),
        ("$12", Placeholder(12)),
        ("?3", Placeholder(3)),
    ],
)
def test_values(written: str, value: object) -> None:
    (option,) = parse_train(f"TRAIN MODEL m WITH (o = {written}) AS SELECT 1").options
    assert option.value == value
    assert type(option.value) is type(value)


def test_placeholders_are_counted_over_the_statement() -> None:
    statement = parse_one("TRAIN MODEL m VALIDATE ON (SELECT ?) WITH (a = ?, b = [?]) AS SELECT ? /* ? */ + '?'")
    train = statement.node
    assert isinstance(train, Train)
    assert statement.params == 4
    assert [option.value for option in train.options] == [Placeholder(2), (Placeholder(3),)]
    assert [one.params for one in parse("SELECT ?; SELECT '?', ?, ? -- ?\n; SELECT $1, ?1")] == [1, 2, 0]


def test_model_references() -> None:
    def written(text: str) -> ModelRef:
        warm = parse_train(f"TRAIN MODEL m WARM START FROM {text} AS SELECT 1").warm_start
        assert warm is not None
        return warm

    assert (written("churn@3").version, written("churn@3").alias) == (3, None)
    assert (written("churn@champion").version, written("churn@champion").alias) == (None, "champion")
    assert written('"churn@3"').name.text == "churn@3"
    assert written('"churn@3"').version is None
    assert written('"my model"@"the best"').alias == "the best"
    assert written("sales.churn@3").text == "sales.churn@3"
    assert written("a.b.c").name.text == "a.b.c"


def test_a_column_may_be_called_like_any_keyword() -> None:
    words = "target label key split weight limit tune warm with on async using transform exclude validate model train rows time"
    for word in words.split():
        train = parse_train(
            f"TRAIN MODEL {word} TARGET {word} EXCLUDE ({word}) WEIGHT {word} KEY {word}, {word} AS SELECT {word}"
        )
        assert {train.model.text, train.target[0].name, train.exclude[0].name} == {word}


def test_split_by_time_takes_a_column_called_time() -> None:
    assert (
        parse_train("TRAIN MODEL m SPLIT TIME time AS SELECT 1").split
        == parse_train("TRAIN MODEL m SPLIT (TIME time) AS X").split
    )
    assert isinstance(parse_train("TRAIN MODEL m SPLIT TIME rows 0.5 AS X").split, SplitTime)


def test_options_compare_without_their_place() -> None:
    left = parse_train("TRAIN MODEL m WITH (a = 1) AS SELECT 1")
    right = parse_train("TRAIN  MODEL\nm WITH ( a=1 ) AS SELECT 1")
    assert left == right
    assert hash(left) == hash(right)
    assert isinstance(left.options[0], Option)


def test_show_is_ours_only_unquoted() -> None:
    assert parse_one("SHOW MODELS").node == Show("models")
    assert parse_one('SHOW "MODELS"').node is None


# --- speed --------------------------------------------------------------------------------------------------------------


def test_an_ordinary_query_is_classified_in_well_under_a_millisecond() -> None:
    source = "SELECT " + ", ".join(f"c{i} + {i} AS x{i}" for i in range(60)) + " FROM t WHERE a = 'b' AND model = ?"
    assert len(source) > 1000
    best = min(_seconds(source) for _ in range(20))
    assert best < 0.001


def test_a_long_script_takes_time_in_proportion() -> None:
    source = "INSERT INTO t VALUES " + ", ".join("(1, 'a''b', 2.5)" for _ in range(50_000))
    assert _seconds(source) < 3
    assert _seconds("'" * 100_001) < 3
    assert _seconds("(" * 100_000) < 3
    assert _seconds("SELECT $a" * 20_000) < 3
    assert _seconds("/*" * 100_000) < 3
    assert _seconds("TRAIN MODEL m EXCLUDE " + "(" * 100_000) < 3


def _seconds(source: str) -> float:
    began = time.perf_counter()
    with contextlib.suppress(DialectError):
        parse(source)
    return time.perf_counter() - began
