"""Versions as functions inside PostgreSQL, in plain PL/pgSQL: no extension, PostgreSQL 13 or later.

In a query a version is a function of the session's own schema, ``pg_temp``: nothing stays in the database (``PostgresTarget``).
``PostgresInstaller`` makes functions that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlml.bundles.model import Model
from sqlml.contracts import FunctionSignature, RowModel
from sqlml.errors import DatabaseError, NotSupportedError
from sqlml_udfs.postgres_check import check_transform
from sqlml_udfs.postgres_function import PostgresFunction, compile_function
from sqlml_udfs.postgres_heads import INSTEAD
from sqlml_udfs.postgres_install import Database, Installed, atomic, install, installed, remove, rows_of
from sqlml_udfs.postgres_text import TYPES, dotted, plain_literal, shown, string

__all__ = [
    "Installed",
    "PostgresFunction",
    "PostgresInstaller",
    "PostgresTarget",
    "compile_function",
    "install",
    "installed",
    "remove",
]

_IN_QUERIES = ("predict", "probs", "proba")


class PostgresTarget:
    """The functions of one connection.

    Whether a function is there is asked of the database before each statement: a transaction that rolls back, to a savepoint
    too, takes it along, and so does DISCARD.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def call_sql(
        self, uid: str, output: str, signature: FunctionSignature, model: Callable[[], RowModel], arguments: Mapping[str, str]
    ) -> str:
        """``"pg_temp"."__sqlml_…"(CAST("age" AS double precision), …)``

        ``NotSupportedError`` says what cannot be computed inside PostgreSQL, and what to do instead.
        """
        if output.partition(":")[0] not in _IN_QUERIES:
            raise NotSupportedError(
                f"a query of PostgreSQL cannot compute {output.partition(':')[0]} of a model",
                hint="PREDICT MODEL and EXPLAIN MODEL compute it outside the database",
            )
        name = ("pg_temp", f"__sqlml_{uid}_{output.replace(':', '_')}")
        [there] = rows_of(self._database, f"SELECT to_regproc({string(dotted(name))}) IS NOT NULL AS found")
        if not there["found"]:
            self._make(uid, output, name, signature, model())
        values = ", ".join(f"CAST({arguments[column]} AS {TYPES[kind]})" for column, kind in signature.columns)
        return f"{dotted(name)}({values})"

    def class_sql(self, probs: str, label: str) -> str:
        """A look into the jsonb."""
        return f"CAST(({probs}) ->> CAST(({label}) AS text) AS double precision)"

    def _make(self, uid: str, output: str, name: tuple[str, str], signature: FunctionSignature, model: RowModel) -> None:
        bundled = _bundled(model)
        function = compile_function(bundled, signature, output, name, f"version {uid}")
        try:
            with atomic(self._database):
                check_transform(lambda text: rows_of(self._database, text), bundled, signature)
                for statement in function.statements:
                    rows_of(self._database, statement)
        except DatabaseError as error:  # a transaction that may only read, no right to temporary objects
            error.hint = error.hint or f"a prediction inside a query needs a function in pg_temp; {INSTEAD}"
            raise


class PostgresInstaller:
    """Functions that stay in a database, in transactions of the engine's connection."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def fold(name: str) -> str:
        """In lower case."""
        return name.lower()

    def plan(self, name: Sequence[str], model: RowModel, signature: FunctionSignature, comment: str) -> PostgresFunction:
        """The function that predicts, as ``install`` would make it."""
        return compile_function(_bundled(model), signature, "predict", name, comment)

    def install(
        self, name: Sequence[str], model: RowModel, signature: FunctionSignature, comment: str
    ) -> tuple[PostgresFunction, ...]:
        """Make ``name``, and ``name_proba`` of a classifier, in place of ours that are there; what was made."""
        return install(self._database, name, _bundled(model), signature, comment)

    def remove(self, name: Sequence[str]) -> None:
        """Drop every overload of ours, ``name_proba`` too.  ``BindError`` where there is none."""
        remove(self._database, name)

    def call(self, name: Sequence[str], arguments: Mapping[str, Any]) -> str:
        """``public.churn(age => 41, job => 'cook')``"""
        return f"{shown(name)}({', '.join(f'{shown([key])} => {plain_literal(given)}' for key, given in arguments.items())})"


def _bundled(model: RowModel) -> Model:
    if not isinstance(model, Model):
        raise NotSupportedError("the model is not read from a bundle: it has no form in SQL", hint=INSTEAD)
    return model
