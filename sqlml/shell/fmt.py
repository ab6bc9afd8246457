"""``sqlml fmt``: files of SQL laid out, in place.  What is not sqlml's own SQL stays as it is."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sqlml_dialect import DialectError, format_sql, parse

from sqlml.shell.output import Output

STDIN = "-"
CHANGED, FAILED = 1, 2


def run_fmt(files: Sequence[str], *, check: bool = False) -> int:
    """Lay out files, or only say which would change; the exit status, the worst of all files."""
    return max(_format_file(name, check=check) for name in files)


def _format_file(name: str, *, check: bool) -> int:
    shown = "standard input" if name == STDIN else name
    try:
        text = _read(name)
        written = format_sql(text)
        _check_same(text, written)
        if name == STDIN and not check:
            sys.stdout.write(written)
            return 0
        if written == text:
            return 0
        sys.stdout.write(f"{shown}\n")
        if check:
            return CHANGED
        _write(Path(name), written)
    except DialectError as error:
        Output().error(str(error), place=f"{shown}:{error.line}:{error.column}")
    except UnicodeDecodeError as error:
        Output().error(f"it is not UTF-8 text (byte {error.start:,})", place=shown)
    except OSError as error:
        Output().error(error.strerror or str(error), place=shown)
    except _Changed:
        Output().error("a fault of sqlml itself: the text would not mean the same; the file is left as it is", place=shown)
    else:
        return 0
    return FAILED


class _Changed(Exception):
    """What was laid out does not mean the same."""


def _check_same(before: str, after: str) -> None:
    """Never write a text whose statements are others."""
    old, new = parse(before), parse(after)
    if [one.node or one.text for one in old] != [one.node or one.text for one in new]:
        raise _Changed


def _read(name: str) -> str:
    """A file's text with its own line breaks."""
    data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    return data.decode("utf-8-sig")


def _write(path: Path, text: str) -> None:
    """Put a text in a file's place at one stroke, with the file's own permissions; a link stays a link."""
    target = path.resolve()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(target, name)
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
