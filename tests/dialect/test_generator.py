"""Trees to text and back."""

import duckdb
import pytest
import sqlml_dialect as n
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlml_dialect import parse, quote_identifier, quote_string, to_sql

from tests.dialect.strategies import PLANS, STATEMENTS, STRATEGIES, TEXTS


@settings(deadline=None, max_examples=300)
@given(STATEMENTS | PLANS)
def test_text_of_a_tree_gives_the_tree(node: n.Node) -> None:
    (statement,) = parse(to_sql(node))
    assert statement.node == node


@pytest.mark.parametrize("node_type", STRATEGIES, ids=lambda node_type: node_type.__name__)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_text_of_each_statement_gives_the_tree(node_type: type, data: st.DataObject) -> None:
    node = data.draw(STRATEGIES[node_type])
    (statement,) = parse(to_sql(node))
    assert statement.node is not None
    assert statement.node == node
    assert to_sql(statement.node) == to_sql(node)


@settings(deadline=None)
@given(STATEMENTS, STATEMENTS)
def test_a_script_of_two(first: n.Node, second: n.Node) -> None:
    assert [one.node for one in parse(f"{to_sql(first)};\n{to_sql(second)}; SELECT 1")] == [first, second, None]


def test_every_kind_of_node_is_covered() -> None:
    kinds = {*n.KINDS, n.CreateResource, n.DropResource}
    assert kinds == set(n.Node.__args__) == {*STRATEGIES, n.ExplainPlan}


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_quoting_is_what_duckdb_reads(text: str) -> None:
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT {quote_string(text)}").fetchall() == [(text,)]
        if text:
            assert connection.sql(f"SELECT 1 AS {quote_identifier(text)}").columns == [text]


@pytest.mark.parametrize(("name", "written"), [("a", '"a"'), ('a"b', '"a""b"'), ("A b", '"A b"')])
def test_quote_identifier_always_quotes(name: str, written: str) -> None:
    assert quote_identifier(name) == written
