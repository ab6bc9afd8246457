"""Trees to text and back."""

from datetime import timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlml_dialect import nodes as n
from sqlml_dialect import parse, quote_identifier, quote_string, to_sql

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ODD_NAMES = "m model target as using select label with if exists top append on by none null random 1a a$b"
NAMES = st.one_of(
    st.sampled_from(ODD_NAMES.split()),
    st.text(CHARACTERS, min_size=1, max_size=8),
)
IDENTS = st.builds(n.Ident, NAMES)
QUALIFIED = st.lists(IDENTS, min_size=1, max_size=3).map(lambda parts: n.QualifiedName(tuple(parts)))
NUMBERS = st.integers(1, 10**12)
MODELS = st.one_of(
    st.builds(n.ModelRef, QUALIFIED),
    st.builds(n.ModelRef, QUALIFIED, version=NUMBERS),
    st.builds(n.ModelRef, QUALIFIED, alias=NAMES),
)
TEXTS = st.text(CHARACTERS, max_size=12)
SQL = st.sampled_from(
    [
        "SELECT 1",
        "FROM t",
        "SELECT a AS b -- c\nFROM t",
        "WITH x AS (SELECT ';') FROM x",
        "(SELECT ?)",
        "TABLE t",
        "SELECT $$a;b$$",
    ]
)
QUERIES = st.builds(n.Query, SQL)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
    st.timedeltas(),
    st.builds(n.Placeholder, index=NUMBERS),
    st.builds(n.Placeholder, name=st.sampled_from(["a", "b_1", "größe"])),
)


def _nested(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    structs = st.dictionaries(TEXTS, values, max_size=3).map(lambda items: n.Struct(tuple(items.items())))
    return st.one_of(st.lists(values, max_size=3).map(tuple), structs)


VALUES = st.recursive(SCALARS, _nested, max_leaves=6)


def _unique_options(options: list[n.Option]) -> tuple[n.Option, ...]:
    return tuple({option.name.name.lower(): option for option in options}.values())


def _some(strategy: st.SearchStrategy[Any], least: int = 1) -> st.SearchStrategy[Any]:
    return st.lists(strategy, min_size=least, max_size=3).map(tuple)


OPTIONS = st.lists(st.builds(n.Option, IDENTS, VALUES), max_size=3).map(_unique_options)
MAYBE = st.none() | IDENTS
FRACTIONS = st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True)
SPLITS = st.one_of(
    st.none(),
    st.just(n.SplitNone()),
    st.builds(n.SplitRandom, FRACTIONS),
    st.builds(n.SplitBy, IDENTS),
    st.builds(n.SplitTime, IDENTS, FRACTIONS),
)
SPACES = st.one_of(
    st.builds(n.TuneRange, IDENTS, SCALARS, SCALARS, st.booleans()), st.builds(n.TuneChoice, IDENTS, _some(VALUES))
)
METRICS = st.one_of(
    st.just({"direction": None, "metric": None}),
    st.fixed_dictionaries({"direction": st.sampled_from(["maximize", "minimize"]), "metric": IDENTS}),
)
TUNES = st.builds(
    lambda space, method, trials, metric: n.Tune(space, method, trials, **metric),
    _some(SPACES),
    st.sampled_from([None, "random", "grid", "bayesian"]),
    st.none() | NUMBERS,
    METRICS,
)
LIMITS = st.builds(
    n.Limit,
    time=st.none() | st.timedeltas(timedelta(microseconds=1)),
    memory=st.none() | st.integers(1, 2**60),
    rows=st.none() | NUMBERS,
).filter(lambda limit: limit != n.Limit())
EXPRESSIONS = st.builds(n.Expression, st.sampled_from(["a", "a + 1", "f(a, b)", "CAST(a AS INT)", "'x, y'", "[1, 2]"]), MAYBE)
INTO = st.none() | st.builds(n.Into, QUALIFIED, st.sampled_from(["create", "append", "replace"]))
TRAIN = st.builds(
    n.Train,
    st.builds(n.ModelRef, QUALIFIED),
    QUERIES,
    algorithm=MAYBE,
    target=_some(IDENTS, 0),
    transform=_some(EXPRESSIONS, 0),
    exclude=_some(IDENTS, 0),
    weight=MAYBE,
    key=_some(IDENTS, 0),
    split=SPLITS,
    validate=st.none() | QUERIES,
    tune=st.none() | TUNES,
    warm_start=st.none() | MODELS,
    limit=st.none() | LIMITS,
    options=OPTIONS,
    runner=MAYBE,
    asynchronous=st.booleans(),
)
CHANGES = st.one_of(
    st.builds(n.SetAlias, IDENTS, NUMBERS),
    st.builds(n.SetTag, IDENTS, VALUES),
    st.builds(n.SetComment, st.none() | TEXTS),
    st.builds(n.RenameTo, QUALIFIED),
)
SUBJECTS = st.sampled_from(["models", "runs", "jobs", "endpoints", "algorithms", "runners"])
RESOURCES = st.sampled_from(["runner", "connection"])
FORMATS = st.none() | st.sampled_from(["onnx", "sql", "native", "bundle", "as"])
OTHERS = st.one_of(
    st.builds(n.Evaluate, MODELS, _some(IDENTS, 0), OPTIONS, st.none() | QUERIES),
    st.builds(n.Predict, MODELS, QUERIES, INTO, OPTIONS, MAYBE, st.booleans()),
    st.builds(n.ExplainModel, MODELS, st.none() | NUMBERS, INTO, st.none() | QUERIES),
    st.builds(n.Deploy, MODELS, MAYBE, OPTIONS, MAYBE),
    st.builds(n.Undeploy, IDENTS),
    st.builds(n.AlterEndpoint, IDENTS, _some(st.tuples(NUMBERS | MODELS, VALUES))),
    st.builds(n.RollbackEndpoint, IDENTS),
    st.builds(n.Show, SUBJECTS, like=st.none() | TEXTS),
    st.builds(n.Show, st.just("versions"), MODELS, st.none() | TEXTS),
    st.builds(n.ShowLogs, NUMBERS),
    st.builds(n.ShowCreateModel, MODELS),
    st.builds(n.DescribeModel, MODELS),
    st.builds(n.CancelJob, NUMBERS),
    st.builds(n.AlterModel, MODELS, CHANGES),
    st.builds(n.DropModel, MODELS, st.booleans(), st.booleans()),
    st.builds(n.Export, MODELS, TEXTS, FORMATS, OPTIONS),
    st.builds(n.Import, MODELS, TEXTS, OPTIONS),
    st.builds(n.CreateResource, RESOURCES, IDENTS, IDENTS, OPTIONS),
    st.builds(n.DropResource, RESOURCES, IDENTS, st.booleans()),
)
STATEMENTS = st.one_of(TRAIN, OTHERS)
PLANS = st.builds(n.ExplainPlan, STATEMENTS, st.booleans(), st.none() | st.sampled_from(["json", "text"]))


@settings(deadline=None, max_examples=300)
@given(st.one_of(STATEMENTS, PLANS))
def test_text_of_a_tree_gives_the_tree(node: n.Node) -> None:
    (statement,) = parse(to_sql(node))
    assert statement.node == node


@settings(deadline=None)
@given(STATEMENTS, STATEMENTS)
def test_a_script_of_two(first: n.Node, second: n.Node) -> None:
    assert [one.node for one in parse(f"{to_sql(first)};\n{to_sql(second)}; SELECT 1")] == [first, second, None]


def test_every_kind_of_node_is_covered() -> None:
    kinds = {*n.KINDS, n.CreateResource, n.DropResource}
    assert kinds == set(n.Node.__args__)


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
