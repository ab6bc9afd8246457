# ruff: noqa: RUF009 - at() makes a new field for each class, which is what dataclasses want
"""What stands in the database's own queries that is ours: calls of models, and the select items that hold them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlml_dialect.clause_nodes import Expression, Ident, ModelRef, Option, Query, Span, at


@dataclass(frozen=True)
class Argument:
    """One argument of a model call, as written.

    ``star`` is ``"*"`` for a bare star, ``"c.*"`` (the qualifier as written) for a qualified one, else None.
    ``name`` is the name given by ``AS name`` or ``name := expr`` / ``name => expr``; for a plain column reference without
    either it is the column's own name; else None.
    """

    text: str
    name: Ident | None = None
    star: str | None = None
    named: bool = False  # written with := or =>
    span: Span = at()


@dataclass(frozen=True)
class ModelCall:
    """A call of ours inside a query: the text between ``span`` is what gets replaced, nothing else.

    ``function`` is ``predict``, ``predict_proba``, ``predict_reasons``, ``model`` (the model's own function) or one of
    ``TABLE_FUNCTIONS`` such as ``ml.predict``.  ``using`` is None when the features come from the scope by name.
    ``extra`` is the text of the second argument: the class of PREDICT_PROBA, the count of PREDICT_REASONS.
    ``query`` is a table function's query without its parentheses (or ``TABLE t`` as written, as ``SELECT * FROM t``), None
    where none is given.  ``options`` are a table function's, names as they were written; a bare list is ``thresholds``.
    A ``?`` in them counts over the text that was searched.
    ``inner`` are the calls found inside the arguments or the query, with spans in the same text.
    """

    function: str
    model: ModelRef
    using: tuple[Argument, ...] | None = None
    extra: Expression | None = None
    query: Query | None = None
    options: tuple[Option, ...] = ()
    inner: tuple[ModelCall, ...] = ()
    span: Span = at()


@dataclass(frozen=True)
class UnnamedItem:
    """A select-list item without an alias that contains one of our calls: the place where an alias keeps its column's name."""

    text: str
    span: Span = at()


@dataclass(frozen=True)
class Calls:
    """What ``find_calls`` found in a query: the outermost calls, and the select items that would lose their name."""

    calls: tuple[ModelCall, ...] = ()
    unnamed: tuple[UnnamedItem, ...] = ()
