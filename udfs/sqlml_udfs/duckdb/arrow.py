"""Versions as vectorised Arrow functions of DuckDB.

Each (version, output) becomes one function ``__sqlml_<uid>_<output>`` of one STRUCT argument whose fields are the model's
inputs.  DuckDB packs the struct without copying, calls the function with a chunk of rows from each of its threads, and NULLs
reach the model as NULLs.  Functions are installed once and stay: removing one while another connection runs it would end the
process, and DuckDB refuses a second function of the same name.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa  # at run time too: DuckDB reads the functions' annotations
from sqlml_dialect import quote_identifier

from sqlml.contracts import FunctionSignature, RowModel
from sqlml.errors import Error
from sqlml.native.duckdb_function import TREES, register
from sqlml.types import SQL_TYPE
from sqlml_udfs.duckdb.native import ANSWERS, native_sql

if TYPE_CHECKING:
    from sqlml.bundles.compiled import Compiled

T = TypeVar("T")

_REASONS = "STRUCT(feature VARCHAR, value VARCHAR, contribution DOUBLE)[]"
_ATTRIBUTIONS = "STRUCT(feature VARCHAR, attribution DOUBLE)[]"


class Database(Protocol):
    """What the target needs of the engine."""

    def transaction(self) -> int | None:
        """The number of the user's open transaction, or None."""

    def has_function(self, name: str) -> bool:
        """Whether the database knows a function of this name."""

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Something that all connections of the process to the database share, made by the first that asks."""

    def create_function(
        self,
        name: str,
        body: Callable[..., Any],
        parameters: Sequence[str],
        result: str,
        *,
        arrow: bool,
        transaction: bool = False,
    ) -> None:
        """Make a function of Arrow chunks callable in SQL."""


class DuckDBTarget:
    """The functions of one connection's database.

    They are installed through the side connection, for good.  An open transaction may not see what came after it began, so
    inside one they are installed through its own connection under a name used for nothing else: if it rolls back, they are
    gone, and nobody misses them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._installed: dict[tuple[str, int | None], str] = {}

    def call_sql(
        self,
        uid: str,
        output: str,
        signature: FunctionSignature,
        model: Callable[[], RowModel],
        arguments: Mapping[str, str],
        plain: Collection[str] = (),
    ) -> str:
        """``__sqlml_…(struct_pack("age" := CAST("age" AS DOUBLE), …))``, or a call of ``__sqlml_trees``."""
        with self._lock:
            sql = self._native_sql(uid, output, model, arguments, plain)
            if sql is not None:
                return sql
            name = self._function(f"__sqlml_{uid}_{output.replace(':', '_')}", uid, output, signature, model)
        fields = ", ".join(
            f"{quote_identifier(column)} := CAST({arguments[column]} AS {SQL_TYPE[kind]})" for column, kind in signature.columns
        )
        return f"{quote_identifier(name)}(struct_pack({fields}))"

    def class_sql(self, probs: str, label: str) -> str:
        """A look into the map."""
        return f"({probs})[CAST(({label}) AS VARCHAR)]"

    def _native_sql(
        self, uid: str, output: str, model: Callable[[], RowModel], arguments: Mapping[str, str], plain: Collection[str]
    ) -> str | None:
        if output.partition(":")[0] not in ANSWERS or not self._calls_native:
            return None
        try:
            found = self._database.once(f"slot of {uid}", lambda: self._compiled(uid, model))
        except (Error, ImportError):
            return None  # the function says so, when it is called
        return None if found is None else native_sql(found, output, arguments, plain)

    def _compiled(self, uid: str, model: Callable[[], RowModel]) -> Compiled | None:
        from sqlml.bundles.compiled import compiled

        return compiled(self._loading(uid, model)())

    @cached_property
    def _calls_native(self) -> bool:
        """Whether this database has the functions of C; one that others opened before may have not."""
        return register() and self._database.has_function(TREES)

    def _loading(self, uid: str, model: Callable[[], RowModel]) -> Callable[[], RowModel]:
        """What gives a model, loaded once for all connections."""
        return self._database.once(f"model of {uid}", lambda: _once(model))

    def _function(self, name: str, uid: str, output: str, signature: FunctionSignature, model: Callable[[], RowModel]) -> str:
        if (name, None) in self._installed:
            return name
        transaction = self._database.transaction()
        known = self._installed.get((name, transaction))
        if known is not None:
            return known
        installed = name if transaction is None else f"{name}_{uuid.uuid4().hex[:8]}"
        body = _body(output, self._loading(uid, model))
        self._database.create_function(
            installed,
            body,
            [_struct([(column, SQL_TYPE[kind]) for column, kind in signature.columns])],
            result_type(output, signature),
            arrow=True,
            transaction=transaction is not None,
        )
        self._installed[name, transaction] = installed
        return installed


def _once(load: Callable[[], RowModel]) -> Callable[[], RowModel]:
    """Load a model at the first call, once, whichever threads come first."""
    lock = threading.Lock()
    loaded: list[RowModel] = []

    def get() -> RowModel:
        if not loaded:
            with lock:
                if not loaded:
                    loaded.append(load())
        return loaded[0]

    return get


def _body(output: str, model: Callable[[], RowModel]) -> Callable[[Any], pa.Array]:
    """The function that DuckDB calls with a chunk of rows."""
    from sqlml.bundles.answers import answer

    def body(chunk: Any) -> pa.Array:
        combined = chunk.combine_chunks()
        rows = combined.chunk(0) if hasattr(combined, "chunks") else combined
        return answer(model(), output, rows)

    return body


def result_type(output: str, signature: FunctionSignature) -> str:
    """The SQL type of a function's result."""
    what = output.partition(":")[0]
    if what == "predict":
        return signature.result
    if what == "full":
        return _struct(signature.added)
    if what == "explain":
        return _struct(_explained(signature))
    return {"probs": "MAP(VARCHAR, DOUBLE)", "proba": "DOUBLE", "reasons": _REASONS}[what]


def _explained(signature: FunctionSignature) -> list[tuple[str, str]]:
    """The columns of ``Model.explain_schema`` and their SQL types."""
    answer = signature.added[0]
    fields = [answer]
    if any(name == f"{answer[0]}_probs" for name, _ in signature.added):
        fields.append(("probability", "DOUBLE"))
    fields.append(("top_feature_attributions", _ATTRIBUTIONS))
    return fields + [(name, "DOUBLE") for name in ("baseline_prediction_value", "prediction_value", "approximation_error")]


def _struct(fields: Sequence[tuple[str, str]]) -> str:
    return f"STRUCT({', '.join(f'{quote_identifier(name)} {sql_type}' for name, sql_type in fields)})"
