"""The Parquet files of one folder of a log: written whole, merged, removed when there are too many.

    …/1767225600000000-47x1f3c-3.parquet       the third file that one process wrote
    …/1767225600000000-47x1f3c-3_27.parquet    what its files 3 to 27 had

A file is written under another name and then renamed, never changed: who lists a folder sees whole files only.  Names begin with
the time, in microseconds since 1970: ascending is the order of writing.

Small files of one process are merged into one, called by the numbers that it covers; who lists a folder leaves out what a merged
file covers, so that there is no moment at which a row is there twice or not at all.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".parquet"
RAW = ".arrows"
"""An Arrow stream, as a worker writes it: see ``raw``."""
PART = ".part"
"""A raw file that is being written."""
DAMAGED = ".damaged"
"""A raw file that nobody could read."""
SMALL = 4_000_000
"""Parquet files of fewer bytes are merged …"""
MERGED_BYTES = 64_000_000
"""… to files of so many at most."""
GRACE = 60.0
"""Seconds that a covered file stays: somebody may be about to read it."""
_NEW = ".new"
"""A Parquet file that is being written."""
_NEW_SECONDS = 3600.0
"""What is older is of a process that is no more."""
_NAME = re.compile(r"\d+-(\w+)-(\d+)(?:_(\d+))?")
_numbers = itertools.count()
_marks: dict[str, str] = {}
_writing = threading.RLock()
"""One thread of a process writes or merges at a time: a merged file must not cover a number whose file is not there yet."""


class Covers(NamedTuple):
    """The process that wrote what is in a file, and the first and the last number of it."""

    mark: str
    first: int
    last: int


# --- names ------------------------------------------------------------------------------------------------------------


def new_name() -> str:
    """The name of this process' next file, without a suffix."""
    return f"{time.time_ns() // 1000:016d}-{own_mark()}-{next(_numbers)}"


def merged_name(files: Sequence[Path]) -> str:
    """The name of a file with the rows of others, all of one process, without a suffix."""
    ends = [covers(path) for path in files]
    mark, first = ends[0].mark, min(end.first for end in ends)
    last = max(end.last for end in ends)
    return f"{files[0].name.partition('-')[0]}-{mark}-{first}" + (f"_{last}" if last > first else "")


def own_mark() -> str:
    """This process, for ever: numbers of processes come again."""
    if _marks.get("pid") != str(os.getpid()):
        _marks.update(pid=str(os.getpid()), mark=f"{os.getpid()}x{secrets.token_hex(4)}")
    return _marks["mark"]


def covers(path: Path) -> Covers:
    """What is in a file, by its name; of a name that is not one of ours, itself alone."""
    found = _NAME.fullmatch(path.stem)
    return Covers(found[1], int(found[2]), int(found[3] or found[2])) if found else Covers(path.stem, 0, 0)


# --- listing ----------------------------------------------------------------------------------------------------------


def files_of(folder: Path) -> list[Path]:
    """The Parquet files of a folder, without those that a merged one covers."""
    every = with_suffix(folder, SUFFIX)
    covered = set(_covered_among(every))
    return [path for path in every if path not in covered]


def with_suffix(folder: Path, suffix: str) -> list[Path]:
    """The files of one kind in a folder, in any order; none where there is no folder."""
    with suppress(OSError):  # not there, or just removed
        return [path for path in folder.iterdir() if path.suffix == suffix]
    return []


def runs_of(files: Iterable[Path], wanted: Callable[[Path], bool]) -> Iterator[list[Path]]:
    """Of each process the wanted files that follow each other, nothing of its own between them: they can be merged."""
    by_mark: dict[str, list[Path]] = {}
    for path in sorted(files, key=lambda path: covers(path).first):
        by_mark.setdefault(covers(path).mark, []).append(path)
    for own in by_mark.values():
        for is_wanted, run in itertools.groupby(own, wanted):
            if is_wanted:
                yield list(run)


def _covered_among(paths: Sequence[Path]) -> list[Path]:
    merged = [(path, end) for path in paths if (end := covers(path)).first < end.last]
    return [path for path in paths if any(whole != path and is_covered(path, end) for whole, end in merged)]


def is_covered(path: Path, whole: Covers) -> bool:
    """Whether a file's rows are in another."""
    own = covers(path)
    return whole.mark == own.mark and whole.first <= own.first and own.last <= whole.last


# --- writing ----------------------------------------------------------------------------------------------------------


def write_part(folder: Path, rows: pa.Table) -> Path:
    """Add a file of rows to a folder, in one step; the file.  ``OSError`` where the disk is full, and nothing is left."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _writing:
        path = folder / f"{new_name()}{SUFFIX}"
        write_parquet(path, rows.schema, [rows])
    return path


def write_parquet(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """A file of some tables, all of it or nothing."""
    import pyarrow.parquet as pq

    temporary = path.with_suffix(_NEW)
    texts = [field.name for field in schema if str(field.type).startswith(("string", "dictionary"))]
    # numbers seldom repeat: to look for it costs more than all the rest; byte by byte they are half as large
    options = {"use_dictionary": texts, "use_byte_stream_split": _numbers_in(schema), "write_statistics": False}
    try:
        with pq.ParquetWriter(temporary, schema, compression="lz4", store_schema=False, **options) as writer:
            for table in tables:
                writer.write_table(table)
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


# --- tidying ----------------------------------------------------------------------------------------------------------


def merge_parts(folder: Path, most: int, small: int = SMALL, grace: float = GRACE, *, anybody: bool = False) -> Path | None:
    """Make one file of a process' small ones (in bytes) where more than ``most`` follow each other; that file.

    The process is this one, or ``anybody``, for who alone writes Parquet there.  What it covers stays for ``grace`` seconds.
    """
    with _writing:
        return _merge(folder, most, small, grace, anybody)


def may_merge(folder: Path, most: int, small: int = SMALL) -> bool:
    """Whether more than ``most`` small files follow each other, whoever wrote them."""
    return any(_mergeable(folder, most, small))


def _mergeable(folder: Path, most: int, small: int) -> Iterator[list[Path]]:
    """The runs of small files that can become one each, of a size that a process can hold."""
    waiting = [path for suffix in (RAW, PART) for path in with_suffix(folder, suffix)]  # to be Parquet later, and covered by none
    for run in runs_of([*files_of(folder), *waiting], lambda path: path.suffix == SUFFIX and size_of(path) < small):
        if len(run) > most:
            sizes = itertools.accumulate(size_of(path) for path in run)
            yield [path for path, size in zip(run, sizes, strict=True) if size < MERGED_BYTES]


def _merge(folder: Path, most: int, small: int, grace: float, anybody: bool) -> Path | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _remove_covered(folder, grace)
    for path in with_suffix(folder, _NEW):  # of processes that are no more
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_ctime > max(grace, _NEW_SECONDS):
                path.unlink()
    for run in _mergeable(folder, most, small):
        if anybody or covers(run[0]).mark == own_mark():
            merged = folder / f"{merged_name(run)}{SUFFIX}"
            table = pa.concat_tables([pq.read_table(path) for path in run], promote_options="default")
            write_parquet(merged, table.schema, [table])
            return merged
    return None


def _remove_covered(folder: Path, grace: float) -> None:
    """Remove files whose rows have been in a merged one for so many seconds."""
    every = with_suffix(folder, SUFFIX)
    for path in _covered_among(every):
        with suppress(FileNotFoundError):
            since = max(other.stat().st_ctime for other in every if other != path and is_covered(path, covers(other)))
            if time.time() - since > grace:
                path.unlink()


def drop_oldest(folder: Path, limit: int) -> int:
    """Remove the oldest files of an endpoint's log, of whichever version, until the others are ``limit`` bytes at most; how
    many bytes went.  What a merged file covers does not count: it goes by itself.
    """
    files: list[Path] = []
    for own in {folder, *(path for path in folder.rglob("*") if path.is_dir())}:
        _remove_covered(own, GRACE)
        files += [*files_of(own), *with_suffix(own, RAW), *with_suffix(own, DAMAGED)]
    sizes = [(path, size_of(path)) for path in sorted(files, key=lambda path: path.name)]
    over, gone = sum(size for _, size in sizes) - limit, 0
    for path, size in sizes:
        if gone >= over:
            break
        path.unlink(missing_ok=True)
        gone += size
    return gone


def size_of(path: Path) -> int:
    """A file's bytes; 0 where another was quicker and it is gone."""
    with suppress(OSError):
        return path.stat().st_size
    return 0
