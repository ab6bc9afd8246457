"""The shell itself: ask, run, print, until the person leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from sqlml.dbapi import Names
from sqlml.errors import ConnectionLost, Error
from sqlml.home import short_name
from sqlml.shell.batch import ScriptError
from sqlml.shell.commands import COMMANDS, Leave, needs_connection, run_command
from sqlml.shell.complete import SqlCompleter
from sqlml.shell.highlight import STYLE, SqlLexer
from sqlml.shell.output import Output, dimmed, error_text
from sqlml.shell.run import Cancelled, is_complete, run_statement, split
from sqlml.version import __version__

if TYPE_CHECKING:
    from sqlml.dbapi import Connection

_WORDS = {"exit": "\\q", "quit": "\\q", "help": "\\?"}
"""What people type who do not know the commands yet."""

_FUNCTIONS = r"""
    SELECT DISTINCT function_name FROM duckdb_functions()
    WHERE database_name = 'system' AND regexp_full_match(function_name, '[a-z]\w+') ORDER BY ALL
"""


class Repl:
    """A conversation about one database.  ``connect`` connects to it again where the server of the connection has ended."""

    def __init__(self, connection: Connection, output: Output, connect: Callable[[], Connection]) -> None:
        self._connection = connection
        self._output = output
        self._connect = connect
        self._lost: str | None = None  # the server that had ended when the last statement came
        self._names: Names | None = None

    def run(self) -> None:
        """Talk until ``\\q`` or Ctrl-D; then an open transaction is committed, and the connection closed."""
        self._output.line(dimmed(banner(self._connection), sys.stdout))
        try:
            self._talk()
            self._connection.commit()
        except Error as error:
            self._output.error(str(error))
        finally:
            self._connection.close()

    def _talk(self) -> None:
        while True:
            try:
                text = self._session.prompt(self._prompt)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            try:
                self._answer(text)
            except Leave:
                return
            self._output.line("")

    def _answer(self, text: str) -> None:
        """Run what was typed; whatever goes wrong is printed, and the shell goes on."""
        self._names = None
        try:
            command = _command_in(text)
            if command:
                if needs_connection(command):
                    self._reconnect()
                run_command(self._connection, self._output, command)
                return
            pieces = split(text)
            if pieces:
                self._reconnect()
            for piece in pieces:
                self._output.result(run_statement(self._connection, piece.text))
        except (Cancelled, KeyboardInterrupt):
            self._output.cancelled()
        except ScriptError as error:
            self._output.error(str(error), error.place)
        except ConnectionLost as error:
            self._lost = self._connection.through
            self._output.error(f"{error.message}\n  the next statement connects again")
        except Error as error:
            self._output.error(str(error))
        except Leave:
            raise
        except Exception as error:  # the shell outlives a fault in a statement
            self._output.error(error_text(error))

    def _reconnect(self) -> None:
        """Connect again where the server has ended; ``ConnectionLost`` first, where a transaction is lost and nobody was told."""
        if self._lost is None and self._connection.is_lost:
            self._connection.commit()  # raises where a transaction was open
            self._lost = self._connection.through
        if self._lost is None:
            return
        connection = self._connect()
        self._connection.close()
        self._connection = connection
        now = f"through {connection.through}" if connection.through else f"{_shown(connection.database)} is open here"
        self._output.line(dimmed(f"{self._lost} has ended; now {now}: temporary tables and settings are gone", sys.stdout))
        self._lost = None

    @cached_property
    def _session(self) -> PromptSession[str]:
        commands = [(name, command.doc) for name, command in COMMANDS.items()]
        return PromptSession(
            history=_history(),
            lexer=SqlLexer(),
            style=STYLE,
            completer=SqlCompleter(self._known_names, lambda: self._functions, commands),
            complete_while_typing=False,
            auto_suggest=AutoSuggestFromHistory(),
            enable_history_search=True,
            multiline=Condition(_wants_more),
            prompt_continuation=_continuation,
            enable_open_in_editor=True,
        )

    def _known_names(self) -> Names:
        """The names to complete, looked up once per statement."""
        if self._names is None:
            try:
                self._names = self._connection.names()
            except ConnectionLost:  # the next statement says so
                self._names = Names((), (), (), ())
        return self._names

    @cached_property
    def _functions(self) -> tuple[str, ...]:
        """The database's own functions, looked up once."""
        if self._connection.dialect != "duckdb" or self._connection.is_lost:
            return ()
        rows = self._connection.execute(_FUNCTIONS).fetchall()
        return tuple(str(name) for (name,) in rows)

    @property
    def _prompt(self) -> StyleAndTextTuples:
        return [("class:prompt", f"{short_name(self._connection.database)[:20]}> ")]


def banner(connection: Connection) -> str:
    """``sqlml 0.1 · bank.duckdb (new) · models in bank.sqlml · \\? for help``"""
    version = ".".join(__version__.split(".")[:2])
    if connection.database == ":memory:":
        return f"sqlml {version} · in memory, gone when you leave · \\? for help"
    new = " (new)" if connection.is_new else ""
    models = f" · models in {_short(Path(connection.models_home))}" if connection.models_home else ""
    through = f" · through {connection.through}" if connection.through else ""
    return f"sqlml {version} · {_shown(connection.database)}{new}{models}{through} · \\? for help"


def _shown(database: str) -> str:
    return database.partition("?")[0] if "://" in database else _short(Path(database))


def _short(path: Path) -> str:
    """A path from here, where that is shorter."""
    absolute = path.absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _command_in(text: str) -> str | None:
    """The command that was typed, or None for SQL."""
    bare = text.strip()
    if bare.startswith("\\"):
        return bare
    return _WORDS.get(bare.rstrip(";").lower())


def _wants_more() -> bool:
    """Whether Enter begins another line: the statement is not complete yet."""
    text = get_app().current_buffer.text
    return not (_command_in(text) or is_complete(text))


def _continuation(width: int, line_number: int, wrap_count: int) -> StyleAndTextTuples:
    return [("class:prompt", " " * width if wrap_count else " " * max(width - 2, 0) + "> ")]


def _history() -> History:
    """The statements typed before, kept for this person alone; only in memory where there is no place to write."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "sqlml" / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)
