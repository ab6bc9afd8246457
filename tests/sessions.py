"""The session behind a connection that has opened its database itself, for tests that look into it."""

from __future__ import annotations

import sqlml
from sqlml.session import Session


def session_of(connection: sqlml.Connection) -> Session:
    """The connection's session, not one that goes through a server."""
    session = connection.session
    assert isinstance(session, Session)
    return session
