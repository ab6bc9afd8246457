# ruff: noqa: RUF009 - at() makes a new field for each class, which is what dataclasses want
"""The syntax tree: one frozen node per statement and clause, each knowing where it stands in the text.

A node holds what was written, never what it means: names are not looked up, options not checked, queries not parsed.
Every ``span`` is a pair of character offsets ``(start, end)`` into the text that was parsed, so that whoever finds a fault
later can point at it.  Spans take no part in equality: two texts that say the same give equal trees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Span: TypeAlias = tuple[int, int]
NOWHERE: Span = (0, 0)


def at() -> Any:
    """The field that every node ends with: its place in the text, ignored by equality and hash."""
    return field(default=NOWHERE, compare=False, repr=False, kw_only=True)


# --- names and values -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ident:
    """One name as the user means it: quotes removed, case kept."""

    name: str
    quoted: bool = field(default=False, compare=False)
    span: Span = at()


@dataclass(frozen=True)
class QualifiedName:
    """A dotted name: a table, a schema-qualified model."""

    parts: tuple[Ident, ...]
    span: Span = at()

    @property
    def text(self) -> str:
        return ".".join(part.name for part in self.parts)


@dataclass(frozen=True)
class ModelRef:
    """``churn``, ``sales.churn``, ``churn@3`` (version), ``churn@champion`` (alias), ``"my model"@3``."""

    name: QualifiedName
    version: int | None = None
    alias: str | None = None
    span: Span = at()

    @property
    def text(self) -> str:
        suffix = "" if self.version is None and self.alias is None else f"@{self.version or self.alias}"
        return self.name.text + suffix


@dataclass(frozen=True)
class Placeholder:
    """A prepared parameter: ``?`` (index counts from 1 over the whole statement), ``$2`` or ``$name``."""

    index: int | None = None
    name: str | None = None
    span: Span = at()


Given: TypeAlias = T | Any
"""A literal outside options: a Placeholder where a parameter was written, until ``fill_parameters`` puts its value there."""


# What an option may hold.  A struct is a tuple of pairs so that the node stays hashable.
Scalar: TypeAlias = "str | int | float | Decimal | bool | timedelta | Placeholder | None"
Value: TypeAlias = "Scalar | tuple[Value, ...] | Struct"


@dataclass(frozen=True)
class Struct:
    """``{'a': 1, 'b': [2, 3]}``"""

    items: tuple[tuple[str, Value], ...]


@dataclass(frozen=True)
class Option:
    """One ``name = value`` of a WITH clause; ``span`` covers both, ``value_span`` the value alone."""

    name: Ident
    value: Value
    value_span: Span = field(default=NOWHERE, compare=False, repr=False)
    span: Span = at()


@dataclass(frozen=True)
class Query:
    """SQL of the database, kept byte for byte; ``span`` says where it stands in the statement's source."""

    text: str
    span: Span = at()


@dataclass(frozen=True)
class Expression:
    """An SQL expression of the database, kept byte for byte (TRANSFORM items, call arguments)."""

    text: str
    alias: Ident | None = None
    span: Span = at()


# --- clauses of TRAIN -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SplitRandom:
    fraction: Given[float | None] = None  # None: the default, 0.2
    span: Span = at()


@dataclass(frozen=True)
class SplitBy:
    column: Ident
    span: Span = at()


@dataclass(frozen=True)
class SplitTime:
    column: Ident
    fraction: Given[float | None] = None
    span: Span = at()


@dataclass(frozen=True)
class SplitNone:
    span: Span = at()


Split: TypeAlias = SplitRandom | SplitBy | SplitTime | SplitNone


@dataclass(frozen=True)
class TuneRange:
    """``param BETWEEN low AND high [LOG]``"""

    param: Ident
    low: Value
    high: Value
    log: bool = False
    span: Span = at()


@dataclass(frozen=True)
class TuneChoice:
    """``param IN (a, b, …)``"""

    param: Ident
    values: tuple[Value, ...]
    span: Span = at()


@dataclass(frozen=True)
class Tune:
    space: tuple[TuneRange | TuneChoice, ...]
    method: str | None = None  # random, grid, bayesian
    trials: Given[int | None] = None
    direction: str | None = None  # maximize, minimize
    metric: Ident | None = None
    span: Span = at()


@dataclass(frozen=True)
class Limit:
    """``LIMIT (TIME '10 min', MEMORY '8 GB', ROWS n)``; seconds, bytes, rows."""

    time: Given[timedelta | None] = None
    memory: Given[int | None] = None
    rows: Given[int | None] = None
    span: Span = at()


# --- statements -----------------------------------------------------------------------------------------------------


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
class AlterEndpoint:
    """``ALTER ENDPOINT e SET TRAFFIC (churn@3 = 90, 4 = 10)``; a bare integer is a version of e's only model."""

    endpoint: Ident
    traffic: tuple[tuple[ModelRef | int, Value], ...]
    span: Span = at()


@dataclass(frozen=True)
class RollbackEndpoint:
    endpoint: Ident
    span: Span = at()


@dataclass(frozen=True)
class Show:
    """``SHOW MODELS [LIKE '…']``; ``subject`` is the relation in lower case: models, versions, functions (DEPLOYED FUNCTIONS)."""

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
    span: Span = at()


Node: TypeAlias = (
    Train
    | Evaluate
    | CompareModels
    | Predict
    | ExplainModel
    | ExplainPlan
    | Deploy
    | Undeploy
    | DeployFunction
    | UndeployFunction
    | AlterEndpoint
    | RollbackEndpoint
    | Show
    | ShowLogs
    | ShowCreateModel
    | DescribeModel
    | CancelJob
    | AlterModel
    | DropModel
    | Export
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
    Undeploy: "undeploy",
    DeployFunction: "deploy",
    UndeployFunction: "undeploy",
    AlterEndpoint: "alter_endpoint",
    RollbackEndpoint: "rollback_endpoint",
    Show: "show",
    ShowLogs: "show",
    ShowCreateModel: "show",
    DescribeModel: "describe",
    CancelJob: "cancel_job",
    AlterModel: "alter_model",
    DropModel: "drop_model",
    Export: "export",
    Import: "import",
}
"""The kind of each statement of ours; CREATE and DROP of a runner or connection are ``create_runner``, ``drop_connection``, …"""
