"""A TRAIN statement with its names, options and types settled against the database and the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlml_dialect import Option, Query, SplitNone, Train

from sqlml.algorithms.options import REFIT, SEED, all_options
from sqlml.binder.columns import Columns
from sqlml.binder.models import check_new_name
from sqlml.binder.options import bind_option
from sqlml.binder.parameters import Parameters
from sqlml.binder.split import bind_split
from sqlml.binder.start import bind_start, start_algorithm, start_version
from sqlml.binder.transform import Models, bind_transform
from sqlml.binder.tune import bind_tune
from sqlml.contracts import Algorithm
from sqlml.errors import BindError, listing
from sqlml.plan import Limits, SplitPlan, TrainPlan, TransformPlan
from sqlml.registry import DEFAULT_FAMILY, candidates, check_installed
from sqlml.types import UNSUPERVISED, Column, Kind, Task

DEFAULT_RUNNER = "process"
_UNLEARNABLE = (Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.NUMBERS, Kind.TEXTS)
_FINDS = {Task.CLUSTERING: "clusters", Task.PROJECTION: "components", Task.ANOMALY: "anomalies", Task.TRANSFORM: "features"}


def bind_train(node: Train, parameters: Parameters, describe: Callable[[Query], Sequence[Column]], models: Models) -> TrainPlan:
    """Settle a TRAIN statement.  ``describe`` gives the columns of a query without running it.

    Raises ``BindError`` (a name, an option, a type) that points at the clause, or the database's own error about the query.
    """
    source = parameters.source
    model = check_new_name(node.model, source)
    start = start_version(node, source, models)
    able = _algorithms(node, source)
    if start is not None:
        able = start_algorithm(node, source, start, able if node.algorithm else None)
    options = _options(node, parameters, able)
    columns = Columns(describe(node.query), node.query, source)
    targets = _targets(node, source, able, columns)
    weight = columns.find(node.weight) if node.weight else None
    key = columns.find_all(node.key, "KEY")
    for name, column in zip(node.key, key, strict=True):
        if column in targets:
            raise BindError(
                f"{column.name} is the TARGET: it cannot be a KEY", source=source, span=name.span, hint="leave it out"
            )
    excluded = columns.find_all(node.exclude, "EXCLUDE")
    split = _split(node, source, able, columns, targets)
    others = _others(targets, weight, key, excluded, split)
    made = bind_transform(node, parameters, columns, others, models)
    transform = made[0] if made else None
    features = _features(node, source, able, columns, others, transform)
    if node.validate is not None:
        _check_validation(node, source, describe(node.validate), [*features, *targets, *([weight] if weight else []), *key])
    return TrainPlan(
        model=model,
        algorithm=start.algorithm if start else node.algorithm.name.lower() if node.algorithm else None,
        targets=tuple(c.name for c in targets),
        features=features,
        key=tuple(c.name for c in key),
        excluded=tuple(c.name for c in excluded),
        weight=weight.name if weight else None,
        split=split,
        sample_rows=node.limit.rows if node.limit else None,
        options=options,
        seed=int(options[SEED.name]),
        limits=_limits(node),
        runner=node.runner.name.lower() if node.runner else DEFAULT_RUNNER,
        query=node.query.text,
        statement=source[parameters.statement[0] : parameters.statement[1]],
        parameters=tuple(parameters.values.values() if isinstance(parameters.values, Mapping) else parameters.values),
        transform=transform,
        tune=bind_tune(node, parameters, able, targets),
        start=bind_start(node, source, start, models, targets, features, transform) if start else None,
    )


def needed_columns(plan: TrainPlan) -> tuple[str, ...]:
    """Features, targets, weight, key and the column that splits, in this order; for cross-validation no key."""
    key = () if plan.split.method == "fold" else plan.key
    names = (*(c.name for c in plan.features), *plan.targets, plan.weight, *key, plan.split.column)
    return tuple(dict.fromkeys(name for name in names if name))


# --- options and algorithms ---------------------------------------------------------------------------------------------


def _options(node: Train, parameters: Parameters, able: Sequence[Algorithm]) -> dict[str, Any]:
    """The options given, and the seed.

    Where the target's values choose between two algorithms, an option must suit one of them.
    """
    found: dict[str, Any] = {SEED.name: SEED.default}
    for option in node.options:
        name, value = _option(option, parameters, able, node.algorithm.name if node.algorithm else DEFAULT_FAMILY)
        found[name] = value
        if name == REFIT.name and value:
            _check_refit(node, option, parameters.source)
    return found


def _option(option: Option, parameters: Parameters, able: Sequence[Algorithm], family: str) -> tuple[str, Any]:
    """An option's name and value; of two algorithms that may be meant those that have it are asked."""
    name, failures = option.name.name.lower(), list[BindError]()
    having = [a for a in able if any(spec.name.lower() == name for spec in all_options(a))]
    for algorithm in having or able[:1]:
        owner = algorithm.name if having or len(able) == 1 else family
        try:
            return bind_option(option, all_options(algorithm), owner, parameters)
        except BindError as error:
            failures.append(error)
    raise failures[0]


def _check_refit(node: Train, option: Option, source: str) -> None:
    if node.validate is not None or isinstance(node.split, SplitNone):
        why = "the rows of VALIDATE ON are another query's" if node.validate is not None else "SPLIT NONE holds no rows out"
        raise BindError(f"refit = true has no rows to add: {why}", source=source, span=option.span, hint="leave out refit")


def _algorithms(node: Train, source: str) -> tuple[Algorithm, ...]:
    """What USING may mean; without it the default's classifier and regressor.  What they need is here before rows are read."""
    try:
        able = candidates(node.algorithm.name if node.algorithm else None)
        check_installed(library for algorithm in able for library in algorithm.libraries)
        return able
    except BindError as error:
        raise (error.located(source, node.algorithm.span) if node.algorithm else error) from None


# --- targets ------------------------------------------------------------------------------------------------------------


def _targets(node: Train, source: str, able: Sequence[Algorithm], columns: Columns) -> tuple[Column, ...]:
    """The columns to predict, each of a type that can be."""
    alone = next((algorithm for algorithm in able if algorithm.task in UNSUPERVISED), None)
    if not node.target:
        if alone is None:
            raise _no_target(node, source, able)
        return ()
    targets = columns.find_all(node.target, "TARGET")
    if alone is not None:
        names = ", ".join(c.name for c in targets)
        raise BindError(
            f"{alone.name} finds {_FINDS[alone.task]} without a target", source=source, span=node.target[0].span,
            hint=f"leave out TARGET {names}; EXCLUDE ({names}) keeps it out of the {_FINDS[alone.task]}",
        )  # fmt: skip
    for name, target in zip(node.target, targets, strict=True):
        _check_target(target, able, source, name.span)
    return targets


def _no_target(node: Train, source: str, able: Sequence[Algorithm]) -> BindError:
    what = able[0].name if len(able) == 1 else node.algorithm.name if node.algorithm else "TRAIN MODEL"
    return BindError(
        f"{what} needs a TARGET: the column to predict",
        source=source,
        span=node.algorithm.span if node.algorithm else node.model.span,
        hint=f"TRAIN MODEL {node.model.text} TARGET column AS …, or USING kmeans to find clusters without one",
    )


def _check_target(target: Column, able: Sequence[Algorithm], source: str, span: tuple[int, int]) -> None:
    if target.kind is None or target.kind in _UNLEARNABLE:
        raise BindError(
            f"the target {target.name} has the type {target.sql_type}, which cannot be predicted", source=source, span=span,
            hint=f"turn it into a number or text in the query, as in SELECT …, {_as_target(target)} AS {target.name}",
        )  # fmt: skip
    if all(algorithm.task is Task.REGRESSION for algorithm in able) and target.kind is not Kind.NUMBER:
        raise BindError(
            f"{able[0].name} predicts numbers; the target {target.name} has the type {target.sql_type}",
            source=source,
            span=span,
            hint="take a classifier, such as xgboost_classifier, or a numeric target",
        )


_MOMENTS = (Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)


def _as_target(column: Column) -> str:
    """A number or a text in place of what cannot be predicted, as most databases write it."""
    return f"extract(epoch FROM {column.name})" if column.kind in _MOMENTS else f"CAST({column.name} AS text)"


# --- rows and features --------------------------------------------------------------------------------------------------


def _split(node: Train, source: str, able: Sequence[Algorithm], columns: Columns, targets: tuple[Column, ...]) -> SplitPlan:
    if able[0].task is not Task.TRANSFORM:
        return bind_split(node, source, columns, targets)
    clause = node.split or node.validate or node.tune
    if clause is not None and not isinstance(clause, SplitNone):
        raise BindError(
            "transform_only predicts nothing, so no rows are held out to measure it on", source=source, span=clause.span,
            hint="leave the clause out",
        )  # fmt: skip
    return SplitPlan("none")


def _others(
    targets: Sequence[Column], weight: Column | None, key: Sequence[Column], excluded: Sequence[Column], split: SplitPlan
) -> dict[str, str]:
    """The columns that are no features, each with what it is."""
    others = dict.fromkeys((c.name for c in excluded), "excluded")
    others |= dict.fromkeys((c.name for c in key), "the key")
    others |= {split.column: f"the column of SPLIT {split.method.upper()}"} if split.column else {}
    others |= {weight.name: "the weight"} if weight else {}
    return others | dict.fromkeys((c.name for c in targets), "the target" if len(targets) == 1 else "a target")


def _features(
    node: Train, source: str, able: Sequence[Algorithm], columns: Columns, others: Mapping[str, str], plan: TransformPlan | None
) -> tuple[Column, ...]:
    """What is learnt from, or what TRANSFORM reads."""
    if plan is not None:
        if not plan.inputs:
            raise BindError("TRANSFORM reads no column of the query", source=source, span=node.transform[0].span)
        return plan.inputs
    if able[0].task is Task.TRANSFORM:
        raise BindError(
            "transform_only keeps the features of TRANSFORM, and there is none", source=source,
            span=node.algorithm.span if node.algorithm else node.model.span,
            hint="TRANSFORM (ML.STANDARD_SCALER(x) OVER () AS x_scaled, …)",
        )  # fmt: skip
    features = columns.without(others)
    unusable = [c for c in features if c.kind is None]
    if unusable:
        names = ", ".join(f"{c.name} ({c.sql_type})" for c in unusable)
        raise BindError(
            f"no model can take columns of these types: {names}",
            source=source,
            span=(node.query.span[0], node.query.span[0] + len(node.query.text.split(maxsplit=1)[0])),
            hint=f"EXCLUDE ({', '.join(c.name for c in unusable)}), or turn them into numbers or text in the query",
        )
    if not features:
        raise BindError(
            "there is no column left to learn from", source=source, span=node.model.span,
            hint="the query must give at least one column besides TARGET, WEIGHT, KEY and EXCLUDE",
        )  # fmt: skip
    return features


def _check_validation(node: Train, source: str, columns: Sequence[Column], needed: Sequence[Column]) -> None:
    have = {c.name.lower() for c in columns}
    missing = [c.name for c in needed if c.name.lower() not in have]
    if missing and node.validate is not None:
        raise BindError(
            f"the query of VALIDATE ON lacks columns that the training query has: {listing(missing)}",
            source=source,
            span=node.validate.span,
            hint=f"it has: {listing(c.name for c in columns)}",
        )


def _limits(node: Train) -> Limits:
    if node.limit is None:
        return Limits()
    return Limits(node.limit.time.total_seconds() if node.limit.time else None, node.limit.memory)
