"""SQL over HTTP: what is answered, to whom, and what a page of another site cannot do."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pyarrow as pa
import pytest

from sqlml.wire.http.requests import ARROW, BODY_BYTES
from sqlml.wire.users import write_user
from tests.wire.certificates import make_certificate
from tests.wire.places import Place, serving
from tests.wire.served import ENDLESS, JSON, LARGE, MOST, Served, asking, post, raw

pytestmark = pytest.mark.slow

TYPES = """
    SELECT 42 AS i, 1.50::DECIMAL(9, 2) AS d, 0.1 + 0.2::DOUBLE AS f, 'nan'::DOUBLE AS nan, true AS b, 'ä"\n' AS s,
    NULL AS nothing, [1, NULL] AS l, {'a': 1, 'b': 'x'} AS st, MAP {'k': 1} AS m, '{"a": [1]}'::JSON AS j,
    DATE '2024-02-29' AS day,
    TIMESTAMP '2024-02-29 01:02:03.5' AS ts, INTERVAL 36 HOURS AS iv, '\\xFF'::BLOB AS bin, 'a'::ENUM ('a', 'b') AS e,
    2::HUGEINT ** 1 AS p, 170141183460469231731687303715884105727::HUGEINT AS h, [INTERVAL 1 DAY] AS li, '101'::BIT AS bits
"""
VALUES = {
    "i": 42, "d": 1.5, "f": 0.30000000000000004, "nan": None, "b": True, "s": 'ä"\n', "nothing": None, "l": [1, None],
    "st": {"a": 1, "b": "x"}, "m": {"k": 1}, "j": {"a": [1]}, "day": "2024-02-29", "ts": "2024-02-29 01:02:03.5",
    "iv": "36:00:00", "bin": "\\xff", "e": "a", "p": 2.0, "h": 2**127 - 1, "bits": "101",
}  # fmt: skip


def test_curl(served: Served) -> None:
    command = [
        "curl", "-s", served.url, "-H", "Content-Type: application/json",
        "-d", '{"statement": "SELECT 40 + ? AS answer", "parameters": [2]}',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = '{"kind": "sql", "columns": [{"name": "answer", "type": "INTEGER"}], "rows": [\n{"answer": 42}\n], "rowcount": 1}\n'
    assert done.stdout == answer
    readme = (Path(__file__).parents[2] / "sqlml/wire/http/README.md").read_text(encoding="utf-8")
    assert answer.splitlines() == [line.strip() for line in readme.splitlines()[3:6]]


def test_types(served: Served) -> None:
    status, found = post(served.url, {"statement": TYPES})
    assert status == 200
    [row] = found["rows"]
    assert {name: row[name] for name in VALUES} == VALUES
    assert len(row["li"]) == 1  # a list of what Arrow writes no text of
    assert {"name": "d", "type": "DECIMAL(9,2)"} in found["columns"]


def test_many_rows(served: Served) -> None:
    _, found = post(served.url, {"statement": "SELECT range AS n FROM range($most)", "parameters": {"most": 300_000}})
    assert found["rowcount"] == 300_000
    assert [row["n"] for row in found["rows"]] == list(range(300_000))
    assert post(served.url, {"statement": "SELECT 1 AS a WHERE false"})[1]["rows"] == []


def test_arrow(served: Served) -> None:
    body = {"statement": "SELECT range AS n, ['x', 'y'][1 + range % 2]::ENUM ('x', 'y') AS e FROM range(300000)"}
    status, data = raw(served.url, json.dumps(body).encode(), JSON | {"Accept": ARROW})
    assert status == 200
    table = pa.ipc.open_stream(io.BytesIO(data)).read_all()
    assert table.column("n").to_pylist() == list(range(300_000))
    assert pa.types.is_dictionary(table.schema.field("e").type)
    status, found = raw(served.url, b'{"statement": "SELECT nope"}', JSON | {"Accept": ARROW})
    assert (status, json.loads(found)["error"]["sqlstate"]) == (400, "42703")


def test_statements_without_rows(served: Served) -> None:
    script = "CREATE OR REPLACE TABLE counted AS FROM range(5); UPDATE counted SET range = 1"
    counted = {"kind": "sql", "rowcount": 5}
    assert post(served.url, {"statement": script}) == (200, {"earlier": [counted], **counted})
    assert post(served.url, {"statement": "DROP TABLE counted"}) == (200, {"kind": "sql", "rowcount": None})
    train = "TRAIN MODEL posted USING linear_regression TARGET y ON inline AS SELECT range AS x, 2 * range AS y FROM range(500)"
    status, found = post(served.url, {"statement": train})
    assert (status, found["kind"], found["rows"][0]["model"]) == (200, "train", "posted")
    assert found["footer"].startswith("held-out: 100 rows")
    assert "x looks like a row identifier" in found["notices"][0]


def test_what_a_request_leaves_open_is_rolled_back(served: Served) -> None:
    post(served.url, {"statement": "BEGIN; CREATE TABLE not_kept (a INT)"})
    assert post(served.url, {"statement": "FROM not_kept"})[0] == 400


LEAVINGS = (
    ("CREATE TEMP TABLE leaked AS SELECT 1 AS a", "FROM leaked", "42P01"),
    ("CREATE TEMP MACRO leaked() AS 1", "SELECT leaked()", "42883"),
    ("CREATE TEMP VIEW leaked AS SELECT 1 AS a", "FROM leaked", "42P01"),
    ("PREPARE leaked AS SELECT 1", "EXECUTE leaked", None),
    ("BEGIN; CREATE TABLE leaked (a INT); INSERT INTO leaked VALUES (1)", "FROM leaked", "42P01"),
)
"""What a request may leave behind, and what the next must not see; the SQLSTATE with which it does not."""
SETTINGS = (
    ("SET VARIABLE leaked = 1", "getvariable('leaked')"),
    ("SET timezone = 'Asia/Tokyo'", "current_setting('timezone')"),
    ("SET search_path = 'temp'", "current_setting('search_path')"),
    ("SET default_null_order = 'nulls_first'", "current_setting('default_null_order')"),
)


def test_nothing_of_a_request_is_seen_by_the_next(served: Served) -> None:
    """Neither on the same connection, nor by the same client."""
    connection = http.client.HTTPConnection("127.0.0.1", served.place.port)
    connection.connect()

    def ask(statement: str) -> tuple[int, Any]:
        connection.request("POST", "/sql", json.dumps({"statement": statement}), JSON)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    for leaving, seeing, sqlstate in LEAVINGS:
        assert ask(leaving)[0] == 200
        assert ask(f"{leaving}; {seeing}")[0] == 200, "this test would see it"
        status, found = ask(seeing)
        assert status == 400
        assert sqlstate in (None, found["error"]["sqlstate"])
    for leaving, seeing in SETTINGS:
        before = ask(f"SELECT {seeing} AS v")[1]["rows"]
        assert ask(f"{leaving}; SELECT {seeing} AS v")[1]["rows"] != before
        assert ask(f"SELECT {seeing} AS v")[1]["rows"] == before
    connection.close()


def test_requests_at_once_do_not_see_each_other(served: Served) -> None:
    found: list[Any] = []

    def ask(who: int) -> None:
        script = (
            f"SET VARIABLE who = {who}; CREATE TEMP TABLE own AS SELECT {who} AS w; SELECT w, getvariable('who') AS v FROM own"
        )
        found.extend(post(served.url, {"statement": script})[1]["rows"] for _ in range(10))

    threads = [threading.Thread(target=ask, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found, key=lambda rows: rows[0]["w"]) == [[{"w": who, "v": who}] for who in range(4) for _ in range(10)]


@pytest.mark.parametrize(
    ("statement", "status", "sqlstate", "kind", "place"),
    [
        ("SELECT 1,\n  nope FROM range(3)", 400, "42703", "EngineError", {"line": 2, "column": 3}),
        ("SELECT 1; TRAIN MODEL m USNG x", 400, "42601", "ParseError", {"line": 1, "column": 25}),
        ("DESCRIBE MODEL nobody", 400, "42704", "UnknownModel", {"line": 1, "column": 16}),
        ("SELECT 'x'::INTEGER", 400, "22P02", "DataError", {"line": 1, "column": 11}),
        ("CREATE TEMP TABLE k (a INT PRIMARY KEY); INSERT INTO k VALUES (1), (1)", 409, "23505", "IntegrityError", None),
        ("COPY (SELECT 42) TO STDOUT", 400, "0A000", "NotSupportedError", {"line": 1, "column": 1}),
        ("COPY k FROM '/dev/stdin'", 400, "0A000", "NotSupportedError", {"line": 1, "column": 1}),
        ("SAVEPOINT here", 400, "0A000", "NotSupportedError", {"line": 1, "column": 1}),
    ],
)
def test_errors(served: Served, statement: str, status: int, sqlstate: str, kind: str, place: Any) -> None:
    found_status, found = post(served.url, {"statement": statement})
    error = found["error"]
    assert (found_status, error["sqlstate"], error["class"], error.get("position")) == (status, sqlstate, kind, place)
    assert error["text"].startswith(error["message"])
    assert place is None or "^" in error["text"]


@pytest.fixture
def one_thread(served: Served) -> Iterator[None]:
    """The database works with one thread: what comes first in the rows is made first."""
    post(served.url, {"statement": "SET threads = 1"})
    yield
    post(served.url, {"statement": "RESET threads"})


@pytest.mark.usefixtures("one_thread")
def test_an_error_after_the_first_rows(served: Served) -> None:
    late = "SELECT CASE WHEN range < 600000 THEN range ELSE error('too late') END AS n FROM range(600001)"
    status, found = post(served.url, {"statement": late})
    assert status == 200
    assert found["rows"][0] == {"n": 0}
    assert "too late" in found["error"]["message"]
    with pytest.raises(http.client.IncompleteRead):
        raw(served.url, json.dumps({"statement": late}).encode(), JSON | {"Accept": ARROW})


def test_a_time_out(served: Served) -> None:
    status, found = post(served.url, {"statement": ENDLESS, "statement_timeout": "100ms"})
    assert (status, found["error"]["sqlstate"]) == (504, "57014")
    assert found["error"]["message"] == "the statement has reached its statement_timeout"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is no JSON"),
        (b"[1]", "an object with a statement"),
        (b'{"statement": 1}', "an object with a statement"),
        (b'{"statement": "SELECT 1", "paramters": []}', "a request has no paramters"),
        (b'{"statement": "SELECT 1", "parameters": 1}', "parameters must be a list"),
        (b'{"statement": "SELECT 1", "statement_timeout": "soon"}', "statement_timeout"),
        (b'{"statement": "SELECT 1", "on_disconnect": "wait"}', "keep or cancel"),
        (b"\xff", "not UTF-8"),
        (b"[" * 200_000, "too many brackets"),
    ],
)
def test_bodies_that_are_none(served: Served, body: bytes, message: str) -> None:
    status, found = raw(served.url, body, JSON)
    assert status == 400
    assert message in json.loads(found)["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (JSON | {"Origin": "https://evil.example"}, 403),
        (JSON | {"Origin": "null"}, 403),
        (JSON | {"Host": "evil.example"}, 403),
        (JSON | {"Host": "127.0.0.1.evil.example"}, 403),
        (JSON | {"Accept": "text/html"}, 406),
        (JSON | {"Authorization": "Bearer wrong", "Upgrade": "sqlml/1", "Connection": "upgrade"}, 401),
    ],
)
def test_whoever_may_not(served: Served, headers: dict[str, str], status: int) -> None:
    assert raw(served.url, b'{"statement": "CREATE TABLE stolen (a INT)"}', headers)[0] == status
    assert post(served.url, {"statement": "FROM stolen"})[0] == 400


def test_a_browser_that_asks_first_is_refused(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.place.port)
    asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    connection.request("OPTIONS", "/sql", headers=asking)
    response = connection.getresponse()
    assert (response.status, response.read() != b"") == (405, True)
    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]
    connection.request("POST", "/sql", b'{"statement": "SELECT 1 AS a"}', JSON)  # the connection lives on
    assert json.loads(connection.getresponse().read())["rows"] == [{"a": 1}]
    connection.close()


def test_other_places_and_methods(served: Served) -> None:
    base = served.url.removesuffix("/sql")
    assert raw(f"{base}/", None, {})[0] == 404
    assert raw(served.url, None, {})[0] == 405
    assert raw(served.url, None, {}, method="HEAD") == (405, b"")


def test_a_body_that_is_too_large(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.place.port), 30) as client:
        head = (
            f"POST /sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {BODY_BYTES + 1}\r\n\r\n"
        )
        client.sendall(head.encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
    large = {"statement": "SELECT length(?) AS n", "parameters": ["x" * (2 << 20)]}
    assert post(served.url, large)[1]["rows"] == [{"n": 2 << 20}]


@pytest.mark.parametrize("header", ["Expect: 100-continue", "Transfer-Encoding: chunked"])
def test_curls_ways_to_send_a_large_body(served: Served, header: str, tmp_path: Path) -> None:
    (tmp_path / "body").write_text(json.dumps({"statement": "SELECT length(?) AS n", "parameters": ["x" * 3_000_000]}))
    command = ["curl", "-s", served.url, "-H", "Content-Type: application/json", "-H", header, "-d", f"@{tmp_path / 'body'}"]
    done = subprocess.run([*command, "--expect100-timeout", "60"], capture_output=True, text=True, check=True, timeout=50)
    assert json.loads(done.stdout)["rows"] == [{"n": 3_000_000}]


def test_whoever_goes_away_frees_the_room(served: Served) -> None:
    for statement in (ENDLESS, LARGE):
        with contextlib.ExitStack() as clients:
            for _ in range(MOST):
                clients.enter_context(asking(served.place, statement))
            while not answers_by(served, 503, 2):  # one was refused because of who looked
                clients.enter_context(asking(served.place, statement))
        assert answers_by(served, 200, 60)


def answers_by(served: Served, status: int, seconds: float) -> bool:
    """Whether the server answers so within so many seconds."""
    deadline = time.monotonic() + seconds
    while post(served.url, {"statement": "SELECT 1"})[0] != status:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_no_http(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.place.port), 30) as client:
        client.sendall(b"EHLO there\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Path, Path]]:
    """A server for other machines: users and TLS; its certificate and database."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate, key = make_certificate(folder)
    write_user(folder / "users", "ann", "sécret")
    arguments = ["--host", "0.0.0.0", "--users", str(folder / "users"), "--tls-cert", str(certificate), "--tls-key", str(key)]
    with serving(folder / "bank.duckdb", *arguments) as (place, _):
        yield place, certificate, folder / "bank.duckdb"


def test_users_and_tls(guarded: tuple[Place, Path, Path]) -> None:
    place, certificate, _ = guarded
    context = ssl.create_default_context(cafile=str(certificate))
    url, body = f"https://localhost:{place.port}/sql", {"statement": "SELECT 42 AS a"}
    assert post(url.replace("https", "http"), body)[0] == 403
    assert post(url, body, context=context)[0] == 401
    assert post(url, body, _basic("ann:wrong"), context=context)[0] == 401
    assert post(url, body, _basic("bob:sécret"), context=context)[0] == 401
    assert post(url, body, {"Authorization": "Basic ???"}, context=context)[0] == 401
    status, found = post(url, body, _basic("ann:sécret"), context=context)
    assert (status, found["rows"]) == (200, [{"a": 42}])
    assert post(url, body, _basic("ann:sécret") | {"Origin": "https://evil.example"}, context=context)[0] == 403


def test_no_password_in_clear_where_there_is_a_certificate(tmp_path: Path) -> None:
    """On this machine too; PostgreSQL's clients, which never send the password, need no TLS here."""
    certificate, key = make_certificate(tmp_path)
    write_user(tmp_path / "users", "ann", "secret")
    arguments = ["--users", str(tmp_path / "users"), "--tls-cert", str(certificate), "--tls-key", str(key)]
    with serving(tmp_path / "bank.duckdb", *arguments) as (place, _):
        url, body = f"http://localhost:{place.port}/sql", {"statement": "SELECT 42 AS a"}
        for headers in ({}, _basic("ann:secret")):
            status, _, asked = _challenge(url, body, headers)
            assert (status, asked) == (403, None)  # nobody is asked for it either
        context = ssl.create_default_context(cafile=str(certificate))
        assert post(url.replace("http", "https"), body, _basic("ann:secret"), context=context)[0] == 200
        for mode in ("disable", "require"):
            info = (
                f"host=127.0.0.1 port={place.port} dbname=bank user=ann password=secret sslmode={mode} require_auth=scram-sha-256"
            )
            with psycopg.connect(info) as client:
                assert client.pgconn.used_password


def _challenge(url: str, body: object, headers: dict[str, str]) -> tuple[int, bytes, str | None]:
    """The status, the body, and how the server asks who one is."""
    address = urlsplit(url)
    client = http.client.HTTPConnection(address.hostname or "", address.port)
    client.request("POST", address.path, json.dumps(body), JSON | headers)
    found = client.getresponse()
    read = found.read()
    client.close()
    return found.status, read, found.getheader("WWW-Authenticate")


def _basic(login: str) -> dict[str, str]:
    import base64

    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def test_a_guest_of_a_server_for_other_machines(guarded: tuple[Place, Path, Path]) -> None:
    import sqlml

    place, _, file = guarded
    with sqlml.connect(file) as connection:
        assert connection.through is not None
        assert connection.through.endswith(f"port {place.port}")
        assert connection.execute("SELECT count(*) FROM range(300000)").fetchall() == [(300_000,)]


def test_several_statements_have_several_results(served: Served) -> None:
    made = "CREATE TABLE several AS SELECT range AS a FROM range(3)"
    text = f"{made}; SELECT sum(a) AS s FROM several; DROP TABLE several; SELECT 7 AS n"
    status, found = post(served.url, {"statement": text})
    assert status == 200
    assert found["rows"] == [{"n": 7}]
    assert [(one.get("rows"), one["rowcount"]) for one in found["earlier"]] == [(None, 3), ([{"s": 3}], 1), (None, None)]
    assert found["earlier"][1]["columns"] == [{"name": "s", "type": "HUGEINT"}]
    assert "earlier" not in post(served.url, {"statement": "SELECT 7 AS n;"})[1]


def test_several_arrow_streams_stand_one_behind_the_other(served: Served) -> None:
    text = "SET threads = 2; SELECT 1 AS a; SELECT range AS b FROM range(200000); SELECT 'x' AS c"
    status, found = raw(served.url, json.dumps({"statement": text}).encode(), JSON | {"Accept": ARROW})
    assert status == 200
    source = io.BytesIO(found)
    tables = [pa.ipc.open_stream(source).read_all() for _ in range(3)]
    assert [(table.column_names, table.num_rows) for table in tables] == [(["a"], 1), (["b"], 200000), (["c"], 1)]
    assert source.read() == b""


def test_an_error_of_one_of_several_statements_has_its_place(served: Served) -> None:
    status, found = post(served.url, {"statement": "SELECT 1;\nSELECT nope;\nSELECT 2"})
    assert status == 400
    assert found["error"]["position"] == {"line": 2, "column": 8}
    status, found = post(served.url, {"statement": "CREATE TABLE never (a INTEGER); TRAIN MODEL"})
    assert status == 400
    assert post(served.url, {"statement": "SELECT * FROM never"})[0] == 400  # nothing of a text runs that cannot be read
