"""COPY FROM STDIN inside a query of several statements that fails: nothing of the query is kept, as in PostgreSQL."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.pq import ExecStatus

from tests.wire.places import Place

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", ["the client gives up", "a row is wrong"])
def test_a_copy_that_fails_takes_its_query_with_it(places: tuple[Place, Place], way: str) -> None:
    found = []
    for place in places:
        with psycopg.connect(place.conninfo, autocommit=True) as client:
            client.execute("CREATE TABLE half (a INTEGER)")
            begun = client.pgconn.exec_(b"INSERT INTO half VALUES (1); COPY half FROM STDIN")
            assert begun.status == ExecStatus.COPY_IN
            if way == "a row is wrong":
                client.pgconn.put_copy_data(b"x\n")
                client.pgconn.put_copy_end()
            else:
                client.pgconn.put_copy_end(b"no more")
            ended = client.pgconn.get_result()
            assert ended is not None
            while client.pgconn.get_result() is not None:
                continue
            kept = client.execute("SELECT count(*) FROM half").fetchone()
            client.execute("DROP TABLE half")
            found.append((ended.status, ended.error_field(psycopg.pq.DiagnosticField.SQLSTATE), kept))
    assert [(status, kept) for status, _, kept in found] == [(ExecStatus.FATAL_ERROR, (0,))] * 2
    if way == "the client gives up":
        assert {state for _, state, _ in found} == {b"57014"}
