"""Parameters outside options and queries: where they may stand, and what their values may be."""

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlml_dialect import DialectError, Node, Placeholder, fill_parameters, format_sql, parse, to_sql

from sqlml.binder.parameters import Parameters
from sqlml.errors import BindError

TRAIN = "TRAIN MODEL m TARGET y {} AS SELECT 1"
CASES: list[tuple[str, Any, str]] = [
    (TRAIN.format("SPLIT RANDOM ?"), 0.3, "0.3"),
    (TRAIN.format("SPLIT RANDOM ?"), Decimal("0.25"), "0.25"),
    (TRAIN.format("SPLIT TIME c ?"), 0.1, "0.1"),
    (TRAIN.format("LIMIT (ROWS ?)"), 100, "100"),
    (TRAIN.format("LIMIT (TIME ?)"), "90 s", "'90 s'"),
    (TRAIN.format("LIMIT (TIME ?)"), 90, "'90 s'"),
    (TRAIN.format("LIMIT (TIME ?)"), timedelta(seconds=90), "'90 s'"),
    (TRAIN.format("LIMIT (MEMORY ?)"), "2 GB", "'2 GB'"),
    (TRAIN.format("TUNE (a IN (1, 2)) TRIALS ?"), 7, "7"),
    ("EXPLAIN MODEL m TOP ?", 5, "5"),
    ("ALTER MODEL m SET ALIAS a = ?", 3, "3"),
    ("ALTER MODEL m SET COMMENT ?", "it's; so", "'it''s; so'"),
    ("ALTER MODEL m SET COMMENT ?", None, "NULL"),
    ("EXPORT MODEL m TO ? FORMAT onnx", "/a b/m.onnx", "'/a b/m.onnx'"),
    ("EXPORT MODEL m TO ?", Path("/a"), "'/a'"),
    ("IMPORT MODEL m FROM ?", "a.onnx", "'a.onnx'"),
    ("CANCEL JOB ?", 4, "4"),
    ("SHOW LOGS FOR JOB ?", 4, "4"),
    ("SHOW MODELS LIKE ?", "c%", "'c%'"),
    ("SHOW VERSIONS OF m LIKE ?", "", "''"),
    ("EXPLAIN EXPORT MODEL m TO ?", "a", "'a'"),
]


def read(text: str) -> Node:
    (statement,) = parse(text)
    assert statement.node is not None
    return statement.node


@pytest.mark.parametrize(("text", "value", "written"), CASES)
def test_a_value_stands_for_a_literal(text: str, value: Any, written: str) -> None:
    node = read(text)
    assert fill_parameters(node, text, lambda _: value) == read(text.replace("?", written))
    assert read(to_sql(node)) == node
    assert read(format_sql(text)) == node


def test_each_parameter_gets_its_own_value() -> None:
    text = TRAIN.format("SPLIT RANDOM $b LIMIT (ROWS $a)")
    filled = fill_parameters(read(text), text, lambda place: {"a": 10, "b": 0.5}[place.name or ""])
    assert filled == read(TRAIN.format("SPLIT RANDOM 0.5 LIMIT (ROWS 10)"))
    text = "TRAIN MODEL m WITH (seed = ?) SPLIT RANDOM ? AS SELECT ?"
    filled = fill_parameters(read(text), text, lambda place: {2: 0.5}[place.index or 0])
    assert filled == read("TRAIN MODEL m WITH (seed = $1) SPLIT RANDOM 0.5 AS SELECT ?")


def test_options_and_queries_keep_theirs() -> None:
    for text in ("TRAIN MODEL m WITH (a = [?]) TUNE (b IN (?)) AS SELECT ?", "ALTER MODEL m SET TAG a = ?"):
        node = read(text)
        assert fill_parameters(node, text, lambda _: 1) is node


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        (TRAIN.format("SPLIT RANDOM ?"), 20, "a split of 20 is no fraction"),
        (TRAIN.format("SPLIT RANDOM ?"), float("nan"), "a split of nan is no fraction"),
        (TRAIN.format("SPLIT RANDOM ?"), "0.2", "expected a number, found '0.2'"),
        (TRAIN.format("SPLIT RANDOM ?"), None, "expected a number, found NULL"),
        (TRAIN.format("LIMIT (ROWS ?)"), 0, "expected a whole number of rows of at least 1, found 0"),
        (TRAIN.format("LIMIT (ROWS ?)"), -5, "expected a whole number of rows, found -5"),
        (TRAIN.format("LIMIT (ROWS ?)"), 1.5, "expected a whole number of rows, found 1.5"),
        (TRAIN.format("LIMIT (ROWS ?)"), True, "expected a whole number of rows, found TRUE"),
        (TRAIN.format("LIMIT (TIME ?)"), "soon", "not a time limit: 'soon'"),
        (TRAIN.format("LIMIT (TIME ?)"), [1], "expected a length of time such as"),
        (TRAIN.format("LIMIT (MEMORY ?)"), "8", "not a size: '8'"),
        ("CANCEL JOB ?", "x' OR", "expected a job's number, found 'x'' OR'"),
        ("CANCEL JOB ?", date(2020, 1, 2), "expected a job's number, found datetime.date(2020, 1, 2)"),
        ("EXPORT MODEL m TO ?", None, "expected a path in single quotes, found NULL"),
    ],
)
def test_a_wrong_value_is_refused_in_the_words_of_a_literal(text: str, value: Any, message: str) -> None:
    with pytest.raises(DialectError) as raised:
        fill_parameters(read(text), text, lambda _: value)
    assert raised.value.message.startswith(message)
    assert text[slice(*raised.value.span)] == "?"


def test_the_values_of_a_statement() -> None:
    text = "CANCEL JOB ?"
    assert Parameters(text, (0, len(text)), [3]).filled(read(text)) == read("CANCEL JOB 3")
    with pytest.raises(BindError, match="found 'a'") as raised:
        Parameters(text, (0, len(text)), ["a"]).filled(read(text))
    assert raised.value.span == (11, 12)


def test_a_parameter_is_kept_until_it_is_filled() -> None:
    assert read("CANCEL JOB ?").job == Placeholder(1)  # type: ignore[union-attr]
