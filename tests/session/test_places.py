"""Where databases are, and everything that can be wrong with a place: missing, read-only, held, foreign, damaged, too new."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import sqlml

PEOPLE_MODEL = "TRAIN MODEL m TARGET b WITH (n_estimators = 2) ON inline AS SELECT i AS a, i > 20 AS b FROM range(50) AS t(i)"


def run_script(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A Python script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", text, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip


def test_in_memory_leaves_nothing() -> None:
    connection = sqlml.connect()
    home = connection.session.place.home
    connection.execute(PEOPLE_MODEL)
    assert home.is_dir()
    assert (connection.models_home, connection.is_new) == (None, True)
    with pytest.raises(sqlml.NotSupportedError) as raised:
        connection.execute("DEPLOY MODEL m")
    assert str(raised.value) == (
        "an in-memory database cannot be deployed from: its models go when the connection closes\n"
        "  line 1:  DEPLOY MODEL m\n           ^^^^^^\n"
        '  connect to a file, as in sqlml.connect("bank.duckdb")'
    )
    connection.close()
    assert not home.exists()


def test_a_new_file_and_the_same_again(tmp_path: Path) -> None:
    path = tmp_path / "new.duckdb"
    with sqlml.connect(path) as connection:
        assert connection.is_new
        connection.execute(PEOPLE_MODEL)
    with sqlml.connect(str(path)) as connection:
        assert not connection.is_new
        assert connection.execute("SELECT PREDICT(m USING 30 AS a)").fetchone() == (True,)
    assert {p.name for p in tmp_path.iterdir()} == {"new.duckdb", "new.sqlml"}


def test_close_with_a_result_half_read(database: Path) -> None:
    for query in ("SELECT PREDICT(buys) FROM people", "FROM people", "FROM range(10000000)"):
        connection = sqlml.connect(database)
        cursor = connection.execute(query)
        assert cursor.fetchone() is not None
        connection.close()
        with pytest.raises(sqlml.InterfaceError):
            cursor.fetchone()


def test_another_catalog(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    with sqlml.connect(tmp_path / "a.duckdb", catalog=url) as connection:
        connection.execute(PEOPLE_MODEL)
    with sqlml.connect(tmp_path / "a.duckdb", catalog=url) as connection:
        assert connection.execute("SELECT model FROM sqlml.models").fetchall() == [("m",)]
    assert not (tmp_path / "a.sqlml" / "catalog.db").exists()


def test_the_users_own_schema_called_sqlml(tmp_path: Path) -> None:
    with sqlml.connect(tmp_path / "a.duckdb", schema="ours") as connection:
        connection.execute("CREATE SCHEMA sqlml; CREATE TABLE sqlml.models AS SELECT 7 AS mine")
        assert connection.execute("SHOW MODELS").fetchall() == []
    notices: list[str] = []
    path = tmp_path / "a.duckdb"
    with sqlml.connect(path, on_event=lambda event: notices.append(str(event.get("text")))) as connection:
        assert connection.execute("FROM sqlml.models").fetchall() == [(7,)]
        connection.execute(PEOPLE_MODEL)
        assert connection.execute("SHOW MODELS").fetchone()[0] == "m"  # type: ignore[index]
        assert connection.execute("SELECT model FROM sqlml_catalog.models").fetchall() == [("m",)]
        connection.execute("CREATE VIEW v AS SELECT PREDICT(m USING 30 AS a) AS p")
        assert connection.execute("FROM v").fetchall() == [(True,)]
    assert any("sqlml is your own schema or database" in notice for notice in notices)


def test_a_schema_called_sqlml_made_on_the_way(tmp_path: Path) -> None:
    """As ATTACH … AS sqlml is refused by the database: the name is taken."""
    with sqlml.connect(tmp_path / "a.duckdb") as connection:
        for text in ("CREATE SCHEMA sqlml", 'CREATE SCHEMA IF NOT EXISTS "SQLML";', "create schema a.sqlml -- mine"):
            with pytest.raises(sqlml.ProgrammingError, match="sqlml is the schema of the models' relations") as refused:
                connection.execute(text)
            assert "connect(schema=" in (refused.value.hint or "")
            assert connection.execute("SELECT count(*) FROM sqlml.models").fetchone() == (0,)
        connection.execute("CREATE SCHEMA other; CREATE TABLE other.sqlml AS SELECT 1 AS a; CREATE TABLE sqlml (a INT)")


def test_a_file_called_sqlml(tmp_path: Path) -> None:
    with sqlml.connect(tmp_path / "sqlml.duckdb") as connection:
        connection.execute(PEOPLE_MODEL)
        assert connection.execute("SHOW MODELS").fetchone() is not None
        assert connection.execute("SELECT PREDICT(m USING 30 AS a)").fetchone() == (True,)


def test_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text.duckdb"
    path.write_text("a,b\n1,2\n" * 1000, encoding="utf-8")
    with pytest.raises(sqlml.OperationalError, match="is not a DuckDB database") as raised:
        sqlml.connect(path)
    assert len(str(raised.value).splitlines()) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"text.duckdb"}


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(sqlml.OperationalError, match="cannot open the database"):
        sqlml.connect(tmp_path / "nowhere" / "a.duckdb")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root writes everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    with sqlml.connect(folder / "a.duckdb"):
        pass
    shutil.rmtree(folder / "a.sqlml")
    for path in (folder / "a.duckdb", folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        if parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    script = "import sqlml, sys\ntry: sqlml.connect(sys.argv[1])\nexcept sqlml.OperationalError as e: print(e)"
    command = [sys.executable, "-c", script, str(folder / "a.duckdb")]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--clear-groups", *command]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    folder.chmod(0o755)
    if "Permission denied: '/root" in done.stderr or "No module named" in done.stderr:
        pytest.skip("another user cannot read this Python")
    assert "cannot open the database" in done.stdout or "cannot write the models' folder" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.slow
def test_held_by_another_process(tmp_path: Path) -> None:
    script = "import sqlml, sys\ntry: sqlml.connect(sys.argv[1])\nexcept sqlml.OperationalError as e: print(e)"
    with sqlml.connect(tmp_path / "a.duckdb") as connection, sqlml.connect(tmp_path / "a.duckdb"):  # it stays locked
        connection.execute(PEOPLE_MODEL)
        done = run_script(script, tmp_path / "a.duckdb")
        assert connection.execute("SELECT PREDICT(m USING 30 AS a)").fetchone() == (True,)
    assert f"a.duckdb is open elsewhere by process {os.getpid()}" in done.stdout
    assert done.stdout.splitlines()[1] == "  one process at a time can have a DuckDB file open: close it there first"


def bundles(database: Path, model: str) -> list[Path]:
    with sqlml.connect(database) as connection:
        rows = connection.execute(f"SELECT bundle FROM sqlml.versions WHERE model = '{model}'").fetchall()
    return [Path(bundle) for (bundle,) in rows]


@pytest.mark.parametrize("damage", ["missing", "changed", "cut", "gone"])
def test_a_damaged_bundle(database: Path, damage: str) -> None:
    [bundle] = bundles(database, "buys")
    native = next((bundle / "native").iterdir())
    match damage:
        case "missing":
            native.unlink()
        case "changed":
            native.write_bytes(native.read_bytes().replace(b"a", b"b"))
        case "cut":
            native.write_bytes(native.read_bytes()[:100])
        case "gone":
            shutil.rmtree(bundle)
    with sqlml.connect(database) as connection:
        for statement in ("SELECT PREDICT(buys) FROM people", "EXPLAIN MODEL buys", "PREDICT MODEL buys INTO t AS FROM people"):
            with pytest.raises(sqlml.OperationalError) as raised:
                connection.execute(statement).fetchall()
            assert str(bundle) in str(raised.value)
            assert damage == "gone" or native.name in str(raised.value)
            assert "Traceback" not in str(raised.value)
            assert "UDF" not in str(raised.value)
        assert connection.execute("SELECT count(PREDICT(spends)) FROM people").fetchone() == (600,)
        assert connection.execute("DESCRIBE MODEL buys").fetchall()
        assert connection.execute("SHOW TABLES").fetchall() == [("people",)]
        connection.execute("DROP MODEL buys")


def test_a_catalog_of_a_newer_sqlml(database: Path) -> None:
    file = sqlite3.connect(database.with_name("people.sqlml") / "catalog.db")
    file.execute("UPDATE alembic_version SET version_num = '9999'")
    file.commit()
    file.close()
    with pytest.raises(sqlml.OperationalError, match="was written by a newer sqlml") as raised:
        sqlml.connect(database)
    assert "pip install --upgrade sqlml" in str(raised.value)


def test_a_catalog_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.sqlml").mkdir()
    (tmp_path / "a.sqlml" / "catalog.db").write_bytes(b"this is no SQLite file" * 100)
    with pytest.raises(sqlml.OperationalError, match=r"the catalog .* cannot be used"):
        sqlml.connect(tmp_path / "a.duckdb")


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", "raise ValueError('mine')", "import sys; sys.exit(3)", "del connection, cursor"])
def test_a_script_that_does_not_close(database: Path, ending: str) -> None:
    script = (
        "import sqlml, sys\nconnection = sqlml.connect(sys.argv[1])\n"
        "cursor = connection.execute('SELECT PREDICT(buys) FROM people')\nprint(cursor.fetchone())\n" + ending
    )
    done = run_script(script, database)
    assert done.stdout.strip() in ("('yes',)", "('no',)")
    assert "leak" not in done.stderr
    assert done.stderr == "" or "mine" in done.stderr.splitlines()[-1]


def test_a_csv_file_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(sqlml.OperationalError, match="is not a DuckDB database"):
        sqlml.connect(path)
    assert [p.name for p in tmp_path.iterdir()] == ["people.csv"]


@pytest.mark.parametrize("url", ["nonsense://x", "mysql+pymysql://me@host/db", "not a url"])
def test_a_catalog_that_cannot_be_leaves_nothing(tmp_path: Path, url: str) -> None:
    with pytest.raises(sqlml.OperationalError):
        sqlml.connect(tmp_path / "a.duckdb", catalog=url)
    assert list(tmp_path.iterdir()) == []


def test_two_catalogs_of_one_database_keep_to_themselves(tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    for catalog in (None, other):
        with sqlml.connect(tmp_path / "a.duckdb", catalog=catalog) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t AS SELECT i, i % 2 AS y FROM range(100) r(i)")
            connection.execute("TRAIN MODEL m TARGET y WITH (n_estimators = 2) ON inline AS FROM t")
    for bundle in (tmp_path / "a.sqlml").rglob("bundles/*"):
        os.utime(bundle, (0, 0))  # old enough to be an orphan
    for catalog in (None, other):
        with sqlml.connect(tmp_path / "a.duckdb", catalog=catalog) as connection:
            assert connection.execute("SELECT count(PREDICT(m)) FROM t").fetchall() == [(100,)]


def test_a_version_number_never_means_another_model(tmp_path: Path) -> None:
    with sqlml.connect(tmp_path / "a.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT i, i % 2 AS y FROM range(100) r(i)")
        connection.execute("TRAIN MODEL m TARGET y WITH (n_estimators = 2) ON inline AS FROM t")
        connection.execute("CREATE VIEW pinned AS SELECT PREDICT(m@1) AS p FROM t")
        connection.execute("DROP MODEL m")
        connection.execute("TRAIN MODEL m USING kmeans WITH (n_clusters = 2) ON inline AS FROM t")
        assert connection.execute("SELECT version FROM sqlml.versions").fetchall() == [(2,)]
        with pytest.raises(sqlml.Error, match="pinned calls a model that is gone"):
            connection.execute("FROM pinned").fetchall()


def test_training_the_same_again_leaves_the_first_bundle_alone(tmp_path: Path) -> None:
    with sqlml.connect(tmp_path / "a.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT i, i % 2 AS y FROM range(100) r(i)")
        for _ in range(2):
            connection.execute("TRAIN MODEL m TARGET y WITH (n_estimators = 2) ON inline AS FROM t")
        bundles = [Path(b) for (b,) in connection.execute("SELECT DISTINCT bundle FROM sqlml.versions").fetchall()]
        assert len(bundles) == 1
        (bundles[0] / "manifest.json").write_text("{}", encoding="utf-8")
        connection.execute("TRAIN MODEL m TARGET y WITH (n_estimators = 2) ON inline AS FROM t")  # puts a whole one in its place
        assert connection.execute("SELECT count(PREDICT(m@1)) FROM t").fetchall() == [(100,)]
