"""The shell's own commands: ``\\d``, ``\\m`` and so on.  Each takes the rest of its line."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlml.errors import ProgrammingError, did_you_mean
from sqlml.shell.run import Result, run_statement

if TYPE_CHECKING:
    from sqlml.dbapi import Connection
    from sqlml.shell.output import Output


class Leave(Exception):
    """The person wants to go."""


@dataclass(frozen=True)
class Command:
    """A command: how it is written, what it does, and the function that does it."""

    usage: str
    doc: str
    run: Callable[[Connection, Output, str], None]


def run_command(connection: Connection, output: Output, line: str) -> None:
    """Run a line that begins with a backslash.  ``ProgrammingError`` where there is no such command; ``Leave`` for ``\\q``."""
    name, _, argument = line.strip().rstrip(";").partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise ProgrammingError(f"unknown command {name}", hint=did_you_mean(name, COMMANDS) or "\\? lists all")
    command.run(connection, output, argument.strip())


def needs_connection(line: str) -> bool:
    """Whether a line's command asks the database anything."""
    return line.strip().rstrip(";").partition(" ")[0] in ("\\d", "\\m", "\\i")


_TABLES = {
    "duckdb": """
    SELECT schema_name AS schema, table_name AS "table", estimated_size AS rows, column_count AS columns FROM duckdb_tables()
    WHERE NOT internal AND NOT temporary AND database_name = current_database()
    UNION ALL
    SELECT schema_name, view_name || ' (view)', NULL, column_count FROM duckdb_views()
    WHERE NOT internal AND database_name = current_database()
    ORDER BY ALL
""",
    "postgres": """
    SELECT n.nspname AS schema, c.relname || CASE WHEN c.relkind IN ('v', 'm') THEN ' (view)' ELSE '' END AS "table",
           CASE WHEN c.relkind IN ('r', 'p') AND c.reltuples >= 0 THEN c.reltuples::bigint END AS rows, c.relnatts AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    ORDER BY 1, 2
""",
}
_COLUMNS = """
    SELECT attname AS column_name, format_type(atttypid, atttypmod) AS column_type, NOT attnotnull AS nullable FROM pg_attribute
    WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
"""The columns of a table of PostgreSQL, which has no DESCRIBE."""


def _tables(connection: Connection, output: Output, argument: str) -> None:
    """``\\d``: the tables; ``\\d name``: the columns of a table or the inputs of a model."""
    if not argument:
        output.result(run_statement(connection, _TABLES[connection.dialect]))
    elif argument.partition("@")[0].lower() in {name.partition("@")[0].lower() for name in connection.names().models}:
        _models(connection, output, argument)
    elif _place_of(connection, argument) is not None:
        output.result(_described(connection, argument))
    elif connection.dialect == "postgres":
        found = run_statement(connection, _COLUMNS, [argument])
        output.result(found if found.table is not None and found.table.num_rows else _described(connection, argument))
    else:
        output.result(run_statement(connection, f"DESCRIBE {argument}"))


def _place_of(connection: Connection, name: str) -> str | None:
    """The connection whose table a name means.  ``ProgrammingError`` for a connection's name alone."""
    names = connection.names()
    known = {place.lower(): place for place in (*names.runners, *names.connections)}
    first, dot, _ = name.partition(".")
    place = known.get(first.strip('"').lower())
    if place is not None and not dot and name.lower() not in {table.lower() for table in names.tables}:
        raise ProgrammingError(f"{place} is a connection", hint=f"\\d {place}.customers shows a table of it")
    return place if dot else None


def _described(connection: Connection, name: str) -> Result:
    """The columns of a table by those of a query of it; where there is none, its database's own error says so."""
    import pyarrow as pa

    started = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {name} WHERE 1 = 0")  # noqa: S608 - typed by whoever asks
        columns = list(cursor.description or ())
    table = pa.table({
        "column_name": pa.array([column.name for column in columns], pa.string()),
        "column_type": pa.array([column.type_code for column in columns], pa.string()),
    })  # fmt: skip
    return Result(table, -1, None, "sql", time.perf_counter() - started)


def _models(connection: Connection, output: Output, argument: str) -> None:
    output.result(run_statement(connection, f"DESCRIBE MODEL {argument}" if argument else "SHOW MODELS"))


def _format(connection: Connection, output: Output, argument: str) -> None:
    from sqlml.shell.render import FORMATS

    if argument and argument not in FORMATS:
        raise ProgrammingError(f"unknown format {argument}", hint=f"there are {', '.join(FORMATS)}")
    output.format = argument or output.format
    output.line(f"format {output.format}")


def _rows(connection: Connection, output: Output, argument: str) -> None:
    if argument and not argument.isdigit():
        raise ProgrammingError(f"{argument} is not a number of rows", hint="\\rows 100, or \\rows 0 for all")
    output.rows = (int(argument) or None) if argument else output.rows
    output.line(f"rows {output.rows or 'all'}")


def _include(connection: Connection, output: Output, argument: str) -> None:
    from sqlml.shell.batch import read_script, run_script

    if not argument:
        raise ProgrammingError("\\i needs a file", hint="\\i road.sql")
    run_script(connection, read_script(argument.strip("'\"")), output)


def _help(connection: Connection, output: Output, argument: str) -> None:
    width = max(len(command.usage) for command in COMMANDS.values())
    output.line(HELP)
    for name, command in COMMANDS.items():
        if name not in _ALIASES:
            output.line(f"  {command.usage:{width}}  {command.doc}")


def _leave(connection: Connection, output: Output, argument: str) -> None:
    raise Leave


HELP = """\
A statement ends with a semicolon and may take many lines.
  TRAIN MODEL m TARGET y AS SELECT …;      a model, or a new version of it
  EVALUATE MODEL m;                        how good it is on rows that it has not seen
  EXPLAIN MODEL m;                         what it goes by; with AS SELECT …, row by row
  SELECT *, PREDICT(m) FROM t;             its answers, anywhere in a query
  PREDICT MODEL m INTO u AS SELECT …;      its answers, into a table
  DEPLOY MODEL m;                          its answers, over HTTP; WITH (traffic = 10) a part of them
  DEPLOY QUERY e AS SELECT …;              an answer of several models, with rows looked up by key
  EVALUATE ENDPOINT m;                     how good they were, by INSERT INTO sqlml.feedback
  SHOW MODELS;                             also VERSIONS OF m, RUNS, JOBS, ENDPOINTS, API KEYS, ALGORITHMS, RUNNERS
Everything else is the database's own SQL.  Tab completes, Ctrl-C cancels what runs, Ctrl-D leaves.
"""

COMMANDS: Mapping[str, Command] = {
    "\\d": Command("\\d [name]", "the tables, or what a table or model is made of", _tables),
    "\\m": Command("\\m [model]", "the models, or one of them", _models),
    "\\f": Command("\\f [format]", "print results as table, csv, json or markdown", _format),
    "\\rows": Command("\\rows [n]", "print at most so many rows of a table (0: all)", _rows),
    "\\i": Command("\\i file", "run a file of SQL", _include),
    "\\?": Command("\\?", "this help", _help),
    "\\h": Command("\\h", "this help", _help),
    "\\q": Command("\\q", "leave", _leave),
}
_ALIASES = {"\\h"}
