"""A bundle as a folder or one tar file, with ``version.json`` beside its manifest: how it was trained, and what came of it.

The same version gives the same bytes: entries sorted, no times, no owners.  Reading back trusts nothing: no path out of the
folder, no link, no size without a limit, every SHA-256 checked.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from sqlml.bundles.manifest import MANIFEST, Manifest, file_sha256
from sqlml.errors import BindError, BundleError, DataError, Error
from sqlml.exports.place import write_error
from sqlml.plan import TrainOutcome, TrainPlan
from sqlml.registry import get_algorithm
from sqlml.version import __version__

VERSION = "version.json"
FORMAT = 1
LARGEST = 64 << 30
MOST_FILES = 10_000
_BLOCK = 1 << 20
_DAMAGED = "the file is damaged, or no bundle: export the model again"


@dataclass(frozen=True)
class Card:
    """What ``version.json`` holds beside the bundle: the version's name and time, its plan and its outcome."""

    name: str
    created_at: str
    plan: TrainPlan
    outcome: TrainOutcome

    def to_text(self) -> str:
        """As JSON, the same for the same version; without the values of ``?`` and the machine's name, which are nobody else's."""
        plan, outcome = dict(self.plan.to_json()), dict(self.outcome.to_json())
        del plan["parameters"], outcome["host"]
        document = {
            "format": FORMAT,
            "name": self.name,
            "created_at": self.created_at,
            "sqlml": __version__,
            "manifest_sha256": self.outcome.bundle_sha256,
            "plan": plan,
            "outcome": outcome,
        }
        return json.dumps(document, indent=1, ensure_ascii=False, default=str)  # the figures keep their order


def write_bundle(bundle: Path, card: Card, target: Path, *, packed: str | None) -> None:
    """Write the bundle's files and the card to ``target``: a new folder, or with ``packed`` (``tar``, ``gz``) one file."""
    files = {path.relative_to(bundle).as_posix(): path for path in sorted(bundle.rglob("*")) if path.is_file()}
    if packed is None:
        target.mkdir()
        for name, path in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
        (target / VERSION).write_text(card.to_text(), encoding="utf-8")
        return
    with (
        target.open("wb") as raw,
        _packer(raw, packed) as out,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, VERSION, io.BytesIO(card.to_text().encode("utf-8")))
        for name, path in sorted(files.items()):
            with path.open("rb") as file:
                _add(tar, name, file)


@contextmanager
def _packer(raw: IO[bytes], packed: str) -> Iterator[IO[bytes]]:
    if packed == "tar":
        yield raw
        return
    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as out:
        yield out  # type: ignore[misc]


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size = file.seek(0, io.SEEK_END)
    info.mode = 0o644
    file.seek(0)
    tar.addfile(info, file)


# --- back -------------------------------------------------------------------------------------------------------------


def is_bundle(path: Path) -> bool:
    """Whether a path looks like a bundle: a folder, or a tar file by its first bytes."""
    if path.is_dir():
        return True
    with path.open("rb") as file:
        head = file.read(512)
    return head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar"


def read_bundle(path: Path, folder: Path) -> Card:
    """Copy a bundle into ``folder``, which is made, and check it.  ``BundleError`` says what is wrong with it."""
    folder.mkdir()
    if path.is_dir():
        _copy_folder(path, folder)
    else:
        try:
            _unpack(path, folder)
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, UnicodeError) as error:
            raise BundleError(f"{path} cannot be unpacked: {error}", hint=_DAMAGED) from error
        except OSError as error:
            if error.errno is None:
                raise BundleError(f"{path} cannot be unpacked: {error}", hint=_DAMAGED) from error
            raise write_error(folder, error) from error
    card = _read_card(path, folder)
    (folder / VERSION).unlink()
    _check(path, folder, card)
    return card


def _copy_folder(path: Path, folder: Path) -> None:
    if not (path / MANIFEST).is_file():
        raise BindError(f"{path} is a folder without {MANIFEST}", hint="give the folder or the file that EXPORT MODEL wrote")
    left, files = LARGEST, 0
    for file in sorted(path.rglob("*")):
        if file.is_symlink() or not (file.is_file() or file.is_dir()):
            raise BundleError(f"{file} is a link, or no plain file: a bundle has none", hint=_DAMAGED)
        if file.is_dir():
            continue
        left, files = left - file.stat().st_size, files + 1
        _check_limits(path, left, files)
        place = folder / file.relative_to(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(file, place)
        except OSError as error:
            raise write_error(place, error) from error


def _unpack(path: Path, folder: Path) -> None:
    left, files = LARGEST, 0
    with tarfile.open(path, "r|*") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if member.isdir():
                continue
            if name.is_absolute() or ".." in name.parts or "\\" in member.name or ":" in member.name or "\0" in member.name:
                raise BundleError(f"{path} has an entry that points elsewhere: {member.name!r}", hint="do not trust this file")
            if not member.isreg():
                raise BundleError(f"{path} has an entry that is no plain file: {member.name!r}", hint="do not trust this file")
            left, files = left - member.size, files + 1
            _check_limits(path, left, files)
            place = folder.joinpath(*name.parts)
            if place.exists():
                raise BundleError(f"{path} has two entries of the name {member.name!r}", hint="do not trust this file")
            source = tar.extractfile(member)
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("wb") as out:
                shutil.copyfileobj(source, out, _BLOCK)  # type: ignore[arg-type]
            if place.stat().st_size != member.size:
                raise BundleError(f"{path} ends too early", hint=_DAMAGED)


def _check_limits(path: Path, left: int, files: int) -> None:
    if left < 0 or files > MOST_FILES:
        raise BundleError(
            f"{path} is larger than any bundle: {LARGEST >> 30} GiB, {MOST_FILES:,} files", hint="do not trust this file"
        )


def _read_card(path: Path, folder: Path) -> Card:
    place = folder / VERSION
    if not place.is_file():
        raise BundleError(f"{path} has no {VERSION}", hint="give the folder or the file that EXPORT MODEL … FORMAT bundle wrote")
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise BundleError(
                f"{path} was written in format {document['format']}, and this version of sqlml reads {FORMAT}",
                hint=f"install sqlml {document.get('sqlml', '')}, or a newer one",
            )
        plan = TrainPlan.from_json({"parameters": (), **document["plan"]})
        outcome = TrainOutcome.from_json({"host": "", **document["outcome"]})
        outcome = replace(outcome, bundle_sha256=str(document["manifest_sha256"]))
        return Card(str(document["name"]), str(document["created_at"]), plan, outcome)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path}: {VERSION} cannot be read ({type(error).__name__}: {error})", hint=_DAMAGED) from error


def _check(path: Path, folder: Path, card: Card) -> None:
    """The manifest is the one the card names, lists every file and no other, and its algorithms are known here."""
    if not (folder / MANIFEST).is_file() or file_sha256(folder / MANIFEST) != card.outcome.bundle_sha256:
        raise BundleError(f"{path}: {MANIFEST} is not the one that {VERSION} names", hint=_DAMAGED)
    try:
        names = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        _check_names(path, folder, names)
        manifest = Manifest.read(folder, card.outcome.bundle_sha256)
    except Error as error:
        if isinstance(error, BundleError):
            raise BundleError(
                error.message.replace(str(folder), str(path)), hint=error.hint if "format" in error.message else _DAMAGED
            ) from error
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(f"{path}: {MANIFEST} cannot be read ({type(error).__name__}: {error})", hint=_DAMAGED) from error
    for head in manifest.heads:
        _check_algorithm(path, head.algorithm)
        for name in (head.native, head.onnx or ""):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise BundleError(f"{path}: {MANIFEST} points elsewhere: {name!r}", hint="do not trust this file")


def _check_names(path: Path, folder: Path, names: Any) -> None:
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} - {MANIFEST}
    listed = set(dict(names))
    if listed != there:
        wrong = sorted(listed ^ there)[0]
        what = "lists a file that is not there" if wrong in listed else "does not list a file"
        raise BundleError(f"{path}: {MANIFEST} {what}: {wrong}", hint=_DAMAGED)


def _check_algorithm(path: Path, algorithm: str) -> None:
    try:
        get_algorithm(algorithm)
    except BindError as error:
        raise DataError(
            f"{path} is a model of the algorithm {algorithm}, which is not known here",
            hint="install the package that brings it, or a newer sqlml" + (f"\n{error.hint}" if error.hint else ""),
        ) from error
