"""What a guest and the server tell each other, without either: values, errors, frames, files in statements, the notice."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sqlml.errors import BindError, Error, InternalError, JobOutOfMemory, NotSupportedError, OperationalError
from sqlml.guest import frames as f
from sqlml.guest.errors import error_head, error_of
from sqlml.guest.owner import OWNER_FILE, Owner, find_owner, remove_owner, write_owner
from sqlml.guest.paths import check_paths
from sqlml.guest.transactions import Open, open_after, open_during
from sqlml.guest.values import values_json, values_of
from sqlml.home import home_of

ZONE = datetime.timezone(datetime.timedelta(hours=2))

VALUES = (
    None, True, 42, 2**100, 1.5, float("inf"), 'ä "q"', b"\0\xff", decimal.Decimal("1.50"), uuid.UUID(int=7),
    datetime.date(2024, 2, 29), datetime.time(1, 2, 3, 4), datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime.datetime(2024, 2, 29, 1, tzinfo=ZONE), datetime.timedelta(-1, 2, 3), [1, [None, "x"]],
    {"a": decimal.Decimal(1), 2: [datetime.date(2024, 1, 1)]}, {"date": "no tag of ours"},
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_as_they_went(value: Any) -> None:
    [found] = values_of(json.loads(json.dumps(values_json([value]))))
    assert found == value
    assert type(found) is type(value)
    assert values_of(values_json({"name": value})) == {"name": value}


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"), [(np.int64(3), 3), (np.float32(0.5), 0.5), ((1, 2), [1, 2]), (Colour.RED, "red"), (np.str_("x"), "x")]
)
def test_values_that_come_as_pythons_own(value: Any, expected: Any) -> None:
    [found] = values_of(values_json([value]))
    assert (found, type(found)) == (expected, type(expected))


def test_a_value_that_cannot_be_sent() -> None:
    with pytest.raises(NotSupportedError, match=r"a value of type \w*Path cannot be sent"):
        values_json([Path("x")])


@pytest.mark.parametrize(
    "error",
    [
        BindError("no such thing", source="SELECT x", span=(7, 8), hint="did you mean y?", about="tune"),
        JobOutOfMemory("too much"),
    ],
    ids=["with all", "with words alone"],
)
def test_errors_come_as_they_went(error: Error) -> None:
    found = error_of(json.loads(json.dumps(error_head(error))))
    assert (type(found), str(found), found.span, found.about) == (type(error), str(error), error.span, error.about)


def test_an_error_of_another_kind_is_a_fault() -> None:
    found = error_of(error_head(ZeroDivisionError("by zero")))
    assert isinstance(found, InternalError)
    assert "ZeroDivisionError: by zero" in str(found)
    assert type(error_of({"class": "OfALaterVersion", "message": "new"})) is Error


def read(data: bytes) -> f.Frame:
    """A frame out of bytes, in pieces of what it asks for."""
    reading: Generator[int, bytes | memoryview, f.Frame] = f.reading()
    wanted = next(reading)
    try:
        while True:
            piece, data = data[:wanted], data[wanted:]
            assert len(piece) == wanted
            wanted = reading.send(piece)
    except StopIteration as done:
        assert data == b""
        found: f.Frame = done.value
        return found


def test_frames() -> None:
    assert read(b"".join(f.pack(f.STOP))) == f.Frame(f.STOP)
    found = read(b"".join(f.pack(f.EXECUTE, {"sql": "ä"}, b"tail")))
    assert (found.kind, found.head, found.tail) == (f.EXECUTE, {"sql": "ä"}, b"tail")
    with pytest.raises(OperationalError, match="does not speak this protocol"):
        read(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(OperationalError, match="does not speak this protocol"):
        f.Frame(f.RESULT, b"no JSON").head  # noqa: B018 - read when it is asked for


def test_batches_keep_their_types() -> None:
    words = pa.array(["a", None, "b"]).dictionary_encode()
    batch = pa.record_batch({"w": words, "s": pa.array([{"x": 1}, None, {"x": 2}])}).slice(1)
    found = f.read_batch(f.batch_bytes(batch))
    assert found.schema.equals(batch.schema, check_metadata=True)
    assert found.to_pylist() == batch.to_pylist()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("FROM 'a.csv'", "'a.csv'"),
        ("SELECT * FROM t JOIN 'a.csv' USING (x)", "'a.csv'"),
        ("SELECT * FROM read_csv(['/x/a.csv', 'b.csv'], delim = ',')", "'b.csv'"),
        ("SELECT 1; COPY t TO 'out.csv'", "'out.csv'"),
        ("EXPORT MODEL m TO 'm.onnx'", "'m.onnx'"),
        ("IMPORT MODEL m FROM 'm.onnx'", "'m.onnx'"),
        ("ATTACH IF NOT EXISTS 'other.duckdb'", "'other.duckdb'"),
        ("EXPORT DATABASE 'folder'", "'folder'"),
    ],
)
def test_relative_names_of_files(text: str, place: str) -> None:
    with pytest.raises(NotSupportedError, match="would be looked for in the folder of the server") as caught:
        check_paths(text, "/elsewhere")
    assert caught.value.span is not None
    assert text[slice(*caught.value.span)] == place
    assert caught.value.hint == f"write the whole path: '{os.path.join(os.getcwd(), place[1:-1])}'"
    check_paths(text, os.getcwd())


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'a.csv', x IS DISTINCT FROM 'y' FROM t WHERE z IN ('a.csv')",
        "SELECT extract('year' FROM '2024-01-01'), read_csv FROM t",
        "SET search_path TO 'main'",
        "COPY t TO '/tmp/out.csv' (FORMAT 'csv')",
        "FROM 's3://bucket/a.csv'",
        "FROM read_csv('/x.csv', types = {'a': 'INT', 'b': 'INT'})",
        "SELECT 'never closed",
    ],
)
def test_strings_that_name_no_relative_file(text: str) -> None:
    check_paths(text, "/elsewhere")


@pytest.fixture
def owner(tmp_path: Path) -> Owner:
    """A notice of the process that runs the tests, under the number of its parent."""
    found = Owner(os.getppid(), "127.0.0.1", 5433, "secret", str((tmp_path / "bank.duckdb").resolve()), None, "/")
    write_owner(found)
    return found


def test_the_notice(owner: Owner) -> None:
    path = home_of(owner.database) / OWNER_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert find_owner(owner.database) == owner
    assert find_owner(owner.database.replace(".duckdb", ".db")) is None  # the same folder, another file
    remove_owner(replace(owner, token="another"))
    assert path.exists()
    remove_owner(owner)
    assert not path.exists()
    assert find_owner(owner.database) is None


def test_a_link_to_the_file_finds_the_notice(owner: Owner, tmp_path: Path) -> None:
    Path(owner.database).touch()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.duckdb"
    link.symlink_to(owner.database)
    assert find_owner(str(link)) == owner


def test_notices_that_are_not_believed(owner: Owner) -> None:
    path = home_of(owner.database) / OWNER_FILE
    path.chmod(0o644)
    assert find_owner(owner.database) is None  # others could read the token
    path.chmod(0o600)
    path.write_text("{")
    assert find_owner(owner.database) is None
    write_owner(replace(owner, pid=os.getpid()))
    assert find_owner(owner.database) is None  # this process opens it itself
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    write_owner(replace(owner, pid=child.pid))
    assert find_owner(owner.database) is None


@pytest.mark.parametrize(
    ("text", "before", "during", "after"),
    [
        ("SELECT 1", Open.NOTHING, Open.NOTHING, Open.NOTHING),
        ("SELECT 1", Open.TRANSACTION, Open.TRANSACTION, Open.TRANSACTION),
        ("begin", Open.NOTHING, Open.TRANSACTION, Open.TRANSACTION),
        ("START TRANSACTION; INSERT INTO t VALUES (1)", Open.NOTHING, Open.TRANSACTION, Open.TRANSACTION),
        ("COMMIT", Open.TRANSACTION, Open.COMMIT, Open.NOTHING),
        ("BEGIN; DELETE FROM t; END", Open.NOTHING, Open.COMMIT, Open.NOTHING),
        ("/* x */ rollback", Open.TRANSACTION, Open.TRANSACTION, Open.NOTHING),
        ("ROLLBACK ENDPOINT e", Open.TRANSACTION, Open.TRANSACTION, Open.TRANSACTION),
        ("SELECT CASE WHEN a THEN 1 END FROM begin", Open.NOTHING, Open.NOTHING, Open.NOTHING),
        ("SELECT 'BEGIN; COMMIT'", Open.NOTHING, Open.NOTHING, Open.NOTHING),
    ],
)
def test_what_a_statement_leaves_open(text: str, before: Open, during: Open, after: Open) -> None:
    assert open_during(text, before) is during
    assert open_after(text, before, failed=False) is after


def test_a_text_that_failed_may_have_begun_and_has_ended_nothing() -> None:
    assert open_after("BEGIN; SELECT nope", Open.NOTHING, failed=True) is Open.TRANSACTION
    assert open_after("COMMIT", Open.TRANSACTION, failed=True) is Open.TRANSACTION
    assert open_after("SELECT nope", Open.NOTHING, failed=True) is Open.NOTHING


def test_what_is_no_file_has_no_owner() -> None:
    assert find_owner(":memory:") is None
    assert find_owner("postgresql://localhost/bank") is None
