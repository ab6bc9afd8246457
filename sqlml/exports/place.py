"""Where an export is written: beside its place under another name, then renamed; so there is all of it or nothing."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlml.errors import BindError, OperationalError

_REASONS = {
    errno.ENOSPC: ("the disk is full", "make room, or give a path on another disk"),
    errno.EDQUOT: ("the quota of the disk is used up", "make room, or give a path on another disk"),
    errno.EFBIG: ("the file would be larger than the system allows", "give a path on another disk"),
    errno.EROFS: ("the place is read-only", "give a path in a folder that you may write to"),
    errno.EACCES: ("no permission to write there", "give a path in a folder that you may write to"),
    errno.EPERM: ("no permission to write there", "give a path in a folder that you may write to"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "give a path in a folder that exists"),
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter name"),
}


MARKS = ("version.json", "frozen.json", "image/frozen.json")
"""Files by which the folders of exports are known: a bundle's, an endpoint's, that of an endpoint with manifests."""


@contextmanager
def draft(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path to write a file or a folder to; what lies there at the end of the block takes its place at ``path``.

    ``BindError`` where there is something already, unless it is to be replaced.  An error in the block, of the disk or any
    other, leaves ``path`` as it was and nothing beside it; those of the disk become ``OperationalError``.
    """
    check_place(path, overwrite=overwrite)
    beside = path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield beside
        _flush(beside)
        _take_place(beside, path, overwrite=overwrite)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        remove(beside)


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise what can be known before anything is computed: a folder that is not there, something that would be replaced."""
    try:
        folder = path.parent
        if not path.name or path.name in (".", ".."):
            raise BindError(f"{path} is not a path that can be written to", hint="give a file name, as in 'churn.tar.gz'")
        if not folder.exists():
            raise BindError(
                f"cannot write {path}: there is no folder {folder}", hint="make the folder first, or give another path"
            )
        if not folder.is_dir():
            raise BindError(f"cannot write {path}: {folder} is a file, not a folder", hint="give another path")
        if path.exists() and not overwrite:
            raise _taken(path)
        if path.is_dir() and not _is_export(path):
            raise BindError(
                f"{path} is a folder that no EXPORT has written: it is not replaced",
                hint="give another path, or remove it yourself",
            )
    except OSError as error:
        raise write_error(path, error) from error


def _is_export(folder: Path) -> bool:
    """Whether an export may take the place of a folder: it is empty, or one has written it."""
    return any((folder / mark).is_file() for mark in MARKS) or not any(folder.iterdir())


def write_error(path: Path, error: OSError) -> OperationalError:
    """An error of the disk in words: what could not be written, why, and what to do."""
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), None))
    return OperationalError(f"cannot write {path}: {reason}", hint=hint)


def size_of(path: Path) -> tuple[int, int]:
    """How many files a path holds, and how many bytes they have together."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return len(files), sum(p.stat().st_size for p in files)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):  # a disk that may only be read: nothing was written there
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """To the disk itself, so that a full one is noticed now."""
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _take_place(beside: Path, path: Path, *, overwrite: bool) -> None:
    """Rename.  A folder cannot be renamed over another thing, so that is set aside first and put back if need be."""
    if not overwrite:
        _take_free_place(beside, path)
        return
    if not path.exists() or (path.is_file() and beside.is_file()):
        beside.replace(path)
        return
    aside = beside.with_suffix(".old")
    path.rename(aside)
    try:
        beside.rename(path)
    except BaseException:
        aside.rename(path)
        raise
    remove(aside)


def _take_free_place(beside: Path, path: Path) -> None:
    """Rename so that nothing which somebody else wrote there meanwhile is replaced."""
    try:
        if beside.is_dir():
            beside.rename(path)  # the system refuses a file, and a folder that is not empty
            return
        try:
            os.link(beside, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: an empty file of ours holds the place
            path.open("xb").close()
            beside.replace(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise _taken(path) from error
        raise


def _taken(path: Path) -> BindError:
    return BindError(f"{path} is there already", hint="WITH (overwrite = true) replaces it")
