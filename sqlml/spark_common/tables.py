"""Rows of a DataFrame into a table of Spark's, or into a folder of files that stands for one (``parquet."/folder"``).

A new table, or one that replaces another, is written beside it first and then takes its name: what fails leaves the old one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlml.errors import BindError, OperationalError
from sqlml.spark_common.errors import spark_error
from sqlml.spark_common.text import quote_parts

FILE_FORMATS = frozenset({"parquet", "orc", "json", "csv", "avro", "text", "delta"})
"""``parquet."/folder"`` is a folder of files in place of a table."""

_SAVE_MODES = {"create": "error", "replace": "overwrite", "append": "append"}
_LEFT_FILES = re.compile(r"associated location '([^']*)' already exists")


def write_table(session: Any, frame: Any, parts: Sequence[str], mode: str, check: Callable[[], None] = lambda: None) -> None:
    """Write a frame's rows by the target's name: ``create`` a new one, ``replace`` what may be there, ``append`` by the names.

    ``check`` may raise, where the work is no longer wanted; it is asked last before anybody sees the rows.  ``BindError`` where a
    table to create is there; ``OperationalError`` that says which table has which rows, where neither the new one nor the old
    one could be given the name.  A folder of files is what its format makes of it: Spark empties one that it replaces.
    """
    if len(parts) == 2 and parts[0].lower() in FILE_FORMATS:
        check()
        frame.write.format(parts[0].lower()).mode(_SAVE_MODES[mode]).save(parts[1])
        return
    there = bool(session.catalog.tableExists(quote_parts(parts)))
    if mode == "create" and there:
        raise BindError(f"the table {'.'.join(parts)} exists already", hint="REPLACE writes over it; APPEND adds to it")
    if mode == "replace" and there and "VIEW" in str(session.catalog.getTable(quote_parts(parts)).tableType).upper():
        raise BindError(f"{'.'.join(parts)} is a view: it cannot be replaced by a table", hint="give the table another name")
    if mode == "append":
        check()
        _append(session, frame, parts)
    else:
        _put(session, frame, parts, there, check)


def _append(session: Any, frame: Any, parts: Sequence[str]) -> None:
    view = f"__sqlml_{uuid.uuid4().hex[:12]}"
    frame.createOrReplaceTempView(view)
    try:
        session.sql(f"INSERT INTO {quote_parts(parts)} BY NAME SELECT * FROM {view}")  # noqa: S608
    finally:
        session.catalog.dropTempView(view)


def _put(session: Any, frame: Any, parts: Sequence[str], there: bool, check: Callable[[], None]) -> None:
    """All rows into a draft; then the old table steps aside, the draft takes its name, and only then the old one goes."""
    mark = uuid.uuid4().hex[:8]
    draft, old = _beside(parts, f"new_{mark}"), _beside(parts, f"old_{mark}")
    try:
        frame.write.saveAsTable(quote_parts(draft))
        check()
        if there:
            _rename(session, parts, old)
    except BaseException:
        _drop(session, draft)
        raise
    try:
        _rename(session, draft, parts)
    except BaseException as error:
        if there:
            _put_back(session, parts, draft, old, error)
        _drop(session, draft)
        if left := _LEFT_FILES.search(str(error)):
            raise _left_over(parts, left[1]) from None
        raise
    if there:
        _drop_old(session, parts, old)


def _left_over(parts: Sequence[str], location: str) -> OperationalError:
    """The error where a Spark that has ended had a table of this name: its catalog went with it, its files did not."""
    return OperationalError(
        f"the files of an earlier table {'.'.join(parts)} are still there, in {location}: "
        "the Spark that made it kept its catalog in memory, and has ended",
        hint="remove that folder, or give the table another name; a table that outlives its Spark needs a metastore\n"
        "(config = {'spark.sql.catalogImplementation': 'hive'}), or is a folder: INTO cluster.parquet.\"/folder\"",
    )


def _put_back(session: Any, parts: Sequence[str], draft: Sequence[str], old: Sequence[str], error: BaseException) -> None:
    try:
        _rename(session, old, parts)
    except Exception as again:
        name = ".".join(parts)
        raise OperationalError(
            f"the table {name} could not be replaced, nor its old rows put back: {spark_error(again).message}",
            hint=f"no rows are lost: the old ones are in {'.'.join(old)}, the new ones in {'.'.join(draft)}\n"
            f"ALTER TABLE {quote_parts(old)} RENAME TO {quote_parts(parts)}",
        ) from error


def _drop_old(session: Any, parts: Sequence[str], old: Sequence[str]) -> None:
    try:
        _drop(session, old)
    except Exception as error:
        raise OperationalError(
            f"the table {'.'.join(parts)} has its new rows, but the old ones could not be removed: {spark_error(error).message}",
            hint=f"they are in another table: DROP TABLE {quote_parts(old)}",
        ) from error


def _beside(parts: Sequence[str], ending: str) -> tuple[str, ...]:
    return (*parts[:-1], f"{parts[-1]}_{ending}")


def _rename(session: Any, parts: Sequence[str], other: Sequence[str]) -> None:
    session.sql(f"ALTER TABLE {quote_parts(parts)} RENAME TO {quote_parts(other)}")


def _drop(session: Any, parts: Sequence[str]) -> None:
    session.sql(f"DROP TABLE IF EXISTS {quote_parts(parts)}")
