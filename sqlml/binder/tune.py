"""TUNE: options, ranges and the metric checked before anything runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from sqlml_dialect import Train, Tune, TuneChoice, TuneRange

from sqlml.algorithms.options import all_options, check_value, got
from sqlml.binder.parameters import Parameters
from sqlml.contracts import Algorithm, OptionSpec
from sqlml.errors import BindError, MissingExtra, did_you_mean, listing
from sqlml.plan import TunePlan
from sqlml.training.goals import GOALS
from sqlml.training.search import count_combinations
from sqlml.types import Column, Kind, Task

DEFAULT_TRIALS = 20
MOST_GRID = 1_000
"""A grid of more combinations needs TRIALS."""
_APART = ("seed", "refit")


def bind_tune(node: Train, parameters: Parameters, algorithms: Sequence[Algorithm], targets: Sequence[Column]) -> TunePlan | None:
    """The plan of TUNE; None where there is no such clause.  ``BindError`` points at the option, the range or the metric."""
    tune, source = node.tune, parameters.source
    if tune is None:
        return None
    if len(targets) > 1:
        raise BindError(
            "TUNE is for models of one target", source=source, span=tune.span, hint="train a model for each target, and tune it"
        )
    if len(algorithms) > 1 and targets and targets[0].kind in (Kind.TEXT, Kind.BOOLEAN):
        algorithms = [algorithm for algorithm in algorithms if algorithm.task is Task.CLASSIFICATION]
    aims = [algorithm for algorithm in algorithms if algorithm.task in GOALS]
    if not aims:
        message = f"{algorithms[0].name} has no figure that TUNE could aim at"
        raise BindError(message, source=source, span=tune.span)
    space = _space(node, tune, parameters, algorithms)
    method = tune.method or ("bayesian" if any(_is_range(one) for one in space.values()) else "grid")
    metric, maximize = _metric(tune, source, aims)
    return TunePlan(space, method, _trials(tune, method, space, source), metric, maximize)


def _is_range(one: Mapping[str, Any]) -> bool:
    return "values" not in one


def _space(node: Train, tune: Tune, parameters: Parameters, algorithms: Sequence[Algorithm]) -> dict[str, Mapping[str, Any]]:
    given = {option.name.name.lower() for option in node.options}
    space: dict[str, Mapping[str, Any]] = {}
    for item in tune.space:
        name = item.param.name.lower()
        try:
            spec, algorithm = _option(name, algorithms)
            if name in given:
                raise BindError(f"{spec.name} is set by WITH and tried by TUNE", hint="leave out one of the two")
            if spec.name in space:
                raise BindError(f"TUNE names {spec.name} twice")
        except BindError as error:
            raise error.located(parameters.source, item.param.span) from None
        try:
            space[spec.name] = _tried(item, spec, parameters, algorithm.name)
        except BindError as error:
            raise error.located(parameters.source, item.span) from None
    return space


def _option(name: str, algorithms: Sequence[Algorithm]) -> tuple[OptionSpec, Algorithm]:
    for algorithm in algorithms:
        for spec in all_options(algorithm):
            if spec.name.lower() == name:
                if name in _APART:
                    raise BindError(f"{name} is not for TUNE: it is no property of what is learnt")
                return spec, algorithm
    names = [spec.name for spec in all_options(algorithms[0]) if spec.name not in _APART]
    hint = did_you_mean(name, names) or f"it has: {', '.join(names)}"
    raise BindError(f"{algorithms[0].name} has no option {name}", hint=hint)


def _tried(item: TuneRange | TuneChoice, spec: OptionSpec, parameters: Parameters, owner: str) -> Mapping[str, Any]:
    """What the option may be: a list of values or a range, each as the option's own type."""
    if isinstance(item, TuneChoice):
        values = [check_value(spec, parameters.resolve(value), owner) for value in item.values]
        return {"values": [value for i, value in enumerate(values) if value not in values[:i]]}
    ends = [parameters.resolve(item.low), parameters.resolve(item.high)]
    low, high = (check_value(spec, end, owner) for end in ends)
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
        raise BindError(f"BETWEEN is for numbers; {spec.name} takes others", hint=f"write {spec.name} IN (…)")
    if not low < high:
        raise BindError(f"the range of {spec.name} is empty: {low:g} is not below {high:g}")
    if item.log and low <= 0:
        raise BindError(f"LOG needs a range above 0; that of {spec.name} begins at {got(ends[0])}")
    return {"low": low, "high": high, "log": item.log, "integer": isinstance(low, int) and isinstance(high, int)}


def _metric(tune: Tune, source: str, algorithms: Sequence[Algorithm]) -> tuple[str, bool]:
    """The metric and whether it is to be large; empty where the statement names none and the target's values decide."""
    goals = [GOALS[algorithm.task] for algorithm in algorithms]
    if tune.metric is None:
        name = next(iter(goals[0])) if len(goals) == 1 else ""
        return name, goals[0].get(name, False)
    name = tune.metric.name.lower()
    known = {metric: better for one in goals for metric, better in one.items()}
    if name not in known:
        hint = did_you_mean(name, known) or f"there are: {listing(known, 30)}"
        raise BindError(f"there is no metric {tune.metric.name} to aim at", source=source, span=tune.metric.span, hint=hint)
    if (tune.direction == "maximize") is not known[name]:
        better, word = ("more", "MAXIMIZE") if known[name] else ("less", "MINIMIZE")
        raise BindError(f"of {name} {better} is better", source=source, span=tune.metric.span, hint=f"write {word} {name}")
    return name, known[name]


def _trials(tune: Tune, method: str, space: Mapping[str, Mapping[str, Any]], source: str) -> int:
    combinations = count_combinations(space)
    if method == "bayesian":
        if importlib.util.find_spec("optuna") is None:
            raise MissingExtra(
                "TUNE … BY BAYESIAN needs the package optuna, which is not installed", source=source, span=tune.span,
                hint='pip install "sqlml[tune]", or take BY RANDOM',
            )  # fmt: skip
        return tune.trials or DEFAULT_TRIALS
    if method == "random":
        return min(tune.trials or DEFAULT_TRIALS, combinations or 10**9)
    if combinations is None:
        place = next(item for item in tune.space if isinstance(item, TuneRange) and not _whole(space, item))
        raise BindError(
            f"BY GRID tries every value, and between two numbers there is no end of them: {place.param.name}", source=source,
            span=place.span, hint="list values with IN (…), or take BY RANDOM or BY BAYESIAN",
        )  # fmt: skip
    if tune.trials is None and combinations > MOST_GRID:
        raise BindError(
            f"the grid has {combinations:,} combinations", source=source, span=tune.span,
            hint="say how many of them to try with TRIALS n, or take BY RANDOM or BY BAYESIAN",
        )  # fmt: skip
    return min(tune.trials or combinations, combinations)


def _whole(space: Mapping[str, Mapping[str, Any]], item: TuneRange) -> bool:
    found = next(one for name, one in space.items() if name.lower() == item.param.name.lower())
    return bool(found["integer"])
