"""The versions that a worker serves: loaded, warmed and swapped as the supervisor says.

    Load → a Route, warm, in the loader's thread → kept beside → Route: one reference is swapped → it takes the traffic

What cannot be loaded leaves the endpoint as it was.  A request keeps the versions it began with; old ones stay for half a minute,
so that who goes back to one has it at once.  An endpoint may be parked: it is known but not loaded, and the first request waits
until it is.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sqlml.catalog import Arm, Endpoint
from sqlml.catalog.shares import SERVES, SHADOW
from sqlml.earlier_columns import EarlierColumns, Reader, earlier_columns
from sqlml.endpoint_options import parse_sticky
from sqlml.errors import listing
from sqlml.rollout import guard_of
from sqlml_runners.serving.composed import QUERY, load_query
from sqlml_runners.serving.figures import Tally
from sqlml_runners.serving.flight import NO_FLIGHT, Flight, Recorder
from sqlml_runners.serving.limits import Policy
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.routing import Split, choose
from sqlml_runners.serving.rows import row_writer
from sqlml_runners.serving.served import Served, load_served
from sqlml_runners.serving.spare import spare_of

log = logging.getLogger("sqlml.serving")

LOADING_SECONDS = 1
"""When to ask again for an endpoint that is loading."""
LEFT_SECONDS = 30.0
"""How long the last version stays in memory when it serves no more; language models, which are large, do not."""
WAKE_SECONDS = 30.0
"""How long a request waits for a parked endpoint."""


@dataclass(frozen=True)
class Route:
    """One revision of an endpoint with everything that it needs to answer; swapped as one reference.

    ``arms`` answer, ``split`` divides the requests among them, in the same order; ``shadows`` get a copy of each request.
    """

    endpoint: Endpoint
    arms: tuple[Served, ...]
    split: Split
    shadows: tuple[Served, ...] = ()
    turns: itertools.count[int] = field(default_factory=itertools.count, compare=False)

    @cached_property
    def key(self) -> str:
        """The endpoint's name in lower case."""
        return self.endpoint.name.lower()

    @cached_property
    def policy(self) -> Policy:
        """What a request may cost."""
        return Policy.of(self.endpoint.options)

    @cached_property
    def main(self) -> Served:
        """The arm with the largest share."""
        return max(self.arms, key=lambda served: served.arm.weight)

    @cached_property
    def measure(self) -> Served:
        """The version that others' refusals are measured by: the one with the largest share that is not tried out."""
        guard = guard_of(self.endpoint.options)
        settled = [served for served in self.arms if guard is None or served.arm.uid != guard.candidate]
        return max(settled or self.arms, key=lambda served: served.arm.weight)

    def choose(self, key: str | None = None) -> Served:
        """The version that answers the next request; ``key``: the value that requests stick by, where there is one."""
        return self.arms[choose(self.split, next(self.turns), key)]

    @cached_property
    def labels(self) -> list[str]:
        """What V2 calls the versions that answer."""
        return [served.label for served in self.arms]

    def metadata(self) -> dict[str, Any]:
        """The V2 metadata of the endpoint: its main version's, with the inputs of all that answer; some may be optional."""
        inputs = {column.name.lower(): column for served in (self.main, *self.arms) for column in served.rows.inputs}
        everywhere = set.intersection(*({column.name.lower() for column in served.rows.inputs} for served in self.arms))
        optional = frozenset(inputs) - everywhere
        return self.main.metadata(self.labels, tuple(inputs.values()), optional)

    def need(self, version: str) -> Served:
        """The arm of a version that a request asks for: ``churn@3``, or ``3`` where no other model has such.  404 where it serves
        none such.
        """
        asked = version.lower()
        found = [one for one in self.arms if asked in (str(one.arm.version), one.name.lower())]
        if len(found) == 1:
            return found[0]
        what = f"several versions {version}" if found else f"no version {version}"
        raise BadRequest(404, f"endpoint {self.endpoint.name} has {what}; it serves {listing(self.labels)}")


@dataclass(frozen=True)
class Slot:
    """An endpoint, as one worker has it: what it is, what answers, and why nothing does.

    ``state``: loading, ready, failed, idle.  ``parked``: nothing is loaded until a request comes.
    """

    endpoint: Endpoint
    route: Route | None = None
    state: str = "loading"
    error: str | None = None
    parked: bool = False


@dataclass(frozen=True)
class Left:
    """The versions of an endpoint's route before this one, by uid, and since when they do not serve."""

    versions: Mapping[str, Served]
    since: float


def load_route(endpoint: Endpoint, known: Mapping[str, Served], flight: Flight = NO_FLIGHT) -> Route:
    """Load and warm what a revision of an endpoint needs.  ``known``: what is in memory, by uid; it is not read again."""
    if endpoint.kind == QUERY:
        query = replace(load_query(endpoint), flight=flight)
        return Route(endpoint, (query,), Split((query.arm.uid,), (100,)))
    loaded = [replace(_served(endpoint, arm, known.get(arm.uid)), flight=flight) for arm in endpoint.arms]
    served = _side_by_side(loaded, earlier_columns(endpoint.options))
    arms = tuple(one for one in served if one.arm.role == SERVES)
    split = Split(tuple(a.arm.uid for a in arms), tuple(a.arm.weight for a in arms), parse_sticky(endpoint.options.get("sticky")))
    return Route(endpoint, arms, split, tuple(one for one in served if one.arm.role == SHADOW))


def _side_by_side(loaded: Sequence[Served], earlier: EarlierColumns) -> list[Served]:
    """The versions, each taking requests that have the columns of all."""
    readers = [Reader(one.rows.inputs, one.arm.keys or ("key",), one.arm.role == SERVES) for one in loaded]
    numbers = Counter(one.arm.version for one in loaded if one.arm.role == SERVES)
    return [
        one.beside(spare_of(own, [r for r in readers if r is not own], earlier), numbered=numbers[one.arm.version] <= 1)
        for one, own in zip(loaded, readers, strict=True)
    ]


def _served(endpoint: Endpoint, arm: Arm, known: Served | None) -> Served:
    if known is None or not _is_of(known, endpoint, arm):
        return load_served(endpoint.name, arm)
    if known.arm.name == arm.name:
        return replace(known, arm=arm)
    return replace(known, arm=arm, writer=row_writer(arm.model, arm.version, known.outputs))  # its model was renamed


def _is_of(known: Served, endpoint: Endpoint, arm: Arm) -> bool:
    """Whether what is in memory is an arm's."""
    return (known.endpoint, known.arm.uid, known.arm.sha256) == (endpoint.name, arm.uid, arm.sha256)


class Models:
    """All endpoints of one worker.  Reads are lock-free; the channel's threads write.

    ``want(key)`` asks the supervisor for an endpoint that is parked.
    """

    def __init__(self, want: Callable[[str], None] = lambda _key: None, recorder: Recorder | None = None) -> None:
        self.tally = Tally()
        self._recorder = recorder or Recorder()
        self._want = want
        self._slots: dict[str, Slot] = {}
        self._warm: dict[tuple[str, int], Route] = {}
        self._left: dict[str, Left] = {}
        self._lock = threading.Lock()
        self._synced = False
        self._sleepers: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}

    # --- what requests ask ---

    def route(self, name: str) -> Route:
        """What answers for an endpoint.  404 where there is no such name, 503 where nothing is warm (parked: see ``wake``)."""
        slot = self.slot(name)
        if slot.route is None:
            # why has paths of this machine in it, which are nothing for whoever asks from elsewhere
            status = "could not be loaded (SHOW ENDPOINTS tells why)" if slot.error else "is loading"
            soon = None if slot.error else LOADING_SECONDS
            raise BadRequest(503, f"endpoint {slot.endpoint.name} ({slot.endpoint.main.name}) {status}", retry_after=soon)
        return slot.route

    def get(self, name: str, version: str | None = None, key: str | None = None) -> Served:
        """The version that answers the next request for an endpoint: by the arms' shares, or the one that is asked for."""
        route = self.route(name)
        return route.choose(key) if version is None else route.need(version)

    def slot(self, name: str) -> Slot:
        """An endpoint by its name, in any case.  404 with the names there are."""
        found = self._slots.get(name.lower())
        if found is None:
            names = listing(slot.endpoint.name for slot in self._slots.values())
            raise BadRequest(404, f"unknown model {name!r}; {'deployed: ' + names if names else 'nothing is deployed'}")
        return found

    def find(self, name: str) -> Slot | None:
        """An endpoint by its name, in any case; None where there is none."""
        return self._slots.get(name.lower())

    async def wake(self, name: str) -> None:
        """Wait until an endpoint that is parked is loaded; returns at once for any other.  503 after 30 s."""
        slot = self.slot(name)
        if not slot.parked:
            return
        key, loop = slot.endpoint.name.lower(), asyncio.get_running_loop()
        awake = asyncio.Event()
        with self._lock:
            if not self._slots.get(key, Slot(slot.endpoint)).parked:
                return  # just now
            sleepers = self._sleepers.setdefault(key, [])
            sleepers.append((loop, awake))
        if len(sleepers) == 1:
            self._want(key)
        try:
            await asyncio.wait_for(awake.wait(), WAKE_SECONDS)
        except TimeoutError:
            raise BadRequest(503, f"endpoint {slot.endpoint.name} could not be loaded within {WAKE_SECONDS:g} s") from None

    def served(self) -> list[Served]:
        """The main version of everything that can answer now."""
        return [slot.route.main for slot in list(self._slots.values()) if slot.route is not None]

    def names(self) -> list[str]:
        """Every endpoint's, in lower case."""
        return list(self._slots)

    def routes(self) -> list[Route]:
        """Everything that can answer now."""
        return [slot.route for slot in list(self._slots.values()) if slot.route is not None]

    def ready(self) -> bool:
        """The catalog has been read, and each endpoint answers, or would, or is known to be broken."""
        return self._synced and all(slot.route or slot.parked or slot.state == "failed" for slot in list(self._slots.values()))

    # --- what the supervisor says ---

    def synced(self) -> None:
        """All endpoints that there are have been named."""
        self._synced = True

    def announce(self, endpoint: Endpoint) -> None:
        """There is an endpoint of this name, or will be in a moment."""
        with self._lock:
            key = endpoint.name.lower()
            if key not in self._slots:
                self._slots[key] = Slot(endpoint)

    def load(self, endpoint: Endpoint, mark: int = 0) -> Route:
        """Load and warm a revision; it is kept until it is routed or refused.  Raises whatever the bundles do."""
        key = endpoint.name.lower()
        route = load_route(endpoint, self._in_memory(key), Flight(self._recorder, mark))
        with self._lock:
            if key in self._slots:  # or it was removed meanwhile
                self._warm[(key, endpoint.revision)] = route
        return route

    def has(self, endpoint: Endpoint) -> bool:
        """Whether every version that a revision needs is in memory."""
        known = self._in_memory(endpoint.name.lower())
        return endpoint.kind != QUERY and all(arm.uid in known and _is_of(known[arm.uid], endpoint, arm) for arm in endpoint.arms)

    def _in_memory(self, key: str) -> dict[str, Served]:
        """The versions of an endpoint that serve or did a moment ago, by uid."""
        slot, left = self._slots.get(key), self._left.get(key)
        return dict(left.versions if left else {}) | ({} if slot is None or slot.route is None else _by_uid(slot.route))

    def switch(self, key: str, revision: int) -> bool:
        """Let a warm revision take the traffic; False where it is not warm."""
        with self._lock:
            route = self._warm.pop((key, revision), None)
            if route is None:
                return False
            for other in [known for known in self._warm if known[0] == key and known[1] < revision]:
                del self._warm[other]
            before = self._slots.get(key, Slot(route.endpoint)).route
            if before is not None and before.endpoint.kind != QUERY:  # whose parts are read anew
                kept = {uid: served for uid, served in _by_uid(before).items() if served.model.language is None}
                self._left[key] = Left(kept, time.monotonic())
            self._slots[key] = Slot(route.endpoint, route, "ready")
        self._wake_sleepers(key)
        return True

    def sweep(self) -> None:
        """Let go of versions that left a while ago."""
        with self._lock:
            late = time.monotonic() - LEFT_SECONDS
            for key in [key for key, left in self._left.items() if left.since <= late]:
                del self._left[key]

    def refuse(self, endpoint: Endpoint, reason: str) -> None:
        """The endpoint cannot be what is wanted; what takes the traffic goes on."""
        key = endpoint.name.lower()
        with self._lock:
            self._warm.pop((key, endpoint.revision), None)
            slot = self._slots.get(key, Slot(endpoint))
            parked = slot.parked and slot.endpoint.revision != endpoint.revision
            self._slots[key] = replace(slot, state="failed", error=reason, parked=parked)
        self._wake_sleepers(key)

    def park(self, endpoint: Endpoint) -> None:
        """Unload an endpoint until a request comes."""
        key = endpoint.name.lower()
        with self._lock:
            self._slots[key] = Slot(endpoint, None, "idle", parked=True)
            self._left.pop(key, None)
            for known in [known for known in self._warm if known[0] == key and known[1] <= endpoint.revision]:
                del self._warm[known]

    def remove(self, key: str) -> None:
        """The endpoint is no more."""
        with self._lock:
            self._slots.pop(key, None)
            self._left.pop(key, None)
            for known in [known for known in self._warm if known[0] == key]:
                del self._warm[known]
        self._wake_sleepers(key)

    def _wake_sleepers(self, key: str) -> None:
        with self._lock:
            sleepers = self._sleepers.pop(key, [])
        for loop, awake in sleepers:
            loop.call_soon_threadsafe(awake.set)


def _by_uid(route: Route) -> dict[str, Served]:
    return {served.arm.uid: served for served in (*route.arms, *route.shadows)}
