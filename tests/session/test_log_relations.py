"""``sqlml.predictions`` over files of any content: what it shows as JSON is JSON."""

from __future__ import annotations

import json
import math
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from sqlml_runners.serving.control import LocalServer
from sqlml_runners.serving.state import read_state

import sqlml
from sqlml.home import Home, home_of
from sqlml.prediction_log import predictions_folder, predictions_schema, write_part
from sqlml.statements.log_relations import finite_sql, log_relations
from tests.serving.load import until

INPUTS = pa.struct([
    ("a \"b\"", pa.float64()), ("n", pa.int64()), ("text", pa.string()), ("vec", pa.list_(pa.float64())),
    ("words", pa.list_(pa.string())),
])  # fmt: skip
OUTPUTS = pa.struct([("predicted_y", pa.float64()), ("predicted_y_probs", pa.struct([("yes", pa.float64())]))])
ROWS = [
    (
        {'a "b"': math.nan, "n": 1, "text": ":NaN, [Infinity", "vec": [math.inf, 1.0, None], "words": ["NaN"]},
        (-math.inf, math.nan),
    ),
    ({'a "b"': 2.5, "n": None, "text": None, "vec": None, "words": None}, (1.0, 0.5)),
]
SHOWN = [
    {'a "b"': None, "n": 1, "text": ":NaN, [Infinity", "vec": [None, 1.0, None], "words": ["NaN"]},
    {'a "b"': 2.5, "n": None, "text": None, "vec": None, "words": None},
]
ANSWERED = [
    {"predicted_y": None, "predicted_y_probs": {"yes": None}},
    {"predicted_y": 1.0, "predicted_y_probs": {"yes": 0.5}},
]


def write(home: Home) -> None:
    rows = []
    for i, (given, (number, prob)) in enumerate(ROWS):
        answer = {"predicted_y": number, "predicted_y_probs": {"yes": prob}}
        rows.append({"endpoint": "e", "request_id": "r", "row": i, "inputs": given, "outputs": answer})
    write_part(predictions_folder(home, "e", "u"), pa.Table.from_pylist(rows, schema=predictions_schema(INPUTS, OUTPUTS)))


def strict(text: str) -> object:
    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    database = tmp_path / "a.duckdb"
    with sqlml.connect(database) as connection:
        write(Home(home_of(database)))
        shown = connection.execute("SELECT inputs, outputs FROM sqlml.predictions ORDER BY row").fetchall()
    assert [strict(inputs) for inputs, _ in shown] == SHOWN
    assert [strict(outputs) for _, outputs in shown] == ANSWERED


def test_the_same_where_the_rows_are_copied(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write(home)
    predictions, _ = log_relations(home)
    rows = predictions.reader().read_all().to_pylist()
    assert [strict(row["inputs"]) for row in rows] == SHOWN
    assert [strict(row["outputs"]) for row in rows] == ANSWERED


@pytest.mark.parametrize("kind", [pa.string(), pa.struct([("a", pa.int64())]), pa.list_(pa.list_(pa.string()))])
def test_what_has_no_such_number_is_left_as_it_is(kind: pa.DataType) -> None:
    assert finite_sql("x", kind) == "x"


# --- beside a server that runs ----------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[sqlml.Connection, LocalServer]]:
    """A model behind the endpoint ``e``, in two workers, and a connection to its database."""
    with sqlml.connect(tmp_path / "a.duckdb") as connection:
        connection.execute(
            "CREATE TABLE t AS SELECT range AS x, CASE WHEN range > 40 THEN 'yes' ELSE 'no' END AS y FROM range(80); "
            "TRAIN MODEL m USING logistic_regression TARGET y ON inline AS FROM t; "
            "DEPLOY MODEL m TO ENDPOINT e WITH (replicas = 2)"
        )
        server = LocalServer(home_of(tmp_path / "a.duckdb"))
        assert until(lambda: sum(worker["takes_requests"] for worker in server.workers()) == 2, 20)
        yield connection, server
        server.stop()


def post(server: LocalServer, what: str, body: object) -> int:
    asked = urllib.request.Request(f"{server.url()}/models/e/{what}", json.dumps(body).encode(), {"x-request-id": "r"})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return int(answer.status)


@pytest.mark.slow
def test_what_was_answered_is_there_at_once(served: tuple[sqlml.Connection, LocalServer]) -> None:
    connection, server = served
    for number in range(1, 31):
        assert post(server, "predict", {"rows": [{"x": number}, {"x": number + 30}]}) == 200
        if number % 10 == 0:
            assert connection.execute("SELECT count(*) FROM sqlml.predictions").fetchall() == [(2 * number,)]
    assert post(server, "predict", {"rows": [{"x": 1}] * 3000}) == 200  # answered in a thread
    assert connection.execute("SELECT count(*) FROM sqlml.predictions").fetchall() == [(3060,)]
    assert post(server, "feedback", {"request_id": "r", "truth": "no"}) == 202
    assert connection.execute("SELECT request_id, truth FROM sqlml.feedback").fetchall() == [("r", "no")]
    assert post(server, "feedback", {"request_id": "r", "row": 1, "truth": "yes"}) == 202
    assert post(server, "predict", {"rows": [{"x": 1}, {"x": 2}]}) == 200
    [row] = connection.execute("EVALUATE ENDPOINT e").fetch_arrow_table().to_pylist()
    assert row["predictions"] == 3062


@pytest.mark.slow
def test_a_server_that_hangs_keeps_nobody_waiting(served: tuple[sqlml.Connection, LocalServer]) -> None:
    connection, server = served
    assert post(server, "predict", {"rows": [{"x": 1}]}) == 200
    state = read_state(home_of(Path(str(connection.models_home)).with_suffix(".duckdb")))
    assert state is not None
    for stopped in ([worker["pid"] for worker in server.workers()], [state.pid]):
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            connection.execute("SELECT count(*) FROM sqlml.predictions").fetchall()
            assert time.monotonic() - began < 2
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
    assert until(lambda: connection.execute("SELECT count(*) FROM sqlml.predictions").fetchall() == [(1,)], 20)
