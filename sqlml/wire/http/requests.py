"""What a request asks for, and whether it may: headers and a body of JSON in, a ``SqlRequest`` or ``Rejected`` out.  No I/O.

A page of another site must not be able to speak to the server through the browser of somebody who may.  Such a page can send
no body of type application/json without asking first, which is never answered; a browser that does what the page says tells the
page's own address (Origin), which must then be the server's; and where nobody is asked for a password, the server must be called
by a name of this machine (Host), not by one that leads here for the moment.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlml.errors import did_you_mean
from sqlml.wire.errors import Refused
from sqlml.wire.http.errors import Rejected
from sqlml.wire.settings import milliseconds

PATH = "/sql"
ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"
BODY_BYTES = 64 << 20
"""The most that a body may have."""

_LOCAL = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?", re.IGNORECASE)
_KEYS = ("statement", "parameters", "statement_timeout", "on_disconnect")

Headers = Mapping[str, str]
"""By their names in small letters."""


@dataclass(frozen=True)
class SqlRequest:
    """A text of statements to run."""

    statement: str
    parameters: Sequence[Any] | Mapping[str, Any] = field(default_factory=tuple)
    arrow: bool = False
    timeout: float = 0.0  # seconds; 0: none
    keeps: bool = True  # a job of ours goes on when its client has gone


def check_place(method: str, target: str) -> None:
    """``Rejected`` for anything but POST /sql."""
    if target.partition("?")[0] != PATH:
        raise Rejected(f"there is nothing at {target}", "0A000", 404, hint=f"SQL is sent by POST {PATH}")
    if method != "POST":
        raise Rejected(f"{PATH} takes POST, not {method}", "0A000", 405, headers=(("Allow", "POST"),))


def check_origin(headers: Headers, *, trusts: bool) -> None:
    """``Rejected`` for what a page of another site may have sent.  ``trusts``: nobody is asked for a password."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if trusts and not _LOCAL.fullmatch(host):
        raise Rejected(f"this server is not called {host}", "28000", 403, hint="call it 127.0.0.1 or localhost")
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        raise Rejected(f"a page of {origin} may not speak to this server", "28000", 403)


def check_type(headers: Headers) -> None:
    """``Rejected`` for a body that is no JSON."""
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != JSON:
        shown = kind or "no type"
        raise Rejected(f"the body must be JSON, not {shown}", "08P01", 415, hint=f"Content-Type: {JSON}")


def read_login(headers: Headers) -> tuple[str, str] | None:
    """The name and password of HTTP Basic; None where there are none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(given.strip(), validate=True).decode().partition(":")
    except ValueError:
        return None
    return (name, password) if colon else None


def read_token(headers: Headers) -> str | None:
    """The token of a guest; None where there is none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def wants_arrow(headers: Headers) -> bool:
    """What the answer is to be; ``Rejected`` for what it cannot be."""
    accepted = [part.partition(";")[0].strip().lower() for part in headers.get("accept", "*/*").split(",")]
    if ARROW in accepted:
        return True
    if any(kind in ("*/*", "application/*", JSON) for kind in accepted):
        return False
    raise Rejected(f"the answer cannot be {headers['accept']}", "0A000", 406, hint=f"{JSON} or {ARROW}")


def read_body(body: bytes, *, arrow: bool) -> SqlRequest:
    """The request in a body; ``Rejected`` for what is none."""
    try:
        found = json.loads(body)
    except UnicodeDecodeError:
        raise _wrong("the body is not UTF-8") from None
    except ValueError as error:
        raise _wrong(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise _wrong("the body has too many brackets within each other") from None
    if not isinstance(found, dict) or not isinstance(found.get("statement"), str):
        raise _wrong("the body must be an object with a statement")
    for name in found:
        if name not in _KEYS:
            raise _wrong(f"a request has no {name}", did_you_mean(name, _KEYS) or f"it has {', '.join(_KEYS)}")
    parameters = found.get("parameters", [])
    if not isinstance(parameters, list | dict):
        raise _wrong("parameters must be a list, or an object of their names")
    what = found.get("on_disconnect", "keep")
    if what not in ("keep", "cancel"):
        raise _wrong(f"on_disconnect is keep or cancel, not {what}")
    return SqlRequest(found["statement"], parameters, arrow, _seconds(found.get("statement_timeout", 0)), what == "keep")


def _seconds(value: Any) -> float:
    try:
        return milliseconds("statement_timeout", str(value)) / 1000
    except Refused as error:
        raise _wrong(error.message, error.hint) from None


def _wrong(message: str, hint: str | None = None) -> Rejected:
    return Rejected(message, "08P01", 400, hint=hint or '{"statement": "SELECT 42"}')
