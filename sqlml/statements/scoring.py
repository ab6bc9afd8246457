"""A version's scores of the rows of a query, or of those held out in training: what EVALUATE and the ML functions measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
from sqlml_dialect import Span

from sqlml.binder.text import Sql
from sqlml.bundles.model import Model
from sqlml.catalog import Catalog, Version
from sqlml.contracts import Stream
from sqlml.errors import BindError, BundleError, TrainingDataError, listing
from sqlml.evaluation.scores import Measured, heldout_scores, score_batches
from sqlml.evaluation.subject import Subject
from sqlml.features.dataset import read_arrow
from sqlml.job_folder import HELDOUT_ROWS, SAMPLE_ROWS
from sqlml.plan import TrainPlan
from sqlml.statements.missing import missing_columns_error
from sqlml.statements.result import Result
from sqlml.types import Column, Task, kind_of_arrow, sql_type


def check_threshold(version: Version, source: str, span: Span) -> None:
    """``BindError`` unless a threshold means something: for two classes, and for anomaly scores."""
    if version.task is not Task.ANOMALY and not any(len(target.classes) == 2 for target in version.targets):
        message = f"a threshold is for models of two classes; {version.name} is none"
        raise BindError(message, source=source, span=span)


class Runs(Protocol):
    """Who describes and runs queries."""

    def describe(self, sql: Sql, parameters: Any = ()) -> tuple[Column, ...]: ...

    def run(self, sql: Sql, parameters: Any = ()) -> Stream: ...

    def projected(self, sql: Sql, names: Iterable[str]) -> Sql: ...


def open_model(version: Version) -> Model:
    """A version's bundle, loaded."""
    return Model.open(version.bundle, version.sha256)


def subject_of(version: Version, catalog: Catalog, load: Callable[[Version], Model] = open_model) -> Subject:
    """A version as the functions see it; everything else of it is read when it is needed."""
    return Subject(
        name=version.name,
        algorithm=version.algorithm,
        task=version.task,
        targets=version.targets,
        load_model=partial(load, version),
        load_outcome=partial(catalog.outcome, version.uid),
        load_plan=partial(_plan, catalog, version),
        load_sample=partial(_read, catalog, version, SAMPLE_ROWS),
    )


def _plan(catalog: Catalog, version: Version) -> TrainPlan | None:
    try:
        return catalog.plan(version.uid)
    except BindError:
        return None  # of a version made before plans were kept


def _read(catalog: Catalog, version: Version, name: str) -> pa.Table | None:
    path = catalog.home.jobs / str(version.job_id) / name
    return read_arrow(path) if path.is_file() else None


def measured_heldout(subject: Subject, version: Version, catalog: Catalog, source: str, span: Span, what: str) -> Measured:
    """The held-out rows as training scored them.  ``BindError`` where none were held out; ``what`` says how to give others."""
    if version.heldout_rows == 0:
        raise BindError(
            f"{version.name} was trained without held-out rows: there are none to measure it on", source=source, span=span,
            hint=f"give rows: {what}",
        )  # fmt: skip
    table = _read(catalog, version, HELDOUT_ROWS)
    if table is None:
        path = catalog.home.jobs / str(version.job_id) / HELDOUT_ROWS
        raise BundleError(f"the held-out scores of {version.name} are missing: {path}", hint=f"give rows: {what}")
    return heldout_scores(subject.model, table)


def measured_query(
    subject: Subject, version: Version, sql: Sql, span: Span, values: Any, runs: Runs, kept: Sequence[str] = ()
) -> Measured:
    """The rows of a query, scored batch by batch.

    The query gives the inputs and the targets by name; where it has the column that training took as WEIGHT, its rows are
    weighted by it.  ``kept`` are columns to keep as they are.
    """
    weight, names = query_columns(subject, version, sql, span, values, runs, kept)
    stream = runs.run(runs.projected(sql, names), values)
    try:
        with closing(stream.batches) as batches:  # an error would else leave the connection taken
            measured = score_batches(subject.model, batches, stream.schema, weight, kept)
    except TrainingDataError as error:
        raise error.located(sql.source, span) from None
    if not any(head.rows for head in measured.heads):
        raise TrainingDataError("the query gave no rows to evaluate on", source=sql.source, span=span)
    return measured


def query_columns(
    subject: Subject, version: Version, sql: Sql, span: Span, values: Any, runs: Runs, kept: Sequence[str] = ()
) -> tuple[str | None, list[str]]:
    """The weight, if the query has it, and the columns to take.  ``BindError`` names what the query lacks; nothing runs."""
    have = runs.describe(sql, values)
    present = {column.name.lower() for column in have}
    targets = [target.name for target in version.targets]
    lacking = [name for name in targets if name.lower() not in present]
    if lacking:
        raise BindError(
            f"to evaluate {version.name} the query must give its target {listing(lacking)}", source=sql.source, span=span,
            hint=f"it has: {listing((c.name for c in have), 20)}",
        )  # fmt: skip
    missing = frozenset(column.name for column in version.inputs if column.name.lower() not in present)
    if missing:
        raise missing_columns_error(sql.source, span, version, missing, tuple(c.name for c in have))
    weight = subject.weight if subject.weight and subject.weight.lower() in present else None
    names = {name.lower(): name for name in (*(c.name for c in version.inputs), *targets, *([weight] if weight else []), *kept)}
    return weight, list(names.values())


def table_result(table: pa.Table, footer: str | None = None) -> Result:
    """A result of our own that is an Arrow table already."""
    columns = tuple(Column(field.name, _type_name(field.type), kind_of_arrow(field.type)) for field in table.schema)
    return Result(columns, table.schema, (batch for batch in table.to_batches()), footer=footer)


def _type_name(kind: pa.DataType) -> str:
    try:
        return sql_type(kind)
    except TypeError:
        return str(kind).upper()
