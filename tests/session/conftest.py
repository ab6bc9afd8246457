"""What tests of statements share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.session.endpoint_bank import Bank


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.duckdb")
    yield bank
    bank.stop()
    bank.connection.close()


@pytest.fixture
def bank(trained: Bank) -> Iterator[Bank]:
    """With m@1 behind the endpoint e, and nothing else deployed; the server goes on."""
    trained.run("DEPLOY MODEL m@1 TO ENDPOINT e")
    yield trained
    for (name,) in trained.run("SELECT DISTINCT endpoint FROM sqlml.endpoints WHERE endpoint <> 'e'"):
        trained.run(f'UNDEPLOY ENDPOINT "{name}"')
    trained.run("ALTER ENDPOINT e SET (replicas = NULL, timeout = NULL, auth = NULL, sticky = NULL, log = NULL)")
    for (name,) in trained.run("SELECT api_key FROM sqlml.api_keys"):
        trained.run(f"DROP API KEY {name}")
