"""A TRAIN statement with its names, options and types settled against the database and the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlml_dialect import Ident, Option, Query, SplitBy, SplitNone, SplitRandom, SplitTime, Train, quote_identifier

from sqlml.algorithms.options import SEED, check_options
from sqlml.binder.models import check_new_name
from sqlml.binder.parameters import Parameters
from sqlml.contracts import Algorithm
from sqlml.errors import BindError, Error, did_you_mean, listing, not_yet
from sqlml.plan import Limits, SplitPlan, TrainPlan
from sqlml.registry import get, get_algorithm
from sqlml.types import Column, Kind, Task

DEFAULT_SPLIT = 0.2
DEFAULT_RUNNER = "process"


def bind_train(node: Train, parameters: Parameters, describe: Callable[[Query], Sequence[Column]]) -> TrainPlan:
    """Settle a TRAIN statement.  ``describe`` gives the columns of a query without running it.

    Raises ``BindError`` (a name, an option, a type), ``NotSupportedError`` (a clause that cannot be carried out yet) or the
    database's own error about the query.
    """
    source = parameters.source
    _refuse_later_clauses(node, source)
    model = check_new_name(node.model, source)
    algorithm = _algorithm(node, source)
    options = bind_options(node.options, parameters)
    resolved = _check_options(node, source, algorithm, options)
    _check_runner(node, source)
    columns = _Columns(describe(node.query), node.query, source)
    target = columns.find(node.target[0]) if node.target else None
    weight = columns.find(node.weight) if node.weight else None
    _check_target(node, source, algorithm, target)
    key = tuple(columns.find(name).name for name in node.key)
    excluded = tuple(columns.find(name).name for name in node.exclude)
    features = columns.without({c.name for c in (target, weight) if c} | set(key) | set(excluded))
    _check_features(features, source, node)
    if node.validate is not None:
        _check_validation(node, source, describe(node.validate), features, target, weight)
    return TrainPlan(
        model=model,
        algorithm=algorithm.name if algorithm else None,
        target=target.name if target else None,
        features=features,
        key=key,
        excluded=excluded,
        weight=weight.name if weight else None,
        split=_split(node, source),
        sample_rows=node.limit.rows if node.limit else None,
        options=resolved,
        seed=int(resolved["seed"]),
        limits=_limits(node),
        runner=node.runner.name.lower() if node.runner else DEFAULT_RUNNER,
        query=node.query.text,
        statement=source[parameters.statement[0] : parameters.statement[1]],
        parameters=tuple(parameters.values.values() if isinstance(parameters.values, Mapping) else parameters.values),
    )


def extraction(plan: TrainPlan, sample: str) -> tuple[str, str]:
    """The SQL before and after the statement's own query: the columns that are needed, and the engine's words for a sample."""
    columns = ", ".join(quote_identifier(name) for name in needed_columns(plan))
    return f"SELECT {columns} FROM (", f"\n){sample}"  # noqa: S608


def needed_columns(plan: TrainPlan) -> tuple[str, ...]:
    """Features, target and weight, in this order."""
    return (*(c.name for c in plan.features), *(name for name in (plan.target, plan.weight) if name))


def bind_options(options: Sequence[Option], parameters: Parameters) -> dict[str, Any]:
    """WITH's options, lower case, with parameters filled in."""
    return {option.name.name.lower(): parameters.resolve(option.value) for option in options}


def _check_options(node: Train, source: str, algorithm: Algorithm | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options given, checked one by one so that an error points at its own.

    Without USING the algorithm is chosen from the target's values later; an option must then suit one of the two candidates.
    """
    candidates = [algorithm] if algorithm else [get_algorithm("xgboost_classifier"), get_algorithm("xgboost_regressor")]
    checked: dict[str, Any] = {"seed": SEED.default}
    for option in node.options:
        name = option.name.name.lower()
        failures: list[Error] = []
        for candidate in candidates:
            try:
                checked[name] = check_options(candidate, {name: options[name]})[name]
                break
            except BindError as error:
                failures.append(error)
        else:
            raise failures[0].located(source, _option_place(option, failures[0]))
    if algorithm:
        check_options(algorithm, options)
    return checked


def _option_place(option: Option, error: Error) -> tuple[int, int]:
    return option.name.span if "has no option" in error.message else option.value_span or option.span


def _algorithm(node: Train, source: str) -> Algorithm | None:
    if node.algorithm is None:
        return None
    try:
        return get_algorithm(node.algorithm.name)
    except BindError as error:
        raise error.located(source, node.algorithm.span) from None


def _check_runner(node: Train, source: str) -> None:
    if node.runner is None:
        return
    try:
        get("runner", node.runner.name)
    except BindError as error:
        raise error.located(source, node.runner.span) from None


def _check_target(node: Train, source: str, algorithm: Algorithm | None, target: Column | None) -> None:
    span = node.target[0].span if node.target else node.model.span
    if target is None:
        if algorithm is not None and algorithm.task is Task.CLUSTERING:
            return
        what = algorithm.name if algorithm else "TRAIN MODEL"
        raise BindError(
            f"{what} needs a TARGET: the column to predict",
            source=source,
            span=node.algorithm.span if node.algorithm else span,
            hint=f"TRAIN MODEL {node.model.text} TARGET column AS …, or USING kmeans to find clusters without one",
        )
    if algorithm is not None and algorithm.task is Task.CLUSTERING:
        raise BindError(
            f"{algorithm.name} finds clusters without a target", source=source, span=span,
            hint=f"leave out TARGET {target.name}; EXCLUDE ({target.name}) keeps it out of the clusters",
        )  # fmt: skip
    regression = algorithm is not None and algorithm.task is Task.REGRESSION
    if target.kind is None or target.kind in (Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        raise BindError(
            f"the target {target.name} has the type {target.sql_type}, which cannot be predicted", source=source, span=span,
            hint=f"turn it into a number or text in the query, as in SELECT …, epoch({target.name}) AS {target.name}",
        )  # fmt: skip
    if regression and target.kind is not Kind.NUMBER:
        raise BindError(
            f"{algorithm.name if algorithm else ''} predicts numbers; the target {target.name} has the type {target.sql_type}",
            source=source,
            span=span,
            hint="take a classifier, such as xgboost_classifier, or a numeric target",
        )


def _check_features(features: Sequence[Column], source: str, node: Train) -> None:
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


def _check_validation(
    node: Train, source: str, columns: Sequence[Column], features: Sequence[Column], target: Column | None, weight: Column | None
) -> None:
    have = {c.name.lower() for c in columns}
    missing = [c.name for c in (*features, *(x for x in (target, weight) if x)) if c.name.lower() not in have]
    if missing and node.validate is not None:
        raise BindError(
            f"the query of VALIDATE ON lacks columns that the training query has: {listing(missing)}",
            source=source,
            span=node.validate.span,
            hint=f"it has: {listing(c.name for c in columns)}",
        )


def _split(node: Train, source: str) -> SplitPlan:
    if node.validate is not None:
        if node.split is not None and not isinstance(node.split, SplitNone):
            raise BindError(
                "VALIDATE ON gives the held-out rows, so SPLIT has nothing to do", source=source, span=node.split.span,
                hint="leave out one of the two",
            )  # fmt: skip
        return SplitPlan("query")
    if isinstance(node.split, SplitNone):
        return SplitPlan("none")
    fraction = node.split.fraction if isinstance(node.split, SplitRandom) else None
    if fraction is not None and not 0 < fraction < 1:
        raise BindError(
            f"SPLIT RANDOM takes a share between 0 and 1 (got {fraction:g})", source=source,
            span=node.split.span if node.split else (0, 0), hint="as in SPLIT RANDOM 0.2; SPLIT NONE holds nothing out",
        )  # fmt: skip
    return SplitPlan("random", DEFAULT_SPLIT if fraction is None else fraction)


def _limits(node: Train) -> Limits:
    if node.limit is None:
        return Limits()
    return Limits(node.limit.time.total_seconds() if node.limit.time else None, node.limit.memory)


def _refuse_later_clauses(node: Train, source: str) -> None:
    later: list[tuple[str, Any]] = [
        ("TRANSFORM", node.transform[0] if node.transform else None),
        ("TUNE", node.tune),
        ("WARM START", node.warm_start),
        ("several targets", node.target[1] if len(node.target) > 1 else None),
        ("SPLIT BY", node.split if isinstance(node.split, SplitBy) else None),
        ("SPLIT TIME", node.split if isinstance(node.split, SplitTime) else None),
    ]
    for name, clause in later:
        if clause is not None:
            raise not_yet(name, source, clause.span)
    if node.asynchronous:
        raise not_yet("ASYNC", source, node.model.span)


class _Columns:
    """The columns of a query, found by name whatever the case."""

    def __init__(self, columns: Sequence[Column], query: Query, source: str) -> None:
        self._columns = columns
        self._source = source
        self._by_key = {c.name.lower(): c for c in columns}
        if len(self._by_key) < len(columns):
            keys = [c.name.lower() for c in columns]
            twice = next(c.name for index, c in enumerate(columns) if keys[index] in keys[:index])
            raise BindError(
                f"the query has two columns called {twice}", source=source, span=query.span,
                hint=f"give one another name: … AS {twice}_2",
            )  # fmt: skip

    def find(self, name: Ident) -> Column:
        column = self._by_key.get(name.name.lower())
        if column is None:
            names = [c.name for c in self._columns]
            raise BindError(
                f"the query has no column {name.name}",
                source=self._source,
                span=name.span,
                hint=did_you_mean(name.name, names) or f"it has: {listing(names, 20)}",
            )
        return column

    def without(self, names: set[str]) -> tuple[Column, ...]:
        return tuple(c for c in self._columns if c.name not in names)
