"""Trees to text: the one canonical way to write each statement of ours.

``parse`` of the text gives an equal tree.  The database's own queries and expressions inside are copied as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

from sqlml_dialect.clause_nodes import (
    Expression,
    Given,
    Ident,
    Limit,
    ModelRef,
    Option,
    Placeholder,
    QualifiedName,
    Query,
    Split,
    SplitBy,
    SplitNone,
    SplitRandom,
    Struct,
    Tune,
    TuneChoice,
    TuneRange,
    Value,
)
from sqlml_dialect.names import name_sql, quote_string
from sqlml_dialect.nodes import (
    AlterApiKey,
    AlterEndpoint,
    AlterEndpoints,
    AlterModel,
    CancelJob,
    Change,
    CompareModels,
    CreateApiKey,
    CreateResource,
    Deploy,
    DeployFunction,
    DeployQuery,
    DescribeModel,
    DropApiKey,
    DropModel,
    DropResource,
    Evaluate,
    EvaluateEndpoint,
    ExplainModel,
    ExplainPlan,
    Export,
    ExportEndpoint,
    Import,
    Into,
    Node,
    Predict,
    RefreshEndpoint,
    RenameTo,
    RollbackEndpoint,
    RotateApiKey,
    SetAlias,
    SetComment,
    SetOptions,
    SetTag,
    Show,
    ShowCreateModel,
    ShowLogs,
    Train,
    Undeploy,
    UndeployFunction,
    Unset,
)
from sqlml_dialect.values import SIZE_UNITS, duration_text

T = TypeVar("T")


def to_sql(node: Node) -> str:
    """The canonical text of a statement."""
    return _WRITERS[type(node)](node)


# --- statements -------------------------------------------------------------------------------------------------------


def train_sql(node: Train) -> str:
    """``TRAIN MODEL … AS query``"""
    return _join(
        f"TRAIN MODEL {model_sql(node.model)}",
        _clause("USING", node.algorithm, ident_sql),
        _clause("TARGET", node.target, idents_sql),
        _clause("TRANSFORM", node.transform, transform_sql),
        _clause("EXCLUDE", node.exclude, lambda columns: f"({idents_sql(columns)})"),
        _clause("WEIGHT", node.weight, ident_sql),
        _clause("KEY", node.key, idents_sql),
        f"SPLIT {split_sql(node.split)}" if node.split else "",
        _clause("VALIDATE ON", node.validate, lambda query: f"({query.text})"),
        _clause("TUNE", node.tune, tune_sql),
        _clause("WARM START FROM", node.warm_start, model_sql),
        _clause("LIMIT", node.limit, limit_sql),
        _clause("WITH", node.options, options_sql),
        _clause("ON", node.runner, ident_sql),
        "ASYNC" if node.asynchronous else "",
        query_sql(node.query),
    )


def evaluate_sql(node: Evaluate) -> str:
    """``EVALUATE MODEL …``"""
    by, options = _clause("BY", node.by, idents_sql), _clause("WITH", node.options, options_sql)
    return _join(f"EVALUATE MODEL {model_sql(node.model)}", by, options, query_sql(node.query))


def compare_sql(node: CompareModels) -> str:
    """``COMPARE MODELS m@3, m@4``"""
    models, options = ", ".join(map(model_sql, node.models)), _clause("WITH", node.options, options_sql)
    return _join(f"COMPARE MODELS {models}", options, query_sql(node.query))


def predict_sql(node: Predict) -> str:
    """``PREDICT MODEL … AS query``"""
    return _join(
        f"PREDICT MODEL {model_sql(node.model)}",
        _clause("INTO", node.into, into_sql),
        _clause("WITH", node.options, options_sql),
        _clause("ON", node.runner, ident_sql),
        "ASYNC" if node.asynchronous else "",
        query_sql(node.query),
    )


def explain_model_sql(node: ExplainModel) -> str:
    """``EXPLAIN MODEL …``"""
    top, into = _clause("TOP", node.top, value_sql), _clause("INTO", node.into, into_sql)
    return _join(f"EXPLAIN MODEL {model_sql(node.model)}", top, into, query_sql(node.query))


def explain_plan_sql(node: ExplainPlan) -> str:
    """``EXPLAIN statement``"""
    options = [*(["ANALYZE"] if node.analyze else []), *([f"FORMAT {name_sql(node.format)}"] if node.format else [])]
    shown = f"({', '.join(options)})" if node.format else "".join(options)
    return _join("EXPLAIN", shown, to_sql(node.statement))


def deploy_sql(node: Deploy) -> str:
    """``DEPLOY MODEL …``"""
    return _join(
        f"DEPLOY MODEL {model_sql(node.model)}",
        _clause("TO ENDPOINT", node.endpoint, ident_sql),
        _clause("WITH", node.options, options_sql),
        _clause("ON", node.runner, ident_sql),
    )


def deploy_query_sql(node: DeployQuery) -> str:
    """``DEPLOY QUERY e … AS query``"""
    options = _clause("WITH", node.options, options_sql)
    return _join(f"DEPLOY QUERY {ident_sql(node.endpoint)}", options, query_sql(node.query))


def refresh_endpoint_sql(node: RefreshEndpoint) -> str:
    """``REFRESH ENDPOINT e``"""
    return f"REFRESH ENDPOINT {ident_sql(node.endpoint)}"


def undeploy_sql(node: Undeploy) -> str:
    """``UNDEPLOY ENDPOINT e``"""
    return _join("UNDEPLOY ENDPOINT", "IF EXISTS" if node.if_exists else "", ident_sql(node.endpoint))


def deploy_function_sql(node: DeployFunction) -> str:
    """``DEPLOY MODEL m TO DATABASE c AS FUNCTION f``"""
    database, function = ident_sql(node.database) if node.database else "", _clause("AS FUNCTION", node.function, qualified_sql)
    return _join(f"DEPLOY MODEL {model_sql(node.model)} TO DATABASE", database, function)


def undeploy_function_sql(node: UndeployFunction) -> str:
    """``UNDEPLOY FUNCTION f FROM DATABASE c``"""
    return _join(f"UNDEPLOY FUNCTION {qualified_sql(node.function)}", _clause("FROM DATABASE", node.database, ident_sql))


def alter_endpoints_sql(node: AlterEndpoints) -> str:
    """``ALTER ENDPOINTS SET (…)``"""
    return f"ALTER ENDPOINTS SET {options_sql(node.options)}"


def alter_endpoint_sql(node: AlterEndpoint) -> str:
    """``ALTER ENDPOINT e SET TRAFFIC (…)``, ``ALTER ENDPOINT e SET (…)``"""
    head = f"ALTER ENDPOINT {ident_sql(node.endpoint)} SET"
    if isinstance(node.action, SetOptions):
        return f"{head} {options_sql(node.action.options)}"
    shares = ", ".join(
        f"{version if isinstance(version, int) else model_sql(version)} = {value_sql(share)}"
        for version, share in node.action.shares
    )
    return f"{head} TRAFFIC ({shares})"


def rollback_sql(node: RollbackEndpoint) -> str:
    """``ROLLBACK ENDPOINT e``"""
    return f"ROLLBACK ENDPOINT {ident_sql(node.endpoint)}"


def evaluate_endpoint_sql(node: EvaluateEndpoint) -> str:
    """``EVALUATE ENDPOINT e``"""
    by, options = _clause("BY", node.by, idents_sql), _clause("WITH", node.options, options_sql)
    return _join(f"EVALUATE ENDPOINT {ident_sql(node.endpoint)}", by, options)


def create_key_sql(node: CreateApiKey) -> str:
    """``CREATE API KEY k FOR ENDPOINT e``"""
    endpoints = f"FOR ENDPOINT {idents_sql(node.endpoints)}" if node.endpoints else "FOR ALL ENDPOINTS"
    return _join(f"CREATE API KEY {ident_sql(node.name)}", endpoints, _clause("WITH", node.options, options_sql))


def rotate_key_sql(node: RotateApiKey) -> str:
    """``ALTER API KEY k ROTATE``"""
    return _join(f"ALTER API KEY {ident_sql(node.name)} ROTATE", _clause("WITH", node.options, options_sql))


def alter_key_sql(node: AlterApiKey) -> str:
    """``ALTER API KEY k SET (…)``"""
    return f"ALTER API KEY {ident_sql(node.name)} SET {options_sql(node.options)}"


def drop_key_sql(node: DropApiKey) -> str:
    """``DROP API KEY k``"""
    return _join("DROP API KEY", "IF EXISTS" if node.if_exists else "", ident_sql(node.name))


def show_sql(node: Show) -> str:
    """``SHOW MODELS``"""
    of, like = _clause("OF", node.model, model_sql), _clause("LIKE", node.like, value_sql)
    return _join(f"SHOW {SHOWN.get(node.subject, node.subject.upper())}", of, like)


SHOWN = {"functions": "DEPLOYED FUNCTIONS", "api_keys": "API KEYS", "server_settings": "SERVER SETTINGS"}
"""Subjects of SHOW that are written otherwise than their relation is called."""


def show_logs_sql(node: ShowLogs) -> str:
    """``SHOW LOGS FOR JOB n``"""
    return f"SHOW LOGS FOR JOB {value_sql(node.job)}"


def show_create_sql(node: ShowCreateModel) -> str:
    """``SHOW CREATE MODEL m``"""
    return f"SHOW CREATE MODEL {model_sql(node.model)}"


def describe_sql(node: DescribeModel) -> str:
    """``DESCRIBE MODEL m``"""
    return f"DESCRIBE MODEL {model_sql(node.model)}"


def cancel_sql(node: CancelJob) -> str:
    """``CANCEL JOB n``"""
    return f"CANCEL JOB {value_sql(node.job)}"


def alter_model_sql(node: AlterModel) -> str:
    """``ALTER MODEL m …``"""
    return f"ALTER MODEL {model_sql(node.model)} {change_sql(node.action)}"


def drop_model_sql(node: DropModel) -> str:
    """``DROP MODEL m``"""
    exists = "IF EXISTS" if node.if_exists else ""
    return _join("DROP MODEL", exists, model_sql(node.model), "CASCADE" if node.cascade else "")


def export_sql(node: Export) -> str:
    """``EXPORT MODEL m TO 'path'``"""
    form, options = _clause("FORMAT", node.format, name_sql), _clause("WITH", node.options, options_sql)
    return _join(f"EXPORT MODEL {model_sql(node.model)} TO {value_sql(node.path)}", form, options)


def export_endpoint_sql(node: ExportEndpoint) -> str:
    """``EXPORT ENDPOINT e TO 'folder'``"""
    form, options = _clause("FORMAT", node.format, name_sql), _clause("WITH", node.options, options_sql)
    return _join(f"EXPORT ENDPOINT {ident_sql(node.endpoint)} TO {value_sql(node.path)}", form, options)


def import_sql(node: Import) -> str:
    """``IMPORT MODEL m FROM 'path'``"""
    options = _clause("WITH", node.options, options_sql)
    return _join(f"IMPORT MODEL {model_sql(node.model)} FROM {value_sql(node.path)}", options)


def create_resource_sql(node: CreateResource) -> str:
    """``CREATE RUNNER r TYPE t``"""
    head = _join("CREATE", "OR REPLACE" if node.or_replace else "", node.what.upper())
    exists = "IF NOT EXISTS" if node.if_not_exists else ""
    name = f"{ident_sql(node.name)} TYPE {ident_sql(node.type)}"
    return _join(head, exists, name, _clause("WITH", node.options, options_sql))


def drop_resource_sql(node: DropResource) -> str:
    """``DROP RUNNER r``"""
    exists, cascade = "IF EXISTS" if node.if_exists else "", "CASCADE" if node.cascade else ""
    return _join(f"DROP {node.what.upper()}", exists, ident_sql(node.name), cascade)


# --- names and queries ------------------------------------------------------------------------------------------------


def ident_sql(ident: Ident) -> str:
    """A name, quoted where it must be."""
    return name_sql(ident.name)


def idents_sql(idents: Iterable[Ident]) -> str:
    """Names with commas between."""
    return ", ".join(ident_sql(ident) for ident in idents)


def qualified_sql(name: QualifiedName) -> str:
    """A dotted name."""
    return ".".join(ident_sql(part) for part in name.parts)


def model_sql(model: ModelRef) -> str:
    """A model with its version or alias."""
    suffix = name_sql(model.alias) if model.alias is not None else model.version
    return qualified_sql(model.name) + ("" if suffix is None else f"@{suffix}")


def query_sql(query: Query | None) -> str:
    """``AS query``, as it was written."""
    return "" if query is None else f"AS {query.text}"


def into_sql(into: Into) -> str:
    """``table [APPEND | REPLACE]``"""
    return _join(qualified_sql(into.table), "" if into.mode == "create" else into.mode.upper())


def change_sql(change: Change) -> str:
    """What ALTER MODEL does."""
    match change:
        case SetAlias(alias, version):
            return f"SET ALIAS {ident_sql(alias)} = {value_sql(version)}"
        case SetTag(tag, value):
            return f"SET TAG {ident_sql(tag)} = {value_sql(value)}"
        case SetComment(comment):
            return f"SET COMMENT {value_sql(comment)}"
        case RenameTo(name):
            return f"RENAME TO {qualified_sql(name)}"
        case Unset(what, unset):
            return _join(f"UNSET {what.upper()}", ident_sql(unset) if unset else "")


# --- clauses ----------------------------------------------------------------------------------------------------------


def transform_sql(items: Iterable[Expression]) -> str:
    """``(expr AS name, …)``"""
    shown = (item.text + (f" AS {ident_sql(item.alias)}" if item.alias else "") for item in items)
    return f"({', '.join(shown)})"


def split_sql(split: Split) -> str:
    """What stands behind SPLIT."""
    if isinstance(split, SplitNone):
        return "NONE"
    if isinstance(split, SplitBy):
        return f"BY {ident_sql(split.column)}"
    way = "RANDOM" if isinstance(split, SplitRandom) else f"TIME {ident_sql(split.column)}"
    return _join(way, "" if split.fraction is None else value_sql(split.fraction))


def tune_sql(tune: Tune) -> str:
    """What stands behind TUNE."""
    return _join(
        f"({', '.join(_tune_param_sql(param) for param in tune.space)})",
        f"BY {tune.method.upper()}" if tune.method else "",
        _clause("TRIALS", tune.trials, value_sql),
        f"{tune.direction.upper()} {ident_sql(tune.metric)}" if tune.direction and tune.metric else "",
    )


def limit_sql(limit: Limit) -> str:
    """``(TIME '10 min', MEMORY '8 GB', ROWS n)``"""
    items = [
        _clause("TIME", limit.time, lambda time: _given_sql(time, duration_text)),
        _clause("MEMORY", limit.memory, lambda memory: _given_sql(memory, size_text)),
        _clause("ROWS", limit.rows, value_sql),
    ]
    return f"({', '.join(item for item in items if item)})"


def options_sql(options: Iterable[Option]) -> str:
    """``(name = value, …)``"""
    return f"({', '.join(f'{ident_sql(option.name)} = {value_sql(option.value)}' for option in options)})"


def _tune_param_sql(param: TuneRange | TuneChoice) -> str:
    """One parameter of TUNE and where to look for it."""
    name = ident_sql(param.param)
    if isinstance(param, TuneChoice):
        return f"{name} IN ({', '.join(value_sql(value) for value in param.values)})"
    return _join(f"{name} BETWEEN {value_sql(param.low)} AND {value_sql(param.high)}", "LOG" if param.log else "")


# --- values -----------------------------------------------------------------------------------------------------------


def value_sql(value: Value) -> str:
    """A typed literal."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).upper()
        case str():
            return quote_string(value)
        case int() | float():
            return repr(value)
        case Decimal():
            return format(value, "f")
        case timedelta():
            return f"INTERVAL {quote_string(duration_text(value))}"
        case Placeholder():
            return f"${value.name or value.index}"
        case Struct():
            return "{" + ", ".join(f"{quote_string(key)}: {value_sql(item)}" for key, item in value.items) + "}"
        case _:
            return f"[{', '.join(value_sql(item) for item in value)}]"


def _given_sql(value: Given[T], write: Callable[[T], str]) -> str:
    """A literal that is written as a text, or its parameter."""
    return value_sql(value if isinstance(value, Placeholder) else write(value))


def size_text(size: int) -> str:
    """A number of bytes in the largest unit that gives a whole number: ``8 GB``."""
    unit = next(unit for unit, length in SIZE_UNITS.items() if size % length == 0)
    return f"{size // SIZE_UNITS[unit]} {unit}"


# --- putting together -------------------------------------------------------------------------------------------------


def _join(*parts: str) -> str:
    """The parts that are there, with spaces between."""
    return " ".join(part for part in parts if part)


def _clause(word: str, value: T | None, write: Callable[[T], str]) -> str:
    """A clause, empty where the tree has none."""
    return "" if value is None or value == () else f"{word} {write(value)}"


_WRITERS: dict[type, Callable[[Any], str]] = {
    Train: train_sql,
    Evaluate: evaluate_sql,
    CompareModels: compare_sql,
    Predict: predict_sql,
    ExplainModel: explain_model_sql,
    ExplainPlan: explain_plan_sql,
    Deploy: deploy_sql,
    DeployQuery: deploy_query_sql,
    RefreshEndpoint: refresh_endpoint_sql,
    Undeploy: undeploy_sql,
    DeployFunction: deploy_function_sql,
    UndeployFunction: undeploy_function_sql,
    AlterEndpoint: alter_endpoint_sql,
    AlterEndpoints: alter_endpoints_sql,
    RollbackEndpoint: rollback_sql,
    EvaluateEndpoint: evaluate_endpoint_sql,
    CreateApiKey: create_key_sql,
    RotateApiKey: rotate_key_sql,
    AlterApiKey: alter_key_sql,
    DropApiKey: drop_key_sql,
    Show: show_sql,
    ShowLogs: show_logs_sql,
    ShowCreateModel: show_create_sql,
    DescribeModel: describe_sql,
    CancelJob: cancel_sql,
    AlterModel: alter_model_sql,
    DropModel: drop_model_sql,
    Export: export_sql,
    ExportEndpoint: export_endpoint_sql,
    Import: import_sql,
    CreateResource: create_resource_sql,
    DropResource: drop_resource_sql,
}
