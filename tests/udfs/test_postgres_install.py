"""Functions that stay in a PostgreSQL database: made, replaced, removed, called by plain clients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from sqlml_udfs.postgres.target import PostgresFunction, PostgresInstaller, install, installed, remove
from sqlml_udfs.postgres.text import dotted

from sqlml.bundles.model import Model
from sqlml.errors import BindError, EngineError
from tests.bundles.handmade import Learn, fit_transform, open_bundle
from tests.kits import check_installer
from tests.udfs.postgres_client import Client

N = 200
_X = np.random.default_rng(0).normal(size=(N, 2))
TABLE = pa.table(
    {
        "age": _X[:, 0],
        "Home town": [["Köln", "Пермь", None][i % 3] for i in range(N)],
        "balance": _X[:, 1],
        "flag": [True, False] * 100,
    }
)
_CLASS = pa.array(np.where(_X[:, 0] + _X[:, 1] > 0, "yes", "no"))
_VALUE = pa.array(_X[:, 0] * 2 + 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Model]:
    """A model of an algorithm on some of the columns, by their number."""

    @cache
    def make(algorithm: str, columns: str) -> Model:
        values = _VALUE if "regress" in algorithm and "logistic" not in algorithm else _CLASS
        table = TABLE.select([int(i) for i in columns])
        return open_bundle(tmp_path_factory.mktemp("model") / "bundle", table, Learn(algorithm, "y", values))

    return make


@pytest.fixture
def client(postgres: str) -> Iterator[Client]:
    opened = Client(postgres)
    yield opened
    opened.close()


def deploy(client: Client, model: Model, name: str = "churn", version: int = 1) -> tuple[PostgresFunction, ...]:
    return install(client, [name], model, model.signature, f"model churn, version {version}")


def test_it_does_what_the_contract_asks(client: Client, model: Callable[..., Model]) -> None:
    def run(query: str) -> list[Any]:
        return [value for batch in client.run(query).batches for value in batch.column(0).to_pylist()]

    for first, second in (("xgboost_classifier", "logistic_regression"), ("linear_regression", "xgboost_classifier")):
        check_installer(PostgresInstaller(client), run, model(first, "013"), model(second, "02"))


def overloads(client: Client) -> list[str]:
    return client.values("SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'churn%' ORDER BY 1")


def test_a_plain_client_calls_it_by_position_and_by_name(client: Client, postgres: str, model: Callable[..., Model]) -> None:
    classifier = model("xgboost_classifier", "01")
    made = deploy(client, classifier)
    assert [function.name for function in made] == [("public", "churn"), ("public", "churn_proba")]
    row = {"age": [1.5], "Home town": ["Пермь"]}
    expected = classifier.probabilities(pa.table(row))[0]
    with psycopg.connect(postgres) as plain:
        by_name = """SELECT churn(age => 1.5, "Home town" => 'Пермь'), churn_proba("Home town" => 'Пермь', age => 1.5)"""
        answer, probs = plain.execute(by_name).fetchone() or ()
        assert answer == classifier.predict(pa.table(row))[0].as_py()
        assert probs == pytest.approx(dict(zip(classifier.class_names, expected, strict=True)), abs=1e-6)
        assert plain.execute("SELECT churn(%s, %s)", (1.5, "Пермь")).fetchone() == (answer,)
        assert plain.execute("SELECT churn(1, NULL) IS NOT NULL, churn(NULL, NULL) IS NOT NULL").fetchone() == (True, True)
        left_out = plain.execute("""SELECT churn("Home town" => 'Пермь') = churn(NULL, 'Пермь'), churn() = churn(NULL, NULL)""")
        assert left_out.fetchone() == (True, True)
        yes = plain.execute("SELECT (churn_proba(1.5, 'Пермь') ->> 'yes')::float8").fetchone()
        assert yes == (pytest.approx(expected[1], abs=1e-6),)


def test_every_row_of_a_table_in_a_parallel_query(client: Client, model: Callable[..., Model]) -> None:
    regressor = model("xgboost_regressor", "013")
    deploy(client, regressor)
    client.load(TABLE)
    for setting in ("parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0"):
        client.run(f"SET {setting}")
    query = 'SELECT churn(age, "Home town", flag) FROM rows'
    assert "Gather" in "\n".join(client.values(f"EXPLAIN {query}"))
    found = client.values(f"SELECT sum(churn) FROM ({query}) AS q")
    assert found == pytest.approx([sum(regressor.predict(TABLE).to_pylist())])


def test_its_comment_names_model_and_version(client: Client, model: Callable[..., Model]) -> None:
    deploy(client, model("logistic_regression", "02"))
    [found] = installed(client, ["churn"])
    assert found.comment == "sqlml predict: model churn, version 1"
    assert found.types == "age double precision, balance double precision"
    assert installed(client, ["other"]) == ()


# --- another version --------------------------------------------------------------------------------------------------


def test_another_version_takes_the_place_of_all_overloads(client: Client, model: Callable[..., Model]) -> None:
    deploy(client, model("xgboost_classifier", "01"))
    assert overloads(client) == ["churn(double precision,text)", "churn_proba(double precision,text)"]
    deploy(client, model("xgboost_classifier", "023"), version=2)
    types = "(double precision,double precision,boolean)"
    assert overloads(client) == [f"churn{types}", f"churn_proba{types}"]
    deploy(client, model("linear_regression", "023"), version=3)
    assert overloads(client) == [f"churn{types}"]
    assert client.values("SELECT pg_typeof(churn(1, 2, true))::text") == ["double precision"]
    deploy(client, model("linear_regression", "20"), version=4)
    assert overloads(client) == ["churn(double precision,double precision)"]
    assert installed(client, ["churn"])[0].types == "balance double precision, age double precision"


def test_views_and_prepared_statements_go_on_with_the_next_version(client: Client, model: Callable[..., Model]) -> None:
    first, second = model("linear_regression", "02"), model("xgboost_regressor", "02")
    deploy(client, first)
    client.run("CREATE VIEW scored AS SELECT churn(1, 2)")
    client.run("PREPARE one AS SELECT churn(1, 2)")
    row = pa.table({"age": [1.0], "balance": [2.0]})
    for query in ("SELECT * FROM scored", "EXECUTE one"):
        assert client.values(query) == pytest.approx(first.predict(row).to_pylist())
    deploy(client, second, version=2)
    for query in ("SELECT * FROM scored", "EXECUTE one"):
        assert client.values(query) == pytest.approx(second.predict(row).to_pylist())


def test_a_version_with_other_arguments_does_not_break_a_view(client: Client, model: Callable[..., Model]) -> None:
    deploy(client, model("linear_regression", "02"))
    client.run("CREATE VIEW scored AS SELECT churn(1, 2)")
    with pytest.raises(EngineError, match="other objects depend on it"):
        deploy(client, model("linear_regression", "023"), version=2)
    assert len(client.values("SELECT * FROM scored")) == 1
    assert installed(client, ["churn"])[0].comment.endswith("version 1")


def test_callers_meanwhile_see_the_old_or_the_new(client: Client, postgres: str, model: Callable[..., Model]) -> None:
    models = [model("linear_regression", "02"), model("xgboost_regressor", "02")]
    row = pa.table({"age": [1.0], "balance": [2.0]})
    allowed = [m.predict(row)[0].as_py() for m in models]
    deploy(client, models[0])
    done, seen, failures = threading.Event(), set(), []

    def ask() -> None:
        with psycopg.connect(postgres, autocommit=True) as plain:
            while not done.is_set():
                try:
                    [(found,)] = plain.execute("SELECT churn(age => 1, balance => 2)").fetchall()
                    seen.add(min(range(2), key=lambda i: abs(allowed[i] - found)))
                    assert found == pytest.approx(allowed[0]) or found == pytest.approx(allowed[1])
                except Exception as error:
                    failures.append(error)
                    return

    callers = [threading.Thread(target=ask) for _ in range(2)]
    for caller in callers:
        caller.start()
    for i in range(1, 60):
        deploy(client, models[i % 2], version=i)
    done.set()
    for caller in callers:
        caller.join()
    assert not failures
    assert seen == {0, 1}


def test_two_who_replace_it_at_once(postgres: str, model: Callable[..., Model]) -> None:
    models = [model("linear_regression", "02"), model("linear_regression", "023")]
    failures: list[Exception] = []

    def work(mine: Model) -> None:
        session = Client(postgres)
        try:
            for i in range(20):
                deploy(session, mine, version=i)
        except Exception as error:
            failures.append(error)
        session.close()

    threads = [threading.Thread(target=work, args=(m,)) for m in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    session = Client(postgres)
    assert len(overloads(session)) == 1
    session.close()


# --- transactions -----------------------------------------------------------------------------------------------------


def test_it_is_part_of_the_users_transaction(client: Client, model: Callable[..., Model]) -> None:
    client.run("BEGIN")
    deploy(client, model("logistic_regression", "02"))
    assert len(overloads(client)) == 2
    client.run("ROLLBACK")
    assert overloads(client) == []
    client.run("BEGIN")
    client.run("CREATE FUNCTION churn_proba() RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    with pytest.raises(BindError):
        deploy(client, model("logistic_regression", "02"))
    assert overloads(client) == ["churn_proba()"]  # nothing of it stays, and the transaction goes on
    client.run("COMMIT")


def test_a_failure_leaves_the_old_version(client: Client, tmp_path: Path, model: Callable[..., Model]) -> None:
    deploy(client, model("linear_regression", "02"))
    table = TABLE.select([0, 2])
    rounded = fit_transform(table, a="round(age * 2)")
    other = open_bundle(tmp_path, table, Learn("linear_regression", "y", _VALUE), transform=rounded)
    with pytest.raises(Exception, match="TRANSFORM gives other values"):
        deploy(client, other, version=2)
    assert [f.comment for f in installed(client, ["churn"])] == ["sqlml predict: model churn, version 1"]
    assert client.transaction() is None


# --- what is not ours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["churn", "churn_proba"])
def test_a_function_of_somebody_else_is_left_alone(client: Client, model: Callable[..., Model], name: str) -> None:
    client.run(f"CREATE FUNCTION {name}(text) RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    with pytest.raises(BindError, match=rf"public.{name}\(text\) that sqlml did not make") as caught:
        deploy(client, model("logistic_regression", "02"))
    assert "another_name" in str(caught.value)
    with pytest.raises(BindError):
        remove(client, ["churn"])
    assert overloads(client) == [f"{name}(text)"]


def test_a_model_deployed_as_churn_proba_is_no_companion_of_churn(client: Client, model: Callable[..., Model]) -> None:
    deploy(client, model("linear_regression", "02"), name="churn_proba")
    with pytest.raises(BindError, match="churn_proba"):
        deploy(client, model("logistic_regression", "02"))
    deploy(client, model("linear_regression", "02"))
    remove(client, ["churn"])
    assert overloads(client) == ["churn_proba(double precision,double precision)"]


def test_remove_takes_both_and_only_ours(client: Client, model: Callable[..., Model]) -> None:
    deploy(client, model("logistic_regression", "02"))
    client.run("CREATE FUNCTION churn(text) RETURNS integer LANGUAGE sql AS 'SELECT 1'")
    assert len(remove(client, ["churn"])) == 2
    assert overloads(client) == ["churn(text)"]
    with pytest.raises(BindError, match=r"public.churn\(text\) that sqlml did not make"):
        remove(client, ["churn"])
    with pytest.raises(BindError, match=r"there is no function public\.nothing"):
        remove(client, ["nothing"])


# --- names and rights -------------------------------------------------------------------------------------------------


def test_names_in_any_script_and_schema(client: Client, model: Callable[..., Model]) -> None:
    client.run('CREATE SCHEMA "My ""models"""')
    name = ['My "models"', "Отток 'x'"]
    regressor = model("linear_regression", "02")
    made = install(client, name, regressor, regressor.signature, "it's \\ a comment")
    assert made[0].name == tuple(name)
    assert installed(client, name)[0].comment == "sqlml predict: it's \\ a comment"
    assert len(client.values(f"SELECT {dotted(name)}(1, 2)")) == 1
    remove(client, name)
    with pytest.raises(BindError, match="a schema and a name"):
        install(client, ["a", "b", "c"], regressor, regressor.signature, "")
    with pytest.raises(BindError, match="63 bytes"):
        deploy(client, model("logistic_regression", "02"), name="x" * 60)
    client.run("SET search_path TO nowhere")
    with pytest.raises(BindError, match="no schema of the search_path"):
        deploy(client, model("linear_regression", "02"))


def test_who_may_call_it_stays_as_it_was(client: Client, postgres: str, model: Callable[..., Model]) -> None:
    for role in ("teller", "auditor"):
        client.run(f"DROP ROLE IF EXISTS {role}")
        client.run(f"CREATE ROLE {role}")
    deploy(client, model("linear_regression", "02"))
    client.run("REVOKE ALL ON FUNCTION churn FROM PUBLIC")
    client.run("GRANT EXECUTE ON FUNCTION churn TO teller WITH GRANT OPTION")
    for columns, call in (("02", "churn(1, 2)"), ("023", "churn(1, 2, true)")):
        deploy(client, model("linear_regression", columns), version=2)
        client.run("SET ROLE teller")
        assert len(client.values(f"SELECT {call}")) == 1
        client.run("SET ROLE auditor")
        with pytest.raises(EngineError, match="permission denied"):
            client.run(f"SELECT {call}")
        client.run("RESET ROLE")
    remove(client, ["churn"])
    for role in ("teller", "auditor"):
        client.run(f"DROP ROLE {role}")


def test_without_the_right_to_create(client: Client, model: Callable[..., Model]) -> None:
    client.run("DROP ROLE IF EXISTS guest")
    client.run("CREATE ROLE guest")
    client.run("SET ROLE guest")
    with pytest.raises(EngineError, match="permission denied for schema public"):
        deploy(client, model("linear_regression", "02"))
    assert client.transaction() is None
    client.run("RESET ROLE")
    client.run("DROP ROLE guest")
