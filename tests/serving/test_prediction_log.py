"""Predictions and feedback on disk: whole files, in the order of writing, bounded."""

import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sqlml.home import Home
from sqlml.prediction_log import (
    drop_oldest,
    feedback_files,
    feedback_folder,
    folder_name,
    merge_parts,
    prediction_files,
    predictions_folder,
    predictions_schema,
    write_part,
)

SCHEMA = predictions_schema(pa.struct([("age", pa.int64())]), pa.struct([("predicted_y", pa.string())]))


def rows(request: str, count: int = 1) -> pa.Table:
    whole = [{"endpoint": "churn", "request_id": request, "row": row, "inputs": {"age": row}} for row in range(count)]
    return pa.Table.from_pylist(whole, schema=SCHEMA)


@pytest.mark.parametrize("endpoint", ["churn", "Churn", "my model", "a/b", "..", ".hidden", "grün", "a.b"])
def test_any_endpoint_has_a_folder_of_its_own_below_the_home(endpoint: str, tmp_path: Path) -> None:
    for folder in (predictions_folder(Home(tmp_path), endpoint, "u").parent, feedback_folder(Home(tmp_path), endpoint)):
        assert folder.resolve().parent.parent == tmp_path.resolve()
        assert not folder.name.startswith(".")
    assert folder_name(endpoint) == folder_name(endpoint.upper())


def test_files_are_listed_by_folder_in_the_order_of_writing_and_whole(tmp_path: Path) -> None:
    home = Home(tmp_path)
    places = [predictions_folder(home, *place) for place in (("b", "v2"), ("a", "v1"), ("b", "v1"), ("b", "v2"))]
    written = [write_part(folder, rows(str(number))) for number, folder in enumerate(places)]
    (places[0] / "123.part").write_bytes(b"half")
    assert prediction_files(home, "B") == {places[2]: [written[2]], places[0]: [written[0], written[3]]}
    assert list(prediction_files(home)) in ([places[1], places[2], places[0]], [places[2], places[0], places[1]])
    assert prediction_files(home, "c") == {}
    assert pq.read_table(written[1])["request_id"].to_pylist() == ["1"]


def test_feedback_is_listed_over_all_endpoints(tmp_path: Path) -> None:
    home = Home(tmp_path)
    written = [write_part(feedback_folder(home, endpoint), rows("r")) for endpoint in ("b", "a", "b")]
    assert feedback_files(home) == written
    assert feedback_files(home, "A") == [written[1]]
    assert feedback_files(Home(tmp_path / "none")) == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """The system lets this process write files of 200 bytes at most."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"):
        write_part(tmp_path / "e", rows("a"))
    assert list((tmp_path / "e").iterdir()) == []


def test_small_files_become_one_that_has_their_rows_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = predictions_folder(home, "churn", "v1")
    written = [write_part(folder, rows(str(number), 2)) for number in range(5)]
    assert merge_parts(folder, most=5) is None
    merged = merge_parts(folder, most=4)
    assert merged is not None
    assert prediction_files(home) == {folder: [merged]}  # what it covers is still there, and listed no more
    assert all(path.exists() for path in written)
    found = pq.read_table(merged).select(["request_id", "row"]).to_pylist()
    assert found == [{"request_id": str(number), "row": row} for number in range(5) for row in range(2)]
    later = write_part(folder, rows("later"))
    assert prediction_files(home) == {folder: [merged, later]}
    assert merge_parts(folder, most=4, grace=-1.0) is None
    assert not any(path.exists() for path in written)
    again = [write_part(folder, rows(f"more {number}")) for number in range(4)]
    whole = merge_parts(folder, most=4)
    assert whole is not None
    assert prediction_files(home) == {folder: [whole]}
    assert pq.read_table(whole).num_rows == 10 + 1 + len(again)


def test_threads_that_write_and_merge_at_once_lose_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = feedback_folder(home, "e")

    def work(thread: int) -> None:
        for number in range(15):
            write_part(folder, rows(f"{thread} {number}"))
            merge_parts(folder, most=3, grace=0.0)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    found = [request for path in feedback_files(home) for request in pq.read_table(path)["request_id"].to_pylist()]
    assert sorted(found) == sorted(f"{thread} {number}" for thread in range(6) for number in range(15))


def test_a_file_of_another_process_is_merged_by_nobody_else(tmp_path: Path) -> None:
    folder = predictions_folder(Home(tmp_path), "churn", "v1")
    for number in range(3):
        path = write_part(folder, rows(str(number)))
        path.rename(path.with_name(path.name.replace("x", "xother", 1)))
    assert merge_parts(folder, most=0) is None
    assert len(list(folder.glob("*.parquet"))) == 3


def test_the_oldest_files_go_until_the_log_is_small_enough(tmp_path: Path) -> None:
    home = Home(tmp_path)
    written = [write_part(predictions_folder(home, "churn", f"v{number % 2}"), rows(str(number), 100)) for number in range(5)]
    folder = written[0].parent.parent
    sizes = [path.stat().st_size for path in written]
    assert drop_oldest(folder, sum(sizes)) == 0
    assert drop_oldest(folder, sum(sizes) - 1) == sizes[0]
    assert sorted(path for files in prediction_files(home).values() for path in files) == sorted(written[1:])
    assert drop_oldest(folder, 0) == sum(sizes[1:])
    assert drop_oldest(tmp_path / "none", 0) == 0
