"""PostgreSQL's errors as ours: the server's own message, its place in the text, its detail and hint, by SQLSTATE.

Classes of SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from sqlml.errors import (
    Cancelled,
    DatabaseError,
    DataError,
    EngineError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
)

CANCELLED = "57014"  # by somebody, or by a timeout
DENIED = "42501"

_CLASSES: dict[str, type[DatabaseError]] = {
    "08": OperationalError,  # connection
    "0A": NotSupportedError,
    "21": DataError,
    "22": DataError,
    "23": IntegrityError,
    "25": OperationalError,  # state of the transaction
    "40": OperationalError,  # rolled back by the server: deadlock, serialisation
    "53": OperationalError,  # resources
    "54": OperationalError,
    "55": OperationalError,  # locks
    "57": OperationalError,  # an operator's doing
    "58": OperationalError,  # the system
}
"""By the first two characters of SQLSTATE; all others are the statement's own fault."""

Place = Callable[[int], "tuple[int, int] | None"]
"""From the character, counted from 0, of the text that was sent to a span of the text that was given."""


def engine_error(error: BaseException, source: str, place: Place | None = None, role: str = "") -> DatabaseError:
    """A driver's error about a statement as one of ours.  ``role`` is who asked, for the advice about permissions."""
    found = {_text(key): _text(value) for key, value in getattr(error, "details", None) or []}
    state = getattr(error, "sqlstate", None) or found.get("PG_DIAG_SQLSTATE", "")
    message = found.get("PG_DIAG_MESSAGE_PRIMARY") or _bare(str(error))
    if state in (CANCELLED, "") and "due to user request" in message:
        return Cancelled("cancelled")
    span = place(int(found["PG_DIAG_STATEMENT_POSITION"]) - 1) if place and "PG_DIAG_STATEMENT_POSITION" in found else None
    lines = [found.get("PG_DIAG_MESSAGE_DETAIL"), found.get("PG_DIAG_MESSAGE_HINT"), _advice(state, message, source, role)]
    hint = "\n".join(line for line in lines if line) or None
    return error_class(state, message)(message, source=source if span else None, span=span, hint=hint)


def error_class(state: str, message: str = "") -> type[DatabaseError]:
    """What kind of error a SQLSTATE means; one without comes from the driver."""
    if not state:
        return DataError if "ReadRecord failed" in message else OperationalError
    return _CLASSES.get(state[:2], EngineError)


def _advice(state: str, message: str, source: str, role: str) -> str | None:
    """Which right is missing, as the statement that gives it."""
    match = re.search(
        r"permission denied for (table|view|materialized view|foreign table|schema|sequence|function) (.+)", message
    )
    if state != DENIED or match is None:
        return None
    verb = (source.split(maxsplit=1) or [""])[0].upper()
    kind, name = match.groups()
    if kind == "schema":
        right = f"{'CREATE' if verb == 'CREATE' else 'USAGE'} ON SCHEMA"
    elif kind in ("sequence", "function"):
        right = f"{'USAGE' if kind == 'sequence' else 'EXECUTE'} ON {kind.upper()}"
    else:
        right = f"{verb if verb in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') else 'SELECT'} ON"
    return f"its owner can give the right: GRANT {right} {name} TO {role or 'this role'}"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _bare(text: str) -> str:
    """A driver's message without its own framing: status, ``[libpq]``, the query once more."""
    said = re.search(r"(?:ERROR|FATAL):\s+(.+)", text)
    if said is not None:
        return said[1].strip()
    text = re.sub(r"^[A-Z_]+: ", "", text.split("\n\nQuery was:")[0].split("\nQuery was:")[0])
    text = re.sub(r"\. SQLSTATE: \w+$", "", re.sub(r"\[libpq\] ", "", text))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "the database gave no reason"


# --- connections ------------------------------------------------------------------------------------------------------

_REASONS: tuple[tuple[str, str], ...] = (
    ("Connection refused", "no PostgreSQL server answers there: check host and port, and that it listens on TCP"),
    ("could not translate host name", "no such host: check the name in the URL"),
    ("No such file or directory", "no PostgreSQL server has a socket there: give a host, as in postgresql://me@localhost/db"),
    ("password authentication failed", "check the user and the password"),
    ("no password supplied", "the server wants a password: set PGPASSWORD, or keep it in ~/.pgpass"),
    ("no encryption", "the server may want TLS: add sslmode=require to the URL"),
    ("no pg_hba.conf entry", "the server does not let this user in from here: its pg_hba.conf decides"),
    ("does not support SSL", "the server has no TLS: take sslmode=require out of the URL"),
    ("certificate", "the server's certificate is not trusted: give sslrootcert in the URL"),
    (
        "timeout expired",
        "nothing answered in time: check host, port and firewall; connect_timeout in the URL says how long to wait",
    ),
    ("too many clients", "the server has no connection left: close others, or raise max_connections"),
    ("remaining connection slots", "the server has no connection left: close others, or raise max_connections"),
    ("starting up", "the server is starting: try again in a moment"),
)


def open_error(url: str, error: BaseException) -> OperationalError:
    """Why no connection could be made, where to, and what to do; never with a password in it."""
    whole = _without_secrets(" ".join(str(error).split()), url)
    reason = re.sub(r"^[A-Z_]+: (\[libpq\] )?(Failed to connect: )?", "", whole)
    reason = re.sub(r"^connection to server (at|on) .*? failed: ", "", reason)
    reason = re.split(r" Is the server running| connection to server ", reason)[0].removeprefix("FATAL: ").strip()
    hint = next((advice for word, advice in _REASONS if word in whole), None)
    if hint is None and re.search(r'database ".*" does not exist', whole):
        hint = "create it first: CREATE DATABASE …, or name another one in the URL"
    return OperationalError(f"cannot connect to PostgreSQL at {shown_place(url)}: {reason}", hint=hint)


def shown_place(url: str) -> str:
    """``localhost:5432/db`` of a URL: what may be shown of it."""
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        return "the given URL"
    host = parts.hostname or (parse_qs(parts.query).get("host") or ["the local socket"])[0]
    return f"{host}:{port}{parts.path if len(parts.path) > 1 else ''}"


def _without_secrets(text: str, url: str) -> str:
    """A message without the URL and the passwords in it."""
    text = text.replace(url, shown_place(url))
    text = re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)
    match = re.search(r"://[^:/@]*:([^@]*)@", url)
    given = [match[1]] if match else []
    given += parse_qs(url.partition("?")[2]).get("password", [])
    for secret in {word for each in given for word in (each, unquote(each)) if word}:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


_LOST = re.compile(
    "server closed the connection|connection to server was lost|no connection to the server|terminating connection|"
    "could not (send data to|receive data from) server|SSL (connection has been closed|SYSCALL error)"
)


def tells_of_loss(error: BaseException) -> bool:
    """Whether an error says, in libpq's words, that the connection is gone (libpq's own state may not show it yet)."""
    return _LOST.search(str(error)) is not None


def lost_error(error: BaseException, *, in_transaction: bool, has_state: bool, is_write: bool = False) -> OperationalError:
    """The connection went away in the middle."""
    reason = re.search(r"(FATAL|ERROR):\s+(.+)", str(error))
    message = "the connection to PostgreSQL was lost" + (f": {reason[2].strip()}" if reason else "")
    lines = []
    if in_transaction:
        lines.append("the open transaction is undone: ROLLBACK, then begin it again")
    elif is_write:
        lines.append("whether the statement took effect is not known: look before you run it again")
    else:
        lines.append("run the statement again: the next one connects anew")
    if has_state:
        lines.append("temporary tables, settings and prepared statements of the connection are gone")
    return OperationalError(message, hint="\n".join(lines))
