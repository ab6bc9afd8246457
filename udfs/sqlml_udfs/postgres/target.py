"""Versions as functions inside PostgreSQL, in plain PL/pgSQL: no extension, PostgreSQL 13 or later.

In a query a version is a function of the session's own schema, ``pg_temp``: nothing stays in the database (``PostgresTarget``).
``PostgresInstaller`` makes functions that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlml.bundles.model import Model
from sqlml.contracts import FunctionSignature, RowModel
from sqlml.errors import DatabaseError, NotSupportedError
from sqlml_udfs.postgres.check import check_transform
from sqlml_udfs.postgres.function import PostgresFunction, compile_function
from sqlml_udfs.postgres.heads import INSTEAD
from sqlml_udfs.postgres.install import Database, Installed, atomic, install, installed, remove, rows_of
from sqlml_udfs.postgres.text import TYPES, dotted, plain_literal, shown, string

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
_ASKED = """
    SELECT to_regproc({name}) IS NOT NULL AS found, has_database_privilege(current_database(), 'TEMPORARY') AS may,
    current_setting('transaction_read_only') = 'on' AS reads_only,
    current_database()::text AS database, current_user::text AS role
"""


class PostgresTarget:
    """The functions of one connection.

    Whether a function is there is asked of the database before each statement: a transaction that rolls back, to a savepoint
    too, takes it along, and so does DISCARD.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def call_sql(
        self,
        uid: str,
        output: str,
        signature: FunctionSignature,
        model: Callable[[], RowModel],
        arguments: Mapping[str, str],
        plain: Collection[str] = (),
    ) -> str:
        """``"pg_temp"."__sqlml_…"(CAST("age" AS double precision), …)``

        ``NotSupportedError`` says what PostgreSQL cannot compute, for this role or in this transaction, and what to do.
        """
        if output.partition(":")[0] not in _IN_QUERIES:
            raise NotSupportedError(
                f"a query of PostgreSQL cannot compute {output.partition(':')[0]} of a model",
                hint="PREDICT MODEL and EXPLAIN MODEL compute it outside the database",
            )
        name = ("pg_temp", f"__sqlml_{uid}_{output.replace(':', '_')}")
        [there] = rows_of(self._database, _ASKED.format(name=string(dotted(name))))
        if not there["found"]:
            _check_allowed(there)
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
        except DatabaseError as error:
            error.hint = error.hint or f"a prediction inside a query needs a function in pg_temp; {INSTEAD}"
            raise


def _check_allowed(told: Mapping[str, Any]) -> None:
    """``NotSupportedError``, in the server's own words, where this role or this transaction can make no function of its own."""
    if told["reads_only"]:
        raise NotSupportedError(
            "cannot execute CREATE FUNCTION in a read-only transaction: a prediction inside a query needs a function in pg_temp",
            hint="end that transaction; on a server that follows another one, ask that other one",
        )
    if not told["may"]:
        database, role = shown([told["database"]]), shown([told["role"]])
        raise NotSupportedError(
            f'permission denied to create temporary functions in database "{told["database"]}": '
            "a prediction inside a query needs one",
            hint=f"its owner can give the right: GRANT TEMPORARY ON DATABASE {database} TO {role}",
        )


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
