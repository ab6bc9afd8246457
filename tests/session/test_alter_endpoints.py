"""ALTER ENDPOINTS: a memory budget for all models of the server, its TLS, ports and origins, by SQL."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlml_runners.serving.control import LocalServer

import sqlml
from sqlml import home
from sqlml.home import home_of
from tests.serving.test_tls import Papers

pytestmark = pytest.mark.slow  # a server with several models


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "a.duckdb"
    LocalServer(home_of(tmp_path / "a.duckdb")).stop()


def states(connection: sqlml.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT endpoint, state FROM sqlml.endpoints").fetchall())


def ask(connection: sqlml.Connection, endpoint: str) -> int:
    [(url,)] = connection.execute("SELECT url FROM sqlml.endpoints WHERE endpoint = ?", [endpoint]).fetchall()
    body = json.dumps({"rows": [{"x": 1}]}).encode()
    with urllib.request.urlopen(f"{url.replace('/v2', '')}/predict", body, timeout=30) as answer:
        return int(answer.status)


def test_models_leave_when_the_budget_shrinks_and_come_back_when_asked(database: Path) -> None:
    with sqlml.connect(database) as connection:
        for name in ("a", "b"):  # trees enough for more than a megabyte each
            connection.execute(
                f"TRAIN MODEL {name} USING random_forest_regressor TARGET y WITH (n_estimators = 120) ON inline AS "
                "SELECT random() AS x, random() AS y FROM range(600)"
            )
            connection.execute(f"DEPLOY MODEL {name}")
        assert states(connection) == {"a": "ready", "b": "ready"}
        assert connection.execute("ALTER ENDPOINTS SET (memory = '1 MB')").fetchall() == [("memory", 10**6, None)]
        deadline = time.monotonic() + 20
        while "idle" not in states(connection).values():
            assert time.monotonic() < deadline, states(connection)
            time.sleep(0.1)
        assert [ask(connection, name) for name in ("a", "b", "a")] == [200, 200, 200]
        assert connection.execute("ALTER ENDPOINTS SET (memory = NULL)").fetchall() == [("memory", None, 10**6)]
        assert [ask(connection, name) for name in ("a", "b")] == [200, 200]
        assert states(connection) == {"a": "ready", "b": "ready"}


def test_what_is_wrong_changes_nothing(database: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute("ALTER ENDPOINTS SET (memory = '2 GB')")
        for options in ("()", "(memory = 'much')", "(memory = 5)", "(memories = '1 GB')"):
            with pytest.raises(sqlml.Error):
                connection.execute(f"ALTER ENDPOINTS SET {options}")
        assert connection.execute("ALTER ENDPOINTS SET (memory = '2 GB')").fetchall() == [("memory", 2 * 10**9, 2 * 10**9)]


def test_what_is_set_is_shown_with_what_holds_without_it(database: Path) -> None:
    with sqlml.connect(database) as connection:
        connection.execute("ALTER ENDPOINTS SET (memory = '2 GB', grpc_port = 8081)")
        connection.execute("ALTER ENDPOINTS SET (grpc_port = NULL)")
        shown = connection.execute("SHOW SERVER SETTINGS LIKE '%O%r%'").fetch_arrow_table().to_pylist()
        assert [(row["option"], row["value"], row["default"]) for row in shown] == [
            ("memory", "2000000000", "half of the machine's"),
            ("port", None, "8080 where it is free, else any"),
            ("grpc_port", None, None),
            ("cors_origins", None, None),
        ]
        assert all(row["values"] and row["description"] for row in shown)
        with pytest.raises(sqlml.Error, match="write SHOW SERVER SETTINGS"):
            connection.execute("SHOW server_settings")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def test_the_server_that_deploy_starts_speaks_https_and_grpc_and_to_other_origins(database: Path, tmp_path: Path) -> None:
    papers, port, grpc = Papers(tmp_path / "papers"), free_port(), free_port()
    with sqlml.connect(database) as connection:
        connection.execute(
            "TRAIN MODEL m USING linear_regression TARGET y ON inline AS SELECT range AS x, range AS y FROM range(50)"
        )
        found = connection.execute(
            "ALTER ENDPOINTS SET (tls_certificate = ?, tls_key = ?, grpc_port = ?, port = ?, cors_origins = ?)",
            [str(papers.certificate), str(papers.key), grpc, port, "https://shop.example, http://localhost:3000"],
        ).fetchall()
        assert found[0] == ("tls_certificate", str(papers.certificate), None)
        assert found[2] == ("grpc_port", str(grpc), None)
        connection.execute("DEPLOY MODEL m")
        [(url,)] = connection.execute("SELECT url FROM sqlml.endpoints").fetchall()
        assert url == f"https://127.0.0.1:{port}/v2/models/m"
        asked = urllib.request.Request(
            url.replace("/v2", "") + "/predict", b'{"rows": [{"x": 3}]}', {"origin": "http://localhost:3000"}
        )
        with urllib.request.urlopen(asked, context=papers.trust, timeout=20) as answer:
            assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        with socket.create_connection(("127.0.0.1", grpc), timeout=20):
            pass
        shown = dict(connection.execute("SELECT option, value FROM sqlml.server_settings").fetchall())
        assert shown == {
            "memory": None,
            "port": str(port),
            "tls_certificate": str(papers.certificate),
            "tls_key": str(papers.key),
            "grpc_port": str(grpc),
            "cors_origins": "https://shop.example, http://localhost:3000",
        }
        result = connection.execute("ALTER ENDPOINTS SET (tls_certificate = NULL, tls_key = NULL, cors_origins = NULL)")
        assert result.footer is not None
        assert result.footer.startswith(
            "the server that runs takes tls_certificate, tls_key, cors_origins up when it starts next"
        )
        LocalServer(home_of(database)).stop()
        connection.execute("ALTER ENDPOINT m SET (timeout = 20)")
        connection.execute("DEPLOY MODEL m")
        [(url,)] = connection.execute("SELECT url FROM sqlml.endpoints").fetchall()
        assert url == f"http://127.0.0.1:{port}/v2/models/m"
        connection.execute("INSERT INTO sqlml.feedback (endpoint, request_id, truth) VALUES ('m', 'a', 1)")
        there = {path.name for path in home_of(database).iterdir()}
        assert there >= {"serving.json", "serving.lock", "server.json", "server.lock", "feedback"}
        listed = set(re.findall(r"^        (\S+?)/? ", str(home.__doc__), re.MULTILINE))
        assert {name for name in there if not name.startswith("catalog.db-")} <= listed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("tls_certificate = '{here}'", "tls_certificate needs tls_key"),
        ("tls_certificate = '/nowhere.pem', tls_key = '{here}'", "tls_certificate: cannot read /nowhere.pem: No such file"),
        (
            "cors_origins = 'https://shop.example/app'",
            "'https://shop.example/app' is no origin: write scheme, host and port alone",
        ),
        ("cors_origins = ''", "no origin is given, such as https://shop.example"),
        ("cors_origins = '*, https://shop.example'", r"'\*' lets the pages of all origins ask: give it alone"),
        ("grpc_port = 70000", "option grpc_port"),
        ("port = 9000, grpc_port = 9000", "port and grpc_port are both 9000"),
        ("grpc_port = 8080", "grpc_port is 8080, HTTP's where no port is set"),
        ("tls_certificate = '{here}', tls_key = '{here}'", "no TLS with .*test_alter_endpoints.py"),
    ],
)
def test_what_no_server_could_start_with_is_refused(database: Path, options: str, message: str) -> None:
    with sqlml.connect(database) as connection:
        with pytest.raises(sqlml.Error, match=message):
            connection.execute(f"ALTER ENDPOINTS SET ({options.format(here=__file__)})")
        assert not (home_of(database) / "serving.json").exists()


def test_a_key_of_another_certificate_is_refused(database: Path, tmp_path: Path) -> None:
    papers = Papers(tmp_path / "papers")
    pair = "ALTER ENDPOINTS SET (tls_certificate = ?, tls_key = ?)"
    with sqlml.connect(database) as connection:
        with pytest.raises(sqlml.Error, match=r"the key .*other.pem does not belong to the certificate .*cert.pem"):
            connection.execute(pair, [str(papers.certificate), str(papers.other_key)])
        connection.execute(pair, [str(papers.certificate), str(papers.key)])
        with pytest.raises(sqlml.Error, match="does not belong"):  # to the one that is set
            connection.execute("ALTER ENDPOINTS SET (tls_key = ?)", [str(papers.other_key)])
        connection.execute("ALTER ENDPOINTS SET (port = 9001)")
        with pytest.raises(sqlml.Error, match="port and grpc_port are both 9001"):
            connection.execute("ALTER ENDPOINTS SET (grpc_port = 9001)")
        connection.execute("ALTER ENDPOINTS SET (grpc_port = 8080)")
        with pytest.raises(sqlml.Error, match="grpc_port is 8080, HTTP's where no port is set"):
            connection.execute("ALTER ENDPOINTS SET (port = NULL)")
        connection.execute("ALTER ENDPOINTS SET (grpc_port = NULL)")
    kept = json.loads((home_of(database) / "serving.json").read_text())
    assert kept == {"tls_certificate": str(papers.certificate), "tls_key": str(papers.key), "port": 9001}


def test_of_changes_at_once_none_is_lost(database: Path) -> None:
    """Sessions are threads of one process: each changes an option of its own, again and again, and finds it as it left it."""

    def change(option: str, values: list[str | int]) -> None:
        with sqlml.connect(database) as connection:
            before = None
            for value in values:
                [found] = connection.execute(f"ALTER ENDPOINTS SET ({option} = ?)", [value]).fetchall()
                assert found == (option, str(value) if option == "cors_origins" else value, before), option
                before = found[1]

    turns = range(60)
    with ThreadPoolExecutor(3) as pool:
        work = [
            pool.submit(change, "port", [9000 + turn for turn in turns]),
            pool.submit(change, "grpc_port", [9900 + turn for turn in turns]),
            pool.submit(change, "cors_origins", [f"http://localhost:{3000 + turn}" for turn in turns]),
        ]
    for done in work:
        done.result()
    folder = home_of(database)
    kept = json.loads((folder / "serving.json").read_text())
    assert kept == {"port": 9059, "grpc_port": 9959, "cors_origins": "http://localhost:3059"}
    assert list(folder.glob("serving.json.*")) == []
