-- The relations of pg_catalog and information_schema that have rows here, over DuckDB's own functions.  Each is a query of those of
-- PostgreSQL's columns that are known; the others are NULL.  The name stands before each.

--: cat.namespaces
SELECT s.oid AS oid, CASE WHEN s.schema_name = 'main' AND NOT has_public THEN 'public' ELSE s.schema_name END AS nspname,
    s.schema_name AS duckdb_name, s.database_name AS duckdb_database
FROM (SELECT *, count(*) FILTER (schema_name = 'public') OVER () > 0 AS has_public FROM duckdb_schemas()
      WHERE database_name = current_database() AND schema_name NOT IN ('information_schema', 'pg_catalog')) AS s
UNION ALL
SELECT oid, 'sqlml', 'main', database_name FROM duckdb_schemas() WHERE database_name = 'sqlml' AND schema_name = 'main'
    AND current_database() <> 'sqlml'

--: cat.pg_namespace
SELECT 11::BIGINT AS oid, 'pg_catalog' AS nspname, 10::BIGINT AS nspowner
UNION ALL SELECT 13000, 'information_schema', 10
UNION ALL SELECT oid, nspname, 10 FROM __pg.cat.namespaces

--: cat.relations
SELECT t.table_oid AS oid, t.table_name AS relname, n.oid AS namespace, n.nspname, 'r' AS relkind, t.column_count AS natts,
    t.estimated_size AS tuples, t.index_count > 0 OR t.has_primary_key AS has_index, t.check_constraint_count AS checks,
    t.comment, t.sql
FROM duckdb_tables() AS t JOIN __pg.cat.namespaces AS n ON n.oid = t.schema_oid
UNION ALL
SELECT v.view_oid, v.view_name, n.oid, n.nspname, 'v', v.column_count, -1, false, 0, v.comment, v.sql
FROM duckdb_views() AS v JOIN __pg.cat.namespaces AS n ON n.oid = v.schema_oid WHERE NOT v.internal

--: cat.columns
SELECT c.*, n.nspname, coalesce(k.oid, 114) AS type_oid, y.typname, y.typlen, y.typstorage, y.sql_name,
    CASE WHEN starts_with(c.data_type, 'DECIMAL(') THEN ((c.numeric_precision << 16) | c.numeric_scale) + 4 ELSE -1 END AS modifier
FROM duckdb_columns() AS c JOIN __pg.cat.namespaces AS n ON n.oid = c.schema_oid
    LEFT JOIN __pg.cat.duckdb_types AS k ON k.name = __pg.cat.type_key(c.data_type)
    JOIN __pg.cat.types AS y ON y.oid = coalesce(k.oid, 114)
WHERE NOT c.internal

--: cat.keys
SELECT 50_000_000 + (c.table_oid - 20_000) * 64
        + row_number() OVER (PARTITION BY c.table_oid ORDER BY c.constraint_type, c.constraint_index) AS oid,
    CASE c.constraint_type
        WHEN 'PRIMARY KEY' THEN c.table_name || '_pkey'
        WHEN 'UNIQUE' THEN c.table_name || '_' || array_to_string(c.constraint_column_names, '_') || '_key'
        WHEN 'FOREIGN KEY' THEN c.table_name || '_' || array_to_string(c.constraint_column_names, '_') || '_fkey'
        ELSE c.constraint_name END AS name,
    CASE c.constraint_type WHEN 'PRIMARY KEY' THEN 'p' WHEN 'UNIQUE' THEN 'u' WHEN 'FOREIGN KEY' THEN 'f' ELSE 'c' END AS type,
    c.table_oid, c.table_name, n.oid AS namespace, n.nspname, c.constraint_column_names AS columns,
    list_transform(c.constraint_column_indexes, lambda i: (i + 1)::INTEGER) AS attnums,
    c.expression, r.table_oid AS other_oid, c.referenced_table AS other_table, c.referenced_column_names AS other_columns
FROM duckdb_constraints() AS c JOIN __pg.cat.namespaces AS n ON n.oid = c.schema_oid
LEFT JOIN duckdb_tables() AS r ON r.schema_oid = c.schema_oid AND r.table_name = c.referenced_table
WHERE c.constraint_type <> 'NOT NULL'

--: cat.all_indexes
SELECT 1_000_000_000 + k.oid AS oid, k.name, k.namespace, k.nspname, k.table_oid, k.table_name, true AS is_unique,
    k.type = 'p' AS is_primary, k.attnums, k.columns, k.oid AS key
FROM __pg.cat.keys AS k WHERE k.type IN ('p', 'u')
UNION ALL
SELECT e.index_oid, e.index_name, n.oid, n.nspname, e.table_oid, e.table_name, e.is_unique, false,
    list(coalesce(c.column_index, 0)::INTEGER ORDER BY e.number), list(e.expression ORDER BY e.number), 0
FROM (SELECT *, trim(unnest(string_split(expressions[2:-2], ', ')), '''"') AS expression,
        unnest(range(1, len(string_split(expressions[2:-2], ', ')) + 1)) AS number FROM duckdb_indexes()) AS e
    JOIN __pg.cat.namespaces AS n ON n.oid = e.schema_oid
    LEFT JOIN duckdb_columns() AS c ON c.table_oid = e.table_oid AND c.column_name = e.expression
GROUP BY e.index_oid, e.index_name, n.oid, n.nspname, e.table_oid, e.table_name, e.is_unique

--: cat.pg_class
SELECT oid, relname, namespace AS relnamespace, 0::BIGINT AS reltype, 0::BIGINT AS reloftype, 10::BIGINT AS relowner,
    CASE relkind WHEN 'r' THEN 2 ELSE 0 END::BIGINT AS relam, oid AS relfilenode, 0::BIGINT AS reltablespace, 0 AS relpages,
    tuples::FLOAT AS reltuples, 0 AS relallvisible, 0::BIGINT AS reltoastrelid, has_index AS relhasindex, false AS relisshared,
    'p' AS relpersistence, relkind, natts::SMALLINT AS relnatts, checks::SMALLINT AS relchecks, relkind = 'v' AS relhasrules,
    relkind = 'r' AS relhastriggers, false AS relhassubclass, false AS relrowsecurity, false AS relforcerowsecurity,
    true AS relispopulated, CASE relkind WHEN 'v' THEN 'n' ELSE 'd' END AS relreplident, false AS relispartition,
    0::BIGINT AS relrewrite
FROM __pg.cat.relations
UNION ALL
SELECT oid, name, namespace, 0, 0, 10, 403, oid, 0, 1, 0, 0, 0, false, false, 'p', 'i', len(columns), 0, false, false, false,
    false, false, true, 'n', false, 0
FROM __pg.cat.all_indexes
UNION ALL
SELECT s.sequence_oid, s.sequence_name, n.oid, 0, 0, 10, 0, s.sequence_oid, 0, 1, 1, 0, 0, false, false, 'p', 'S', 3, 0, false, false,
    false, false, false, true, 'n', false, 0
FROM duckdb_sequences() AS s JOIN __pg.cat.namespaces AS n ON n.oid = s.schema_oid
UNION ALL
SELECT oid, relname, namespace, 0, 0, 10, CASE relkind WHEN 'r' THEN 2 ELSE 0 END, oid, 0, 0, 0, 0, 0, false, false, 'p', relkind,
    natts, 0, relkind = 'v', false, false, false, false, true, 'n', false, 0
FROM __pg.cat.system_relations

--: cat.pg_attribute
SELECT c.table_oid AS attrelid, c.column_name AS attname, c.type_oid AS atttypid, -1 AS attstattarget, c.typlen AS attlen,
    c.column_index::SMALLINT AS attnum, 0 AS attndims, -1 AS attcacheoff, c.modifier AS atttypmod, false AS attbyval, 'i' AS attalign,
    c.typstorage AS attstorage, '' AS attcompression, NOT c.is_nullable AS attnotnull,
    c.column_default IS NOT NULL OR c.is_generated AS atthasdef, false AS atthasmissing, '' AS attidentity,
    CASE WHEN c.is_generated THEN 's' ELSE '' END AS attgenerated, false AS attisdropped, true AS attislocal, 0 AS attinhcount,
    CASE WHEN c.type_oid IN (25, 1009, 1043) THEN 100 ELSE 0 END::BIGINT AS attcollation
FROM __pg.cat.columns AS c
UNION ALL
SELECT i.oid, i.name, coalesce(c.type_oid, 25), -1, coalesce(c.typlen, -1), i.number::SMALLINT, 0, -1, coalesce(c.modifier, -1), false,
    'i', coalesce(c.typstorage, 'x'), '', false, false, false, '', '', false, true, 0,
    CASE WHEN c.type_oid IN (25, 1009, 1043) THEN 100 ELSE 0 END
FROM (SELECT oid, table_oid, trim(unnest(columns), '"') AS name, unnest(attnums) AS attnum, unnest(range(1, len(columns) + 1)) AS number
        FROM __pg.cat.all_indexes) AS i
    LEFT JOIN __pg.cat.columns AS c ON c.table_oid = i.table_oid AND c.column_index = i.attnum
UNION ALL
SELECT s.sequence_oid, v.name, v.type, -1, v.length, v.number, 0, -1, -1, true, 'd', 'p', '', true, false, false, '', '', false, true, 0, 0
FROM duckdb_sequences() AS s JOIN __pg.cat.namespaces AS n ON n.oid = s.schema_oid,
    (VALUES ('last_value', 20, 8, 1), ('log_cnt', 20, 8, 2), ('is_called', 16, 1, 3)) AS v(name, type, length, number)
UNION ALL
SELECT relation, name, type, -1, -1, number, 0, -1, -1, false, 'i', 'p', '', false, false, false, '', '', false, true, 0, 0
FROM __pg.cat.system_columns

--: cat.pg_attrdef
SELECT 60_000_000 + (c.table_oid - 20_000) * 1600 + c.column_index AS oid, c.table_oid AS adrelid,
    c.column_index::SMALLINT AS adnum, coalesce(c.generation_expression, c.column_default) AS adbin
FROM __pg.cat.columns AS c
WHERE coalesce(c.generation_expression, c.column_default) IS NOT NULL

--: cat.pg_constraint
SELECT oid, name AS conname, namespace AS connamespace, type AS contype, false AS condeferrable, false AS condeferred,
    true AS convalidated, keys.table_oid AS conrelid, 0::BIGINT AS contypid,
    CASE WHEN type IN ('p', 'u') THEN 1_000_000_000 + oid
         WHEN type = 'f' THEN coalesce((SELECT 1_000_000_000 + o.oid FROM __pg.cat.keys AS o WHERE o.table_oid = keys.other_oid
              AND o.type IN ('p', 'u') AND o.columns = keys.other_columns LIMIT 1), 0) ELSE 0 END::BIGINT AS conindid,
    0::BIGINT AS conparentid, coalesce(other_oid, 0) AS confrelid, CASE type WHEN 'f' THEN 'a' ELSE ' ' END AS confupdtype,
    CASE type WHEN 'f' THEN 'a' ELSE ' ' END AS confdeltype, CASE type WHEN 'f' THEN 's' ELSE ' ' END AS confmatchtype,
    true AS conislocal, 0 AS coninhcount, type <> 'c' AS connoinherit, attnums AS conkey,
    CASE type WHEN 'f' THEN list_transform(other_columns, lambda name: places.indexes[name]) END AS confkey, expression AS conbin
FROM __pg.cat.keys AS keys LEFT JOIN (SELECT table_oid, map(list(column_name), list(column_index)) AS indexes FROM duckdb_columns()
    GROUP BY table_oid) AS places ON places.table_oid = keys.other_oid

--: cat.pg_index
SELECT oid AS indexrelid, table_oid AS indrelid, len(columns)::SMALLINT AS indnatts, len(columns)::SMALLINT AS indnkeyatts,
    is_unique AS indisunique, false AS indnullsnotdistinct, is_primary AS indisprimary, false AS indisexclusion,
    true AS indimmediate, false AS indisclustered, true AS indisvalid, false AS indcheckxmin, true AS indisready,
    true AS indislive, false AS indisreplident, attnums AS indkey, list_transform(attnums, lambda i: 0) AS indcollation,
    list_transform(attnums, lambda i: 0) AS indclass, list_transform(attnums, lambda i: 0) AS indoption
FROM __pg.cat.all_indexes

--: cat.pg_sequence
SELECT s.sequence_oid AS seqrelid, 20::BIGINT AS seqtypid, s.start_value AS seqstart, s.increment_by AS seqincrement,
    s.max_value AS seqmax, s.min_value AS seqmin, 1::BIGINT AS seqcache, s.cycle AS seqcycle
FROM duckdb_sequences() AS s JOIN __pg.cat.namespaces AS n ON n.oid = s.schema_oid

--: cat.pg_type
SELECT oid, typname, 11::BIGINT AS typnamespace, 10::BIGINT AS typowner, typlen::SMALLINT AS typlen, typbyval, typtype, typcategory,
    typispreferred, true AS typisdefined, typdelim, typrelid, 0::BIGINT AS typsubscript, typelem, typarray, typinput, typoutput,
    typreceive, typsend, '-' AS typmodin, '-' AS typmodout, '-' AS typanalyze, typalign, typstorage, false AS typnotnull,
    0::BIGINT AS typbasetype, -1 AS typtypmod, 0 AS typndims, typcollation
FROM __pg.cat.types

--: cat.functions
SELECT 40_000_000 + hash(m.model) % 9_000_000 AS oid, m.model AS name,
    (SELECT n.oid FROM __pg.cat.namespaces AS n WHERE n.duckdb_name = 'main' AND n.nspname <> 'sqlml') AS namespace,
    coalesce(any_value(r.oid), 114)::BIGINT AS result_type,
    list(y.oid ORDER BY i.position) AS argument_types, list(i.name ORDER BY i.position) AS argument_names,
    string_agg(__pg.cat.quoted(i.name) || ' ' || y.sql_name, ', ' ORDER BY i.position) AS arguments,
    'model ' || m.model || '@' || coalesce(m.champion, m.newest) || coalesce(': ' || m.comment, '') AS description,
    'PREDICT(' || __pg.cat.quoted(m.model) || ')' AS source, true AS is_model
FROM {schema}.main.models AS m JOIN {schema}.main.inputs AS i ON i.model = m.model AND i.version = coalesce(m.champion, m.newest)
    JOIN {schema}.main.versions AS v ON v.model = i.model AND v.version = i.version
    LEFT JOIN __pg.cat.duckdb_types AS r ON r.name = __pg.cat.type_key(v.result)
    LEFT JOIN __pg.cat.duckdb_types AS k ON k.name = __pg.cat.type_key(i.type)
    JOIN __pg.cat.types AS y ON y.oid = coalesce(k.oid, 114)
GROUP BY m.model, m.task, m.champion, m.newest, m.comment
UNION ALL
SELECT f.function_oid, f.function_name, n.oid, 25, [], any_value(f.parameters), array_to_string(any_value(f.parameters), ', '),
    any_value(f.comment), any_value(f.macro_definition), false
FROM duckdb_functions() AS f JOIN __pg.cat.namespaces AS n ON n.duckdb_name = f.schema_name AND n.duckdb_database = f.database_name
WHERE NOT f.internal AND f.function_type = 'macro' AND n.nspname <> 'sqlml' GROUP BY f.function_oid, f.function_name, n.oid

--: cat.pg_proc
SELECT oid, name AS proname, namespace AS pronamespace, 10::BIGINT AS proowner, 12::BIGINT AS prolang, 100::FLOAT AS procost,
    0::FLOAT AS prorows, 0::BIGINT AS provariadic, 'f' AS prokind, false AS prosecdef, false AS proleakproof,
    false AS proisstrict, false AS proretset, 'v' AS provolatile, 'u' AS proparallel, len(argument_types)::SMALLINT AS pronargs,
    0::SMALLINT AS pronargdefaults, result_type AS prorettype, argument_types AS proargtypes, argument_names AS proargnames,
    source AS prosrc
FROM __pg.cat.functions

--: cat.pg_database
SELECT 16384::BIGINT AS oid, current_database() AS datname, 10::BIGINT AS datdba, 6 AS encoding, 'c' AS datlocprovider,
    false AS datistemplate, true AS datallowconn, -1 AS datconnlimit, 1663::BIGINT AS dattablespace, 'C.UTF-8' AS datcollate,
    'C.UTF-8' AS datctype

--: cat.pg_am
SELECT * FROM (VALUES (2, 'heap', 'heap_tableam_handler', 't'), (403, 'btree', 'bthandler', 'i')) AS v(oid, amname, amhandler, amtype)

--: cat.pg_tablespace
SELECT * FROM (VALUES (1663, 'pg_default', 10), (1664, 'pg_global', 10)) AS v(oid, spcname, spcowner)

--: cat.pg_authid
SELECT 10::BIGINT AS oid, coalesce(getvariable('__pg_user'), 'sqlml') AS rolname, true AS rolsuper, true AS rolinherit, true AS rolcreaterole, true AS rolcreatedb,
    true AS rolcanlogin, true AS rolreplication, true AS rolbypassrls, -1 AS rolconnlimit

--: cat.pg_roles
SELECT oid, rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolconnlimit,
    '********' AS rolpassword, rolbypassrls FROM __pg.cat.pg_authid

--: cat.pg_user
SELECT rolname AS usename, oid AS usesysid, rolcreatedb AS usecreatedb, rolsuper AS usesuper, rolreplication AS userepl,
    rolbypassrls AS usebypassrls, '********' AS passwd FROM __pg.cat.pg_authid

--: cat.pg_rewrite
SELECT 70_000_000 + oid AS oid, '_RETURN' AS rulename, oid AS ev_class, '1' AS ev_type, 'O' AS ev_enabled, true AS is_instead
FROM __pg.cat.relations WHERE relkind = 'v'

--: cat.pg_depend
SELECT 1259::BIGINT AS classid, 1_000_000_000 + k.oid AS objid, 0 AS objsubid, 2606::BIGINT AS refclassid, k.oid AS refobjid,
    0 AS refobjsubid, 'i' AS deptype
FROM __pg.cat.keys AS k WHERE k.type IN ('p', 'u')
UNION ALL
SELECT 2606, k.oid, 0, 1259, k.table_oid, k.attnum, 'a' FROM (SELECT oid, table_oid, unnest(attnums) AS attnum FROM __pg.cat.keys) AS k
UNION ALL
SELECT 2606, k.oid, 0, 1259, k.other_oid, c.column_index, 'n'
FROM (SELECT oid, other_oid, unnest(other_columns) AS name FROM __pg.cat.keys WHERE type = 'f') AS k
    JOIN duckdb_columns() AS c ON c.table_oid = k.other_oid AND c.column_name = k.name
UNION ALL
SELECT 1259, i.oid, 0, 1259, i.table_oid, i.attnum, 'a'
FROM (SELECT oid, table_oid, unnest(attnums) AS attnum FROM __pg.cat.all_indexes WHERE key = 0) AS i
UNION ALL
SELECT 2604, d.oid, 0, 1259, d.adrelid, d.adnum, 'a' FROM __pg.cat.pg_attrdef AS d
UNION ALL
SELECT 1259, oid, 0, 2615, namespace, 0, 'n' FROM __pg.cat.relations

--: cat.pg_language
SELECT * FROM (VALUES (12, 'internal', 10, false, false), (14, 'sql', 10, false, true)) AS v(oid, lanname, lanowner, lanispl, lanpltrusted)

--: cat.pg_collation
SELECT * FROM (VALUES (100, 'default', 11, 10, 'd', true, -1), (950, 'C', 11, 10, 'c', true, -1), (951, 'POSIX', 11, 10, 'c', true, -1))
    AS v(oid, collname, collnamespace, collowner, collprovider, collisdeterministic, collencoding)

--: cat.pg_description
SELECT table_oid AS objoid, 1259::BIGINT AS classoid, 0 AS objsubid, comment AS description FROM duckdb_tables() WHERE comment IS NOT NULL
UNION ALL SELECT view_oid, 1259, 0, comment FROM duckdb_views() WHERE comment IS NOT NULL AND NOT internal
UNION ALL SELECT table_oid, 1259, column_index, comment FROM duckdb_columns() WHERE comment IS NOT NULL AND NOT internal
UNION ALL SELECT index_oid, 1259, 0, comment FROM duckdb_indexes() WHERE comment IS NOT NULL
UNION ALL SELECT oid, 1255, 0, description FROM __pg.cat.functions WHERE description IS NOT NULL

--: cat.pg_tables
SELECT nspname AS schemaname, relname AS tablename, coalesce(getvariable('__pg_user'), 'sqlml') AS tableowner, has_index AS hasindexes, false AS hasrules,
    false AS hastriggers, false AS rowsecurity FROM __pg.cat.relations WHERE relkind = 'r'

--: cat.pg_views
SELECT nspname AS schemaname, relname AS viewname, coalesce(getvariable('__pg_user'), 'sqlml') AS viewowner, __pg.cat.view_body(sql) AS definition
FROM __pg.cat.relations WHERE relkind = 'v'

--: cat.pg_indexes
SELECT i.nspname AS schemaname, i.table_name AS tablename, i.name AS indexname, __pg.cat.pg_get_indexdef(i.oid) AS indexdef
FROM __pg.cat.all_indexes AS i

--: cat.pg_sequences
SELECT n.nspname AS schemaname, s.sequence_name AS sequencename, coalesce(getvariable('__pg_user'), 'sqlml') AS sequenceowner, 'bigint' AS data_type,
    s.start_value, s.min_value, s.max_value, s.increment_by, s.cycle, 1::BIGINT AS cache_size, s.last_value
FROM duckdb_sequences() AS s JOIN __pg.cat.namespaces AS n ON n.oid = s.schema_oid

--: cat.pg_stat_all_tables
SELECT oid AS relid, nspname AS schemaname, relname, 0::BIGINT AS seq_scan, 0::BIGINT AS seq_tup_read, 0::BIGINT AS n_tup_ins,
    0::BIGINT AS n_tup_upd, 0::BIGINT AS n_tup_del, tuples AS n_live_tup, 0::BIGINT AS n_dead_tup
FROM __pg.cat.relations WHERE relkind = 'r'

--: cat.pg_stat_user_tables
SELECT * FROM __pg.cat.pg_stat_all_tables

--: cat.pg_stat_activity
SELECT 16384::BIGINT AS datid, current_database() AS datname, 0 AS pid, '' AS query, 'client backend' AS backend_type, 10::BIGINT AS usesysid, coalesce(getvariable('__pg_user'), 'sqlml') AS usename, 'active' AS state

--: info.information_schema_catalog_name
SELECT current_database() AS catalog_name

--: info.schemata
SELECT current_database() AS catalog_name, nspname AS schema_name, coalesce(getvariable('__pg_user'), 'sqlml') AS schema_owner FROM __pg.cat.pg_namespace

--: info.tables
SELECT current_database() AS table_catalog, nspname AS table_schema, relname AS table_name,
    CASE relkind WHEN 'r' THEN 'BASE TABLE' ELSE 'VIEW' END AS table_type, CASE relkind WHEN 'r' THEN 'YES' ELSE 'NO' END AS is_insertable_into,
    'NO' AS is_typed FROM __pg.cat.relations
UNION ALL
SELECT current_database(), nspname, relname, CASE relkind WHEN 'r' THEN 'BASE TABLE' ELSE 'VIEW' END, 'NO', 'NO'
FROM __pg.cat.system_relations JOIN __pg.cat.pg_namespace AS n ON n.oid = namespace

--: info.views
SELECT current_database() AS table_catalog, nspname AS table_schema, relname AS table_name, __pg.cat.view_body(sql) AS view_definition,
    'NONE' AS check_option, 'NO' AS is_updatable, 'NO' AS is_insertable_into, 'NO' AS is_trigger_updatable,
    'NO' AS is_trigger_deletable, 'NO' AS is_trigger_insertable_into
FROM __pg.cat.relations WHERE relkind = 'v'

--: info.columns
SELECT current_database() AS table_catalog, r.nspname AS table_schema, r.relname AS table_name, c.column_name,
    c.column_index AS ordinal_position, c.column_default, CASE WHEN c.is_nullable THEN 'YES' ELSE 'NO' END AS is_nullable,
    CASE WHEN c.typname[1] = '_' THEN 'ARRAY' ELSE c.sql_name END AS data_type,
    CASE c.type_oid WHEN 21 THEN 16 WHEN 23 THEN 32 WHEN 20 THEN 64 WHEN 700 THEN 24 WHEN 701 THEN 53 WHEN 1700 THEN c.numeric_precision
        END AS numeric_precision,
    CASE WHEN c.type_oid IN (20, 21, 23, 700, 701) THEN 2 WHEN c.type_oid = 1700 THEN 10 END AS numeric_precision_radix,
    CASE WHEN c.type_oid IN (20, 21, 23) THEN 0 WHEN c.type_oid = 1700 THEN c.numeric_scale END AS numeric_scale,
    CASE WHEN c.type_oid IN (1083, 1114, 1184, 1186, 1266) THEN 6 WHEN c.type_oid = 1082 THEN 0 END AS datetime_precision,
    current_database() AS udt_catalog, 'pg_catalog' AS udt_schema, c.typname AS udt_name,
    c.column_index::VARCHAR AS dtd_identifier, 'NO' AS is_self_referencing, 'NO' AS is_identity, 'NO' AS identity_cycle,
    CASE WHEN c.is_generated THEN 'ALWAYS' ELSE 'NEVER' END AS is_generated, c.generation_expression,
    CASE r.relkind WHEN 'r' THEN 'YES' ELSE 'NO' END AS is_updatable
FROM __pg.cat.columns AS c JOIN __pg.cat.relations AS r ON r.oid = c.table_oid

--: info.table_constraints
SELECT current_database() AS constraint_catalog, nspname AS constraint_schema, name AS constraint_name,
    current_database() AS table_catalog, nspname AS table_schema, table_name,
    CASE type WHEN 'p' THEN 'PRIMARY KEY' WHEN 'u' THEN 'UNIQUE' WHEN 'f' THEN 'FOREIGN KEY' ELSE 'CHECK' END AS constraint_type,
    'NO' AS is_deferrable, 'NO' AS initially_deferred, 'YES' AS enforced, CASE type WHEN 'u' THEN 'YES' END AS nulls_distinct
FROM __pg.cat.keys

--: info.key_column_usage
SELECT current_database() AS constraint_catalog, nspname AS constraint_schema, name AS constraint_name,
    current_database() AS table_catalog, nspname AS table_schema, table_name, unnest(columns) AS column_name,
    unnest(range(1, len(columns) + 1)) AS ordinal_position,
    CASE type WHEN 'f' THEN unnest(range(1, len(columns) + 1)) END AS position_in_unique_constraint
FROM __pg.cat.keys WHERE type IN ('p', 'u', 'f')

--: info.constraint_column_usage
SELECT current_database() AS table_catalog, nspname AS table_schema, coalesce(other_table, table_name) AS table_name,
    unnest(CASE type WHEN 'f' THEN other_columns ELSE columns END) AS column_name, current_database() AS constraint_catalog,
    nspname AS constraint_schema, name AS constraint_name
FROM __pg.cat.keys

--: info.referential_constraints
SELECT current_database() AS constraint_catalog, k.nspname AS constraint_schema, k.name AS constraint_name,
    current_database() AS unique_constraint_catalog, k.nspname AS unique_constraint_schema,
    (SELECT o.name FROM __pg.cat.keys AS o WHERE o.table_oid = k.other_oid AND o.type IN ('p', 'u')
        AND o.columns = k.other_columns LIMIT 1) AS unique_constraint_name,
    'NONE' AS match_option, 'NO ACTION' AS update_rule, 'NO ACTION' AS delete_rule
FROM __pg.cat.keys AS k WHERE k.type = 'f'

--: info.check_constraints
SELECT current_database() AS constraint_catalog, nspname AS constraint_schema, name AS constraint_name, expression AS check_clause
FROM __pg.cat.keys WHERE type = 'c'

--: info.sequences
SELECT current_database() AS sequence_catalog, schemaname AS sequence_schema, sequencename AS sequence_name, 'bigint' AS data_type,
    64 AS numeric_precision, 2 AS numeric_precision_radix, 0 AS numeric_scale, start_value::VARCHAR AS start_value,
    min_value::VARCHAR AS minimum_value, max_value::VARCHAR AS maximum_value, increment_by::VARCHAR AS increment,
    CASE WHEN cycle THEN 'YES' ELSE 'NO' END AS cycle_option
FROM __pg.cat.pg_sequences

--: info.routines
SELECT current_database() AS specific_catalog, n.nspname AS specific_schema, f.name || '_' || f.oid AS specific_name,
    current_database() AS routine_catalog, n.nspname AS routine_schema, f.name AS routine_name, 'FUNCTION' AS routine_type,
    __pg.cat.format_type(f.result_type, NULL) AS data_type, 'SQL' AS routine_body, 'SQL' AS external_language
FROM __pg.cat.functions AS f JOIN __pg.cat.pg_namespace AS n ON n.oid = f.namespace
