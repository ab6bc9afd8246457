"""When a version that is tried out is promoted or rolled back: figures in, a decision out."""

import pytest

from sqlml.rollout import PROMOTE, ROLL_BACK, WAIT, Figures, Guard, guard_of, judge

NOTHING = Figures()


def test_a_guard_comes_back_from_json() -> None:
    guard = Guard("abc", promote_after=10, metric="roc_auc", maximize=True)
    assert guard_of({"replicas": 2, "rollout": guard.to_json()}) == guard
    assert guard_of({"replicas": 2}) is None


@pytest.mark.parametrize(
    ("guard", "version", "action", "reason"),
    [
        (Guard("a", promote_after=1000), Figures(requests=999), WAIT, "999 of 1,000 requests"),
        (Guard("a", promote_after=1000), Figures(requests=1000, errors=900), PROMOTE, "all well after 1,000 requests"),
        (Guard("a", max_error_rate=0.1), Figures(requests=10**6, errors=10**5), WAIT, "1,000,000 requests, all well"),
        (Guard("a", 1000, max_error_rate=0.0), Figures(requests=1, errors=1), ROLL_BACK, "1 of 1 requests failed (1)"),
        (Guard("a", 1000, max_error_rate=0.01), Figures(), WAIT, "0 of 1,000 requests"),
        # one failure in two requests is no proof of more than 1 in 5 …
        (Guard("a", 1000, max_error_rate=0.2), Figures(requests=2, errors=1), WAIT, "2 of 1,000 requests"),
        # … fifty in a hundred are
        (Guard("a", 1000, max_error_rate=0.2), Figures(requests=100, errors=50), ROLL_BACK, "more than max_error_rate = 0.2"),
        # at the end the share itself counts
        (Guard("a", 1000, max_error_rate=0.01), Figures(requests=1000, errors=11), ROLL_BACK, "11 of 1,000 requests failed"),
        (Guard("a", 1000, max_error_rate=0.01), Figures(requests=1000, errors=10), PROMOTE, "all well"),
        (Guard("a", 1000, max_latency=0.05), Figures(requests=99, latency_p99=0.2), WAIT, "99 of 1,000 requests"),
        (Guard("a", 1000, max_latency=0.05), Figures(requests=100, latency_p99=0.0625), ROLL_BACK, "62.5 ms"),
        (Guard("a", 50, max_latency=0.05), Figures(requests=50, latency_p99=0.0625), ROLL_BACK, "max_latency = 50 ms"),
        (Guard("a", 50, max_latency=0.05), Figures(requests=50, latency_p99=0.05), PROMOTE, "all well"),
        (Guard("a", 50, max_latency=0.05), Figures(requests=50, latency_p99=None), PROMOTE, "all well"),
    ],
)
def test_requests_failures_and_latency(guard: Guard, version: Figures, action: str, reason: str) -> None:
    found = judge(guard, version, NOTHING)
    assert found.action == action
    assert reason in found.reason


LESS = Guard("a", promote_after=10, metric="log_loss", tolerance=0.01)
MORE = Guard("a", promote_after=10, metric="roc_auc", maximize=True)


@pytest.mark.parametrize(
    ("guard", "version", "others", "action", "reason"),
    [
        (LESS, Figures(10, feedback=99, metric=0.2), Figures(90, feedback=500, metric=0.3), WAIT, "99 of 100 rows of feedback"),
        (LESS, Figures(10, feedback=100, metric=0.2), Figures(90, feedback=9, metric=0.3), WAIT, "9 of 100 rows of feedback"),
        (LESS, Figures(10, feedback=100, metric=0.2), Figures(90, feedback=100, metric=0.3), PROMOTE, "log_loss 0.2 against 0.3"),
        (LESS, Figures(10, feedback=100, metric=0.305), Figures(90, feedback=100, metric=0.3), PROMOTE, "all well"),
        (LESS, Figures(10, feedback=100, metric=0.32), Figures(90, feedback=100, metric=0.3), ROLL_BACK, "tolerance = 0.01"),
        (LESS, Figures(10, feedback=100, metric=None), Figures(90, feedback=100, metric=0.3), WAIT, "not defined"),
        (LESS, Figures(9, feedback=100, metric=0.9), Figures(90, feedback=100, metric=0.3), WAIT, "9 of 10 requests"),
        (MORE, Figures(10, feedback=100, metric=0.8), Figures(90, feedback=100, metric=0.8), PROMOTE, "all well"),
        (MORE, Figures(10, feedback=100, metric=0.79), Figures(90, feedback=100, metric=0.8), ROLL_BACK, "0.79 against 0.8"),
    ],
)
def test_the_metric_waits_for_feedback_on_both_sides(
    guard: Guard, version: Figures, others: Figures, action: str, reason: str
) -> None:
    found = judge(guard, version, others)
    assert found.action == action
    assert reason in found.reason


def test_without_promote_after_a_worse_metric_still_rolls_back() -> None:
    guard = Guard("a", metric="rmse", min_feedback=5)
    assert judge(guard, Figures(9, feedback=5, metric=2.0), Figures(9, feedback=5, metric=1.0)).action == ROLL_BACK
    assert judge(guard, Figures(9, feedback=5, metric=1.0), Figures(9, feedback=5, metric=1.0)).action == WAIT
