"""Functions that stay: a version under a name of the user's choice, for any client of the database.

    name(…)         the answer            name_proba(…)   of a classifier: jsonb, class → probability

What is ours is told by its comment.  Whatever overloads a name has of ours are replaced in one transaction; nothing else is ever
dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sqlml_dialect import quote_identifier

from sqlml.bundles.model import Model
from sqlml.contracts import FunctionSignature, Stream
from sqlml.errors import BindError
from sqlml.types import Task
from sqlml_udfs.postgres.check import check_transform
from sqlml_udfs.postgres.function import PostgresFunction, compile_function, mark
from sqlml_udfs.postgres.text import dotted, string

_PROBA = "_proba"
_SAVEPOINT = "__sqlml_install"


class Database(Protocol):
    """What is needed of an engine."""

    def run(self, text: str) -> Stream:
        """Run one statement."""

    def transaction(self) -> int | None:
        """The number of the user's open transaction, or None."""


@dataclass(frozen=True)
class Installed:
    """A function that is there.  ``name`` is schema and name, ``types`` its argument types, ``comment`` what was noted."""

    name: tuple[str, str]
    types: str
    comment: str
    owner: str
    grants: str | None
    same: bool  # as the new one: the same arguments and result


def install(
    database: Database, name: Sequence[str], model: Model, signature: FunctionSignature, comment: str
) -> tuple[PostgresFunction, ...]:
    """Make ``name``, and ``name_proba`` of a classifier, in place of ours that are there; what was made.

    One transaction (the user's, where one is open): other sessions see the old functions or the new ones.  Who may call them
    stays as it was.  ``BindError`` where a function of the name is not ours; ``NotSupportedError`` for what cannot be a function.
    """
    schema, plain = _qualified(database, name)
    outputs = {plain: "predict"}
    if model.task is Task.CLASSIFICATION and len(model.heads) == 1:
        outputs[plain + _PROBA] = "probs"
    made = [compile_function(model, signature, output, (schema, own), comment) for own, output in outputs.items()]
    with atomic(database):
        _lock(database, schema, plain)
        check_transform(lambda text: rows_of(database, text), model, signature)
        for function, output in zip(made, outputs.values(), strict=True):
            _replace(database, function, output)
        if len(made) == 1:
            _drop(database, [old for old in _find(database, (schema, plain + _PROBA)) if _is_ours(old, "probs")])
    return tuple(made)


def remove(database: Database, name: Sequence[str]) -> tuple[Installed, ...]:
    """Drop every overload of ours, ``name_proba`` too; what was dropped.  ``BindError`` where there is none."""
    schema, plain = _qualified(database, name)
    with atomic(database):
        _lock(database, schema, plain)
        there = _find(database, (schema, plain))
        found = [old for old in there if _is_ours(old, "predict")]
        if not found:
            raise _not_ours(there[0]) if there else BindError(f"there is no function {schema}.{plain} in the database")
        found += [old for old in _find(database, (schema, plain + _PROBA)) if _is_ours(old, "probs")]
        _drop(database, found)
    return tuple(found)


def installed(database: Database, name: Sequence[str]) -> tuple[Installed, ...]:
    """The functions of ours under a name, every overload."""
    return tuple(old for old in _find(database, _qualified(database, name)) if _is_ours(old, "predict"))


# --- steps ------------------------------------------------------------------------------------------------------------


def rows_of(database: Database, text: str) -> list[dict[str, Any]]:
    """The rows of a statement, which has few."""
    return [row for batch in database.run(text).batches for row in batch.to_pylist()]


@contextmanager
def atomic(database: Database) -> Iterator[None]:
    """All or nothing: in a transaction of its own, or within the user's."""
    own = database.transaction() is None
    rows_of(database, "BEGIN" if own else f"SAVEPOINT {_SAVEPOINT}")
    try:
        yield
    except BaseException:
        for statement in ["ROLLBACK"] if own else [f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}", f"RELEASE SAVEPOINT {_SAVEPOINT}"]:
            rows_of(database, statement)
        raise
    rows_of(database, "COMMIT" if own else f"RELEASE SAVEPOINT {_SAVEPOINT}")


def _qualified(database: Database, name: Sequence[str]) -> tuple[str, str]:
    if len(name) > 2:
        raise BindError(f"{'.'.join(name)} is no name of a function: a schema and a name are", hint="AS FUNCTION public.churn")
    if len(name) == 2:
        return name[0], name[1]
    schema = rows_of(database, "SELECT current_schema()::text AS name")[0]["name"]
    if schema is None:
        raise BindError("no schema of the search_path is there to make the function in", hint=f"AS FUNCTION public.{name[0]}")
    return str(schema), name[0]


def _lock(database: Database, schema: str, name: str) -> None:
    """Two that make the same function come one after the other."""
    key = string(f"{schema}.{name}")
    rows_of(database, f"DO $do$ BEGIN PERFORM pg_advisory_xact_lock(hashtext('sqlml'), hashtext({key})); END $do$")


def _replace(database: Database, function: PostgresFunction, output: str) -> None:
    """A function of the same arguments and result is changed in place, so that what is prepared with it goes on."""
    there = _find(database, (function.name[0], function.name[1]), function)
    for old in there:
        if not _is_ours(old, output):
            raise _not_ours(old)
    _drop(database, [old for old in there if not old.same])
    for statement in function.statements:
        rows_of(database, statement)
    if there and not any(old.same for old in there):
        _restore(database, function, there[0])


def _restore(database: Database, function: PostgresFunction, old: Installed) -> None:
    """Who may call it, and whose it is."""
    what = f"FUNCTION {dotted(function.name)}({function.types})"
    if old.grants is not None:
        rows_of(database, f"REVOKE ALL ON {what} FROM PUBLIC")
        for grant in old.grants.splitlines():
            rows_of(database, f"GRANT EXECUTE ON {what} TO {grant}")
    if old.owner != rows_of(database, "SELECT current_user::text AS name")[0]["name"]:
        rows_of(database, f"ALTER {what} OWNER TO {quote_identifier(old.owner)}")


def _drop(database: Database, functions: Sequence[Installed]) -> None:
    for old in functions:
        rows_of(database, f"DROP FUNCTION {dotted(old.name)}({old.types})")


def _find(database: Database, name: tuple[str, str], like: PostgresFunction | None = None) -> list[Installed]:
    """Every function of a name, and whether it is as ``like``."""
    query = f"""
        SELECT pg_get_function_identity_arguments(p.oid)::text AS types, coalesce(obj_description(p.oid, 'pg_proc'), '')::text AS
        comment, pg_get_userbyid(p.proowner)::text AS owner, {_same(like)} AS same, CASE WHEN p.proacl IS NOT NULL THEN coalesce((
            SELECT string_agg(CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
            || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, E'\\n')
            FROM aclexplode(p.proacl) AS a WHERE a.grantee <> p.proowner AND a.privilege_type = 'EXECUTE'), '') END AS grants
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE p.proname = {string(name[1])} AND n.nspname = {string(name[0])} ORDER BY p.oid"""  # noqa: S608 - literals quoted
    return [
        Installed(name, row["types"], row["comment"], row["owner"], row["grants"], row["same"])
        for row in rows_of(database, query)
    ]


def _same(like: PostgresFunction | None) -> str:
    """The SQL of whether ``p`` can be replaced by a function in place: the same types, names and result."""
    if like is None:
        return "false"
    types = " || ' ' || ".join(f"{string(kind)}::regtype::oid" for _, kind in like.arguments)
    names = ", ".join(string(name) for name, _ in like.arguments)
    return (
        f"(p.proargtypes::text = ({types})::text AND coalesce(p.proargnames, '{{}}') = ARRAY[{names}]::text[]"
        f" AND p.prorettype = {string(like.result)}::regtype)"
    )


def _is_ours(old: Installed, output: str) -> bool:
    return old.comment.startswith(mark(output))


def _not_ours(old: Installed) -> BindError:
    return BindError(
        f"the database has a function {'.'.join(old.name)}({old.types}) that sqlml did not make", hint="AS FUNCTION another_name"
    )
