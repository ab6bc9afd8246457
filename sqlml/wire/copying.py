"""COPY TO STDOUT and FROM STDIN: the statement read, and the rows' way out and in.

Out: the query's batches, encoded a slice at a time.  In: what the client sends is kept in a file until it is whole, then read by
the database in one statement, so that a wrong row leaves nothing behind.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from sqlml_dialect import quote_identifier
from sqlml_dialect.tokens import Kind, Token, name_value, string_value

from sqlml.errors import Error, NotSupportedError, OperationalError
from sqlml.statements.queries import noting
from sqlml.wire import messages as m
from sqlml.wire.copy_lines import Quotes, Sent
from sqlml.wire.copy_rows import SIGNATURE, TRAILER, copy_binary, copy_text, header_line
from sqlml.wire.errors import Refused
from sqlml.wire.portals import Outcome

if TYPE_CHECKING:
    from sqlml.types import Column
    from sqlml.wire.backend import Backend

_OPTIONS = ("FORMAT", "HEADER", "DELIMITER", "NULL", "QUOTE", "ESCAPE", "ENCODING", "FREEZE", "FORCE_QUOTE", "FORCE_NULL",
            "FORCE_NOT_NULL", "OIDS", "CSV", "BINARY")  # fmt: skip


@dataclass(frozen=True)
class Format:
    """How rows are written: ``text``, ``csv`` or ``binary``."""

    name: str = "text"
    header: bool = False
    delimiter: str = "\t"
    null: str = "\\N"
    quote: str = '"'
    escape: str = '"'
    match: bool = False
    """Whether the header must have the columns' names."""

    @property
    def is_binary(self) -> bool:
        return self.name == "binary"


def copy_command(tokens: list[Token], text: str, backend: Backend) -> Outcome | None:
    """COPY … TO STDOUT or FROM STDIN; None for what the database copies itself (files)."""
    at = next((i for i, t in enumerate(tokens) if t.key in ("STDOUT", "STDIN") and tokens[i - 1].key in ("TO", "FROM")), None)
    if at is None:
        return None
    binary_first = tokens[1].key == "BINARY"
    source = text[tokens[2 if binary_first else 1].start : tokens[at - 1].start].strip()
    form = _format(tokens[at + 1 :], binary_first)
    if tokens[at].key == "STDOUT":
        query = source[1:-1] if source.startswith("(") else _table_query(source)
        return copy_out(query, form, backend)
    if source.startswith("("):
        raise Refused("COPY FROM goes into a table, not into a query", "42601")
    backend.settle()
    sql = backend.rewriter.rewrite(_table_query(source), backend.settings)
    columns = backend.runner.session.describe(sql)
    assert columns is not None
    backend.copying = CopyIn(source, columns, form)
    return None


def copy_out(query: str, form: Format, backend: Backend) -> Outcome:
    """The rows of a query as CopyData."""
    outcome = backend.run_sql(query, "SELECT")
    if outcome.fields is None or outcome.batches is None:
        raise Refused("COPY needs a query that gives rows", "0A000")
    fields, batches = outcome.fields, outcome.batches
    count = 0

    def sent() -> Generator[bytes | memoryview, None, None]:
        nonlocal count
        yield m.copy_response(b"H", len(fields), binary=form.is_binary)
        types = [column.type for column in fields]
        if form.header and not form.is_binary:
            yield m.message(b"d", header_line([column.name for column in fields], form))
        first = True
        for batch in batches:
            count += batch.num_rows
            if form.is_binary:
                yield from copy_binary(batch, types, signed=first)
            else:
                yield from copy_text(batch, types, form)
            first = False
        if form.is_binary:
            yield m.message(b"d", (SIGNATURE if first else b"") + TRAILER)
        yield m.COPY_DONE

    return Outcome(None, batches, lambda _: f"COPY {count}", raw=sent())


class CopyIn:
    """What a client sends for COPY FROM STDIN, until it is whole."""

    def __init__(self, target: str, columns: tuple[Column, ...], form: Format) -> None:
        self._target = target
        self._columns = columns
        self._form = form
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(prefix="sqlml-copy-", suffix=".csv")  # noqa: SIM115 - closed by close
        self._quotes = Quotes(form)
        self._odd, self._last = False, b""  # whether a line is empty, the last byte

    def response(self) -> bytes:
        """Send me data."""
        return m.copy_response(b"G", len(self._columns), binary=self._form.is_binary)

    def feed(self, data: bytes) -> None:
        if not self._form.is_binary:
            self._quotes.feed(data)
            self._odd = self._odd or b"\n\n" in data or (data[:1] == b"\n" and self._last in (b"", b"\n"))
            self._last = data[-1:] or self._last
        self._file.write(data)

    def close(self) -> None:
        self._file.close()

    def _without_end_mark(self) -> int:
        r"""How many bytes there are; a line ``\.`` at the end is only a mark, of clients that read from files."""
        size = self._file.seek(0, 2)
        if not self._form.is_binary:
            self._file.seek(max(0, size - 5))
            tail = self._file.read()
            body = tail.rstrip(b"\r\n")
            if body.endswith(b"\\.") and body[:-2][-1:] in (b"", b"\n"):
                size -= len(tail) - len(body) + 2
                self._file.truncate(size)
        self._file.flush()
        return size

    def finish(self, backend: Backend) -> int:
        """Insert everything, or nothing; how many rows there were."""
        try:
            size = self._without_end_mark()
            if size == 0:
                return 0
            if self._form.is_binary:
                return self._insert_tuples(backend)
            return self._insert_text(backend)
        finally:
            self.close()

    def _insert_text(self, backend: Backend) -> int:
        """One INSERT, which reads the file; what is wrong with it is told as PostgreSQL tells it."""
        from sqlml.wire.copy_faults import check_header, check_shape, explain_fault
        from sqlml.wire.copy_in import insert_text

        sent = Sent(self._file, self._target, self._columns, self._form, backend.check_cancelled)
        if self._form.match:
            check_header(sent)
        if self._quotes.is_open or (self._odd and len(self._columns) > 1):
            check_shape(sent)
        try:
            sql = insert_text(self._target, self._columns, self._form, self._file.name)
            return int(backend.run_sql(sql, "INSERT").tag(0).split()[-1])
        except (OperationalError, NotSupportedError):
            raise
        except Error as error:
            raise explain_fault(error, sent) from None

    def _insert_tuples(self, backend: Backend) -> int:
        """One INSERT, which reads the file's tuples as they are decoded; an error of theirs is told, not what comes of it."""
        import pyarrow as pa

        from sqlml.wire.copy_tuples import read_tuples

        self._file.seek(0)
        schema, batches = read_tuples(self._file, self._target.partition("(")[0].strip(), self._columns)
        wrong: list[Error] = []
        name = f"__sqlml_copy_{uuid.uuid4().hex[:12]}"
        names = ", ".join(quote_identifier(column.name) for column in self._columns)
        head = self._target if "(" in self._target else f"{self._target} ({names})"
        casts = ", ".join(f"CAST({quote_identifier(c.name)} AS {c.sql_type})" for c in self._columns)
        sql = f"INSERT INTO {head} SELECT {casts} FROM {name}"  # noqa: S608
        try:
            with backend.runner.session.lend(name, pa.RecordBatchReader.from_batches(schema, noting(batches, wrong))):
                return int(backend.run_sql(sql, "INSERT").tag(0).split()[-1])
        except Error:
            if wrong:
                raise wrong[0] from None
            raise


def _table_query(source: str) -> str:
    """``t`` and ``t (a, b)`` as queries."""
    table, bracket, rest = source.partition("(")
    columns = rest.rpartition(")")[0] if bracket else "*"
    return f"SELECT {columns} FROM {table.strip()}"  # noqa: S608


def _format(tokens: list[Token], binary: bool) -> Format:
    """The options, in brackets or in the older form without."""
    given: dict[str, Any] = {"FORMAT": "binary"} if binary else {}
    index = 0
    while index < len(tokens):
        key = tokens[index].key
        if key not in _OPTIONS:
            if key in ("WHERE",):
                raise Refused("COPY … WHERE is not supported", "0A000", hint="copy everything, then DELETE")
            if key != "WITH" and tokens[index].kind in (Kind.WORD, Kind.QUOTED):
                known = ", ".join(name.lower() for name in _OPTIONS[:7])
                raise Refused(f'option "{name_value(tokens[index])}" not recognized', "42601", hint=f"there are: {known}")
            index += 1
            continue
        if key.startswith("FORCE_"):
            raise Refused(f"COPY option {key} is not supported", "0A000")
        value = tokens[index + 1] if index + 1 < len(tokens) else None
        if value is not None and value.key == "AS":
            index += 1
            value = tokens[index + 1] if index + 1 < len(tokens) else None
        if key in ("CSV", "BINARY"):
            given["FORMAT"] = key.lower()
        elif value is None or value.text in (",", ")") or (key == "HEADER" and value.key in _OPTIONS):
            given[key] = "true"
        else:
            given[key] = string_value(value.text) if value.kind is Kind.STRING else name_value(value)
            index += 1
        index += 1
    return _checked(given)


def _checked(given: dict[str, str]) -> Format:
    name = given.get("FORMAT", "text").lower()
    if name not in ("text", "csv", "binary"):
        raise Refused(f'COPY format "{name}" not recognized', "22023", hint="text, csv or binary")
    csv = name == "csv"
    header = given.get("HEADER", "false").lower() in ("true", "on", "1", "match")
    delimiter = given.get("DELIMITER", "," if csv else "\t")
    if len(delimiter.encode()) != 1:
        raise Refused("COPY delimiter must be a single one-byte character", "0A000")
    quote = given.get("QUOTE", '"')
    for what, letter in (("quote", quote), ("escape", given.get("ESCAPE", quote))):
        if len(letter.encode()) != 1:
            raise Refused(f"COPY {what} must be a single one-byte character", "0A000")
    if given.get("HEADER", "true").lower() not in ("true", "on", "1", "match", "false", "off", "0"):
        raise Refused('HEADER requires a Boolean value or "match"', "42601")
    match = given.get("HEADER", "").lower() == "match"
    null = given.get("NULL", "" if csv else "\\N")
    return Format(name, header, delimiter, null, quote, given.get("ESCAPE", quote), match)
