"""``\\d``: what a table is made of, wherever it is, and what is said where there is none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

import sqlml
from sqlml.errors import EngineError, Error, ProgrammingError
from sqlml.shell.commands import run_command
from sqlml.shell.output import Output

pytestmark = pytest.mark.slow


def described(connection: sqlml.Connection, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    run_command(connection, Output("csv", None), line)
    return capsys.readouterr().out


def test_tables_of_connections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(tmp_path / "old.db") as old:
        old.execute("CREATE TABLE people (id INTEGER, job TEXT)")
    old.close()
    with sqlml.connect() as connection:
        connection.execute(f"CREATE CONNECTION old TYPE sqlalchemy WITH (url = 'sqlite:///{tmp_path}/old.db')")
        connection.execute("CREATE TABLE few (a INTEGER)")
        assert "id,BIGINT\njob,VARCHAR" in described(connection, "\\d OLD.people", capsys).replace("\r", "")
        assert "a,INTEGER" in described(connection, "\\d few", capsys)
        with pytest.raises(Error, match="no such table") as raised:
            described(connection, "\\d old.poeple", capsys)
        assert "did you mean people?" in str(raised.value)
        with pytest.raises(ProgrammingError, match="old is a connection"):
            described(connection, "\\d old", capsys)


def test_tables_of_postgres(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with sqlml.connect(postgres) as connection:
        connection.execute("CREATE TABLE customers (id integer NOT NULL, job text)")
        assert "public,customers" in described(connection, "\\d", capsys)
        assert "id,integer,false\njob,text,true" in described(connection, "\\d customers", capsys).replace("\r", "")
        with pytest.raises(EngineError, match="does not exist") as raised:
            described(connection, "\\d custmers", capsys)
        assert raised.value.hint == "did you mean customers?"
