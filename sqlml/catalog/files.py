"""The files of a home: bundles by their SHA-256, and the folders of jobs.

Callers hold the catalog's write lock (a ``writing`` transaction) where they decide by what the catalog says.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Collection
from pathlib import Path

from sqlml.bundles.manifest import Manifest
from sqlml.bundles.runtimes import runtimes_path
from sqlml.errors import BundleError
from sqlml.home import Home
from sqlml.job_folder import BUNDLE, FITS, HELDOUT_ROWS, SAMPLE_ROWS, STAGED_ROWS

ORPHAN_SECONDS = 3600
"""A bundle without a version is removed when it is older than this: a training that ends now may be about to publish it."""


def make_job_folder(home: Home, job_id: int) -> Path:
    """An empty folder for a job.  What may lie there is of a catalog that is gone."""
    folder = home.jobs / str(job_id)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def job_file(home: Home, job_id: int, name: str) -> Path:
    """Where a file that a job leaves lies, whether it is there or not."""
    return home.jobs / str(job_id) / name


def place_bundle(home: Home, source: Path, sha256: str) -> None:
    """Move a bundle to its place.  The same training gives the same bundle: one that is there and whole stays as it is."""
    place = home.bundles / sha256
    if place.exists():
        if _is_whole(place, sha256):
            os.utime(place)
            shutil.rmtree(source)
            return
        place.rename(place.with_name(f"damaged-{uuid.uuid4().hex}"))
    source.rename(place)
    os.utime(place)


def _is_whole(folder: Path, sha256: str) -> bool:
    try:
        Manifest.read(folder, sha256)
    except (BundleError, OSError, ValueError):
        return False
    return True


def remove_bundles(home: Home, sha256s: Collection[str]) -> None:
    """Remove bundles that no version has."""
    for sha256 in sha256s:
        shutil.rmtree(home.bundles / sha256, ignore_errors=True)
        runtimes_path(home.folder, sha256).unlink(missing_ok=True)


def old_bundles(home: Home) -> list[str]:
    """The bundles that have lain there for longer than a training needs to publish one."""
    now = time.time()
    return [path.name for path in home.bundles.iterdir() if now - path.stat().st_mtime > ORPHAN_SECONDS]


def remove_job_rows(folder: Path) -> None:
    """Remove a job's copy of the data."""
    for name, staged in STAGED_ROWS.items():
        (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / staged, ignore_errors=True)


def remove_job_data(folder: Path) -> None:
    """Remove what a job that is over no longer needs: its copy of the data, drafts, checkpoints, and an unpublished bundle."""
    remove_job_rows(folder)
    for draft in folder.glob("*.part"):
        draft.unlink(missing_ok=True)
    for name in (BUNDLE, FITS):
        shutil.rmtree(folder / name, ignore_errors=True)


def remove_heldout(home: Home, job_ids: Collection[int]) -> None:
    """Remove the held-out rows' labels and scores of versions that were dropped; the jobs' logs stay."""
    for job_id in job_ids:
        for name in (HELDOUT_ROWS, SAMPLE_ROWS):
            (home.jobs / str(job_id) / name).unlink(missing_ok=True)


def jobs_with_data(home: Home) -> list[int]:
    """The jobs whose folder still has a copy of the data."""
    names = {path.parent.name for pair in STAGED_ROWS.items() for rows in pair for path in home.jobs.glob(f"*/{rows}")}
    return [int(name) for name in names if name.isdigit()]
