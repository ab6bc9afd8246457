"""An engine on a database of one's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sqlml.engines.postgres.engine import PostgresEngine


@pytest.fixture
def engine(postgres: str) -> Iterator[PostgresEngine]:
    opened = PostgresEngine.open(postgres)
    yield opened
    opened.close()
