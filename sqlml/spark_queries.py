"""Calls of models in a Spark session's SQL: found in the text, bound as everywhere in sqlml, put as calls of Spark functions.

    spark.sql(text) → our calls found → each becomes __sqlml_churn_predict(struct(CAST(`age` AS DOUBLE) AS `age`, …)) → Spark

Only the text of our calls changes, and only in ``spark.sql`` of this one session object; other text passes byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from sqlml_dialect import Calls, DialectError, ModelCall, ModelRef, find_calls
from sqlml_dialect.calls import BUILTINS
from sqlml_dialect.tokens import Kind, scan

from sqlml.binder.calls import CallBinder
from sqlml.binder.text import Piece, Sql
from sqlml.bundles.model import Model
from sqlml.catalog import Version
from sqlml.errors import BindError, Error, NotSupportedError, did_you_mean, listing, parse_error
from sqlml.registry import TARGETS, load
from sqlml.spark_common.errors import is_spark_error
from sqlml.spark_common.text import masked, quote, with_backticks
from sqlml.types import label_text

Source: TypeAlias = Callable[[str, str | None], Version]
"""The version that a model's name and what follows its ``@`` mean."""

_ATTRIBUTE = "_sqlml_functions"


@dataclass
class _Function:
    """A registered model: the version that it is, and the Spark functions that stand for its calls."""

    name: str
    version: Version
    source: Source
    base: str | None = None  # of a version that a query named: the registered function that it comes with
    outputs: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # Spark function → (output, class)


def functions_of(session: Any) -> Functions:
    """The functions of a session; the first time, its ``sql`` begins to understand our calls."""
    found: Functions | None = vars(session).get(_ATTRIBUTE)
    if found is None:
        found = Functions(session)
        setattr(session, _ATTRIBUTE, found)
        session.sql = found.sql
    return found


class Functions:
    """The models that are functions of one session."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._plain_sql = session.sql
        self._target = load(TARGETS["spark"])(session)
        self._functions: dict[str, _Function] = {}

    def add(self, name: str, version: Version, source: Source) -> Version:
        """Make a version a function.  ``BindError`` for the name of a function that is not ours."""
        key = name.lower()
        before = self._functions.get(key)
        if before is None and self._session.catalog.functionExists(quote(name)):
            raise BindError(
                f"{name} is a function of the Spark session already",
                hint=f'give the model another name: sqlml.spark.register(spark, "{version.model}", name="{version.model}_model")',
            )
        self._target.install_named(name, "predict", version.signature, _loader(version))
        self._functions[key] = made = _Function(name, version, source)
        for function, (output, label) in (before.outputs if before else {}).items():
            self._renew(made, function, output, label)
        return version

    def _renew(self, made: _Function, function: str, output: str, label: str | None) -> None:
        """What temporary views call, with the new version: a class by its name, wherever it now stands."""
        labels = [label_text(value) for value in made.version.classes]
        if label is not None and label not in labels:
            self._target.remove(function)
            return
        output = output if label is None else f"proba:{labels.index(label)}"
        self._target.install(function, output, made.version.signature, _loader(made.version), replace=True)
        made.outputs[function] = (output, label)

    def remove(self, name: str) -> None:
        """Take a function away."""
        found = self._functions.get(name.lower())
        if found is None or found.base is not None:
            raise self._unknown(name)
        del self._functions[name.lower()]
        pinned = [key for key, function in self._functions.items() if function.base == found.name]
        for gone in (found, *(self._functions.pop(key) for key in pinned)):
            for function in (*([gone.name] if gone.base is None else []), *gone.outputs):
                self._target.remove(function)

    def versions(self) -> dict[str, str]:
        return {function.name: function.version.name for function in self._functions.values() if function.base is None}

    def sql(self, sqlQuery: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N803 - the name that Spark gives it
        """``SparkSession.sql`` with our calls."""
        if not isinstance(sqlQuery, str):
            return self._plain_sql(sqlQuery, *args, **kwargs)
        braces = bool(kwargs.keys() - {"args"})
        text, called = self._bound(sqlQuery, braces)
        try:
            return self._plain_sql(text, *args, **kwargs)
        except Exception as error:
            if called and is_spark_error(error) and hasattr(error, "add_note"):
                for name, version in called.items():
                    error.add_note(f"{name} is {version.name}, which takes: {listing((c.name for c in version.inputs), 30)}")
            raise

    # --- binding ----------------------------------------------------------------------------------------------------

    def _bound(self, text: str, braces: bool) -> tuple[str, Mapping[str, Version]]:
        """The text for Spark, and the models that it calls.  ``braces``: it is a template of Python's ``str.format``."""
        plain = masked(text)
        found = self._find(plain)
        if not found.calls:
            return text, {}
        called: dict[str, Version] = {}

        def resolve(ref: ModelRef) -> Version:
            function = self._function(ref, text)
            called[function.name] = function.version
            return function.version

        binder = CallBinder(plain, resolve, partial(self._call_sql, text), class_sql=self._target.class_sql)
        try:
            sql = binder.bind((0, len(plain)), found)
        except Error as error:
            error.source = text if error.source == plain else error.source
            error.hint = error.hint and error.hint.replace(" := ", " => ")  # as Spark names arguments
            raise
        _check_parameters(sql, text)
        return "".join(_for_spark(piece, text, braces) for piece in sql.pieces), called

    def _find(self, text: str) -> Calls:
        skip = [name for name in BUILTINS if name in text.lower() and self._session.catalog.functionExists(name)]
        try:
            found = find_calls(text, self._functions, skip=skip)
        except DialectError as error:
            raise parse_error(error) from None
        return replace(found, calls=tuple(call for outer in found.calls for call in _ours(outer, text)))

    def _function(self, ref: ModelRef, source: str) -> _Function:
        """The registered function that a reference means; another version of a registered model comes from the same catalog."""
        name = ref.text
        found = self._functions.get(name.lower())
        if found is not None:
            return found
        suffix = str(ref.version) if ref.version is not None else ref.alias
        base = self._functions.get(ref.name.text.lower())
        if base is None:
            raise self._unknown(ref.name.text).located(source, ref.span)
        try:
            version = base.source(base.version.model, suffix)
        except Error as error:
            raise error.located(source, ref.span) from None
        self._functions[name.lower()] = found = _Function(name, version, base.source, base.name)
        return found

    def _unknown(self, name: str) -> BindError:
        near = did_you_mean(name, self._functions)
        return BindError(
            f"no model {name} is registered with this session", hint=near or f'sqlml.spark.register(spark, "{name}")'
        )

    def _call_sql(
        self, source: str, ref: ModelRef, version: Version, output: str, arguments: Mapping[str, str], _plain: Collection[str]
    ) -> str:
        function = self._function(ref, source)
        what, _, argument = output.partition(":")
        label = label_text(version.classes[int(argument)]) if what == "proba" else None
        name = f"__sqlml_{function.name}_{what}{'_' + (label or argument) if argument else ''}"
        self._target.install(name, output, version.signature, _loader(version))
        function.outputs[name] = (output, label)
        call: str = self._target.struct_call(name, version.signature, arguments)
        return call


def _loader(version: Version) -> Callable[[], Model]:
    return partial(Model.open, version.bundle, version.sha256)


def _ours(call: ModelCall, text: str) -> tuple[ModelCall, ...]:
    """The calls to replace in and including this one: ``churn(struct(*))`` is Spark's own call of the registered function."""
    if call.function.startswith("ml."):
        raise NotSupportedError(
            f"{call.function.upper()} is not to be had in Spark's own SQL", source=text, span=call.span,
            hint=f"PREDICT({call.model.text}) gives its prediction for each row",
        )  # fmt: skip
    using = call.using or ()
    if call.function == "model" and len(using) == 1 and using[0].star is None and not using[0].named:
        return tuple(found for inner in call.inner for found in _ours(inner, text))
    return (call,)


def _for_spark(piece: Piece, text: str, braces: bool) -> str:
    """The person's own text as it was, ours with Spark's quotes and words."""
    if piece.verbatim and piece.span is not None:
        return text[slice(*piece.span)]
    made = with_backticks(piece.text)
    return made.replace("{", "{{").replace("}", "}}") if braces else made


def _check_parameters(sql: Sql, text: str) -> None:
    """``?`` are counted in the order of the text: calls must leave it as it was."""
    if "?" not in text:
        return
    marks = [token.start for token in scan(sql.source) if token.kind is Kind.PARAM and token.text == "?"]
    spans = [piece.span for piece in sql.pieces if piece.verbatim and piece.span is not None]
    kept = [mark for first, last in spans for mark in marks if first <= mark < last]
    if kept != marks:
        raise NotSupportedError(
            "a call of a model would change the order of the ? in this query", source=text,
            span=(marks[0], marks[0] + 1), hint="name the parameters: :age, with args={'age': …}",
        )  # fmt: skip
