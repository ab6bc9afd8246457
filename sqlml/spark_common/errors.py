"""Spark's errors as ours: its own first line, the place in the statement, no stack trace of Java or of its Python workers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlml import errors
from sqlml.errors import (
    Cancelled,
    DatabaseError,
    DataError,
    EngineError,
    Error,
    MissingExtra,
    NotSupportedError,
    OperationalError,
)

_CODE = re.compile(r"^\[([A-Z0-9_.]+)\]\s*")
_STATE = re.compile(r"\s*SQLSTATE: \w{5}.*$", re.DOTALL)
_POSITION = re.compile(r"\(?line (\d+), ?pos(?:ition)? (\d+)\)?")
_FRAME = re.compile(r"^\s*at [\w$.]+\(|^\s*\.\.\. \d+ more|^\s*Traceback \(|^\s*File \"")
_JAVA_CLASS = re.compile(r"^(?:[a-z]\w*\.)+[A-Z]\w*(?:Exception|Error)?: ")
_OWN = re.compile(r"^(?:sqlml\.errors\.)(\w+): (.*)$", re.MULTILINE)
_RAISED = re.compile(r"^(?:\w+\.)*([A-Z]\w*(?:Error|Exception|Interrupt|Iteration|Warning)): ?(.*)$", re.MULTILINE)
_MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
_CANCELLED = (
    "SPARK_JOB_CANCELLED",
    "OPERATION_CANCELED",
    "OPERATION_ABANDONED",
    "cancelled part of cancelled job",
    "was cancelled",
)
_LOST = ("ExecutorLostFailure", "executor lost", "Slave lost", "Worker lost", "FetchFailed", "heartbeat timed out")


@contextmanager
def spark_errors(text: str | None = None) -> Iterator[None]:
    """Spark's errors raised inside come out as ours; ``text`` is the statement in which a place is shown."""
    try:
        yield
    except Error:
        raise
    except Exception as error:
        if not is_spark_error(error):
            raise
        raise spark_error(error, text) from None


def is_spark_error(error: BaseException) -> bool:
    """Whether an exception comes from Spark: from pyspark, py4j, or the Connect client's gRPC."""
    return any(cls.__module__.partition(".")[0] in ("pyspark", "py4j", "grpc") for cls in type(error).__mro__) or (
        isinstance(error, ConnectionError)
    )


def is_lost(error: BaseException) -> bool:
    """Whether an error of Spark's tells of an executor that was lost."""
    whole = _whole(error)
    return any(sign in whole for sign in _LOST)


def spark_condition(error: BaseException) -> str | None:
    """Spark's own name of what went wrong (``UNRESOLVED_COLUMN.WITH_SUGGESTION``), where it gives one."""
    try:
        found = error.getCondition()  # type: ignore[attr-defined]
    except Exception:  # an exception of another kind, or one whose Java is gone
        found = None
    if found:
        return str(found)
    match = _CODE.match(str(error).strip())
    return match[1] if match else None


def spark_error(error: BaseException, text: str | None = None) -> DatabaseError:
    """An exception of pyspark, py4j or gRPC as one of ours."""
    whole = _whole(error)
    own = _from_worker(whole)
    if own is not None:
        return own
    if any(sign in whole for sign in _CANCELLED):
        return Cancelled("cancelled")
    if isinstance(error, ConnectionError) or "Py4JNetworkError" in type(error).__name__:
        return OperationalError("Spark's Java process has ended", hint="open the session again; its log may say why")
    if "Python worker exited unexpectedly" in whole:
        return OperationalError("a Python worker of Spark died", hint="somebody killed it, or it had no memory left")
    condition = spark_condition(error) or ""
    message, hint = _message(error, whole)
    cls = _class(error, condition, whole)
    if is_lost(error):
        hint = "a worker of the cluster was lost, and Spark gave up on its part of the work" + (f"\n{hint}" if hint else "")
    span = None if text is None else _place(error, whole, text)
    return cls(message, source=text if span else None, span=span, hint=hint)


def first_line(text: str) -> str:
    """The first line that says something, without Spark's code, its SQL state and Java's class names."""
    for line in text.splitlines():
        plain = _CODE.sub("", _JAVA_CLASS.sub("", line.strip()))
        plain = _STATE.sub("", plain).strip().rstrip(";")
        if plain and not _FRAME.match(line):
            return plain
    return "Spark gave no reason"


def _whole(error: BaseException) -> str:
    """Everything an exception says; of Java's exceptions that of the innermost cause as well."""
    java = getattr(error, "java_exception", None)
    details = getattr(error, "details", None)
    if java is None:
        return str(details()) if callable(details) else str(error)  # gRPC's have details
    parts: list[str] = []
    try:
        while java is not None and len(parts) < 10:
            parts.append(str(java.toString()))
            java = java.getCause()
    except Exception:  # Java is gone
        parts.append(str(error))
    return "\n".join(reversed(parts))


def _message(error: BaseException, whole: str) -> tuple[str, str | None]:
    """The first line, and what Spark advises after it."""
    text = whole
    try:
        text = error.getMessage() or whole  # type: ignore[attr-defined]
    except Exception:  # an exception of another kind, or one whose Java is gone
        text = whole
    cause = re.search(r"Most recent failure: .*?\): (.*)", text, re.DOTALL)
    message = first_line(cause[1] if cause else text)
    parts = re.split(r"(?<=\.) (?=(?:Use|Did you mean|If|Verify|Correct|To|Consider|Please)\b)", message, maxsplit=1)
    return parts[0], parts[1] if len(parts) > 1 else None


def _class(error: BaseException, condition: str, whole: str) -> type[DatabaseError]:
    names = {cls.__name__ for cls in type(error).__mro__}
    state = re.search(r"SQLSTATE: (\w{5})", whole)
    if (state and state[1].startswith("22")) or names & {"ArithmeticException", "NumberFormatException", "DateTimeException"}:
        return DataError
    if condition.startswith(("NOT_IMPLEMENTED", "UNSUPPORTED", "NOT_SUPPORTED")) or "UnsupportedOperationException" in names:
        return NotSupportedError
    if names & {"AnalysisException", "ParseException", "IllegalArgumentException"}:
        return EngineError
    return OperationalError


def _from_worker(whole: str) -> DatabaseError | None:
    """What a Python worker raised, of its traceback the last line: ours as it was, others by their name."""
    if "Traceback (most recent call last)" not in whole:
        return None
    missing = _MODULE.search(whole)
    if missing:
        name = missing[1].partition(".")[0]
        hint = "install it there too, or send an environment along: config {'spark.archives': 'environment.tar.gz#environment'}"
        return MissingExtra(f"the Python of Spark's workers ({_worker()}) does not have the package {name}", hint=hint)
    if "PYTHON_VERSION_MISMATCH" in whole:
        found = first_line(whole[whole.index("PYTHON_VERSION_MISMATCH") - 1 :])
        hint = "give the workers the same Python: config {'spark.pyspark.python': '…'}, or the variable PYSPARK_PYTHON"
        return OperationalError(found, hint=hint)
    own = _OWN.findall(whole)
    if own:
        name, message = own[-1]
        cls = getattr(errors, name, DatabaseError)
        rest = whole[whole.rindex(message) + len(message) :].split("\n\n")[0].splitlines()
        hint = "\n".join(line.strip() for line in rest if line.startswith("  ") and not _FRAME.match(line))
        return cls(message, hint=hint or None) if issubclass(cls, DatabaseError) else DatabaseError(message)
    raised = _RAISED.findall(whole.split("Driver stacktrace")[0])
    name, message = raised[-1] if raised else ("Error", first_line(whole))
    return OperationalError(f"a Python worker of Spark failed: {name}: {message}".rstrip(": "))


def _worker() -> str:
    import os

    return os.environ.get("PYSPARK_PYTHON", "python3")


def _place(error: BaseException, whole: str, text: str) -> tuple[int, int] | None:
    """Where in the statement: the fragment that Spark names, or its line and position."""
    context: Any = None
    try:
        context = next(iter(error.getQueryContext()), None)  # type: ignore[attr-defined]
        if context is not None:
            start, stop = int(context.startIndex()), int(context.stopIndex()) + 1
            if text[start:stop] == context.fragment():
                return start, stop
    except Exception:  # an exception of another kind, or one without a place
        context = None
    match = _POSITION.search(whole)
    if match is None:
        return None
    lines = text.split("\n")
    number, column = int(match[1]), int(match[2])
    if number > len(lines):
        return None
    start = sum(len(line) + 1 for line in lines[: number - 1]) + column
    word = re.match(r"\w+|\S", text[start:])
    return start, start + (len(word[0]) if word else 1)
