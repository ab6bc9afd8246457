"""Versions as vectorised Arrow functions of Spark.

Each function takes one STRUCT whose fields are the model's inputs and gives a class, a number, probabilities …  Spark hands its
Python workers batches of rows as Arrow; a worker reads the bundle once.  On this machine it reads it where it lies; to a cluster
it goes as an archive that Spark itself distributes.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from sqlml.bundles.manifest import MANIFEST, file_sha256
from sqlml.contracts import FunctionSignature, RowModel
from sqlml.errors import NotSupportedError
from sqlml.types import Kind
from sqlml_udfs.duckdb.arrow import result_type
from sqlml_udfs.spark.expand import can_expand, install_expansion
from sqlml_udfs.spark.types import CASTS, quote, spark_type
from sqlml_udfs.spark.worker import Job


class Bundled(Protocol):
    """A model that lies in a folder, as ``sqlml.bundles.model.Model`` does."""

    folder: Path


class SparkTarget:
    """The functions of one Spark session.  They are temporary: gone when the session ends."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._lock = threading.RLock()
        self._installed: set[str] = set()
        self._sent: dict[str, str] = {}

    def call_sql(
        self,
        uid: str,
        output: str,
        signature: FunctionSignature,
        model: Callable[[], RowModel],
        arguments: Mapping[str, str],
        plain: Collection[str] = (),
    ) -> str:
        """``__sqlml_…(struct(CAST(age AS DOUBLE) AS `age`, …))``, in the order in which the arguments are given."""
        name = f"__sqlml_{uid}_{output.replace(':', '_')}"
        self.install(name, output, signature, model)
        return self.struct_call(name, signature, arguments)

    def class_sql(self, probs: str, label: str) -> str:
        """The probability of a class that each row names, out of ``probs``'s map of them all."""
        return f"({probs})[CAST(({label}) AS STRING)]"  # Spark's VARCHAR wants a length

    @staticmethod
    def struct_call(name: str, signature: FunctionSignature, arguments: Mapping[str, str]) -> str:
        """A call of a function of one struct; ``arguments`` maps each input's name to the SQL that gives it."""
        kinds: dict[str, Kind] = dict(signature.columns)
        fields = ", ".join(f"CAST({sql} AS {CASTS[kinds[column]]}) AS {quote(column)}" for column, sql in arguments.items())
        return f"{quote(name)}(struct({fields}))"

    def install(
        self, name: str, output: str, signature: FunctionSignature, model: Callable[[], RowModel], *, replace: bool = False
    ) -> None:
        """Make a function of one struct; again is nothing, unless ``replace``."""
        with self._lock:
            if name not in self._installed or replace:
                self._register(name, self._function(name, output, signature, model))
                self._installed.add(name)

    def install_named(self, name: str, output: str, signature: FunctionSignature, model: Callable[[], RowModel]) -> None:
        """Make a function that people call, in place of an older one: over ``*``, ``c.*``, one struct, columns by place or name.

        Behind Spark Connect Spark tells a function no names of columns: a star there gives columns by place, and is refused
        unless there are as many as inputs.
        """
        function = self._function(name, output, signature, model)
        with self._lock:
            made = self._register(name, function)
            if can_expand(self._session):
                install_expansion(self._session, name, made._unwrapped if hasattr(made, "_unwrapped") else made, signature)

    def remove(self, name: str) -> None:
        """Drop a function."""
        with self._lock:
            self._installed.discard(name)
            self._session.sql(f"DROP TEMPORARY FUNCTION IF EXISTS {quote(name)}")

    def _function(self, name: str, output: str, signature: FunctionSignature, model: Callable[[], RowModel]) -> Any:
        job = self._job(name, output, cast(Bundled, model()).folder, signature)
        from pyspark.sql import functions

        arrow_udf = getattr(functions, "arrow_udf", None)
        if arrow_udf is None:
            raise NotSupportedError(
                "functions of models need pyspark 4.1 or newer, whose functions read Arrow", hint="pip install -U 'pyspark>=4.1'"
            )
        return arrow_udf(_body(job), spark_type(result_type(output, signature)))

    def _register(self, name: str, function: Any) -> Any:
        """Register a function; Spark notes the workers' Python when it makes the function's Java part."""
        with _same_python(self._session):
            return self._session.udf.register(name, function)

    def _job(self, name: str, output: str, folder: Path, signature: FunctionSignature) -> Job:
        sha256 = file_sha256(folder / MANIFEST)
        place = str(folder.absolute())
        if not _is_local(self._session):
            with self._lock:
                if sha256 not in self._sent:
                    self._sent[sha256] = _send(self._session, folder, sha256)
            place = self._sent[sha256]
        return Job(name.removeprefix("__sqlml_"), output, place, sha256, signature.columns, archive=not _is_local(self._session))


def _is_local(session: Any) -> bool:
    """Whether the workers run on this machine, as our own children's children."""
    return can_expand(session) and bool(re.fullmatch(r"local(\[.*\])?", str(session.sparkContext.master)))


def _body(job: Job) -> Callable[..., Any]:
    """The function that travels to the workers; made here, so that all it takes along is the job."""
    import pyarrow as pa

    given = job.to_json()

    def call(*arrays: Any, **named: Any) -> Any:
        from sqlml_udfs.spark.worker import Job, answer

        return answer(Job.from_json(given), arrays, named)

    call.__annotations__ = dict.fromkeys(("arrays", "named", "return"), pa.Array)
    return call


@contextmanager
def _same_python(session: Any) -> Iterator[None]:
    """On this machine the workers of our functions run this very Python, unless PYSPARK_PYTHON names another.

    Spark would take ``python3`` from PATH, which need not be the environment that the program runs in.
    """
    context = None if not can_expand(session) else session.sparkContext
    if context is None or "PYSPARK_PYTHON" in os.environ or not _is_local(session):
        yield
        return
    before = context.pythonExec
    context.pythonExec = sys.executable
    try:
        yield
    finally:
        context.pythonExec = before


def _send(session: Any, folder: Path, sha256: str) -> str:
    """Give a bundle to Spark to distribute; the name under which its workers find it unpacked."""
    name = f"sqlml-{sha256[:32]}"
    place = tempfile.mkdtemp(prefix="sqlml-spark-")  # Spark reads from it as long as workers may come
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    archive = shutil.make_archive(f"{place}/{name}", "zip", folder)
    if can_expand(session):
        session.sparkContext.addArchive(f"{archive}#{name}")
    else:
        session.addArtifacts(f"{archive}#{name}", archive=True)
    return name
