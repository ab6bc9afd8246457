"""What views call: macros of our schema, one for each reference that a view uses, that follow what the reference means.

A view keeps the arguments by name, as in ``sqlml.main."predict:churn"(age := age, …)``.  The macro of that name is made
when a view needs it, also after a new connection, and made again when the model or its alias moves.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlml_dialect import ModelRef, name_sql, quote_identifier
from sqlml_dialect.tokens import Kind, scan

from sqlml.binder.calls import macro_name, parse_macro_name
from sqlml.catalog import Catalog, Version
from sqlml.contracts import FunctionEngine
from sqlml.errors import BindError, Error, NotSupportedError, listing


class ViewFunctions:
    """The macros, which all connections see.  ``call`` gives the SQL that calls a version with every input by its name.

    ``beside``: those of another connection to the same database and catalog, which then know of each other's.
    """

    def __init__(
        self,
        engine: FunctionEngine,
        catalog: Catalog,
        schema: str,
        call: Callable[[Version, str], str],
        beside: ViewFunctions | None = None,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._schema = schema
        self._call = call
        self._made: dict[str, str] = {} if beside is None else beside._made  # macro → uid of the version that it calls
        self._seen_revision = -1

    def ensure(self, ref: ModelRef, output: str) -> None:
        """Make the macro that a view is about to call."""
        name = macro_name("probs" if output.startswith("proba:") else output, ref)
        if name not in self._made:
            self._make(name)

    def restore(self) -> None:
        """Make what the views of the database call, so that they can be read after a new connection."""
        for _, text in self._engine.views_with(f"{name_sql(self._schema)}.main."):
            for token in scan(text):
                name = token.text.strip('"').replace('""', '"')
                if token.kind is Kind.QUOTED and parse_macro_name(name) and name not in self._made:
                    self._try(name)

    def _try(self, name: str) -> None:
        try:
            self._make(name)
        except BindError:
            return  # its model is gone: the view says so when it is read

    def refresh(self) -> None:
        """Let the macros in use follow models and aliases that have moved; an open transaction would not see it."""
        if not self._made or self._catalog.models_revision() == self._seen_revision:
            return
        if self._engine.transaction() is not None:
            return
        self._seen_revision = self._catalog.models_revision()
        for name, uid in list(self._made.items()):
            parsed = parse_macro_name(name)
            try:
                if parsed and self._catalog.resolve(parsed[1], parsed[2], parsed[3]).uid != uid:
                    self._make(name)
            except BindError:
                # The model was dropped: a view that still calls it must say so when it is read.
                self._engine.drop_macro(self._schema, name)
                self._made.pop(name, None)

    def supply(self, error: Error) -> str | None:
        """Make the macro whose absence an error tells of; its name, or None where that is not the matter."""
        name = self._engine.missing_function(error)
        if name is None or parse_macro_name(name) is None:
            return None
        try:
            self._make(name)
        except BindError as gone:
            views = ", ".join(view for view, _ in self._engine.views_with(quote_identifier(name)))
            raise BindError(f"the view {views} calls a model that is gone: {gone.message}" if views else gone.message) from None
        return name

    def explain(self, error: Error) -> Error | None:
        """An error about a macro's arguments: the view and the columns that no longer fit; None where that is not the matter."""
        macro = self._engine.refused_macro(error)
        parsed = parse_macro_name(macro) if macro else None
        if macro is None or parsed is None:
            return None
        _, model, number, alias = parsed
        version = self._catalog.resolve(model, number, alias)
        inputs = {c.name.lower(): c.name for c in version.inputs}
        for view, text in self._engine.views_with(quote_identifier(macro)):
            given = _named_arguments(text, macro)
            lacks = [name for key, name in inputs.items() if key not in {g.lower() for g in given}]
            extra = [name for name in given if name.lower() not in inputs]
            if lacks or extra:
                parts = [f"needs {listing(lacks)}"] if lacks else []
                parts += [f"has no {listing(extra)}"] if extra else []
                return BindError(
                    f"the view {view} calls the model {model}, whose version {version.version} {' and '.join(parts)}",
                    hint=f"make the view again, or pin a version in it: PREDICT({model}@n)",
                )
        return BindError(f"a view calls the model {model} with other inputs than {version.name} has", hint="make the view again")

    def _make(self, name: str) -> None:
        parsed = parse_macro_name(name)
        if parsed is None:
            return
        output, model, number, alias = parsed
        version = self._catalog.resolve(model, number, alias)
        if self._engine.transaction() is not None:  # what others make meanwhile, an open transaction does not see
            raise NotSupportedError(
                f"inside an open transaction no view or macro can begin to call {version.name}", hint="COMMIT or ROLLBACK first"
            )
        self._engine.create_macro(self._schema, name, [c.name for c in version.inputs], self._call(version, output))
        self._made[name] = version.uid


def _named_arguments(view: str, macro: str) -> list[str]:
    """The names before ``:=`` in a view's call of a macro."""
    tokens = list(scan(view))
    names: list[str] = []
    for index, token in enumerate(tokens):
        if token.kind is Kind.QUOTED and token.text == quote_identifier(macro):
            depth = 0
            for before, here in zip(tokens[index:], tokens[index + 1 :], strict=False):
                depth += {"(": 1, ")": -1}.get(here.text, 0)
                if here.text == ":=" and depth == 1:
                    names.append(before.text.strip('"').replace('""', '"'))
                if depth == 0:
                    break
    return names
