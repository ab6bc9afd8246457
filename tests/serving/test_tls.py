"""Endpoints over https: a certificate that the test makes, the short way and the long one, and files that make no server."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlml_runners.serving.state import read_state

import sqlml
from sqlml.home import home_of
from tests.serving.conftest import EXAMPLE, Place
from tests.serving.load import until

pytestmark = pytest.mark.slow  # servers of their own


class Papers:
    """A certificate for this machine, its key, somebody else's key, and how to trust it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        authority = trustme.CA()
        mine, other = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("127.0.0.1")
        self.certificate, self.key, self.other_key = folder / "cert.pem", folder / "key.pem", folder / "other.pem"
        for n, blob in enumerate(mine.cert_chain_pems):
            blob.write_to_path(str(self.certificate), append=n > 0)
        mine.private_key_pem.write_to_path(str(self.key))
        other.private_key_pem.write_to_path(str(self.other_key))
        self.authority = authority.cert_pem.bytes()
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)

    @property
    def options(self) -> tuple[str, ...]:
        return "--tls-cert", str(self.certificate), "--tls-key", str(self.key)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path / "papers")


@contextmanager
def server(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server in the foreground, once it listens or has ended."""
    command = [sys.executable, "-m", "sqlml_runners.serving", "--home", str(home), "--foreground", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert until(lambda: child.poll() is not None or read_state(home) is not None, 30)
            yield child
        finally:
            child.kill()


def ask(url: str, papers: Papers, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), context=papers.trust, timeout=20) as answer:
        return json.load(answer)


def test_endpoints_speak_https(place: Place, papers: Papers) -> None:
    version = place.publish("deposit")
    place.catalog.deploy("deposit", version)
    with server(place.folder, *papers.options) as child:
        url = place.server.wait_ready("deposit", 1, 20)
        assert url.startswith("https://127.0.0.1:")
        base = url.removesuffix("/v2/models/deposit")
        short = ask(f"{base}/models/deposit/predict", papers, {"rows": [EXAMPLE]})
        assert short["version"] == 1
        many = ask(f"{base}/models/deposit/predict", papers, {"rows": [EXAMPLE] * 1000})  # beyond the short way
        assert many["predictions"] == short["predictions"] * 1000
        assert ask(url, papers)["name"] == "deposit"
        child.send_signal(signal.SIGHUP)  # workers read the files anew
        assert until(lambda: "rolling restart done" in (child.stderr.readline() if child.stderr else ""), 60)
        assert ask(f"{base}/models/deposit/predict", papers, {"rows": [EXAMPLE]})["predictions"] == short["predictions"]


def test_plain_http_and_strangers_are_turned_away(place: Place, papers: Papers) -> None:
    with server(place.folder, *papers.options):
        state = read_state(place.folder)
        assert state is not None
        with socket.create_connection(("127.0.0.1", state.port), timeout=20) as plain:
            plain.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"HTTP/1.1 200" not in plain.recv(4096)
        with pytest.raises(ssl.SSLCertVerificationError):  # whoever does not trust the certificate
            ssl.create_default_context().wrap_socket(
                socket.create_connection(("127.0.0.1", state.port), timeout=20), server_hostname="127.0.0.1"
            )
        assert ask(f"{state.url}/v2/health/live", papers) == {"live": True}  # and goes on


def test_the_session_sees_https(tmp_path: Path, papers: Papers) -> None:
    database = tmp_path / "a.duckdb"
    with sqlml.connect(database) as connection:
        connection.execute("TRAIN MODEL spends USING linear_regression TARGET y AS SELECT x, 2 * x AS y FROM range(40) t(x)")
        with server(home_of(database), *papers.options):
            connection.execute("DEPLOY MODEL spends")
            ((url,),) = connection.execute("SELECT url FROM sqlml.endpoints").fetchall()
            assert url.startswith("https://127.0.0.1:")
            assert ask(url.replace("/v2", "") + "/predict", papers, {"rows": [{"x": 4}]})["version"] == 1


def wrong_files(papers: Papers) -> dict[str, tuple[Path, Path]]:
    rubbish, nobody = papers.key.with_name("rubbish.pem"), papers.key.with_name("nobody.pem")
    rubbish.write_text("no certificate at all\n")
    return {
        f"--tls-cert: cannot read {nobody}: No such file or directory": (nobody, papers.key),
        f"--tls-key: cannot read {nobody}: No such file or directory": (papers.certificate, nobody),
        f"the key {papers.other_key} does not belong to the certificate {papers.certificate}": (
            papers.certificate,
            papers.other_key,
        ),
        f"no TLS with {rubbish} and {papers.key}": (rubbish, papers.key),
    }


def test_files_that_make_no_server_are_an_error_before_anything_listens(place: Place, papers: Papers) -> None:
    for message, (certificate, key) in wrong_files(papers).items():
        with server(place.folder, "--tls-cert", str(certificate), "--tls-key", str(key)) as child:
            _, errors = child.communicate(timeout=30)
        assert child.returncode == 1
        assert message in errors
        assert "Traceback" not in errors
        assert "listening" not in errors
    with server(place.folder, "--tls-cert", str(papers.certificate)) as child:
        assert "--tls-cert and --tls-key need each other" in child.communicate(timeout=30)[1]
