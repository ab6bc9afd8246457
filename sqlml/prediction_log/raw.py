"""Requests of the prediction log as a worker writes them, before their rows are Parquet: what costs it least.

    churn/1f3c…/1767225600000000-47x1f3c-3.arrows   an Arrow stream of ``requests``

Parquet takes longer to write, and more memory.  It is made by ``settle``: by who is about to read the log, else by a process of
the lowest priority.  One at a time does it in a folder, and each file's rows go into one Parquet file.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sqlml.prediction_log.files import (
    DAMAGED,
    PART,
    RAW,
    SUFFIX,
    covers,
    is_covered,
    merge_parts,
    merged_name,
    new_name,
    runs_of,
    size_of,
    with_suffix,
    write_parquet,
)
from sqlml.prediction_log.requests import unfold

if TYPE_CHECKING:
    import pyarrow as pa

BORN_SECONDS = 5.0
"""A file that is younger may not be locked yet by the process that makes it."""
WAIT_SECONDS = 2.0
"""So long a reader waits for another who settles the same folder."""
FILE_BYTES = 64_000_000
"""So many bytes of raw files become one Parquet file, more or less."""
LOCK = ".settling"
_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""How an Arrow stream ends."""

log = logging.getLogger("sqlml")


class RawFile:
    """One raw file that is being written.  Every method may raise ``OSError``; what was written before stays."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{new_name()}{PART}"
        self._file: BinaryIO = self._path.open("xb", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)  # as long as it is open, by a process that lives
        self.schema = schema
        self.rows = 0
        self.began = time.monotonic()
        try:
            self._write(schema.serialize())
        except BaseException:
            self.discard()
            raise

    def write(self, messages: Iterable[Any], rows: int) -> None:
        """Add batches, each as ``RecordBatch.serialize`` gives it."""
        for message in messages:
            self._write(message)
        self.rows += rows

    def _write(self, message: Any) -> None:
        view = memoryview(message)
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Let others read it."""
        try:
            self._write(_END)
        finally:
            self._path.rename(self._path.with_suffix(RAW))
            self._file.close()

    def discard(self) -> None:
        """Write no more of it, after a fault; what was written whole is found by ``settle``."""
        with suppress(OSError):
            if self.rows:
                self.close()
            else:
                self._path.unlink()
                self._file.close()


def settle(folder: Path, *, seconds: float = WAIT_SECONDS) -> bool:
    """Make Parquet of a folder's raw files; False where somebody else is at it for longer than so many seconds.

    ``OSError`` where the disk is full: the raw files stay.
    """
    if not any(_waiting(folder)):
        return True
    with _alone(folder, seconds) as alone:
        if alone:
            for run in _pieces(folder):
                _settle_run(folder, run)
    return alone


def copy_waiting(folder: Path, place: Path) -> list[Path]:
    """Make Parquet of a folder's raw files in another place, for who cannot write into the folder; those files.

    Each is made once: there it is found again.  ``OSError`` where ``place`` is full, too.
    """
    copies = []
    for path in _waiting(folder):
        copy = place / f"{path.stem}{SUFFIX}"
        try:
            if copy.exists() or _write_run(place, [path]):
                copies.append(copy)
        except (ValueError, LookupError, AttributeError) as error:  # damaged
            log.warning("%s is no part of the prediction log, it is left out: %s", path, error)
    return copies


def settle_one(folder: Path) -> bool:
    """Make one Parquet file of some raw ones, so that others come in between; whether there was something to do."""
    with _alone(folder, WAIT_SECONDS) as alone:
        run = next(_pieces(folder), None) if alone else None
        if run is not None:
            _settle_run(folder, run)
    return run is not None


def merge_settled(folder: Path, most: int) -> bool:
    """Make one of many small Parquet files, whoever wrote what is in them; whether there was something to do."""
    with _alone(folder, WAIT_SECONDS) as alone:
        return alone and merge_parts(folder, most, anybody=True) is not None


def raw_bytes(folder: Path) -> int:
    """How large the raw files of a folder are."""
    return sum(size_of(path) for path in with_suffix(folder, RAW))


def _waiting(folder: Path) -> Iterator[Path]:
    """The files to settle."""
    yield from with_suffix(folder, RAW)
    for path in with_suffix(folder, PART):
        if _is_abandoned(path):
            yield path


def _is_abandoned(path: Path) -> bool:
    """Whether nobody writes a file any more, though it was not closed: its process was killed."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return path.exists() and time.time() - path.stat().st_mtime > BORN_SECONDS
    except (FileNotFoundError, BlockingIOError):
        return False


def _pieces(folder: Path) -> Iterator[list[Path]]:
    """The files that become one each, in the order of writing."""
    settled = [covers(path) for path in with_suffix(folder, SUFFIX)]
    raw = []
    for path in _waiting(folder):
        if any(is_covered(path, whole) for whole in settled):  # whoever settled it was ended before it could remove it
            path.unlink(missing_ok=True)
        else:
            raw.append(path)
    among = set(raw)
    for run in runs_of([*raw, *with_suffix(folder, SUFFIX)], among.__contains__):
        piece: list[Path] = []
        for path in run:
            piece.append(path)
            if sum(map(size_of, piece)) >= FILE_BYTES:
                yield piece
                piece = []
        if piece:
            yield piece


def _settle_run(folder: Path, run: Sequence[Path]) -> None:
    try:
        _write_run(folder, run)
    except (ValueError, LookupError, AttributeError) as error:  # damaged, or other columns: each by itself then
        if len(run) > 1:
            for path in run:
                _settle_run(folder, [path])
            return
        log.warning("%s is no part of the prediction log, it is left out: %s", run[0], error)
        run[0].rename(run[0].with_suffix(DAMAGED))
        return
    for path in run:
        path.unlink(missing_ok=True)


def _write_run(place: Path, run: Sequence[Path]) -> bool:
    """One Parquet file of some raw files' rows; whether there were any.

    ``ValueError`` (Arrow's own among them), ``LookupError`` or ``AttributeError`` for what is damaged, or has other columns.
    """
    tables = _read(run)
    first = next(tables, None)
    if first is None:
        return False
    others = (table.select(first.schema.names).cast(first.schema) for table in tables)
    write_parquet(place / f"{merged_name(run)}{SUFFIX}", first.schema, _chain(first, others))
    return True


def _chain(first: pa.Table, others: Iterable[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from others


def _read(run: Sequence[Path]) -> Iterator[pa.Table]:
    """The rows of each file."""
    import pyarrow as pa

    for path in run:
        batches: list[pa.RecordBatch] = []
        with ExitStack() as opened:
            try:
                source = opened.enter_context(pa.memory_map(str(path)))
            except FileNotFoundError:  # the oldest, removed meanwhile for the log's bound
                continue
            if not source.size():
                continue
            stream = pa.ipc.open_stream(source)
            with suppress(pa.ArrowInvalid, OSError):  # the end of a file whose writer was killed
                batches.extend(stream)
            if not batches:
                continue
            yield unfold(batches, stream.schema.metadata)


@contextmanager
def _alone(folder: Path, seconds: float) -> Iterator[bool]:
    """Whether this is the only one to settle a folder; waits so long for another, which may be one that gets no time to run."""
    until = time.monotonic() + seconds
    with (folder / LOCK).open("wb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    yield False
                    return
                time.sleep(0.01)
            else:
                yield True
                return
