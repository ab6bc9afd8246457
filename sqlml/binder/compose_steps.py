"""The steps of a query that is deployed, collected by the stage at which each can run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlml.binder.compose_scope import Value
from sqlml.composition.plan import Ask, LookUp, Step
from sqlml.features.program import Expression, Given, Select
from sqlml.plan import InputColumn


@dataclass
class _Unit:
    """An expression that is computed."""

    sql: str
    given: Mapping[str, Value]
    sql_type: str
    slot: str
    stage: int


@dataclass
class Steps:
    """What is looked up, computed and asked; the same question or expression twice is one."""

    _look_ups: dict[int, tuple[LookUp, int]] = field(default_factory=dict)
    _taken: dict[int, dict[str, InputColumn]] = field(default_factory=dict)
    _units: dict[tuple[object, ...], _Unit] = field(default_factory=dict)
    _asks: list[tuple[Ask, int]] = field(default_factory=list)

    def look_up(self, number: int, table: str, keys: Sequence[InputColumn], values: Sequence[str], stage: int) -> None:
        """Read a table by its key."""
        self._look_ups[number] = (LookUp(number, table, "", tuple(keys), tuple(values), ()), stage)

    def take(self, number: int, column: InputColumn) -> str:
        """Take a column of a look-up; its slot."""
        self._taken.setdefault(number, {})[column.name] = column
        return f"l:{number}:{column.name}"

    def compute(self, sql: str, given: Mapping[str, Value], sql_type: str, stage: int) -> str:
        """Compute an expression over plain names; its slot."""
        key = (sql, sql_type, tuple(sorted((name, value.slot) for name, value in given.items())))
        if key not in self._units:
            self._units[key] = _Unit(sql, dict(given), sql_type, f"s:{len(self._units)}", stage)
        return self._units[key].slot

    def ask(self, part: int, inputs: Mapping[str, tuple[str, int]], output: str) -> tuple[str, int]:
        """Ask a model; the slot of its answer, and the stage after which that is known."""
        slots = {name: slot for name, (slot, _) in inputs.items()}
        number = next((i for i, (ask, _) in enumerate(self._asks) if (ask.part, ask.inputs) == (part, slots)), None)
        if number is None:
            number = len(self._asks)
            self._asks.append((Ask(part, slots, {}), 1 + max((stage for _, stage in inputs.values()), default=0)))
        return self._answer(number, output), self._asks[number][1]

    def answer_too(self, slot: str, output: str) -> str:
        """Another answer to the question that a slot is an answer to; its slot."""
        return self._answer(int(slot.split(":")[1]), output)

    def _answer(self, number: int, output: str) -> str:
        ask, stage = self._asks[number]
        slot = f"a:{number}:{output}"
        self._asks[number] = (replace(ask, answers={**ask.answers, output: slot}), stage)
        return slot

    def finish(self, wanted: Iterable[str]) -> tuple[Step, ...]:
        """The steps in order, without those that nothing needs."""
        needed = self._needed(wanted)
        asks = [(_without(ask, needed), stage) for ask, stage in self._asks if needed & set(ask.answers.values())]
        units = [unit for unit in self._units.values() if unit.slot in needed]
        look_ups = [
            (replace(look_up, columns=tuple(c for c in self._taken.get(n, {}).values() if f"l:{n}:{c.name}" in needed)), stage)
            for n, (look_up, stage) in self._look_ups.items()
        ]
        stages = sorted({stage for _, stage in [*asks, *look_ups]} | {unit.stage for unit in units})
        return tuple(step for stage in stages for step in _steps_of(stage, look_ups, units, asks))

    def _needed(self, wanted: Iterable[str]) -> frozenset[str]:
        """Every slot on the way to some."""
        units = {unit.slot: unit for unit in self._units.values()}
        found: set[str] = set()
        waiting = list(wanted)
        while waiting:
            slot = waiting.pop()
            if slot in found:
                continue
            found.add(slot)
            if slot in units:
                waiting += [value.slot for value in units[slot].given.values()]
            elif slot.startswith("a:"):
                waiting += self._asks[int(slot.split(":")[1])][0].inputs.values()
            elif slot.startswith("l:"):
                waiting += self._look_ups[int(slot.split(":")[1])][0].values
        return frozenset(found)


def _without(ask: Ask, needed: frozenset[str]) -> Ask:
    return replace(ask, answers={output: slot for output, slot in ask.answers.items() if slot in needed})


def _steps_of(
    stage: int, look_ups: Sequence[tuple[LookUp, int]], units: Sequence[_Unit], asks: Sequence[tuple[Ask, int]]
) -> Iterator[Step]:
    """What runs at one stage: nothing in it waits for anything else in it."""
    yield from (look_up for look_up, own in look_ups if own == stage and look_up.columns)
    yield from _selects([unit for unit in units if unit.stage == stage])
    yield from (ask for ask, own in asks if own == stage)


def _selects(units: Sequence[_Unit]) -> Iterator[Select]:
    """As few SELECTs as there can be: in one of them a name means one column."""
    rest = list(units)
    while rest:
        given: dict[str, Given] = {}
        taken: list[Expression] = []
        left = []
        for unit in rest:
            own = {name: value.given(name) for name, value in unit.given.items()}
            if any(given.get(name, column) != column for name, column in own.items()):
                left.append(unit)
                continue
            given |= own
            taken.append(Expression(f"__x{unit.slot[2:]}", unit.sql, unit.slot, unit.sql_type))
        yield Select(tuple(given.values()), tuple(taken))
        rest = left
