"""EVALUATE MODEL: the field's figures for the held-out rows or the rows of a query, as a whole, by slice, or by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from sqlml_dialect import Evaluate, Ident

from sqlml.algorithms.metrics import Metrics
from sqlml.binder.models import resolve_model
from sqlml.binder.options import bind_options, option_span
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Version
from sqlml.contracts import Follow, OnEvent, OptionSpec
from sqlml.errors import BindError, count_of, did_you_mean, listing
from sqlml.evaluation.functions import THRESHOLD
from sqlml.evaluation.scores import Measured, Scores
from sqlml.evaluation.subject import Subject
from sqlml.statements.folds import run_folds
from sqlml.statements.handler import Handler, Handlers
from sqlml.statements.queries import Queries
from sqlml.statements.result import Result, own_columns
from sqlml.statements.scoring import (
    check_threshold,
    measured_heldout,
    measured_query,
    subject_of,
    table_result,
)
from sqlml.types import UNMEASURED, Column, Task

OPTIONS = (
    THRESHOLD,
    OptionSpec("folds", "int", None, "train again on all parts but one of so many, and measure on that one", low=2, high=50),
)
MOST_SLICES = 1_000
"""EVALUATE … BY gives so many rows at most."""


def evaluate_handlers(queries: Queries, catalog: Catalog, on_event: OnEvent, follow: Follow) -> Handlers:
    """EVALUATE; its folds are a job of the catalog."""
    return {
        Evaluate: Handler(
            lambda n, p: run_evaluate(n, p, queries, catalog, on_event, follow),
            writes=lambda node: any(option.name.name.lower() == "folds" for option in node.options),
            columns=lambda n, p: evaluated_columns(n, p, queries, catalog),
        ),
    }


def run_evaluate(
    node: Evaluate,
    parameters: Parameters,
    queries: Queries,
    catalog: Catalog,
    on_event: OnEvent = lambda event: None,
    follow: Follow = lambda job: None,
) -> Result:
    """One row of figures; of several targets, and of slices, a row each.  ``follow`` is told the job of cross-validation."""
    version = resolve_model(catalog, node.model, parameters.source)
    options = _options(node, parameters, version)
    _check_task(node, version, parameters.source)
    if options["folds"] is not None:
        return run_folds(node, version, options, parameters, queries, catalog, on_event, follow)
    subject = subject_of(version, catalog)
    threshold = options["threshold"]
    if not node.by and node.query is None and threshold is None and not subject.several and version.heldout_rows:
        figures = catalog.metrics(version.uid, "heldout")
        return _result(version, [({}, None, version.heldout_rows, figures)], _heldout_note(version, version.heldout_rows))
    measured = _measure(node, subject, parameters, queries, catalog, version)
    slices = find_slices(node.by, measured.kept, parameters.source) if node.by else [({}, None)]
    rows = [_row(values, head, picked, threshold) for values, picked in slices for head in measured.heads]
    if node.query is None:
        return _result(version, rows, _heldout_note(version, measured.rows), measured.kept.schema)
    weighted = f", weighted by {subject.weight}" if any(head.weight is not None for head in measured.heads) else ""
    return _result(version, rows, f"{version.name} on {count_of(measured.rows, 'row')}{weighted}", measured.kept.schema)


def evaluated_columns(node: Evaluate, parameters: Parameters, queries: Queries, catalog: Catalog) -> tuple[Column, ...] | None:
    """The columns of an EVALUATE's answer; None for folds, and for slices of the held-out rows.  Nothing is measured."""
    version = resolve_model(catalog, node.model, parameters.source)
    options = _options(node, parameters, version)
    _check_task(node, version, parameters.source)
    figures = catalog.metrics(version.uid, "heldout") or catalog.metrics(version.uid, "train")
    if options["folds"] is not None or (node.by and node.query is None) or not figures or len(version.targets) > 1:
        return None
    head = own_columns([("model", "string"), ("version", "int64")])
    if node.query is not None:
        have = queries.describe(queries.bind(parameters.source, node.query.span), parameters.within(node.query.span))
        names = [_query_column(by, [column.name for column in have], parameters.source) for by in node.by]
        head = tuple(column for name in names for column in have if column.name == name) or head
    return (*head, *own_columns([("rows", "int64"), *((name, "double") for name in figures)]))


def _check_task(node: Evaluate, version: Version, source: str) -> None:
    if version.task in UNMEASURED:
        raise BindError(
            f"{version.name} {UNMEASURED[version.task]}: it answers nothing that could be measured",
            source=source,
            span=node.model.span,
        )


def _options(node: Evaluate, parameters: Parameters, version: Version) -> dict[str, Any]:
    given = bind_options(node.options, OPTIONS, "EVALUATE", parameters)
    threshold = option_span(node.options, "threshold")
    if threshold is not None:
        check_threshold(version, parameters.source, threshold)
    if given["folds"] is not None and node.by:
        raise BindError(
            "EVALUATE gives figures by slice or by fold, not both", source=parameters.source, span=node.by[0].span,
            hint="leave out BY, or folds",
        )  # fmt: skip
    return given


def _measure(
    node: Evaluate, subject: Subject, parameters: Parameters, queries: Queries, catalog: Catalog, version: Version
) -> Measured:
    source = parameters.source
    if node.query is None:
        what = f"EVALUATE MODEL {node.model.text} AS SELECT …"
        measured = measured_heldout(subject, version, catalog, source, node.model.span, what)
        names = [_kept_column(by, measured.kept.column_names, version, source) for by in node.by]
        if node.by and version.task in (Task.CLUSTERING, Task.PROJECTION):
            raise BindError(
                f"of the held-out rows {version.name} keeps no features, which its figures are made from", source=source,
                span=node.by[0].span, hint=f"give rows: EVALUATE MODEL {version.name} BY {node.by[0].name} AS SELECT …",
            )  # fmt: skip
        return Measured(measured.heads, measured.kept.select(names))
    sql, values = queries.bind(source, node.query.span), parameters.within(node.query.span)
    kept: list[str] = []
    if node.by:
        have = [column.name for column in queries.describe(sql, values)]
        kept = [_query_column(by, have, source) for by in node.by]
    return measured_query(subject, version, sql, node.query.span, values, queries, kept)


def _query_column(by: Ident, have: Sequence[str], source: str) -> str:
    for name in have:
        if name.lower() == by.name.lower():
            return name
    near = did_you_mean(by.name, have)
    raise BindError(
        f"the query has no column {by.name}", source=source, span=by.span, hint=near or f"it has: {listing(have, 20)}"
    )


def _kept_column(by: Ident, kept: Sequence[str], version: Version, source: str) -> str:
    for name in kept:
        if name.lower() == by.name.lower():
            return name
    have = f"it keeps {listing(kept)}" if kept else "it was trained without KEY, so it keeps none"
    raise BindError(
        f"{version.name} keeps no column {by.name} with its held-out rows: {have}", source=source, span=by.span,
        hint=f"give rows that have it: EVALUATE MODEL {version.name} BY {by.name} AS SELECT …",
    )  # fmt: skip


# --- slices ------------------------------------------------------------------------------------------------------------


def find_slices(by: Sequence[Ident], kept: pa.Table, source: str) -> list[tuple[dict[str, Any], Any]]:
    """The different values of the slice columns, ascending, NULL last, each with the numbers of its rows."""
    names = kept.column_names
    plain = pa.table([_storable(kept[name]) for name in names], names=[f"c{i}" for i in range(len(names))])
    keys = plain.column_names
    try:
        numbered = plain.append_column("row", pa.array(np.arange(plain.num_rows)))
        grouped = numbered.group_by(keys, use_threads=False).aggregate([("row", "list")])
        grouped = grouped.sort_by([(key, "ascending") for key in keys])
    except (pa.ArrowNotImplementedError, pa.ArrowKeyError, pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise BindError(
            f"rows cannot be told apart by {listing(names)}: {str(error).splitlines()[0]}", source=source, span=by[0].span
        ) from None
    if grouped.num_rows > MOST_SLICES:
        raise BindError(
            f"{listing(names)} has {grouped.num_rows:,} different values: too many slices", source=source, span=by[0].span,
            hint=f"take a column of {MOST_SLICES:,} values at most, or group them in the query",
        )  # fmt: skip
    rows = grouped["row_list"].to_pylist()
    values = [grouped[key].to_pylist() for key in keys]
    return [(dict(zip(names, key, strict=True)), np.array(own)) for *key, own in zip(*values, rows, strict=True)]


def _storable(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """An enum as its text: Arrow cannot group by dictionaries of several batches."""
    return values.cast(values.type.value_type) if isinstance(values.type, pa.DictionaryType) else values


def _row(
    values: Mapping[str, Any], head: Scores, picked: Any, threshold: float | None
) -> tuple[Mapping[str, Any], str | None, int, Metrics]:
    own = head if picked is None else head.pick(picked)
    return values, head.target.name if head.target else None, own.known.rows, own.measure(threshold)


# --- the answer --------------------------------------------------------------------------------------------------------


def _heldout_note(version: Version, rows: int) -> str:
    return f"{version.name} on its {rows:,} held-out rows"


def _result(
    version: Version,
    rows: Sequence[tuple[Mapping[str, Any], str | None, int, Mapping[str, float | None]]],
    footer: str,
    slices: pa.Schema | None = None,
) -> Result:
    """Of several targets the column ``target`` first; then the slice, or the model and its version; rows; figures."""
    figures = dict.fromkeys(name for _, _, _, metrics in rows for name in metrics)
    columns: dict[str, pa.Array] = {}
    if len(version.targets) > 1:
        columns["target"] = pa.array([target for _, target, _, _ in rows], pa.string())
    for field in slices or ():
        columns[field.name] = pa.array([values[field.name] for values, _, _, _ in rows], _value_type(field.type))
    if not slices:
        columns["model"] = pa.array([version.model] * len(rows), pa.string())
        columns["version"] = pa.array([version.version] * len(rows), pa.int64())
    columns["rows"] = pa.array([count for _, _, count, _ in rows], pa.int64())
    names = [*columns, *figures]
    arrays = [*columns.values(), *(pa.array([row[3].get(name) for row in rows], pa.float64()) for name in figures)]
    return table_result(pa.Table.from_arrays(arrays, names=names), footer)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if isinstance(kind, pa.DictionaryType) else kind
