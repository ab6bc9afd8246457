"""A database file that a server has open, for what must be the same through it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.places import serving


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file, which ``sqlml serve`` holds for the whole run."""
    database = tmp_path_factory.mktemp("served") / "bank.duckdb"
    with serving(database):
        yield database
