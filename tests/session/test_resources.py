"""CREATE, DROP and SHOW of connections and runners: names, options, secrets, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

import sqlml
from sqlml import registry
from sqlml.connections import connection_fault, resolve_url, secret_in
from sqlml.contracts import OptionSpec
from sqlml.engines.duckdb.engine import DuckDBEngine
from tests.dialect.golden import read_messages
from tests.sessions import session_of

MESSAGES = read_messages("errors/resources.txt")
URL = "postgresql://me@db.example:5433/bank"


def opened() -> sqlml.Connection:
    connection = sqlml.connect()
    connection.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{URL}')")
    connection.execute("CREATE RUNNER big TYPE process WITH (threads = 2, memory = '8 GB', time = '30 min')")
    connection.execute("CREATE RUNNER cluster TYPE spark WITH (master = 'local[1]')")
    connection.execute("ATTACH ':memory:' AS other")
    return connection


@pytest.fixture
def memory() -> sqlml.Connection:
    """A database in memory with a connection ``pg``, the runners ``big`` and ``cluster``, and ``other`` attached."""
    return opened()


@pytest.fixture(scope="module")
def unchanged() -> Iterator[sqlml.Connection]:
    """One for every statement that is refused."""
    with opened() as connection:
        yield connection


def state(connection: sqlml.Connection) -> list[list[tuple[object, ...]]]:
    return [connection.execute(f"SELECT * FROM sqlml.{name}").fetchall() for name in ("connections", "runners", "functions")]


@pytest.mark.parametrize(("statement", "message"), MESSAGES, ids=[statement for statement, _ in MESSAGES])
def test_message(unchanged: sqlml.Connection, statement: str, message: str) -> None:
    before = state(unchanged)
    with pytest.raises(sqlml.DatabaseError) as raised:
        unchanged.execute(statement)
    assert str(raised.value) == message
    assert state(unchanged) == before


# --- connections --------------------------------------------------------------------------------------------------------


def test_a_connection_is_listed_and_dropped(memory: sqlml.Connection) -> None:
    with memory:
        [(name, kind, url, options, owner)] = memory.execute(
            "SELECT connection, type, url, options, owner FROM sqlml.connections"
        ).fetchall()
        assert (name, kind, url, json.loads(options)) == ("pg", "postgres", URL, {})
        assert owner
        assert memory.execute("SHOW CONNECTIONS LIKE 'P%'").fetchall() == memory.execute("FROM sqlml.connections").fetchall()
        assert memory.execute("SHOW CONNECTIONS LIKE 'x%'").fetchall() == []
        memory.execute("DROP CONNECTION PG")
        memory.execute("DROP CONNECTION IF EXISTS pg")
        assert memory.execute("SHOW CONNECTIONS").fetchall() == []


def test_replacing_and_leaving_alone(memory: sqlml.Connection) -> None:
    def kinds() -> list[tuple[str, str]]:
        return memory.execute("SELECT connection, type FROM sqlml.connections").fetchall()

    with memory:
        memory.execute("CREATE CONNECTION IF NOT EXISTS Pg TYPE sqlalchemy WITH (url = 'sqlite:///x.db')")
        assert kinds() == [("pg", "postgres")]
        memory.execute("CREATE OR REPLACE CONNECTION Pg TYPE sqlalchemy WITH (url = 'sqlite:///x.db')")
        assert kinds() == [("Pg", "sqlalchemy")]
        memory.execute("CREATE CONNECTION lake TYPE spark WITH (connect = 'sc://h:15002', config = {'spark.x': 8, 'a b': true})")
        [(place, options)] = memory.execute("SELECT url, options FROM sqlml.connections WHERE connection = 'lake'").fetchall()
        assert place == "sc://h:15002"
        assert json.loads(options)["config"] == {"spark.x": 8, "a b": True}


def test_the_value_of_a_parameter_is_kept(memory: sqlml.Connection) -> None:
    with memory:
        memory.execute("CREATE CONNECTION lite TYPE sqlalchemy WITH (url = ?)", ["sqlite:///x.db"])
        assert memory.execute("SELECT url FROM sqlml.connections WHERE connection = 'lite'").fetchall() == [("sqlite:///x.db",)]


def test_a_missing_password_is_a_notice_then_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PG_PASSWORD", raising=False)
    with sqlml.connect() as connection:
        connection.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{URL}', password_env = 'PG_PASSWORD')")
        assert connection.session.notices == [
            "connection pg has no password: the environment variable PG_PASSWORD is not set; "
            "it is needed when the connection is first used"
        ]
        with pytest.raises(sqlml.OperationalError, match="the environment variable PG_PASSWORD is not set"):
            connection.execute("SELECT * FROM pg.public.t")
        file = tmp_path / "none.txt"
        connection.execute(f"CREATE OR REPLACE CONNECTION pg TYPE postgres WITH (url = '{URL}', password_file = '{file}')")
        with pytest.raises(sqlml.OperationalError, match="cannot be read: No such file"):
            connection.execute("SELECT * FROM pg.public.t")


def test_a_password_is_never_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PG_PASSWORD", "s3cret/@:ä")
    with sqlml.connect(tmp_path / "bank.duckdb") as connection:
        connection.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{URL}', password_env = 'PG_PASSWORD')")
        assert connection.session.notices == []
        with pytest.raises(sqlml.ProgrammingError) as raised:
            connection.execute("CREATE CONNECTION c TYPE postgres WITH (url = 'postgresql://me:s3cret@h/d')")
        assert "s3cret" not in str(raised.value) + repr(raised.value)
        with pytest.raises(sqlml.ProgrammingError) as raised:
            connection.execute(f"CREATE CONNECTION c TYPE postgres WITH (url = '{URL}', password = 's3cret')")
        assert "s3cret" not in str(raised.value) + repr(raised.value)
        assert "password_env" in str(raised.value)
        shown = connection.execute(
            "EXPLAIN CREATE OR REPLACE CONNECTION pg TYPE postgres WITH (url = 'postgresql://h/d')"
        ).fetchall()
        shown += connection.execute("SHOW CONNECTIONS").fetchall()
        assert "s3cret" not in str(shown)
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not any(b"s3cret" in text for text in kept)


@pytest.mark.parametrize(
    ("url", "resolved"),
    [
        ("postgresql://me@h:5433/d?sslmode=require", "postgresql://me:p%40%2F%3A%20%C3%A4@h:5433/d?sslmode=require"),
        ("postgresql://h/d", "postgresql://:p%40%2F%3A%20%C3%A4@h/d"),
        ("postgresql:///d?host=/tmp", "postgresql://:p%40%2F%3A%20%C3%A4@/d?host=/tmp"),
        ("mysql+pymysql://me@h", "mysql+pymysql://me:p%40%2F%3A%20%C3%A4@h"),
    ],
)
def test_the_password_goes_into_the_url(url: str, resolved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "p@/: ä")
    assert resolve_url("c", {"url": url, "password_env": "SECRET"}) == resolved
    (tmp_path / "file").write_text("p@/: ä\n", encoding="utf-8")
    assert resolve_url("c", {"url": url, "password_file": str(tmp_path / "file")}) == resolved
    assert resolve_url("c", {"url": url}) == url


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("postgresql://me:a@h/d", "a"),
        ("postgresql://me:a/b@c@h/d", "a/b@c"),
        ("postgresql://:a@h/d", "a"),
        ("postgresql://h/d?user=me&password=a", "a"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx;PWD%3Da", "a"),
        ("sc://h:15002/;token=a", "a"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Da%3BUID%3Dme", "a%3BUID%3Dme"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3D%7Ba%3Bb%7D", "%7Ba%3Bb%7D"),
        ("trino://h/?url=postgresql%253A%252F%252Fme%253Aa%2540h", "a"),
        ("snowflake://me@h/d?private_key_passphrase=a", "a"),
        ("DefaultEndpointsProtocol=https;AccountKey=a==;EndpointSuffix=e", "a=="),
        ("-Dhttp.proxy=http://me:a@h", "a"),
        ("https://h/c?sv=1&sig=a", "a"),
        ("snowflake://me@h/d?private_key_file=/x", None),
        ("bigquery://p/d?credentials_path=/x", None),
        ("postgresql://h:5432/d%40x", None),
        ("postgresql://me:@h/d", None),
        ("postgresql://me@h:5432/d", None),
        ("postgresql://h:5432/d?passfile=/x", None),
        ("sqlite:///C:/a@b.db", None),
    ],
)
def test_secrets_in_urls(url: str, secret: str | None) -> None:
    assert secret_in(url) == secret


SETTINGS = [
    {"spark.hadoop.fs.s3a.secret.key": "x"},
    {"spark.hadoop.fs.azure.account.key.bank.dfs.core.windows.net": "x"},
    {"spark.hadoop.fs.azure.account.key.file.dfs.core.windows.net": "x"},
    {"private_key_passphrase": 1234},
    {"spark.x": "jdbc:postgresql://h/d?user=me&password=x"},
    {"spark.x": {"deeper": ["-Dx=1", "-Djavax.net.ssl.trustStorePassword=x"]}},
]
PLAIN = [
    {"spark.sql.shuffle.partitions": 8},
    {"spark.hadoop.fs.s3a.aws.credentials.provider": "com.amazonaws.auth.InstanceProfileCredentialsProvider"},
    {"spark.hadoop.hadoop.security.credential.provider.path": "jceks://hdfs/x"},
    {"spark.kubernetes.authenticate.driver.oauthTokenFile": "/run/token"},
    {"spark.security.credentials.hive.enabled": False},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_secret_among_settings_is_refused(settings: dict[str, object]) -> None:
    for type_name in ("spark", "somebody's"):
        fault = connection_fault(type_name, {"config": settings})
        assert fault is not None
        assert fault.option == "config"


@pytest.mark.parametrize("settings", PLAIN)
def test_settings_without_secrets_are_kept(settings: dict[str, object]) -> None:
    assert connection_fault("spark", {"config": settings}) is None


def test_a_secret_in_any_option_is_refused() -> None:
    fault = connection_fault("spark", {"master": "spark://me:hush@h:7077"})
    assert fault is not None
    assert fault.option == "master"


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE CONNECTION c TYPE spark WITH (config = {'spark.hadoop.fs.azure.account.key.x.net': 'hush'})",
        "CREATE RUNNER c TYPE spark WITH (config = {'spark.hadoop.fs.azure.account.key.x.net': 'hush'})",
        "CREATE RUNNER c TYPE spark WITH (master = 'local', config = {'spark.x': {'y': ['?password=hush']}})",
        "CREATE CONNECTION c TYPE sqlalchemy WITH (url = 'mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dhush%26more')",
        "CREATE CONNECTION c TYPE sqlalchemy WITH (url = 'snowflake://me@h/d?private_key_passphrase=hush')",
        "EXPLAIN CREATE RUNNER c TYPE spark WITH (config = {'private_key_passphrase': 'hush'})",
        "CREATE RUNNER c TYPE process WITH (threads = 2, config = {'password': 'hush'})",
    ],
)
def test_no_secret_is_kept_or_shown(unchanged: sqlml.Connection, statement: str) -> None:
    before = state(unchanged)
    with pytest.raises(sqlml.ProgrammingError) as raised:
        unchanged.execute(statement)
    said = str(raised.value)
    assert "hush" not in said
    assert "more" not in said
    assert "****" in said
    assert state(unchanged) == before


def test_a_secret_of_a_parameter_is_not_shown(unchanged: sqlml.Connection) -> None:
    with pytest.raises(sqlml.ProgrammingError, match="a password in the url would be kept and shown") as raised:
        unchanged.execute("CREATE CONNECTION c TYPE sqlalchemy WITH (url = ?)", ["mysql://h/d?password=hush"])
    assert "hush" not in str(raised.value) + repr(raised.value)


# --- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["OTHER", "Main", "information_schema", "temp", "memory"])
def test_a_name_that_the_database_has_in_any_case(unchanged: sqlml.Connection, name: str) -> None:
    with pytest.raises(sqlml.ProgrammingError, match="the database has a schema or database of that name"):
        unchanged.execute(f"CREATE CONNECTION {name} TYPE postgres WITH (url = '{URL}')")


class Reader:
    """A runner of another package that runs queries itself."""

    type = "reader"
    kinds = frozenset({"train"})
    reads = True
    options = (OptionSpec("place", "str", None, "where"),)


class Elsewhere(DuckDBEngine):
    """An engine of another package."""

    options = (OptionSpec("place", "str", None, "where"),)
    opened: ClassVar[list[Any]] = []

    @classmethod
    def open(cls, database: Any) -> DuckDBEngine:
        cls.opened.append(database)
        made = super().open(":memory:")
        made.run("CREATE TABLE t AS SELECT 7 AS x")
        return made


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with a runner that reads itself and an engine of the same name."""
    here = [
        EntryPoint("reader", f"{__name__}:Reader", "sqlml.runner_types"),
        EntryPoint("reader", f"{__name__}:Elsewhere", "sqlml.engines"),
    ]
    monkeypatch.setattr(EntryPoint, "load", lambda entry: globals()[entry.attr])
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry for entry in here if entry.group == group])
    registry.names.cache_clear()
    yield
    registry.names.cache_clear()


def test_engines_and_reading_runners_of_other_packages(packages: None) -> None:
    with sqlml.connect() as connection:
        connection.execute("CREATE CONNECTION lake TYPE reader WITH (place = 'here')")
        assert connection.execute("SELECT x FROM lake.t").fetchall() == [(7,)]
        connection.execute("CREATE RUNNER far TYPE reader WITH (place = 'there')")
        assert connection.execute("SELECT x FROM far.t").fetchall() == [(7,)]
        assert Elsewhere.opened == [{"place": "here"}, {"place": "there"}]
        for name, why in (("lake", "there is a connection of that name"), ("main", "the database has a schema")):
            with pytest.raises(sqlml.ProgrammingError, match=why):
                connection.execute(f"CREATE RUNNER {name} TYPE reader")
        with pytest.raises(sqlml.ProgrammingError, match="unknown connection type oracle") as raised:
            connection.execute("CREATE CONNECTION c TYPE oracle")
        assert raised.value.hint == "there are: postgres, sqlalchemy, spark, reader"


def test_a_connection_outlives_the_session(tmp_path: Path) -> None:
    with sqlml.connect(tmp_path / "a.duckdb") as one, sqlml.connect(tmp_path / "a.duckdb") as two:
        one.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{URL}')")
        assert two.execute("SELECT connection FROM sqlml.connections").fetchall() == [("pg",)]
        two.execute("DROP CONNECTION pg")
        assert one.execute("SHOW CONNECTIONS").fetchall() == []


def test_explain(memory: sqlml.Connection) -> None:
    with memory:
        [(plan,)] = memory.execute("EXPLAIN (FORMAT JSON) CREATE RUNNER r TYPE process WITH (memory = '1 KiB')").fetchall()
        assert json.loads(plan) == {
            "node": "create_runner", "name": "r", "type": "process", "options": {"memory": 1024}, "now": None,
        }  # fmt: skip
        [(plan,)] = memory.execute("EXPLAIN (FORMAT JSON) DROP CONNECTION pg").fetchall()
        assert json.loads(plan) == {
            "node": "drop_connection", "name": "pg", "type": "postgres", "functions": [], "refused": False,
        }  # fmt: skip
        assert [
            name for (name,) in memory.execute("SELECT runner FROM sqlml.runners WHERE runner IN ('r', 'big')").fetchall()
        ] == ["big"]


# --- runners ------------------------------------------------------------------------------------------------------------


def test_a_runner_is_listed_beside_those_built_in(memory: sqlml.Connection) -> None:
    with memory:
        rows = memory.execute("SELECT runner, type, options FROM sqlml.runners").fetchall()
        assert [row[:2] for row in rows] == [
            ("process", "process"), ("inline", "inline"), ("big", "process"), ("cluster", "spark"),
        ]  # fmt: skip
        assert json.loads(rows[2][2]) == {"threads": 2, "memory": 8_000_000_000, "time": 1800.0}


def test_a_runner_runs_jobs_within_its_limits(connection: sqlml.Connection) -> None:
    connection.execute("CREATE RUNNER Big TYPE process WITH (threads = 2)")
    connection.execute("TRAIN MODEL m USING linear_regression TARGET spent KEY id ON big AS FROM people")
    assert connection.execute("SELECT runner FROM sqlml.jobs WHERE model = 'm'").fetchall() == [("big",)]
    [(job,)] = connection.execute("SELECT job FROM sqlml.jobs WHERE model = 'm'").fetchall()
    assert connection.models_home is not None
    document = json.loads((Path(connection.models_home) / "jobs" / str(job) / "job.json").read_text(encoding="utf-8"))
    assert document["plan"]["limits"]["threads"] == 2
    plan = connection.execute("EXPLAIN TRAIN MODEL m TARGET spent ON big AS FROM people").fetchall()
    assert any("runner: big, of type process" in line for (line,) in plan)
    connection.execute("EVALUATE MODEL m WITH (folds = 2)")
    assert connection.execute("SELECT kind, runner FROM sqlml.jobs ORDER BY job DESC LIMIT 1").fetchall() == [("folds", "big")]
    connection.execute("CREATE OR REPLACE RUNNER big TYPE process WITH (time = '10 ms')")
    with pytest.raises(sqlml.OperationalError, match=r"time limit of 0.01 s"):
        connection.execute("TRAIN MODEL m USING linear_regression TARGET spent ON big AS FROM people")
    connection.execute("DROP RUNNER big")
    with pytest.raises(sqlml.ProgrammingError, match="unknown runner big"):
        connection.execute("TRAIN MODEL m USING linear_regression TARGET spent ON big AS FROM people")


def test_a_runner_with_jobs_stays(database: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute("CREATE RUNNER big TYPE process")
        job = session_of(connection)._catalog.start_job("train", "m", "TRAIN …", "big")
        for statement in ("DROP RUNNER big", "CREATE OR REPLACE RUNNER big TYPE process"):
            with pytest.raises(sqlml.ProgrammingError, match=rf"1 job of runner big still runs: {job.id}"):
                connection.execute(statement)
        session_of(connection)._catalog.end_job(job, "failed", "for no reason")
        connection.execute("DROP RUNNER big")


def test_a_connection_with_functions_stays(connection: sqlml.Connection) -> None:
    catalog = session_of(connection)._catalog
    connection.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{URL}')")
    catalog.record_function("PG", "public", "buys", catalog.resolve("buys").uid, ["public.buys(age)"])
    with pytest.raises(sqlml.ProgrammingError, match=r"deployed as functions in connection pg: public\.buys") as raised:
        connection.execute("DROP CONNECTION pg")
    assert raised.value.hint == "UNDEPLOY FUNCTION public.buys FROM DATABASE pg first, or DROP CONNECTION pg CASCADE"
    with pytest.raises(sqlml.ProgrammingError, match=r"model buys is deployed as the function public\.buys") as raised:
        connection.execute("DROP MODEL buys")
    assert raised.value.hint == "UNDEPLOY FUNCTION public.buys FROM DATABASE pg first, or DROP MODEL buys CASCADE"
    rows = connection.execute("SHOW DEPLOYED FUNCTIONS LIKE '%buys'").fetchall()
    assert [row[:5] for row in rows] == [("public.buys", "pg", "buys", 1, ["public.buys(age)"])]
    plan = connection.execute("EXPLAIN DROP MODEL buys").fetchall()
    assert "refused, since it is deployed: public.buys" in plan[0][0]
    plan = connection.execute("EXPLAIN DROP CONNECTION pg").fetchall()
    assert plan[0][0] == "DROP CONNECTION pg: refused, since models are deployed there: public.buys"
    catalog.forget_function("pg", "public", "buys")
    connection.execute("DROP CONNECTION pg")
    connection.execute("DROP MODEL buys")


@pytest.mark.parametrize("statement", ["DROP CONNECTION Pg CASCADE", "DROP MODEL buys CASCADE"])
def test_cascade_leaves_what_cannot_be_reached(connection: sqlml.Connection, statement: str) -> None:
    """Nobody is kept from clearing up by a server that is gone."""
    catalog = session_of(connection)._catalog
    connection.execute("CREATE CONNECTION pg TYPE postgres WITH (url = 'postgresql://me@127.0.0.1:1/bank')")
    catalog.record_function("PG", "public", "buys", catalog.resolve("buys").uid, ["public.buys(age)"])
    plan = connection.execute(f"EXPLAIN {statement}").fetchall()
    assert "refused: false" in plan[-1][0]
    with pytest.raises(sqlml.OperationalError, match="Connection refused"):
        connection.execute("UNDEPLOY FUNCTION public.buys FROM DATABASE pg")
    connection.execute(statement)
    [notice] = connection.session.notices
    assert "Connection refused" in notice
    assert "public.buys may be there still, and is forgotten" in notice
    assert connection.execute("SHOW DEPLOYED FUNCTIONS").fetchall() == []
    connection.execute("DROP CONNECTION IF EXISTS pg")


def test_the_schema_of_our_relations_is_no_connection(tmp_path: Path) -> None:
    with sqlml.connect(tmp_path / "a.duckdb", schema="Ours") as connection:
        with pytest.raises(sqlml.ProgrammingError, match=r"cannot be called ours: ours\.… is sqlml's own"):
            connection.execute(f"CREATE CONNECTION ours TYPE postgres WITH (url = '{URL}')")
        with pytest.raises(sqlml.ProgrammingError, match="cannot be called ours"):
            connection.execute(f"EXPLAIN CREATE CONNECTION ours TYPE postgres WITH (url = '{URL}')")
        connection.execute(f"CREATE CONNECTION pg TYPE postgres WITH (url = '{URL}')")
    with pytest.raises(sqlml.ProgrammingError, match="PG is a connection"):
        sqlml.connect(tmp_path / "a.duckdb", schema="PG")
    with sqlml.connect(tmp_path / "a.duckdb") as connection:
        assert connection.execute("SELECT connection FROM sqlml.connections").fetchall() == [("pg",)]


def test_resources_are_refused_inside_a_transaction(memory: sqlml.Connection) -> None:
    with memory:
        memory.execute("BEGIN")
        for statement in ("CREATE RUNNER r TYPE process", "DROP CONNECTION pg"):
            with pytest.raises(sqlml.NotSupportedError, match="cannot run inside an open transaction"):
                memory.execute(statement)
        memory.execute("ROLLBACK")
