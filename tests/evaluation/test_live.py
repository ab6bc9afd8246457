"""Logged predictions joined with what turned out to be true: by request, by key, over versions and roles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import sqlml
from sqlml.algorithms.metrics import classification_metrics, regression_metrics
from sqlml.catalog.rows import now
from sqlml.evaluation.live import LiveScores, measure_live
from sqlml.features.truths import class_codes, first_meaningless, meaningless, number_truths
from sqlml.home import Home
from sqlml.plan import TargetColumn
from sqlml.prediction_log import feedback_folder, feedback_schema, predictions_folder, predictions_schema, write_part
from sqlml.types import Task

BOUGHT = TargetColumn("bought", "VARCHAR", Task.CLASSIFICATION, ("no", "yes"))
SPENT = TargetColumn("spent", "DOUBLE", Task.REGRESSION, ())
PROBS = pa.struct([("no", pa.float64()), ("yes", pa.float64())])
CLASSES = predictions_schema(
    pa.struct([("age", pa.int64()), ("job", pa.string())]),
    pa.struct([("predicted_bought", pa.string()), ("predicted_bought_probs", PROBS)]),
)
NUMBERS = predictions_schema(pa.struct([("age", pa.float64())]), pa.struct([("predicted_spent", pa.float64())]))
NOW = datetime(2026, 3, 1)


def log_classes(home: Home, uid: str, rows: Sequence[dict[str, Any]], version: int = 1) -> None:
    """Rows of ``request_id`` and ``yes``, the probability; anything else as it is."""
    whole = []
    for row in rows:
        p = row["yes"]
        outputs = {"predicted_bought": "yes" if p > 0.5 else "no", "predicted_bought_probs": {"no": 1 - p, "yes": p}}
        inputs = {"age": row.get("age", 30), "job": row.get("job")}
        fields = {
            "endpoint": "e",
            "row": 0,
            "model": "m",
            "version": version,
            "role": "serves",
            "latency": 0.001,
            "logged_at": NOW,
        }
        whole.append(
            {**fields, **{k: v for k, v in row.items() if k not in ("yes", "age", "job")}, "inputs": inputs, "outputs": outputs}
        )
    table = pa.Table.from_pylist(whole, schema=CLASSES)
    for name in ("endpoint", "request_id", "role"):  # as the server writes what repeats
        table = table.set_column(table.column_names.index(name), name, table[name].dictionary_encode())
    write_part(predictions_folder(home, "e", uid), table)


def tell(home: Home, *rows: dict[str, Any], at: datetime = NOW) -> None:
    whole = [{"endpoint": "e", "owner": "me", "given_at": at, **row} for row in rows]
    write_part(feedback_folder(home, "e"), pa.Table.from_pylist(whole, schema=feedback_schema()))


def measured(home: Home, **how: Any) -> LiveScores:
    [found] = measure_live(home, "e", {"u1": [BOUGHT]}, **how)
    return found


def test_rows_are_joined_by_request_and_number(tmp_path: Path) -> None:
    home = Home(tmp_path)
    log_classes(
        home, "u1", [{"request_id": "a", "yes": 0.9}, {"request_id": "a", "row": 1, "yes": 0.2}, {"request_id": "b", "yes": 0.6}]
    )
    tell(
        home,
        {"request_id": "a", "truth": "yes"},
        {"request_id": "a", "row": 1, "truth": "no"},
        {"request_id": "c", "truth": "no"},
    )
    found = measured(home)
    assert (found.logged, found.role, found.scores.rows) == (3, "serves", 2)
    assert found.scores.raw[:, 1].tolist() == [0.9, 0.2]
    assert found.scores.actual is not None
    assert found.scores.actual.tolist() == [1, 0]
    expected = classification_metrics(np.array([1, 0]), np.array([[0.1, 0.9], [0.8, 0.2]]))
    assert found.scores.measure() == pytest.approx(expected)


def test_rows_are_joined_by_key_where_the_request_is_not_known(tmp_path: Path) -> None:
    home = Home(tmp_path)
    rows = [
        {"request_id": "a", "key": "7", "yes": 0.9},
        {"request_id": "b", "key": "7", "yes": 0.8},
        {"request_id": "c", "yes": 0.7},
    ]
    log_classes(home, "u1", rows)
    tell(home, {"key": "7", "truth": "no"}, {"request_id": "b", "truth": "yes"})
    found = measured(home)
    assert found.scores.actual is not None
    assert dict(zip(found.scores.raw[:, 1].tolist(), found.scores.actual.tolist(), strict=True)) == {0.9: 0, 0.8: 1}


def test_the_newest_truth_counts(tmp_path: Path) -> None:
    home = Home(tmp_path)
    log_classes(home, "u1", [{"request_id": "a", "yes": 0.9}])
    tell(home, {"request_id": "a", "truth": "no"}, at=NOW + timedelta(days=1))
    tell(home, {"request_id": "a", "truth": "yes"}, at=NOW)
    found = measured(home)
    assert found.scores.actual is not None
    assert found.scores.actual.tolist() == [0]


def test_versions_and_roles_are_measured_apart_and_in_order(tmp_path: Path) -> None:
    home = Home(tmp_path)
    log_classes(home, "u1", [{"request_id": "a", "yes": 0.9}, {"request_id": "b", "yes": 0.9, "role": "shadow"}])
    log_classes(home, "u2", [{"request_id": "b", "yes": 0.1}], version=2)
    log_classes(home, "gone", [{"request_id": "b", "yes": 0.1}], version=3)
    tell(home, {"request_id": "a", "truth": "yes"}, {"request_id": "b", "truth": "no"})
    found = measure_live(home, "E", {"u2": [BOUGHT], "u1": [BOUGHT], "u9": [BOUGHT]})
    assert [(s.uid, s.role, s.logged, s.scores.rows) for s in found] == [
        ("u2", "serves", 1, 1),
        ("u1", "serves", 1, 1),
        ("u1", "shadow", 1, 1),
    ]


def test_of_several_targets_each_has_its_own_truth(tmp_path: Path) -> None:
    home = Home(tmp_path)
    outputs = pa.struct([*CLASSES.field("outputs").type, ("predicted_spent", pa.float64())])
    row = {"endpoint": "e", "request_id": "a", "row": 0, "role": "serves", "logged_at": NOW}
    row["outputs"] = {"predicted_bought": "no", "predicted_bought_probs": {"no": 0.7, "yes": 0.3}, "predicted_spent": 5.0}
    schema = predictions_schema(CLASSES.field("inputs").type, outputs)
    write_part(predictions_folder(home, "e", "u1"), pa.Table.from_pylist([row], schema=schema))
    tell(home, {"request_id": "a", "target": "BOUGHT", "truth": "no"}, {"request_id": "a", "target": "spent", "truth": "7"})
    tell(home, {"request_id": "a", "truth": "9"})  # of which target?
    bought, spent = measure_live(home, "e", {"u1": [BOUGHT, SPENT]})
    assert bought.scores.actual is not None
    assert spent.scores.actual is not None
    assert (bought.scores.actual.tolist(), spent.scores.actual.tolist()) == ([0], [7.0])
    assert spent.scores.measure() == pytest.approx(regression_metrics(np.array([7.0]), np.array([5.0])), nan_ok=True)


def test_only_what_is_new_enough(tmp_path: Path) -> None:
    home = Home(tmp_path)
    log_classes(
        home, "u1", [{"request_id": "a", "yes": 0.9}, {"request_id": "b", "yes": 0.9, "logged_at": NOW + timedelta(hours=2)}]
    )
    tell(home, {"request_id": "a", "truth": "yes"}, {"request_id": "b", "truth": "no"})
    found = measured(home, since=NOW + timedelta(hours=1))
    assert (found.logged, found.scores.rows) == (1, 1)


def test_what_is_no_class_or_number_is_not_measured(tmp_path: Path) -> None:
    assert class_codes(pa.array(["yes", "YES", None, "maybe"]), ("no", "yes")).tolist() == [1, -1, -1, -1]
    assert class_codes(pa.array(["Yes", "0", "true", "2"]), (False, True)).tolist() == [1, 0, 1, -1]
    assert class_codes(pa.array(["3", "3.0", "3.5", "x"]), (1, 3)).tolist() == [1, 1, -1, -1]
    assert class_codes(pa.array(["0.5", "1"]), (0.5, 1.0)).tolist() == [0, 1]
    assert class_codes(pa.array(["0.50", "x", "1"]), (0.5, 1.0)).tolist() == [0, -1, 1]
    numbers = number_truths(pa.array([" 1.5 ", "-2", "1e3", "x", None, "inf", "0x1"]))
    assert numbers[:3].tolist() == [1.5, -2.0, 1000.0]
    assert np.isnan(numbers[3:]).all()


def test_a_truth_means_something_where_it_does_to_any_version() -> None:
    newer = TargetColumn("bought", "VARCHAR", Task.CLASSIFICATION, ("maybe", "no", "yes"))
    truths = pa.array(["yes", "maybe", "perhaps"])
    assert first_meaningless(truths, [BOUGHT]) == 1
    assert first_meaningless(truths, [BOUGHT, newer]) == 2
    assert first_meaningless(truths, []) is None
    assert meaningless("perhaps", [BOUGHT, newer]) == (
        "the truth 'perhaps' is none of the classes of bought",
        "they are: no, yes, maybe",
    )
    assert first_meaningless(pa.array(["1.5", "-3"]), [SPENT]) is None
    assert first_meaningless(pa.array(["1.5", "plenty"]), [SPENT]) == 1
    assert meaningless("plenty", [SPENT])[0] == "the truth 'plenty' is no number, and spent is one"


def test_without_a_log_or_without_feedback_there_is_nothing_to_measure(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert measure_live(home, "e", {"u1": [BOUGHT]}) == []
    log_classes(home, "u1", [{"request_id": "a", "yes": 0.9}])
    found = measured(home)
    assert (found.logged, found.scores.rows) == (1, 0)
    assert set(found.scores.measure().values()) == {None}


# --- the statement ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[sqlml.Connection]:
    """Two versions of a model of classes behind the endpoint e, without a server."""
    with sqlml.connect(tmp_path / "bank.duckdb") as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT range % 60 AS age, ['cook', 'clerk'][1 + range % 2] AS job, "
            "CASE WHEN range % 60 > 30 THEN 'yes' ELSE 'no' END AS bought FROM range(300); "
            "TRAIN MODEL m USING logistic_regression TARGET bought ON inline AS FROM t; "
            "TRAIN MODEL m USING logistic_regression TARGET bought ON inline AS FROM t; "
        )
        yield connection


def behind_e(connection: sqlml.Connection, *shares: tuple[str, int, int]) -> dict[tuple[str, int], str]:
    """Put versions behind the endpoint e in the catalog; their uids."""
    from sqlml.catalog import Catalog, Share

    assert connection.models_home is not None
    catalog = Catalog.open(Path(connection.models_home))
    uids = {(model, version): catalog.resolve(model, version).uid for model, version, _ in shares}
    arms = [Share(uids[model, version], weight=weight) for model, version, weight in shares]
    catalog.put_endpoint("e", arms, options={}, reason="test")
    catalog.close()
    return uids


def dicts(connection: sqlml.Connection, statement: str, values: Any = ()) -> list[dict[str, Any]]:
    return list(connection.execute(statement, values).fetch_arrow_table().to_pylist())


def test_evaluate_endpoint(bank: sqlml.Connection) -> None:
    uids = behind_e(bank, ("m", 1, 90), ("m", 2, 10))
    assert bank.models_home is not None
    home = Home(Path(bank.models_home))
    assert dicts(bank, "EVALUATE ENDPOINT e") == []
    chance = np.random.default_rng(0)
    requests: list[dict[str, Any]] = [
        {"request_id": f"r{i}", "yes": float(chance.random()), "job": ["cook", "clerk", None][i % 3], "age": i % 4}
        for i in range(60)
    ]
    log_classes(home, uids["m", 1], [r | {"logged_at": now()} for r in requests[:40]])
    log_classes(home, uids["m", 2], [r | {"logged_at": now() - timedelta(days=9)} for r in requests[40:]], version=2)
    bank.execute(
        "INSERT INTO sqlml.feedback (endpoint, request_id, truth) SELECT endpoint, request_id, "
        "CASE WHEN (outputs->'predicted_bought_probs'->>'yes')::DOUBLE > 0.3 THEN 'yes' ELSE 'no' END "
        "FROM sqlml.predictions WHERE request_id <> 'r0'"
    )
    first, second = dicts(bank, "EVALUATE ENDPOINT e")
    assert [first[name] for name in ("model", "version", "role", "predictions", "rows")] == ["m", 1, "serves", 40, 39]
    assert [second[name] for name in ("version", "predictions", "rows")] == [2, 20, 20]
    raw = np.array([[1 - r["yes"], r["yes"]] for r in requests[1:40]])
    expected = classification_metrics((raw[:, 1] > 0.3).astype(int), raw)
    assert {name: first[name] for name in expected} == pytest.approx(expected)
    [with_threshold, _] = dicts(bank, "EVALUATE ENDPOINT e WITH (threshold = 0.3)")
    assert with_threshold["accuracy"] == 1.0
    [recent] = dicts(bank, "EVALUATE ENDPOINT e WITH (last = ?)", ["7 days"])
    assert recent["version"] == 1
    sliced = dicts(bank, "EVALUATE ENDPOINT e BY JOB")
    assert [(row["version"], row["job"], row["rows"]) for row in sliced][:3] == [(1, "clerk", 13), (1, "cook", 13), (1, None, 13)]
    assert "predictions" not in sliced[0]
    two = dicts(bank, "EVALUATE ENDPOINT e BY age, job WITH (last = '1 day')")
    assert len(two) == 12


def test_evaluate_endpoint_goes_on_with_versions_that_left(bank: sqlml.Connection) -> None:
    uids = behind_e(bank, ("m", 1, 100))
    assert bank.models_home is not None
    log_classes(Home(Path(bank.models_home)), uids["m", 1], [{"request_id": "a", "yes": 0.9}])
    behind_e(bank, ("m", 2, 100))
    assert [row["version"] for row in dicts(bank, "EVALUATE ENDPOINT e")] == [1]
    bank.execute("ALTER MODEL m RENAME TO n")
    assert [row["model"] for row in dicts(bank, "EVALUATE ENDPOINT e")] == ["n"]
    bank.execute("DROP MODEL n@1")
    assert dicts(bank, "EVALUATE ENDPOINT e") == []
    assert bank.execute("SELECT count(*) FROM sqlml.predictions").fetchall() == [(1,)]


def test_feedback_that_matches_no_prediction_is_told(bank: sqlml.Connection) -> None:
    uids = behind_e(bank, ("m", 1, 100))
    assert bank.models_home is not None
    log_classes(Home(Path(bank.models_home)), uids["m", 1], [{"request_id": "a", "yes": 0.9}])
    assert str(bank.execute("EVALUATE ENDPOINT e").footer).startswith("no feedback yet: INSERT INTO sqlml.feedback")
    bank.execute("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('e', 'b', 'yes'), ('e', 'c', 'no')")
    footer = str(bank.execute("EVALUATE ENDPOINT e").footer)
    assert footer.startswith("no feedback matches a logged prediction: of 2 rows for e none has the request_id and row of one")
    [shown] = bank.execute(footer.rpartition(" in ")[2]).fetchall()
    assert shown == ("a", 0, None)
    bank.execute("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('e', 'a', 'yes')")
    assert bank.execute("EVALUATE ENDPOINT e").footer == "e: 1 row with feedback, of 3 that were given"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("EVALUATE ENDPOINT f", "unknown endpoint f"),
        ("EVALUATE ENDPOINT e BY jbo", "the endpoint takes no column jbo"),
        ("EVALUATE ENDPOINT e WITH (folds = 3)", "EVALUATE ENDPOINT has no option folds"),
        ("EVALUATE ENDPOINT e WITH (last = 0)", "option last of EVALUATE ENDPOINT is a length of time"),
        ("EVALUATE ENDPOINT e WITH (threshold = 2)", "option threshold"),
    ],
)
def test_what_evaluate_endpoint_refuses(bank: sqlml.Connection, statement: str, message: str) -> None:
    behind_e(bank, ("m", 1, 100))
    with pytest.raises(sqlml.ProgrammingError, match=message):
        bank.execute(statement)


@pytest.mark.slow
def test_the_same_over_postgres(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with sqlml.connect(postgres) as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT i % 60 AS age, CASE WHEN i % 60 > 30 THEN 'yes' ELSE 'no' END AS bought "
            "FROM generate_series(0, 299) AS numbers(i); "
            "TRAIN MODEL m USING logistic_regression TARGET bought ON inline AS SELECT * FROM t"
        )
        assert dicts(connection, "SELECT * FROM sqlml.predictions") == []
        uids = behind_e(connection, ("m", 1, 100))
        assert connection.models_home is not None
        rows = [{"request_id": f"r{i}", "yes": i / 10, "age": i} for i in range(10)]
        log_classes(Home(Path(connection.models_home)), uids["m", 1], rows)
        cursor = connection.execute(
            "INSERT INTO sqlml.feedback (endpoint, request_id, truth) SELECT p.endpoint, p.request_id, "
            "CASE WHEN (p.outputs::json->'predicted_bought_probs'->>'yes')::float > $1 THEN 'yes' ELSE 'no' END "
            "FROM sqlml.predictions p JOIN (SELECT DISTINCT age FROM t) own ON own.age = (p.inputs::json->>'age')::int",
            [0.55],
        )
        assert cursor.rowcount == 10
        cursor.execute("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES (?, ?, ?)", ["e", "r9", "no"])
        assert dicts(connection, "SELECT count(*) AS n FROM sqlml.feedback WHERE truth = 'no'") == [{"n": 7}]
        [row] = dicts(connection, "EVALUATE ENDPOINT e")
        assert (row["rows"], row["accuracy"]) == (10, 0.9)
        assert [r["traffic"] for r in dicts(connection, "SHOW ENDPOINTS")] == [100]
        connection.execute("BEGIN")
        with pytest.raises(sqlml.NotSupportedError, match="cannot run inside an open transaction"):
            connection.execute("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('e', 'r9', 'no')")
        connection.execute("ROLLBACK")
