"""What the endpoints' server of this machine is told at its start: port, TLS, gRPC, other origins' pages.

    ALTER ENDPOINTS SET (…) → serving.json in the models' folder → the server, for whatever its command line does not say

They are of the machine that serves, as the files of a certificate are, and so lie beside the catalog, not in it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlml.errors import OperationalError
from sqlml.home import Home

FILE = "serving.json"
_LOCK = "serving.lock"
DEFAULT_PORT = 8080
"""Of HTTP, where none is set and it is free."""
ANY_ORIGIN = "*"
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE)


def read_settings(home: Path) -> dict[str, Any]:
    """What was set, by the option's name; empty where nothing was.  ``OperationalError`` for a file that is damaged."""
    path = home / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise OperationalError(
            f"cannot read {path}: {error}", hint="mend it, or remove it and ALTER ENDPOINTS SET … anew"
        ) from error
    if not isinstance(document, dict):
        raise OperationalError(f"{path} holds no settings", hint="remove it, and ALTER ENDPOINTS SET … anew")
    return document


@contextmanager
def locked_settings(home: Home) -> Iterator[None]:
    """While this lasts nobody else changes the settings, no process and no thread: read, check and write them within it."""
    import fcntl

    home.create()
    with (home.folder / _LOCK).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        yield


def write_settings(home: Home, settings: Mapping[str, Any]) -> None:
    """Keep settings, in one step; those that are None are not kept.  To be called within ``locked_settings``."""
    path = home.folder / FILE
    beside = path.with_name(f"{FILE}.{secrets.token_hex(8)}.part")
    try:
        beside.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}), encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def origins_of(text: str | None) -> tuple[str, ...]:
    """``https://a.example, http://localhost:3000`` as origins, as browsers write them; ``*`` alone is all, None none.

    ``ValueError`` says which is no origin.
    """
    if text is None:
        return ()
    found = [part for part in re.split(r"[\s,]+", text) if part]
    if not found:
        raise ValueError("no origin is given, such as https://shop.example; where no page may ask, leave it out (in SQL: NULL)")
    if ANY_ORIGIN in found and len(set(found)) > 1:
        raise ValueError("'*' lets the pages of all origins ask: give it alone, or the origins without it")
    for origin in found:
        if origin != ANY_ORIGIN and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is no origin: write scheme, host and port alone, as in https://shop.example or http://localhost:3000"
            )
    return tuple(dict.fromkeys(origin.lower() for origin in found))
