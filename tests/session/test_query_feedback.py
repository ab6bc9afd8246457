"""EVALUATE ENDPOINT of a deployed query on a real server: asked, told what was true by both ways, measured."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

import sqlml
from tests.serving.load import until
from tests.session.test_deploy_query import Shop

pytestmark = pytest.mark.slow  # a server, and a log that is written every two seconds

PEOPLE: list[dict[str, Any]] = [{"age": age, "job": ("cook", "clerk")[age % 2], "balance": age / 10} for age in range(20, 80)]
DEPLOY = (
    "DEPLOY QUERY e AS SELECT PREDICT_PROBA(buys, 'yes') * 0.5 + 0.25 AS p, PREDICT(buys) AS buyer, PREDICT(spends) AS spends, "
    "PREDICT_PROBA(buys) AS probs, PREDICT_PROBA(buys, 'yes') > 0.4 AS maybe, $age AS age, [PREDICT(spends), 1.0] AS both"
)


class Told(Shop):
    """With answers that are known."""

    answers: list[dict[str, Any]]

    def dicts(self, statement: str, values: Any = ()) -> list[dict[str, Any]]:
        cursor = self.connection.execute(statement, values)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def logged(self, endpoint: str, rows: int) -> bool:
        count = "SELECT count(*) FROM sqlml.predictions WHERE endpoint = ?"
        return until(lambda: self.run(count, [endpoint]) == [(rows,)], 20)


@pytest.fixture(scope="module")
def told(people_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The endpoint ``e`` has answered 60 people, and of each every truth is known."""
    folder = tmp_path_factory.mktemp("told") / "copy"
    shutil.copytree(people_folder, folder)
    shop = Told(folder / "people.duckdb")
    shop.run(DEPLOY)
    shop.answers = shop.ask("e", *PEOPLE)[1]
    assert shop.logged("e", len(PEOPLE))
    bought = "CASE WHEN (inputs->>'age')::DOUBLE > 50 THEN 'yes' ELSE 'no' END"
    for target, truth in (("p", bought), ("Buyer", bought), ("probs", bought), ("spends", "(inputs->>'age')::DOUBLE * 2")):
        shop.run(
            f"INSERT INTO sqlml.feedback (endpoint, request_id, row, target, truth) "
            f"SELECT endpoint, request_id, row, '{target}', {truth} FROM sqlml.predictions WHERE endpoint = 'e'"
        )
    [(request,)] = shop.run("SELECT DISTINCT request_id FROM sqlml.predictions WHERE endpoint = 'e'")
    feedback = [{"request_id": request, "row": i, "target": "maybe", "truth": row["age"] > 50} for i, row in enumerate(PEOPLE)]
    assert shop.tell("e", {"feedback": feedback}) == (202, {"accepted": len(PEOPLE)})
    assert until(lambda: shop.run("SELECT count(*) FROM sqlml.feedback WHERE target = 'maybe'") == [(len(PEOPLE),)], 20)
    yield shop
    shop.server.stop()
    shop.connection.close()


def test_every_column_is_measured_as_what_it_is(told: Told) -> None:
    rows = {row["target"]: row for row in told.dicts("EVALUATE ENDPOINT e")}
    assert list(rows) == ["p", "buyer", "spends", "probs", "maybe"]
    assert {(row["model"], row["version"], row["role"], row["predictions"], row["rows"]) for row in rows.values()} == {
        ("e", 1, "serves", 60, 60)
    }
    bought = np.array([row["age"] > 50 for row in PEOPLE])
    p = np.array([answer["p"] for answer in told.answers])
    assert rows["p"]["roc_auc"] == pytest.approx(sk.roc_auc_score(bought, p))
    assert rows["p"]["log_loss"] == pytest.approx(sk.log_loss(bought, p))
    assert rows["p"]["brier"] == pytest.approx(sk.brier_score_loss(bought, p))
    yes = np.array([answer["probs"]["yes"] for answer in told.answers])
    assert rows["probs"]["log_loss"] == pytest.approx(sk.log_loss(bought, yes), rel=1e-6)
    buyer = np.array([answer["buyer"] == "yes" for answer in told.answers])
    assert rows["buyer"]["accuracy"] == rows["probs"]["accuracy"] == pytest.approx((buyer == bought).mean())
    assert rows["buyer"]["f1"] == pytest.approx(sk.f1_score(bought, buyer))
    maybe = np.array([answer["maybe"] for answer in told.answers])
    assert rows["maybe"]["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(bought, maybe))
    for name in ("buyer", "maybe"):
        assert rows[name]["log_loss"] is rows[name]["roc_auc"] is None
    spends = np.array([answer["spends"] for answer in told.answers])
    assert rows["spends"]["rmse"] == pytest.approx(sk.root_mean_squared_error([row["age"] * 2 for row in PEOPLE], spends))
    assert rows["spends"]["accuracy"] is rows["p"]["rmse"] is None


def test_slices_last_and_threshold(told: Told) -> None:
    rows = told.dicts("EVALUATE ENDPOINT e BY JOB WITH (last = '1 day')")
    assert [(row["target"], row["job"], row["rows"]) for row in rows[:2]] == [("p", "clerk", 30), ("p", "cook", 30)]
    clerks = [answer["p"] for answer in told.answers[1::2]]
    assert rows[0]["log_loss"] == pytest.approx(sk.log_loss([row["age"] > 50 for row in PEOPLE[1::2]], clerks))
    assert told.dicts("EVALUATE ENDPOINT e WITH (last = '1 microsecond')") == []
    all_yes = {row["target"]: row for row in told.dicts("EVALUATE ENDPOINT e WITH (threshold = 0.0)")}
    assert all_yes["p"]["recall"] == all_yes["probs"]["recall"] == 1.0
    with pytest.raises(sqlml.Error, match=r"takes no column jbo\n.*\n.*\n.*did you mean job\?"):
        told.run("EVALUATE ENDPOINT e BY jbo")
    plan = told.run("EXPLAIN EVALUATE ENDPOINT e")
    assert any("buys@1" in str(row) for row in plan)


def test_targets_are_checked_both_ways(told: Told) -> None:
    insert = "INSERT INTO sqlml.feedback (endpoint, request_id, target, truth) VALUES ('E', 'r', ?, 'yes')"
    before = told.run("SELECT count(*) FROM sqlml.feedback")
    for target, message in (
        ("buyr", "endpoint e has no target 'buyr'"),
        ("both", "both of endpoint e is a list, and no truth can be compared with it"),
        (None, "endpoint e has several targets"),
    ):
        status, answer = told.tell("e", {"request_id": "r", "truth": "yes"} | ({"target": target} if target else {}))
        assert (status, answer["error"].partition("; ")[0]) == (422, message)
        with pytest.raises(sqlml.Error) as caught:
            told.run(insert, [target])
        assert (caught.value.message, caught.value.hint) == (message, answer["error"].partition("; ")[2])
    assert told.run("SELECT count(*) FROM sqlml.feedback") == before


def test_the_example_of_the_api_page_is_taken(told: Told) -> None:
    for name, target in (("asked", "probs"), ("lone", None)):
        query = "PREDICT_PROBA(buys) AS probs, PREDICT(buys) AS b" if target else "PREDICT_PROBA(buys) AS probs"
        told.run(f"DEPLOY QUERY {name} AS SELECT $age AS age, {query}")
    with urllib.request.urlopen(f"{told.server.url()}/openapi.json", timeout=20) as answer:
        page = json.load(answer)
    for name, target in (("asked", "probs"), ("lone", None)):
        body = page["paths"][f"/models/{name}/feedback"]["post"]["requestBody"]["content"]["application/json"]["example"]
        [row] = body["feedback"]
        assert (row.get("target"), row["truth"]) == (target, "no")
        assert told.tell(name, body) == (202, {"accepted": 1})


def test_feedback_that_names_nothing_is_of_the_answer_that_is_not_passed_on(told: Told) -> None:
    told.run("DEPLOY QUERY one AS SELECT $age AS age, PREDICT(spends) AS spends")
    answers = told.ask("one", *PEOPLE[:4])[1]
    assert told.logged("one", 4)
    none_yet = told.connection.execute("EVALUATE ENDPOINT one")
    assert [(row[0], row[3], row[5]) for row in none_yet.fetchall()] == [("one", "spends", 0)]
    told.run(
        "INSERT INTO sqlml.feedback (endpoint, request_id, row, truth) "
        "SELECT endpoint, request_id, row, 10 + row FROM sqlml.predictions WHERE endpoint = 'one'"
    )
    [found] = told.dicts("EVALUATE ENDPOINT one")
    expected = np.mean([abs(answer["spends"] - 10 - i) for i, answer in enumerate(answers)])
    assert (found["target"], found["rows"]) == ("spends", 4)
    assert found["mae"] == pytest.approx(expected)
    told.run("DEPLOY QUERY lab AS SELECT PREDICT(buys) AS b")
    with pytest.raises(sqlml.Error, match="a threshold is for probabilities; lab answers with none"):
        told.run("EVALUATE ENDPOINT lab WITH (threshold = 0.5)")
    told.run("DEPLOY QUERY lists AS SELECT [PREDICT(spends)] AS l")
    with pytest.raises(sqlml.Error, match=r"answers with lists alone \(l\)"):
        told.run("EVALUATE ENDPOINT lists")


def test_an_earlier_query_has_its_row_and_its_names(told: Told) -> None:
    told.run("DEPLOY QUERY moves AS SELECT PREDICT(spends) AS old")
    told.ask("moves", *PEOPLE[:2])
    assert told.logged("moves", 2)
    told.run("DEPLOY QUERY moves AS SELECT PREDICT(spends) + 1 AS fresh")
    told.ask("moves", *PEOPLE[:3])
    assert told.logged("moves", 5)
    told.run(
        "INSERT INTO sqlml.feedback (endpoint, request_id, row, target, truth) SELECT endpoint, request_id, row, "
        "CASE WHEN version = 1 THEN 'old' ELSE 'fresh' END, 7 FROM sqlml.predictions WHERE endpoint = 'moves'"
    )
    rows = told.dicts("EVALUATE ENDPOINT moves")
    assert [(row["version"], row["target"], row["predictions"], row["rows"]) for row in rows] == [
        (2, "fresh", 3, 3),
        (1, "old", 2, 2),
    ]
    told.run("ALTER ENDPOINT moves SET (log = 0.5)")  # the same query: no row of its own
    assert len(told.dicts("EVALUATE ENDPOINT moves")) == 2


def test_what_was_true_of_an_earlier_query_is_taken_both_ways(told: Told) -> None:
    def tell(target: str | None, truth: Any) -> int:
        named = {} if target is None else {"target": target}
        status, _ = told.tell("late", {"request_id": "r", "truth": truth} | named)
        columns, values = "endpoint, request_id, truth, target", ["r", str(truth), target]
        try:
            told.run(f"INSERT INTO sqlml.feedback ({columns}) VALUES ('late', ?, ?, ?)", values)
        except sqlml.ProgrammingError:
            assert status == 422
        else:
            assert status == 202
        return status

    told.run("DEPLOY QUERY late AS SELECT PREDICT(spends) AS answer, $job AS said, PREDICT(buys) AS old")
    assert [tell("answer", 7), tell("answer", "perhaps"), tell("said", "what it likes"), tell("old", 7)] == [202, 422, 202, 422]
    told.run("DEPLOY QUERY late AS SELECT PREDICT(buys) AS answer")
    told.run("ALTER ENDPOINT late SET (log = 0.5)")
    assert [tell("answer", "no"), tell("answer", 7), tell(None, 7), tell("answer", "perhaps")] == [202, 202, 202, 422]
    assert [tell("Old", "yes"), tell("old", "perhaps"), tell("said", "cook"), tell("never", 7)] == [202, 422, 202, 422]
    told.run("DEPLOY QUERY late AS SELECT PREDICT(spends) * 2 AS fresh")
    assert [tell("fresh", 7), tell("answer", "no"), tell("answer", 7), tell("old", 7)] == [202, 202, 202, 422]
    for _ in range(3):
        told.run("ROLLBACK ENDPOINT late")
    assert [tell("fresh", 7), tell("fresh", "perhaps"), tell("answer", "no"), tell("answer", "perhaps")] == [202, 422, 202, 422]


@pytest.mark.parametrize(
    ("target", "truth", "message", "hint"),
    [
        ("buyer", "perhaps", "the truth 'perhaps' is none of the classes of buyer", "they are: no, yes"),
        ("probs", "yess", "the truth 'yess' is none of the classes of probs", "did you mean yes?"),
        ("Maybe", "never", "the truth 'never' is none of the classes of maybe", "they are: false, true"),
        ("spends", "plenty", "the truth 'plenty' is no number, and spends is one", "give the number that it turned out to be"),
    ],
)
def test_a_truth_that_the_column_cannot_be_is_refused_both_ways(
    told: Told, target: str, truth: str, message: str, hint: str
) -> None:
    before = told.run("SELECT count(*) FROM sqlml.feedback")
    with pytest.raises(sqlml.ProgrammingError, match=f"(?s){message}.*{hint.rstrip('?')}"):
        told.run(
            "INSERT INTO sqlml.feedback (endpoint, request_id, target, truth) VALUES ('e', 'r', ?, 'yes'), ('e', 'r', ?, ?)",
            ["p", target, truth],
        )
    status, answer = told.tell("e", {"feedback": [{"request_id": "r", "target": target, "truth": truth}]})
    assert (status, answer["error"], answer["field"]) == (422, f"feedback[0]: {message}", "feedback[0].truth")
    assert answer["hint"].startswith(hint)
    assert told.run("SELECT count(*) FROM sqlml.feedback") == before
