"""Versions as functions inside PostgreSQL, on a real server, held against the model itself."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlml_udfs.postgres import function as postgres_function
from sqlml_udfs.postgres.body import Body
from sqlml_udfs.postgres.encode import Number
from sqlml_udfs.postgres.target import PostgresTarget, compile_function
from sqlml_udfs.postgres.trees import DEEPEST, margins

from sqlml.algorithms.boosters import Forest, Tree
from sqlml.bundles.model import Model
from sqlml.errors import BindError, EngineError, NotSupportedError
from sqlml.exports.samples import sample_rows
from tests.bundles.handmade import HEADS, LISTS, Learn, fit_transform, open_bundle, open_sort, rows_of
from tests.exports.made import make_model
from tests.kits import check_target
from tests.servers import new_postgres
from tests.udfs.postgres_client import Client, answers, call, check_parity

WORDS = ("clerk", "it's", 'a "b"', "back\\slash", "дом", "日本", "é", "e\u0301", "", " x ", "$sqlml$", "%s", "😀", "ß", "NULL")
N = 400


def everything() -> pa.Table:
    """Rows with a column of every kind, and names that need quotes; a tenth of each is NULL."""
    random = np.random.default_rng(0)
    start = datetime.datetime(1962, 3, 1, 4, 5, 6)
    moments = [start + datetime.timedelta(seconds=int(s)) for s in random.integers(0, 86_400 * 365 * 80, N)]
    columns: dict[str, pa.Array] = {
        "age": pa.array(random.integers(18, 90, N).astype(float)),
        "Select f1": pa.array(random.normal(0, 3, N)),
        "word": pa.array(random.choice(WORDS, N)),
        "small": pa.array(random.choice(WORDS[:5], N)),
        "flag": pa.array(random.random(N) < 0.4),
        "day": pa.array([m.date() for m in moments]),
        "at": pa.array(moments, pa.timestamp("us")),
        "zoned": pa.array(moments[::-1], pa.timestamp("us", "UTC")),
        "clock": pa.array([m.time() for m in moments], pa.time64("us")),
        "vec": pa.array([[float(v), None if v > 5 else 2 * float(v)] for v in random.normal(0, 5, N)]),
        "tags": pa.array([list(random.choice(WORDS[:6], int(n))) for n in random.integers(0, 4, N)], pa.list_(pa.string())),
    }
    absent = {name: pa.array(random.random(N) < 0.1) for name in columns}
    return pa.table({name: pa.compute.if_else(absent[name], None, values) for name, values in columns.items()})


def nasty(model: Model) -> pa.Table:
    """Values at thresholds and beside them, infinities, NaN, numbers that float32 has not, dates long ago, words never seen."""
    rows = sample_rows(model, 200, seed=3)
    days = [-1, 0, -719_162, -719_163, -720_000, 2_932_896, -25_567, None]
    moments = [-1, 0, 86_399_999_999, -62_135_596_800_000_001, -62_200_000_000_000_000, 253_402_300_799_999_999, None]
    numbers = [np.inf, -np.inf, np.nan, 1e300, -1e300, 5e-324, -0.0, 1e-46, 7.1e-46, 3.4028235e38, 16_777_217.0, None]
    pools: dict[str, tuple[list[Any], pa.DataType]] = {
        "age": (numbers, pa.float64()),
        "Select f1": (numbers[::-1], pa.float64()),
        "word": ([*WORDS, "never seen", "CLERK", "clerk ", None], pa.string()),
        "day": (days, pa.date32()),
        "at": (moments, pa.timestamp("us")),
        "zoned": (moments[::-1], pa.timestamp("us", "UTC")),
        "clock": ([0, 86_399_999_999, 1, None], pa.time64("us")),
        "vec": ([[1.0, 2.0], [np.inf, np.nan], [None, -1e300], [5e-324, None], None], pa.list_(pa.float64())),
        "tags": ([[], ["clerk", None], [None], ["new"], list(WORDS), None], pa.list_(pa.string())),
    }
    for name, (pool, kind) in pools.items():
        if name in rows.column_names:
            odd = pa.array([pool[i % len(pool)] for i in range(200 if name == "vec" else 100)], kind)
            whole = pa.chunked_array([odd, rows[name].combine_chunks()[len(odd) :]])
            rows = rows.set_column(rows.column_names.index(name), name, whole.combine_chunks())
    return rows


CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "two classes": ("xgboost_classifier", ("no", "it's yes\\"), {"n_estimators": 12}),
    "three classes": ("xgboost_classifier", (1, 2, 3), {"n_estimators": 6}),
    "one-hot splits": ("xgboost_classifier", (False, True), {"n_estimators": 8, "max_cat_to_onehot": 100}),
    "split by parts": ("xgboost_regressor", (), {"n_estimators": 8, "max_cat_to_onehot": 1, "base_score": 3.0}),
    "a forest": ("random_forest_classifier", ("a", "b", "c"), {"n_estimators": 8, "max_depth": 4}),
    "a forest of numbers": ("random_forest_regressor", (), {"n_estimators": 8, "max_depth": 4}),
    "logistic": ("logistic_regression", (False, True), {}),
    "softmax": ("logistic_regression", (0.5, 1.5, 2.5), {}),
    "linear": ("linear_regression", (), {}),
    "clusters": ("kmeans", (), {"n_clusters": 4}),
    "one cluster": ("kmeans", (), {"n_clusters": 1}),
    "components": ("pca", (), {"n_components": 3, "whiten": True}),
    "bayes": ("naive_bayes", ("a", "b"), {}),
    "bayes of three": ("naive_bayes", ("a", "b", "c"), {"distribution": "bernoulli"}),
    "anomalies": ("isolation_forest", (), {"n_estimators": 20, "contamination": 0.1}),
}
OBJECTIVES = ("reg:absoluteerror", "reg:pseudohubererror", "reg:squaredlogerror", "count:poisson", "reg:gamma", "reg:tweedie")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A session in a time zone of its own, in a database for this file."""
    databases = new_postgres()
    opened = Client(next(databases))
    opened.run("SET timezone TO 'Asia/Kolkata'")
    yield opened
    opened.close()
    next(databases, None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """A model of a case, fitted once."""

    @cache
    def make(case: str) -> Model:
        algorithm, classes, options = CASES.get(case) or ("xgboost_regressor", (), {"objective": case, "n_estimators": 8})
        folder = tmp_path_factory.mktemp("model") / "bundle"
        return make_model(folder, algorithm, classes, table=everything(), onnx=False, **options)

    return make


def test_the_contract(made: Callable[[str], Model], client: Client) -> None:
    check_target(PostgresTarget(client), client.values, made(next(iter(CASES))), "generate_series(1, {}) AS n".format)


@pytest.mark.parametrize("case", [*CASES, *OBJECTIVES])
def test_the_models_own_answers(made: Callable[[str], Model], client: Client, case: str) -> None:
    model = made(case)
    check_parity(client, model, everything())
    check_parity(client, model, nasty(model))


@pytest.mark.parametrize("sort", [sort for sort in HEADS if sort not in ("several", "transformed", "only transform")])
def test_every_sort_of_model(tmp_path: Path, client: Client, sort: str) -> None:
    check_parity(client, open_sort(tmp_path, sort), rows_of(sort))


def test_margins_are_the_librarys_own_floats(made: Callable[[str], Model], client: Client) -> None:
    """Sums in float32 and in the library's order: not one bit differs, whatever the number of trees."""
    model = made("split by parts")
    rows = nasty(model)
    assert answers(client, model, "predict", rows) == model.predict(rows).to_pylist()


def test_several_targets_are_a_jsonb(tmp_path: Path, client: Client) -> None:
    model = open_sort(tmp_path, "several")
    found = answers(client, model, "predict", rows_of("several"))
    expected = model.predict(rows_of("several")).to_pylist()
    for one, other in zip(found, expected, strict=True):
        assert (one["y"], one["z"]) == (other["y"], other["z"])
        assert one["the value"] == pytest.approx(other["the value"], rel=1e-6)
    with pytest.raises(BindError, match="several targets"):
        call(client, model, "probs")


def test_a_list_of_another_length_is_an_error_and_bounds_do_not_matter(tmp_path: Path, client: Client) -> None:
    model = open_bundle(tmp_path, LISTS, Learn("linear_regression", "y", pa.array(np.arange(400.0))))
    sql = PostgresTarget(client).call_sql(
        "lists", "predict", model.signature, lambda: model, {"vec": "v.vec", "tags": "ARRAY['t1']", "n": "1"}
    )
    values = "(VALUES ('{1,2,3}'::float8[]), ('[7:9]={1,2,3}')) AS v(vec)"
    one, two = client.values(f"SELECT {sql} FROM {values}")
    assert one == two
    for wrong, count in (("{1,2}", 2), ("{}", 0), ("{{1,2,3}}", 3)):
        with pytest.raises(EngineError, match=f"vec has {count} numbers in a row, and the model was trained with 3"):
            client.run(f"SELECT {sql} FROM (VALUES ('{wrong}'::float8[])) AS v(vec)")


def test_infinite_dates_are_missing(made: Callable[[str], Model], client: Client) -> None:
    model = made("bayes")
    for name in ("day", "at", "zoned"):
        arguments = {i.name: "NULL" for i in model.inputs}
        target = PostgresTarget(client)
        calls = [
            target.call_sql("dates", "proba:0", model.signature, lambda: model, arguments | {name: value})
            for value in ("NULL", "'infinity'", "'-infinity'")
        ]
        assert len(set(client.values(f"SELECT unnest(ARRAY[{', '.join(calls)}])"))) == 1


# --- how it is made ---------------------------------------------------------------------------------------------------


def test_the_function_is_pure_and_says_what_it_is(made: Callable[[str], Model], client: Client) -> None:
    model = made("two classes")
    function = compile_function(model, model.signature, "predict", ("pg_temp", "pure"), "model churn, version 3")
    assert [name for name, _ in function.arguments] == [i.name for i in model.inputs]
    assert dict(function.arguments)["zoned"] == "timestamptz"
    assert function.memory > function.size > 0
    for statement in function.statements:
        client.run(statement)
    assert client.connection.execute(
        "SELECT provolatile, proparallel, proisstrict, obj_description(oid, 'pg_proc') FROM pg_proc WHERE proname = 'pure'"
    ).fetchone() == ("i", "s", False, "sqlml predict: model churn, version 3")


def test_inputs_named_like_variables(tmp_path: Path, client: Client) -> None:
    names = ["f1", "f0", "F_2", "begin", "$x", "x" * 63]
    random = np.random.default_rng(0)
    table = pa.table({name: random.normal(size=100) for name in names})
    model = open_bundle(tmp_path, table, Learn("linear_regression", "y", pa.array(random.normal(size=100))))
    client.run("SET plpgsql.extra_errors TO 'shadowed_variables'")
    check_parity(client, model, table)
    client.run("RESET plpgsql.extra_errors")


def test_many_classes(tmp_path: Path, client: Client) -> None:
    """PostgreSQL's functions take 100 arguments at most; 60 classes with their names are more."""
    random = np.random.default_rng(0)
    table = pa.table({"x": random.normal(size=600)})
    classes = pa.array([f"c{i % 60}" for i in range(600)])
    model = open_bundle(tmp_path, table, Learn("naive_bayes", "y", classes))
    found = answers(client, model, "probs", table)
    np.testing.assert_allclose([[m[name] for name in model.class_names] for m in found], model.raw(table), atol=1e-9)


# --- what is refused --------------------------------------------------------------------------------------------------


def refusal(model: Model, output: str = "predict") -> NotSupportedError:
    with pytest.raises(NotSupportedError) as caught:
        compile_function(model, model.signature, output, ("f",))
    return caught.value


def test_what_has_no_form_in_sql_is_refused_by_name(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table, y = pa.table({"x": random.normal(size=50)}), pa.array(["a", "b"] * 25)
    neighbours = open_bundle(tmp_path / "n", table, Learn("nearest_neighbors_classifier", "y", y))
    assert "nearest_neighbors_classifier has no form in SQL" in str(refusal(neighbours))
    assert "PREDICT MODEL … INTO" in str(refusal(neighbours))
    assert "only transforms" in str(refusal(open_sort(tmp_path / "t", "only transform")))


def test_more_inputs_than_a_function_has_arguments(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pa.table({f"x{i}": random.normal(size=50) for i in range(101)})
    model = open_bundle(tmp_path, table, Learn("linear_regression", "y", pa.array(random.normal(size=50))))
    assert "101 inputs: a function of PostgreSQL takes 100 arguments at most" in str(refusal(model))


@pytest.mark.parametrize("names", [["x" * 63 + "a", "x" * 63 + "b"], ["$1"]])
def test_names_that_no_argument_can_have(tmp_path: Path, names: list[str]) -> None:
    random = np.random.default_rng(0)
    table = pa.table({name: random.normal(size=50) for name in names})
    model = open_bundle(tmp_path, table, Learn("linear_regression", "y", pa.array(random.normal(size=50))))
    assert "cannot be an argument of a function" in str(refusal(model))


def test_texts_that_postgresql_cannot_hold(tmp_path: Path, client: Client) -> None:
    """A category with NUL can never come; a class with NUL cannot be given."""
    random = np.random.default_rng(0)
    words = pa.array([["a", "nul\0", "c"][i % 3] for i in range(90)])
    table = pa.table({"word": words, "x": random.normal(size=90)})
    model = open_bundle(tmp_path / "m", table, Learn("naive_bayes", "y", pa.array(["a", "b", "b"] * 30)))
    check_parity(client, model, table.filter(pa.compute.not_equal(words, "nul\0")))
    assert "character NUL" in str(refusal(open_bundle(tmp_path / "c", table, Learn("naive_bayes", "y", words))))


def test_a_model_too_large_is_refused_with_its_size(made: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_function, "MOST_NODES", 100)
    message = str(refusal(made("two classes")))
    assert "too large for a function of PostgreSQL" in message
    assert "where 100 are the most" in message
    assert "n_estimators" in message


def chain(levels: int) -> Forest:
    """One tree, as deep as that: leaf i has the numbers from i on, and the value i."""
    inner = np.arange(levels)
    left = np.concatenate([inner + levels, np.full(levels + 1, -1)])  # nodes, their leaves, and the last leaf
    right = np.concatenate([inner[1:], [2 * levels], np.full(levels + 1, -1)])
    value = np.concatenate([inner + 1, np.arange(levels + 1)]).astype(np.float32)
    there = np.zeros(2 * levels + 1, bool)
    tree = Tree(0, left, right, np.zeros(2 * levels + 1, np.int64), value, there, {})
    return Forest("reg:squarederror", 1, np.zeros(1, np.float32), (tree,))


def test_deep_trees(client: Client) -> None:
    body = Body(["x"])
    [margin] = margins(body, chain(DEEPEST), [Number(body.declare("real", "$1::real"), 0)])
    client.run(f"CREATE FUNCTION deep(x float8) RETURNS real LANGUAGE plpgsql AS $${body.text(margin)}$$")
    assert client.values(f"SELECT deep(x) FROM unnest(ARRAY[-1, 7.5, {DEEPEST - 1}, {DEEPEST}]) AS x") == [
        0.0, 7.0, DEEPEST - 1.0, float(DEEPEST),
    ]  # fmt: skip
    with pytest.raises(NotSupportedError, match=f"{DEEPEST + 1} levels deep, more than the {DEEPEST}"):
        margins(Body(["x"]), chain(DEEPEST + 1), [])


def test_queries_have_no_reasons(made: Callable[[str], Model], client: Client) -> None:
    for output in ("full", "reasons:2", "explain:2"):
        with pytest.raises(NotSupportedError, match="cannot compute"):
            call(client, made("two classes"), output)


# --- TRANSFORM --------------------------------------------------------------------------------------------------------

PLAIN = pa.table(
    {
        "age": pa.array([None if i % 9 == 0 else float(i % 70) for i in range(N)]),
        "Job": pa.array([["clerk", "cook", None][i % 3] for i in range(N)]),
        "moment": pa.array([datetime.datetime(1999, 12, 31, i % 24) for i in range(N)], pa.timestamp("us", "UTC")),
    }
)
ITEMS = {
    "age_s": "ML.STANDARD_SCALER(age) OVER ()",
    "job_u": 'upper("Job")',
    "tens": "CASE WHEN age > 30 THEN age / 10 ELSE 0 END",
    "hours": "hour(moment)",
    "weekday": "isodow(moment)",
}


@pytest.mark.parametrize("algorithm", ["xgboost_classifier", "logistic_regression"])
def test_transform_is_part_of_the_function(tmp_path: Path, client: Client, algorithm: str) -> None:
    y = pa.array(np.where(np.arange(N) % 70 > 30, "yes", "no"))
    model = open_bundle(tmp_path, PLAIN, Learn(algorithm, "y", y), transform=fit_transform(PLAIN, **ITEMS))
    check_parity(client, model, PLAIN)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("round(age / 4)", "gives other values in PostgreSQL: item is 2, where the model has 3.0, for age 10.0"),
        ("round(100 / age)", "fails in PostgreSQL: division by zero"),
        ("list_sum([age, 1])", "list_sum"),
        ('ML.ONE_HOT_ENCODER("Job") OVER ()', "ML.ONE_HOT_ENCODER"),
    ],
)
def test_a_transform_that_postgresql_computes_otherwise_is_refused(tmp_path: Path, client: Client, item: str, words: str) -> None:
    y = pa.array(np.round(np.arange(N) % 70 / 4))
    learn = Learn("xgboost_regressor", "y", y, {"n_estimators": 5})
    model = open_bundle(tmp_path, PLAIN, learn, transform=fit_transform(PLAIN, item=item, age="age"))
    with pytest.raises(NotSupportedError, match=words):
        call(client, model, "predict")
    assert client.transaction() is None
    assert client.values("SELECT 1") == [1]


# --- transactions -----------------------------------------------------------------------------------------------------


def test_a_function_that_a_rollback_took_is_made_again(made: Callable[[str], Model], postgres: str) -> None:
    model, session = made("two classes"), Client(postgres)
    session.load(everything().slice(0, 3))

    def query() -> list[Any]:
        return session.values(f"SELECT {call(session, model, 'predict')} FROM rows ORDER BY n__")

    session.run("BEGIN")
    expected = query()
    session.run("ROLLBACK")
    assert query() == expected
    session.run("DISCARD ALL")
    session.run("BEGIN")
    session.run("SAVEPOINT s")
    assert query() == expected
    session.run("ROLLBACK TO s")
    assert query() == expected
    session.run("COMMIT")
    assert query() == expected
    session.close()


def test_nothing_stays_in_the_database(made: Callable[[str], Model], postgres: str) -> None:
    session = Client(postgres)
    session.load(everything().slice(0, 3))
    call(session, made("two classes"), "predict")
    found = "SELECT count(*) FROM pg_proc WHERE proname LIKE '\\_\\_sqlml%'"
    assert session.values(found) == [1]
    session.run("DISCARD TEMP")
    assert session.values(found) == [0]
    session.close()


def test_a_session_that_may_not_write_is_told_what_to_do(made: Callable[[str], Model], postgres: str) -> None:
    session = Client(postgres)
    session.run("SET default_transaction_read_only TO on")
    with pytest.raises(NotSupportedError, match="read-only") as caught:
        call(session, made("two classes"), "predict")
    assert "end that transaction" in str(caught.value)
    session.close()
