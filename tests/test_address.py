"""URLs of PostgreSQL servers: where they lead, what is shown of them, whose models' folder they share."""

from __future__ import annotations

from pathlib import Path

import pytest

import sqlml
from sqlml.address import read_address, secrets_of
from sqlml.engines.sqlalchemy.engine import SqlalchemyEngine
from sqlml.errors import Error, OperationalError
from sqlml.home import home_of, short_name


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hush@Db.example/bank", "db.example:5432/bank"),
        ("postgresql://localhost", "localhost:5432"),
        ("postgres://[::1]:77/bank", "[::1]:77/bank"),
        ("postgresql:///bank?host=/run/pg", "/run/pg:5432/bank"),
        ("postgresql:///bank", "the local socket:5432/bank"),
        ("postgresql://a,b:7/bank", "a:5432,b:7/bank"),
        ("postgresql://me:hu?s#h@h/bank?sslmode=require", "h:5432/bank"),
        ("postgresql://me@h/bank?port=12&host=z&dbname=k", "z:12/k"),
        ("postgresql://me:a%40b@h/my%20bank", "h:5432/my bank"),
    ],
)
def test_where_a_url_leads(url: str, shown: str) -> None:
    assert read_address(url).shown == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:top@hush@127.0.0.1:1/bank",
        "postgresql://me:top/hush@127.0.0.1:1/bank",
        "postgresql://me:top@hush:7/x@127.0.0.1:1/bank",
        "postgresql://me:1234@5/hush@127.0.0.1:1/bank",
        "postgresql://me:hush/bank",
    ],
)
def test_no_piece_of_a_password_is_shown(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for database, catalog in ((url, None), (str(tmp_path / "a.duckdb"), url.replace("postgresql", "postgresql+psycopg"))):
        with pytest.raises(Error) as raised:
            sqlml.connect(database, catalog=catalog)
        assert isinstance(raised.value, OperationalError)
        assert "%40" in str(raised.value)
        assert not any(piece in f"{raised.value!s} {raised.value!r}" for piece in ("hush", "top", "1234"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["://me:top@hush@host.invalid:1/bank", "://me:top@hush/x@host.invalid/bank", "://me:1234@5/hush@host.invalid/bank"]
)
def test_nor_of_a_url_that_sqlalchemy_reads(url: str, tmp_path: Path) -> None:
    """It takes what follows the first @ for a host, which its driver then names: failed to resolve host 'hush@…'."""
    for scheme in ("postgresql+psycopg", "mysql"):
        with pytest.raises(OperationalError, match="%40") as raised:
            SqlalchemyEngine.open(scheme + url)
        with pytest.raises(OperationalError, match="%40") as other:
            sqlml.connect(str(tmp_path / "a.duckdb"), catalog=scheme + url)
        for error in (raised.value, other.value):
            assert not any(piece in f"{error!s} {error!r}" for piece in ("hush", "top", "1234"))
    assert list(tmp_path.iterdir()) == []


def test_the_secrets_of_a_url() -> None:
    assert secrets_of("postgresql://me:a%40b@h/x?password=c") == ("a%40b", "a@b", "c")
    assert secrets_of("postgresql://me@h/x") == ()


def test_two_slashes_are_asked_for() -> None:
    with pytest.raises(OperationalError, match="two slashes"):
        sqlml.connect("postgresql:/localhost/bank")


# --- the models' folder -----------------------------------------------------------------------------------------------

SAME = (
    "postgresql://localhost/bank",
    "postgresql://me:hush@127.0.0.1:5432/bank",
    "postgres://[::1]/bank?sslmode=disable&application_name=x",
    "postgresql+psycopg://LOCALHOST:5432/bank",
)


def test_one_folder_however_the_server_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len({home_of(url) for url in SAME}) == 1
    assert len({home_of(url, "sqlite:////c.db") for url in SAME}) == 1
    others = ("postgresql://localhost:5433/bank", "postgresql://localhost/other", "postgresql://db.example/bank")
    assert len({home_of(url) for url in (SAME[0], *others)}) == 4
    assert {short_name(url) for url in SAME} == {"bank"}


@pytest.mark.parametrize(
    ("url", "former"),
    [
        ("postgresql://127.0.0.1/bank", "bank@127.0.0.1-f1e783.sqlml"),
        ("postgresql://localhost:5432/bank", "bank@localhost-ed4b0a.sqlml"),
        ("postgresql://db.example/bank?sslmode=require", "bank@db.example-a05b2b.sqlml"),
    ],
)
def test_a_folder_of_an_earlier_sqlml_is_used_on(url: str, former: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    new = home_of(url)
    assert new.name != former
    (tmp_path / ".sqlml" / former).mkdir(parents=True)
    assert home_of(url).name == former
    if "db.example" not in url:
        assert {home_of(same).name for same in SAME[:2]} == {former}
    new.mkdir()
    assert home_of(url) == new
