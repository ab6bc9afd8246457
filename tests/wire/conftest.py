"""Both servers, once for a worker's run; and one for HTTP and guests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wire.places import Place, both, serving
from tests.wire.served import MOST, Served


@pytest.fixture(scope="session")
def places() -> Iterator[tuple[Place, Place]]:
    """sqlml and PostgreSQL."""
    with both() as found:
        yield found


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A database that a server has open, with room for few clients."""
    file = tmp_path_factory.mktemp("served") / "bank.duckdb"
    with serving(file, "--max-connections", str(MOST)) as (place, child):
        yield Served(file, place, child.pid)
