"""``churn(*)`` in Spark's own analysis: the columns are found by their names, wherever the call stands.

Spark gives a function its arguments by place and forgets their names.  In a session of this process a function can instead be
built by a callback of ours, while Spark analyses a query: it gets the resolved expressions, columns with their names among them,
and answers with the call of the real function over one struct of the inputs, cast to their types.  So DataFrames, views and
everything else that analyses in this session call models by name, and a missing column is Spark's own analysis error.
"""

from __future__ import annotations

from typing import Any

from sqlml.contracts import FunctionSignature
from sqlml.errors import listing
from sqlml_udfs.spark.types import CASTS


def can_expand(session: Any) -> bool:
    """Whether Spark's analyser can call us back: in a session of this process, not behind Spark Connect."""
    return not type(session).__module__.startswith("pyspark.sql.connect")


def install_expansion(session: Any, name: str, function: Any, signature: FunctionSignature) -> None:
    """Make ``name`` stand for calls of ``function``, an Arrow function of one struct, over the inputs by their names."""
    from pyspark.java_gateway import ensure_callback_server_started

    ensure_callback_server_started(session.sparkContext._gateway)  # type: ignore[no-untyped-call]
    registry = session._jsparkSession.sessionState().functionRegistry()
    registry.createOrReplaceTempFunction(name, _Expansion(session, name, function._judf, signature), "python_udf")


class _Expansion:
    """Scala's ``Seq[Expression] => Expression``, called by Spark's analyser."""

    def __init__(self, session: Any, name: str, function: Any, signature: FunctionSignature) -> None:
        jvm = session._jvm
        self._session = session
        self._name = name
        self._function = function
        self._inputs = tuple(column for column, _ in signature.columns)
        self._expressions = jvm.org.apache.spark.sql.catalyst.expressions
        self._unresolved = jvm.org.apache.spark.sql.catalyst.analysis
        self._none = jvm.scala.Option.empty()
        self._seq = jvm.PythonUtils.toSeq
        types = jvm.org.apache.spark.sql.types
        self._text = types.DataType.fromDDL("STRING")
        self._types = {column: types.DataType.fromDDL(CASTS[kind]) for column, kind in signature.columns}
        self._names = {column: self._literal(column) for column in self._inputs}

    def _literal(self, text: str) -> Any:
        return self._expressions.Literal.create(text, self._text)

    def apply(self, arguments: Any) -> Any:
        """The call over these arguments."""
        given = self._by_input([arguments.apply(i) for i in range(arguments.size())])
        parts: list[Any] = []
        for column in self._inputs:
            parts += [self._names[column], self._cast(given[column], column)]
        return self._function.builder(self._seq([self._expressions.CreateNamedStruct(self._seq(parts))]))

    def _cast(self, expression: Any, column: str) -> Any:
        ansi = self._session._jsparkSession.sessionState().conf().ansiEnabled()
        mode = self._expressions.EvalMode.fromBoolean(ansi)
        return self._expressions.Cast(expression, self._types[column], self._none, mode)

    def _by_input(self, given: list[Any]) -> dict[str, Any]:
        """Each input's expression.

        Nothing given: by name from the scope.  Named arguments and the fields of one struct: by name.  Columns alone, one of them
        named like an input: by name, since they may come from a star, which Spark has expanded already.  Otherwise by place.
        """
        if not given:
            return {column: self._unresolved.UnresolvedAttribute(self._seq([column])) for column in self._inputs}
        classes = [expression.getClass().getSimpleName() for expression in given]
        if all(name == "NamedArgumentExpression" for name in classes):
            return self._chosen([expression.key() for expression in given], [expression.value() for expression in given])
        if len(given) == 1 and given[0].dataType().typeName() == "struct":
            fields = list(given[0].dataType().fieldNames())
            return self._chosen(fields, [self._field(given[0], field) for field in fields])
        names = [
            expression.name() if name in ("AttributeReference", "Alias") else ""
            for expression, name in zip(given, classes, strict=True)
        ]
        wanted = {column.lower() for column in self._inputs}
        is_star_perhaps = all(names) and any(name.lower() in wanted for name in names)
        if len(given) == len(self._inputs) and not is_star_perhaps:
            return dict(zip(self._inputs, given, strict=True))
        return self._chosen(names, given)

    def _field(self, struct: Any, field: str) -> Any:
        return self._unresolved.UnresolvedExtractValue(struct, self._literal(field))

    def _chosen(self, names: list[str], expressions: list[Any]) -> dict[str, Any]:
        """By name, as written or in other capitals; what is missing or there twice becomes an error of Spark's analysis."""
        found: dict[str, Any] = {}
        missing = []
        for column in self._inputs:
            same = [i for i, name in enumerate(names) if name == column]
            same = same or [i for i, name in enumerate(names) if name.lower() == column.lower()]
            if len(same) == 1:
                found[column] = expressions[same[0]]
            else:
                missing.append(column if not same else f"{column} (there {len(same)} times)")
        if missing:
            wrong = f"{listing(missing, 30)}: needed by {self._name}, which is given {listing(filter(None, names), 30) or 'none'}"
            return dict.fromkeys(self._inputs, self._unresolved.UnresolvedAttribute(self._seq([wrong])))
        return found

    class Java:
        """What py4j shows to Java."""

        implements = ("scala.Function1",)
