"""A training job on Spark, from its rows to its outcome: the same files as a job on one machine leaves.

    query or train.arrow → staged rows → learner → division → TRANSFORM → encoder → fit → scores → bundle/, heldout.arrow,
                           sample.arrow, TrainOutcome

What comes to the driver is counts, a sample, the model, and the scores of held-out and of training rows, at most so many of each.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sqlml.algorithms.metrics import Metrics, measure
from sqlml.contracts import Report
from sqlml.errors import BindError, count_of
from sqlml.features.dataset import Dataset, Values
from sqlml.features.info import infinite_notices
from sqlml.features.profile import profile_notices
from sqlml.features.split import HELDOUT, TRAINING, VALIDATION
from sqlml.job_folder import BUNDLE, TRAIN_ROWS, VALIDATION_ROWS
from sqlml.plan import JobSpec, TrainOutcome, TrainPlan
from sqlml.training.bundle import write_bundle
from sqlml.training.features import Features, MadeColumns, model_inputs
from sqlml.training.fit import FittedHead, Matrices
from sqlml.training.kept import write_heldout, write_sample
from sqlml.training.machine import library_versions, peak_memory
from sqlml.training.record import Record
from sqlml.training.rows import HeadRows, Rows
from sqlml.training.source import Source
from sqlml.training.work import without_stop
from sqlml.types import Kind, Task
from sqlml_runners.checks import check_gpu, wanted_device
from sqlml_runners.spark.checks import check_training
from sqlml_runners.spark.cluster import Cluster
from sqlml_runners.spark.division import Division, divide, everything, other_rows
from sqlml_runners.spark.fitting import Fit, Scored, feature_rows, fit, raw_columns, sample, sample_with_y, score
from sqlml_runners.spark.info import feature_info
from sqlml_runners.spark.tables import Staged, read_rows, stage
from sqlml_runners.spark.targets import find_learner

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROFILE_ROWS = 50_000
_LIST_ROWS = 2_000
"""As many rows are profiled where there are vectors or lists among the inputs."""
_KEPT_ROWS = 4_500
_HELD_ROWS = 1_500
_SCORED_ROWS = 1_000_000
_SCORED_NUMBERS = 20_000_000
_CLUSTER_ROWS = 100_000


@dataclass(frozen=True)
class _Work:
    plan: TrainPlan
    spec: JobSpec
    cluster: Cluster
    record: Record
    staged: Staged
    other: Staged | None


def run_training(spec: JobSpec, cluster: Cluster, report: Report) -> TrainOutcome:
    """Train as the job says.  Writes ``bundle/``, ``heldout.arrow`` and ``sample.arrow`` into the job's folder."""
    check_training(spec.kind, spec.train, cluster.name, cluster.connect)
    _check_gpus(spec.train, cluster)
    record = Record(report)
    shutil.rmtree(spec.folder / BUNDLE, ignore_errors=True)
    record.stage("reading")
    plan = spec.train
    try:
        staged = stage(cluster, read_rows(cluster, spec.query, spec.folder / TRAIN_ROWS), plan, split=True)
        other = None
        if plan.split.method == "query":
            raw = read_rows(cluster, spec.validation, spec.folder / VALIDATION_ROWS)
            other = stage(cluster, raw, plan, split=False)
        return _train(_Work(plan, spec, cluster, record, staged, other))
    finally:
        cluster.forget()


def _check_gpus(plan: TrainPlan, cluster: Cluster) -> None:
    """``BindError`` for GPUs that are asked for and that the executors do not have."""
    if cluster.local:
        check_gpu(plan)
    elif wanted_device(plan).startswith("cuda") and not cluster.gives_gpus:
        raise BindError(
            f"device = '{wanted_device(plan)}': {cluster.name} gives its executors no GPU",
            hint="the runner's settings give them some: WITH (config = {'spark.executor.resource.gpu.amount': 1, …})",
            about="device",
        )


def _train(work: _Work) -> TrainOutcome:
    plan, record = work.plan, work.record
    workers = work.cluster.options.get("workers")
    learner, known = find_learner(plan, work.staged, plan.limits.threads, record)
    division = divide(plan, work.staged, learner, known, record, work.other is not None)
    held = None if work.other is None else other_rows(plan, work.other, division.learner, record)
    some = _profile(work, division)
    fitted = fit(plan, work.staged, division, work.cluster, record, record.head("", 0), workers)
    record.stage("evaluating")
    metrics, scored, held_rows = _measure(work, fitted, division, held)
    final, trained = fitted, division
    if fitted.learner.options.get("refit") and work.other is None and held_rows:
        record.stage("refitting")
        final, trained = _refit(work, fitted, division, workers)
    record.stage("saving")
    sha256 = _write(work, fitted, final, some, _held_rows(work, division, held), scored)
    return _outcome(work, final, fitted, trained, metrics, sha256, held_rows)


def _refit(work: _Work, fitted: Fit, division: Division, workers: int | None) -> tuple[Fit, Division]:
    whole = everything(division)
    learner = without_stop(whole.learner, _rounds(fitted))
    whole = Division(whole.frame, learner, whole.counts, 0)
    again = fit(work.plan, work.staged, whole, work.cluster, work.record, _Quiet(work.record), workers)
    rows = count_of(whole.size(TRAINING), "row")
    work.record.notice(f"refit: the figures are of the held-out rows; the model was then fitted again on all {rows}")
    return again, whole


class _Quiet:
    """A report without steps; what stops the job stops it here as well."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        return

    def notice(self, text: str) -> None:
        self._record.notice(text)

    def stage(self, name: str) -> None:
        return


def _rounds(fitted: Fit) -> int | None:
    found = fitted.predictor.parameters().get("rounds")
    return None if found is None else int(found[0])


# --- what stands out in the rows --------------------------------------------------------------------------------------


def _profile(work: _Work, division: Division) -> dict[str, Values]:
    """A sample of the training rows; of it the notices of a job on one machine are given, but not of what TRANSFORM reads."""
    inputs = model_inputs(work.plan)
    rows = division.size(TRAINING)
    most = _most_rows(inputs)
    columns, y = sample_with_y(division.rows(TRAINING), raw_columns(work.plan, work.staged), most, rows)
    if work.plan.transform is not None:
        return columns
    learner = division.learner
    values = None if learner.target is None else y.astype(np.int64) if learner.classes else y
    data = _dataset(work, columns)
    for text in profile_notices(data, inputs, learner.name, np.arange(len(y)), values, learner.task):
        if rows <= most or not text.endswith("not used"):  # the sample cannot know that of all rows
            work.record.notice(text)
    return columns


def _most_rows(inputs: Sequence[Any]) -> int:
    return _LIST_ROWS if any(i.kind in (Kind.NUMBERS, Kind.TEXTS) for i in inputs) else _PROFILE_ROWS


def _dataset(work: _Work, columns: Mapping[str, Values]) -> Dataset:
    """Sampled rows as a data set; whole numbers are whole again."""
    made = {}
    for name, values in columns.items():
        if name in work.staged.whole and values.type == pa.float64():
            values = values.cast(pa.int64(), safe=False)
        made[name] = values
    table = pa.table(made)
    kinds = {name: work.staged.kinds[name] for name in made}
    return Dataset(table, kinds, np.arange(table.num_rows), work.staged.fingerprint)


# --- figures ----------------------------------------------------------------------------------------------------------


def _measure(work: _Work, fitted: Fit, division: Division, held: Division | None) -> tuple[dict[str, Metrics], Scored, int]:
    """Metrics by part, the scored held-out rows, and how many held-out rows there are."""
    learner = fitted.learner
    outputs = max(len(learner.classes), int(learner.options.get("n_clusters") or 1), 1)
    clusters = learner.task is Task.CLUSTERING
    most = min(_CLUSTER_ROWS if clusters else _SCORED_ROWS, max(_SCORED_NUMBERS // outputs, 1))
    if held is None or work.other is None:
        count = division.held
        both = score(fitted, fitted.rows, {TRAINING: division.size(TRAINING), HELDOUT: count}, most, x=clusters)
    else:
        count = held.held
        rows = feature_rows(work.plan, work.other, held.frame, fitted.transform)
        both = score(fitted, fitted.rows, {TRAINING: division.size(TRAINING)}, most, x=clusters)
        both |= score(fitted, rows, {HELDOUT: count}, most, x=clusters)
    trained, scored = both[TRAINING], both[HELDOUT]
    if len(scored) < count:
        work.record.notice(f"the figures are of {len(scored):,} of {count_of(count, 'held-out row')}, drawn by seed")
    metrics = {"train": _figures(fitted, trained, work.plan)}
    if len(scored) and not np.isnan(scored.y).all():
        metrics["heldout"] = _figures(fitted, scored, work.plan)
    return metrics, scored, count


def _figures(fitted: Fit, scored: Scored, plan: TrainPlan) -> Metrics:
    """The figures of the rows whose target is known."""
    known = ~np.isnan(scored.y)
    learner = fitted.learner
    y: NDArray[Any] | None = None
    if learner.target is not None:
        y = scored.y[known].astype(np.int64) if learner.classes else scored.y[known]
    x = None if scored.x is None else scored.x[known]
    weight = scored.weight[known] if plan.weight else None
    parameters: Mapping[str, NDArray[Any]] = {} if learner.target else fitted.predictor.parameters()
    return measure(learner.task, scored.raw[known], y, weight, x=x, parameters=parameters)


# --- what is left -----------------------------------------------------------------------------------------------------


def _held_rows(work: _Work, division: Division, held: Division | None) -> dict[str, Values]:
    """Some of the held-out rows."""
    staged, source = (work.staged, division) if held is None or work.other is None else (work.other, held)
    return sample(source.rows(HELDOUT), raw_columns(work.plan, staged), _HELD_ROWS, source.held)


def _write(work: _Work, fitted: Fit, final: Fit, some: Mapping[str, Values], held: Mapping[str, Values], scored: Scored) -> str:
    """``heldout.arrow``, ``sample.arrow`` and the bundle; its SHA-256.  ``some`` and ``held`` are training and held-out rows."""
    plan = work.plan
    train_rows, held_rows = _made(final, some), _made(final, held)
    n_train, n_held = _length(train_rows), _length(held_rows)
    encode = final.encoder.transform
    matrices = Matrices(encode(train_rows, n_train), encode(_none(train_rows), 0), encode(held_rows, n_held))
    rows = HeadRows(_numbered(n_train), _numbered(0), _held(fitted, scored, plan))
    _write_heldout(work, fitted, rows, matrices, scored)
    features = Features(final.inputs, final.positions, final.transform, MadeColumns(train_rows), MadeColumns(held_rows))
    measured = final.learner.target is not None and n_held
    write_sample(work.spec.folder, features, np.arange(n_train), np.arange(n_held if measured else 0), True)
    source = Source(_dataset(work, some), None, {})
    head = FittedHead(final.learner, final.encoder, final.predictor, rows, matrices)
    return write_bundle(work.spec.folder / BUNDLE, source, model_inputs(plan), features, [head], source.data.order)


def _made(final: Fit, rows: Mapping[str, Values]) -> dict[str, Values]:
    """The first of some rows as the encoder reads them."""
    few = {name: values.slice(0, _KEPT_ROWS) for name, values in rows.items()}
    return few if final.transform is None else dict(final.transform.apply(few, _length(few)))


def _write_heldout(work: _Work, fitted: Fit, rows: HeadRows, matrices: Matrices, scored: Scored) -> None:
    """The scores are of the model that was measured, not of a second fit."""
    keys = {name: scored.keys[column] for name, column in work.staged.keys.items()}
    source = Source(Dataset(pa.table({}), {}, np.arange(0), ""), None, keys)
    head = FittedHead(fitted.learner, fitted.encoder, fitted.predictor, rows, matrices)
    write_heldout(work.spec.folder, source, [head], [scored.raw])


def _held(fitted: Fit, scored: Scored, plan: TrainPlan) -> Rows:
    y: NDArray[Any] | None = scored.y
    if fitted.learner.classes:
        y = np.where(np.isnan(scored.y), -1, np.nan_to_num(scored.y)).astype(np.int64)
    elif fitted.learner.target is None:
        y = None
    return Rows(np.arange(len(scored)), y, scored.weight if plan.weight else None)


def _numbered(n: int) -> Rows:
    return Rows(np.arange(n), None, None)


def _length(columns: Mapping[str, Values]) -> int:
    return len(next(iter(columns.values()), ()))


def _none(columns: Mapping[str, Values]) -> dict[str, Values]:
    return {name: values.slice(0, 0) for name, values in columns.items()}


def _outcome(
    work: _Work, final: Fit, fitted: Fit, trained: Division, metrics: Mapping[str, Metrics], sha256: str, held_rows: int
) -> TrainOutcome:
    inputs = model_inputs(work.plan)
    rows = trained.size(TRAINING, VALIDATION)
    frame = trained.rows(TRAINING)
    words = final.words if final.transform is None else None
    info = feature_info(frame, raw_columns(work.plan, work.staged), inputs, rows, words)
    for text in infinite_notices(info):
        work.record.notice(text)
    libraries = library_versions([fitted.learner.algorithm])
    libraries["pyspark"] = str(work.cluster.session.version)
    return TrainOutcome(
        algorithm=fitted.learner.algorithm.name,
        options=dict(fitted.learner.options),
        rows=rows,
        heldout_rows=held_rows,
        fingerprint=work.staged.fingerprint,
        metrics=metrics,
        curves=tuple(work.record.curves),
        bundle_sha256=sha256,
        duration=work.record.seconds,
        peak_memory=peak_memory(),
        libraries=libraries,
        host=platform.node(),
        encodings=_encodings(final, [i.name for i in inputs]),
        feature_info=tuple(info),
        notes=tuple(work.record.notes),
    )


def _encodings(final: Fit, names: Sequence[str]) -> dict[str, str]:
    """What was done to each input, for people."""
    if final.transform is None:
        return dict(final.encoder.describe())
    lines = final.transform.describe()
    made = {
        n: [f"{name} = {line}" for name, line in lines if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", line, re.I)] for n in names
    }
    return {name: "; ".join(found) or "read by TRANSFORM" for name, found in made.items()}
