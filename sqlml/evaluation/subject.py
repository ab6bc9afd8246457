"""A version as the functions see it: what it is, and what is read only when a function asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sqlml.bundles.head import Head
from sqlml.bundles.model import Features, Model
from sqlml.features.dataset import canonical
from sqlml.plan import TargetColumn, TrainOutcome, TrainPlan
from sqlml.types import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Subject:
    """``name`` is as in ``churn@3``; the functions behind it each read one thing, when it is first needed.

    ``load_plan`` gives None for a version that kept none, ``load_sample`` None where the sample is gone.
    """

    name: str
    algorithm: str
    task: Task
    targets: tuple[TargetColumn, ...]
    load_model: Callable[[], Model]
    load_outcome: Callable[[], TrainOutcome]
    load_plan: Callable[[], TrainPlan | None]
    load_sample: Callable[[], pa.Table | None]

    @cached_property
    def model(self) -> Model:
        return self.load_model()

    @cached_property
    def outcome(self) -> TrainOutcome:
        return self.load_outcome()

    @cached_property
    def plan(self) -> TrainPlan | None:
        return self.load_plan()

    @property
    def weight(self) -> str | None:
        """The column whose numbers the rows were weighted by in training."""
        return self.plan.weight if self.plan else None

    @property
    def heads(self) -> tuple[Head, ...]:
        return self.model.heads

    @cached_property
    def parameters(self) -> tuple[Mapping[str, NDArray[Any]], ...]:
        """What each head has learnt (``Predictor.parameters``)."""
        return tuple(head.predictor.parameters() for head in self.heads)

    def has(self, *names: str) -> bool:
        """Whether every head has learnt parameters of these names; False for a model without heads."""
        return bool(self.heads) and all(name in learnt for learnt in self.parameters for name in names)

    @property
    def several(self) -> bool:
        """Whether there are several targets, so that each row of a table must say of which it is."""
        return len(self.targets) > 1

    @property
    def classified(self) -> tuple[TargetColumn, ...]:
        """The targets that are classes."""
        return tuple(target for target in self.targets if target.task is Task.CLASSIFICATION)

    @cached_property
    def sample(self) -> Features | None:
        """Some rows as the heads read them: held-out ones, or training rows where none were held out or there is no target."""
        table = self.load_sample()
        if table is None:
            return None
        kinds = dict(self.model.features)
        columns = {name: canonical(table[name], kind) for name, kind in kinds.items()}
        return Features(columns, table.num_rows)
