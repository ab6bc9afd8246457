# ruff: noqa: RUF009 - at() makes a new field for each class, which is what dataclasses want
"""The syntax tree: one frozen node per statement, made of names, values and clauses (``clause_nodes.py``).

A node holds what was written, never what it means: names are not looked up, options not checked, queries not parsed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from sqlml_dialect.clause_nodes import (
    Expression,
    Given,
    Ident,
    Limit,
    ModelRef,
    Option,
    QualifiedName,
    Query,
    Span,
    Split,
    Tune,
    Value,
    at,
)


@dataclass(frozen=True)
class Train:
    model: ModelRef
    query: Query
    algorithm: Ident | None = None
    target: tuple[Ident, ...] = ()
    transform: tuple[Expression, ...] = ()
    exclude: tuple[Ident, ...] = ()
    weight: Ident | None = None
    key: tuple[Ident, ...] = ()
    split: Split | None = None
    validate: Query | None = None
    tune: Tune | None = None
    warm_start: ModelRef | None = None
    limit: Limit | None = None
    options: tuple[Option, ...] = ()
    runner: Ident | None = None
    asynchronous: bool = False
    span: Span = at()


@dataclass(frozen=True)
class Evaluate:
    model: ModelRef
    by: tuple[Ident, ...] = ()
    options: tuple[Option, ...] = ()
    query: Query | None = None
    span: Span = at()


@dataclass(frozen=True)
class CompareModels:
    """``COMPARE MODELS m@3, m@4 [WITH (…)] [AS query]``; at least two models."""

    models: tuple[ModelRef, ...]
    options: tuple[Option, ...] = ()
    query: Query | None = None
    span: Span = at()


@dataclass(frozen=True)
class Into:
    """``INTO table [APPEND | REPLACE]``; mode is ``create``, ``append`` or ``replace``."""

    table: QualifiedName
    mode: str = "create"
    span: Span = at()


@dataclass(frozen=True)
class Predict:
    model: ModelRef
    query: Query
    into: Into | None = None
    options: tuple[Option, ...] = ()
    runner: Ident | None = None
    asynchronous: bool = False
    span: Span = at()


@dataclass(frozen=True)
class ExplainModel:
    model: ModelRef
    top: Given[int | None] = None
    into: Into | None = None
    query: Query | None = None
    span: Span = at()


@dataclass(frozen=True)
class ExplainPlan:
    """``EXPLAIN <one of our statements>``; EXPLAIN of the database's own SQL stays the database's."""

    statement: Node
    analyze: bool = False
    format: str | None = None  # text, json
    span: Span = at()


@dataclass(frozen=True)
class Deploy:
    model: ModelRef
    endpoint: Ident | None = None
    options: tuple[Option, ...] = ()
    runner: Ident | None = None
    span: Span = at()


@dataclass(frozen=True)
class Undeploy:
    """``UNDEPLOY ENDPOINT [IF EXISTS] e``"""

    endpoint: Ident
    if_exists: bool = False
    span: Span = at()


@dataclass(frozen=True)
class DeployQuery:
    """``DEPLOY QUERY e [WITH (…)] AS query``; the query's parameters are those of the requests, not of the statement."""

    endpoint: Ident
    query: Query
    options: tuple[Option, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class RefreshEndpoint:
    """``REFRESH ENDPOINT e``"""

    endpoint: Ident
    span: Span = at()


@dataclass(frozen=True)
class DeployFunction:
    """``DEPLOY MODEL m TO DATABASE [c] [AS FUNCTION f]``; ``database`` None: the connection's own."""

    model: ModelRef
    database: Ident | None = None
    function: QualifiedName | None = None
    span: Span = at()


@dataclass(frozen=True)
class UndeployFunction:
    """``UNDEPLOY FUNCTION f [FROM DATABASE [c]]``; ``database`` None: the connection's own."""

    function: QualifiedName
    database: Ident | None = None
    span: Span = at()


@dataclass(frozen=True)
class SetTraffic:
    """``SET TRAFFIC (churn@3 = 90, 4 = 10)``; a bare integer is a version of the endpoint's only model.

    ``places`` are where the shares stand, in the same order.
    """

    shares: tuple[tuple[ModelRef | int, Value], ...]
    places: tuple[Span, ...] = field(default=(), compare=False, repr=False)
    span: Span = at()


@dataclass(frozen=True)
class SetOptions:
    """``SET (replicas = 3, …)``"""

    options: tuple[Option, ...]
    span: Span = at()


@dataclass(frozen=True)
class AlterEndpoint:
    endpoint: Ident
    action: SetTraffic | SetOptions
    span: Span = at()


@dataclass(frozen=True)
class AlterEndpoints:
    """``ALTER ENDPOINTS SET (memory = '4 GB')``: what is said of all endpoints together."""

    options: tuple[Option, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class RollbackEndpoint:
    endpoint: Ident
    span: Span = at()


@dataclass(frozen=True)
class EvaluateEndpoint:
    """``EVALUATE ENDPOINT e [BY column] [WITH (…)]``"""

    endpoint: Ident
    by: tuple[Ident, ...] = ()
    options: tuple[Option, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class CreateApiKey:
    """``CREATE API KEY k FOR ENDPOINT e, f``; no ``endpoints``: FOR ALL ENDPOINTS."""

    name: Ident
    endpoints: tuple[Ident, ...] = ()
    options: tuple[Option, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class RotateApiKey:
    """``ALTER API KEY k ROTATE [WITH (…)]``"""

    name: Ident
    options: tuple[Option, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class AlterApiKey:
    """``ALTER API KEY k SET (rate_limit = 50)``"""

    name: Ident
    options: tuple[Option, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class DropApiKey:
    name: Ident
    if_exists: bool = False
    span: Span = at()


@dataclass(frozen=True)
class Show:
    """``SHOW MODELS [LIKE '…']``; ``subject`` is the relation in lower case: models, functions, api_keys, server_settings."""

    subject: str
    model: ModelRef | None = None  # SHOW VERSIONS OF m
    like: Given[str | None] = None
    span: Span = at()


@dataclass(frozen=True)
class ShowLogs:
    job: Given[int]
    span: Span = at()


@dataclass(frozen=True)
class ShowCreateModel:
    model: ModelRef
    span: Span = at()


@dataclass(frozen=True)
class DescribeModel:
    model: ModelRef
    span: Span = at()


@dataclass(frozen=True)
class CancelJob:
    job: Given[int]
    span: Span = at()


@dataclass(frozen=True)
class SetAlias:
    alias: Ident
    version: Given[int]
    span: Span = at()


@dataclass(frozen=True)
class SetTag:
    tag: Ident
    value: Value
    span: Span = at()


@dataclass(frozen=True)
class SetComment:
    comment: Given[str | None]  # None: SET COMMENT NULL
    span: Span = at()


@dataclass(frozen=True)
class RenameTo:
    name: QualifiedName
    span: Span = at()


@dataclass(frozen=True)
class Unset:
    """``UNSET ALIAS a``, ``UNSET TAG k`` or ``UNSET COMMENT``; only a comment has no name."""

    what: str  # alias, tag, comment
    name: Ident | None = None
    span: Span = at()


Change: TypeAlias = SetAlias | SetTag | SetComment | RenameTo | Unset


@dataclass(frozen=True)
class AlterModel:
    model: ModelRef
    action: Change
    span: Span = at()


@dataclass(frozen=True)
class DropModel:
    model: ModelRef
    if_exists: bool = False
    cascade: bool = False
    span: Span = at()


@dataclass(frozen=True)
class Export:
    model: ModelRef
    path: Given[str]
    format: str | None = None
    options: tuple[Option, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class ExportEndpoint:
    """``EXPORT ENDPOINT e TO 'folder' FORMAT docker WITH (…)``."""

    endpoint: Ident
    path: Given[str]
    format: str | None = None
    options: tuple[Option, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class Import:
    model: ModelRef
    path: Given[str]
    options: tuple[Option, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class CreateResource:
    """``CREATE RUNNER r TYPE process WITH (…)`` and ``CREATE CONNECTION c TYPE postgres WITH (…)``."""

    what: str  # runner, connection
    name: Ident
    type: Ident
    options: tuple[Option, ...] = ()
    or_replace: bool = False
    if_not_exists: bool = False
    span: Span = at()


@dataclass(frozen=True)
class DropResource:
    what: str
    name: Ident
    if_exists: bool = False
    cascade: bool = False
    span: Span = at()


Node: TypeAlias = (
    Train
    | Evaluate
    | CompareModels
    | Predict
    | ExplainModel
    | ExplainPlan
    | Deploy
    | DeployQuery
    | RefreshEndpoint
    | Undeploy
    | DeployFunction
    | UndeployFunction
    | AlterEndpoint
    | AlterEndpoints
    | RollbackEndpoint
    | EvaluateEndpoint
    | CreateApiKey
    | RotateApiKey
    | AlterApiKey
    | DropApiKey
    | Show
    | ShowLogs
    | ShowCreateModel
    | DescribeModel
    | CancelJob
    | AlterModel
    | DropModel
    | Export
    | ExportEndpoint
    | Import
    | CreateResource
    | DropResource
)


@dataclass(frozen=True)
class Statement:
    """One SQL statement: its text without the ending semicolon, where it stands, what kind it is.

    ``kind`` is one of ``KINDS``; ``node`` is None for kinds ``query`` and ``sql``; ``params`` counts the ``?`` in it.
    """

    text: str
    kind: str
    node: Node | None = None
    params: int = 0
    span: Span = at()


KINDS: dict[type, str] = {
    Train: "train",
    Evaluate: "evaluate",
    CompareModels: "compare",
    Predict: "predict",
    ExplainModel: "explain_model",
    ExplainPlan: "explain_plan",
    Deploy: "deploy",
    DeployQuery: "deploy",
    RefreshEndpoint: "refresh_endpoint",
    Undeploy: "undeploy",
    DeployFunction: "deploy",
    UndeployFunction: "undeploy",
    AlterEndpoint: "alter_endpoint",
    AlterEndpoints: "alter_endpoints",
    RollbackEndpoint: "rollback_endpoint",
    EvaluateEndpoint: "evaluate",
    CreateApiKey: "create_api_key",
    RotateApiKey: "alter_api_key",
    AlterApiKey: "alter_api_key",
    DropApiKey: "drop_api_key",
    Show: "show",
    ShowLogs: "show",
    ShowCreateModel: "show",
    DescribeModel: "describe",
    CancelJob: "cancel_job",
    AlterModel: "alter_model",
    DropModel: "drop_model",
    Export: "export",
    ExportEndpoint: "export",
    Import: "import",
}
"""The kind of each statement of ours; CREATE and DROP of a runner or connection are ``create_runner``, ``drop_connection``, …"""
