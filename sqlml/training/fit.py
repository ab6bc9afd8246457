"""One head fitted: encoder, feature matrices, predictor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sqlml.algorithms.metrics import Metrics, measure
from sqlml.algorithms.options import MAX_CATEGORIES
from sqlml.algorithms.shuffle import deal, file_matrix, find_places, in_file, read_blocks, release, window_rows
from sqlml.contracts import FeatureMatrix, FitSpec, Predictor, Report, TrainingData
from sqlml.errors import TrainingDataError
from sqlml.features.column_code import CODES
from sqlml.features.encode import FeatureEncoder
from sqlml.features.parallel import side_by_side
from sqlml.job_folder import FITS
from sqlml.plan import InputColumn
from sqlml.training.aims import Learner, check_class_weight, class_factors
from sqlml.training.features import Features, ReadRows
from sqlml.training.machine import give_back
from sqlml.training.rows import HeadRows, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sqlml.bundles.head import Head

_MEASURED_ROWS = 100_000
"""Training metrics are of at most so many rows (in canonical order, which is as good as random)."""


FILE_BYTES = 64 << 20
"""Smaller matrices lie in memory, whatever the algorithm can do."""
BATCH = 2 << 20
"""Bytes of rows that are encoded at a time on the way into a file."""
IN_MEMORY = 0.25
"""A file of up to this part of the job's memory is filled in any order, through the system's cache; a larger one from its
beginning to its end.
"""
PREDICTED = 64 << 20
"""Bytes of a file whose rows are predicted at a time."""


@dataclass(frozen=True)
class Room:
    """Where a job keeps what does not fit into its memory, how large that is, in bytes, and how many threads it may use."""

    folder: Path
    memory: int
    threads: int = 1


@dataclass(frozen=True)
class Matrices:
    """The features of a head's rows: float32 (n, k) each, in memory or in a file."""

    train: NDArray[np.float32]
    valid: NDArray[np.float32]
    held: NDArray[np.float32]


@dataclass(frozen=True)
class FittedHead:
    """A head that has learnt, with everything it learnt from."""

    learner: Learner
    encoder: FeatureEncoder
    predictor: Predictor
    rows: HeadRows
    x: Matrices

    @property
    def rounds(self) -> int | None:
        """How many rounds it learnt, where it can be told to stop there."""
        found = self.predictor.parameters().get("rounds")
        return None if found is None else int(found[0])


def fit_head(
    learner: Learner,
    rows: HeadRows,
    features: Features,
    validated: bool,
    report: Report,
    room: Room,
    start: Head | None = None,
) -> FittedHead:
    """Learn.  ``validated``: the held-out rows are those of VALIDATE ON; ``start``: the head to go on from."""
    check_class_weight(learner)
    encoder = start.encoder if start else fit_encoder(learner, features, rows.train.numbers)
    folder = room.folder / FITS / _fit_name(learner, rows)
    give_back()
    x = encode(encoder, features, rows, validated, room, learner.algorithm.streams)
    give_back()
    predictor = learner.algorithm.fit(_data(learner, encoder, rows, x), _spec(learner, start, folder, room), report)
    give_back()
    predictor.threads = learner.threads  # within the job nobody else computes
    return FittedHead(learner, encoder, predictor, rows, x)


def fit_encoder(learner: Learner, features: Features, rows: NDArray[np.int64]) -> FeatureEncoder:
    """The encoder that the algorithm wants.  ``TrainingDataError`` where it gives no features."""
    encoding = learner.algorithm.encoding
    most = learner.options.get(MAX_CATEGORIES.name) or (1000 if encoding == CODES else 100)
    encoder = FeatureEncoder.fit(
        features.inputs, features.columns.narrow, rows, encoding, most, features.positions, learner.threads
    )
    if not encoder.names:
        raise _no_features(features.inputs)
    return encoder


def _no_features(inputs: tuple[InputColumn, ...]) -> TrainingDataError:
    if not inputs:
        return TrainingDataError("there are no feature columns left to learn from")
    one = f"the only feature column, {inputs[0].name}, does not vary"
    subject = one if len(inputs) == 1 else f"none of the {len(inputs):,} feature columns varies"
    return TrainingDataError(f"{subject} in the training rows: there is nothing to learn from")


def encode(
    encoder: FeatureEncoder, features: Features, rows: HeadRows, validated: bool, room: Room, share: float | None
) -> Matrices:
    """The feature matrices; those of VALIDATE ON come from their own source.

    ``share``: of an algorithm that reads rows in parts, whose matrices lie in files where they are more than that part of the
    memory.
    """
    parts = [rows.train.numbers, rows.valid.numbers]
    size = 4 * len(encoder.names) * sum(len(numbers) for numbers in (*parts, rows.held.numbers))
    if share is not None and size > max(FILE_BYTES, share * room.memory):
        return _encode_to_files(encoder, features, rows, validated, room)
    if not validated:
        return Matrices(*encoder.transform_rows(features.columns.narrow, [*parts, rows.held.numbers]))
    train, valid = encoder.transform_rows(features.columns.narrow, parts)
    return Matrices(train, valid, encoder.transform_rows(features.held(validated).narrow, [rows.held.numbers])[0])


def _encode_to_files(encoder: FeatureEncoder, features: Features, rows: HeadRows, validated: bool, room: Room) -> Matrices:
    """The same in files, encoded batch by batch: neither the columns nor the matrix are ever in memory as a whole."""
    parts = [rows.train.numbers, rows.valid.numbers]
    if not validated:
        return Matrices(*_encode_parts(encoder, features.columns.rows, [*parts, rows.held.numbers], room))
    train, valid = _encode_parts(encoder, features.columns.rows, parts, room)
    return Matrices(train, valid, _encode_parts(encoder, features.held(validated).rows, [rows.held.numbers], room)[0])


def _encode_parts(
    encoder: FeatureEncoder, read: ReadRows, parts: Sequence[NDArray[np.int64]], room: Room
) -> list[NDArray[np.float32]]:
    """One matrix for each array of row numbers, all in one file."""
    order = np.concatenate(parts)
    out = file_matrix(room.folder / FITS, len(order), len(encoder.names))
    fill = _fill_by_place if out.nbytes <= IN_MEMORY * room.memory else _fill_in_order
    fill(encoder, read, order, out, room)
    return np.split(out, np.cumsum([len(numbers) for numbers in parts])[:-1])


def _fill_by_place(
    encoder: FeatureEncoder, read: ReadRows, order: NDArray[np.int64], out: NDArray[np.float32], room: Room
) -> None:
    """Each row to its place as it comes, several blocks at a time."""
    places = find_places(order)
    step = max(1, BATCH // (4 * out.shape[1]))

    def write(start: int) -> None:
        place = places[start : start + step]
        encoder.scatter(read(start, len(place)), place, out)

    side_by_side(write, range(0, len(places), step), room.threads)
    release(out)


def _fill_in_order(
    encoder: FeatureEncoder, read: ReadRows, order: NDArray[np.int64], out: NDArray[np.float32], room: Room
) -> None:
    """From the first place to the last, by way of another file."""
    k = out.shape[1]
    batches = encoder.transform_batches(read, int(order.max()) + 1 if len(order) else 0, max(1, BATCH // (4 * k)))
    for start, rows in deal(batches, order, k, window_rows(len(order), 4 * k), room.folder / FITS):
        out[start : start + len(rows)] = rows
        release(out)


def _fit_name(learner: Learner, rows: HeadRows) -> str:
    """The same for the same fit, when its job begins anew."""
    told = [learner.algorithm.name, learner.name, dict(learner.options), len(rows.valid), len(rows.held)]
    digest = hashlib.sha256(json.dumps(told, default=str).encode())
    digest.update(np.ascontiguousarray(rows.train.numbers).data)
    return digest.hexdigest()[:16]


def _data(learner: Learner, encoder: FeatureEncoder, rows: HeadRows, x: Matrices) -> TrainingData:
    held, known = rows.held, rows.held.known
    watched = known.any()
    return TrainingData(
        features=FeatureMatrix(x.train, encoder.names, encoder.categorical),
        y=rows.train.y,
        weight=_weight(learner, rows.train),
        valid_x=x.valid if len(x.valid) else None,
        valid_y=rows.valid.y if len(x.valid) else None,
        heldout_x=(x.held if known.all() else x.held[known]) if watched else None,
        heldout_y=held.y[known] if watched and held.y is not None else None,
        n_classes=len(learner.classes),
    )


def _weight(learner: Learner, rows: Rows) -> NDArray[np.float64] | None:
    """The rows' own weights times those of their classes."""
    factors = class_factors(learner, rows.y) if learner.classes and rows.y is not None else None
    if factors is None or rows.weight is None:
        return rows.weight if factors is None else factors
    return np.asarray(rows.weight * factors)


def _spec(learner: Learner, start: Head | None, folder: Path, room: Room) -> FitSpec:
    own = {option.name for option in learner.algorithm.options}
    options = {name: value for name, value in learner.options.items() if name in own}
    return FitSpec(options, learner.seed, learner.threads, start.predictor if start else None, folder, room.memory)


def predicted(head: FittedHead, x: NDArray[np.float32]) -> NDArray[Any]:
    """A head's raw scores; of rows in a file some at a time."""
    if not in_file(x) or not len(x):
        return head.predictor.predict(x)
    return np.concatenate([head.predictor.predict(rows) for _, rows in read_blocks(x, PREDICTED)])


def measure_rows(head: FittedHead, rows: Rows, x: NDArray[np.float32], raw: NDArray[Any] | None = None) -> Metrics:
    """The figures of some rows; those whose target is not known are left out."""
    known = rows.known
    if not known.all():
        rows, x, raw = rows.pick(known), x[known], None if raw is None else raw[known]
    raw = predicted(head, x) if raw is None else raw
    parameters: Mapping[str, NDArray[Any]] = {} if head.learner.target else head.predictor.parameters()
    return measure(head.learner.task, raw, rows.y, rows.weight, x=x, parameters=parameters)


def train_figures(head: FittedHead) -> Metrics:
    """Of the rows trained on."""
    return measure_rows(head, head.rows.train.first(_MEASURED_ROWS), head.x.train[:_MEASURED_ROWS])
