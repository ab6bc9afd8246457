"""``INSERT INTO sqlml.feedback (endpoint, request_id, truth) …``: what turned out to be true of a prediction.

The relation is no table of the database: the rows of VALUES or of a query are computed by it, checked here, and kept as files
beside the prediction log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sqlml.binder.feedback import NAME, FeedbackInsert
from sqlml.binder.parameters import Parameters
from sqlml.catalog import Catalog, Endpoint, Version
from sqlml.catalog.rows import now, user
from sqlml.contracts import Stream
from sqlml.errors import (
    BindError,
    NotSupportedError,
    OperationalError,
    UnknownModel,
    UnknownVersion,
    count_of,
    did_you_mean,
    listing,
)  # fmt: skip
from sqlml.plan import TargetColumn
from sqlml.prediction_log import feedback_folder, feedback_schema, folder_name, merge_parts, write_part
from sqlml.statements.endpoint_changes import QUERY
from sqlml.statements.queries import Queries
from sqlml.statements.query_answers import target_fault, truth_targets
from sqlml.statements.result import Result

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlml.features.truths import Known

log = logging.getLogger("sqlml")

MERGED = 24
"""So many small files that one process wrote become one."""


def run_feedback(
    insert: FeedbackInsert, runs: Iterable[Parameters], queries: Queries, catalog: Catalog, transaction: int | None
) -> Result:
    """Keep the rows of the statement's query, run once for each set of parameters."""
    sets = list(runs)
    source = sets[0].source if sets else ""
    if transaction is not None:  # the database's ROLLBACK could not undo it
        span = (insert.span[0], insert.span[0] + len("INSERT"))
        message = f"INSERT into {NAME} cannot run inside an open transaction"
        raise NotSupportedError(message, source=source, span=span, hint="COMMIT or ROLLBACK first")
    for parameters in sets:
        parameters.check()
    streams = (queries.run_bound(source, insert.query, parameters.within(insert.query)) for parameters in sets)
    rows = collect_feedback(insert, streams, source)
    return Result(rowcount=keep_feedback(rows, insert, catalog, source))


def collect_feedback(insert: FeedbackInsert, streams: Iterable[Stream], source: str) -> pa.Table:
    """The rows of one query, or of one run for each row of parameters, with the columns of feedback as texts."""
    import pyarrow as pa

    schema = feedback_schema()
    parts = []
    for stream in streams:
        with closing(stream.batches) as batches:  # an error must not leave the database in the middle of them
            if len(stream.schema) != len(insert.columns):
                raise BindError(
                    f"{count_of(len(insert.columns), 'column')} and {count_of(len(stream.schema), 'value')}", source=source,
                    span=insert.query, hint=f"the columns are: {', '.join(insert.columns)}",
                )  # fmt: skip
            table = pa.Table.from_batches(list(batches), schema=stream.schema)
        kinds = [schema.field(name).type for name in insert.columns]
        casts = [_cast(table.column(i), kind, insert.columns[i], source, insert) for i, kind in enumerate(kinds)]
        parts.append(pa.table(casts, names=list(insert.columns)))
    return pa.concat_tables(parts) if parts else feedback_schema().empty_table()


def _cast(values: pa.ChunkedArray, kind: pa.DataType, name: str, source: str, insert: FeedbackInsert) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    plain = pc.cast(values, values.type.value_type) if isinstance(values.type, pa.DictionaryType) else values
    try:
        return pc.cast(plain, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        what = "a text or a number" if pa.types.is_string(kind) else "a row's number"
        message = f"{name} of {NAME} is {what}: {str(error).splitlines()[0]}"
        raise BindError(message, source=source, span=insert.query) from None


def keep_feedback(rows: pa.Table, insert: FeedbackInsert, catalog: Catalog, source: str) -> int:
    """Check the rows and write them; how many there were.  All or none are kept."""
    import pyarrow as pa
    import pyarrow.compute as pc

    _check_rows(rows, insert, source)
    names = pc.utf8_lower(rows["endpoint"])
    known = {endpoint.name.lower(): endpoint for endpoint in catalog.endpoints()}
    written: list[Path] = []
    moment, owner = now(), user()
    whole = pa.table({
        field.name: names if field.name == "endpoint" else rows[field.name] if field.name in rows.column_names
        else pa.array([{"owner": owner, "given_at": moment}.get(field.name)] * len(rows), field.type)
        for field in feedback_schema()
    }, schema=feedback_schema())  # fmt: skip
    endpoints = pc.unique(names).to_pylist()
    for endpoint in endpoints:
        if endpoint not in known and not (catalog.home.predictions / folder_name(endpoint)).is_dir():
            hint = did_you_mean(endpoint, known) or "SHOW ENDPOINTS lists all"
            raise BindError(f"unknown endpoint {endpoint}", source=source, span=insert.query, hint=hint)
        if endpoint in known:
            check = _check_targets if known[endpoint].kind == QUERY else _check_truths
            check(whole.filter(pc.equal(names, endpoint)), known[endpoint], catalog, insert, source)
    try:
        for endpoint in endpoints:
            own = whole.filter(pc.equal(whole["endpoint"], endpoint))
            written.append(write_part(feedback_folder(catalog.home, endpoint), own))
    except OSError as error:
        for path in written:
            path.unlink(missing_ok=True)
        raise OperationalError(
            f"the feedback cannot be written: {error.strerror or error}", hint="nothing of it is kept"
        ) from error
    for endpoint in endpoints:
        try:
            merge_parts(feedback_folder(catalog.home, endpoint), MERGED)
        except OSError as error:  # the rows are kept: that they lie in many files is no reason to say else
            log.warning("the files of the feedback on %s stay small: %s", endpoint, error)
    return len(rows)


def _check_targets(rows: pa.Table, endpoint: Endpoint, catalog: Catalog, insert: FeedbackInsert, source: str) -> None:
    """``BindError`` where feedback on a query names no column of its answer, or none where there are several, and for a truth
    that the column could not be.
    """
    from sqlml.features.truths import find_wrong_truth

    fault = target_fault(rows["target"].unique().to_pylist(), endpoint, catalog)
    if fault is not None:
        message, _, hint = fault.partition("; ")
        raise BindError(message, source=source, span=insert.query, hint=hint or None)
    known: tuple[Known, ...] = (lambda name: truth_targets(name, endpoint, catalog),)
    wrong = find_wrong_truth(rows["target"].combine_chunks(), rows["truth"].combine_chunks(), known)
    if wrong is not None:
        raise BindError(wrong.message, source=source, span=insert.query, hint=wrong.hint)


def _check_truths(rows: pa.Table, endpoint: Endpoint, catalog: Catalog, insert: FeedbackInsert, source: str) -> None:
    """``BindError`` where feedback on a model names no target of it, or a truth that is none of its classes, or no number."""
    import pyarrow.compute as pc

    from sqlml.features.truths import find_wrong_truth

    def refuse(message: str, hint: str | None) -> BindError:
        return BindError(message, source=source, span=insert.query, hint=hint)

    who, own = f"endpoint {endpoint.name}", [catalog.by_uid(arm.uid) for arm in endpoint.arms]
    names = listing(dict.fromkeys(target.name for version in own for target in version.targets))
    known: tuple[Known, ...] = (
        lambda name: _targets_of(own, name),
        lambda name: _targets_of(_logged_versions(endpoint, catalog), name),
    )
    if not any(targets(None) for targets in known):
        raise refuse(f"{who} has no target: nothing could turn out to be true of its answers", None)
    for name in pc.unique(pc.utf8_lower(rows["target"])).to_pylist():
        if name is None and len(own[0].targets) > 1:
            raise refuse(f"{who} has several targets", f"say in the column target which: {names}")
        if name is not None and not any(targets(name) for targets in known):
            raise refuse(f"{who} has no target {name!r}", did_you_mean(name, names.split(", ")) or f"it has: {names or 'none'}")
    wrong = find_wrong_truth(rows["target"].combine_chunks(), rows["truth"].combine_chunks(), known)
    if wrong is not None:
        raise refuse(wrong.message, wrong.hint)


def _targets_of(versions: Iterable[Version], name: str | None) -> list[TargetColumn]:
    """The column that feedback names (in lower case), as each version predicts it; None: the only one."""
    return [
        target
        for version in versions
        for target in (version.targets if name is not None else version.targets[:1])
        if name is None or target.name.lower() == name
    ]


def _logged_versions(endpoint: Endpoint, catalog: Catalog) -> list[Version]:
    """The versions that have answered for an endpoint, by its log: feedback may still come for them."""
    found, folder = list[Version](), catalog.home.predictions / folder_name(endpoint.name)
    for own in sorted(folder.iterdir()) if folder.is_dir() else ():
        with suppress(UnknownModel, UnknownVersion, BindError):
            found.append(catalog.by_uid(own.name))
    return found


def _check_rows(rows: pa.Table, insert: FeedbackInsert, source: str) -> None:
    """``BindError`` for rows without endpoint, truth, or anything to join them by."""
    import pyarrow.compute as pc

    def refuse(message: str, hint: str | None = None) -> BindError:
        return BindError(message, source=source, span=insert.query, hint=hint)

    for name in ("endpoint", "truth"):
        if rows[name].null_count:
            raise refuse(
                f"{name} is NULL in {count_of(rows[name].null_count, 'row')}", f"leave them out: WHERE {name} IS NOT NULL"
            )
    if "row" in rows.column_names and (pc.min(rows["row"]).as_py() or 0) < 0:
        raise refuse(f"row is {pc.min(rows['row']).as_py()}: the rows of a request are counted from 0")
    joined = [pc.is_valid(rows[name]) for name in ("request_id", "key") if name in rows.column_names]
    either = joined[0] if len(joined) == 1 else pc.or_(*joined)
    lost = len(rows) - (pc.sum(either).as_py() or 0)
    if lost:
        raise refuse(f"{count_of(lost, 'row')} of feedback {'has' if lost == 1 else 'have'} neither request_id nor key")
