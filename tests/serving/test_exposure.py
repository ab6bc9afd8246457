"""What a server's log says where it listens beyond this machine."""

from __future__ import annotations

import logging
import re
import signal
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlml_runners.serving.control import LocalServer
from sqlml_runners.serving.exposure import OpenEndpoints, clear_line
from sqlml_runners.serving.options import ServerOptions

from sqlml.catalog import Arm, Endpoint, Share
from sqlml.catalog.frozen import FILE, frozen_text
from sqlml.types import Task
from tests.serving.conftest import Place
from tests.serving.test_tls import Papers, server

HERE = ServerOptions(Path("home"))
ANYWHERE = "0.0.0.0"
OUT = replace(HERE, host=ANYWHERE)


def endpoint(name: str, **options: object) -> Endpoint:
    return Endpoint(name, (Arm("m", 1, "u", Path("/b"), "s", ""),), 1, datetime(2026, 1, 1, tzinfo=UTC), options=options)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_on_loopback_there_is_nothing_to_say(host: str) -> None:
    options = replace(HERE, host=host)
    assert clear_line(options) is None
    assert OpenEndpoints(options).news([endpoint("e")]) is None


@pytest.mark.parametrize("host", [ANYWHERE, "::", "", "10.0.0.7", "bank.example"])
def test_beyond_it_there_is_a_warning_unless_tls_is_spoken(host: str) -> None:
    options = replace(HERE, host=host)
    line = clear_line(options)
    assert line is not None
    level, text = line
    assert level == logging.WARNING
    assert f"listening on {host or 'every address'} without TLS" in text
    assert "--tls-cert" in text
    assert clear_line(replace(options, tls_cert=Path("c"), tls_key=Path("k"))) is None


def test_endpoints_without_a_key_are_named_once() -> None:
    told = OpenEndpoints(OUT)
    closed = endpoint("closed", auth="key")
    line = told.news([endpoint("A"), closed, endpoint("b")])
    assert line == (
        logging.WARNING,
        "whoever reaches the server may ask without a key: A, b; ALTER ENDPOINT … SET (auth = 'key') asks for one",
    )
    assert told.news([endpoint("a"), closed, endpoint("b")]) is None
    later = told.news([endpoint("A"), endpoint("closed"), endpoint("b")])
    assert later is not None
    assert "without a key: closed;" in later[1]
    assert told.news([endpoint("A", auth="key"), endpoint("b")]) is None
    assert told.news([endpoint("A"), endpoint("b")]) is not None  # it was closed in between


def test_a_container_is_not_alarmed() -> None:
    options = replace(OUT, frozen=Path(FILE))
    lines = [clear_line(options), OpenEndpoints(options).news([endpoint("e")])]
    assert [line and line[0] for line in lines] == [logging.INFO, logging.INFO]


def log_of(home: Path, *arguments: str) -> str:
    """What a server writes from its start until ``deposit`` is ready, and it is stopped."""
    with server(home, *arguments) as child:
        LocalServer(home).wait_ready("deposit", 1, 30)
        child.send_signal(signal.SIGTERM)
        return child.communicate(timeout=30)[1]


@pytest.mark.slow
def test_a_real_server_says_so(place: Place, tmp_path: Path) -> None:
    version = place.publish("deposit", task=Task.CLUSTERING)
    place.catalog.put_endpoint("keyed", [Share(version.uid)], options={"auth": "key"}, reason="DEPLOY")
    place.catalog.deploy("deposit", version)
    papers = Papers(tmp_path / "papers")
    told = log_of(place.folder, "--host", ANYWHERE)
    assert len(re.findall(r"WARNING .*listening on 0\.0\.0\.0 without TLS", told)) == 1
    assert re.findall(r"WARNING .*without a key: (.*);", told) == ["deposit"]
    safe = log_of(place.folder, "--host", ANYWHERE, *papers.options)
    assert "without TLS" not in safe
    assert re.findall(r"WARNING .*without a key: (.*);", safe) == ["deposit"]


@pytest.mark.slow
def test_what_export_wrote_says_it_calmly(place: Place, tmp_path: Path) -> None:
    place.catalog.deploy("deposit", place.publish("deposit", task=Task.CLUSTERING))
    found = place.catalog.endpoint("deposit")
    assert found is not None
    frozen = place.folder / FILE  # beside the bundles
    frozen.write_text(frozen_text(found), encoding="utf-8")
    told = log_of(tmp_path / "state", "--frozen", str(frozen), "--host", ANYWHERE)
    assert "INFO sqlml.serving: listening on 0.0.0.0 without TLS, as a container does" in told
    assert "INFO sqlml.serving: whoever reaches the server may ask without a key: deposit" in told
    assert "WARNING" not in told
