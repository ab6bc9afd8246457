"""Who has a database file open and lets others in: the notice ``owner.json`` in the folder of its models.

The file alone proves nothing (``kill -9`` leaves it behind): a guest believes it where its process lives, answers, and knows the
token.  It is readable by its owner alone, and one that others could have written is no notice.
"""

from __future__ import annotations

import hmac
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlml.home import home_of

OWNER_FILE = "owner.json"


@dataclass(frozen=True)
class Owner:
    """A server that has a database file open."""

    pid: int
    host: str
    port: int
    token: str
    database: str  # the file, by its real path
    catalog: str | None  # the URL of the models' catalog; None: beside the file
    folder: str  # the process's working folder
    certificate: str = ""  # the SHA-256 of its TLS certificate, in hexadecimal; empty: it takes connections in clear

    def proof(self, nonce: str) -> str:
        """What only a process that knows the token can answer to a nonce."""
        return hmac.digest(self.token.encode(), nonce.encode(), "sha256").hex()

    @property
    def shown(self) -> str:
        """``the server of process 123, port 5433``"""
        return f"the server of process {self.pid}, port {self.port}"

    def lives(self) -> bool:
        """Whether there is a process of its number."""
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            return True
        except (OSError, OverflowError):
            return False
        return True


def write_owner(owner: Owner) -> None:
    """Leave the notice, in one step."""
    path = home_of(owner.database) / OWNER_FILE
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{OWNER_FILE}.{owner.pid}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(owner), file, indent=1)
    temporary.replace(path)


def remove_owner(owner: Owner) -> None:
    """Take the notice away, if it is still this one."""
    path = home_of(owner.database) / OWNER_FILE
    found = _read(path)
    if found is not None and found.token == owner.token:
        path.unlink(missing_ok=True)


def find_owner(database: str) -> Owner | None:
    """The other process that says it has this file open, and lives; None where there is none, and for what is no file."""
    if database == ":memory:" or "://" in database:
        return None
    real = os.path.realpath(database)
    for name in dict.fromkeys((database, real)):
        owner = _read(home_of(name) / OWNER_FILE)
        if owner is not None and owner.database == real and owner.pid != os.getpid() and owner.lives():
            return owner
    return None


def _read(path: Path) -> Owner | None:
    """A notice; None where there is none, or it is not this user's own."""
    with suppress(OSError, ValueError, TypeError), path.open(encoding="utf-8") as file:
        found = os.fstat(file.fileno())
        if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
            return None
        return Owner(**json.load(file))
    return None
