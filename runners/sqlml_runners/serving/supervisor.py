"""The process that looks after a home's endpoints: it reads the catalog, keeps workers alive, and tells them what to serve.

    CatalogWatch → Fleet: what follows → orders → Crew: workers        control socket → endpoints, workers

It answers no request and loads no model, so that nothing that a model does can hurt it.  Only monotonic clocks are read.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

import msgspec

from sqlml.catalog.claim import Claim
from sqlml.endpoint_options import replicas
from sqlml.errors import ServingError
from sqlml.home import Home
from sqlml_runners.serving.acceptor import refuse_new
from sqlml_runners.serving.channel import (
    Configure,
    Drain,
    Figures,
    Keyed,
    Keys,
    Listening,
    Loaded,
    Log,
    Question,
    Reply,
    Shed,
    ToSupervisor,
    Written,
)
from sqlml_runners.serving.counters import Counters, Document
from sqlml_runners.serving.crew import Crew, Nest
from sqlml_runners.serving.damage import Inspector
from sqlml_runners.serving.exposure import OpenEndpoints
from sqlml_runners.serving.figures import Totals
from sqlml_runners.serving.fleet import Fleet, Seat
from sqlml_runners.serving.guards import Guards
from sqlml_runners.serving.keys import KeyBook, LimitsFile
from sqlml_runners.serving.options import ServerOptions, memory_budget
from sqlml_runners.serving.questions import ControlSocket, told_states
from sqlml_runners.serving.rolling_restart import LEAVE_SECONDS, RollingRestart, until
from sqlml_runners.serving.scaling import Demand, Scalers, bounds_of, shed
from sqlml_runners.serving.settling import Settler
from sqlml_runners.serving.state import ServerLock, ServerState, remove_state, write_state
from sqlml_runners.serving.strikes import Death, Strikes, out_of_memory_kills
from sqlml_runners.serving.watch import CatalogWatch, EndpointCatalog, Found
from sqlml_runners.serving.writing import Writing

log = logging.getLogger("sqlml.serving")

KEYS_SECONDS = 1.0
"""So long whoever asks waits for workers to know new keys."""
CARE_SECONDS = 0.5
INSPECT_SECONDS = 5.0
IMPORT_PAUSE = 1.0
FIRST_TRIES = 3
SLEPT_SECONDS = 5.0


class Supervisor:
    """One home's endpoints, from the first worker to the last."""

    def __init__(self, options: ServerOptions, lock: ServerLock, catalog: EndpointCatalog, claim: Claim) -> None:
        self._options = options
        self._lock = lock
        self._claim = claim
        self._budget = memory_budget(options.memory)
        self._fleet = Fleet(self._budget)
        self._watch = CatalogWatch(catalog, self._changed)
        self._scalers = Scalers(options.calm_seconds)
        self._strikes = Strikes()
        self._totals = Totals()
        self._counters = Counters()
        self._book = KeyBook()
        self._keys = Keys()
        self._writing = Writing()
        self._limits = LimitsFile()
        self._guards = Guards(self._totals, options)
        self._inspector = Inspector()
        self._settler = Settler(Home(options.home))
        self._open = OpenEndpoints(options)
        self._wanted_workers = 1
        self._hiring = 0
        self._heard_of: dict[int, float] = {}
        self._leaving: set[int] = set()  # those that were dismissed and still answer
        self._cared = time.monotonic()
        self._starved = out_of_memory_kills()
        self._libraries: set[str] = set()
        self._listened = False
        self._first_deaths = 0
        self._fault: ServingError | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, nest: Nest, listener: socket.socket, state: ServerState) -> None:
        """Serve until a signal, or until there is nothing to serve.  ``ServingError`` where no worker can start."""
        loop = asyncio.get_running_loop()
        self._leave = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self._restart()))
        self._crew = Crew(nest, listener, self._hear, self._gone)
        self._crew.start()
        self._restarts = RollingRestart(self._fleet, self._crew, self._hire, self._dismiss)
        self._control = ControlSocket(self._tell)
        self._state = replace(state, control=await self._control.open())
        self._fill()
        for work in (self._watch.follow(), self._repeat(CARE_SECONDS, self._care), self._repeat(INSPECT_SECONDS, self._inspect)):
            self._spawn(work)
        try:
            await self._leave.wait()
        finally:
            refuse_new(listener)
            listener.close()
            await self._let_go()
            self._control.close()
            self._limits.close()
            self._settler.close()
            remove_state(self._options.home, self._state)
            log.info("stopped")
        if self._fault is not None:
            raise self._fault

    # --- workers come and go ---

    def _fill(self) -> None:
        """Hire until there are as many as there should be."""
        while len(self._fleet.seats) + self._hiring < self._wanted_workers and not self._leave.is_set():
            self._spawn(self._hire())

    def _hire(self) -> Coroutine[Any, Any, int | None]:
        self._hiring += 1
        return self._hire_counted()

    async def _hire_counted(self) -> int | None:
        try:
            number = await self._crew.hire()
        except (OSError, TimeoutError) as error:  # ``_care`` tries again
            log.error("no worker could be started: %s", error or type(error).__name__)
            return None
        finally:
            self._hiring -= 1
        self._heard_of[number] = time.monotonic()
        self._fleet.fit(self._budget // max(self._wanted_workers, 1))
        self._fleet.join(number)
        self._crew.send(number, self._how_to_serve(number))
        self._crew.send(number, self._keys)
        self._send_orders()
        return number

    def _how_to_serve(self, number: int) -> Configure:
        options = self._options
        tls = None if options.tls_cert is None else (str(options.tls_cert), str(options.tls_key))
        return Configure(
            str(options.home),
            str(number),
            options.foreground,
            str(self._limits.path),
            tls,
            self._state.grpc,
            options.open_metrics,
            options.cors,
        )

    def _dismiss(self, number: int) -> None:
        """Let a worker finish what is under way and go."""
        seat = self._fleet.leave(number)
        if seat is not None and seat.listening:
            self._leaving.add(number)
        self._crew.send(number, Drain())

    def _gone(self, number: int, status: int | None, running: set[int]) -> None:
        seat, now = self._fleet.leave(number), time.monotonic()
        self._heard_of.pop(number, None)
        self._leaving.discard(number)
        self._writing.gone(number)
        if seat is None or self._leave.is_set():
            return
        death = Death(status, self._mark_of(seat), running, self._was_starved())
        guilty, pause = self._strikes.blame(death, now), self._strikes.pause(now)
        log.error("worker %s died: %s", number, death.words())
        for mark in guilty:
            self._condemn(mark, death)
        self._give_up_at_start(death)
        self._spawn(self._fill_after(pause))
        self._send_orders()

    async def _fill_after(self, pause: float) -> None:
        await asyncio.sleep(pause)
        self._fill()

    def _mark_of(self, seat: Seat) -> int | None:
        return None if seat.loading is None else self._fleet.mark(*seat.loading)

    def _was_starved(self) -> bool:
        before, self._starved = self._starved, out_of_memory_kills()
        return self._starved > before

    def _condemn(self, mark: int, death: Death) -> None:
        """A revision kills workers: take it back."""
        found = self._fleet.marked(mark)
        tenant = self._fleet.tenants.get(found[0]) if found else None
        if found is None or tenant is None or found[1] in tenant.undone:
            return
        key, revision = found
        revised = next((e for e in (tenant.wanted, tenant.live, tenant.coming) if e and e.revision == revision), tenant.wanted)
        names = " and ".join(arm.name for arm in revised.arms)
        how = "the worker that loaded it" if death.loading == mark else "workers that answered with it, again and again"
        reason = f"{names} killed {how} ({death.words()})"
        log.error("endpoint %s: %s", revised.name, reason)
        self._fleet.fail(key, revision, reason)
        self._spawn(self._watch.roll_back(revised.name, revision, reason))

    def _give_up_at_start(self, death: Death) -> None:
        self._first_deaths += not self._listened
        if self._first_deaths >= FIRST_TRIES:
            self._fault = ServingError(f"the server's workers cannot start: {death.words()}", hint="the lines above say more")
            self._leave.set()

    async def _let_go(self) -> None:
        """Every worker finishes what is under way; whoever does not within the time is killed."""
        for number in self._crew.numbers():
            self._crew.send(number, Drain(last=True))
        await until(lambda: not self._crew.numbers(), LEAVE_SECONDS)
        for number in self._crew.numbers():
            self._crew.kill(number)
        for task in self._tasks:
            task.cancel()
        await self._crew.close()

    async def _restart(self) -> None:
        if self._restarts.is_under_way:
            return
        try:
            await self._restarts.run(tuple(self._libraries))
        finally:
            self._fill()

    # --- what workers say, and what they are told ---

    def _hear(self, number: int, message: ToSupervisor) -> None:
        now = self._heard_of[number] = time.monotonic()
        match message:
            case Log(level, name, text):
                logging.getLogger(name).log(level, "%s", text)
            case Question(question, what):
                self._spawn(self._answer(number, question, what))
            case Figures():
                self._count(number, message, now)
            case Keyed(known):
                if (seat := self._fleet.seats.get(number)) is not None:
                    seat.keys = known
            case Written(done):
                self._writing.hear(number, done)
            case _:
                self._fleet.hear(number, message, now)
                self._send_orders()
        if isinstance(message, Listening):
            self._publish()
        elif isinstance(message, Loaded):
            self._import_ahead(message.libraries)

    def _publish(self) -> None:
        """The first worker listens: let everybody know."""
        if not self._listened:
            self._listened = True
            write_state(self._options.home, self._state)
            if self._state.grpc:
                log.info("gRPC at %s", self._state.grpc)
            log.info("listening on %s, home %s, process %s", self._state.url, self._options.home, self._state.pid)

    def _count(self, number: int, figures: Figures, now: float) -> None:
        seat = self._fleet.seats.get(number)
        if seat is not None:
            seat.queues, seat.under_way, seat.connections = figures.queues, figures.under_way, figures.connections
        self._counters.add(figures)
        for arm in figures.arms:
            self._totals.add(arm, now)
        for key in {arm.key for arm in figures.arms} | figures.under_way.keys():
            self._fleet.use(key, now)

    def _send_orders(self) -> None:
        for number, order in self._fleet.orders():
            self._crew.send(number, order)
        for line in self._fleet.news:
            log.info("%s", line)
        self._fleet.news.clear()

    def _import_ahead(self, libraries: tuple[str, ...]) -> None:
        if new := set(libraries) - self._libraries:
            self._libraries |= new
            self._spawn(self._import_later(tuple(sorted(new))))

    async def _import_later(self, names: tuple[str, ...]) -> None:
        await asyncio.sleep(IMPORT_PAUSE)
        await self._crew.import_ahead(names)

    # --- care ---

    def _changed(self, found: Found) -> None:
        self._set_budget(found.memory)
        endpoints, entries = found.endpoints, self._book.entries(found.keys)
        if entries != self._keys.entries:  # before the endpoints that they are for
            self._keys = Keys(entries, self._keys.number + 1)
            for number in self._fleet.seats:
                self._crew.send(number, self._keys)
        if (line := self._open.news(endpoints)) is not None:
            log.log(*line)
        gone = self._fleet.tenants.keys() - {endpoint.name.lower() for endpoint in endpoints}
        self._fleet.want(endpoints, time.monotonic())
        for key in gone:
            self._totals.forget(key)
            self._counters.forget(key)
        self._scale(time.monotonic())
        self._send_orders()

    def _set_budget(self, size: int | None) -> None:
        """What the models may take: by the command line, else by SQL, else a part of the machine's."""
        budget = memory_budget(self._options.memory if self._options.memory is not None else size)
        if budget != self._budget:
            log.info("the models may take %.1f GB", budget / 1e9)
            self._budget = budget
            self._fleet.fit(budget // max(self._wanted_workers, 1))

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do something now and then, for ever: a fault of one time is no reason never to do it again."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception:
                log.exception("the supervisor could not look after its workers")

    async def _care(self) -> None:
        now = time.monotonic()
        if now - self._cared > SLEPT_SECONDS:  # it is us who slept: the workers had nobody to talk to
            self._heard_of = dict.fromkeys(self._heard_of, now)
        self._cared = now
        self._end_stuck(now)
        self._scale(now)
        self._even_out()
        self._park_idle(now)
        self._judge(now)
        self._send_orders()
        if self._should_leave():
            self._leave.set()

    def _end_stuck(self, now: float) -> None:
        for number, heard in list(self._heard_of.items()):
            if now - heard > self._options.hang_seconds + 2:
                self._crew.kill(number)
            elif now - heard > self._options.hang_seconds:
                log.error("worker %s has said nothing for %g s and is stopped", number, self._options.hang_seconds)
                self._crew.kill(number, signal.SIGABRT)  # it writes down where it was stuck

    def _scale(self, now: float) -> None:
        """Hire or dismiss workers by what the endpoints ask for and how many requests wait."""
        if self._restarts.is_under_way or self._leave.is_set():
            return
        seats = self._fleet.serving()
        wanted = self._scalers.decide(now, self._wanted_workers, self._demands(now))
        if wanted != self._wanted_workers:
            log.info("from %s to %s workers", self._wanted_workers, wanted)
            self._wanted_workers = wanted
        while len(seats) > wanted and len(self._fleet.seats) + self._hiring > wanted:
            self._dismiss(seats.popitem()[0])
        self._fill()

    def _even_out(self) -> None:
        """Let connections that are kept alive move to workers that have few: to new ones, above all."""
        for number, count in shed({number: seat.connections for number, seat in self._fleet.serving().items()}).items():
            self._crew.send(number, Shed(count))

    def _demands(self, now: float) -> dict[str, Demand]:
        """What each endpoint asks for, and how long its own queue is, on average over the workers."""
        seats = self._fleet.serving().values()
        found = {}
        for key, tenant in self._fleet.tenants.items():
            least, most = replicas(tenant.wanted.options)
            queue = sum(seat.queues.get(key, 0.0) for seat in seats) / max(len(seats), 1)
            found[key] = Demand(bounds_of(least, most, used=now - tenant.used < self._options.calm_seconds), queue)
        return found

    def _park_idle(self, now: float) -> None:
        for key, tenant in self._fleet.tenants.items():
            limit = tenant.wanted.options.get("idle_timeout")
            if limit is not None and now - tenant.used > limit and not self._fleet.idle(key) and self._fleet.park(key):
                log.info("endpoint %s is unloaded: no request for %g s", tenant.wanted.name, limit)

    def _judge(self, now: float) -> None:
        for tenant in self._fleet.tenants.values():
            if tenant.live is None or tenant.live != tenant.wanted:
                continue
            decision = self._guards.judge(tenant.live, now)
            if decision is not None and decision.action != "wait":
                log.info("endpoint %s: %s: %s", tenant.live.name, decision.action, decision.reason)
                promote = decision.action == "promote"
                self._spawn(self._watch.settle(tenant.live.name, tenant.live.revision, decision.reason, promote=promote))
            elif decision is not None and self._guards.wants_metric(tenant.live, now):
                self._spawn(self._guards.measure(tenant.live, now))

    async def _inspect(self) -> None:
        """Look after the files on disk, the control socket and the claim; let workers try again what they could not load."""
        for line in await asyncio.to_thread(self._inspector.inspect, self._fleet.live_arms()):
            log.warning("%s", line)
        self._fleet.damaged = dict(self._inspector.damaged)
        self._fleet.try_again()
        self._send_orders()
        await asyncio.to_thread(self._settler.look)
        if not self._control.there():  # somebody tidied up temporary files
            self._state = replace(self._state, control=await self._control.open())
            write_state(self._options.home, self._state)
        try:
            await asyncio.to_thread(self._claim.check)
        except ServingError as error:
            self._fault = error
            self._leave.set()

    def _should_leave(self) -> bool:
        if self._options.foreground:
            return False
        limit = self._options.linger_seconds if self._watch.was_used else self._options.idle_seconds
        empty = self._watch.empty_seconds()
        if empty is not None and empty > limit:
            log.info("nothing is deployed any more")
            return True
        if not self._lock.held():
            log.info("the home has been deleted")
            return True
        return False

    # --- questions ---

    async def _answer(self, number: int, question: int, what: str) -> None:
        self._crew.send(number, Reply(question, await self._tell(what)))

    async def _tell(self, what: str) -> Any:
        """What somebody asks: a worker for its callers, or a session through the control socket."""
        if what == "workers":
            seats = self._fleet.seats.items()
            return [{"pid": self._crew.pid(n), "takes_requests": s.listening, "connections": s.connections} for n, s in seats]
        if what == "metrics":
            return msgspec.to_builtins(self._metrics(), str_keys=True)
        if what == "written":
            listening = {number for number, seat in self._fleet.seats.items() if seat.listening}
            return await self._writing.ask(listening | self._leaving, self._crew.send)
        if what != "endpoints":
            return {"error": f"unknown question {what!r}: endpoints, workers, metrics, written"}
        await self._watch.sync()  # so that who has just written to the catalog sees it here
        await self._keys_count()
        return told_states(self._fleet, self._totals, time.monotonic())

    async def _keys_count(self) -> None:
        """Until the keys count in every worker that takes requests: for a moment, or a second where one is stuck."""
        end = time.monotonic() + KEYS_SECONDS
        while any(seat.listening and seat.keys < self._keys.number for seat in self._fleet.seats.values()):
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.002)

    def _metrics(self) -> Document:
        seats = self._fleet.serving().values()
        states = {state.name.lower(): state.state for state in self._fleet.states()}
        queue = {key: sum(seat.under_way.get(key, 0) for seat in seats) for key in states}
        return self._counters.document(queue, states, len(seats), sum(seat.connections for seat in seats))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the supervisor failed", exc_info=error)
