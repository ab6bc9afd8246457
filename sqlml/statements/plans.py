"""EXPLAIN <statement of ours>: its plan as a tree.  Nothing runs and nothing is written, unless ANALYZE is there.

The nodes of the JSON form and their fields, beside ``node`` and ``children``:

    train          model
      extraction, validation   engine, sql, estimated_rows, columns, left_to_the_database
      data         targets (name → SQL type), weight, key, held_out, split {method, fraction, column}, seed,
                   no_features (name → why)
      transform    reads, gives;  item: sql, name, learns, frozen
      features     encoding, count;  feature: column, type, kind, encoding
      learning     algorithm (null: the data decides), candidates, options_given, options_default, class_weight, warm_start
      tuning       method, trials, metric, maximize, space
      job          kind, runner, asynchronous, seconds, memory, threads, sample_rows
    predict        model, version, adds, runner
    evaluate       model, version, by; of an endpoint: endpoint, versions, by, options
    explain_model  model, version, top, reads
    compare        models
      query        engine, query (as written), sql (as sent), estimated_rows
      heldout      rows, split
      scoring      model, version, algorithm, function, where, inputs: a model that the statement or its query calls
      into         table, mode, rows_there_now
    deploy         of a query: endpoint, models, parameters, answers, options; then its steps in order
      look_up      table, keys (column → what it is compared with), columns, rows_to_copy
      ask          model, inputs (name → where its values come from), answers
      compute      sql, reads, by
    deploy, undeploy, alter_endpoint, alter_endpoints, rollback_endpoint, refresh_endpoint, create_api_key,
    alter_api_key, drop_api_key, create_runner, create_connection,
    drop_runner, drop_connection, alter_model, drop_model, export, import, cancel_job, show: what would be
    there after, and what is there now
    run            with ANALYZE: seconds, rows; of TRAIN also version, heldout_rows, peak_memory;  stage: name, seconds
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlml_dialect import (
    AlterModel,
    CancelJob,
    CompareModels,
    DeployQuery,
    DescribeModel,
    DropModel,
    Evaluate,
    ExplainModel,
    ExplainPlan,
    Export,
    ExportEndpoint,
    Import,
    Node,
    Predict,
    Query,
    RefreshEndpoint,
    RenameTo,
    SetAlias,
    Show,
    ShowCreateModel,
    ShowLogs,
    Train,
    statement_kind,
    to_sql,
)

from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.binder.text import Sql
from sqlml.catalog import Catalog, Version
from sqlml.catalog import tables as t
from sqlml.contracts import Event
from sqlml.errors import BindError, Error, NotSupportedError, count_of, listing, not_yet
from sqlml.statements.compare import bind_compare
from sqlml.statements.deploy_query_plan import plan_query
from sqlml.statements.endpoint_plans import EndpointNode, plan_endpoint
from sqlml.statements.explain import bind_explain_model, explain_sql
from sqlml.statements.export_endpoint import plan_export_endpoint
from sqlml.statements.handler import Handler, Handlers
from sqlml.statements.jobs import find_job
from sqlml.statements.model_calls import BESIDE, INSIDE, call_nodes, scoring_node
from sqlml.statements.models import ViewsCalling
from sqlml.statements.place_plans import PlaceNode, plan_place
from sqlml.statements.predict import bind_predict, check_clauses, check_into
from sqlml.statements.predict_job import bind_predict_job
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result
from sqlml.statements.runners import check_runner, open_runner
from sqlml.statements.train_plan import train_node
from sqlml.statements.tree import PlanNode, tree_result

Watched = Callable[[Node, Parameters, Callable[[Event], None]], Result]
"""Runs a statement, and lets its events be seen."""


@dataclass(frozen=True)
class _Place:
    """What a plan is made with."""

    parameters: Parameters
    queries: Queries
    catalog: Catalog
    views_calling: ViewsCalling

    @property
    def source(self) -> str:
        return self.parameters.source


def plan_handlers(
    queries: Queries, catalog: Catalog, views_calling: ViewsCalling, watched: Watched, writes: Callable[[Node], bool]
) -> Handlers:
    """EXPLAIN of a statement; with ANALYZE it writes what that one writes."""
    return {
        ExplainPlan: Handler(
            lambda n, p: run_explain_plan(n, p, queries, catalog, views_calling, watched),
            writes=lambda node: node.analyze and writes(node.statement),
        ),
    }


def run_explain_plan(
    node: ExplainPlan,
    parameters: Parameters,
    queries: Queries,
    catalog: Catalog,
    views_calling: ViewsCalling,
    watched: Watched,
) -> Result:
    """The plan of a statement, as lines or as JSON; with ANALYZE it is run, and what it took stands at the end."""
    place = _Place(parameters, queries, catalog, views_calling)
    statement = node.statement
    if node.analyze:
        _check_analyze(statement, parameters.source, node)
    root = plan_node(statement, place)
    if node.analyze:
        root = PlanNode(root.name, root.fields, (*root.children, _analyze(statement, place, watched)), root.title, root.lines)
    return tree_result(root, node.format)


def plan_node(node: Node, place: _Place) -> PlanNode:
    """The tree of a statement; raises what is wrong with it."""
    if isinstance(node, PlaceNode):
        return plan_place(node, place.parameters, place.catalog, place.queries.places, place.queries.schema)
    if isinstance(node, EndpointNode):
        return plan_endpoint(node, place.parameters, place.catalog)
    match node:
        case Train():
            return train_node(node, place.parameters, place.queries, place.catalog)
        case Predict():
            return _predict(node, place)
        case DeployQuery() | RefreshEndpoint():
            return plan_query(node, place.parameters, place.queries, place.catalog)
        case Evaluate():
            return _evaluate(node, place)
        case CompareModels():
            return _compare(node, place)
        case ExplainModel():
            return _explain(node, place)
        case AlterModel():
            return _alter(node, place)
        case DropModel():
            return _drop(node, place)
        case Export():
            return _export(node, place)
        case ExportEndpoint():
            return plan_export_endpoint(node, place.parameters, place.catalog)
        case Import():
            return _import(node)
        case CancelJob():
            job = find_job(place.catalog, node.job, place.source, node.span)
            fields = {"job": node.job, "kind": job["kind"], "model": job["model"], "state": job["state"]}
            return PlanNode("cancel_job", fields, (), f"CANCEL JOB {node.job}")
        case Show():
            return PlanNode("show", {"reads": f"the relation {node.subject} of the catalog"}, (), to_sql(node))
        case ShowLogs():
            return PlanNode("show", {"reads": f"the log of job {node.job}"}, (), to_sql(node))
        case DescribeModel() | ShowCreateModel():
            version = resolve_model(place.catalog, node.model, place.source)
            return PlanNode("show", {"reads": f"what the catalog keeps of {version.name}"}, (), to_sql(node))
    raise not_yet(statement_kind(node).replace("_", " ").upper(), place.source, node.span)


# --- questions to a model ---------------------------------------------------------------------------------------------


def _query_node(sql: Sql, query: Query, place: _Place) -> PlanNode:
    """A query of the database: as it was written for people, as it is sent (with names of ours in it) in JSON."""
    rows = place.queries.estimate_rows(sql, place.parameters.within(query.span))
    fields = {"engine": place.queries.places.engine_name(sql), "query": query.text, "sql": sql.text, "estimated_rows": rows}
    calls = call_nodes(sql, query.span, place.queries, place.catalog)
    return PlanNode("query", fields, calls, hidden=("sql",))


def _predict(node: Predict, place: _Place) -> PlanNode:
    check_clauses(node, place.source)
    check_runner(place.catalog, node.runner, place.source)
    if node.into is not None:
        check_into(node.into, place.queries, place.source)
    if node.runner is not None and node.runner.name.lower() != "inline":
        bind_predict_job(node, place.parameters, place.queries, place.catalog, open_runner(place.catalog, node.runner.name))
    version, sql = bind_predict(node, place.parameters, place.queries, place.catalog)
    runner = node.runner.name if node.runner and node.runner.name.lower() != "inline" else None
    inside = place.queries.scores_inside(sql) and runner is None
    if inside:
        sql = place.queries.predict_table(place.source, node.model, version, node.query).wrapped("SELECT * FROM ", "")
    query = _query_node(sql, node.query, place)
    where = f"on {runner}" if runner else INSIDE if inside else BESIDE
    scoring = scoring_node(version, "predict_model", f"scoring by {version.name}", where)
    fields = {"model": version.model, "version": version.version, "adds": [name for name, _ in version.added], "runner": runner}
    title, adds = f"PREDICT MODEL {version.name}", f"adds: {listing((name for name, _ in version.added), 50)}"
    return PlanNode("predict", fields, (query, scoring, *_into(node, place)), title, (adds,))


def _into(node: Predict | ExplainModel, place: _Place) -> tuple[PlanNode, ...]:
    if node.into is None:
        return ()
    rows = place.queries.places.table_rows(node.into.table)
    fields = {"table": node.into.table.text, "mode": node.into.mode, "rows_there_now": rows}
    how = {"create": "new", "append": "rows are added", "replace": "takes the place of what is there"}[node.into.mode]
    there = f"; {count_of(rows, 'row')} there now" if rows is not None else ""
    return (PlanNode("into", fields, (), f"into {node.into.table.text}: {how}{there}; all rows or none", ()),)


def _evaluate(node: Evaluate, place: _Place) -> PlanNode:
    version = resolve_model(place.catalog, node.model, place.source)
    fields: dict[str, Any] = {"model": version.model, "version": version.version, "by": [name.name for name in node.by]}
    lines = (f"by: {listing(fields['by'])}",) if node.by else ()
    return PlanNode("evaluate", fields, (_rows_of(node.query, version, place),), f"EVALUATE MODEL {version.name}", lines)


def _rows_of(query: Query | None, version: Version, place: _Place) -> PlanNode:
    """The rows that a version is measured on: those of a query, or those that it held out."""
    if query is not None:
        sql = place.queries.bind(place.source, query.span)
        place.queries.projected(sql, ())  # says what measuring would refuse
        return _query_node(sql, query, place)
    fields = {"rows": version.heldout_rows, "split": version.split}
    return PlanNode(
        "heldout", fields, (), f"the {count_of(version.heldout_rows, 'row')} that {version.name} held out, as scored then", ()
    )


def _compare(node: CompareModels, place: _Place) -> PlanNode:
    versions = bind_compare(node, place.parameters, place.catalog)
    fields = {"models": [version.name for version in versions]}
    if node.query is not None:
        children: tuple[PlanNode, ...] = (_rows_of(node.query, versions[0], place),)
    else:
        children = tuple(_rows_of(None, version, place) for version in versions)
    return PlanNode("compare", fields, children, f"COMPARE MODELS {', '.join(fields['models'])}", ())


def _explain(node: ExplainModel, place: _Place) -> PlanNode:
    version = bind_explain_model(node, place.parameters, place.queries, place.catalog)
    fields = {"model": version.model, "version": version.version, "top": node.top}
    children: tuple[PlanNode, ...] = ()
    if node.query is not None:
        sql = place.queries.bind(place.source, node.query.span)
        if place.queries.scores_inside(sql):
            sql = explain_sql(node, version, place.parameters, place.queries)
        children = (_query_node(sql, node.query, place),)
    else:
        fields["reads"] = "the importance that the model keeps: no row of the database is read"
    return PlanNode("explain_model", fields, (*children, *_into(node, place)), f"EXPLAIN MODEL {version.name}")


# --- what changes the catalog -----------------------------------------------------------------------------------------


def _alter(node: AlterModel, place: _Place) -> PlanNode:
    version = resolve_model(place.catalog, node.model, place.source)
    fields: dict[str, Any] = {"model": version.model, "change": to_sql(node)}
    if isinstance(node.action, RenameTo):
        fields["views_that_lose_it"] = list(place.views_calling(version.model))
        fields["endpoints_that_go_on"] = [
            e.name for e in place.catalog.endpoints() if any(arm.model == version.model for arm in e.arms)
        ]
    if isinstance(node.action, SetAlias):
        meant = _alias(version.model, node.action.alias.name, place)
        new = _resolved(version.model, node.action.version, place, node)
        fields |= {"now": meant, "then": new.version, "views_that_follow": list(place.views_calling(version.model))}
    return PlanNode("alter_model", fields, (), f"ALTER MODEL {node.model.text}")


def _resolved(model: str, number: int, place: _Place, node: AlterModel) -> Version:
    try:
        return place.catalog.resolve(model, number)
    except Error as error:
        raise error.located(place.source, node.action.span) from None


def _alias(model: str, alias: str, place: _Place) -> int | None:
    try:
        return place.catalog.resolve(model, None, alias).version
    except BindError:
        return None


def _drop(node: DropModel, place: _Place) -> PlanNode:
    ref = node.model
    try:
        version = place.catalog.resolve(ref.name.text, ref.version, ref.alias)
    except BindError as error:
        if node.if_exists:
            return PlanNode("drop_model", {"model": ref.text, "goes": []}, (), f"DROP MODEL {ref.text}: there is none")
        raise error.located(place.source, ref.span) from None
    own = sa.select(t.versions.c.version).join(t.models, t.models.c.id == t.versions.c.model_id)
    numbers = [r["version"] for r in place.catalog.rows(own.where(t.models.c.name == version.model).order_by("version"))]
    whole = ref.version is None and ref.alias is None
    goes = numbers if whole else [version.version]
    endpoints = [e.name for e in place.catalog.endpoints() if any(a.model == version.model and a.version in goes for a in e.arms)]
    functions = [f.text for f in place.catalog.functions() if f.model == version.model and f.version in goes]
    fields = {
        "model": version.model,
        "goes": [f"{version.model}@{number}" for number in goes],
        "stays": [f"{version.model}@{number}" for number in numbers if number not in goes],
        "endpoints": endpoints,
        "functions": functions,
        "refused": bool(endpoints or functions) and not node.cascade,
        "views_that_call_the_model": list(place.views_calling(version.model)),
    }
    verdict = f": refused, since it is deployed: {listing([*endpoints, *functions])}" if fields["refused"] else ""
    return PlanNode("drop_model", fields, (), f"DROP MODEL {version.name if not whole else version.model}{verdict}")


def _export(node: Export, place: _Place) -> PlanNode:
    version = resolve_model(place.catalog, node.model, place.source)
    there = "something is there" if Path(node.path).exists() else "nothing is there yet"
    fields = {"model": version.model, "version": version.version, "path": node.path, "format": node.format, "now": there}
    return PlanNode("export", fields, (), f"EXPORT MODEL {version.name}")


def _import(node: Import) -> PlanNode:
    there = "there" if Path(node.path).exists() else "missing"
    fields = {"model": node.model.text, "path": node.path, "file": there}
    return PlanNode("import", fields, (), f"IMPORT MODEL {node.model.text}: a new version")


# --- ANALYZE ----------------------------------------------------------------------------------------------------------


@dataclass
class _Clock:
    """When each stage of a statement began."""

    started: float = field(default_factory=time.monotonic)
    stages: list[tuple[str, float]] = field(default_factory=list)

    def see(self, event: Event) -> None:
        name = {"stage": event.get("name"), "done": "publishing"}.get(event["event"])
        if name is not None and (not self.stages or self.stages[-1][0] != name):
            self.stages.append((str(name), time.monotonic()))

    def seconds(self) -> dict[str, float]:
        """Stage → seconds, in the order in which each first began; all that comes before the first is ``planning``."""
        ends = [began for _, began in self.stages[1:]] + [time.monotonic()]
        took: dict[str, float] = {"planning": (self.stages[0][1] if self.stages else ends[-1]) - self.started}
        for (name, began), end in zip(self.stages, ends, strict=False):
            took[name] = took.get(name, 0.0) + end - began
        return took


def _check_analyze(statement: Node, source: str, node: ExplainPlan) -> None:
    if isinstance(statement, Train) and statement.asynchronous:
        raise NotSupportedError(
            "EXPLAIN ANALYZE waits for the end, ASYNC does not", source=source, span=node.span, hint="leave out one of the two"
        )
    if not isinstance(statement, Train | Predict):
        raise NotSupportedError(
            f"EXPLAIN ANALYZE runs TRAIN and PREDICT MODEL only, not {statement_kind(statement).replace('_', ' ').upper()}",
            source=source, span=node.span, hint="EXPLAIN without ANALYZE shows the plan of every statement",
        )  # fmt: skip


def _analyze(statement: Node, place: _Place, watched: Watched) -> PlanNode:
    """Run the statement; how long each stage took, and what came of it."""
    clock = _Clock()
    result = watched(statement, place.parameters, clock.see)
    rows = list(result.batches) if result.batches is not None else []
    seconds = time.monotonic() - clock.started
    if isinstance(statement, Train):
        return _trained(rows[0].to_pylist()[0], clock, seconds, place.catalog)
    count = result.rowcount if result.batches is None else sum(batch.num_rows for batch in rows)
    return PlanNode("run", {"rows": count, "seconds": seconds}, (), f"ran: {count_of(count, 'row')} in {seconds:.3g} s", ())


def _trained(row: Mapping[str, Any], clock: _Clock, seconds: float, catalog: Catalog) -> PlanNode:
    version = catalog.resolve(row["model"], row["version"])
    made = catalog.describe(version.uid)
    stages = tuple(
        PlanNode("stage", {"name": name, "seconds": took}, (), f"{name}: {took:.3f} s", ())
        for name, took in clock.seconds().items()
    )
    fields = {
        "version": version.version,
        "seconds": seconds,
        "rows": made["rows"],
        "heldout_rows": made["heldout_rows"],
        "peak_memory": made["peak_memory"],
    }
    lines = (
        f"rows: {made['rows']:,} trained on, {made['heldout_rows']:,} held out",
        f"peak memory of the job: {made['peak_memory'] / 2**20:,.0f} MiB",
    )
    return PlanNode("run", fields, stages, f"ran: {version.name} in {seconds:.2f} s", lines)
