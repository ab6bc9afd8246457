"""SET and RESET of one connection alone, where DuckDB would change a setting for all that have the database open."""

from __future__ import annotations

import re

import duckdb

_SET = re.compile(r"(\s*(?:SET|RESET))\s+(?!(?:GLOBAL|SESSION|LOCAL|VARIABLE)\b)", re.IGNORECASE)


def own_setting(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    """``SET SESSION x = 1`` for ``SET x = 1``; any other statement, and what can be set for all alone, as it is.

    It is tried on a connection that is thrown away: an error would end a transaction that is open.
    """
    match = _SET.match(text)
    if match is None:
        return text
    own = f"{match[1]} SESSION {text[match.end() :]}"
    with connection.cursor() as probe:
        try:
            probe.execute(own)
        except duckdb.Error:
            return text
    return own
