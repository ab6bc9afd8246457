"""Arrow bodies that are small on the wire and large in memory are refused before they are unpacked."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from sqlml_runners.serving.arrow_body import Bulk, read_arrow_body
from sqlml_runners.serving.limits import Policy
from sqlml_runners.serving.protocol import BadRequest
from sqlml_runners.serving.rows import row_form

from sqlml.plan import InputColumn
from sqlml.types import Kind

FORM = row_form([InputColumn("age", "DOUBLE", Kind.NUMBER), InputColumn("job", "VARCHAR", Kind.TEXT)])
POLICY = Policy.of({"max_body": 1_000_000, "max_rows": 50_000})
ROWS = pa.table({"age": [1.5, None, 3.0], "job": ["cook", "smith", None]})


def stream(table: pa.Table, compression: str | None = None, file: bool = False) -> bytes:
    sink = pa.BufferOutputStream()
    make = pa.ipc.new_file if file else pa.ipc.new_stream
    with make(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def read(body: bytes) -> Bulk:
    return read_arrow_body(FORM, body, POLICY)


def outcome(body: bytes) -> int:
    try:
        read(body)
    except BadRequest as error:
        return error.status
    return 200


def refused(body: bytes) -> tuple[int, str]:
    with pytest.raises(BadRequest) as caught:
        read(body)
    return caught.value.status, caught.value.message


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_what_fits_is_read(compression: str | None, file: bool) -> None:
    bulk = read(stream(ROWS, compression, file))
    assert bulk.n == 3
    assert bulk.columns["age"].to_pylist() == [1.5, None, 3.0]
    assert bulk.columns["job"].to_pylist() == ["cook", "smith", None]


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers_count_as_they_are_unpacked(compression: str, file: bool) -> None:
    body = stream(pa.table({"job": ["x" * 2_000] * 20_000}), compression, file)
    assert len(body) < 500_000
    status, message = refused(body)
    assert status == 413
    assert "bytes once it is unpacked; one request may have 1,000,000 (option max_body)" in message


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_value_of_a_dictionary_counts_in_each_of_its_rows(kind: pa.DataType) -> None:
    values = pa.array(["short", "x" * 10_000], kind)

    def table(rows: int) -> pa.Table:
        return pa.table({"job": pa.DictionaryArray.from_arrays(pa.array([1] * rows, pa.int8()), values)})

    assert read(stream(table(50))).columns["job"].to_pylist() == ["x" * 10_000] * 50
    assert refused(stream(table(200)))[0] == 413


def test_a_view_counts_in_each_of_its_rows() -> None:
    view = pa.array(["x" * 10_000], pa.string_view())
    again = pa.Array.from_buffers(
        pa.string_view(), 200, [None, pa.py_buffer(view.buffers()[1].to_pybytes()[:16] * 200), view.buffers()[2]]
    )
    body = stream(pa.table({"job": again}))
    assert len(body) < 50_000
    assert refused(body)[0] == 413


def test_rows_are_counted_before_anything_is_made_of_them() -> None:
    assert refused(stream(pa.table({"age": pa.nulls(10**9)}))) == (
        413,
        "1,000,000,000 rows; one request may have 50,000 rows (option max_rows)",
    )


def test_columns_that_run_on_are_not_read() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([3], pa.int32()), pa.array(["x"]))
    assert refused(stream(pa.table({"job": runs})))[0] == 422


def test_plain_buffers_count_too() -> None:
    many = pa.table({"age": pa.array([1.0] * 50_000), "job": pa.array(["0123456789"] * 50_000)})
    assert read(stream(many.slice(0, 30_000))).n == 30_000
    assert refused(stream(many))[0] == 413


def test_bytes_that_were_changed_are_a_bad_request_or_rows() -> None:
    chance = random.Random(0)
    for compression in (None, "lz4", "zstd"):
        for file in (False, True):
            whole = stream(ROWS, compression, file)
            for _ in range(300):
                body = bytearray(whole)
                for _ in range(chance.randint(1, 4)):
                    body[chance.randrange(len(body))] = chance.randrange(256)
                assert outcome(bytes(body[: chance.choice([len(body), chance.randrange(len(body))])])) in (200, 400, 413, 422)
