"""What feedback on a query can be about: columns of its answer, by name.  Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlml.composition.plan import Ask, Composition, Result
from sqlml.errors import did_you_mean, listing
from sqlml.plan import TargetColumn
from sqlml.types import Kind, Task

_LISTS = (Kind.NUMBERS, Kind.TEXTS)


def is_list(result: Result) -> bool:
    """Whether a column is a list, which no truth can be compared with; probabilities of classes are none."""
    return result.kind in _LISTS and not result.classes


def is_passed_on(result: Result) -> bool:
    """Whether a column is a parameter or a column of a look-up as it is."""
    return result.slot.startswith(("p:", "l:"))


def sole_answer(results: Sequence[Result]) -> str | None:
    """The column that feedback is about where it names none: the only one, or the only one that is not passed on."""
    own = [result for result in results if not is_list(result)]
    found = [result for result in own if not is_passed_on(result)] or own
    return found[0].name if len(found) == 1 else None


def truths_of(result: Result, classes: Sequence[Any] = ()) -> tuple[TargetColumn, ...]:
    """What can turn out to be true of a column: one of ``classes``, a model's whose label stands in it; of a number a number, or
    yes and no, should it be a probability; a class of which nothing is known where it can be anything.
    """
    own = tuple(classes) or result.classes
    if own or result.kind is Kind.BOOLEAN:
        return (TargetColumn(result.name, result.sql_type, Task.CLASSIFICATION, own or (False, True)),)
    if result.kind is Kind.NUMBER:
        number = TargetColumn(result.name, result.sql_type, Task.REGRESSION)
        return number, TargetColumn(result.name, result.sql_type, Task.CLASSIFICATION, (False, True))
    return (TargetColumn(result.name, result.sql_type, Task.CLASSIFICATION),)


def answer_targets(composition: Composition, classes: Mapping[str, Sequence[Any]]) -> list[TargetColumn]:
    """What can turn out to be true of each column of a query's answer but lists; ``classes``: of its versions, by uid."""
    labels = {slot: classes.get(uid, ()) for slot, (uid, output) in asked_of(composition).items() if output == "predict"}
    columns = [result for result in composition.results if not is_list(result)]
    return [target for result in columns for target in truths_of(result, labels.get(result.slot, ()))]


def asked_of(composition: Composition) -> dict[str, tuple[str, str]]:
    """The answers of models, by slot: the version's uid, and which of its answers it is."""
    return {
        slot: (composition.parts[step.part].uid, output)
        for step in composition.steps
        if isinstance(step, Ask)
        for output, slot in step.answers.items()
    }


@dataclass(frozen=True)
class QueryTargets:
    """The columns that feedback on a query may name, those passed on last; the lists, which it may not; ``sole`` is what is meant
    where it names none.
    """

    names: tuple[str, ...]
    lists: tuple[str, ...]
    sole: str | None

    def fault(self, target: str | None, who: str) -> str | None:
        """What is wrong with the target of a row of feedback, and what to do; None where nothing is."""
        if target is None:
            if self.sole is not None:
                return None
            return f"{who} has several targets; say which: {listing(self.names)}" if self.names else f"{who} has no target"
        wanted = target.lower()
        if wanted in (name.lower() for name in self.names):
            return None
        may = f"it has: {listing(self.names) or 'none'}"
        if wanted in (name.lower() for name in self.lists):
            return f"{target} of {who} is a list, and no truth can be compared with it; {may}"
        return f"{who} has no target {target!r}; {did_you_mean(target, self.names) or may}"


def query_targets(results: Sequence[Result], earlier: Iterable[Result] = ()) -> QueryTargets:
    """What feedback on a query may name; ``earlier``: columns that the endpoint had before, and whose answers are logged yet."""
    ordered = [*sorted(results, key=is_passed_on), *earlier]
    names = dict.fromkeys(result.name for result in ordered if not is_list(result))
    known = {name.lower() for name in names}
    lists = dict.fromkeys(result.name for result in ordered if is_list(result) and result.name.lower() not in known)
    return QueryTargets(tuple(names), tuple(lists), sole_answer(results))
