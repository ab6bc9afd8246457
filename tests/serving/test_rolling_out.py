"""Versions that share an endpoint on a real server: callers that stick by a column, faults that are taken back, logs by part."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sqlml.catalog.shares import Share
from sqlml.prediction_log import prediction_files
from sqlml.rollout import KEY, Guard
from tests.bundles.handmade import Learn
from tests.serving.conftest import EXAMPLE, Place
from tests.serving.grenade import install_grenade

pytestmark = pytest.mark.slow

ROWS = pa.table({"x": pa.array([1.0, 2.0, 3.0])})


def test_who_sticks_by_a_column_stays_with_a_version_and_the_weights_hold(place: Place) -> None:
    first, second = place.publish("m", seed=1), place.publish("m", seed=2)
    shares = [Share(first.uid, weight=70), Share(second.uid, weight=30)]
    revision = place.catalog.put_endpoint("m", shares, options={"sticky": "column:AGE", "replicas": 2}, reason="DEPLOY")
    place.server.wait_ready("m", revision, 30)

    def version_of(age: int) -> int:
        status, answer = place.call("/models/m/predict", {"rows": [{**EXAMPLE, "age": age}, EXAMPLE]})
        assert status == 200
        return int(answer["version"])

    found = {age: version_of(age) for age in range(300)}
    assert {age: version_of(age) for age in range(0, 300, 7)} == {age: found[age] for age in range(0, 300, 7)}
    share = sum(version == 2 for version in found.values())
    assert abs(share - 90) <= 3 * (300 * 0.3 * 0.7) ** 0.5
    status, answer = place.call("/v2/models/m/versions/2/infer", {"inputs": []})
    assert (status, "missing inputs" in answer["error"]) == (400, True)  # who asks for a version gets it, whatever the column


def test_a_version_that_fails_too_often_is_rolled_back(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_grenade(tmp_path / "site", monkeypatch)
    y = pa.array([1.0, 2.0, 3.0])
    good, bad = (
        place.publish_made("m", ROWS, Learn("grenade", "y", y, {"when": when}), example={"x": 1.0}).uid
        for when in ("never", "fault")
    )
    place.server.wait_ready("m", place.catalog.put_endpoint("m", [Share(good)], options={}, reason="DEPLOY"), 30)
    guard = Guard(bad, promote_after=100_000, max_error_rate=0.05)
    shares = [Share(good, weight=50), Share(bad, weight=50)]
    revision = place.catalog.put_endpoint("m", shares, options={KEY: guard.to_json()}, reason="DEPLOY")
    place.server.wait_ready("m", revision, 30)

    def alone() -> bool:
        endpoint = place.catalog.endpoint("m")
        return endpoint is not None and [arm.uid for arm in endpoint.arms] == [good]

    statuses = set()
    deadline = time.monotonic() + 60
    while not alone():
        assert time.monotonic() < deadline
        statuses |= {place.call("/models/m/predict", {"rows": [{"x": 666}]})[0] for _ in range(10)}
    assert statuses == {200, 500}
    [*_, change] = place.catalog.endpoint_changes()
    assert "max_error_rate = 0.05" in change["reason"]
    place.server.wait_ready("m", change["revision"], 30)
    assert [place.call("/models/m/predict", {"rows": [{"x": 666}]})[0] for _ in range(20)] == [200] * 20


def test_the_log_keeps_the_part_that_is_asked_for(place: Place) -> None:
    version = place.publish("m")
    for name, share in (("none", 0.0), ("some", 0.3)):
        revision = place.catalog.put_endpoint(name, [Share(version.uid)], options={"log": share}, reason="DEPLOY")
        place.server.wait_ready(name, revision, 30)
    for _ in range(400):
        for name in ("none", "some"):
            assert place.call(f"/models/{name}/predict", {"rows": [EXAMPLE]})[0] == 200
    assert place.server.stop()  # what was noted is written by now
    folder = place.catalog.home.predictions
    kept = sum(pq.read_metadata(path).num_rows for own in prediction_files(place.catalog.home, "some").values() for path in own)
    assert abs(kept - 120) <= 4 * (400 * 0.3 * 0.7) ** 0.5
    assert not (folder / "none").exists()
