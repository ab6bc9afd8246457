"""Sessions side by side on one database and catalog: what they share, and what is each one's alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sqlml.bundles.model import Model
from sqlml.errors import EngineError
from sqlml.session import Session

TRAIN = "TRAIN MODEL m USING linear_regression TARGET y ON inline AS SELECT x, {} * x AS y FROM range(100) r(x)"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Session]:
    session = Session(str(tmp_path / "bank.duckdb"))
    yield session
    session.close()


@pytest.fixture
def pair(root: Session) -> Iterator[tuple[Session, Session]]:
    first, second = root.another(), root.another()
    yield first, second
    first.close()
    second.close()


def rows(session: Session, text: str, values: Any = ()) -> list[tuple[Any, ...]]:
    """The rows of a statement."""
    _, result = session.execute(text, values)
    return [tuple(row.values()) for batch in result.batches or () for row in batch.to_pylist()]


def test_what_each_has_alone(pair: tuple[Session, Session]) -> None:
    first, second = pair
    rows(first, "CREATE TABLE shared (a INT)")
    rows(first, "CREATE TEMP TABLE own (a INT)")
    rows(first, "SET VARIABLE who = 'ann'")
    rows(first, "SET search_path = 'temp'")
    rows(first, "PREPARE again AS SELECT 1")
    first.begin()
    rows(first, "INSERT INTO bank.shared VALUES (1)")
    assert rows(second, "SELECT count(*), getvariable('who'), current_schema() FROM shared") == [(0, None, "main")]
    for text in ("FROM own", "EXECUTE again"):
        with pytest.raises(EngineError):
            rows(second, text)
    first.commit()
    assert rows(second, "SELECT count(*) FROM shared") == [(1,)]


def test_settings_are_each_ones_own(pair: tuple[Session, Session]) -> None:
    """Also those that DuckDB sets for all unless it is told otherwise; in a transaction, too."""
    first, second = pair
    nulls = "SELECT x FROM (VALUES (1), (NULL)) t(x) ORDER BY x"
    rows(first, "SET default_null_order = 'nulls_first'")
    assert rows(first, nulls) == [(None,), (1,)]
    assert rows(second, nulls) == [(1,), (None,)]
    rows(first, "RESET default_null_order")
    assert rows(first, nulls) == [(1,), (None,)]
    threads = "SELECT current_setting('threads')"
    before = rows(second, threads)
    first.begin()
    rows(first, "CREATE TABLE kept (a INT)")
    rows(first, "SET threads = 1")  # which cannot be one connection's
    first.commit()
    assert rows(second, threads) == [(1,)]
    assert rows(first, "SELECT count(*) FROM kept") == [(0,)]
    rows(first, "RESET threads")
    assert rows(second, threads) == before


def test_models_of_one_are_the_others(root: Session, pair: tuple[Session, Session]) -> None:
    first, second = pair
    rows(first, TRAIN.format(2))
    assert rows(second, "SELECT round(PREDICT(m)) FROM (SELECT 10 AS x)") == [(20.0,)]
    assert rows(root, "SELECT model FROM sqlml.models") == [("m",)]


def test_a_view_follows_whoever_trains(pair: tuple[Session, Session]) -> None:
    first, second = pair
    rows(first, TRAIN.format(2))
    rows(first, "CREATE TABLE t AS SELECT 10 AS x")
    rows(first, "CREATE VIEW v AS SELECT round(PREDICT(m)) AS p FROM t")
    rows(second, TRAIN.format(3))
    assert rows(second, "FROM v") == [(30.0,)]
    assert rows(first, "FROM v") == [(30.0,)]


def test_a_model_is_loaded_once_for_all(root: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(root, TRAIN.format(2))
    opened: list[Path] = []
    open_ = Model.open.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Model], folder: Path, sha256: str | None = None) -> Model:
        opened.append(folder)
        found: Model = open_(cls, folder, sha256)
        return found

    monkeypatch.setattr(Model, "open", classmethod(counted))
    sessions = [root.another() for _ in range(8)]
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda s=session: found.append(rows(s, "SELECT round(PREDICT(m)) FROM (SELECT 10 AS x)")))
        for session in sessions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for session in sessions:
        session.close()
    assert found == [[(20.0,)]] * 8
    assert len(opened) == 1


def test_one_that_closes_takes_nothing_from_the_others(root: Session) -> None:
    rows(root, TRAIN.format(2))
    root.another().close()
    beside = root.another()
    assert rows(beside, "SELECT count(*) FROM sqlml.versions") == [(1,)]
    beside.close()
    assert rows(root, "SHOW MODELS")[0][0] == "m"
