"""Pure decisions: who is to blame for a dead worker, how many there should be, what leaves memory; and how things are counted."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from sqlml_runners.serving.channel import ArmFigures
from sqlml_runners.serving.figures import Tally, Totals, bucket, bucket_end, quantile
from sqlml_runners.serving.flight import Flight, Recorder, new_record, read_marks
from sqlml_runners.serving.scaling import RISE_SECONDS, Bounds, Demand, Scaler, Scalers, bounds_of, evicted, shed
from sqlml_runners.serving.strikes import Death, Strikes

SEGV = -signal.SIGSEGV

# --- blame ------------------------------------------------------------------------------------------------------------


def test_who_was_loaded_alone_is_to_blame_at_once() -> None:
    assert Strikes().blame(Death(SEGV, loading=7), 0) == [7]


def test_beside_requests_a_load_is_to_blame_the_second_time() -> None:
    strikes = Strikes()
    assert strikes.blame(Death(SEGV, loading=7, running={3}), 0) == []
    assert strikes.blame(Death(SEGV, loading=7, running={4}), 1) == [7]


def test_what_runs_is_to_blame_the_third_time_within_a_minute() -> None:
    strikes = Strikes()
    assert [strikes.blame(Death(SEGV, running={3}), at) for at in (0, 50, 70, 80)] == [[], [], [], [3]]


@pytest.mark.parametrize("status", [0, None, -signal.SIGKILL, -signal.SIGTERM])
def test_no_version_is_to_blame_for_what_others_do(status: int | None) -> None:
    strikes = Strikes()
    assert [strikes.blame(Death(status, loading=7, running={3}), at) for at in range(5)] == [[]] * 5
    assert strikes.pause(5) == 0


def test_the_want_of_memory_is_blamed_on_what_was_loaded() -> None:
    death = Death(-signal.SIGKILL, loading=7, starved=True)
    assert Strikes().blame(death, 0) == [7]
    assert death.words() == "out of memory"


def test_crashes_one_after_the_other_make_the_next_worker_wait() -> None:
    strikes, pauses = Strikes(), []
    for at in range(9):
        strikes.blame(Death(1), at / 10)
        pauses.append(strikes.pause(at / 10))
    assert pauses == [0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0]
    assert strikes.pause(60) == 0


def test_marks_outlive_the_process_that_set_them() -> None:
    record = new_record()
    pid = os.fork()
    if pid == 0:
        recorder = Recorder(record)
        started = threading.Event()

        def fly() -> None:
            with Flight(recorder, 42):
                started.set()
                threading.Event().wait()

        threading.Thread(target=fly, daemon=True).start()
        started.wait()
        with Flight(recorder, 1):
            pass
        with Flight(recorder, 43):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert read_marks(record) == {42, 43}
    os.close(record)


# --- how many ---------------------------------------------------------------------------------------------------------


def demand(least: int, most: int, queue: float = 0.0, *, used: bool = True) -> Demand:
    return Demand(bounds_of(least, most, used=used), queue)


def test_the_server_has_as_many_workers_as_who_asks_for_most() -> None:
    def at_once(workers: int, *demands: Demand) -> int:
        return Scalers(30).decide(0, workers, dict(enumerate(demands)))  # type: ignore[arg-type]

    assert at_once(1) == at_once(5) == 1
    assert at_once(1, demand(1, 1), demand(3, 3)) == 3
    assert at_once(8, demand(1, 8), demand(2, 2)) == 8
    assert at_once(8, demand(1, 8, used=False), demand(2, 2)) == 2


def test_an_endpoint_s_own_queue_is_what_it_gets_more_for() -> None:
    light, heavy = demand(1, 8, 0.1), demand(1, 1, 50.0)  # who may have one worker has to live with it
    scalers = Scalers(30)
    assert [scalers.decide(at, 1, {"light": light, "heavy": heavy}) for at in (0, 5, 10)] == [1, 1, 1]
    busy = {"light": demand(1, 8, 10.0), "heavy": heavy}
    assert [scalers.decide(at, 1, busy) for at in (20, 20 + RISE_SECONDS)] == [1, 2]


def test_a_worker_leaves_when_every_endpoint_has_had_enough_for_long() -> None:
    scalers = Scalers(30)
    calm, busy = demand(1, 8, 0.1), demand(1, 8, 1.9)
    assert [scalers.decide(at, 4, {"a": calm, "b": busy}) for at in (0, 30, 45)] == [4, 4, 4]
    assert [scalers.decide(at, 4, {"a": calm, "b": calm}) for at in (46, 75, 76, 77)] == [4, 4, 3, 3]
    assert scalers.decide(78, 3, {"a": calm, "b": calm}) == 3


def test_bounds_hold_at_once() -> None:
    assert Scaler(30).decide(0, 1, 0.0, Bounds(3, 5)) == 3
    assert Scaler(30).decide(0, 9, 50.0, Bounds(3, 5)) == 5


def test_more_come_when_requests_wait_for_a_while() -> None:
    scaler, bounds = Scaler(30), Bounds(1, 8)
    assert scaler.decide(0, 1, 10.0, bounds) == 1
    assert scaler.decide(RISE_SECONDS / 2, 1, 10.0, bounds) == 1
    assert scaler.decide(RISE_SECONDS, 1, 10.0, bounds) == 2
    assert scaler.decide(RISE_SECONDS + 0.1, 2, 10.0, bounds) == 2
    assert scaler.decide(2 * RISE_SECONDS + 0.1, 2, 10.0, bounds) == 4
    assert scaler.decide(2 * RISE_SECONDS + 0.2, 4, 1.0, bounds) == 4


def test_one_leaves_when_fewer_would_have_done_for_long() -> None:
    scaler, bounds = Scaler(30), Bounds(1, 8)
    assert [scaler.decide(at, 4, 0.1, bounds) for at in (0, 29.9, 30)] == [4, 4, 3]
    assert scaler.decide(31, 3, 0.1, bounds) == 3
    assert scaler.decide(40, 3, 1.5, bounds) == 3  # work again
    assert scaler.decide(62, 3, 0.1, bounds) == 3
    assert scaler.decide(92, 3, 0.1, bounds) == 2


def test_who_has_many_connections_lets_some_go() -> None:
    assert shed({}) == {}
    assert shed({1: 100}) == {}
    assert shed({1: 4, 2: 4, 3: 5}) == {}
    assert shed({1: 8, 2: 0}) == {1: 4}
    assert shed({1: 30, 2: 0, 3: 0}) == {1: 20}
    assert shed({1: 1, 2: 0}) == {}


def test_the_least_recently_used_leave_first() -> None:
    memory, used = {"a": 10, "b": 10, "c": 10}, {"a": 3.0, "b": 1.0, "c": 2.0}
    assert evicted(memory, used, (), 30) == []
    assert evicted(memory, used, (), 25) == ["b"]
    assert evicted(memory, used, (), 5) == ["b", "c", "a"]
    assert evicted(memory, used, ("b",), 15) == ["c", "a"]


# --- counts -----------------------------------------------------------------------------------------------------------


def test_a_latency_is_within_a_fifth_of_its_bucket() -> None:
    for seconds in (1e-6, 3e-5, 0.0012, 0.5, 70):
        assert seconds <= bucket_end(bucket(seconds)) * 1.0000001 <= seconds * 1.2
    assert bucket(0) == bucket(1e-7) == 0


def test_quantiles() -> None:
    assert quantile({}, 0.5) is None
    latencies = {bucket(0.001): 99, bucket(1.0): 1}
    assert quantile(latencies, 0.5) == pytest.approx(0.001, rel=0.2)
    assert quantile(latencies, 0.99) == pytest.approx(0.001, rel=0.2)
    assert quantile(latencies, 0.995) == pytest.approx(1.0, rel=0.2)


def test_a_tally_gives_what_came_since_the_last_time() -> None:
    tally = Tally()
    for i in range(10):
        tally.begin("e")
        tally.count("e", "u", 0.001, 200 if i else 500)
        if i < 8:
            tally.end("e")
    [figures] = tally.take()
    assert (figures.requests, figures.errors, sum(figures.latencies.values())) == (10, 1, 10)
    assert tally.take() == ()
    assert tally.under_way() == {"e": 2}
    assert (tally.waiting("e"), tally.waiting("f"), tally.total) == (2, 0, 2)


def test_a_tally_counts_each_endpoint_s_queue_by_itself() -> None:
    tally = Tally()
    for _ in range(3):
        tally.begin("slow")
    for _ in range(4):
        tally.begin("quick")
        tally.end("quick")
    assert tally.take_queues() == {"slow": 2.0, "quick": 1.0}
    assert tally.take_queues() == {}
    tally.begin("slow")
    assert tally.take_queues() == {"slow": 4.0}


def test_totals_add_workers_up_and_forget_old_latencies() -> None:
    totals = Totals()
    for at, seconds in ((0, 1.0), (50, 0.001)):
        totals.add(ArmFigures("e", "u", 10, 1, {bucket(seconds): 10}), at)
    both, later = totals.of("e", "u", 55), totals.of("e", "u", 61)
    assert (both.requests, both.errors) == (later.requests, later.errors) == (20, 2)
    assert both.latency_p99 == pytest.approx(1.0, rel=0.2)
    assert later.latency_p99 == pytest.approx(0.001, rel=0.2)
    assert totals.of("e", "other", 61).latency_p50 is None
    totals.forget("e")
    assert totals.of("e", "u", 61).requests == 0
