"""Ways to go through a space of options: every combination, at random, or by what the trials so far have shown."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from sqlml.errors import MissingExtra
from sqlml.plan import TunePlan

_MOST_LISTED = 100_000
"""A space of at most so many combinations is gone through without trying one twice."""


class Search(Protocol):
    """Says what to try next.  ``tell`` follows each ``ask``."""

    def ask(self) -> dict[str, Any] | None:
        """The next options; None where all have been tried."""

    def tell(self, value: float | None) -> None:
        """The figure of the options asked for last; None where the trial failed."""


def make_search(plan: TunePlan, seed: int) -> Search:
    """The search that a plan names; the same plan and seed give the same options, as long as they give the same figures."""
    if plan.method == "bayesian":
        return _Bayesian(plan, seed)
    combinations = count_combinations(plan.space)
    if plan.method == "grid":
        points = _grid(plan.space)
        return _Listed(points if plan.trials >= (combinations or 0) else iter(_shuffled(points, seed)))
    if combinations is not None and combinations <= _MOST_LISTED:
        return _Listed(iter(_shuffled(_grid(plan.space), seed)))
    return _Listed(_random(plan.space, seed))


def count_combinations(space: Mapping[str, Mapping[str, Any]]) -> int | None:
    """How many combinations there are; None where a range of numbers has no end of them."""
    counts = [_count(one) for one in space.values()]
    return None if None in counts else math.prod(count for count in counts if count is not None)


def _count(one: Mapping[str, Any]) -> int | None:
    if "values" in one:
        return len(one["values"])
    return int(one["high"]) - int(one["low"]) + 1 if one["integer"] else None


class _Listed:
    """Options in a given order, whatever comes of them."""

    def __init__(self, points: Iterator[dict[str, Any]]) -> None:
        self._points = points

    def ask(self) -> dict[str, Any] | None:
        return next(self._points, None)

    def tell(self, value: float | None) -> None:
        return


def _grid(space: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every combination, the last option changing fastest."""
    lists = [one["values"] if "values" in one else range(int(one["low"]), int(one["high"]) + 1) for one in space.values()]
    return (dict(zip(space, point, strict=True)) for point in itertools.product(*lists))


def _shuffled(points: Iterator[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    listed = list(points)
    return [listed[i] for i in np.random.default_rng(seed).permutation(len(listed))]


def _random(space: Mapping[str, Mapping[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    while True:
        yield {name: _draw(one, generator) for name, one in space.items()}


def _draw(one: Mapping[str, Any], generator: np.random.Generator) -> Any:
    if "values" in one:
        return one["values"][int(generator.integers(len(one["values"])))]
    low, high = one["low"], one["high"]
    if one["integer"] and not one["log"]:
        return int(generator.integers(int(low), int(high) + 1))
    if not one["log"]:
        return float(generator.uniform(low, high))
    value = math.exp(generator.uniform(math.log(low), math.log(high)))
    return int(np.clip(round(value), low, high)) if one["integer"] else float(np.clip(value, low, high))


class _Bayesian:
    """Optuna's tree-structured Parzen estimator, one trial after the other."""

    def __init__(self, plan: TunePlan, seed: int) -> None:
        try:
            import optuna
        except ModuleNotFoundError as error:
            raise MissingExtra(
                "TUNE … BY BAYESIAN needs the package optuna", hint='pip install "sqlml[tune]", or take BY RANDOM'
            ) from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        d = optuna.distributions
        self._lists = {name: one["values"] for name, one in plan.space.items() if "values" in one}
        self._space: dict[str, Any] = {}
        for name, one in plan.space.items():
            if name in self._lists:
                self._space[name] = d.CategoricalDistribution(list(range(len(one["values"]))))
            elif one["integer"]:
                self._space[name] = d.IntDistribution(int(one["low"]), int(one["high"]), log=one["log"])
            else:
                self._space[name] = d.FloatDistribution(one["low"], one["high"], log=one["log"])
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(2, min(10, plan.trials // 2)))
        self._study = optuna.create_study(direction="maximize" if plan.maximize else "minimize", sampler=sampler)
        self._failed = optuna.trial.TrialState.FAIL
        self._trial: Any = None

    def ask(self) -> dict[str, Any] | None:
        self._trial = self._study.ask(self._space)
        return {name: self._lists[name][value] if name in self._lists else value for name, value in self._trial.params.items()}

    def tell(self, value: float | None) -> None:
        if value is None:
            self._study.tell(self._trial, state=self._failed)
        else:
            self._study.tell(self._trial, value)
