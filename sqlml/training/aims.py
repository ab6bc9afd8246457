"""What is to be learnt: each target with its values, the algorithm chosen for it, its options and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.algorithms.options import all_options, check_options
from sqlml.contracts import Algorithm
from sqlml.errors import BindError, TrainingDataError, did_you_mean, listing
from sqlml.features.dataset import Values
from sqlml.features.target import encode_classes, find_classes, plain_target, shown
from sqlml.plan import TargetColumn, TrainPlan
from sqlml.registry import candidates
from sqlml.training import rules
from sqlml.training.record import Record
from sqlml.training.source import Source, floats
from sqlml.types import BOOLEAN_WORDS, SQL_TYPE, Kind, Task, label_text

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Learner:
    """What one head learns: an algorithm with its options, and the target with its classes (None: without a target).

    ``fixed``: the classes are those of the version that training goes on from, whichever occur now.
    """

    algorithm: Algorithm
    options: Mapping[str, Any]
    target: TargetColumn | None
    seed: int
    threads: int
    fixed: bool = False

    @property
    def task(self) -> Task:
        return self.algorithm.task

    @property
    def name(self) -> str | None:
        """The target's."""
        return self.target.name if self.target else None

    @property
    def classes(self) -> tuple[Any, ...]:
        return self.target.classes if self.target else ()

    @property
    def stratifies(self) -> bool:
        """Whether its rows are divided class by class."""
        return self.task is Task.CLASSIFICATION

    @property
    def stops_early(self) -> bool:
        """Whether some rows decide when to stop."""
        option = self.algorithm.early_stopping
        return option is not None and bool(self.options.get(option))

    def with_options(self, options: Mapping[str, Any]) -> Learner:
        """The same with some options set otherwise, all checked."""
        return replace(self, options=check_options(self.algorithm, {**self.options, **options}))

    def with_classes(self, classes: tuple[Any, ...]) -> Learner:
        """The same with fewer classes."""
        return self if self.target is None else replace(self, target=replace(self.target, classes=classes))


@dataclass(frozen=True)
class Aim:
    """A learner, and what it is to learn of each row of a source, rows as they came: as ``Rows.y``."""

    learner: Learner
    y: NDArray[Any] | None


def choose_algorithm(target: str, values: Values, two: Sequence[Algorithm]) -> tuple[Algorithm, str]:
    """Of a classifier and a regressor the one for a target, and the notice that says so."""
    plain = _need_plain(target, values)
    found = pc.value_counts(pc.drop_null(plain)).to_pylist()
    counts = sorted(((c["values"], c["counts"]) for c in found), key=lambda item: -item[1])
    is_number = pa.types.is_integer(plain.type) or pa.types.is_floating(plain.type)
    known = len(plain) - plain.null_count
    return rules.choose_algorithm(target, two, counts, len(counts), known, is_number=is_number)


def find_aims(
    plan: TrainPlan, source: Source, threads: int, record: Record, start: Sequence[TargetColumn] = ()
) -> tuple[Aim, ...]:
    """An aim for each target; one without a target for clusters and the like; none for a mere transform.

    ``start`` are the targets of the version that training goes on from: their classes are the ones that there may be.
    """
    if not source.size:
        raise rules.no_rows()
    able = candidates(plan.algorithm)
    if plan.targets:
        known = {target.name: target.classes for target in start}
        return tuple(_find_aim(plan, name, source, threads, record, known.get(name, ())) for name in plan.targets)
    if able[0].task is Task.TRANSFORM:
        return ()
    options = check_options(able[0], {**plan.options, "seed": plan.seed})
    return (Aim(Learner(able[0], options, None, plan.seed, threads), None),)


def _find_aim(plan: TrainPlan, name: str, source: Source, threads: int, record: Record, start: tuple[Any, ...]) -> Aim:
    values = _need_plain(name, source.data.table.column(name))
    if values.null_count == len(values):
        raise rules.all_unknown(name, len(values))
    able = candidates(plan.algorithm)
    algorithm = able[0]
    if len(able) > 1:
        algorithm, notice = choose_algorithm(name, values, able)
        record.notice(notice)
    options = check_options(algorithm, {**_own_options(plan, algorithm, able), "seed": plan.seed})
    if algorithm.task is Task.REGRESSION:
        target = TargetColumn(name, SQL_TYPE[Kind.NUMBER], algorithm.task)
        return Aim(Learner(algorithm, options, target, plan.seed, threads), _numbers(name, values, algorithm))
    classes = start or find_classes(values)
    y = encode_classes(values, classes)
    if start:
        _check_start(name, values, y, start)
    else:
        rules.check_classes(name, classes, len(classes), len(values) - values.null_count)
    target = rules.class_target(name, classes, source.data.kinds[name], algorithm.task)
    return Aim(Learner(algorithm, options, target, plan.seed, threads, bool(start)), y)


def _own_options(plan: TrainPlan, algorithm: Algorithm, able: Sequence[Algorithm]) -> Mapping[str, Any]:
    """The options for one of several targets' algorithms: those that only the other of a family has are left out."""
    if len(plan.targets) == 1 or len(able) == 1:
        return plan.options
    own = {option.name for option in all_options(algorithm)}
    others = {option.name for one in able for option in all_options(one)} - own
    return {name: value for name, value in plan.options.items() if name not in others}


def other_values(learner: Learner, values: Values) -> NDArray[Any]:
    """The target's values of the rows of VALIDATE ON, as ``Rows.y``."""
    plain = _need_plain(learner.name or "", values)
    if learner.task is Task.CLASSIFICATION:
        return encode_classes(plain, learner.classes)
    _need_numbers(learner.name or "", plain, learner.algorithm)
    return floats(plain)


def class_factors(learner: Learner, y: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """What ``class_weight`` makes of each training row's weight; None where it is not asked for.

    ``balanced``: see ``rules.balanced``; a class that is not named weighs 1.
    """
    wanted = learner.options.get("class_weight")
    if wanted is None:
        return None
    n = len(learner.classes)
    if wanted == "balanced":
        return rules.balanced(np.bincount(y, minlength=n))[y]
    return _class_weights(learner, wanted)[y]


def check_class_weight(learner: Learner) -> None:
    """``BindError`` for a weight of a class that does not occur."""
    wanted = learner.options.get("class_weight")
    if wanted is not None and wanted != "balanced":
        _class_weights(learner, wanted)


def _class_weights(learner: Learner, wanted: Mapping[str, float]) -> NDArray[np.float64]:
    weights = np.ones(len(learner.classes))
    names = [label_text(value) for value in learner.classes]
    for word, weight in wanted.items():
        index = _class_index(word, names, learner.classes)
        if index is None:
            hint = did_you_mean(word, names) or f"the classes are: {listing(names, 20)}"
            raise BindError(
                f"class_weight names the class {word}, which {learner.name} does not have", hint=hint, about="class_weight"
            )
        weights[index] = weight
    return weights


def _class_index(word: str, names: Sequence[str], classes: Sequence[Any]) -> int | None:
    if word in names:
        return names.index(word)
    try:
        number = float(word)
    except ValueError:
        meant = BOOLEAN_WORDS.get(word.lower())
        return next((i for i, value in enumerate(classes) if isinstance(value, bool) and value is meant), None)
    return next((i for i, value in enumerate(classes) if isinstance(value, int | float) and value == number), None)


# --- values -----------------------------------------------------------------------------------------------------------


def _need_plain(target: str, values: Values) -> Values:
    plain = plain_target(values)
    if plain is None:
        raise rules.unlearnable_type(target, values.type)
    return plain


def _numbers(target: str, values: Values, algorithm: Algorithm) -> NDArray[np.float64]:
    _need_numbers(target, values, algorithm)
    y = floats(values)
    known = y[~np.isnan(y)]
    rules.check_numbers(target, int(np.isinf(known).sum()), known.min(), known.max())
    return y


def _need_numbers(target: str, values: Values, algorithm: Algorithm) -> None:
    if pa.types.is_string(values.type):
        raise rules.text_for_numbers(target, algorithm)


def _check_start(target: str, values: Values, y: NDArray[np.int64], classes: Sequence[Any]) -> None:
    """A class that the version to go on from has not seen cannot be added."""
    new = pc.unique(values.filter(pa.array(y < 0))).drop_null().to_pylist()
    if new:
        found, names = listing(sorted(map(shown, new))), listing(map(shown, classes), 20)
        raise TrainingDataError(
            f"WARM START cannot add classes: {target} has {found}, the version has {names}",
            hint="leave those rows out with WHERE, or train from the start",
            about="warm_start",
        )
