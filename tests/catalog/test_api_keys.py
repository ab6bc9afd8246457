"""API keys in the catalog: secrets are shown once and never kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sqlml.catalog import Catalog
from sqlml.catalog.api_keys import LeftKeys, forget_endpoint, hash_secret
from sqlml.catalog.database import writing
from sqlml.errors import BindError

HOUR = timedelta(hours=1)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(tmp_path / "bank.sqlml")
    yield catalog
    catalog.close()


def later(by: timedelta = timedelta()) -> datetime:
    return datetime.now(UTC).replace(tzinfo=None) + by


def test_only_the_hash_of_a_secret_is_kept(catalog: Catalog, tmp_path: Path) -> None:
    before = catalog.endpoints_revision()
    secret = catalog.create_api_key("Shop", ["Churn", "spend"], rate_limit=50.0)
    [key] = catalog.api_keys()
    assert secret.startswith("sqlml_")
    assert len(secret) > 40
    assert (key.name, key.endpoints, key.rate_limit, key.expires_at) == ("Shop", ("churn", "spend"), 50.0, None)
    assert key.valid_hashes(later()) == (hash_secret(secret),)
    assert secret.startswith(key.prefix)
    assert len(key.prefix) == 10
    assert catalog.endpoints_revision() == before + 1
    catalog.close()
    for path in (tmp_path / "bank.sqlml").rglob("*"):
        assert not path.is_file() or secret[10:].encode() not in path.read_bytes()
    with sqlite3.connect(tmp_path / "bank.sqlml" / "catalog.db") as database:
        assert secret[10:] not in "\n".join(database.iterdump())


def test_a_key_opens_its_endpoints(catalog: Catalog) -> None:
    catalog.create_api_key("one", ["churn"])
    catalog.create_api_key("all", [])
    one, everything = catalog.api_key("ONE"), catalog.api_key("all")
    assert (one.opens("Churn"), one.opens("spend"), everything.opens("spend")) == (True, False, True)


def test_a_key_loses_its_endpoint_with_it_and_never_comes_to_open_all(catalog: Catalog) -> None:
    catalog.create_api_key("two", ["churn", "spend"])
    catalog.create_api_key("all", [])
    with writing(catalog._engine) as c:
        assert forget_endpoint(c, "Spend") == LeftKeys((), {"Spend": ("two",)})
    assert [key.endpoints for key in catalog.api_keys()] == [(), ("churn",)]
    with writing(catalog._engine) as c:
        assert forget_endpoint(c, "churn") == LeftKeys(("two",))
    assert [(key.name, key.endpoints) for key in catalog.api_keys()] == [("all", ())]


def test_rotation_gives_a_new_secret_and_the_old_one_a_time(catalog: Catalog) -> None:
    first = catalog.create_api_key("k", [])
    second = catalog.rotate_api_key("K", HOUR)
    assert catalog.api_key("k").valid_hashes(later()) == (hash_secret(second), hash_secret(first))
    assert catalog.api_key("k").valid_hashes(later(2 * HOUR)) == (hash_secret(second),)
    third = catalog.rotate_api_key("k", timedelta())
    assert catalog.api_key("k").valid_hashes(later()) == (hash_secret(third),)
    assert len({first, second, third}) == 3
    assert third.startswith(catalog.api_key("k").prefix)


def test_a_longer_grace_does_not_lengthen_an_earlier_one(catalog: Catalog) -> None:
    first = catalog.create_api_key("k", [])
    catalog.rotate_api_key("k", HOUR)
    catalog.rotate_api_key("k", 10 * HOUR)
    assert hash_secret(first) not in catalog.api_key("k").valid_hashes(later(2 * HOUR))


def test_a_key_ends(catalog: Catalog) -> None:
    catalog.create_api_key("k", [], lasts=HOUR)
    key = catalog.api_key("k")
    assert key.expires_at is not None
    assert len(key.valid_hashes(later())) == 1
    assert key.valid_hashes(later(2 * HOUR)) == ()
    catalog.create_api_key("gone", [], lasts=timedelta())
    with pytest.raises(BindError, match="the API key gone ended at") as error:
        catalog.rotate_api_key("gone", timedelta())
    assert "expires = '90 days'" in str(error.value)
    secret = catalog.rotate_api_key("gone", timedelta(), lasts=HOUR)
    assert catalog.api_key("gone").valid_hashes(later()) == (hash_secret(secret),)


def test_names(catalog: Catalog) -> None:
    with pytest.raises(BindError, match="unknown API key k") as error:
        catalog.drop_api_key("k")
    assert "CREATE API KEY makes one" in str(error.value)
    catalog.create_api_key("Shop", [])
    with pytest.raises(BindError, match="there is an API key Shop already"):
        catalog.create_api_key("SHOP", [])
    with pytest.raises(BindError) as error:
        catalog.rotate_api_key("shp", timedelta())
    assert "did you mean Shop?" in str(error.value)
    catalog.drop_api_key("shop")
    assert catalog.api_keys() == ()
