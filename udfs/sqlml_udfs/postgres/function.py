"""A version as one PL/pgSQL function: no extension, no table, nothing but its arguments and constants.

model → encoder → scores → answer, each a few variables of the function's body
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlml_dialect import quote_identifier

from sqlml.bundles.model import Model
from sqlml.contracts import FunctionSignature
from sqlml.errors import BindError, NotSupportedError, count_of
from sqlml_udfs.postgres.body import Body
from sqlml_udfs.postgres.heads import INSTEAD, answer
from sqlml_udfs.postgres.text import TYPES, dollar_quoted, dotted, json_object, result_type, shown, string
from sqlml_udfs.postgres.transform import transform

MOST_NODES = 200_000
"""Nodes of a model's trees, terms of its sums: each session that calls it needs 300 MB of memory, and a quarter of a second."""

NODE_BYTES = 1_500
"""The memory that a session needs for a node, measured (tests/bench)."""

_MOST_ARGUMENTS = 100
_LONGEST_NAME = 63
"""PostgreSQL's own limits: arguments of a function, bytes of a name."""

_NODE_COST = 0.1
"""What a node costs beside one operator, as the planner counts: a row visits few of a tree's."""


@dataclass(frozen=True)
class PostgresFunction:
    """A function, and what it takes to make it.

    ``arguments`` are (name, type), in DESCRIBE order; ``size`` counts the nodes of trees and the terms of sums, ``memory`` is
    about what each session that calls it needs, in bytes.
    """

    name: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...]
    result: str
    body: str
    attributes: str
    comment: str
    size: int

    @property
    def memory(self) -> int:
        return self.size * NODE_BYTES

    @property
    def text(self) -> str:
        """``public.churn(age double precision, job text) text``"""
        return f"{shown(self.name)}({', '.join(f'{shown([name])} {kind}' for name, kind in self.arguments)}) {self.result}"

    @property
    def types(self) -> str:
        """The argument types, as DROP and COMMENT tell overloads apart."""
        return ", ".join(kind for _, kind in self.arguments)

    @property
    def statements(self) -> tuple[str, ...]:
        """What makes it, in order; in place of one of the same arguments and result that may be there.

        An argument that is left out of a call by name is NULL, as a key that a row of an endpoint does not have.
        """
        taken = ", ".join(f"{quote_identifier(name)} {kind} DEFAULT NULL" for name, kind in self.arguments)
        create = f"CREATE OR REPLACE FUNCTION {dotted(self.name)}({taken}) RETURNS {self.result}\n"
        comment = f"COMMENT ON FUNCTION {dotted(self.name)}({self.types}) IS {string(self.comment)}"
        return f"{create}{self.attributes}\nAS {dollar_quoted(self.body)}", comment


def compile_function(
    model: Model, signature: FunctionSignature, output: str, name: Sequence[str], comment: str = ""
) -> PostgresFunction:
    """The function of one output: ``predict``, ``probs`` (jsonb, class → probability) or ``proba:<i>``.

    ``predict`` of several targets is jsonb, target → answer.  ``comment`` says which model and version it is.
    ``NotSupportedError`` says what cannot be done inside PostgreSQL, and what to do instead.
    """
    if not model.heads:
        raise NotSupportedError("the model only transforms: it has no answer that a function could give", hint=INSTEAD)
    body, source = _begin(model, signature, name)
    kind = result_type(signature.result) if output == "predict" else "jsonb" if output == "probs" else "double precision"
    if len(model.heads) == 1:
        found = answer(body, model.head, source, output)
    elif output == "predict":
        found = json_object([(head.target or "", answer(body, head, source, output)) for head in model.heads])
    else:
        raise BindError("the model has several targets", hint="PREDICT gives them all")
    if body.size > MOST_NODES:
        raise _too_large(body.size)
    return _function(model, signature, name, body, f"({found})::{kind}", kind, mark(output) + comment)


def compile_features(model: Model, signature: FunctionSignature, name: Sequence[str]) -> PostgresFunction:
    """The function of a model's features, as TRANSFORM gives them: the text of a JSON object, feature → value."""
    body, source = _begin(model, signature, name)
    return _function(model, signature, name, body, f"({json_object(list(source.items()))})::text", "text", mark("features"))


def _begin(model: Model, signature: FunctionSignature, name: Sequence[str]) -> tuple[Body, dict[str, str]]:
    """A body, and the SQL of each column that the encoders read."""
    columns = [column for column, _ in signature.columns]
    _check_names(columns, name)
    body = Body(columns)
    if model.transform is None:
        return body, {column: f"${i + 1}" for i, column in enumerate(columns)}
    return body, transform(body, model.transform, {column: str(i + 1) for i, column in enumerate(columns)})


def _function(
    model: Model, signature: FunctionSignature, name: Sequence[str], body: Body, returned: str, result: str, comment: str
) -> PostgresFunction:
    arguments = tuple((column, TYPES[kind]) for column, kind in signature.columns)
    attributes = _attributes(body.size, pure=model.transform is None)
    return PostgresFunction(tuple(name), arguments, result, body.text(returned), attributes, comment, body.size)


def mark(output: str) -> str:
    """How the comment of a function begins that is ours and gives this output: we replace and drop no other."""
    return f"sqlml {output}: "


def _attributes(size: int, *, pure: bool) -> str:
    """TRANSFORM has expressions of its writer's, some of which read the session's settings."""
    how = "IMMUTABLE" if pure else "STABLE SET timezone TO 'UTC' SET datestyle TO 'ISO'"
    return f"LANGUAGE plpgsql CALLED ON NULL INPUT PARALLEL SAFE COST {max(100, round(size * _NODE_COST))} {how}"


def _too_large(size: int) -> NotSupportedError:
    return NotSupportedError(
        f"the model is too large for a function of PostgreSQL: {count_of(size, 'node')} of trees and sums, where {MOST_NODES:,} "
        f"are the most; each session that calls it would need {size * NODE_BYTES / 1e6:,.0f} MB of memory",
        hint=f"{INSTEAD}; or train with fewer trees (n_estimators) or a smaller max_depth",
    )


def _check_names(columns: Sequence[str], name: Sequence[str]) -> None:
    """PostgreSQL's limits on arguments and names."""
    if len(columns) > _MOST_ARGUMENTS:
        raise NotSupportedError(
            f"the model has {len(columns)} inputs: a function of PostgreSQL takes {_MOST_ARGUMENTS} arguments at most",
            hint=INSTEAD,
        )
    for part in name:
        if len(part.encode()) > _LONGEST_NAME:
            raise BindError(f"the name {part} is longer than the {_LONGEST_NAME} bytes that PostgreSQL keeps of one")
    kept = [column.encode()[:_LONGEST_NAME] for column in columns]
    for i, column in enumerate(columns):
        if not column or "\0" in column or kept[i] in kept[:i] or re.fullmatch(r"\$[0-9]+", column):
            raise NotSupportedError(
                f"the model's input {column!r} cannot be an argument of a function of PostgreSQL: it is empty, like $1, or the "
                f"same as another in the {_LONGEST_NAME} bytes that are kept of a name",
                hint="rename the column and train again",
            )
