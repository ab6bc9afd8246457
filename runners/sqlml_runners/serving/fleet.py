"""What every worker has, what it should have, and so what to tell it next.  No I/O, no clock.

    catalog → want        workers → join, hear, leave        orders: what to send to whom        states: what to tell people

A revision goes live in two steps: one worker loads it first (what kills a worker shall kill one), then the others; when all that
take requests are warm, all are told to route it.  A worker that joins takes requests when it has what the others have.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlml.catalog import Arm, Endpoint
from sqlml.contracts import ArmState, EndpointState
from sqlml_runners.serving.channel import (
    Failed,
    Know,
    Listen,
    Listening,
    Load,
    Loaded,
    Loading,
    Park,
    Refuse,
    Remove,
    Route,
    Routed,
    Synced,
    ToSupervisor,
    ToWorker,
    Wanted,
)
from sqlml_runners.serving.scaling import evicted

Order = tuple[int, ToWorker]

STARTING, SERVING = "starting", "serving"
JOIN_MOST = 32
"""A worker that joins loads so many endpoints, those used last, before it takes requests; the others when they are asked for."""
AHEAD = 4
"""So many loads a worker is told ahead."""


@dataclass
class Tenant:
    """An endpoint: what the catalog wants, what is on its way, what takes the traffic, and why it is not what is wanted."""

    wanted: Endpoint
    first_read: bool
    coming: Endpoint | None = None
    live: Endpoint | None = None
    before: Endpoint | None = None  # what was live before
    error: str | None = None  # of ``wanted``
    undone: dict[int, str] = field(default_factory=dict)
    used: float = 0.0
    began: float = 0.0  # when what is on its way set out


@dataclass
class Seat:
    """A worker: revisions by the endpoint's key."""

    stage: str = STARTING
    told: dict[str, set[int]] = field(default_factory=dict)
    warm: dict[str, set[int]] = field(default_factory=dict)
    failed: dict[str, dict[int, str]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)  # the last Route
    routed: dict[str, int] = field(default_factory=dict)  # … that was confirmed
    refused: dict[str, dict[int, str]] = field(default_factory=dict)  # what it was told that cannot be, and why
    memory: dict[str, int] = field(default_factory=dict)  # bytes, of what is routed or about to be
    known: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    loading: tuple[str, int] | None = None
    pending: set[tuple[str, int]] = field(default_factory=set)  # told to load, not heard of since
    under_way: dict[str, int] = field(default_factory=dict)
    queues: dict[str, float] = field(default_factory=dict)
    connections: int = 0
    synced: bool = False
    listening: bool = False
    alone: bool | None = None  # as it was told
    keys: int = -1  # the number of those that count there

    def forget(self, key: str) -> None:
        """Nothing of an endpoint is there any more."""
        for by_key in (self.told, self.warm, self.failed, self.sent, self.routed, self.refused, self.memory):
            by_key.pop(key, None)
        self.parked.discard(key)
        self.known.discard(key)

    def park(self, key: str) -> None:
        """What took the traffic leaves memory."""
        for by_key in (self.told, self.warm, self.sent, self.routed, self.memory):
            by_key.pop(key, None)
        self.parked.add(key)

    def has(self, key: str, endpoint: Endpoint) -> bool:
        """Whether an endpoint's revision takes the traffic here, or would when asked."""
        return key in self.parked or self.routed.get(key) == endpoint.revision

    def refuse(self, key: str, revision: int, reason: str) -> bool:
        """Note why a revision cannot be; whether that is news to the worker."""
        told = self.refused.setdefault(key, {})
        before, told[revision] = told.get(revision), reason
        return before != reason


class Fleet:
    """The endpoints and the workers, as the supervisor knows them.  ``budget``: bytes of models in one worker."""

    def __init__(self, budget: int) -> None:
        self.tenants: dict[str, Tenant] = {}
        self.seats: dict[int, Seat] = {}
        self.budget = budget
        self.damaged: Mapping[str, str] = {}  # by uid, why
        self.news: list[str] = []  # for the log
        self._read = False
        self._now = 0.0  # of the last that happened
        self._marks: dict[tuple[str, int], int] = {}
        self._next_mark = itertools.count(1)
        self._extra: list[Order] = []

    # --- what happens ---

    def want(self, endpoints: Sequence[Endpoint], now: float) -> None:
        """The catalog was read: these are the endpoints."""
        first, self._read, self._now = not self._read, True, now
        wanted = {endpoint.name.lower(): endpoint for endpoint in endpoints}
        for key in self.tenants.keys() - wanted.keys():
            self.news.append(f"endpoint {self.tenants.pop(key).wanted.name} is gone")
            for number, seat in self.seats.items():
                seat.forget(key)
                self._extra.append((number, Remove(key)))
        for key, endpoint in wanted.items():
            tenant = self.tenants.setdefault(key, Tenant(endpoint, first, used=now))
            if tenant.wanted.revision != endpoint.revision:
                tenant.wanted, tenant.error = endpoint, None
        self._marks = {known: mark for known, mark in self._marks.items() if self._matters(*known)}

    def join(self, number: int) -> None:
        """A worker was born: it shall have what was used last, and the rest when it is asked for."""
        seat = self.seats[number] = Seat()
        room, places = self.budget, JOIN_MOST
        for key, tenant in sorted(self.tenants.items(), key=lambda item: -item[1].used):
            if tenant.live is None:
                continue
            size = max((other.memory.get(key, 0) for other in self.seats.values()), default=0)
            if places <= 0 or size > room or self.idle(key):
                seat.park(key)
                seat.known.add(key)
                self._extra.append((number, Park(tenant.live)))
            else:
                room, places = room - size, places - 1

    def leave(self, number: int) -> Seat | None:
        """A worker died, or is about to leave and takes no part any more; what it had."""
        self._extra = [order for order in self._extra if order[0] != number]
        return self.seats.pop(number, None)

    def hear(self, number: int, message: ToSupervisor, now: float) -> None:
        """A worker said something."""
        self._now = now
        seat = self.seats.get(number)
        if seat is None:
            return
        if isinstance(message, Loading | Loaded | Failed | Routed | Wanted) and message.key not in self.tenants:
            seat.pending = {pending for pending in seat.pending if pending[0] in self.tenants}
            return
        match message:
            case Loading(key, revision):
                seat.loading = key, revision
            case Loaded(key, revision, memory):
                seat.loading = None
                seat.pending.discard((key, revision))
                seat.warm.setdefault(key, set()).add(revision)
                seat.memory[key] = memory or seat.memory.get(key, 0)
                seat.refused.get(key, {}).pop(revision, None)
                self._make_room(number, seat, key)
            case Failed(key, revision, reason):
                seat.loading = None
                seat.pending.discard((key, revision))
                seat.failed.setdefault(key, {})[revision] = reason
            case Routed(key, revision):
                seat.routed[key] = revision
                seat.warm[key] = {r for r in seat.warm.get(key, set()) if r >= revision}
                seat.told[key] = {r for r in seat.told.get(key, set()) if r >= revision}
            case Listening():
                seat.listening = True
            case Wanted(key):
                seat.parked.discard(key)
                self.tenants[key].used = now
            case _:
                pass

    def use(self, key: str, now: float) -> None:
        """There was a request for an endpoint."""
        if key in self.tenants:
            self.tenants[key].used = now

    def fail(self, key: str, revision: int, reason: str) -> None:
        """A revision must not be served, it kills workers: what was there before comes back, where something was."""
        tenant = self.tenants.get(key)
        if tenant is None:
            return
        tenant.undone[revision] = reason
        if tenant.wanted.revision == revision:
            tenant.error = reason
        if tenant.coming is not None and tenant.coming.revision == revision:
            tenant.coming = None
        if tenant.live is not None and tenant.live.revision == revision and tenant.before is not None:
            tenant.live, tenant.before = tenant.before, None

    def park(self, key: str) -> bool:
        """Unload an endpoint everywhere until it is asked for; False where that is not to be."""
        tenant = self.tenants[key]
        if tenant.live is None or tenant.coming is not None or self._held(tenant):
            return False
        for number, seat in self.seats.items():
            if key not in seat.parked:
                self._park(number, seat, key, tenant.live)
        return True

    def try_again(self) -> None:
        """Let workers that could not load what takes traffic, try it again."""
        for seat in self.seats.values():
            for key, failed in seat.failed.items():
                live = self.tenants[key].live if key in self.tenants else None
                if live is not None and failed.pop(live.revision, None) is not None:
                    seat.told.get(key, set()).discard(live.revision)

    # --- what follows from it ---

    def orders(self) -> list[Order]:
        """What is to be sent now; it counts as sent."""
        orders, self._extra = self._extra, []
        for key, tenant in self.tenants.items():
            orders += self._introduce(key, tenant)
            orders += self._bring(key, tenant)
            orders += self._keep(key, tenant)
        for number, seat in self.seats.items():
            orders += self._admit(number, seat)
        return orders

    def _introduce(self, key: str, tenant: Tenant) -> Iterator[Order]:
        """Let every worker know the endpoint, and why it is not what is wanted."""
        for number, seat in self.seats.items():
            if key not in seat.known:
                seat.known.add(key)
                yield number, Know(tenant.wanted)
            if tenant.error is not None and seat.refuse(key, tenant.wanted.revision, tenant.error):
                yield number, Refuse(tenant.wanted, tenant.error)

    def _bring(self, key: str, tenant: Tenant) -> Iterator[Order]:
        """Bring what is wanted to where it can go live."""
        if tenant.coming is None and tenant.error is None and tenant.wanted != tenant.live:
            self._set_out(tenant)
        coming, crowd = tenant.coming, self._crowd()
        if coming is None or not crowd:
            return
        revision = coming.revision
        if reason := next((s.failed[key][revision] for s in self.seats.values() if revision in s.failed.get(key, {})), None):
            tenant.coming = None
            tenant.error = reason if tenant.wanted.revision == revision else tenant.error
            yield from self._introduce(key, tenant)
            yield from self._bring(key, tenant)
            return
        told = [number for number, seat in crowd.items() if revision in seat.told.get(key, ())]
        first = next(iter(told or crowd))
        if not told and tenant.first_read and tenant.live is None and self._full(self.seats[first]):
            self._live_but_parked(key, tenant, coming)
            return
        yield from self._load(first, key, coming, patient=tenant.first_read)
        if revision in self.seats[first].warm.get(key, ()):
            for number in self.seats:
                yield from self._load(number, key, coming)
        if all(revision in seat.warm.get(key, ()) for seat in crowd.values()):
            self._go_live(key, tenant, coming)
            yield from self._bring(key, tenant)

    def _set_out(self, tenant: Tenant) -> None:
        tenant.coming, tenant.began = tenant.wanted, self._now
        if fresh := _fresh(tenant.wanted, tenant.live):
            self.news.append(f"loading: {' and '.join(fresh)} behind {tenant.wanted.name}")

    def _go_live(self, key: str, tenant: Tenant, coming: Endpoint) -> None:
        fresh, seconds = _fresh(coming, tenant.live), self._now - tenant.began
        tenant.before, tenant.live, tenant.coming = tenant.live, coming, None
        for seat in self.seats.values():
            seat.parked.discard(key)
        took = f", loaded in {seconds:.1f} s" if fresh else ""
        self.news.append(f"ready: {' and '.join(arm.name for arm in coming.arms)} behind {coming.name}{took}")

    def _live_but_parked(self, key: str, tenant: Tenant, coming: Endpoint) -> None:
        tenant.live, tenant.coming = coming, None
        self.news.append(f"{coming.name} is loaded when it is asked for: the models' memory is full")
        for number, seat in self.seats.items():
            self._park(number, seat, key, coming)

    def _keep(self, key: str, tenant: Tenant) -> Iterator[Order]:
        """See that every worker has what takes the traffic, or can say why not."""
        live = tenant.live
        if live is None:
            return
        for number, seat in self.seats.items():
            if seat.sent.get(key) == live.revision or key in seat.parked:
                continue
            if live.revision in seat.warm.get(key, ()):
                seat.sent[key] = live.revision
                yield number, Route(key, live.revision)
                continue
            reason = seat.failed.get(key, {}).get(live.revision)
            if reason is not None and seat.refuse(key, live.revision, reason):
                yield number, Refuse(live, reason)
            yield from self._load(number, key, live)

    def _load(self, number: int, key: str, endpoint: Endpoint, *, patient: bool = False) -> Iterator[Order]:
        seat = self.seats[number]
        told = seat.told.setdefault(key, set())
        if endpoint.revision not in told and not (patient and len(seat.pending) >= AHEAD):
            told.add(endpoint.revision)
            seat.pending.add((key, endpoint.revision))
            yield number, Load(endpoint, self.mark(key, endpoint.revision))

    def _admit(self, number: int, seat: Seat) -> Iterator[Order]:
        """Let a worker take connections once it has what the others have, or nobody else takes any."""
        if not self._read:
            return
        if not seat.synced:
            seat.synced = True
            yield number, Synced()
        if seat.stage == STARTING and (self.complete(seat) or (not self.serving() and self.stuck(seat))):
            seat.stage = SERVING
        alone = len(self.serving()) == 1
        if seat.stage == SERVING and seat.alone != alone:
            seat.alone = alone
            yield number, Listen(alone)

    def fit(self, budget: int) -> None:
        """From now on each worker may hold so many bytes of models."""
        self.budget = budget
        for number, seat in self.seats.items():
            self._make_room(number, seat, "")

    def _make_room(self, number: int, seat: Seat, loaded: str) -> None:
        """Let the models that were used least recently leave a worker that holds more than its budget."""
        kept = [key for key, tenant in self.tenants.items() if key == loaded or tenant.coming is not None or self._held(tenant)]
        used = {key: tenant.used for key, tenant in self.tenants.items()}
        for key in evicted(seat.memory, used, kept, self.budget):
            if (live := self.tenants[key].live) is not None:
                self._park(number, seat, key, live)

    def _park(self, number: int, seat: Seat, key: str, endpoint: Endpoint) -> None:
        seat.park(key)
        seat.known.add(key)
        self._extra.append((number, Park(endpoint)))

    # --- how it stands ---

    def mark(self, key: str, revision: int) -> int:
        """A number that stands for a revision in the workers' flight records."""
        found = self._marks.get((key, revision))
        if found is None:
            found = self._marks[(key, revision)] = next(self._next_mark)
        return found

    def _matters(self, key: str, revision: int) -> bool:
        tenant = self.tenants.get(key)
        known = (tenant.wanted, tenant.coming, tenant.live, tenant.before) if tenant else ()
        return any(endpoint is not None and endpoint.revision == revision for endpoint in known)

    def marked(self, mark: int) -> tuple[str, int] | None:
        """The revision that a mark stands for."""
        return next((known for known, number in self._marks.items() if number == mark), None)

    def complete(self, seat: Seat) -> bool:
        """Whether a worker has everything that takes traffic."""
        return all(seat.has(key, tenant.live) for key, tenant in self.tenants.items() if tenant.live is not None)

    def stuck(self, seat: Seat) -> bool:
        """Whether there is nothing more that a worker could load of what takes traffic."""
        return all(
            seat.has(key, tenant.live) or tenant.live.revision in seat.failed.get(key, {})
            for key, tenant in self.tenants.items()
            if tenant.live is not None
        )

    def serving(self) -> dict[int, Seat]:
        """The workers that take connections."""
        return {number: seat for number, seat in self.seats.items() if seat.stage == SERVING}

    def live_arms(self) -> list[Arm]:
        """Every version that takes traffic or a copy of it."""
        return [arm for tenant in self.tenants.values() if tenant.live is not None for arm in tenant.live.arms]

    def _crowd(self) -> dict[int, Seat]:
        """Those who must be warm before a revision goes live."""
        return self.serving() or self.seats

    def _full(self, seat: Seat) -> bool:
        return sum(seat.memory.values()) >= 0.9 * self.budget

    def _held(self, tenant: Tenant) -> bool:
        """Whether it must stay in memory: its bundle could not be read again."""
        return tenant.live is not None and any(arm.uid in self.damaged for arm in tenant.live.arms)

    def idle(self, key: str) -> bool:
        """Whether an endpoint is loaded in no worker."""
        serving = self.serving()
        return bool(serving) and all(key in seat.parked for seat in serving.values())

    def counted_as(self, key: str, uid: str) -> str:
        """Under what the requests of an arm are counted: those of a query's models under the query's own uid."""
        tenant = self.tenants.get(key)
        live = tenant.live if tenant is not None else None
        return (live.query_uid if live is not None else None) or uid

    def states(self) -> list[EndpointState]:
        """Every endpoint, as it stands."""
        return [self._state(key, tenant) for key, tenant in self.tenants.items()]

    def _state(self, key: str, tenant: Tenant) -> EndpointState:
        live, serving = tenant.live, self.serving()
        having = [s for s in serving.values() if live is not None and s.routed.get(key) == live.revision]
        state = self._word(key, tenant)
        arms = tuple(self._arm_state(arm, "ready" if having else "idle") for arm in live.arms) if live is not None else ()
        damage = next((arm.error for arm in arms if arm.error), None)
        return EndpointState(
            tenant.wanted.name,
            tenant.wanted.revision,
            state,
            tenant.error or self._lost(key, tenant) or damage,
            arms,
            replicas=len(having),
            undone=dict(tenant.undone),
        )

    def _arm_state(self, arm: Arm, state: str) -> ArmState:
        damage = self.damaged.get(arm.uid)
        return ArmState(arm.uid, "damaged" if damage else state, damage)

    def _lost(self, key: str, tenant: Tenant) -> str | None:
        """Why what takes the traffic answers nowhere any more: no worker could load it anew."""
        serving = self.serving().values()
        if tenant.live is None or any(seat.has(key, tenant.live) for seat in serving):
            return None
        return next((reason for seat in serving if (reason := seat.refused.get(key, {}).get(tenant.live.revision))), None)

    def _word(self, key: str, tenant: Tenant) -> str:
        serving = self.serving()
        if tenant.error is not None or self._lost(key, tenant) is not None:
            return "failed"
        if tenant.live is None or tenant.live.revision != tenant.wanted.revision or not serving:
            return "loading"
        loaded = any(seat.routed.get(key) == tenant.live.revision for seat in serving.values())
        if not loaded and any(arm.uid in self.damaged for arm in tenant.live.arms):
            return "failed"
        if self.idle(key):
            return "idle"
        return "ready" if all(seat.has(key, tenant.live) for seat in serving.values()) else "loading"


def _fresh(coming: Endpoint, live: Endpoint | None) -> list[str]:
    """The versions of a revision that the one before it does not have."""
    known = set() if live is None else {arm.uid for arm in live.arms}
    return [arm.name for arm in coming.arms if arm.uid not in known]
