"""Who may come in: a file of names and SCRAM verifiers, one ``"name" "SCRAM-SHA-256$…"`` a line, as PgBouncer has it.

Without a file everybody on this machine is let in (``trust``), and nobody else.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sqlml.errors import OperationalError
from sqlml.wire.scram import Exchange, Verifier

_LINE = re.compile(r'\s*"((?:[^"]|"")+)"\s+"((?:[^"]|"")*)"\s*(?:[;#].*)?')


class Users:
    """The users of a file, read anew when it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._verifiers: dict[str, Verifier] = {}
        self._decoy = Verifier.of(os.urandom(16).hex())
        self._load()

    def exchange(self, user: str) -> Exchange:
        """A login; one of an unknown user goes through the same steps, and fails."""
        self._load()
        verifier = self._verifiers.get(user)
        return Exchange(verifier or self._decoy, known=verifier is not None)

    def knows(self, user: str, password: str) -> bool:
        """Whether a password that was sent in words is the user's; of an unknown user it takes as long to find out."""
        self._load()
        verifier = self._verifiers.get(user)
        return (verifier or self._decoy).matches(password) and verifier is not None

    def _load(self) -> None:
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._verifiers = read_users(self._path)
                self._stamp = stamp
        except OSError as error:
            raise OperationalError(
                f"the file of users {self._path} cannot be read: {error.strerror}", hint="sqlml passwd FILE NAME makes one"
            ) from None


def read_users(path: Path) -> dict[str, Verifier]:
    """The users of a file.  ``OperationalError`` for a line that is none."""
    found: dict[str, Verifier] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        match = _LINE.fullmatch(line)
        try:
            if match is None:
                raise ValueError
            found[match[1].replace('""', '"')] = Verifier.read(match[2])
        except ValueError:
            raise OperationalError(
                f'{path}:{number}: expected "name" "SCRAM-SHA-256$…"', hint="sqlml passwd FILE NAME writes such lines"
            ) from None
    return found


def write_user(path: Path, name: str, password: str) -> None:
    """Add a user, or give it another password; the file is readable by its owner alone."""
    users = read_users(path) if path.exists() else {}
    users[name] = Verifier.of(password)
    escaped = ((user.replace('"', '""'), verifier) for user, verifier in users.items())
    text = "".join(f'"{user}" "{verifier}"\n' for user, verifier in escaped)
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
