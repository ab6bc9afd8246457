"""How the versions behind an endpoint do: logged predictions joined with what turned out to be true.

log (outputs) + feedback (truth), by request id or key → Scores of each version, as ``scores`` makes them of a query's rows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sqlml.evaluation.scores import Scores
from sqlml.features.truths import class_codes, number_truths, numbers
from sqlml.home import Home
from sqlml.plan import TargetColumn
from sqlml.prediction_log import feedback_files, prediction_files
from sqlml.types import Task, label_text

JOINED_ROWS = 524_288
"""So many logged rows are joined at once: each time anew the truths are laid out for look-ups."""
_LOGGED = ("request_id", "row", "key", "version", "role", "outputs")
Piece = TypeVar("Piece")


@dataclass(frozen=True)
class LiveScores:
    """One target of one version in one role (``serves``, ``shadow``): ``logged`` predictions, and those whose truth is known as
    scores, with the columns of the input that were asked for.  ``version``: its number in the log, of several the last.
    """

    uid: str
    version: int
    role: str
    target: TargetColumn
    logged: int
    scores: Scores
    kept: pa.Table


def measure_live(
    home: Home,
    endpoint: str,
    targets: Mapping[str, Sequence[TargetColumn]],
    by: Sequence[str] = (),
    since: datetime | None = None,
) -> list[LiveScores]:
    """The scores of the versions given, by uid with their targets, in the order of the uids; of those that the log has.

    ``by``: columns of the input to keep with the rows.  ``since``: only what was logged from then on (UTC).
    """
    files = {folder.name: paths for folder, paths in prediction_files(home, endpoint).items()}
    feedback = read_feedback(feedback_files(home, endpoint))
    found: list[LiveScores] = []
    for uid, own in targets.items():
        for target in own if uid in files else ():
            truths = Truths.of_target(feedback, target.name, only=len(own) == 1)
            found += _measure_version(uid, files[uid], target, truths, by, since)
    return found


# --- what turned out to be true ---------------------------------------------------------------------------------------


def read_feedback(files: Sequence[Path]) -> pa.Table:
    """All rows of feedback, the newest first."""
    import pyarrow.dataset as ds

    if not files:
        return pa.table({name: pa.array([], pa.string()) for name in ("request_id", "key", "target", "truth")}
                        | {"row": pa.array([], pa.int64())})  # fmt: skip
    return ds.dataset([str(path) for path in files]).to_table().sort_by([("given_at", "descending")])


@dataclass(frozen=True)
class Truths:
    """The truths of one target: ids of rows and of keys, each with its truth as text; of several for an id the first counts."""

    rows: pa.ChunkedArray
    row_truths: pa.ChunkedArray
    keys: pa.ChunkedArray
    key_truths: pa.ChunkedArray

    @property
    def none(self) -> bool:
        """Whether there are none at all."""
        return not len(self.rows) and not len(self.keys)

    @classmethod
    def of_target(cls, feedback: pa.Table, target: str, *, only: bool) -> Truths:
        """Those that name a target, and where it is the ``only`` one those that name none."""
        named = pc.equal(pc.utf8_lower(feedback["target"]), target.lower())
        own = feedback.filter(pc.fill_null(named, only))
        by_row, by_key = own.filter(pc.is_valid(own["request_id"])), own.filter(pc.is_valid(own["key"]))
        return cls(_row_ids(by_row["request_id"], by_row["row"]), by_row["truth"], by_key["key"], by_key["truth"])

    def of(self, logged: pa.RecordBatch) -> pa.Array:
        """The truth of each logged row, NULL where it is not known: by its request, else by its key."""
        rows = pc.index_in(_row_ids(logged["request_id"], logged["row"]), value_set=self.rows, skip_nulls=True)
        keys = pc.index_in(logged["key"], value_set=self.keys, skip_nulls=True)
        return pc.coalesce(pc.take(self.row_truths, rows), pc.take(self.key_truths, keys))


def _row_ids(requests: Any, rows: Any) -> Any:
    """A row of a request as one text."""
    return pc.binary_join_element_wise(requests, pc.cast(pc.fill_null(rows, 0), pa.string()), "\x1f")


# --- scores -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RoleRows(Generic[Piece]):
    """What the log has of one role, and what was taken of the rows whose truth is known, batch by batch."""

    version: int
    logged: int
    pieces: list[Piece]
    kept: pa.Table


def rows_by_role(
    files: Sequence[Path],
    truths: Truths,
    by: Sequence[str],
    since: datetime | None,
    take: Callable[[pa.StructArray, pa.Array], Piece],
) -> dict[str, RoleRows[Piece]]:
    """The log of one version, by role: what ``take`` makes of outputs and truths."""
    found: dict[str, list[tuple[int, int, Piece, pa.Table]]] = {}
    for batch in _batches(files, bool(by), since):
        truth = truths.of(batch)
        for role in pc.unique(batch["role"]).to_pylist():
            mine = pc.equal(batch["role"], role)
            known = pc.and_(mine, pc.is_valid(truth))
            rows = batch.filter(known)
            newest = pc.max(batch["version"].filter(mine)).as_py() or 0
            piece = take(rows["outputs"], truth.filter(known))
            found.setdefault(role, []).append((newest, pc.sum(mine).as_py() or 0, piece, _kept(rows, by)))
    return {
        role: RoleRows(max(own[0] for own in parts), sum(own[1] for own in parts), [own[2] for own in parts],
                       pa.concat_tables([own[3] for own in parts], promote_options="permissive"))
        for role, parts in sorted(found.items())
    }  # fmt: skip


def _measure_version(
    uid: str, files: Sequence[Path], target: TargetColumn, truths: Truths, by: Sequence[str], since: datetime | None
) -> list[LiveScores]:
    """One target of one version: its rows that answered, and those that ran in the shadow of others."""
    found = rows_by_role(files, truths, by, since, lambda outputs, truth: _scores(outputs, truth, target))
    return [LiveScores(uid, own.version, role, target, own.logged, joined(own.pieces), own.kept) for role, own in found.items()]


def _batches(files: Sequence[Path], inputs: bool, since: datetime | None) -> Iterator[pa.RecordBatch]:
    import pyarrow.dataset as ds

    after = None if since is None else ds.field("logged_at") >= pa.scalar(since, pa.timestamp("us"))
    columns = [*_LOGGED, "inputs"] if inputs else list(_LOGGED)
    waiting: list[pa.RecordBatch] = []
    for batch in ds.dataset([str(path) for path in files]).to_batches(columns=columns, filter=after):
        waiting.append(pa.RecordBatch.from_arrays([_plain(values) for values in batch.columns], names=columns))
        if sum(one.num_rows for one in waiting) >= JOINED_ROWS:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)


def _plain(values: pa.Array) -> pa.Array:
    """Values without a dictionary, in which texts that repeat are written."""
    return pc.cast(values, values.type.value_type) if isinstance(values.type, pa.DictionaryType) else values


def _scores(outputs: pa.StructArray, truth: pa.Array, target: TargetColumn) -> Scores:
    """What was answered and what is true of some rows."""
    if target.task is Task.CLASSIFICATION:
        probs = pc.struct_field(outputs, f"predicted_{target.name}_probs")
        raw = np.column_stack([numbers(pc.struct_field(probs, label_text(value))) for value in target.classes])
        actual = np.where(np.isfinite(raw).all(1), class_codes(truth, target.classes), -1)
        return Scores(target.task, raw, actual, target=target)
    raw = numbers(pc.struct_field(outputs, f"predicted_{target.name}"))
    return Scores(target.task, raw, np.where(np.isfinite(raw), number_truths(truth), np.nan), target=target)


def joined(pieces: Sequence[Scores]) -> Scores:
    """The scores of one version, piece by piece, as one."""
    raw = np.concatenate([piece.raw for piece in pieces])
    return Scores(pieces[0].task, raw, np.concatenate([np.asarray(p.actual) for p in pieces]), target=pieces[0].target)


def _kept(rows: pa.RecordBatch, by: Sequence[str]) -> pa.Table:
    """Columns of the input, by name whatever the case; NULL where the version has none of the name."""
    if not by:
        return pa.table({})
    inputs = rows["inputs"]
    names = {field.name.lower(): field.name for field in inputs.type}

    def column(name: str) -> pa.Array:
        own = names.get(name.lower())
        return pa.nulls(len(rows), pa.string()) if own is None else _slice_values(pc.struct_field(inputs, own))

    return pa.table({name: column(name) for name in by})


def _slice_values(values: pa.Array) -> pa.Array:
    """Values to tell rows apart by: whole numbers, numbers, truth; anything else as text."""
    if pa.types.is_integer(values.type):
        return pc.cast(values, pa.int64())
    if pa.types.is_floating(values.type) or pa.types.is_decimal(values.type):
        return pc.cast(values, pa.float64())
    return values if pa.types.is_boolean(values.type) else pc.cast(_plain(values), pa.string())
