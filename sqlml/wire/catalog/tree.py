"""A query of the system catalog, rewritten in its tree: names of relations, functions and types become those that exist here.

Only a text that mentions the catalog comes here; everything else reaches DuckDB byte for byte.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from sqlml.wire.catalog.install import DATABASE, SCHEMAS, macro_names, system_relations
from sqlml.wire.settings import Settings

if TYPE_CHECKING:
    from sqlglot import exp

_WORDS = re.compile(
    r"\bpg_\w+|\binformation_schema\b|\breg(?:class|type|proc|procedure|namespace|role|oper|operator|config|dictionary)\b"
    r"|\b(?:obj|col|shobj)_description\b|\bhas_\w+_privilege\b|\bformat_type\b|\bquote_ident\b|\bcurrent_schemas\b|\bset_config\b"
    r"|\bcurrent_setting\s*\(\s*[^'\s]|\bto_reg\w+\b|\binet_(?:server|client)_\w+|\btxid_current\b|\bgenerate_subscripts\b|\barray_(?:upper|lower)\b",
    re.IGNORECASE,
)
_RENAMED = {"json_build_object": "json_object", "jsonb_build_object": "json_object", "json_build_array": "json_array",
            "json_agg": "json_group_array", "jsonb_agg": "json_group_array", "row_to_json": "to_json"}  # fmt: skip
_VECTORS = ("indkey", "indoption", "indclass", "indcollation", "proargtypes")
"""Columns that are lists here and texts like ``1 2`` to clients."""
_FUNCTION_COLUMNS = ("typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze")
_SETTINGS_COLUMNS = """SELECT name, setting, NULL::VARCHAR AS unit, 'sqlml' AS category, '' AS short_desc, '' AS extra_desc,
    'user' AS context, 'string' AS vartype, 'session' AS source, NULL::VARCHAR AS min_val, NULL::VARCHAR AS max_val,
    NULL::VARCHAR[] AS enumvals, setting AS boot_val, setting AS reset_val, NULL::VARCHAR AS sourcefile,
    NULL::INTEGER AS sourceline, false AS pending_restart FROM """
_REG = ("class", "type", "proc", "procedure", "namespace", "role")
_TYPES = {
    "OID": "BIGINT", "NAME": "VARCHAR", "CHAR": "VARCHAR", "INT2VECTOR": "INTEGER[]", "OIDVECTOR": "BIGINT[]", "XID": "BIGINT",
    "CSTRING": "VARCHAR", "REGCONFIG": "VARCHAR", "REGDICTIONARY": "VARCHAR", "PG_NODE_TREE": "VARCHAR", "ACLITEM": "VARCHAR",
    "SQL_IDENTIFIER": "VARCHAR", "CHARACTER_DATA": "VARCHAR", "CARDINAL_NUMBER": "INTEGER", "YES_OR_NO": "VARCHAR",
}  # fmt: skip


def mentions_catalog(text: str) -> bool:
    """Whether a text names anything of the system catalog."""
    return _WORDS.search(text) is not None


@cache
def _relations() -> dict[str, str]:
    """The schema here of each relation of pg_catalog, which may be named without its schema."""
    return {relation.name: relation.schema for relation in system_relations() if relation.schema == "cat"}


@cache
def _functions() -> frozenset[str]:
    return macro_names()


def rewrite_tree(text: str, settings: Settings) -> str | None:
    """The query in DuckDB's SQL; None where it has nothing of the catalog, or cannot be read."""
    import sqlglot
    from sqlglot import exp

    prepared = re.sub(r"(\$\d+)", r"\1 ", text)
    prepared = re.sub(r"(?i)operator\s*\(\s*pg_catalog\s*\.\s*(!?~\*?|=|<>|<|>|<=|>=|\|\|)\s*\)", r"\1", prepared)
    prepared = re.sub(r'(?i)\bcollate\s+(?:pg_catalog\s*\.\s*)?"?(?:default|C|POSIX)"?', "", prepared)
    prepared = re.sub(r"(?i)::\s*(?:pg_catalog\s*\.\s*)?(?:oid|xid)\s*\[\s*\]", "::bigint[]", prepared)
    prepared = re.sub(r'(?i)::\s*(?:pg_catalog\s*\.\s*)?(?:name|"char")\s*\[\s*\]', "::text[]", prepared)
    try:
        tree = sqlglot.parse_one(prepared, read="postgres")
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
        return None
    changes = _Changes(settings)
    for node in reversed(list(tree.walk())):  # from the leaves to the root: what is inside is done before what is around it
        found = changes.node(node)
        if node is tree:
            tree = found
        elif found is not node:
            node.replace(found)
    if not changes.count:
        return None
    if isinstance(tree, exp.Select | exp.SetOperation | exp.Subquery):
        _name_columns(tree)
    if isinstance(tree, exp.Select):
        _order_columns(tree)
    return str(tree.sql("duckdb"))


class _Changes:
    """The changes of one tree."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.count = 0

    def node(self, node: exp.Expr) -> exp.Expr:
        from sqlglot import exp

        found = node
        if isinstance(node, exp.Table):
            found = self._table(node)
        elif isinstance(node, exp.Dot):
            found = self._dot(node)
        elif isinstance(node, exp.Cast):
            found = self._cast(node)
        elif isinstance(node, exp.Anonymous) and not isinstance(node.parent, exp.Table):
            found = self._function(node, node.name)
        elif isinstance(node, exp.CurrentUser | exp.SessionUser):
            found = exp.Literal.string(self._settings.get("session_authorization"))
        elif isinstance(node, exp.CurrentSchema):
            found = exp.Literal.string("public")
        elif isinstance(node, exp.CurrentVersion):
            from sqlml.wire.catalog.system import version_text

            found = exp.Literal.string(version_text())
        elif isinstance(node, exp.Literal) and node.name == "0" and _is_beside_function(node):
            found = exp.Literal.string("-")  # no function
        elif isinstance(node, exp.Bracket) and isinstance(node.this, exp.Column) and node.this.name.lower() in _VECTORS:
            node.set(
                "expressions", [exp.Add(this=exp.Paren(this=each), expression=exp.Literal.number(1)) for each in node.expressions]
            )
            self.count += 1  # vectors are counted from 0, lists from 1
        elif isinstance(node, exp.Column) and node.name.lower() == "tableoid":
            found = _table_oid(node)
        elif isinstance(node, exp.Column) and node.name.lower() in ("session_user", "current_role") and not node.table:
            found = exp.Literal.string(self._settings.get("session_authorization"))
        elif isinstance(node, exp.Column) and node.args.get("db") is not None and node.text("db").lower() in SCHEMAS:
            node.set("db", None)  # pg_catalog.pg_class.oid
            self.count += 1
        if found is not node:
            self.count += 1
        return found

    def _table(self, node: exp.Table) -> exp.Expr:
        from sqlglot import exp

        schema, name = node.text("db").lower(), node.name.lower()
        if not isinstance(node.this, exp.Identifier):  # a function in FROM
            called = node.this.name.lower() if isinstance(node.this, exp.Anonymous) else ""
            if called in _functions():
                node.set("db", exp.to_identifier("cat"))
                node.set("catalog", exp.to_identifier(DATABASE))
                node.set("ordinality", None)
                self.count += 1
            elif schema in SCHEMAS:
                node.set("db", None)
                self.count += 1
            return node
        if name == "pg_settings" and schema in ("", "pg_catalog"):
            return self._settings_table(node)
        target = SCHEMAS.get(schema) if schema else _relations().get(name)
        if target is None or (schema == "" and node.parent and _is_cte(node, name)):
            return node
        found = node.copy()
        found.set("this", exp.to_identifier(name))
        found.set("db", exp.to_identifier(target))
        found.set("catalog", exp.to_identifier(DATABASE))
        return found if node.alias else exp.alias_(found, name, table=True)

    def _settings_table(self, node: exp.Table) -> exp.Expr:
        """The session's settings as rows."""
        import sqlglot
        from sqlglot import exp

        rows = exp.values([(name, value) for name, value in self._settings.all().items()], alias="v", columns=["name", "setting"])
        sql = _SETTINGS_COLUMNS + rows.sql("duckdb")
        return exp.Subquery(
            this=sqlglot.parse_one(sql, read="duckdb"), alias=exp.TableAlias(this=exp.to_identifier(node.alias or "pg_settings"))
        )

    def _dot(self, node: exp.Dot) -> exp.Expr:
        """``pg_catalog.f(…)``"""
        from sqlglot import exp

        left, right = node.this, node.expression
        schema = left.name.lower() if isinstance(left, exp.Identifier | exp.Column) else ""
        return right.copy() if schema in SCHEMAS and not isinstance(right, exp.Identifier) else node

    def _function(self, node: exp.Expr, name: str) -> exp.Expr:
        from sqlglot import exp

        name = name.lower()
        if name == "current_setting" and isinstance(node.expressions[0], exp.Literal):
            key = node.expressions[0].name
            return exp.Literal.string(self._settings.get(key)) if self._settings.knows(key) else exp.null()
        if name == "current_setting":
            known = self._settings.all()
            lists = [exp.Array(expressions=[exp.Literal.string(each) for each in part]) for part in (known, known.values())]
            pairs = exp.Anonymous(this="map", expressions=lists)
            return exp.Anonymous(this="map_extract_value", expressions=[pairs, node.expressions[0].copy()])
        if name == "set_config" and len(node.expressions) == 3:
            return exp.Cast(this=node.expressions[1].copy(), to=exp.DataType.build("text"))
        if name in ("version",):
            from sqlml.wire.catalog.system import version_text

            return exp.Literal.string(version_text())
        if name == "pg_backend_pid":
            return exp.Literal.number(int(self._settings.process))
        if name == "pg_partition_ancestors":
            return exp.Anonymous(this="unnest", expressions=[exp.Array(expressions=[])])
        if name in _RENAMED:
            return exp.Anonymous(this=_RENAMED[name], expressions=[each.copy() for each in node.expressions])
        if name not in _functions():
            return node
        call = exp.Anonymous(this=name, expressions=[each.copy() for each in node.expressions])
        return exp.Dot.build([exp.to_identifier(DATABASE), exp.to_identifier("cat"), call])

    def _cast(self, node: exp.Cast) -> exp.Expr:
        from sqlglot import exp

        name = _type_name(node.to)
        if name.startswith("REG") and name[3:].lower() in _REG:
            return self._registered(node, name[3:].lower())
        kind = _TYPES.get(name) or (name if re.match(r"(?i)\"?pg_catalog\"?\.", node.to.sql("postgres")) else None)
        if kind is None:
            return node
        return exp.Cast(this=node.this.copy(), to=exp.DataType.build(kind, dialect="duckdb"))

    def _registered(self, node: exp.Cast, what: str) -> exp.Expr:
        """``'t'::regclass`` is a number that is looked up; a number that is to be shown is a name."""
        from sqlglot import exp

        what = "proc" if what == "procedure" else what
        value = node.this
        inner = value.this if isinstance(value, exp.Cast) else value
        if what == "proc":  # functions are told by their names here
            return exp.Literal.string(inner.name.rpartition(".")[2]) if isinstance(inner, exp.Literal) else value.copy()
        if isinstance(inner, exp.Literal) and inner.is_string:
            if inner.name.isdigit():
                return exp.Literal.number(int(inner.name))
            return self._lookup(f"to_reg{what}", inner)
        if isinstance(inner, exp.Parameter | exp.Placeholder):
            return self._lookup(f"to_reg{what}", exp.Cast(this=inner.copy(), to=exp.DataType.build("text")))
        if isinstance(value, exp.Cast) and _type_name(value.to) in ("TEXT", "VARCHAR"):
            return self._lookup(f"to_reg{what}", inner)
        parent = node.parent
        shown = isinstance(parent, exp.Select | exp.Alias | exp.Tuple | exp.DPipe | exp.Order | exp.Ordered) or (
            isinstance(parent, exp.Cast) and _type_name(parent.to) in ("TEXT", "VARCHAR")
        )
        return self._lookup(f"reg{what}_name", value) if shown else value.copy()

    def _lookup(self, name: str, value: exp.Expr) -> exp.Expr:
        from sqlglot import exp

        call = exp.Anonymous(this=name, expressions=[value.copy()])
        return exp.Dot.build([exp.to_identifier(DATABASE), exp.to_identifier("cat"), call])


def _type_name(kind: exp.Expr) -> str:
    """The bare name of a type, in capitals: of ``pg_catalog.regclass``, ``"char"``, ``oid``."""
    from sqlglot import exp

    sql = kind.sql("postgres")
    if isinstance(kind, exp.DataType) and kind.this == exp.DataType.Type.CHAR and '"' not in sql:
        return ""
    return sql.rpartition(".")[2].strip('"').upper()


def _is_cte(node: exp.Table, name: str) -> bool:
    from sqlglot import exp

    return any(cte.alias.lower() == name for cte in node.root().find_all(exp.CTE))


def _is_beside_function(number: exp.Expr) -> bool:
    """Whether a number is compared with a column of functions, which are told by their names here."""
    from sqlglot import exp

    beside = number.parent
    if not isinstance(beside, exp.EQ | exp.NEQ | exp.GT):
        return False
    other = beside.left if beside.right is number else beside.right
    return isinstance(other, exp.Column) and other.name.lower() in _FUNCTION_COLUMNS


def _table_oid(column: exp.Column) -> exp.Expr:
    """The number of the relation that a row is of: known from the name before the column."""
    from sqlglot import exp

    select = column.find_ancestor(exp.Select)
    for table in select.find_all(exp.Table) if select is not None else ():
        if table.alias_or_name.lower() == column.table.lower() or not column.table:
            oid = next((each.oid for each in system_relations() if each.name == table.name.lower()), None)
            if oid is not None:
                return exp.Literal.number(oid)
    return column


def _order_columns(tree: exp.Select) -> None:
    """Columns that are asked for by their numbers, and not in an order, come in theirs: PostgreSQL gives them as they lie."""
    from sqlglot import exp

    number = next((item for item in tree.expressions if isinstance(item, exp.Column) and item.name.lower() == "attnum"), None)
    if number is not None and not any(tree.args.get(clause) for clause in ("order", "group", "distinct")):
        tree.order_by(number.copy(), copy=False)


def _name_columns(tree: exp.Expr) -> None:
    """A call or cast without an alias is called as PostgreSQL calls it: by its function, or by what it casts."""
    from sqlglot import exp

    select = tree.find(exp.Select)
    if select is None:
        return
    for item in list(select.expressions):
        name = None
        if isinstance(item, exp.Dot) and isinstance(item.expression, exp.Anonymous):
            name = item.expression.name.removesuffix("_name")
        elif isinstance(item, exp.Cast) and isinstance(item.this, exp.Column):
            name = item.this.name
        elif isinstance(item, exp.Case | exp.Literal):
            name = "case" if isinstance(item, exp.Case) else "?column?"
        elif isinstance(item.unalias(), exp.Column) and item.unalias().name.lower() in _VECTORS:
            vector = item.unalias()
            text = exp.Anonymous(this="array_to_string", expressions=[vector.copy(), exp.Literal.string(" ")])
            item.replace(exp.alias_(text, item.alias_or_name, quoted=True))
        if name:
            item.replace(exp.alias_(item.copy(), name, quoted=True))
