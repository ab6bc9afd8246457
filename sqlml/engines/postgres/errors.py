"""PostgreSQL's errors as ours: the server's own message, its place in the text, its detail and hint, by SQLSTATE.

Classes of SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlml_dialect import quote_identifier
from sqlml_dialect.tokens import Kind, name_value, scan

from sqlml.address import read_address, secrets_of
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
    said = getattr(error, "diag", None)
    state = getattr(error, "sqlstate", None) or ""
    message = getattr(said, "message_primary", None) or _bare(str(error))
    if state in (CANCELLED, "") and "due to user request" in message:
        return Cancelled("cancelled")
    position = getattr(said, "statement_position", None)
    if place and position:
        span = place(int(position) - 1)
    else:
        span = _named_place(message, source) if place and state == DENIED else None
    lines = [getattr(said, "message_detail", None), getattr(said, "message_hint", None), _advice(state, message, source, role)]
    hint = "\n".join(line for line in lines if line) or None
    return error_class(state)(message, source=source if span else None, span=span, hint=hint)


def error_class(state: str) -> type[DatabaseError]:
    """What kind of error a SQLSTATE means; one without comes from the driver."""
    return _CLASSES.get(state[:2], EngineError) if state else OperationalError


_DENIED_FOR = re.compile(
    r"permission denied for (table|view|materialized view|foreign table|schema|sequence|function|database) (.+)"
)
_DENIED_TEMPORARY = re.compile(r'permission denied to create temporary tables in database "(.+)"')
_OWNED = re.compile(r"must be owner of (.+)")


def _advice(state: str, message: str, source: str, role: str) -> str | None:
    """Which right is missing, as the statement that gives it."""
    if state != DENIED:
        return None
    who = quote_identifier(role) if role and not re.fullmatch(r"[a-z_][a-z0-9_$]*", role) else role or "this role"
    temporary = _DENIED_TEMPORARY.search(message)
    if temporary is not None:
        return f"its owner can give the right: GRANT TEMPORARY ON DATABASE {temporary[1]} TO {who}"
    if _OWNED.search(message):
        return f"only its owner may do that, and this is {who}: another name makes a table of your own"
    match = _DENIED_FOR.search(message)
    if match is None:
        return None
    verb = (source.split(maxsplit=1) or [""])[0].upper()
    kind, name = match.groups()
    if kind in ("schema", "database"):
        right = f"{'USAGE' if kind == 'schema' and verb != 'CREATE' else 'CREATE'} ON {kind.upper()}"
    elif kind in ("sequence", "function"):
        right = f"{'USAGE' if kind == 'sequence' else 'EXECUTE'} ON {kind.upper()}"
    else:
        verb = "INSERT" if verb == "COPY" else verb
        right = f"{verb if verb in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') else 'SELECT'} ON"
    return f"its owner can give the right: GRANT {right} {name} TO {who}"


def _named_place(message: str, source: str) -> tuple[int, int] | None:
    """The only place of a statement where the name stands that a refusal tells."""
    match = _DENIED_FOR.search(message)
    if match is None:
        return None
    named = [t for t in scan(source) if t.kind in (Kind.WORD, Kind.QUOTED) and name_value(t).lower() == match[2].lower()]
    return (named[0].start, named[0].end) if len(named) == 1 else None


_NO_SUCH = re.compile(r'(relation|schema) "(.+)" does not exist')


def missing_name(message: str) -> tuple[str, str] | None:
    """``relation`` or ``schema``, and the name that there is not, if an error tells of one."""
    match = _NO_SUCH.fullmatch(message)
    return (match[1], match[2]) if match else None


def _bare(text: str) -> str:
    """A driver's message without its own framing, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^(ERROR|FATAL):\s+", "", lines[0]) if lines else "the database gave no reason"


# --- connections ------------------------------------------------------------------------------------------------------

_REASONS: tuple[tuple[str, str], ...] = (
    ("Connection refused", "no PostgreSQL server answers there: check host and port, and that it listens on TCP"),
    ("Servname not supported", "the port in the URL must be a number"),
    ("failed to resolve host", "no such host: check the name in the URL"),
    ("No such file or directory", "no PostgreSQL server has a socket there: give a host, as in postgresql://me@localhost/db"),
    ("password authentication failed", "check the user and the password"),
    ("percent-encoded", "in a user or a password of the URL, % is written as %25, a space as %20 and @ as %40"),
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
    reason = re.sub(r"^(connection failed: )?(connection to server (at|on) .*? failed: )?", "", whole)
    reason = reason.removeprefix("fe_sendauth: ")
    reason = re.split(r" Is the server running| connection to server ", reason)[0].removeprefix("FATAL: ").strip()
    hint = next((advice for word, advice in _REASONS if word in whole), None)
    if hint is None and re.search(r'database ".*" does not exist', whole):
        hint = "create it first: CREATE DATABASE …, or name another one in the URL"
    return OperationalError(f"cannot connect to PostgreSQL at {shown_place(url)}: {reason}", hint=hint)


def shown_place(url: str) -> str:
    """``localhost:5432/db`` of a URL: what may be shown of it."""
    return read_address(url).shown


def _without_secrets(text: str, url: str) -> str:
    """A message without the URL and the passwords in it."""
    text = text.replace(url, shown_place(url))
    text = re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)
    for secret in secrets_of(url):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text


_LOST = re.compile(
    "server closed the connection|connection to server was lost|no connection to the server|terminating connection|"
    "the connection is (closed|lost)|could not (send data to|receive data from) server|"
    "SSL (connection has been closed|SYSCALL error)|connection socket closed"
)


def tells_of_loss(error: BaseException) -> bool:
    """Whether an error says, in libpq's or psycopg's words, that the connection is gone; its state may not show it yet."""
    return _LOST.search(str(error)) is not None


def lost_error(error: BaseException, *, in_transaction: bool, gone: str, is_write: bool = False) -> OperationalError:
    """The connection went away in the middle; ``gone`` is what its session had."""
    first = str(error).split("\n")[0].strip()
    reason = getattr(getattr(error, "diag", None), "message_primary", None) or (first if "terminating" in first else "")
    message = "the connection to PostgreSQL was lost" + (f": {reason}" if reason else "")
    lines = []
    if in_transaction:
        lines.append("the open transaction is undone: ROLLBACK, then begin it again")
    elif is_write:
        lines.append("whether the statement took effect is not known: look before you run it again")
    else:
        lines.append("run the statement again: the next one connects anew")
    if gone:
        lines.append(f"the {gone} of the connection are gone")
    return OperationalError(message, hint="\n".join(lines))
