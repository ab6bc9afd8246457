"""The prediction log and the feedback on disk: Parquet files, of one schema in each folder.

    predictions/churn/1f3c…/1767225600000000-47x1f3c-3.parquet   what was asked and answered: a folder for each version
    feedback/churn/1767225601000000-47x1f3c-1.parquet            what turned out to be true: a folder for each endpoint

In a file of predictions ``inputs`` and ``outputs`` are structs: the version's columns by name, and what PREDICT MODEL adds, where
probabilities are a struct from class to number.  A file is written whole under another name and then renamed, never changed: who
lists a folder sees whole files only.  Their names begin with the time, in microseconds since 1970: ascending is the order of
writing.  Who bounds the log removes the oldest.

Small files of one process are merged into one, called by the numbers that it covers, ``…-47x1f3c-3_27.parquet``; who lists a
folder leaves out what a merged file covers, so that there is no moment at which a row is there twice or not at all.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlml.home import Home

if TYPE_CHECKING:
    import pyarrow as pa

PREDICTIONS = (
    ("endpoint", "VARCHAR"),  # its name, in lower case
    ("request_id", "VARCHAR"),
    ("row", "BIGINT"),  # the row's number in the request, from 0
    ("key", "VARCHAR"),  # what the request gave to know the row by; NULL: nothing
    ("model", "VARCHAR"),
    ("version", "BIGINT"),
    ("role", "VARCHAR"),  # serves, shadow
    ("inputs", "VARCHAR"),  # in the relation a JSON object, column → value; in a file a struct
    ("outputs", "VARCHAR"),  # likewise what PREDICT MODEL adds; probabilities as an object, class → number
    ("latency", "DOUBLE"),  # seconds that the request took
    ("logged_at", "TIMESTAMP"),  # UTC
)
"""The columns of the relation ``sqlml.predictions``; a file has the same."""

FEEDBACK = (
    ("endpoint", "VARCHAR"),  # in lower case
    ("request_id", "VARCHAR"),  # NULL where the key is given
    ("row", "BIGINT"),  # of the request; NULL is 0
    ("key", "VARCHAR"),
    ("target", "VARCHAR"),  # NULL: the model's only one
    ("truth", "VARCHAR"),  # as text: a class, a number
    ("owner", "VARCHAR"),
    ("given_at", "TIMESTAMP"),
)
"""The columns of a file of feedback, and of the relation ``sqlml.feedback``."""

SUFFIX = ".parquet"
_NAME = re.compile(r"\d+-(\w+)-(\d+)(?:_(\d+))?")
_numbers = itertools.count()
_marks: dict[str, str] = {}


def relation_schema(columns: tuple[tuple[str, str], ...]) -> pa.Schema:
    """The Arrow schema of a relation."""
    import pyarrow as pa

    kinds = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "TIMESTAMP": pa.timestamp("us")}
    return pa.schema([(name, kinds[sql_type]) for name, sql_type in columns])


def predictions_schema(inputs: pa.StructType, outputs: pa.StructType) -> pa.Schema:
    """The Arrow schema of a version's files of predictions."""
    import pyarrow as pa

    structs = {"inputs": inputs, "outputs": outputs}
    return pa.schema([pa.field(field.name, structs.get(field.name, field.type)) for field in relation_schema(PREDICTIONS)])


def feedback_schema() -> pa.Schema:
    """The Arrow schema of a file of feedback."""
    return relation_schema(FEEDBACK)


def predictions_folder(home: Home, endpoint: str, uid: str) -> Path:
    """Where the log of an endpoint's version lies, whether it is there or not."""
    return home.predictions / folder_name(endpoint) / uid


def feedback_folder(home: Home, endpoint: str) -> Path:
    """Where an endpoint's feedback lies, whether it is there or not."""
    return home.feedback / folder_name(endpoint)


def folder_name(endpoint: str) -> str:
    """An endpoint's name as one of a folder."""
    name = quote(endpoint.lower(), safe="")
    return name.replace(".", "%2E", 1) if name.startswith(".") else name


def write_part(folder: Path, rows: pa.Table) -> Path:
    """Add a file of rows to a folder, in one step; the file.  ``OSError`` where the disk is full, and nothing is left."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{time.time_ns() // 1000:016d}-{_own_mark()}-{next(_numbers)}{SUFFIX}"
    _write(path, rows)
    return path


def _write(path: Path, rows: pa.Table) -> None:
    import pyarrow.parquet as pq

    temporary = path.with_suffix(".part")
    texts = [field.name for field in rows.schema if str(field.type).startswith(("string", "dictionary"))]
    try:
        # numbers seldom repeat: to look for it costs more than all the rest; byte by byte they are half as large
        options = {"use_dictionary": texts, "use_byte_stream_split": _numbers_in(rows.schema), "write_statistics": False}
        pq.write_table(rows, temporary, compression="lz4", store_schema=False, **options)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _numbers_in(fields: Iterable[pa.Field], above: str = "") -> list[str]:
    """The columns of doubles, those in structs by their paths."""
    import pyarrow as pa

    found: list[str] = []
    for field in fields:
        if pa.types.is_struct(field.type):
            found += _numbers_in(field.type, f"{above}{field.name}.")
        elif pa.types.is_float64(field.type):
            found.append(above + field.name)
    return found


def merge_parts(folder: Path, most: int, small: int = 4_000_000, grace: float = 60.0) -> Path | None:
    """Make one file of this process' small ones (in bytes) where there are more than ``most``; that file.

    What it covers stays for ``grace`` seconds: somebody may be about to read it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = [(path, _covers(path)) for path in sorted(_files(folder))]
    for path in _covered_among(_all_files(folder)):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_ctime > grace:
                path.unlink()
    found = [(path, ends) for path, ends in own if ends and ends[0] == _own_mark() and path.stat().st_size < small]
    if len(found) <= most:
        return None
    first, last = min(ends[1] for _, ends in found), max(ends[2] for _, ends in found)
    merged = folder / f"{found[0][0].name.partition('-')[0]}-{_own_mark()}-{first}_{last}{SUFFIX}"
    _write(merged, pa.concat_tables([pq.read_table(path) for path, _ in found], promote_options="default"))
    return merged


def feedback_files(home: Home, endpoint: str | None = None) -> list[Path]:
    """The files of feedback of one endpoint, or of all, the oldest first."""
    folders = [feedback_folder(home, endpoint)] if endpoint is not None else _folders(home.feedback)
    return sorted((path for folder in folders for path in _files(folder)), key=lambda path: path.name)


def prediction_files(home: Home, endpoint: str | None = None) -> dict[Path, list[Path]]:
    """The files of predictions of one endpoint, or of all, by their folder: those of one folder have one schema.

    A folder's name is the version's uid; its files are sorted, the oldest first.
    """
    endpoints = [home.predictions / folder_name(endpoint)] if endpoint is not None else _folders(home.predictions)
    found = {folder: sorted(_files(folder)) for whole in endpoints for folder in sorted(_folders(whole))}
    return {folder: files for folder, files in found.items() if files}


def drop_oldest(folder: Path, limit: int) -> int:
    """Remove the oldest files of an endpoint's log, of whichever version, until the others are ``limit`` bytes at most; how
    many bytes went.
    """
    sizes: list[tuple[Path, int]] = []
    for path in sorted(folder.rglob(f"*{SUFFIX}"), key=lambda path: path.name):
        with suppress(FileNotFoundError):  # another writer was quicker
            sizes.append((path, path.stat().st_size))
    over, gone = sum(size for _, size in sizes) - limit, 0
    for path, size in sizes:
        if gone >= over:
            break
        path.unlink(missing_ok=True)
        gone += size
    return gone


def _files(folder: Path) -> list[Path]:
    """The files of a folder, without those that a merged one covers."""
    every = _all_files(folder)
    covered = set(_covered_among(every))
    return [path for path in every if path not in covered]


def _all_files(folder: Path) -> list[Path]:
    with suppress(OSError):  # not there, or just removed
        return [path for path in folder.iterdir() if path.suffix == SUFFIX]
    return []


def _own_mark() -> str:
    """This process, for ever: numbers of processes come again."""
    if _marks.get("pid") != str(os.getpid()):
        _marks.update(pid=str(os.getpid()), mark=f"{os.getpid()}x{secrets.token_hex(4)}")
    return _marks["mark"]


def _covers(path: Path) -> tuple[str, int, int] | None:
    """The process that wrote a file, and the first and the last number of what is in it; None for another's file."""
    found = _NAME.fullmatch(path.stem)
    return (found[1], int(found[2]), int(found[3] or found[2])) if found else None


def _covered_among(paths: list[Path]) -> list[Path]:
    ends = {path: _covers(path) for path in paths}
    merged = [(path, own) for path, own in ends.items() if own and own[1] < own[2]]
    if not merged:
        return []
    return [
        path
        for path, own in ends.items()
        if own
        and any(whole[0] == own[0] and whole[1] <= own[1] and own[2] <= whole[2] and other != path for other, whole in merged)
    ]


def _folders(root: Path) -> list[Path]:
    with suppress(OSError):
        return [folder for folder in root.iterdir() if folder.is_dir()]
    return []
