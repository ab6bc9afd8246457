"""The seam of targets: where a version becomes a function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sqlml.errors import EngineError
from sqlml.types import Kind

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


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


UNFIT = "an argument of the model's function is to be cast"
"""What a function says, when a query that calls it is bound, of a column of a type that it does not read."""


class UnfitArgument(EngineError):
    """A database's error that says so: the same query with casts can be run."""


class Target(Protocol):
    """An engine in which versions become functions.  A function once installed is never removed while the database is open.

    An ``output`` is ``predict`` (the class, value or cluster), ``probs`` (a map from class to probability), ``proba:<i>`` (the
    probability of class i), ``reasons:<n>`` (the n largest contributions), ``explain:<n>`` (what ML.EXPLAIN_PREDICT adds, as one
    struct) or ``full`` (what PREDICT MODEL adds, as one struct).
    """

    def call_sql(
        self,
        uid: str,
        output: str,
        signature: FunctionSignature,
        model: Callable[[], RowModel],
        arguments: Mapping[str, str],
        plain: Collection[str] = (),
    ) -> str:
        """SQL that calls a version; ``arguments`` maps each input's name to the SQL that gives it.

        Arguments are cast to the inputs' types; those named in ``plain``, which are columns, need not be: the database's
        ``UnfitArgument`` then tells, when the SQL is bound, of a column that must.

        The function is installed at its first call; ``model`` opens the bundle, when the function is made of it or at its first
        row.  ``NotSupportedError`` where the engine cannot compute the output of such a model.
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
