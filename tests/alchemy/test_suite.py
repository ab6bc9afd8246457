"""SQLAlchemy's suite for dialects, whole; what is not supported is in ``suite/unsupported.py``, with its reason."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sqlml

SUITE = Path(__file__).with_name("suite")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_suite(tmp_path: Path) -> None:
    file = tmp_path / "suite.duckdb"
    with sqlml.connect(file) as connection:
        connection.execute("CREATE SCHEMA test_schema")
    plugins = [word for name in ("no:cacheprovider", "no:xdist", "tests.alchemy.suite.unsupported") for word in ("-p", name)]
    where = ["-c", "setup.cfg", "--rootdir", ".", "--dburi", f"sqlml:///{file}"]
    command = [sys.executable, "-m", "pytest", *where, *plugins, "--maxfail=1000", "suite.py"]
    done = subprocess.run(command, cwd=SUITE, capture_output=True, text=True, timeout=580)
    last = done.stdout.strip().splitlines()[-1]
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert not failed, "\n".join([*failed[:30], last])
    passed = re.search(r"(\d+) passed", last)
    assert passed is not None, done.stdout[-2000:]
    assert int(passed[1]) > 1200, last
    print(last)
