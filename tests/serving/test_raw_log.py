"""Raw files of the prediction log: written batch by batch, made Parquet once, whoever does it and whatever happens."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlml_runners.serving import settling
from sqlml_runners.serving.logged import Packed
from sqlml_runners.serving.prediction_writer import PredictionLog, _Part
from sqlml_runners.serving.settling import Settler

from sqlml.home import Home
from sqlml.prediction_log import (
    NumberRows,
    RawFile,
    Requests,
    drop_oldest,
    fold,
    may_merge,
    merge_parts,
    merge_settled,
    prediction_files,
    predictions_folder,
    raw_bytes,
    settle,
)
from sqlml.prediction_log.columns import PREDICTIONS
from sqlml.prediction_log.files import with_suffix
from tests.serving.load import until

SAME = {"endpoint": "churn", "model": "m", "version": "3", "role": "serves"}


def batch(first: int, count: int = 3, kind: pa.DataType | None = None) -> pa.RecordBatch:
    numbers = list(range(first, first + count))
    inputs = pa.StructArray.from_arrays([pa.array(numbers).cast(kind or pa.float64())], names=["age"])
    return fold(requests([f"r{number}" for number in numbers], [1] * count, inputs))


def requests(
    ids: list[str], counts: list[int], inputs: pa.StructArray | NumberRows, keys: list[str | None] | None = None
) -> Requests:
    n = sum(counts)
    outputs = pa.StructArray.from_arrays([pa.array(["yes"] * n)], names=["predicted_y"])
    latencies, moments = [0.001 * (i + 1) for i in range(len(ids))], [1_700_000_000.25 + i for i in range(len(ids))]
    return Requests(ids, counts, latencies, moments, inputs, outputs, None if keys is None else pa.array(keys), SAME)


def write(folder: Path, *batches: pa.RecordBatch) -> RawFile:
    file = RawFile(folder, batches[0].schema)
    for one in batches:
        file.write([one.serialize()], one.num_rows)
    return file


def requests_in(files: list[Path]) -> list[str]:
    return [request for path in files for request in pq.read_table(path)["request_id"].to_pylist()]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def folder(home: Home) -> Path:
    return predictions_folder(home, "churn", "v1")


def test_whoever_reads_the_log_finds_all_rows_of_files_that_are_closed(home: Home, folder: Path) -> None:
    write(folder, batch(0), batch(3)).close()
    write(folder, batch(6)).close()
    being_written = write(folder, batch(9))
    [[file]] = prediction_files(home).values()
    assert requests_in([file]) == [f"r{number}" for number in range(9)]
    table = pq.read_table(file)
    assert table.column_names == [name for name, _ in PREDICTIONS]
    first = table.slice(0, 1).to_pylist()[0]
    assert {name: first[name] for name in ("endpoint", "model", "version", "role")} == {**SAME, "version": 3}
    assert first["inputs"] == {"age": 0.0}
    assert raw_bytes(folder) == 0
    being_written.close()
    assert requests_in(prediction_files(home)[folder]) == [f"r{number}" for number in range(12)]


def test_requests_of_many_rows_and_of_none(home: Home, folder: Path) -> None:
    numbers = NumberRows(["age", "limit"], np.array([[1.0, 2.0], [np.nan, 4.0], [5.0, np.inf]]))
    write(folder, fold(requests(["a", "b", "c"], [2, 0, 1], numbers, ["k1", None, "k3"]))).close()
    [[path]] = prediction_files(home).values()
    rows = pq.read_table(path).to_pylist()
    assert [(row["request_id"], row["row"], row["key"]) for row in rows] == [("a", 0, "k1"), ("a", 1, None), ("c", 0, "k3")]
    assert [row["inputs"] for row in rows] == [
        {"age": 1.0, "limit": 2.0},
        {"age": None, "limit": 4.0},
        {"age": 5.0, "limit": float("inf")},
    ]
    assert [row["latency"] for row in rows] == [0.001, 0.001, 0.003]
    assert rows[2]["logged_at"] == datetime(2023, 11, 14, 22, 13, 22, 250_000)
    assert [row["outputs"] for row in rows] == [{"predicted_y": "yes"}] * 3


def test_what_a_killed_worker_wrote_whole_is_found(home: Home, folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tests.serving.test_raw_log import batch, write\n"
        "file = write(Path(sys.argv[1]), batch(0), batch(3))\n"
        "file.write([batch(6).serialize().slice(0, 100)], 3)\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == -9
    [left] = folder.glob("*.part")
    assert prediction_files(home) == {}  # somebody may still write it
    os.utime(left, (time.time() - 120, time.time() - 120))
    assert requests_in(prediction_files(home)[folder]) == [f"r{number}" for number in range(6)]
    assert not list(folder.glob("*.part"))


def test_a_file_that_a_process_still_has_open_is_left_to_it(home: Home, folder: Path) -> None:
    """However long ago it wrote to it: it may have been stopped, or have had no processor."""
    file = write(folder, batch(0))
    [path] = folder.glob("*.part")
    os.utime(path, (time.time() - 600, time.time() - 600))
    assert prediction_files(home) == {}
    file.write([batch(3).serialize()], 3)
    file.close()
    assert requests_in(prediction_files(home)[folder]) == [f"r{number}" for number in range(6)]


def test_whoever_reads_does_not_wait_for_ever(home: Home, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, batch(0)).close()
    with (folder / ".settling").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a process has it that gets no time to run
        began = time.monotonic()
        assert prediction_files(home) == {}
        assert time.monotonic() - began < 10
    assert "they come later" in caplog.text
    assert requests_in(prediction_files(home)[folder]) == ["r0", "r1", "r2"]


def test_a_file_whose_settling_was_cut_short_counts_once(home: Home, folder: Path) -> None:
    file = write(folder, batch(0))
    file.close()
    [left] = folder.glob("*.arrows")
    kept = left.read_bytes()
    settle(folder)
    left.write_bytes(kept)  # as if the process had ended before it removed it
    assert requests_in(prediction_files(home)[folder]) == ["r0", "r1", "r2"]
    assert not left.exists()


def test_columns_that_changed_and_damage_cost_no_other_rows(home: Home, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder, batch(0)).close()
    write(folder, batch(3, kind=pa.string())).close()
    write(folder, batch(6)).close()
    damaged = sorted(folder.glob("*.arrows"))[-1]
    damaged.write_bytes(b"\0" * 100)
    files = prediction_files(home)[folder]
    assert requests_in(files) == [f"r{number}" for number in range(6)]
    assert "is no part of the prediction log" in caplog.text
    assert damaged.with_suffix(".damaged").exists()


def test_many_readers_at_once_make_each_row_parquet_once(home: Home, folder: Path) -> None:
    for number in range(20):
        write(folder, batch(3 * number)).close()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(requests_in(prediction_files(home)[folder])))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [60] * 4
    assert requests_in(prediction_files(home)[folder]) == [f"r{number}" for number in range(60)]


def test_a_large_file_between_small_ones_stays_when_they_are_merged(home: Home, folder: Path) -> None:
    for number in range(7):
        write(folder, batch(100 * number, 90 if number == 3 else 1)).close()
        settle(folder)
    sizes = sorted(path.stat().st_size for path in folder.glob("*.parquet"))
    assert sizes[-1] > sizes[-2]
    for _ in range(3):
        merge_parts(folder, most=2, small=sizes[-1])
    files = prediction_files(home)[folder]
    assert len(files) == 3
    assert len(requests_in(files)) == 96


def test_whoever_settles_merges_what_others_wrote_and_never_over_a_file_that_is_still_open(home: Home, folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.serving.test_raw_log import batch, write\n"
        "from sqlml.prediction_log import settle\n"
        "folder = Path(sys.argv[1])\n"
        "for number in range(10):\n"
        "    if number == 4: still = write(folder, batch(3 * number))\n"
        "    else: write(folder, batch(3 * number)).close(); settle(folder)\n"
        "print(flush=True); sys.stdin.readline(); still.close()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        while merge_settled(folder, 2):
            continue
        assert requests_in(prediction_files(home)[folder]) == [f"r{n}" for n in range(30) if not 12 <= n < 15]
        assert len(prediction_files(home)[folder]) == 2
        other.stdin.write(b"\n")
        other.stdin.flush()
        assert other.wait(30) == 0
    assert requests_in(prediction_files(home)[folder]) == [f"r{n}" for n in range(30)]
    assert merge_settled(folder, 2)
    [whole] = prediction_files(home)[folder]
    assert len(requests_in([whole])) == 30


def test_a_version_that_changed_its_role_is_logged_under_the_new_one(home: Home, folder: Path) -> None:
    writer = PredictionLog(home)
    for role in ("shadow", "serves"):
        inputs = pa.StructArray.from_arrays([pa.array([1.0])], names=["age"])
        rows = fold(replace(requests([role], [1], inputs), same={**SAME, "role": role}))
        packed = Packed(rows, 1)
        writer._append(_Part(folder, packed, 1, "churn", 10**9), packed)
    writer._finish(all_of_it=True)
    table = pa.concat_tables([pq.read_table(path) for path in prediction_files(home)[folder]])
    assert table["request_id"].to_pylist() == table["role"].to_pylist() == ["shadow", "serves"]


def test_what_a_merged_file_covers_does_not_count_for_the_bound(home: Home, folder: Path) -> None:
    for number in range(4):
        write(folder, batch(3 * number)).close()
        settle(folder)
    assert may_merge(folder, 2)
    assert merge_settled(folder, 2)
    assert not may_merge(folder, 2)
    [merged] = prediction_files(home)[folder]
    assert len(list(folder.glob("*.parquet"))) == 5
    assert drop_oldest(folder.parent, merged.stat().st_size) == 0
    assert len(requests_in([merged])) == 12


def test_a_parquet_file_that_is_damaged_costs_no_other_rows(home: Home, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(2):
        write(folder, batch(3 * number)).close()
        settle(folder)
    damaged = sorted(folder.glob("*.parquet"))[0]
    damaged.write_bytes(os.urandom(100))
    assert requests_in(prediction_files(home)[folder]) == ["r3", "r4", "r5"]
    assert "is damaged" in caplog.text
    assert damaged.with_suffix(".damaged").exists()


def write_each(file: RawFile, messages: list[pa.Buffer]) -> None:
    for message in messages:
        file.write([message], 3)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_costs_the_rows_that_found_no_room(home: Home, folder: Path) -> None:
    """The system lets this process write files of so many bytes at most."""
    file = write(folder, batch(0))
    messages = [batch(3 * number).serialize() for number in range(1, 100)]
    with pytest.raises(OSError, match="File too large"):
        write_each(file, messages)
    file.discard()
    kept = file.rows
    assert 3 < kept < 300
    assert requests_in(prediction_files(home)[folder]) == [f"r{number}" for number in range(kept)]


@pytest.fixture
def small_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_even_begin_leaves_nothing(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            RawFile(folder, batch(0).schema)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(folder.iterdir()) == []


def test_a_file_that_goes_while_it_is_settled_costs_no_other(home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write(folder, batch(3 * number)).close()
    oldest, *_ = sorted(folder.glob("*.arrows"))

    def listing(place: Path, suffix: str) -> list[Path]:
        found = with_suffix(place, suffix)
        if suffix == ".parquet":
            oldest.unlink(missing_ok=True)  # as the worker does that bounds the log
        return found

    monkeypatch.setattr("sqlml.prediction_log.raw.with_suffix", listing)
    assert requests_in(prediction_files(home)[folder]) == [f"r{number}" for number in range(3, 9)]


def test_raw_files_count_for_the_bound(folder: Path) -> None:
    for number in range(4):
        write(folder, batch(number)).close()
    size = raw_bytes(folder)
    assert drop_oldest(folder.parent, size // 2) == size // 2
    assert raw_bytes(folder) == size // 2


def test_the_supervisor_has_them_settled_where_there_is_much(home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settler = Settler(home)
    write(folder, batch(0)).close()
    settler.look()
    assert raw_bytes(folder) > 0  # little, and not for long
    monkeypatch.setattr(settling, "WAIT_BYTES", 1)
    settler.look()
    until(lambda: raw_bytes(folder) == 0, 30)
    assert requests_in(prediction_files(home)[folder]) == ["r0", "r1", "r2"]
    settler.close()
