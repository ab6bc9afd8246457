"""Feedback over HTTP on versions that have left: what could have been true of their predictions is taken, and nothing else."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from sqlml.catalog import Version
from sqlml.earlier_targets import MOST, earlier_targets, with_targets
from sqlml.plan import TargetColumn
from sqlml.types import Task
from tests.bundles.handmade import Learn
from tests.serving.conftest import Place

X = pa.table({"x": pa.array([float(i) for i in range(60)])})


def classes(name: str, *values: Any) -> TargetColumn:
    return TargetColumn(name, "VARCHAR", Task.CLASSIFICATION, values)


def number(name: str) -> TargetColumn:
    return TargetColumn(name, "DOUBLE", Task.REGRESSION)


def test_targets_are_kept_where_their_truths_are_others() -> None:
    left = [classes("Y", "yes", "no"), classes("y", "maybe", "no"), number("y"), number("z")]
    options = with_targets({"log": 1.0}, [classes("y", "no", "yes")], left)
    assert earlier_targets(options) == tuple(left[1:])
    assert with_targets(options, left, earlier_targets(options)) == {"log": 1.0}
    many = [classes("y", n) for n in range(MOST + 3)]
    assert earlier_targets(with_targets({}, [], [*many, many[-1]])) == tuple(many[3:])


@pytest.mark.slow  # a server
def test_a_late_truth_is_taken_for_a_version_that_has_left(place: Place) -> None:
    def learn(target: str, *labels: str) -> Version:
        wanted = pa.array([labels[i % len(labels)] for i in range(60)])
        return place.publish_made("m", X, Learn("logistic_regression", target, wanted), example={"x": 1.0})

    def tell(truth: str | float, **more: Any) -> int:
        status, _ = place.call("/models/e/feedback", {"feedback": [{"request_id": "r", "truth": truth, **more}]})
        return status

    first, second, third = learn("y", "yes", "no"), learn("y", "yes", "never"), learn("other", "up", "down")
    place.serve(first, "e")
    assert [tell("no"), tell("never"), tell("up", target="other")] == [202, 422, 422]
    place.serve(second, "e")
    assert [tell("no"), tell("never"), tell("nope"), tell("no", target="Y")] == [202, 202, 422, 202]
    place.serve(third, "e")
    assert [tell("up"), tell("no", target="y"), tell("up", target="y"), tell("nope", target="y")] == [202, 202, 422, 422]
    assert tell("no", target="z") == 422
    revision = place.catalog.rollback_endpoint("e")
    place.server.wait_ready("e", revision, 20)
    assert [tell("never"), tell("up", target="other"), tell("down", target="y")] == [202, 202, 422]
