"""pgjdbc and node-postgres, where this machine has them: what they print on sqlml is what they print on a PostgreSQL.

pgjdbc speaks over TCP alone, which the PostgreSQL of a wheel does not: PostgreSQL 15 gave what is kept in ``pgjdbc.txt``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sqlml.errors import Error
from sqlml.spark_common.java import find_java
from tests.wire.places import Place

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
JARS = [
    *Path.home().glob(".m2/repository/org/postgresql/postgresql/*/postgresql-*.jar"),
    *Path("/usr/share/java").glob("postgresql.jar"),
]


def java() -> Path | None:
    """A Java that runs a source file."""
    try:
        return find_java() / "bin" / "java"
    except Error:
        return None


def test_pgjdbc(places: tuple[Place, Place]) -> None:
    program = java()
    if program is None or not JARS:
        pytest.skip("pgjdbc needs a Java, and its jar: apt-get install libpostgresql-jdbc-java")
    ours = places[0]
    url = f"jdbc:postgresql://{ours.host}:{ours.port}/{ours.database}"
    command = [str(program), "-cp", str(JARS[-1]), str(HERE / "Client.java"), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == (HERE / "pgjdbc.txt").read_text(encoding="utf-8"), done.stderr


def test_node_postgres(places: tuple[Place, Place], tmp_path: Path) -> None:
    """Its package is installed for the test, where npm can."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no node, or no npm")
    installed = subprocess.run([npm, "install", "--silent", "pg@8"], cwd=tmp_path, capture_output=True, timeout=100, check=False)
    if installed.returncode:
        pytest.skip("npm cannot install pg@8")
    environment = {**os.environ, "NODE_PATH": str(tmp_path / "node_modules"), "TZ": "UTC"}
    found = []
    for place in places:
        command = [node, str(HERE / "client.js"), place.host, str(place.port), place.database]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.splitlines())
    assert len(found[0]) > 10
    assert found[0] == found[1]
