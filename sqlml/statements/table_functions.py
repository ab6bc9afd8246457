"""ML.EVALUATE(MODEL m, …) and its like inside queries: each is computed before the statement that it stands in runs.

call → BoundTable (function, version, its own query) → [values of parameters] → Arrow table → a name of ours in the database
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlml_dialect import ModelCall

from sqlml.binder.options import bind_options, option_span
from sqlml.binder.parameters import Parameters
from sqlml.binder.table_calls import TablePiece, table_piece, values_in
from sqlml.binder.text import Sql
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog, Version
from sqlml.contracts import FunctionSignature, RowModel
from sqlml.errors import BindError, BundleError, NotSupportedError, TrainingDataError
from sqlml.evaluation.anomalies import FIGURE, AnomalyModel, anomaly_schema
from sqlml.evaluation.functions import FUNCTIONS, TableFunction, check_fits
from sqlml.evaluation.scores import Scores
from sqlml.evaluation.subject import Subject
from sqlml.statements.scored import ScoredTable, add_predictions, fast_model
from sqlml.statements.scoring import (
    Runs,
    check_threshold,
    measured_heldout,
    measured_query,
    open_model,
    query_columns,
    subject_of,
)
from sqlml.types import Task, sql_type

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class BoundTable:
    """A call with its names settled; ``body`` is its own query, calls inside bound, parameters numbered as in the statement."""

    call: ModelCall
    function: TableFunction
    version: Version
    subject: Subject
    source: str
    body: Sql | None
    catalog: Catalog
    runs: Runs

    def empty(self, parameters: Any) -> pa.Table:
        """Its columns; its query is described, not run."""
        options = self._options(parameters)
        if self.body is not None and self.call.query is not None:
            values = values_in(self.body.text, parameters)
            query_columns(self.subject, self.version, self.body, self.call.query.span, values, self.runs)
        return self._located(lambda: self.function.empty(self.subject, options))

    def compute(self, parameters: Any) -> pa.Table:
        """The whole table."""
        options = self._options(parameters)
        scores = self._scores(parameters) if self.function.rows else ()
        return self._located(lambda: self.function.table(self.subject, options, scores))

    def _options(self, parameters: Any) -> dict[str, Any]:
        given = Parameters(self.source, self.call.span, parameters)
        options = bind_options(self.call.options, self.function.options, self.call.function.upper(), given)
        threshold = option_span(self.call.options, "threshold")
        if threshold is not None and options["threshold"] is not None:
            check_threshold(self.version, self.source, threshold)
        return options

    def _scores(self, parameters: Any) -> tuple[Scores, ...]:
        if self.body is None or self.call.query is None:
            what = f"{self.call.function.upper()}(MODEL {self.call.model.text}, (SELECT …))"
            held = measured_heldout(self.subject, self.version, self.catalog, self.source, self.call.span, what)
            return held.heads
        values = values_in(self.body.text, parameters)
        return measured_query(self.subject, self.version, self.body, self.call.query.span, values, self.runs).heads

    def _located(self, action: Callable[[], pa.Table]) -> pa.Table:
        try:
            return action()
        except (BindError, TrainingDataError) as error:
            raise error.located(self.source, self.call.span) from None


class TableFunctions:
    """Binds the calls of one connection."""

    def __init__(self, catalog: Catalog, runs: Runs) -> None:
        self._catalog = catalog
        self._runs = runs
        self._models: dict[str, Model] = {}  # the one that was used last

    def bind(self, call: ModelCall, version: Version, body: Sql | None, source: str, kept_by: str | None) -> TablePiece:
        """The piece that stands for a call.  ``kept_by`` names what would keep the text and run it again later, if anything."""
        function = FUNCTIONS[call.function]
        shown = call.function.upper()
        if kept_by is not None:
            raise NotSupportedError(
                f"{shown} is computed once, before the statement runs, and a {kept_by} would run it again", source=source,
                span=call.span, hint="keep its rows: CREATE TABLE … AS SELECT …",
            )  # fmt: skip
        if body is not None and not function.rows:
            span = call.query.span if call.query else call.span
            raise BindError(f"{shown} takes no query", source=source, span=span, hint=f"write {shown}(MODEL {call.model.text})")
        subject = subject_of(version, self._catalog, self._load)
        try:
            check_fits(call.function, subject)
        except BindError as error:
            raise error.located(source, call.span) from None
        bound = BoundTable(call, function, version, subject, source, body, self._catalog, self._runs)
        return table_piece(f"__sqlml_{uuid.uuid4().hex[:12]}", bound, call.span)

    def rows(self, call: ModelCall, version: Version, output: str, body: Sql) -> TablePiece:
        """The piece that stands for a call which answers row by row, where the database cannot call models itself."""
        special = self.special(version, output)
        load: Callable[[], RowModel] = special[2] if special else partial(fast_model, version)
        what, _, argument = output.partition(":")
        add = (lambda model, rows: model.explain(rows, int(argument))) if what == "explain" else add_predictions
        table = ScoredTable(body, version.inputs, load, add, what == "transform", self._runs, values_in)
        return table_piece(f"__sqlml_{uuid.uuid4().hex[:12]}", table, call.span)

    def _load(self, version: Version) -> Model:
        if version.uid not in self._models:
            self._models = {version.uid: open_model(version)}
        return self._models[version.uid]

    # --- functions of a row that are no model's own ---

    def special(self, version: Version, output: str) -> tuple[str, FunctionSignature, Callable[[], RowModel]] | None:
        """For ``transform`` and ``anomalies:<share>``: a name for the target, a signature and what loads; None for the rest."""
        what, _, argument = output.partition(":")
        columns = tuple((column.name, column.kind) for column in version.inputs)
        if what == "transform":
            bare = self._transform(version)
            return f"{version.uid}_transform", bare.signature, partial(_bare, version)
        if what == "anomalies":
            self._check_anomalies(version, argument)
            added = tuple((field.name, sql_type(field.type)) for field in anomaly_schema(version.task))
            load = partial(self._anomalies, version, float(argument) if argument else None)
            return f"{version.uid}_anomalies_{argument}", FunctionSignature(columns, "BOOLEAN", added), load
        return None

    def _transform(self, version: Version) -> Model:
        try:
            loaded = self._load(version)
        except BundleError as error:  # a view that calls it must not keep the database from being opened
            raise BindError(error.message, hint=error.hint) from error
        if loaded.transform is None:
            raise BindError(
                f"model {version.name} was trained without TRANSFORM: there is nothing to apply",
                hint=f"ML.PREDICT(MODEL {version.name}, …) gives its predictions",
            )
        return _without_heads(loaded)

    def _check_anomalies(self, version: Version, contamination: str) -> None:
        if version.task not in FIGURE:
            raise BindError(
                f"ML.DETECT_ANOMALIES is for isolation_forest, kmeans and pca; {version.name} is {version.algorithm}",
                hint="train one of them on the same rows, or look for large errors with ML.PREDICT",
            )
        if version.task is not Task.ANOMALY and not contamination:
            raise BindError(
                f"ML.DETECT_ANOMALIES needs to know which share of the training rows {version.name} should find strange",
                hint=f"write ML.DETECT_ANOMALIES(MODEL {version.name}, STRUCT(0.02 AS contamination), (SELECT …))",
            )
        if contamination and subject_of(version, self._catalog, self._load).load_sample() is None:
            raise BindError(f"the sample of training rows that {version.name} kept is gone", hint="train the model again")

    def _anomalies(self, version: Version, contamination: float | None) -> AnomalyModel:
        subject = subject_of(version, self._catalog)
        return AnomalyModel(subject.model, contamination, subject.sample)


def _bare(version: Version) -> Model:
    return _without_heads(open_model(version))


def _without_heads(model: Model) -> Model:
    """The same model as one that only transforms."""
    return Model(model.folder, model.manifest, ())
