"""DEPLOY QUERY and REFRESH ENDPOINT on a real server: answers, look-ups, what changes and what stays."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlml_runners.serving.control import LocalServer

import sqlml


class Shop:
    """A copy of the people's database, and its endpoint server."""

    def __init__(self, database: Path) -> None:
        self.home = database.with_suffix(".sqlml")
        self.connection = sqlml.connect(database)
        self.server = LocalServer(self.home)

    def run(self, statement: str, values: Any = ()) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    def ask(self, endpoint: str, *rows: dict[str, Any]) -> tuple[int, Any]:
        status, answer = self._post(f"/models/{endpoint}/predict", {"rows": rows})
        return status, answer["predictions"] if status == 200 else answer

    def tell(self, endpoint: str, feedback: dict[str, Any]) -> tuple[int, Any]:
        return self._post(f"/models/{endpoint}/feedback", feedback)

    def _post(self, path: str, document: Any) -> tuple[int, Any]:
        request = urllib.request.Request(f"{self.server.url()}{path}", json.dumps(document).encode())
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def copies(self) -> list[str]:
        return sorted(path.name for path in (self.home / "lookups").glob("*"))


@pytest.fixture(scope="module")
def opened(people_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop") / "copy"
    shutil.copytree(people_folder, folder)
    shop = Shop(folder / "people.duckdb")
    shop.run("DEPLOY MODEL groups TO ENDPOINT stays")  # so that the server goes on between the tests
    yield shop
    shop.server.stop()
    shop.connection.close()


@pytest.fixture
def shop(opened: Shop) -> Iterator[Shop]:
    yield opened
    for (name,) in opened.run("SELECT DISTINCT endpoint FROM sqlml.endpoints WHERE endpoint <> 'stays'"):
        opened.run(f'UNDEPLOY ENDPOINT "{name}"')
    assert opened.copies() == []


ROW = {"age": 40, "job": "cook", "balance": 3.5}
IN_DATABASE = "FROM (SELECT 40 AS age, 'cook' AS job, 3.5 AS balance)"


def test_an_average_a_weighted_vote_and_a_chain_answer_as_the_database_does(shop: Shop) -> None:
    items = """
        (PREDICT_PROBA(buys, 'yes') + PREDICT_PROBA(buys, 'no')) / 2 AS average,
        CASE WHEN 0.6 * PREDICT_PROBA(buys, 'yes') + 0.4 * 0.5 > 0.5 THEN 'yes' ELSE 'no' END AS vote,
        PREDICT(buys USING PREDICT(spends) / 3 AS age, {job} AS job, {balance} AS balance) AS chain,
        upper(PREDICT(buys)) AS shouted
    """
    deployed = shop.run("DEPLOY QUERY e AS SELECT " + items.format(job="$job", balance="$balance"))
    expected = shop.run(f"SELECT {items.format(job='job', balance='balance')} {IN_DATABASE}")
    assert deployed[0][:4] == (
        "e",
        "buys@1, spends@1",
        "age DOUBLE, job VARCHAR, balance DOUBLE",
        "average, vote, chain, shouted",
    )
    status, rows = shop.ask("e", ROW, ROW)
    assert status == 200
    assert [tuple(row.values()) for row in rows] == expected * 2


def test_probabilities_of_all_classes_are_an_object_and_nulls_go_through(shop: Shop) -> None:
    shop.run("DEPLOY QUERY e AS SELECT PREDICT_PROBA(buys) AS p, PREDICT_PROBA(buys)['yes'] + 0 AS yes, $job AS job")
    status, [row, empty] = shop.ask("e", ROW, {})
    assert status == 200
    assert row["p"]["yes"] == row["yes"] == pytest.approx(1 - row["p"]["no"])
    assert empty["job"] is None
    assert empty["yes"] is not None


def test_feedback_is_about_the_columns_of_the_query(shop: Shop) -> None:
    shop.run("DEPLOY QUERY e AS SELECT PREDICT(buys) AS buyer, PREDICT(spends) * 12 AS in_a_year, PREDICT_PROBA(buys) AS p")
    told = {"request_id": "r", "truth": 7.5}
    assert shop.tell("e", told | {"target": "in_a_year"}) == (202, {"accepted": 1})
    status, answer = shop.tell("e", told | {"target": "bought"})  # the first model's, which nobody was answered
    assert (status, answer["error"]) == (422, "endpoint e has no target 'bought'; it has: buyer, in_a_year, p")
    assert shop.tell("e", told)[1]["error"] == "endpoint e has several targets; say which: buyer, in_a_year, p"


def test_what_a_query_has_none_of_is_refused_with_what_to_do(shop: Shop) -> None:
    shop.run("DEPLOY QUERY e AS SELECT PREDICT(spends) AS x")
    with pytest.raises(sqlml.Error, match="DEPLOY QUERY it again with others"):
        shop.run("ALTER ENDPOINT e SET TRAFFIC (spends@1 = 100)")


def test_the_versions_are_pinned(shop: Shop) -> None:
    shop.run("DEPLOY QUERY e AS SELECT PREDICT(spends) AS x")
    before = shop.ask("e", ROW)
    shop.run(
        "TRAIN MODEL spends USING linear_regression TARGET spent EXCLUDE (id, bought) ON inline AS FROM people WHERE age > 50"
    )
    assert shop.ask("e", ROW) == before
    shop.run("DEPLOY QUERY e AS SELECT PREDICT(spends) AS x")
    assert shop.ask("e", ROW) != before
    assert shop.run("SELECT version, role FROM sqlml.endpoints WHERE endpoint = 'e'") == [("spends@2", "part")]
    shop.run("ROLLBACK ENDPOINT e")
    assert shop.ask("e", ROW) == before
    with pytest.raises(sqlml.Error, match="deployed"):
        shop.run("DROP MODEL spends@1")


def test_a_row_is_looked_up_by_its_key(shop: Shop) -> None:
    shop.run("DEPLOY QUERY e AS SELECT PREDICT(spends) AS x, p.job, p.age, PREDICT(buys) AS b FROM people p WHERE p.id = $id")
    expected = shop.run("SELECT PREDICT(spends) AS x, job, age, PREDICT(buys) AS b FROM people WHERE id IN (7, 9) ORDER BY id")
    status, rows = shop.ask("e", {"id": 7}, {"id": 9}, {"id": -1}, {})
    assert status == 200
    assert [tuple(row.values()) for row in rows[:2]] == [(pytest.approx(x, rel=1e-14), *others) for x, *others in expected]
    assert [row["job"] for row in rows[2:]] == [row["age"] for row in rows[2:]] == [None, None]
    assert rows[2] == rows[3]


def test_tables_that_lead_to_each_other_and_values_of_the_request(shop: Shop) -> None:
    shop.run(
        "CREATE TABLE branches AS SELECT range AS branch, CASE WHEN range < 300 THEN 'a' ELSE 'b' END AS town FROM range(600)"
    )
    shop.run("""
        DEPLOY QUERY e AS
        WITH person AS (SELECT p.*, $balance::DOUBLE AS asked FROM people p WHERE p.id = $id)
        SELECT b.town, c.town AS other, PREDICT(buys USING age, job, asked AS balance) AS y
        FROM person q LEFT JOIN branches b ON b.branch = q.age LEFT JOIN branches c ON q.age + 299 = c.branch
    """)
    [(age, job)] = shop.run("SELECT age, job FROM people WHERE id = 3")
    expected = shop.run("SELECT PREDICT(buys USING $age AS age, $job AS job, 9.5 AS balance)", {"age": age, "job": job})
    status, [row] = shop.ask("e", {"id": 3, "balance": 9.5})
    assert (status, row) == (200, {"town": "a", "other": "b" if age > 0 else "a", "y": expected[0][0]})
    shop.run("DROP TABLE branches")


def test_the_example_that_is_told_has_a_key_that_is_there(shop: Shop) -> None:
    shop.run("CREATE TABLE towns AS SELECT 'Town ' || range AS town, DATE '2024-05-31' + range::INTEGER AS day FROM range(3)")
    told = shop.connection.execute("""
        DEPLOY QUERY e AS SELECT p.id AS person, t.day, PREDICT(spends USING p.*) AS x
        FROM people p LEFT JOIN towns t ON t.town = $town AND t.day = $day WHERE p.id = $id
    """).footer
    assert told is not None
    [row] = json.loads(told.split(" -d ")[1].strip("'"))["rows"]
    status, [answer] = shop.ask("e", row)
    assert (status, answer["person"]) == (200, row["id"])
    assert answer["day"] is not None
    with urllib.request.urlopen(f"{shop.server.url()}/openapi.json", timeout=20) as document:
        assert row["town"] not in document.read().decode()  # the keys of a table are told to nobody else
    shop.run("DROP TABLE towns")


def test_refresh_takes_the_table_as_it_is_now(shop: Shop) -> None:
    shop.run("CREATE TABLE stock AS SELECT range AS id, 'old' AS state FROM range(100)")
    shop.run(
        "DEPLOY QUERY e AS SELECT s.state, PREDICT(spends USING *) AS x "
        "FROM (SELECT $id::INTEGER AS k, $age AS age, $job AS job, $balance AS balance) q LEFT JOIN stock s ON s.id = q.k"
    )
    shop.run("UPDATE stock SET state = 'new' WHERE id < 50; INSERT INTO stock VALUES (100, 'more')")
    ids = [{"id": i, **ROW} for i in (1, 60, 100)]
    assert [row["state"] for row in shop.ask("e", *ids)[1]] == ["old", "old", None]
    [(endpoint, table, rows, size, seconds)] = shop.run("REFRESH ENDPOINT E")
    assert (endpoint, table, rows, size > 0, seconds > 0) == ("E", "stock", 101, True, True)
    assert [row["state"] for row in shop.ask("e", *ids)[1]] == ["new", "old", "more"]
    [(text,)] = shop.run("SELECT look_ups[1] FROM sqlml.endpoints WHERE endpoint = 'e'")
    assert text.startswith("stock: 101 rows, 0.0 MB, ")
    shop.run("DROP TABLE stock")
    with pytest.raises(sqlml.Error, match="stock"):
        shop.run("REFRESH ENDPOINT e")
    assert [row["state"] for row in shop.ask("e", *ids)[1]] == ["new", "old", "more"]


def test_keys_that_are_not_unique_change_nothing(shop: Shop) -> None:
    shop.run("CREATE TABLE twice AS SELECT 1 AS k, 'a' AS v UNION ALL SELECT 1, 'b'")
    for statement in (
        "DEPLOY QUERY e AS SELECT t.v, PREDICT(spends USING $age, $job, $balance) AS x FROM twice t WHERE t.k = $k",
    ):
        with pytest.raises(sqlml.Error, match="twice has several rows with k = 1: it cannot be looked up by that") as caught:
            shop.run(statement)
        assert shop.run("SELECT 1") == [(1,)]  # nothing of it is open, though the error is at hand
        shop.connection.commit()
        assert caught.value is not None
    assert shop.run("SELECT * FROM sqlml.endpoints WHERE endpoint = 'e'") == []
    assert shop.copies() == []
    shop.run("DROP TABLE twice")


def test_other_columns_are_another_copy_and_rollback_goes_back(shop: Shop) -> None:
    shop.run("DEPLOY QUERY e AS SELECT p.age, PREDICT(spends) AS x FROM people p WHERE p.id = $id")
    first = shop.ask("e", {"id": 5})
    shop.run("DEPLOY QUERY e AS SELECT p.bought, PREDICT(spends) AS x FROM people p WHERE p.id = $id")
    assert len(shop.copies()) == 2
    assert list(shop.ask("e", {"id": 5})[1][0]) == ["bought", "x"]
    shop.run("ROLLBACK ENDPOINT e")
    assert shop.ask("e", {"id": 5}) == first


def test_requests_that_do_not_fit_name_the_field(shop: Shop) -> None:
    shop.run(
        "DEPLOY QUERY e AS SELECT PREDICT(spends) AS x, $day::DATE + 1 AS next, 10 // $n::INTEGER AS part, "
        "TRY_CAST($job AS INTEGER) + 1 AS j"
    )
    assert shop.ask("e", ROW | {"day": "2024-02-28", "n": 3})[1][0]["next"].startswith("2024-02-29")
    wrong = {"age": "forty", "day": "tomorrow", "n": [1], "what": 1}
    for name, value in wrong.items():
        status, answer = shop.ask("e", ROW, {name: value})
        assert (status, answer["field"]) == (422, f"rows[1].{name}")
    status, answer = shop.ask("e", {"n": 1e300})
    assert status == 422
    assert "the query cannot compute a row" in answer["error"]


def test_options_and_metadata(shop: Shop) -> None:
    shop.run("DEPLOY QUERY e WITH (timeout = ?) AS SELECT PREDICT(spends) AS x", ["5 s"])
    assert json.loads(shop.run("SELECT options FROM sqlml.endpoints WHERE endpoint = 'e'")[0][0]) == {"timeout": 5.0}
    shop.run("ALTER ENDPOINT e SET (timeout = '6 s')")
    assert shop.ask("e", ROW)[0] == 200
    with urllib.request.urlopen(f"{shop.server.url()}/v2/models/e", timeout=20) as answer:
        document = json.loads(answer.read())
    assert [i["name"] for i in document["inputs"]] == ["age", "job", "balance"]
    assert [o["name"] for o in document["outputs"]] == ["x"]


def test_a_query_in_memory_cannot_be_deployed() -> None:
    with sqlml.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS a, range * 2.0 AS y FROM range(50)")
        connection.execute("TRAIN MODEL m USING linear_regression TARGET y ON inline AS FROM t")
        with pytest.raises(sqlml.NotSupportedError, match="an in-memory database cannot be deployed from"):
            connection.execute("DEPLOY QUERY e AS SELECT PREDICT(m) AS y")
