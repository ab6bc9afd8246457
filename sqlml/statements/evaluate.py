"""EVALUATE MODEL: the field's figures for the held-out rows, or for the rows of a query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from sqlml_dialect import Evaluate, Query, quote_identifier

from sqlml.algorithms.options import check_value
from sqlml.binder.models import resolve_model
from sqlml.binder.parameters import Parameters
from sqlml.binder.train import bind_options
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog, Version
from sqlml.contracts import OptionSpec
from sqlml.errors import BindError, BundleError, Error, TrainingDataError, count_of, did_you_mean, listing, not_yet
from sqlml.statements.missing import missing_columns_error
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, rows_result
from sqlml.types import Task

OPTIONS = (
    OptionSpec("threshold", "float", None, "the probability from which the second of two classes is predicted", low=0, high=1),
)


def run_evaluate(node: Evaluate, parameters: Parameters, queries: Queries, catalog: Catalog) -> Result:
    """One row of figures."""
    source = parameters.source
    if node.by:
        raise not_yet("EVALUATE … BY", source, node.by[0].span)
    version = resolve_model(catalog, node.model, source)
    threshold = _options(node, parameters, version).get("threshold")
    if node.query is None:
        metrics, rows = _heldout(node, version, catalog, threshold, source)
        footer = f"{version.name} on its {rows:,} held-out rows"
    else:
        metrics, rows = _on_query(version, node.query, parameters, queries, threshold)
        footer = f"{version.name} on {count_of(rows, 'row')}"
    columns = [("model", "string"), ("version", "int64"), ("rows", "int64"), *((name, "double") for name in metrics)]
    row = {"model": version.model, "version": version.version, "rows": rows} | dict(metrics)
    return rows_result([row], columns, footer)


def _options(node: Evaluate, parameters: Parameters, version: Version) -> dict[str, Any]:
    given = bind_options(node.options, parameters)
    specs = {spec.name: spec for spec in OPTIONS}
    for option in node.options:
        name = option.name.name.lower()
        if name not in specs:
            raise BindError(
                f"EVALUATE has no option {option.name.name}", source=parameters.source, span=option.name.span,
                hint=did_you_mean(name, specs) or f"it has: {listing(specs)}",
            )  # fmt: skip
        if version.task is not Task.CLASSIFICATION or len(version.classes) != 2:
            raise BindError(
                f"a threshold is for models of two classes; {version.name} is none", source=parameters.source, span=option.span
            )
        try:
            given[name] = check_value(specs[name], given[name], "EVALUATE")
        except Error as error:
            raise error.located(parameters.source, option.value_span) from None
    return given


def _heldout(
    node: Evaluate, version: Version, catalog: Catalog, threshold: float | None, source: str
) -> tuple[Mapping[str, float | None], int]:
    if version.heldout_rows == 0:
        raise BindError(
            f"{version.name} was trained with SPLIT NONE: there are no held-out rows to evaluate it on", source=source,
            span=node.model.span, hint=f"give rows: EVALUATE MODEL {node.model.text} AS SELECT …",
        )  # fmt: skip
    if threshold is None:
        return catalog.metrics(version.uid, "heldout"), version.heldout_rows
    path = catalog.home.jobs / str(version.job_id) / "heldout.arrow"
    if not path.is_file():
        raise BundleError(
            f"the held-out scores of {version.name} are missing: {path}",
            hint=f"give rows: EVALUATE MODEL {version.name} AS SELECT …",
        )
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    scores = table["raw"].combine_chunks()
    raw = scores.flatten().to_numpy().reshape(len(scores), -1)
    weight = table["weight"] if "weight" in table.column_names else None
    return open_model(version).evaluate_scores(raw, table["actual"], weight, threshold), version.heldout_rows


def _on_query(
    version: Version, query: Query, parameters: Parameters, queries: Queries, threshold: float | None
) -> tuple[Mapping[str, float | None], int]:
    source = parameters.source
    sql = queries.bind(source, query.span)
    have = queries.describe(sql, parameters.within(query.span))
    present = {c.name.lower() for c in have}
    needed = [c.name for c in version.inputs] + ([version.target] if version.target else [])
    missing = frozenset(name for name in needed if name.lower() not in present)
    if version.target in missing:
        raise BindError(
            f"to evaluate {version.name} the query must give its target {version.target}", source=source, span=query.span,
            hint=f"it has: {listing((c.name for c in have), 20)}",
        )  # fmt: skip
    if missing:
        raise missing_columns_error(source, query.span, version, missing, tuple(c.name for c in have))
    columns = ", ".join(quote_identifier(name) for name in needed)
    stream = queries.run(sql.wrapped(f"SELECT {columns} FROM (", "\n)"), parameters.within(query.span))  # noqa: S608
    table = pa.Table.from_batches(list(stream.batches), stream.schema)
    if table.num_rows == 0:
        raise TrainingDataError("the query gave no rows to evaluate on", source=source, span=query.span)
    data = {column.name: table[index] for index, column in enumerate(version.inputs)}
    actual = table[len(version.inputs)] if version.target else None
    model = open_model(version)
    metrics = model.evaluate(data, actual, threshold=threshold)
    return metrics, table.num_rows if actual is None else model.known_rows(actual)


def open_model(version: Version) -> Model:
    """A version's bundle, loaded."""
    return Model.open(version.bundle, version.sha256)
