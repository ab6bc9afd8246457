"""The command ``sqlml``.

    sqlml [DATABASE] [-c SQL]… [-f FILE]… [--format table|csv|json|markdown] …
    sqlml fmt [--check] FILE…
    sqlml serve DATABASE …
    sqlml stop DATABASE
    sqlml passwd FILE NAME

argparse rather than click: ``-c`` and ``-f`` run in the order in which they were given, and nothing has to be imported.
"""

from __future__ import annotations

import argparse
import gc
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
sqlml serve DATABASE    serve a database to PostgreSQL's clients, and its endpoints over HTTP, in the foreground
sqlml stop DATABASE     stop that, or the server that DEPLOY started
sqlml passwd FILE NAME  add a user of sqlml serve --users FILE, or change a password

Without DATABASE everything is in memory.  A file that sqlml serve has open is worked on through it.
Without -c and -f, SQL comes from the keyboard, or from standard input: echo 'SHOW MODELS' | sqlml bank.duckdb
csv, json and markdown print the rows and nothing else, each statement's apart: csv and markdown with an
empty line between two results, json one document (a list of objects) after the other, as jq reads them.
json keeps every digit of a number; NaN and the infinities, which JSON does not have, become null.

A database file that is called fmt, serve, stop or passwd is opened as ./fmt, ./serve, ./stop or ./passwd.
An error in a file is told as road.sql:12:5: statement 4: error: …, line and column counted in the file.
Exit status: 0, 1 after an error (the first one stops), 2 for wrong usage, 130 after Ctrl-C.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The console entry; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbs = {"fmt": _fmt, "serve": _serve, "stop": _stop, "passwd": _passwd}
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
    if scripted:
        with connection:
            return _run_scripts(connection, options.scripts or [("file", "-")], output)
    from sqlml.shell.repl import Repl

    Repl(connection, output, lambda: _connect(options, output)).run()
    return 0


def _connect(options: argparse.Namespace, output: Output) -> Connection:
    import sqlml

    gc.disable()  # nearly all that is made here stays: to look through it again and again is a tenth of the time that it takes
    try:
        return sqlml.connect(options.database, catalog=options.catalog, on_event=output.event)
    finally:
        gc.freeze()
        gc.enable()


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
    """``sqlml serve DATABASE``: the database for PostgreSQL's clients, and its endpoints, in the foreground."""
    options = _serve_parser().parse_args(words)
    if options.cors_origin is not None:
        from sqlml.server_settings import origins_of
        from sqlml.shell.output import Output

        try:
            origins_of(",".join(options.cors_origin))
        except ValueError as error:
            Output().error(f"--cors-origin: {error}")
            return 1
    from sqlml.registry import SERVER, load

    if "://" in options.database:
        return _serve_http(options)
    from sqlml.home import catalog_url, home_of

    home = home_of(options.database, options.catalog)
    url = load(SERVER)(home, catalog_url(options.database, options.catalog)).url() if home.is_dir() else None
    if url is not None:
        return _served_already(options, url)
    from sqlml.wire.serve import run_serve
    from sqlml.wire.server import WireOptions

    names = ("database", "catalog", "host", "port", "users", "max_connections")
    given = {name: getattr(options, name) for name in names}
    return run_serve(WireOptions(**given, certificate=options.tls_cert, key=options.tls_key), _http_arguments(options))


def _serve_parser() -> argparse.ArgumentParser:
    from pathlib import Path

    parser = argparse.ArgumentParser(
        prog="sqlml serve",
        description="Serve a database to PostgreSQL's clients (psql, BI tools, drivers), over HTTP (POST /sql) and to other "
        "processes that open it with sqlml; and its endpoints over HTTP.",
        epilog="A database that is itself a PostgreSQL server (a URL) needs no other: then the endpoints alone are served.",
    )
    add = parser.add_argument
    add("database", metavar="DATABASE", help="a DuckDB file, made where there is none")
    add("--host", default="127.0.0.1", help="the address to listen at (default: this machine only)")
    add("--port", type=_port, default=5433, help="the port for PostgreSQL's clients and POST /sql (default: 5433)")
    add("--http-host", metavar="HOST", help="the address of the endpoints (default: this machine only)")
    add("--http-port", type=_port, metavar="PORT", help="the port of the endpoints (default: 8080 where it is free, else any)")
    add(
        "--users", type=Path, metavar="FILE", help="who may come in, with passwords (sqlml passwd FILE NAME); else everybody here"
    )
    add(
        "--memory", type=int, metavar="BYTES", help="of the endpoints' models, all workers together (default: half the machine's)"
    )
    add("--grpc-port", type=_port, metavar="PORT", help="speak gRPC to the endpoints' callers, too, at this port (0: a free one)")
    add(
        "--cors-origin",
        action="append",
        metavar="ORIGIN",
        help="let pages of this origin ask the endpoints; again for more, * for all",
    )
    add("--open-metrics", action="store_true", help="the endpoints' figures for callers on other machines, without a key")
    add("--tls-cert", type=Path, metavar="FILE", help="speak TLS and https: the certificate, and those that signed it (PEM)")
    add("--tls-key", type=Path, metavar="FILE", help="the private key of the certificate (PEM)")
    add("--max-connections", type=int, default=250, metavar="N", help="the most clients at once (default: 250)")
    add("--catalog", metavar="URL", help="the models are in this catalog (a SQLAlchemy URL)")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, got {text!r}")
    return int(text)


def _http_arguments(options: argparse.Namespace) -> list[str]:
    given = {
        "--host": options.http_host,
        "--port": options.http_port,
        "--tls-cert": options.tls_cert,
        "--tls-key": options.tls_key,
        "--grpc-port": options.grpc_port,
        "--memory": options.memory,
    }
    words = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    origins = [word for origin in options.cors_origin or () for word in ("--cors-origin", origin)]
    return [*words, *origins, *["--open-metrics"] * options.open_metrics]


def _serve_http(options: argparse.Namespace) -> int:
    """The endpoints alone."""
    home = _existing_home(options.database, options.catalog)
    if home is None:
        return 1
    from sqlml.home import CATALOG_VARIABLE, catalog_url
    from sqlml.registry import SERVER, load

    catalog = catalog_url(options.database, options.catalog)
    url = load(SERVER)(home, catalog).url()
    if url is not None:
        return _served_already(options, url)
    command = [sys.executable, "-m", "sqlml_runners.serving", "--home", str(home), "--foreground", *_http_arguments(options)]
    if catalog:
        os.environ[CATALOG_VARIABLE] = catalog
    os.execv(sys.executable, command)  # noqa: S606 - signals reach it


def _passwd(words: Sequence[str]) -> int:
    """``sqlml passwd FILE NAME``: adds a user to a file, or changes a password."""
    parser = argparse.ArgumentParser(
        prog="sqlml passwd", description="Add a user of sqlml serve --users FILE, or change a password."
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("name", metavar="NAME")
    options = parser.parse_args(words)
    import getpass
    from pathlib import Path

    from sqlml.errors import Error
    from sqlml.shell.output import Output
    from sqlml.wire.users import write_user

    asks = sys.stdin.isatty()
    password = getpass.getpass(f"password of {options.name}: ") if asks else sys.stdin.readline().rstrip("\n")
    if asks and getpass.getpass("again: ") != password:
        Output().error("the two passwords differ: nothing was changed")
        return 1
    if not password:
        Output().error(
            "no password was given: nothing was changed\n  type one, or send one line: echo … | sqlml passwd FILE NAME"
        )
        return 1
    try:
        write_user(Path(options.file), options.name, password)
    except (Error, OSError) as error:
        return _failed(error, Output())
    return 0


def _served_already(options: argparse.Namespace, url: str) -> int:
    from sqlml.home import without_password
    from sqlml.shell.output import Output

    database = without_password(options.database)
    catalog = f" --catalog {without_password(options.catalog)}" if options.catalog else ""
    stop = f"sqlml stop {database}{catalog}"
    Output().error(f"the endpoints of {database} are served already at {url}\n  stop that server first: {stop}")
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
    from sqlml.home import catalog_url
    from sqlml.registry import SERVER, load

    stopped = load(SERVER)(home, catalog_url(options.database, options.catalog)).stop()
    sys.stdout.write("stopped\n" if stopped else "no server was running\n")
    return 0


def _existing_home(database: str, catalog: str | None) -> Path | None:
    """The models' folder of a database; says so where there is none."""
    from sqlml.errors import Error
    from sqlml.home import home_of, without_password
    from sqlml.shell.output import Output

    try:
        home = home_of(database, catalog)
    except Error as error:
        _failed(error, Output())
        return None
    if home.is_dir():
        return home
    shown = without_password(database)
    Output().error(f"{shown} has no models: there is no folder {home}\n  train one first: sqlml {shown}")
    return None


if __name__ == "__main__":
    sys.exit(main())
