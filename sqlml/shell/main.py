"""The command ``sqlml``.

    sqlml [DATABASE] [-c SQL]… [-f FILE]… [--format table|csv|json|markdown] …
    sqlml fmt [--check] FILE…
    sqlml serve DATABASE …
    sqlml stop DATABASE

argparse rather than click: ``-c`` and ``-f`` run in the order in which they were given, and nothing has to be imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlml.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from sqlml.dbapi import Connection
    from sqlml.shell.output import Output

CANCELLED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE

DESCRIPTION = "A SQL shell with models in it: TRAIN, EVALUATE, PREDICT and DEPLOY beside everything DuckDB knows."
EPILOG = """\
sqlml fmt FILE…         lay out files of SQL in place; --check only says which would change
sqlml serve DATABASE    run the endpoints' server of a database here, in the foreground
sqlml stop DATABASE     stop the server that DEPLOY started

Without DATABASE everything is in memory.  Without -c and -f, SQL comes from the keyboard, or from
standard input: echo 'SHOW MODELS' | sqlml bank.duckdb
csv, json and markdown print the rows and nothing else, each statement's apart: csv and markdown with an
empty line between two results, json one document (a list of objects) after the other, as jq reads them.
json keeps every digit of a number; NaN and the infinities, which JSON does not have, become null.

A database file that is called fmt, serve or stop is opened as ./fmt, ./serve or ./stop.
An error in a file is told as road.sql:12:5: statement 4: error: …, line and column counted in the file.
Exit status: 0, 1 after an error (the first one stops), 2 for wrong usage, 130 after Ctrl-C.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The console entry; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbs = {"fmt": _fmt, "serve": _serve, "stop": _stop}
    run = verbs.get(words[0]) if words else None
    _prepare_streams()
    try:
        status = run(words[1:]) if run else _shell(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: the flush at exit must not fail
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return CANCELLED


def _prepare_streams() -> None:
    """UTF-8 into files and pipes whatever the locale; a terminal that lacks a character gets ``?``."""
    for stream in (sys.stdout, sys.stderr):
        if stream.isatty():
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        else:
            stream.reconfigure(encoding="utf-8")  # type: ignore[union-attr]


# --- sqlml [DATABASE] -----------------------------------------------------------------------------------------------


class _InOrder(argparse.Action):
    """Keeps ``-c`` and ``-f`` in the order in which they were given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        namespace.scripts = [*namespace.scripts, (self.const, values)]


def _parser() -> argparse.ArgumentParser:
    from sqlml.shell.render import FORMATS, ROWS

    parser = argparse.ArgumentParser(
        prog="sqlml", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "database",
        nargs="?",
        default=":memory:",
        metavar="DATABASE",
        help="a DuckDB file, made where there is none, or postgresql://user@host/database",
    )
    add(
        "-c", const="sql", action=_InOrder, dest="scripts", default=[], metavar="SQL", help="run this and leave (may be repeated)"
    )
    add("-f", const="file", action=_InOrder, dest="scripts", metavar="FILE", help="run a file and leave; - is standard input")
    add("--format", choices=FORMATS, default="table", help="how results are printed (default: table)")
    add("--rows", type=_rows, default=ROWS, metavar="N", help=f"the most rows of a table (default: {ROWS}; 0: all)")
    add("--catalog", metavar="URL", help="keep the models in this catalog (a SQLAlchemy URL)")
    add("--no-progress", action="store_true", help="no progress bars")
    add("--version", action="version", version=f"sqlml {__version__}")
    return parser


def _rows(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is not a number of rows")
    return int(text)


def _shell(words: Sequence[str]) -> int:
    """Run scripts where there are any, else ask a person."""
    options = _parser().parse_args(words)
    from sqlml.shell.output import Output

    scripted = bool(options.scripts) or not sys.stdin.isatty()
    bars = sys.stderr.isatty() and not options.no_progress
    output = Output(options.format, options.rows or None, interactive=not scripted, bars=bars)
    try:
        connection = _connect(options, output)
    except Exception as error:
        return _failed(error, output)
    with connection:
        if scripted:
            return _run_scripts(connection, options.scripts or [("file", "-")], output)
        from sqlml.shell.repl import Repl

        Repl(connection, output).run()
    return 0


def _connect(options: argparse.Namespace, output: Output) -> Connection:
    import sqlml

    return sqlml.connect(options.database, catalog=options.catalog, on_event=output.event)


def _run_scripts(connection: Connection, scripts: Sequence[tuple[str, str]], output: Output) -> int:
    from sqlml.shell.batch import Script, ScriptError, read_script, run_script
    from sqlml.shell.run import Cancelled

    try:
        for what, value in scripts:
            run_script(connection, Script(value) if what == "sql" else read_script(value), output)
    except ScriptError as error:
        output.error(str(error), error.place)
        return 1
    except (Cancelled, KeyboardInterrupt):
        output.cancelled()
        return CANCELLED
    except BrokenPipeError:
        raise
    except Exception as error:
        return _failed(error, output)
    return 0


def _failed(error: Exception, output: Output) -> int:
    from sqlml.shell.output import error_text

    output.error(error_text(error))
    return 1


# --- sqlml fmt ------------------------------------------------------------------------------------------------------


def _fmt(words: Sequence[str]) -> int:
    """``sqlml fmt [--check] FILE…``"""
    parser = argparse.ArgumentParser(
        prog="sqlml fmt",
        description="Lay out the statements about models in files of SQL, in place; everything else stays as it is.",
        epilog="The names of the files that changed are printed.  Exit status: 0, 1 where --check found one, 2 after an error.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a file of SQL; - is standard input, written to standard output")
    parser.add_argument("--check", action="store_true", help="change nothing, print which files would change")
    options = parser.parse_args(words)
    from sqlml.shell.fmt import run_fmt

    return run_fmt(options.files, check=options.check)


# --- sqlml serve, sqlml stop ----------------------------------------------------------------------------------------


def _serve(words: Sequence[str]) -> int:
    """``sqlml serve DATABASE``: this process becomes the endpoints' server."""
    parser = argparse.ArgumentParser(prog="sqlml serve", description="Serve the endpoints of a database, in the foreground.")
    parser.add_argument("database", metavar="DATABASE")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="the port (default: 8080 where it is free, else any)")
    parser.add_argument("--catalog", metavar="URL", help="the models are in this catalog (a SQLAlchemy URL)")
    options = parser.parse_args(words)
    home = _existing_home(options.database, options.catalog)
    if home is None:
        return 1
    from sqlml.home import CATALOG_VARIABLE
    from sqlml.registry import SERVER, load

    url = load(SERVER)(home, options.catalog).url()
    if url is not None:
        return _served_already(options, url)
    command = [sys.executable, "-m", "sqlml_runners.serving", "--home", str(home), "--foreground"]
    given = {"--host": options.host, "--port": options.port}
    if options.catalog:
        os.environ[CATALOG_VARIABLE] = options.catalog
    command += [word for name, value in given.items() if value is not None for word in (name, str(value))]
    os.execv(sys.executable, command)  # noqa: S606 - signals reach it


def _served_already(options: argparse.Namespace, url: str) -> int:
    from sqlml.shell.output import Output

    catalog = f" --catalog {options.catalog}" if options.catalog else ""
    stop = f"sqlml stop {options.database}{catalog}"
    Output().error(f"the endpoints of {options.database} are served already at {url}\n  stop that server first: {stop}")
    return 1


def _stop(words: Sequence[str]) -> int:
    """``sqlml stop DATABASE``: stops the detached server; nothing to stop is no error."""
    parser = argparse.ArgumentParser(prog="sqlml stop", description="Stop the endpoints' server that DEPLOY started.")
    parser.add_argument("database", metavar="DATABASE")
    parser.add_argument("--catalog", metavar="URL", help="the models are in this catalog (a SQLAlchemy URL)")
    options = parser.parse_args(words)
    home = _existing_home(options.database, options.catalog)
    if home is None:
        return 1
    from sqlml.registry import SERVER, load

    stopped = load(SERVER)(home, options.catalog).stop()
    sys.stdout.write("stopped\n" if stopped else "no server was running\n")
    return 0


def _existing_home(database: str, catalog: str | None) -> Path | None:
    """The models' folder of a database; says so where there is none."""
    from sqlml.home import home_of
    from sqlml.shell.output import Output

    home = home_of(database, catalog)
    if home.is_dir():
        return home
    Output().error(f"{database} has no models: there is no folder {home}\n  train one first: sqlml {database}")
    return None


if __name__ == "__main__":
    sys.exit(main())
