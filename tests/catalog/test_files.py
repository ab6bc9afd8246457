"""The files of a home that hold rows of the user's."""

from __future__ import annotations

from pathlib import Path

from sqlml.catalog.files import jobs_with_data, remove_job_data
from sqlml.home import Home
from sqlml.job_folder import STAGED_ROWS


def test_no_copy_of_rows_outlives_a_job(tmp_path: Path) -> None:
    """Neither its files nor what a runner staged of them, whatever the job was."""
    home = Home(tmp_path)
    for number, (name, staged) in enumerate(STAGED_ROWS.items()):
        for path in (home.jobs / str(number) / name, home.jobs / f"1{number}" / staged / "rows-00000.parquet"):
            path.parent.mkdir(parents=True)
            path.write_bytes(b"rows")
    assert sorted(jobs_with_data(home)) == [0, 1, 2, 10, 11, 12]
    for folder in home.jobs.iterdir():
        remove_job_data(folder)
    assert jobs_with_data(home) == []
    assert not [path for path in home.jobs.rglob("*") if path.is_file()]
