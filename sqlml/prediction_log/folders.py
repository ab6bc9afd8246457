"""Where the prediction log and the feedback lie: one schema in each folder.

predictions/churn/1f3c…/   what was asked and answered: a folder for each version
feedback/churn/            what turned out to be true: a folder for each endpoint
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from sqlml.home import Home
from sqlml.prediction_log.files import DAMAGED, covers, files_of, is_covered
from sqlml.prediction_log.raw import copy_waiting, settle

log = logging.getLogger("sqlml")
_MAGIC = b"PAR1"
_copies: dict[Path, TemporaryDirectory[str]] = {}
_copying = threading.Lock()


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


def feedback_files(home: Home, endpoint: str | None = None) -> list[Path]:
    """The files of feedback of one endpoint, or of all, the oldest first."""
    folders = [feedback_folder(home, endpoint)] if endpoint is not None else _folders(home.feedback)
    return sorted((path for folder in folders for path in files_of(folder) if _is_whole(path)), key=lambda path: path.name)


def prediction_files(home: Home, endpoint: str | None = None) -> dict[Path, list[Path]]:
    """The files of predictions of one endpoint, or of all, by their folder: those of one folder have one schema.

    A folder's name is the version's uid; its files are sorted, the oldest first.  What is raw yet becomes Parquet before: where
    the disk is full, or may only be read, among the temporary files of this process.
    """
    endpoints = [home.predictions / folder_name(endpoint)] if endpoint is not None else _folders(home.predictions)
    folders = [folder for whole in endpoints for folder in sorted(_folders(whole))]
    found = {folder: _settled(folder) for folder in folders}
    return {folder: files for folder, files in found.items() if files}


def _settled(folder: Path) -> list[Path]:
    copies: list[Path] = []
    try:
        if not settle(folder):
            log.warning("the newest rows of the prediction log in %s are being written: they come later", folder)
    except OSError as reason:
        try:
            copies = copy_waiting(folder, _place_of_copies(folder))
        except OSError as error:
            log.warning("the newest rows of the prediction log in %s cannot be read: %s; %s", folder, reason, error)
    files = files_of(folder)
    meanwhile = [covers(path) for path in files]  # settled by another
    files += [copy for copy in copies if not any(is_covered(copy, whole) for whole in meanwhile)]
    return sorted(filter(_is_whole, files), key=lambda path: path.name)


def _place_of_copies(folder: Path) -> Path:
    """A folder for copies of another's raw files, until this process ends."""
    with _copying:
        if folder not in _copies:
            _copies[folder] = TemporaryDirectory(prefix="sqlml-predictions-")
        return Path(_copies[folder].name)


def _is_whole(path: Path) -> bool:
    """Whether a file begins and ends as Parquet does; one that does not is put aside, so that it costs no other rows."""
    try:
        with path.open("rb") as file:
            begins = file.read(4) == _MAGIC
            file.seek(-4, 2)
            whole = begins and file.read(4) == _MAGIC
    except FileNotFoundError:  # dropped for the log's bound, or merged and gone
        return False
    except OSError as error:
        log.warning("%s is no part of the prediction log now: %s", path, error)
        return False
    if not whole:
        log.warning("%s is damaged, it is left out of the prediction log", path)
        with suppress(OSError):
            path.rename(path.with_suffix(DAMAGED))
    return whole


def _folders(root: Path) -> list[Path]:
    with suppress(OSError):
        return [folder for folder in root.iterdir() if folder.is_dir()]
    return []
