"""REFRESH ENDPOINT by schedule, with real databases and a real server."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sqlml
from sqlml.statements.refresh_schedule import schedule_text
from tests.session.test_deploy_query import ROW, Shop

DEPLOY = """DEPLOY QUERY e WITH (refresh_every = {every}) AS SELECT s.state, PREDICT(spends USING *) AS x
    FROM (SELECT $id::INTEGER AS k, $age AS age, $job AS job, $balance AS balance) q LEFT JOIN stock s ON s.id = q.k"""

pytestmark = pytest.mark.slow  # schedules in seconds


@pytest.fixture
def shop(people_folder: Path, tmp_path: Path) -> Iterator[Shop]:
    folder = tmp_path / "copy"
    shutil.copytree(people_folder, folder)
    shop = Shop(folder / "people.duckdb")
    shop.run("CREATE TABLE stock AS SELECT range AS id, 'old' AS state FROM range(100)")
    yield shop
    shop.server.stop()
    shop.connection.close()


def state(shop: Shop) -> str:
    status, rows = shop.ask("e", {"id": 1, **ROW})
    assert status == 200
    return str(rows[0]["state"])


def until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def look_ups(shop: Shop) -> list[str]:
    [(found,)] = shop.run("SELECT look_ups FROM sqlml.endpoints WHERE endpoint = 'e'")
    return list(found)


def test_an_open_session_refreshes_what_is_due(shop: Shop) -> None:
    shop.run(DEPLOY.format(every="'1 s'"))
    assert state(shop) == "old"
    shop.run("UPDATE stock SET state = 'new'")
    assert until(lambda: state(shop) == "new")
    shop.run("BEGIN")
    shop.run("UPDATE stock SET state = 'nobody knows yet'")
    shop.run("CREATE TABLE mark AS SELECT 1 AS i")
    made = look_ups(shop)
    time.sleep(2.5)  # two refreshes
    assert (state(shop), len(look_ups(shop)), len(made)) == ("new", 1, 1)
    shop.run("ROLLBACK")  # the transaction was the session's own all the time
    with pytest.raises(sqlml.Error, match="mark"):
        shop.run("FROM mark")


def test_a_schedule_is_taken_up_by_the_next_session_and_waits_visibly_until_then(shop: Shop) -> None:
    shop.run(DEPLOY.format(every="'1 s'"))
    shop.run("UPDATE stock SET state = 'new'")
    shop.connection.close()
    from sqlml.catalog import Catalog

    catalog = Catalog.open(shop.home)
    endpoint = catalog.endpoint("e")
    assert endpoint is not None
    text = schedule_text(catalog.home, endpoint, time.time() + 3600)
    assert text is not None
    assert text.endswith(" s: a refresh waits for a session that has the database open")
    assert schedule_text(catalog.home, endpoint) is None
    catalog.close()
    shop.connection = sqlml.connect(shop.home.with_suffix(".duckdb"))
    assert until(lambda: state(shop) == "new")


def test_a_refresh_that_fails_is_seen_and_the_copy_stays(shop: Shop) -> None:
    shop.run(DEPLOY.format(every="'1 s'"))
    shop.run("DROP TABLE stock")
    assert until(lambda: any("the last refresh failed: " in text and "stock" in text for text in look_ups(shop)))
    assert state(shop) == "old"
    shop.run("CREATE TABLE stock AS SELECT range AS id, 'again' AS state FROM range(100)")
    shop.run("REFRESH ENDPOINT e")
    assert len(look_ups(shop)) == 1
    assert state(shop) == "again"


def test_a_schedule_is_set_and_ended_by_alter(shop: Shop) -> None:
    shop.run(DEPLOY.replace("WITH (refresh_every = {every}) ", ""))
    shop.run("ALTER ENDPOINT e SET (refresh_every = '1 s')")
    shop.run("UPDATE stock SET state = 'new'")
    assert until(lambda: state(shop) == "new")
    shop.run("ALTER ENDPOINT e SET (refresh_every = NULL)")
    time.sleep(1.5)  # one that was under way
    shop.run("UPDATE stock SET state = 'newer'")
    time.sleep(2.5)
    assert state(shop) == "new"


def test_an_endpoint_that_reads_no_table_has_no_schedule(shop: Shop) -> None:
    for statement in (
        "DEPLOY MODEL spends TO ENDPOINT f WITH (refresh_every = '1 h')",
        "DEPLOY QUERY f WITH (refresh_every = '1 h') AS SELECT PREDICT(spends) AS x",
    ):
        with pytest.raises(sqlml.Error, match="refresh_every is of endpoints that look tables up, and this one reads none"):
            shop.run(statement)
    assert shop.run("SELECT * FROM sqlml.endpoints") == []


def test_an_option_makes_no_new_version_of_the_query(shop: Shop) -> None:
    def versions() -> list[str]:
        with urllib.request.urlopen(f"{shop.server.url()}/v2/models/e", timeout=20) as answer:
            return list(json.loads(answer.read())["versions"])

    shop.run(DEPLOY.format(every="'1 hour'"))
    first = versions()
    shop.run("ALTER ENDPOINT e SET (refresh_every = '2 hours', timeout = '9 s')")
    assert versions() == first
    shop.run(DEPLOY.format(every="'1 hour'"))
    assert versions() == first
    shop.run(DEPLOY.format(every="'1 hour'").replace("s.state", "upper(s.state) AS state"))
    assert versions() != first
