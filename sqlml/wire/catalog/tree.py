"""A query of the system catalog, rewritten in its tree: names of relations, functions and types become those that exist here.

Only a text that mentions the catalog comes here; everything else reaches DuckDB byte for byte.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from sqlml.wire.array_literals import list_literal
from sqlml.wire.catalog.install import DATABASE, OID, SCHEMAS, macro_names, system_relations
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
_TEXTS = ("TEXT", "VARCHAR", "CHARACTER VARYING")
_FUNCTION_COLUMNS = ("typinput", "typoutput", "typreceive", "typsend", "typmodin", "typmodout", "typanalyze")
_SETTINGS_COLUMNS = """SELECT name, setting, NULL::VARCHAR AS unit, 'sqlml' AS category, '' AS short_desc, '' AS extra_desc,
    'user' AS context, 'string' AS vartype, 'session' AS source, NULL::VARCHAR AS min_val, NULL::VARCHAR AS max_val,
    NULL::VARCHAR[] AS enumvals, setting AS boot_val, setting AS reset_val, NULL::VARCHAR AS sourcefile,
    NULL::INTEGER AS sourceline, false AS pending_restart FROM """
_REG = ("class", "type", "proc", "procedure", "namespace", "role")
_TYPES = {
    "OID": OID, "NAME": "VARCHAR", "CHAR": "VARCHAR", "INT2VECTOR": "INTEGER[]", "OIDVECTOR": "BIGINT[]", "XID": "BIGINT",
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
    prepared = re.sub(r"(?i)\bas\s+(select|table|insert|update|delete)\b(?=\s*[,)]|\s+from\b)", r'AS "\1"', prepared)
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
        elif isinstance(node, exp.Lateral) and node.this.name.lower() == "aclexplode":
            found = _no_privileges(node)
        elif isinstance(node, exp.Dot):
            found = self._dot(node)
        elif isinstance(node, exp.Cast):
            found = self._cast(node)
        elif isinstance(node, exp.Anonymous) and not isinstance(node.parent, exp.Table):
            found = self._function(node, node.name)
        elif isinstance(node, exp.CurrentUser | exp.SessionUser):
            found = exp.Literal.string(self._settings.get("session_authorization"))
        elif isinstance(node, exp.CurrentSchemas):
            found = self._lookup("current_schemas", node.this or exp.true())
        elif isinstance(node, exp.Format):
            found = self._format(node)
        elif isinstance(node, exp.Encode):
            found = exp.Cast(this=node.this.copy(), to=exp.DataType.build("text"))  # encode(bytes, 'escape')
        elif isinstance(node, exp.Any):
            found = _any_of(node)
        elif isinstance(node, exp.Alias) and not node.args["alias"].quoted:
            node.set("alias", exp.to_identifier(node.alias.lower()))  # a name without quotes is in small letters there
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
        elif isinstance(node, exp.Column) and node.name.lower() == "xmin":
            found = _row_version(node)
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
            if called == "pg_show_all_settings":
                return self._settings_table(node, called)
            if called == "aclexplode":
                return _no_privileges(node)
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
            return self._settings_table(node, name)
        target = SCHEMAS.get(schema) if schema else _relations().get(name)
        if target is None and _is_beside_sequences(node):
            return _sequence_row(node)
        if target is None or (schema == "" and node.parent and _is_cte(node, name)):
            return node
        found = node.copy()
        found.set("this", exp.to_identifier(name))
        found.set("db", exp.to_identifier(target))
        found.set("catalog", exp.to_identifier(DATABASE))
        return found if node.alias else exp.alias_(found, name, table=True)

    def _settings_table(self, node: exp.Table, name: str) -> exp.Expr:
        """The session's settings as rows."""
        import sqlglot
        from sqlglot import exp

        rows = exp.values([(name, value) for name, value in self._settings.all().items()], alias="v", columns=["name", "setting"])
        sql = _SETTINGS_COLUMNS + rows.sql("duckdb")
        return exp.Subquery(
            this=sqlglot.parse_one(sql, read="duckdb"), alias=exp.TableAlias(this=exp.to_identifier(node.alias or name))
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
        if name == "generate_series" and node.find_ancestor(exp.Select, exp.Where, exp.Join) is node.find_ancestor(exp.Select):
            series = exp.Anonymous(this=name, expressions=[each.copy() for each in node.expressions])
            return exp.Anonymous(this="unnest", expressions=[series])  # rows there, a list here
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

    def _format(self, node: exp.Format) -> exp.Expr:
        """``format('%I.%I', a, b)``: its pieces, one behind the other."""
        from sqlglot import exp

        template, values = node.this, list(node.expressions)
        pieces = re.split(r"(%[sI%])", template.name) if isinstance(template, exp.Literal) else ["%L"]
        if any("%" in piece for piece in pieces[::2]) or sum(p in ("%s", "%I") for p in pieces) != len(values):
            return node
        parts: list[exp.Expr] = []
        for piece in filter(None, pieces):
            if piece in ("%s", "%I"):
                value = values.pop(0).copy()
                parts.append(self._lookup("quoted", value) if piece == "%I" else value)
            else:
                parts.append(exp.Literal.string(piece.replace("%%", "%")))
        return exp.Anonymous(this="concat", expressions=parts)

    def _cast(self, node: exp.Cast) -> exp.Expr:
        from sqlglot import exp

        name = _type_name(node.to)
        listed = _listed(node.this) if node.to.this == exp.DataType.Type.ARRAY else None
        if listed is not None:
            return exp.Cast(this=listed, to=node.to.copy())
        if name in _TEXTS and isinstance(node.this, exp.Column) and node.this.name.lower() in _VECTORS:
            text = _vector_text(node.this)
            return exp.alias_(text, node.this.name, quoted=True) if isinstance(node.parent, exp.Select) else text
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
        if what == "proc" and isinstance(node.parent, exp.Cast) and isinstance(inner, exp.Literal) and inner.is_string:
            return self._lookup("to_regproc", inner)  # ``'f'::regproc::oid``
        if what == "proc":  # functions are told by their names here
            return exp.Literal.string(inner.name.rpartition(".")[2]) if isinstance(inner, exp.Literal) else value.copy()
        if isinstance(inner, exp.Literal) and inner.is_string:
            if inner.name.isdigit():
                return exp.Literal.number(int(inner.name))
            return self._lookup(f"to_reg{what}", inner)
        if isinstance(inner, exp.Parameter | exp.Placeholder):
            return self._lookup(f"to_reg{what}", exp.Cast(this=inner.copy(), to=exp.DataType.build("text")))
        if isinstance(value, exp.Cast) and _type_name(value.to) in _TEXTS:
            return self._lookup(f"to_reg{what}", inner)
        pieces = value.unnest()
        if what == "class" and (isinstance(pieces, exp.DPipe | exp.Concat) or pieces.name.lower() == "concat"):
            return self._lookup("regclass_of", value)
        parent = node.parent
        shown = isinstance(parent, exp.Select | exp.Alias | exp.Tuple | exp.DPipe | exp.Order | exp.Ordered) or (
            isinstance(parent, exp.Cast) and _type_name(parent.to) in _TEXTS
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


def _no_privileges(call: exp.Table | exp.Lateral) -> exp.Expr:
    """``FROM aclexplode(…)``: nothing here has a list of who may do what."""
    import sqlglot
    from sqlglot import exp

    columns = "NULL::UINTEGER AS grantor, NULL::UINTEGER AS grantee, NULL::VARCHAR AS privilege_type, false AS is_grantable"
    rows = sqlglot.parse_one(f"SELECT {columns} WHERE false", read="duckdb")
    return exp.Subquery(this=rows, alias=exp.TableAlias(this=exp.to_identifier(call.alias or "aclexplode")))


def _is_beside_sequences(table: exp.Table) -> bool:
    """``FROM pg_sequence, public.counter``: whether a table is a sequence, which is a relation of one row there."""
    from sqlglot import exp

    select = table.find_ancestor(exp.Select)
    if select is None or not any(column.name.lower() == "is_called" for column in select.find_all(exp.Column)):
        return False
    return any(each.name.lower() == "pg_sequence" for each in select.find_all(exp.Table))


def _sequence_row(table: exp.Table) -> exp.Expr:
    from sqlglot import exp

    schema = {"public": "main", "": "main"}.get(table.text("db"), table.text("db"))
    row = (
        exp.select("coalesce(last_value, start_value) AS last_value", "0 AS log_cnt", "last_value IS NOT NULL AS is_called")
        .from_("duckdb_sequences()")
        .where(exp.column("sequence_name").eq(table.name), exp.column("schema_name").eq(schema))
    )
    return exp.Subquery(this=row, alias=exp.TableAlias(this=exp.to_identifier(table.alias_or_name, quoted=True)))


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


def _row_version(column: exp.Column) -> exp.Expr:
    """``xmin`` of a relation of the catalog: a number that never changes."""
    from sqlglot import exp

    if isinstance(_table_oid(column), exp.Column):
        return column
    one = exp.Literal.number(1)
    return exp.alias_(one, "xmin") if isinstance(column.parent, exp.Select) else one


def _any_of(node: exp.Any) -> exp.Expr:
    """``ANY('{a,b}')``"""
    from sqlglot import exp

    listed = _listed(node.this.unnest())
    return node if listed is None else exp.Any(this=exp.Paren(this=listed))


def _listed(literal: exp.Expr) -> exp.Array | None:
    """The array that a literal such as ``'{a,b}'`` means."""
    from sqlglot import exp

    found = list_literal(literal.name) if isinstance(literal, exp.Literal) and literal.is_string else None
    if found is None:
        return None
    return exp.Array(expressions=[exp.null() if each is None else exp.Literal.string(each) for each in found])


def _order_columns(tree: exp.Select) -> None:
    """Columns that are asked for by their numbers, and not in an order, come in theirs: PostgreSQL gives them as they lie."""
    from sqlglot import exp

    number = next((item for item in tree.expressions if isinstance(item, exp.Column) and item.name.lower() == "attnum"), None)
    if number is not None and not any(tree.args.get(clause) for clause in ("order", "group", "distinct")):
        tree.order_by(number.copy(), copy=False)


def _vector_text(column: exp.Expr) -> exp.Expr:
    """``1 2`` for a vector."""
    from sqlglot import exp

    return exp.Anonymous(this="array_to_string", expressions=[column.copy(), exp.Literal.string(" ")])


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
            item.replace(exp.alias_(_vector_text(item.unalias()), item.alias_or_name, quoted=True))
        if name:
            item.replace(exp.alias_(item.copy(), name, quoted=True))
