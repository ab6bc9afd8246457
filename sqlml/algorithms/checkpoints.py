"""Where a fit left off: one file for each step that is kept, written whole or not at all.

    <job>/fits/<fit>/step-7     the number in the name says after which step (of an epoch, say) it was written

A killed process leaves complete files alone.  What is in them is the algorithm's own affair.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlml.job_folder import FITS

"""Within a job's folder: what its fits keep while they run."""
_NAME = "step-"


def write_step(folder: Path, step: int, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a file, then put it in the place of what earlier steps left."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "draft"
    write(draft)
    earlier = _steps(folder)
    draft.replace(folder / f"{_NAME}{step}")
    for path in earlier:
        if path.name != f"{_NAME}{step}":
            path.unlink(missing_ok=True)


def newest_step(folder: Path) -> Path | None:
    """The file of the last step that a fit kept."""
    return max(_steps(folder), key=_number, default=None)


def last_step(job: Path) -> int | None:
    """The step after which the fit that was at work last can go on; None where no fit of the job has kept any."""
    found = [path for fit in (job / FITS).glob("*") for path in _steps(fit)]
    return _number(max(found, key=lambda path: path.stat().st_mtime_ns)) if found else None


def _steps(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"{_NAME}*") if path.name.removeprefix(_NAME).isdigit()]


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_NAME))
