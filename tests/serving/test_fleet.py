"""What the supervisor tells its workers, from what it knows of them: no process, no clock."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sqlml_runners.serving.channel import (
    Failed,
    Know,
    Listen,
    Load,
    Loaded,
    Loading,
    Park,
    Refuse,
    Remove,
    Route,
    Routed,
    Synced,
    ToWorker,
    Wanted,
    decode_to_supervisor,
    decode_to_worker,
    encode_message,
)
from sqlml_runners.serving.fleet import JOIN_MOST, Fleet

from sqlml.catalog import Arm, Endpoint

LARGE = 1 << 40


def endpoint(name: str = "e", revision: int = 1, version: int = 1) -> Endpoint:
    arm = Arm("m", version, f"uid{version}", Path("/b") / str(version), "sha", "")
    return Endpoint(name, (arm,), revision, datetime(2026, 1, 1, tzinfo=UTC))


class Crowd:
    """Workers who do as they are told, at once or when asked to; what they were told is kept."""

    def __init__(self, workers: int, budget: int = LARGE, memory: int = 1) -> None:
        self.fleet = Fleet(budget)
        self.memory = memory
        self.told: list[tuple[int, ToWorker]] = []
        self.broken: set[tuple[int, int]] = set()  # (worker, revision) that cannot be loaded there
        self.held: set[int] = set()  # workers that load nothing for now
        for number in range(1, workers + 1):
            self.fleet.join(number)

    def want(self, *endpoints: Endpoint, now: float = 0.0) -> None:
        self.fleet.want(endpoints, now)
        self.work(now)

    def work(self, now: float = 0.0) -> None:
        while orders := self.fleet.orders():
            self.told += orders
            for number, order in orders:
                self._do(number, order, now)

    def _do(self, number: int, order: ToWorker, now: float) -> None:
        match order:
            case Load(wanted) if number not in self.held:
                key, revision = wanted.name.lower(), wanted.revision
                self.fleet.hear(number, Loading(key, revision), now)
                broken = (number, revision) in self.broken
                done = Failed(key, revision, "rubbish") if broken else Loaded(key, revision, self.memory)
                self.fleet.hear(number, done, now)
            case Route(key, revision):
                self.fleet.hear(number, Routed(key, revision), now)
            case _:
                pass

    def kinds(self, worker: int) -> list[str]:
        return [type(order).__name__ for number, order in self.told if number == worker]

    def state(self, name: str = "e") -> tuple[str, int, str | None]:
        found = next(state for state in self.fleet.states() if state.name == name)
        return found.state, found.replicas, found.error


def test_a_message_is_a_line_and_comes_back() -> None:
    for message in (Load(endpoint("ü"), 7), Route("e", 3), Refuse(endpoint(), "because\nof it"), Synced()):
        line = encode_message(message)
        assert line.count(b"\n") == 1
        assert decode_to_worker(line) == message
    assert decode_to_supervisor(encode_message(Loaded("e", 1, 5, ("xgboost",)))) == Loaded("e", 1, 5, ("xgboost",))


def test_nothing_takes_connections_before_the_catalog_was_read() -> None:
    crowd = Crowd(1)
    crowd.work()
    assert crowd.told == []
    crowd.want()
    assert crowd.told == [(1, Synced()), (1, Listen(True))]


def test_one_worker_loads_first_and_all_route_together() -> None:
    crowd = Crowd(3)
    crowd.want()
    crowd.told.clear()
    crowd.held = {1, 2, 3}
    crowd.want(endpoint())
    assert [(n, type(o).__name__) for n, o in crowd.told] == [(1, "Know"), (2, "Know"), (3, "Know"), (1, "Load")]
    crowd.fleet.hear(1, Loaded("e", 1), 0)
    crowd.work()
    assert [(n, type(o).__name__) for n, o in crowd.told[4:]] == [(2, "Load"), (3, "Load")]
    crowd.fleet.hear(3, Loaded("e", 1), 0)
    crowd.work()
    assert crowd.state() == ("loading", 0, None)
    crowd.fleet.hear(2, Loaded("e", 1), 0)
    crowd.work()
    assert crowd.told[-3:] == [(1, Route("e", 1)), (2, Route("e", 1)), (3, Route("e", 1))]
    assert crowd.state() == ("ready", 3, None)
    assert crowd.fleet.news == ["loading: m@1 behind e", "ready: m@1 behind e, loaded in 0.0 s"]


def test_one_that_cannot_be_loaded_anywhere_goes_nowhere_and_the_old_one_stays() -> None:
    crowd = Crowd(2)
    crowd.want(endpoint())
    crowd.broken = {(2, 2)}
    crowd.want(endpoint(revision=2, version=2))
    assert crowd.state() == ("failed", 2, "rubbish")
    assert [o for _, o in crowd.told if isinstance(o, Route)] == [Route("e", 1)] * 2
    assert [n for n, o in crowd.told if isinstance(o, Refuse)] == [1, 2]
    crowd.broken = set()
    crowd.want(endpoint(revision=3, version=2))
    assert crowd.state() == ("ready", 2, None)


def test_changes_that_come_while_one_is_loaded_wait_and_the_last_one_wins() -> None:
    crowd = Crowd(1)
    crowd.want(endpoint())
    crowd.held = {1}
    for revision in (2, 3, 4):
        crowd.want(endpoint(revision=revision, version=revision))
    crowd.held = set()
    crowd.fleet.hear(1, Loaded("e", 2), 0)
    crowd.work()
    assert [o.endpoint.revision for _, o in crowd.told if isinstance(o, Load)] == [1, 2, 4]
    assert [o.revision for _, o in crowd.told if isinstance(o, Route)] == [1, 2, 4]


def test_a_worker_that_joins_listens_once_it_has_what_the_others_have() -> None:
    crowd = Crowd(1)
    crowd.want(endpoint("a"), endpoint("b"))
    crowd.held = {2}
    crowd.fleet.join(2)
    crowd.work()
    assert "Listen" not in crowd.kinds(2)
    crowd.fleet.hear(2, Loaded("a", 1), 0)
    crowd.work()
    assert "Listen" not in crowd.kinds(2)
    crowd.fleet.hear(2, Loaded("b", 1), 0)
    crowd.work()
    assert crowd.kinds(2) == ["Know", "Load", "Know", "Load", "Synced", "Route", "Route", "Listen"]
    assert (1, Listen(False)) in crowd.told  # it is not alone any more


def test_a_worker_that_joins_does_not_hold_up_a_change() -> None:
    crowd = Crowd(1)
    crowd.want(endpoint())
    crowd.held = {2}
    crowd.fleet.join(2)
    crowd.want(endpoint(revision=2, version=2))
    assert crowd.state() == ("ready", 1, None)


def test_the_only_worker_dies_and_the_next_has_all_before_it_listens() -> None:
    crowd = Crowd(1)
    crowd.want(endpoint())
    crowd.fleet.leave(1)
    assert crowd.state() == ("loading", 0, None)
    crowd.fleet.join(2)
    crowd.work()
    assert crowd.kinds(2) == ["Know", "Load", "Synced", "Route", "Listen"]
    assert crowd.state() == ("ready", 1, None)


def test_a_worker_without_a_damaged_bundle_waits_while_others_serve_it_from_memory() -> None:
    crowd = Crowd(1)
    crowd.want(endpoint())
    crowd.broken = {(2, 1)}
    crowd.fleet.join(2)
    crowd.work()
    assert "Listen" not in crowd.kinds(2)
    assert crowd.state() == ("ready", 1, None)
    crowd.fleet.try_again()
    crowd.work()
    assert "Listen" not in crowd.kinds(2)
    crowd.broken = set()
    crowd.fleet.try_again()
    crowd.work()
    assert crowd.kinds(2)[-1] == "Listen"
    assert crowd.state() == ("ready", 2, None)


def test_without_any_other_it_listens_all_the_same() -> None:
    crowd = Crowd(1)
    crowd.want(endpoint("a"), endpoint("b"))
    crowd.broken = {(2, 1)}
    crowd.fleet.leave(1)
    crowd.fleet.join(2)
    crowd.work()
    assert crowd.kinds(2)[-1] == "Listen"


def test_a_revision_that_kills_gives_way_to_the_one_before() -> None:
    crowd = Crowd(2)
    crowd.want(endpoint())
    crowd.want(endpoint(revision=2, version=2))
    crowd.fleet.fail("e", 2, "it kills")
    crowd.work()
    assert crowd.state() == ("failed", 2, "it kills")
    assert crowd.told[-2:] == [(1, Route("e", 1)), (2, Route("e", 1))]
    crowd.want(endpoint(revision=3))  # the catalog was rolled back
    assert crowd.state() == ("ready", 2, None)
    assert crowd.fleet.states()[0].undone == {2: "it kills"}


def test_a_revision_that_kills_while_it_is_loaded_is_not_tried_again() -> None:
    crowd = Crowd(1)
    crowd.want(endpoint())
    crowd.held = {1}
    crowd.want(endpoint(revision=2, version=2))
    crowd.fleet.hear(1, Loading("e", 2), 0)
    assert crowd.fleet.leave(1) is not None
    crowd.fleet.fail("e", 2, "it kills")
    crowd.held = set()
    crowd.fleet.join(2)
    crowd.work()
    assert [o.endpoint.revision for n, o in crowd.told if n == 2 and isinstance(o, Load)] == [1]
    assert crowd.state() == ("failed", 1, "it kills")


def test_an_endpoint_that_is_gone_is_gone_everywhere_and_may_come_again() -> None:
    crowd = Crowd(2)
    crowd.want(endpoint())
    crowd.want()
    assert crowd.told[-2:] == [(1, Remove("e")), (2, Remove("e"))]
    assert crowd.fleet.states() == []
    crowd.want(endpoint(revision=2))
    assert crowd.state() == ("ready", 2, None)


def test_what_is_parked_is_loaded_where_it_is_asked_for() -> None:
    crowd = Crowd(2)
    crowd.want(endpoint())
    assert crowd.fleet.park("e")
    crowd.work()
    assert crowd.told[-2:] == [(1, Park(endpoint())), (2, Park(endpoint()))]
    assert crowd.state() == ("idle", 0, None)
    crowd.fleet.hear(2, Wanted("e"), 0)
    crowd.work()
    assert crowd.state() == ("ready", 1, None)
    assert crowd.kinds(1)[-1] == "Park"
    crowd.want(endpoint(revision=2, version=2))  # a change is made warm everywhere, and validated
    assert crowd.state() == ("ready", 2, None)


def test_what_cannot_be_read_again_stays_in_memory() -> None:
    crowd = Crowd(1)
    crowd.want(endpoint())
    crowd.fleet.damaged = {"uid1": "rubbish"}
    assert not crowd.fleet.park("e")
    [state] = crowd.fleet.states()
    assert (state.state, state.error, state.arms[0].state) == ("ready", "rubbish", "damaged")


def test_the_least_recently_used_leave_when_memory_is_full() -> None:
    crowd = Crowd(1, budget=30, memory=10)
    crowd.want()
    for i in range(3):
        crowd.want(*(endpoint(f"e{j}") for j in range(i + 1)), now=i)
    crowd.fleet.use("e0", 10)
    crowd.want(*(endpoint(f"e{j}") for j in range(4)), now=11)
    assert {name: crowd.state(name)[0] for name in ("e0", "e1", "e2", "e3")} == {
        "e0": "ready",
        "e1": "idle",
        "e2": "ready",
        "e3": "ready",
    }
    crowd.fleet.hear(1, Wanted("e1"), 12)
    crowd.work(12)
    assert crowd.state("e2")[0] == "idle"
    assert crowd.state("e1")[0] == "ready"


def test_a_server_that_starts_with_many_loads_what_fits() -> None:
    crowd = Crowd(2, budget=100, memory=10)
    crowd.want(*(endpoint(f"e{i}") for i in range(300)))
    states = [state.state for state in crowd.fleet.states()]
    assert states.count("idle") + states.count("ready") == 300
    assert 9 <= states.count("ready") <= 11
    loads = sum(isinstance(order, Load) for _, order in crowd.told)
    assert loads <= 30  # none is loaded only to leave


def test_a_worker_that_joins_many_loads_those_used_last() -> None:
    crowd = Crowd(1)
    many = [endpoint(f"e{i}") for i in range(200)]
    crowd.want(*many)
    for i in range(200):
        crowd.fleet.use(f"e{i}", float(i))
    crowd.fleet.join(2)
    crowd.work()
    loads = {order.endpoint.name for number, order in crowd.told if number == 2 and isinstance(order, Load)}
    assert loads == {f"e{i}" for i in range(200 - JOIN_MOST, 200)}
    assert crowd.kinds(2)[-1] == "Listen"


def test_every_worker_knows_every_endpoint() -> None:
    crowd = Crowd(2)
    crowd.broken = {(1, 1), (2, 1)}
    crowd.want(endpoint())
    crowd.fleet.join(3)
    crowd.work()
    assert [order for number, order in crowd.told if number == 3 and isinstance(order, Know | Refuse)] == [
        Know(endpoint()),
        Refuse(endpoint(), "rubbish"),
    ]


def test_what_no_worker_can_load_anew_has_failed_and_says_why() -> None:
    crowd = Crowd(2)
    crowd.want(endpoint())
    crowd.broken |= {(number, 1) for number in range(1, 6)}
    for number in (1, 2):
        crowd.fleet.leave(number)
    for number in (3, 4):
        crowd.fleet.join(number)
    crowd.work()
    assert crowd.state() == ("failed", 0, "rubbish")
    assert [order for number, order in crowd.told if number == 3 and isinstance(order, Refuse)] == [Refuse(endpoint(), "rubbish")]
    assert crowd.kinds(3)[-1] == "Listen"  # it says so
    assert "Listen" not in crowd.kinds(4)  # one is enough for that
    crowd.fleet.try_again()
    crowd.work()
    assert crowd.kinds(3).count("Refuse") == 1  # once for each reason
    crowd.broken.discard((3, 1))
    crowd.fleet.try_again()
    crowd.work()
    assert crowd.state() == ("ready", 1, None)
    crowd.broken.discard((4, 1))
    crowd.fleet.try_again()
    crowd.work()
    assert crowd.state() == ("ready", 2, None)
