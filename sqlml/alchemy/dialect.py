"""The dialect: what SQLAlchemy has to know of a connection, and what it can ask of the database's catalog.

``sqlml:///bank.duckdb`` is a file, ``sqlml://`` a database in memory.  DuckDB speaks PostgreSQL's SQL for the most part, so this
is SQLAlchemy's dialect of PostgreSQL with another driver, other types, and a catalog of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sqlalchemy import pool
from sqlalchemy.dialects.postgresql.base import PGDialect, PGExecutionContext
from sqlalchemy.engine import default, reflection
from sqlalchemy.engine.url import URL
from sqlalchemy.exc import NoSuchTableError
from sqlml_dialect import Predict, parse

from sqlml.alchemy.compilers import Identifiers, Statements, Tables, Types
from sqlml.alchemy.types import sqlalchemy_type
from sqlml.binder.remote_tables import is_query
from sqlml.errors import ConnectionLost
from sqlml.statements.door import find_door

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


_OWN = ("information_schema", "pg_catalog")
_AUTOCOMMIT = "AUTOCOMMIT"
_NONE, _WAITS, _READS, _WRITES = "none", "waits", "reads", "writes"
"""Where a connection stands: in no transaction; in one that the database does not know of; that has read; that has written."""


def _is_outside(text: str) -> bool:
    """Whether a text is of statements of ours that belong to no transaction; PREDICT … INTO writes a table, so it does."""
    found = parse(text)
    if find_door(text, (0, len(text))) is not None:
        return True
    return all(
        one.node is not None and not (isinstance(one.node, Predict) and one.node.into and not one.node.runner) for one in found
    )


class Context(PGExecutionContext):
    """One execution."""

    def fire_sequence(self, seq: Any, type_: Any) -> Any:
        """The next number of a sequence."""
        literal = self.identifier_preparer.format_sequence(seq).replace("'", "''")
        return self._execute_scalar(f"SELECT nextval('{literal}')", type_)


class SqlmlDialect(PGDialect):
    """``create_engine("sqlml:///bank.duckdb")``: TRAIN, PREDICT and DEPLOY by ``text("…")``, all else as with any database."""

    name = "sqlml"
    driver = "sqlml"
    default_paramstyle = "qmark"
    supports_statement_cache = True
    supports_sane_rowcount = True
    supports_sane_multi_rowcount = False
    supports_server_side_cursors = False
    supports_native_uuid = True
    supports_native_decimal = True
    supports_constraint_comments = False
    div_is_floordiv = False
    use_insertmanyvalues = True
    postfetch_lastrowid = False
    statement_compiler = Statements
    ddl_compiler = Tables
    type_compiler_cls = Types
    preparer = Identifiers
    execution_ctx_cls = Context
    server_version_info = (15, 0)
    default_schema_name = "main"

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        import sqlml

        return sqlml

    @classmethod
    def get_pool_class(cls, url: URL) -> type[pool.Pool]:
        """A database in memory is one connection's own."""
        return pool.SingletonThreadPool if url.database in (None, "", ":memory:") else pool.QueuePool

    def create_connect_args(self, url: URL) -> tuple[Sequence[str], dict[str, Any]]:
        """``sqlml:///FILE?schema=ml&catalog=…``, as in ``sqlml.connect``."""
        return (url.database or ":memory:",), dict(url.query)

    def initialize(self, connection: Connection) -> None:
        """Nothing to find out."""
        default.DefaultDialect.initialize(self, connection)

    def on_connect(self) -> None:
        return None

    def _get_server_version_info(self, connection: Connection) -> tuple[int, ...]:
        return self.server_version_info

    def _get_default_schema_name(self, connection: Connection) -> str:
        return str(connection.exec_driver_sql("SELECT current_schema()").scalar())

    # --- transactions: a connection of ours commits each statement until it is told to begin -----------------------------
    # It is told so before the first statement of the database.  TRAIN, DEPLOY and their like run outside of transactions, and
    # shall not need a commit() before them only because SQLAlchemy, or pandas, has begun one in which nothing was written: such a
    # transaction ends before them, and begins again after them.

    def do_begin(self, dbapi_connection: Any) -> None:
        connection = _own(dbapi_connection)
        connection._stands = _NONE if getattr(connection, "_autocommit", False) else _WAITS

    def do_commit(self, dbapi_connection: Any) -> None:
        if self._has_begun(dbapi_connection):
            dbapi_connection.commit()

    def do_rollback(self, dbapi_connection: Any) -> None:
        if self._has_begun(dbapi_connection):
            dbapi_connection.rollback()

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        self._begin(cursor, statement)
        cursor.execute(statement, parameters)

    def do_execute_no_params(self, cursor: Any, statement: str, context: Any = None) -> None:
        self._begin(cursor, statement)
        cursor.execute(statement)

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        self._begin(cursor, statement)
        cursor.executemany(statement, parameters)

    def _begin(self, cursor: Any, statement: str) -> None:
        connection = cursor.connection
        stands = getattr(connection, "_stands", _NONE)
        if stands in (_NONE, _WRITES):
            return
        if _is_outside(statement):
            if stands == _READS:
                connection.commit()
                connection._stands = _WAITS
            return
        if stands == _WAITS:
            connection.begin()
        connection._stands = _READS if is_query(statement, (0, len(statement))) else _WRITES

    @staticmethod
    def _has_begun(connection: Any) -> bool:
        connection = _own(connection)
        stands, connection._stands = getattr(connection, "_stands", _NONE), _NONE
        return stands != _WAITS and not getattr(connection, "_autocommit", False)

    def get_isolation_level_values(self, dbapi_conn: Any) -> Any:
        return [_AUTOCOMMIT, "SERIALIZABLE"]

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:
        return "SERIALIZABLE"

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        return _AUTOCOMMIT if getattr(_own(dbapi_connection), "_autocommit", False) else "SERIALIZABLE"

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        """AUTOCOMMIT: each statement by itself, as TRAIN and DEPLOY need it where they shall be seen by others at once."""
        _own(dbapi_connection)._autocommit = level == _AUTOCOMMIT

    def is_disconnect(self, e: Exception, connection: Any, cursor: Any) -> bool:
        return isinstance(e, ConnectionLost) or (isinstance(e, self.loaded_dbapi.InterfaceError) and "closed" in str(e))

    # --- the catalog --------------------------------------------------------------------------------------------------

    @reflection.cache
    def get_schema_names(self, connection: Connection, **kw: Any) -> list[str]:
        query = "SELECT DISTINCT schema_name FROM duckdb_schemas() WHERE database_name = current_database() ORDER BY 1"
        return [name for (name,) in connection.exec_driver_sql(query) if name not in _OWN]

    @reflection.cache
    def get_table_names(self, connection: Connection, schema: str | None = None, **kw: Any) -> list[str]:
        return self._names(connection, "duckdb_tables() WHERE NOT temporary AND NOT internal", "table_name", schema)

    @reflection.cache
    def get_temp_table_names(self, connection: Connection, schema: str | None = None, **kw: Any) -> list[str]:
        query = "SELECT table_name FROM duckdb_tables() WHERE temporary AND NOT internal ORDER BY 1"
        return [name for (name,) in connection.exec_driver_sql(query)]

    @reflection.cache
    def get_view_names(self, connection: Connection, schema: str | None = None, **kw: Any) -> list[str]:
        return self._names(connection, "duckdb_views() WHERE NOT temporary AND NOT internal", "view_name", schema)

    @reflection.cache
    def get_temp_view_names(self, connection: Connection, schema: str | None = None, **kw: Any) -> list[str]:
        query = "SELECT view_name FROM duckdb_views() WHERE temporary AND NOT internal ORDER BY 1"
        return [name for (name,) in connection.exec_driver_sql(query)]

    @reflection.cache
    def get_materialized_view_names(self, connection: Connection, schema: str | None = None, **kw: Any) -> list[str]:
        return []

    @reflection.cache
    def get_sequence_names(self, connection: Connection, schema: str | None = None, **kw: Any) -> list[str]:
        return self._names(connection, "duckdb_sequences() WHERE NOT temporary", "sequence_name", schema)

    def _names(self, connection: Connection, source: str, column: str, schema: str | None) -> list[str]:
        query = f"SELECT {column} FROM {source} AND database_name = current_database() AND schema_name = ? ORDER BY 1"  # noqa: S608
        return [name for (name,) in connection.exec_driver_sql(query, (schema or self.default_schema_name,))]

    @reflection.cache
    def has_table(self, connection: Connection, table_name: str, schema: str | None = None, **kw: Any) -> bool:
        return bool(self._kind(connection, table_name, schema))

    @reflection.cache
    def has_sequence(self, connection: Connection, sequence_name: str, schema: str | None = None, **kw: Any) -> bool:
        return sequence_name in self.get_sequence_names(connection, schema)

    @reflection.cache
    def has_schema(self, connection: Connection, schema: str, **kw: Any) -> bool:  # type: ignore[override]
        return schema in self.get_schema_names(connection)

    def _kind(self, connection: Connection, name: str, schema: str | None) -> str | None:
        query = """
            SELECT 'table' FROM duckdb_tables()
            WHERE table_name = $name AND (database_name = current_database() AND schema_name = $schema OR temporary AND $free)
            UNION ALL SELECT 'view' FROM duckdb_views()
            WHERE view_name = $name AND (database_name = current_database() AND schema_name = $schema OR temporary AND $free)
        """
        values = {"name": name, "schema": schema or self.default_schema_name, "free": schema is None}
        found = connection.exec_driver_sql(query, values).scalar()
        return None if found is None else str(found)

    def _require(self, connection: Connection, table_name: str, schema: str | None) -> None:
        if self._kind(connection, table_name, schema) is None:
            raise NoSuchTableError(f"{schema}.{table_name}" if schema else table_name)

    def _rows(self, connection: Connection, query: str, table_name: str, schema: str | None) -> list[Any]:
        """What the catalog says of a table; ``NoSuchTableError`` where there is none."""
        values = (table_name, schema or self.default_schema_name, schema is None)
        found = list(connection.exec_driver_sql(query, values))
        if not found:
            self._require(connection, table_name, schema)
        return found

    @reflection.cache
    def get_columns(self, connection: Connection, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        rows = self._rows(
            connection,
            """SELECT c.column_name, c.data_type, c.is_nullable, c.column_default, c.comment
               FROM duckdb_columns() AS c LEFT JOIN duckdb_tables() AS t USING (database_oid, table_oid)
               WHERE c.table_name = ? AND (c.schema_name = ? OR coalesce(t.temporary, false) AND ?)
                 AND (c.database_name = current_database() OR coalesce(t.temporary, false))
               ORDER BY c.column_index""",
            table_name,
            schema,
        )
        return [
            {
                "name": name,
                "type": sqlalchemy_type(kind),
                "nullable": nullable,
                "default": default,
                "autoincrement": str(default or "").lower().startswith("nextval("),
                "comment": comment,
            }
            for name, kind, nullable, default, comment in rows
        ]

    def _constraints(self, connection: Connection, kind: str, table_name: str, schema: str | None) -> list[Any]:
        self._require(connection, table_name, schema)
        query = """
            SELECT constraint_name, constraint_column_names, expression, referenced_table, referenced_column_names
            FROM duckdb_constraints() AS c JOIN duckdb_tables() AS t USING (database_oid, table_oid)
            WHERE constraint_type = ? AND c.table_name = ?
                AND (c.database_name = current_database() AND c.schema_name = ? OR t.temporary AND ?)
            ORDER BY constraint_index
        """
        values = (kind, table_name, schema or self.default_schema_name, schema is None)
        return list(connection.exec_driver_sql(query, values))

    @reflection.cache
    def get_pk_constraint(self, connection: Connection, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        found = self._constraints(connection, "PRIMARY KEY", table_name, schema)
        return (
            {"constrained_columns": list(found[0][1]), "name": found[0][0]}
            if found
            else {"constrained_columns": [], "name": None}
        )

    @reflection.cache
    def get_foreign_keys(self, connection: Connection, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        return [
            {
                "name": name,
                "constrained_columns": list(columns),
                "referred_schema": schema,
                "referred_table": table,
                "referred_columns": list(others),
                "options": {},
                "comment": None,
            }
            for name, columns, _, table, others in self._constraints(connection, "FOREIGN KEY", table_name, schema)
        ]

    @reflection.cache
    def get_unique_constraints(self, connection: Connection, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        return [
            {"name": name, "column_names": list(columns), "comment": None}
            for name, columns, *_ in self._constraints(connection, "UNIQUE", table_name, schema)
        ]

    @reflection.cache
    def get_check_constraints(self, connection: Connection, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        return [
            {"name": name, "sqltext": expression, "comment": None}
            for name, _, expression, *_ in self._constraints(connection, "CHECK", table_name, schema)
        ]

    @reflection.cache
    def get_indexes(self, connection: Connection, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        self._require(connection, table_name, schema)
        query = """
            SELECT index_name, is_unique, expressions FROM duckdb_indexes()
            WHERE table_name = ? AND schema_name = ? AND database_name = current_database() ORDER BY 1
        """
        found = connection.exec_driver_sql(query, (table_name, schema or self.default_schema_name))
        return [
            {
                "name": name,
                "unique": unique,
                "column_names": _column_names(expressions),
                "include_columns": [],
                "dialect_options": {},
            }
            for name, unique, expressions in found
        ]

    @reflection.cache
    def get_view_definition(self, connection: Connection, view_name: str, schema: str | None = None, **kw: Any) -> str:
        query = """
            SELECT sql FROM duckdb_views()
            WHERE view_name = ? AND (database_name = current_database() AND schema_name = ? OR temporary AND ?)
        """
        values = (view_name, schema or self.default_schema_name, schema is None)
        found = connection.exec_driver_sql(query, values).scalar()
        if found is None:
            raise NoSuchTableError(f"{schema}.{view_name}" if schema else view_name)
        return str(found).partition(" AS ")[2].rstrip(";\n ")

    @reflection.cache
    def get_table_comment(self, connection: Connection, table_name: str, schema: str | None = None, **kw: Any) -> Any:
        query = """
            SELECT comment FROM duckdb_tables()
            WHERE table_name = ? AND (database_name = current_database() AND schema_name = ? OR temporary AND ?)
        """
        rows = self._rows(connection, query, table_name, schema)
        return {"text": rows[0][0] if rows else None}

    # PostgreSQL's dialect answers for many tables at once from its own catalog; here each is asked for by itself
    get_table_options: Any = default.DefaultDialect.get_table_options
    has_multi_table: Any = default.DefaultDialect.has_multi_table
    get_multi_columns: Any = default.DefaultDialect.get_multi_columns
    get_multi_pk_constraint: Any = default.DefaultDialect.get_multi_pk_constraint
    get_multi_foreign_keys: Any = default.DefaultDialect.get_multi_foreign_keys
    get_multi_indexes: Any = default.DefaultDialect.get_multi_indexes
    get_multi_unique_constraints: Any = default.DefaultDialect.get_multi_unique_constraints
    get_multi_check_constraints: Any = default.DefaultDialect.get_multi_check_constraints
    get_multi_table_comment: Any = default.DefaultDialect.get_multi_table_comment
    get_multi_table_options: Any = default.DefaultDialect.get_multi_table_options


def _own(connection: Any) -> Any:
    """The connection of ours within one of the pool's."""
    return getattr(connection, "dbapi_connection", connection)


def _column_names(expressions: str) -> list[str]:
    """The columns of an index, as the catalog lists them: ``[a, '"b c"']``."""
    names = [name.strip().strip("'") for name in str(expressions).strip("[]").split(",")]
    return [name[1:-1].replace('""', '"') if name.startswith('"') else name for name in names]
