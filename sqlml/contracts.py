"""The seams: what an algorithm, a runner, an engine and a target must do, and no more.

Each is a Protocol with few methods.  An implementation is reached by name through ``sqlml.registry``; the contract kits in
``tests/kits.py`` check one by being given it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from sqlml.types import Column, Kind, Task

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from sqlml.errors import Error
    from sqlml.plan import JobSpec

# --- algorithms -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OptionSpec:
    """One option of an algorithm, under the library's own name.

    ``type`` is ``int``, ``float``, ``bool``, ``str``, ``list[float]``, ``list[int]``, ``device`` ('auto', 'cpu', 'cuda',
    'cuda:1'), ``class_weight`` ('balanced', or a number for each class),
    or several of these, as in ``float | str``; of connections and runners also ``struct``, ``size`` (bytes) and ``duration``
    (seconds).  ``low`` and ``high`` are the ends of the allowed range of numbers, inclusive
    unless ``open_low`` / ``open_high``; ``choices`` are the allowed words; ``default`` None means "the library's own".
    """

    name: str
    type: str
    default: Any
    doc: str
    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureMatrix:
    """What an algorithm learns from: one row per example, one column per encoded feature.

    ``x`` is float32 (n, k), row-major, NaN for missing.  ``categorical[j]`` says that column j holds category codes 0, 1, 2, …
    (only with the encoding ``codes``); ``names[j]`` is for people.
    """

    x: NDArray[np.float32]
    names: tuple[str, ...]
    categorical: tuple[bool, ...]


@dataclass(frozen=True)
class TrainingData:
    """Everything ``fit`` may see.

    ``y`` is int64 class codes 0 … n_classes-1 for classification, float64 for regression, None without a target; ``weight`` is
    float64.  ``valid_*`` are rows for early stopping, taken from the training part (None where not asked for); ``heldout_*`` are
    only watched: their loss is reported while training and decides nothing.
    """

    features: FeatureMatrix
    y: NDArray[Any] | None = None
    weight: NDArray[np.float64] | None = None
    valid_x: NDArray[np.float32] | None = None
    valid_y: NDArray[Any] | None = None
    heldout_x: NDArray[np.float32] | None = None
    heldout_y: NDArray[Any] | None = None
    n_classes: int = 0


@dataclass(frozen=True)
class FitSpec:
    """How to fit: the algorithm's own options, checked, the seed, and how many threads the job may use.

    ``start`` is what to go on from (WARM START): a predictor of the same algorithm on the same features and classes; given only
    to an algorithm that says ``warm_start``.  ``folder`` is where checkpoints may be kept, the fit's own; what lies in there when
    ``fit`` begins was left by the same fit, when its process died.  None: nothing is kept.
    """

    options: Mapping[str, Any]
    seed: int
    threads: int
    start: Predictor | None = None
    folder: Path | None = None


class Report(Protocol):
    """Where a job tells what it is doing.  Calling ``step`` may raise ``JobCancelled``."""

    def step(self, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """One step of training is done; ``metrics`` are named ``train_logloss``, ``heldout_logloss`` and so on."""

    def notice(self, text: str) -> None:
        """Something that the person should know."""

    def stage(self, name: str) -> None:
        """Another part of the work begins: ``reading``, ``training``, ``evaluating`` …"""


class Predictor(Protocol):
    """A fitted algorithm.  Safe to call from many threads at once; never unpickles anything.

    ``threads`` is how many threads one call may use: 1 after ``load``, since the callers are parallel.  ``gpu_memory`` is the
    bytes that training took of a GPU, 0 without one and after ``load``.
    """

    threads: int
    gpu_memory: int

    def predict(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """From float32 (n, k), by task: the probabilities (n, n_classes) of classes; values (n,); distances (n, clusters);
        components (n, components); anomaly scores (n,), higher for rows less like the others.
        """

    def contributions(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """What each feature adds to the row's raw score: (n, outputs, k + 1), the last column being the base value.

        Sums over the last axis to the raw score: the log-odds for two classes (outputs = 1, for the second class), one margin per
        class for more, the value itself for regression, minus the squared distance to each centre for clustering.
        Called only where the algorithm says ``explains``.
        """

    def importance(self) -> NDArray[np.float64]:
        """How much each of the k features matters to the model as a whole, shares that sum to 1 (or all 0).

        Called only where the algorithm says ``explains`` or has the task projection.
        """

    def parameters(self) -> Mapping[str, NDArray[Any]]:
        """What was learnt, as named float64 arrays; empty where there is nothing to show.

        Linear: ``coef`` (outputs, k), ``intercept`` (outputs,).  Clusters: ``centers`` (clusters, k).  Components: ``components``
        (components, k), ``explained_variance``, ``explained_variance_ratio`` (components,), ``mean`` (k,).  Trees: ``weight``
        (number of splits), ``gain`` and ``cover`` (averages over them), each (k,).  Anomalies: ``threshold`` (1,): a score above
        it is an anomaly.  What boosting or iterating learnt so far: ``rounds`` (1,), where it can be told to stop there.
        """

    def save(self, folder: Path) -> None:
        """Write the library's own safe format into an existing, empty folder."""

    def onnx(self) -> bytes | None:
        """The same as ONNX (input ``x`` float32 (n, k), first output as ``predict``'s), or None where there is no converter."""


class Algorithm(Protocol):
    """A way to learn.  Instances are made without arguments and hold no state."""

    name: str
    task: Task
    encoding: str  # "codes": categories as codes, NaN for missing; "dense": one-hot, scaled, no NaN
    early_stopping: str | None  # the option that turns it on, where the library has it
    rounds: str | None  # the option that counts what stops early; its predictors' ``parameters`` have ``rounds``
    streams: bool  # reads rows in parts: large ones are given as a map of a file (numpy.memmap)
    warm_start: bool  # can go on from an earlier predictor
    explains: bool  # its predictors have contributions and importance
    options: tuple[OptionSpec, ...]
    doc: str
    libraries: tuple[str, ...]  # distributions whose versions are kept with the version

    def fit(self, data: TrainingData, spec: FitSpec, report: Report) -> Predictor:
        """Learn.  Deterministic for the same data, options and seed.  Calls ``report.step`` at least once."""

    def load(self, folder: Path) -> Predictor:
        """Read what ``save`` wrote."""


# --- engines: where data lives --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """A result: its columns, and its rows as Arrow batches that may still be on their way.

    ``rowcount`` counts changed rows, -1 where there is nothing to count; ``has_rows`` is False for DDL and DML.
    """

    columns: tuple[Column, ...]
    schema: pa.Schema
    batches: Generator[pa.RecordBatch, None, None]
    rowcount: int = -1
    has_rows: bool = True


class Engine(Protocol):
    """A database, as one connection sees it.

    ``notice`` is what a person should know of it when it is first used, such as that it is slow.  Its errors are PEP 249's, with
    the database's own message and, where it tells, the place in the text it was given.
    """

    name: str
    dialect: str
    notice: str | None
    calls_python: bool  # True: it is a FunctionEngine, too

    def quote(self, name: str) -> str:
        """A name as this database's SQL takes it, whatever its letters."""

    def fold(self, name: str) -> str:
        """The name that this database understands by one without quotes."""

    def describe(self, query: str, parameters: Any = ()) -> tuple[Column, ...]:
        """The columns of a query, bound but not run.  ``BindError`` where the text is not one query."""

    def run(self, text: str, parameters: Any = ()) -> Stream:
        """Run one statement."""

    def run_many(self, text: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of parameters."""

    def bind(self, text: str, parameters: Any = ()) -> None:
        """Check a statement against the database without running it; raises what running it would raise at once."""

    def missing_column(self, error: Error) -> str | None:
        """The column whose absence an error tells of, if it does."""

    def scope(self, before: str, after: str) -> tuple[str, ...]:
        """The columns in scope between two pieces of a statement, where the database can be brought to tell."""

    def sample_clause(self, seed: int, rows: int) -> str:
        """What follows ``FROM (query)`` to keep a seeded sample of its rows, the same whatever their order."""

    def has_schema(self, name: str) -> bool:
        """Whether names may begin with this one: a schema or database, the database's own too, but not ours."""

    def has_function(self, name: str) -> bool:
        """Whether the database itself knows a function of this name, or the name cannot be one's."""

    def table_rows(self, parts: Sequence[str]) -> int | None:
        """How many rows a table has, by its name's parts; None where there is none."""

    def estimate_rows(self, query: str, parameters: Any = ()) -> int | None:
        """How many rows the database expects of a query, without running it; None where it cannot tell."""

    def transaction(self) -> int | None:
        """The number of the user's open transaction, -1 where it is aborted and waits for ROLLBACK; None where none is open."""

    def register(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Let statements of this connection read Arrow rows under a name, until ``unregister``; in a transaction too.

        A reader's rows are taken at once, in bounded memory.
        """

    def unregister(self, name: str) -> bool:
        """Forget a table of ``register``; True where it is gone, False where that must wait, since the connection is busy."""

    def write(self, parts: Sequence[str], schema: pa.Schema, batches: Iterable[pa.RecordBatch], mode: str) -> int:
        """Write rows into a table, by its name's parts; how many there were.

        ``mode``: ``create`` a new table, ``replace`` what may be there, ``append`` by the columns' names.  All or nothing, within
        the user's transaction where one is open.  ``batches`` may be read from the same connection.
        """

    def names(self) -> Mapping[str, tuple[str, ...]]:
        """``tables`` and ``columns``, for completion."""

    def interrupt(self) -> None:
        """Stop what runs, from another thread."""

    def close(self) -> None:
        """Close the connection."""


class FunctionEngine(Engine, Protocol):
    """An engine that calls Python functions from inside its queries, on Arrow chunks: predictions are made where the rows are,
    views can call models, and the catalog's relations are live views.
    """

    def create_function(
        self,
        name: str,
        body: Callable[..., Any],
        parameters: Sequence[str],
        result: str,
        *,
        arrow: bool,
        transaction: bool = False,
    ) -> None:
        """Make a Python function callable in SQL, for good; again is nothing.

        ``arrow``: called with chunks of rows as Arrow arrays, NULLs included, and pure; otherwise called once for each row, and
        each time anew.  ``transaction``: within the user's transaction, gone if it rolls back.
        """

    def attach_schema(self, name: str) -> None:
        """Make a schema of ours that nothing on disk knows of; again is nothing."""

    def define(self, statement: str) -> None:
        """Make or drop something of ours that all connections share: a view of the schema ``sqlml``, a macro."""

    def create_macro(self, schema: str, name: str, parameters: Sequence[str], body: str) -> None:
        """A macro of our schema, in place of one that may be there."""

    def drop_macro(self, schema: str, name: str) -> None:
        """Drop a macro of our schema."""

    def views_with(self, text: str) -> list[tuple[str, str]]:
        """The views whose SQL contains a text: name and SQL."""

    def missing_function(self, error: Error) -> str | None:
        """The function whose absence an error tells of, if it does."""

    def refused_macro(self, error: Error) -> str | None:
        """The macro that an error says was called with other arguments than it takes, if it does."""


# --- runners: where jobs run ----------------------------------------------------------------------------------------

Event: TypeAlias = Mapping[str, Any]
"""A line of a job's events: ``{"event": "step" | "stage" | "notice" | "done" | "failed", …}``, JSON all the way down."""


@dataclass(frozen=True)
class Resources:
    """What a runner has to give."""

    cores: int
    memory: int  # bytes
    gpus: tuple[str, ...] = ()


class JobHandle(Protocol):
    """A job that was submitted."""

    pid: int | None

    def wait(self, on_event: Callable[[Event], None]) -> None:
        """Follow the job to its end, calling ``on_event`` for each event in order.

        Returns when it is done.  Raises ``JobCancelled``, ``JobTimeout``, ``JobOutOfMemory``, ``JobCrashed`` or the error that
        the job itself ended with.  A ``KeyboardInterrupt`` raised by ``on_event`` or a signal cancels the job first.
        """

    def cancel(self) -> None:
        """Ask the job to stop, from any thread; ``wait`` then raises ``JobCancelled``."""


class Runner(Protocol):
    """A place where jobs run.

    ``kinds`` are the jobs that it can carry out: train, folds, predict.  ``reads``: it runs queries itself, of tables that its
    own name stands before (``FROM cluster.db.t``), and then needs no file of rows.
    """

    name: str
    type: str
    kinds: frozenset[str]
    reads: bool

    def submit(self, spec: JobSpec) -> JobHandle:
        """Start the job described by a JSON-able value in its folder; returns at once."""

    def resources(self) -> Resources:
        """What there is."""


# --- targets: where a version becomes a function ---------------------------------------------------------------------


@dataclass(frozen=True)
class FunctionSignature:
    """What a version's functions take and give.

    ``columns`` are the inputs, in DESCRIBE order; ``result`` is the SQL type of ``predict``, ``added`` the columns
    (name, SQL type) that PREDICT MODEL adds.  Types are written as DuckDB writes them; a target of another database translates
    them.
    """

    columns: tuple[tuple[str, Kind], ...]
    result: str
    added: tuple[tuple[str, str], ...]


class RowModel(Protocol):
    """A model as a target uses it: ``rows`` are a struct array of the inputs, and every method answers each of them.

    Safe to call from many threads at once; 0 rows are rows too.
    """

    def predict(self, rows: pa.StructArray) -> pa.Array:
        """The answers."""

    def raw(self, rows: pa.StructArray) -> NDArray[Any]:
        """The predictor's own scores: probabilities (n, classes) where there are classes."""

    def probs_map(self, raw: NDArray[Any]) -> pa.MapArray:
        """From ``raw``: the map from class name to probability."""

    def reasons(self, rows: pa.StructArray, top: int) -> pa.ListArray:
        """The ``top`` largest contributions."""

    def explain(self, rows: pa.StructArray, top: int) -> pa.RecordBatch:
        """What ML.EXPLAIN_PREDICT adds."""

    def full(self, rows: pa.StructArray) -> pa.RecordBatch:
        """What PREDICT MODEL adds, or in its place ML.TRANSFORM or ML.DETECT_ANOMALIES."""


class Target(Protocol):
    """An engine in which versions become functions.  A function once installed is never removed while the database is open.

    An ``output`` is ``predict`` (the class, value or cluster), ``probs`` (a map from class to probability), ``proba:<i>`` (the
    probability of class i), ``reasons:<n>`` (the n largest contributions), ``explain:<n>`` (what ML.EXPLAIN_PREDICT adds, as one
    struct) or ``full`` (what PREDICT MODEL adds, as one struct).
    """

    def call_sql(
        self, uid: str, output: str, signature: FunctionSignature, model: Callable[[], RowModel], arguments: Mapping[str, str]
    ) -> str:
        """SQL that calls a version; ``arguments`` maps each input's name to the SQL that gives it.

        The function is installed at its first call; ``model`` loads the bundle, at the first row.  ``NotSupportedError`` where
        the engine cannot compute the output of such a model.
        """

    def class_sql(self, probs: str, label: str) -> str:
        """SQL for the probability of a class: ``probs`` is a call that gives all of them, ``label`` SQL for the class's name."""


class StoredFunction(Protocol):
    """A function that a version is, or would be, in a database.

    ``name`` ends with the function's own, with its schema before it once it is installed; ``arguments`` are the inputs in
    DESCRIBE order and their types there; ``text`` is how a person reads it: ``public.churn(age double precision) text``.
    ``size`` counts nodes of trees and terms of sums, ``memory`` is about what each session that calls it needs, in bytes.
    """

    @property
    def name(self) -> tuple[str, ...]: ...

    @property
    def arguments(self) -> tuple[tuple[str, str], ...]: ...

    @property
    def text(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def memory(self) -> int: ...


class Installer(Protocol):
    """A database in which versions can be functions that stay, for any client of it; made with its engine: ``Class(engine)``.

    A name is a function's own, perhaps with a schema before it, as ``fold`` gives it where it stood without quotes.  What is
    ours must be told from everything else that the database has: nothing else is ever replaced or removed.
    """

    @staticmethod
    def fold(name: str) -> str:
        """The function's name that the database understands by one without quotes; asks nothing of it."""

    def plan(self, name: Sequence[str], model: RowModel, signature: FunctionSignature, comment: str) -> StoredFunction:
        """What ``install`` would make first; the database stays as it is.  ``NotSupportedError``, ``BindError`` as it."""

    def install(
        self, name: Sequence[str], model: RowModel, signature: FunctionSignature, comment: str
    ) -> tuple[StoredFunction, ...]:
        """Make a version's functions in place of all of ours that the name has; what was made, the one that predicts first.

        All or nothing, within the user's transaction where one is open; callers meanwhile see the old or the new.
        ``BindError`` where a function of the name is not ours; ``NotSupportedError`` for what cannot be a function.
        """

    def remove(self, name: Sequence[str]) -> None:
        """Remove all of ours that the name has.  ``BindError`` where there is none."""

    def call(self, name: Sequence[str], arguments: Mapping[str, Any]) -> str:
        """SQL that calls a function with these values; None is NULL."""


# --- endpoints ------------------------------------------------------------------------------------------------------


class EndpointServer(Protocol):
    """The server of one catalog's endpoints, as the session sees it."""

    def ensure(self) -> str:
        """Start it where none runs; its base URL."""

    def wait_ready(self, endpoint: str, version: int, timeout: float, cancelled: Callable[[], bool]) -> str:
        """Wait until a version is warm behind an endpoint; the endpoint's URL.

        ``ServingError`` with the reason otherwise, ``Cancelled`` as soon as ``cancelled()`` is true.
        """

    def states(self) -> Mapping[str, tuple[str, str | None]]:
        """endpoint, in lower case → (state, error) of the running server; empty where none runs."""

    def url(self) -> str | None:
        """The base URL of the running server."""

    def stop(self) -> bool:
        """Stop it; False where none ran."""
