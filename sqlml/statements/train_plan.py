"""EXPLAIN TRAIN: what would be read, how columns become features, what would be learnt, and the job that would do it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlml_dialect import Query, Train
from sqlml_dialect.fitted import FittedCall, find_fitted

from sqlml.algorithms.options import check_options
from sqlml.binder.parameters import Parameters
from sqlml.binder.train import needed_columns
from sqlml.catalog import Catalog
from sqlml.contracts import Algorithm
from sqlml.errors import count_of
from sqlml.features.transform_plan import plan_transform
from sqlml.plan import TrainPlan, TransformPlan
from sqlml.registry import candidates
from sqlml.statements.job_run import extraction_sql
from sqlml.statements.model_calls import call_nodes
from sqlml.statements.queries import Queries
from sqlml.statements.runners import runner_type
from sqlml.statements.train import plan_train
from sqlml.statements.train_result import trained_columns
from sqlml.statements.tree import PlanNode
from sqlml.types import UNSUPERVISED, Column, Kind, Task

_ENCODED: Mapping[str, Mapping[Kind, str]] = {
    "codes": {
        Kind.NUMBER: "number as it is",
        Kind.BOOLEAN: "false 0, true 1",
        Kind.TEXT: "categories as codes; unseen ones as missing",
        Kind.TIME: "seconds since midnight",
        Kind.DATE: "days, year, month, day, weekday",
        Kind.TIMESTAMP: "days, year, month, day, weekday, hour, minute",
        Kind.TIMESTAMPTZ: "in UTC: days, year, month, day, weekday, hour, minute",
        Kind.NUMBERS: "one feature for each position",
        Kind.TEXTS: "one feature for each category: whether it is in the list",
    },
    "dense": {
        Kind.NUMBER: "standardised; NULL as the mean and a flag",
        Kind.BOOLEAN: "false 0, true 1, standardised; NULL as the mean and a flag",
        Kind.TEXT: "one feature for each category; unseen ones as missing",
        Kind.TIME: "seconds since midnight, standardised",
        Kind.DATE: "days, year, month, day, weekday, standardised",
        Kind.TIMESTAMP: "days, year, month, day, weekday, hour, minute, standardised",
        Kind.TIMESTAMPTZ: "in UTC: days, year, month, day, weekday, hour, minute, standardised",
        Kind.NUMBERS: "one feature for each position, standardised",
        Kind.TEXTS: "one feature for each category: whether it is in the list",
    },
}


def train_node(node: Train, parameters: Parameters, queries: Queries, catalog: Catalog) -> PlanNode:
    """The whole tree of a TRAIN statement; raises what is wrong with it."""
    plan = plan_train(replace(node, asynchronous=False), parameters, queries, catalog)
    columns = _columns(node.query, parameters, queries)
    children = [_extraction(node.query, "extraction", plan, columns, parameters, queries, catalog)]
    if node.validate is not None:
        given = _columns(node.validate, parameters, queries)
        children.append(_extraction(node.validate, "validation", plan, given, parameters, queries, catalog))
    chosen = _candidates(plan, columns)
    children += [_data(plan, columns), *_features(plan, chosen), _learning(node, plan, chosen), *_tuning(plan)]
    children.append(_job(node, plan, runner_type(catalog, plan.runner)))
    return PlanNode("train", {"model": plan.model}, tuple(children), f"TRAIN MODEL {plan.model}: a new version", ())


def train_columns(node: Train, parameters: Parameters, queries: Queries, catalog: Catalog) -> tuple[Column, ...] | None:
    """The columns of a TRAIN's answer; None where the target's values decide what is learnt.  Nothing runs."""
    plan = plan_train(node, parameters, queries, catalog)
    tasks = {algorithm.task for algorithm in _candidates(plan, _columns(node.query, parameters, queries))}
    return trained_columns(tasks.pop(), several=len(plan.targets) > 1) if len(tasks) == 1 else None


def _columns(query: Query, parameters: Parameters, queries: Queries) -> tuple[Column, ...]:
    return queries.describe(queries.bind(parameters.source, query.span), parameters.within(query.span))


def _extraction(
    query: Query,
    name: str,
    plan: TrainPlan,
    columns: Sequence[Column],
    parameters: Parameters,
    queries: Queries,
    catalog: Catalog,
) -> PlanNode:
    sql = extraction_sql(query, plan, parameters.source, queries)
    read = needed_columns(plan)
    pushed = [f"{len(read)} of {count_of(len(columns), 'column')}"] if len(read) < len(columns) else []
    pushed += [f"a sample of {count_of(plan.sample_rows, 'row')} by seed {plan.seed}"] if plan.sample_rows else []
    fields = {
        "engine": queries.places.engine_name(sql),
        "sql": sql.text,
        "estimated_rows": queries.estimate_rows(sql, parameters.within(query.span)),
        "columns": list(read),
        "left_to_the_database": pushed,
    }
    return PlanNode(name, fields, call_nodes(sql, query.span, queries, catalog))


def _data(plan: TrainPlan, columns: Sequence[Column]) -> PlanNode:
    types = {c.name: c.sql_type for c in columns}
    left_out = dict.fromkeys(plan.key, "KEY: it names the row") | dict.fromkeys(plan.excluded, "EXCLUDE")
    left_out |= {plan.weight: "WEIGHT"} if plan.weight else {}
    left_out |= {plan.split.column: f"SPLIT {plan.split.method.upper()}"} if plan.split.column else {}
    targets = {name: types.get(name, "") for name in plan.targets}
    fields = {
        "targets": targets,
        "weight": plan.weight,
        "key": list(plan.key),
        "held_out": plan.split.text,
        "split": {"method": plan.split.method, "fraction": plan.split.fraction, "column": plan.split.column},
        "seed": plan.seed,
        "no_features": left_out,
    }
    lines = [f"target: {', '.join(f'{n} {t}'.rstrip() for n, t in targets.items()) or 'none'}"]
    lines += [f"held out: {plan.split.text}, seed {plan.seed}"]
    lines += [f"no feature: {name} ({why})" for name, why in left_out.items()]
    return PlanNode("data", fields, lines=tuple(lines))


def _features(plan: TrainPlan, chosen: Sequence[Algorithm]) -> Iterator[PlanNode]:
    columns: Sequence[Column] = plan.features
    if plan.transform is not None:
        given, columns = _outputs(plan.transform)
        yield given
    encoding = chosen[0].encoding
    if chosen[0].task is Task.TRANSFORM:
        return
    children = tuple(_feature(column, encoding) for column in columns)
    yield PlanNode("features", {"encoding": encoding, "count": len(columns)}, children, count_of(len(columns), "feature"), ())


def _feature(column: Column, encoding: str) -> PlanNode:
    done = _ENCODED[encoding][column.kind or Kind.NUMBER]
    fields = {"column": column.name, "type": column.sql_type, "kind": column.kind and column.kind.value, "encoding": done}
    return PlanNode("feature", fields, (), f"{column.name} {column.sql_type}: {done}", ())


def _outputs(transform: TransformPlan) -> tuple[PlanNode, Sequence[Column]]:
    """TRANSFORM's items, with what each learns from the training rows, and the columns that they give."""
    _, columns = plan_transform(transform.items, transform.inputs, transform.frozen)
    items = []
    for item in transform.items:
        fitted = [] if item.text in transform.frozen else [call.name for call in _walk(find_fitted(item.text)) if call.over]
        name = f" AS {item.name}" if item.name else ""
        learns = f": learns {', '.join(f'ML.{f}' for f in fitted)} from the training rows" if fitted else ""
        learns = ": fitted before, and kept so" if item.text in transform.frozen else learns
        fields = {"sql": item.text, "name": item.name, "learns": fitted, "frozen": item.text in transform.frozen}
        items.append(PlanNode("item", fields, (), " ".join(item.text.split()) + name + learns, ()))
    read = [c.name for c in transform.inputs]
    return PlanNode("transform", {"reads": read, "gives": [c.name for c in columns]}, tuple(items)), columns


def _walk(calls: Sequence[FittedCall]) -> Iterator[FittedCall]:
    for call in calls:
        yield call
        yield from _walk(call.inner)


def _candidates(plan: TrainPlan, columns: Sequence[Column]) -> tuple[Algorithm, ...]:
    """What may be trained: one algorithm where it is named, or where the targets' types decide."""
    found = candidates(plan.algorithm)
    kinds = {c.kind for c in columns if c.name in plan.targets}
    if len(found) > 1 and kinds and kinds <= {Kind.TEXT, Kind.BOOLEAN}:
        return tuple(a for a in found if a.task is Task.CLASSIFICATION)
    return found


def _learning(node: Train, plan: TrainPlan, chosen: Sequence[Algorithm]) -> PlanNode:
    given = {option.name.name.lower() for option in node.options}
    tuned = {name.lower() for name in plan.tune.space} if plan.tune else set()
    fields: dict[str, Any] = {"algorithm": chosen[0].name if len(chosen) == 1 else None, "candidates": [a.name for a in chosen]}
    if len(chosen) == 1:
        resolved = {name: value for name, value in check_options(chosen[0], plan.options).items() if name.lower() not in tuned}
    else:
        resolved = {name: value for name, value in plan.options.items() if name.lower() in given}
    fields["options_given"] = {name: value for name, value in resolved.items() if name.lower() in given}
    fields["options_default"] = {n: v for n, v in resolved.items() if n.lower() not in given and v is not None}
    fields["class_weight"] = plan.options.get("class_weight")
    fields["warm_start"] = plan.start.name if plan.start else None
    one = chosen[0].task not in UNSUPERVISED and len(plan.targets) > 1
    name = fields["algorithm"] or f"{' or '.join(a.name for a in chosen)}, as the values of {', '.join(plan.targets)} ask for"
    lines = [f"algorithm: {name}" + (f", one for each of {len(plan.targets)} targets" if one else "")]
    lines += [f"option: {n} = {_value(v)}" for n, v in fields["options_given"].items() if n != "class_weight"]
    lines += [f"defaults: {', '.join(f'{n} = {_value(v)}' for n, v in fields['options_default'].items())}"]
    lines += [f"class weights: {_value(fields['class_weight'])}"] if fields["class_weight"] else []
    lines += [f"warm start from {fields['warm_start']}"] if plan.start else []
    if len(chosen) > 1:
        lines[-1:] = ["defaults: those of the algorithm that is taken"]
    return PlanNode("learning", fields, lines=tuple(lines))


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _tuning(plan: TrainPlan) -> Iterator[PlanNode]:
    if plan.tune is None:
        return
    aim = f"{'maximize' if plan.tune.maximize else 'minimize'} {plan.tune.metric}"
    fields = {
        "method": plan.tune.method,
        "trials": plan.tune.trials,
        "metric": plan.tune.metric,
        "maximize": plan.tune.maximize,
        "space": {name: dict(tried) for name, tried in plan.tune.space.items()},
    }
    tried = tuple(f"{name}: {_tried(space)}" for name, space in plan.tune.space.items())
    title = f"tuning: {count_of(plan.tune.trials, 'trial')}, {plan.tune.method}, {aim}"
    yield PlanNode("tuning", fields, (), title, tried)


def _tried(space: Mapping[str, Any]) -> str:
    if "values" in space:
        return ", ".join(_value(value) for value in space["values"])
    return f"{space['low']:g} to {space['high']:g}{', on a logarithmic scale' if space.get('log') else ''}"


def _job(node: Train, plan: TrainPlan, kind: str) -> PlanNode:
    """The job; ``kind`` is the type of its runner."""
    fields = {
        "kind": "train",
        "runner": plan.runner,
        "type": kind,
        "asynchronous": node.asynchronous,
        "seconds": plan.limits.seconds,
        "memory": plan.limits.memory,
        "threads": plan.limits.threads or None,
        "sample_rows": plan.sample_rows,
    }
    limits = [f"{plan.limits.seconds:g} s"] if plan.limits.seconds else []
    limits += [f"{plan.limits.memory / 2**20:,.0f} MiB"] if plan.limits.memory else []
    limits += [count_of(plan.limits.threads, "thread")] if plan.limits.threads else []
    shown = plan.runner if kind == plan.runner else f"{plan.runner}, of type {kind}"
    lines = [f"runner: {shown}{', while the session goes on' if node.asynchronous else ''}"]
    lines += [f"limits: {', '.join(limits) or 'none'}"]
    lines += [f"sample: {count_of(plan.sample_rows, 'row')} of the query, by seed {plan.seed}"] if plan.sample_rows else []
    return PlanNode("job", fields, lines=tuple(lines))
