"""INSERT INTO sqlml.feedback and EVALUATE ENDPOINT: what was really answered, by the log of a real server."""

from __future__ import annotations

import pytest

import sqlml
from tests.session.endpoint_bank import Bank, ask, until


def test_feedback_is_kept_beside_the_log(bank: Bank) -> None:
    cursor = bank.connection.execute("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('E', ?, ?)", ["r1", "yes"])
    assert cursor.rowcount == 1
    cursor.executemany(
        "INSERT INTO sqlml.main.feedback (endpoint, request_id, row, truth) VALUES (?, ?, ?, ?)",
        [("e", "r2", 0, "no"), ("e", "r2", 1, "yes")],
    )
    bank.run("INSERT INTO sqlml.feedback (truth, key, endpoint) SELECT bought, age, 'e' FROM t ORDER BY ALL LIMIT 2")
    found = bank.run("SELECT request_id, row, key, truth FROM sqlml.feedback WHERE endpoint = 'e' ORDER BY given_at, row")
    assert found == [("r1", None, None, "yes"), ("r2", 0, None, "no"), ("r2", 1, None, "yes"), *[(None, None, "0", "no")] * 2]
    assert bank.run("SELECT count(*) FROM sqlml.feedback WHERE owner IS NULL OR given_at IS NULL") == [(0,)]


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        (
            "request_id, truth",
            "('r', 'yes'), ('r', 'Yess')",
            "the truth 'Yess' is none of the classes of bought.*did you mean yes",
        ),
        ("key, truth", "(1, 'true')", "the truth 'true' is none of the classes of bought.*they are: no, yes"),
        ("request_id, row, truth", "('r', -1, 'no')", "row is -1: the rows of a request are counted from 0"),
        ("request_id, truth, target", "('r', 'no', 'brought')", "endpoint e has no target 'brought'.*did you mean bought"),
    ],
)
def test_feedback_that_nothing_could_be_measured_by_is_refused(bank: Bank, columns: str, values: str, message: str) -> None:
    before = bank.run("SELECT count(*) FROM sqlml.feedback")
    with pytest.raises(sqlml.Error, match=f"(?s){message}"):
        bank.run(f"INSERT INTO sqlml.feedback (endpoint, {columns}) SELECT 'e', * FROM (VALUES {values})")
    assert bank.run("SELECT count(*) FROM sqlml.feedback") == before


def test_feedback_takes_no_part_in_a_transaction(bank: Bank) -> None:
    before = bank.run("SELECT count(*) FROM sqlml.feedback")
    bank.run("BEGIN")
    try:
        with pytest.raises(sqlml.NotSupportedError, match="INSERT into feedback cannot run inside an open transaction"):
            bank.run("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('e', 'r', 'yes')")
    finally:
        bank.run("ROLLBACK")
    with pytest.raises(sqlml.ProgrammingError, match="unknown endpoint nowhere"):
        bank.run("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('e', 'r', 'yes'), ('nowhere', 'r', 'yes')")
    assert bank.run("SELECT count(*) FROM sqlml.feedback") == before


def test_what_was_really_answered_is_measured(bank: Bank) -> None:
    bank.run("DEPLOY MODEL m@1 TO ENDPOINT live")
    [(url,)] = bank.run("SELECT url FROM sqlml.endpoints WHERE endpoint = 'live'")
    answers = [ask(url, [{"age": age, "visits": 1}, {"age": 16 - age, "visits": None}], f"r{age}") for age in range(10)]
    assert until(lambda: bank.run("SELECT count(*) FROM sqlml.predictions WHERE endpoint = 'live'") == [(20,)])
    logged = bank.dicts(
        "SELECT request_id, row, inputs->>'age' AS age, outputs->>'predicted_bought' AS bought "
        "FROM sqlml.predictions WHERE endpoint = 'live'"
    )
    assert {(row["request_id"], row["row"]): row["bought"] for row in logged} == {
        (f"r{age}", row): answer["predicted_bought"] for age, pair in enumerate(answers) for row, answer in enumerate(pair)
    }
    bank.run(
        "INSERT INTO sqlml.feedback (endpoint, request_id, row, truth) SELECT endpoint, request_id, row, "
        "CASE WHEN (inputs->>'age')::DOUBLE > 8 THEN 'yes' ELSE 'no' END FROM sqlml.predictions "
        "WHERE endpoint = 'live' AND row = 0"
    )
    [figures] = bank.dicts("EVALUATE ENDPOINT live")
    assert (figures["predictions"], figures["rows"]) == (20, 10)
    right = [pair[0]["predicted_bought"] == ("yes" if age > 8 else "no") for age, pair in enumerate(answers)]
    assert figures["accuracy"] == pytest.approx(sum(right) / 10)
    assert [row["rows"] for row in bank.dicts("EVALUATE ENDPOINT live BY visits")] == [10]
    figures_of = "SELECT requests, errors, latency_p50 > 0 AS timed FROM sqlml.endpoints WHERE endpoint = 'live'"
    assert until(lambda: bank.dicts(figures_of) == [{"requests": 10, "errors": 0, "timed": True}])  # told twice a second
