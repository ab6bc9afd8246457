"""A disk that is full, or that may only be read, under TRAIN, PREDICT INTO and EXPORT: a clear error, and nothing lost.

The disks are real: small ones in memory, mounted for the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import sqlml
from sqlml.home import Home, home_of
from sqlml.prediction_log import RawFile, Requests, fold, predictions_folder

pytestmark = pytest.mark.slow

MEGABYTES = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB of one's own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def crowded(disk: Path, people_folder: Path) -> Path:
    """The people's database and its models on the small disk."""
    shutil.copytree(people_folder, disk / "home")
    return disk / "home" / "people.duckdb"


def fill(disk: Path, leave: int) -> Path:
    """Write until only ``leave`` bytes are free; the file that takes the room."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with ballast.open("wb") as file:
        file.write(b"\0" * max(free - leave, 0))
    return ballast


def state(connection: sqlml.Connection) -> list[list[tuple[object, ...]]]:
    """What must not be lost."""
    questions = (
        "SELECT model, version FROM sqlml.versions",
        "SELECT count(*), sum(age), sum(spent) FROM people",
        "SELECT sum(PREDICT_PROBA(buys, 'yes')), avg(PREDICT(spends)), count(PREDICT(groups)) FROM people",
    )
    return [connection.execute(question).fetchall() for question in questions]


@pytest.mark.parametrize("leave", [0, 50_000, 400_000, 1_000_000])
def test_train_on_a_full_disk(crowded: Path, disk: Path, leave: int) -> None:
    statement = (
        "TRAIN MODEL buys TARGET bought EXCLUDE (spent) WITH (n_estimators = 300, max_depth = 9) AS FROM people, range(40)"
    )
    with sqlml.connect(crowded) as connection:
        before = state(connection)
        ballast = fill(disk, leave)
        with pytest.raises(sqlml.Error) as caught:
            connection.execute(statement)
        assert "Traceback" not in str(caught.value)
        assert not isinstance(caught.value, sqlml.InternalError), caught.value
        ballast.unlink()
        assert state(connection) == before
        connection.execute(statement.replace("range(40)", "range(1)"))
    with sqlml.connect(crowded) as connection:
        assert connection.execute("SELECT max(version) FROM sqlml.versions WHERE model = 'buys'").fetchall() == [(2,)]
        assert connection.execute("SELECT count(*) FROM sqlml.jobs WHERE state = 'running'").fetchall() == [(0,)]


@pytest.mark.parametrize("mode", ["", " REPLACE"])
def test_predict_into_on_a_full_disk(crowded: Path, disk: Path, mode: str) -> None:
    with sqlml.connect(crowded) as connection:
        connection.execute("CREATE TABLE scores AS SELECT 1 AS mine")
        before = state(connection)
        table = "scores" if mode else "others"
        ballast = fill(disk, 0)
        with pytest.raises(sqlml.Error):
            connection.execute(
                f"PREDICT MODEL buys INTO {table}{mode} AS SELECT p.*, r.i AS copy FROM people p, range(4000) r(i)"
            )
        ballast.unlink()
        assert state(connection) == before
        assert connection.execute("SELECT * FROM scores").fetchall() == [(1,)]
        tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE table_name IN ('others', 'scores')").fetchall()
        assert tables == [("scores",)]
    with sqlml.connect(crowded) as connection:
        assert state(connection) == before


@pytest.mark.parametrize("name", ["out.tar.gz", "out", "out.sql", "out.json"])
def test_export_onto_a_full_disk(connection: sqlml.Connection, disk: Path, name: str) -> None:
    model = "spends" if name.endswith(".sql") else "buys"
    fill(disk, 0)
    with pytest.raises(sqlml.OperationalError, match="cannot write"):
        connection.execute(f"EXPORT MODEL {model} TO '{disk / name}'")
    assert sorted(path.name for path in disk.iterdir()) == ["ballast"]


def test_export_over_a_file_on_a_full_disk(connection: sqlml.Connection, disk: Path) -> None:
    connection.execute(f"EXPORT MODEL buys TO '{disk / 'out.tar'}'")
    before = (disk / "out.tar").read_bytes()
    fill(disk, 0)
    with pytest.raises(sqlml.OperationalError):
        connection.execute(f"EXPORT MODEL buys TO '{disk / 'out.tar'}' WITH (overwrite = true)")
    assert (disk / "out.tar").read_bytes() == before


def test_a_disk_that_may_only_be_read(crowded: Path, disk: Path) -> None:
    with sqlml.connect(crowded) as connection:
        before = state(connection)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(sqlml.OperationalError):
        sqlml.connect(crowded)
    with sqlml.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT i AS x, i % 2 AS y FROM range(100) r(i)")
        connection.execute("TRAIN MODEL m TARGET y WITH (n_estimators = 2) ON inline AS FROM t")
        with pytest.raises(sqlml.OperationalError, match="cannot write"):
            connection.execute(f"EXPORT MODEL m TO '{disk / 'm.tar'}'")
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    with sqlml.connect(crowded) as connection:
        assert state(connection) == before


def test_the_prediction_log_is_read_on_a_full_disk(crowded: Path, disk: Path) -> None:
    folder = predictions_folder(Home(home_of(crowded)), "e", "u")
    with sqlml.connect(crowded) as connection:
        question = "SELECT request_id, json_extract(inputs, '$.age') FROM sqlml.predictions ORDER BY logged_at"
        for number in (1, 2):
            raw = RawFile(folder, logged(number).schema)
            raw.write([logged(number).serialize()], 1)
            raw.close()
            ballast = fill(disk, 0)
            expected = [(f"r{n}", f"{n}.0") for n in range(1, number + 1)]
            assert connection.execute(question).fetchall() == expected
            assert connection.execute(question).fetchall() == expected
            assert len(list(folder.glob("*.arrows"))) == number  # they wait for room
            ballast.unlink()
        assert connection.execute(question).fetchall() == expected
        assert list(folder.glob("*.arrows")) == []
        assert connection.execute(question).fetchall() == expected


def logged(number: int) -> pa.RecordBatch:
    """One answered request."""
    inputs = pa.StructArray.from_arrays([pa.array([float(number)])], names=["age"])
    outputs = pa.StructArray.from_arrays([pa.array(["yes"])], names=["predicted_bought"])
    same = {"endpoint": "e", "model": "buys", "version": "1", "role": "serves"}
    return fold(Requests([f"r{number}"], [1], [0.001], [1_700_000_000.0 + number], inputs, outputs, None, same))
