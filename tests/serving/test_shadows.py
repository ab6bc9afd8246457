"""Versions in the shadow: every request comes to them too, and nobody hears what they say."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sqlml_runners.serving.shadows import Line

from sqlml.catalog import Share
from sqlml.home import Home
from sqlml.prediction_log import prediction_files, predictions_folder
from sqlml.types import Task
from tests.serving.conftest import EXAMPLE, Place
from tests.serving.test_lifecycle import until

REQUESTS = 12


def test_work_for_which_there_is_no_room_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    line, begun, held, done = Line("line", 2), threading.Event(), threading.Event(), list[int]()

    def work() -> None:
        begun.set()
        held.wait(20)
        done.append(1)

    with caplog.at_level(logging.WARNING, "sqlml.serving"):
        assert line.put(work, "e")
        assert begun.wait(20)  # one is at work, two may wait
        assert [line.put(work, "e") for _ in range(4)] == [True, True, False, False]
    assert [record.getMessage() for record in caplog.records] == [
        "copies of requests for e come quicker than they are answered: some are left out"
    ]
    held.set()
    assert until(lambda: len(done) == 3, 20)


def test_a_shadow_gets_a_copy_of_each_request_and_answers_nobody(place: Place) -> None:
    first = place.publish("m", seed=1, task=Task.CLASSIFICATION)
    second = place.publish("m", seed=2, task=Task.CLASSIFICATION)
    shares = [Share(first.uid), Share(second.uid, "shadow", 0)]
    revision = place.catalog.put_endpoint("e", shares, options={}, reason="DEPLOY")
    place.server.wait_ready("e", revision, 30)

    asked = [place.call("/models/e/predict", {"rows": [EXAMPLE, {}]}) for _ in range(REQUESTS)]
    refused, _ = place.call("/models/e/predict", {"rows": [{"age": "old"}]})
    place.call("/models/e:explain", {"rows": [EXAMPLE]})
    assert [(status, answer["version"]) for status, answer in asked] == [(200, 1)] * REQUESTS
    assert refused == 422

    def counted() -> dict[str, int]:
        return {arm.uid: arm.requests for arm in place.server.states()["e"].arms}

    assert until(lambda: counted() == {first.uid: REQUESTS + 2, second.uid: REQUESTS}, 20), counted()

    def files() -> list[Path]:
        return prediction_files(Home(place.folder), "e").get(predictions_folder(Home(place.folder), "e", second.uid), [])

    def logged() -> int:
        return sum(pq.read_table(file).num_rows for file in files())

    assert until(lambda: logged() == 2 * REQUESTS, 20), logged()
    assert {role for file in files() for role in pq.read_table(file)["role"].to_pylist()} == {"shadow"}
