-- PostgreSQL's functions of its system catalog, as macros: those that the views need, and the others, which need the views.
--
-- An argument must not stand inside a subquery: a column oid would be taken for the inner relation's.  So what is looked up is a
-- map of all there is, made once for a query, and the argument stands behind it.

--: before
CREATE MACRO __pg.cat.type_key(t) AS CASE WHEN ends_with(t, '][]') THEN 'JSON'
    ELSE regexp_replace(regexp_replace(t, '\(.*\)', ''), '\[[0-9]+\]$', '[]') END
CREATE MACRO __pg.cat.format_type(o, m) AS (SELECT map(list(oid), list(sql_name)) FROM __pg.cat.types)[o::BIGINT]
    || CASE WHEN o::BIGINT = 1700 AND m >= 4 THEN '(' || ((m - 4) >> 16) || ',' || ((m - 4) & 65535) || ')'
    WHEN o::BIGINT IN (1042, 1043) AND m >= 4 THEN '(' || (m - 4) || ')' ELSE '' END
CREATE MACRO __pg.cat.view_body(s) AS ' ' || regexp_replace(s, '(?is)^\s*create\s+(or\s+replace\s+)?(temp(orary)?\s+)?view\s+.*?\s+as\s+', '')
CREATE MACRO __pg.cat.quoted(n) AS CASE WHEN starts_with(n, '"') THEN n
    WHEN regexp_full_match(n, '[a-z_][a-z0-9_$]*') AND NOT contains(' all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast char '
        || ' character check coalesce collate collation column concurrently constraint create cross current_catalog current_date '
        || ' current_role current_schema current_time current_timestamp current_user dec decimal default deferrable desc distinct do '
        || ' else end except exists extract false fetch float for foreign freeze from full grant greatest group grouping having ilike '
        || ' in initially inner inout int integer intersect interval into is isnull join lateral leading least left like limit '
        || ' localtime localtimestamp national natural nchar none normalize not notnull null nullif numeric offset on only or order '
        || ' out outer overlaps overlay placing position precision primary real references returning right row select session_user '
        || ' setof similar smallint some substring symmetric table tablesample then time timestamp to trailing treat trim true union '
        || ' unique user using values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists '
        || ' xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable ', ' ' || n || ' ') THEN n
    ELSE '"' || replace(n, '"', '""') || '"' END
CREATE MACRO __pg.cat.quoted_list(l) AS array_to_string(list_transform(l, lambda n: __pg.cat.quoted(n)), ', ')

--: of indexes
CREATE MACRO __pg.cat.index_text(schema) AS (SELECT map(list(oid), list(CASE WHEN is_unique THEN 'CREATE UNIQUE INDEX '
    ELSE 'CREATE INDEX ' END || __pg.cat.quoted(name) || ' ON ' || CASE WHEN NOT schema AND nspname = 'public' THEN ''
    ELSE __pg.cat.quoted(nspname) || '.' END || __pg.cat.quoted(table_name) || ' USING btree (' || __pg.cat.quoted_list(columns) || ')'))
    FROM __pg.cat.all_indexes)
CREATE MACRO __pg.cat.pg_get_indexdef(o) AS __pg.cat.index_text(true)[o::BIGINT],
    (o, n, p) AS CASE WHEN n = 0 THEN __pg.cat.index_text(NOT p)[o::BIGINT]
    ELSE (SELECT map(list(oid), list(columns)) FROM __pg.cat.all_indexes)[o::BIGINT][n] END

--: after
CREATE MACRO __pg.cat.pg_get_userbyid(o) AS coalesce(getvariable('__pg_user'), 'sqlml')
CREATE MACRO __pg.cat.pg_table_is_visible(o) AS coalesce((SELECT map(list(__c.oid::BIGINT), list(true)) FROM __pg.cat.pg_class AS __c
    JOIN __pg.cat.pg_namespace AS __n ON __n.oid = __c.relnamespace WHERE __n.nspname IN ('public', 'pg_catalog'))[o::BIGINT], false)
CREATE MACRO __pg.cat.pg_type_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_function_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_operator_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_collation_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_opclass_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_conversion_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_ts_config_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_ts_dict_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_ts_parser_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_ts_template_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_statistics_obj_is_visible(o) AS true
CREATE MACRO __pg.cat.pg_get_expr(e, o) AS e, (e, o, p) AS e
CREATE MACRO __pg.cat.view_texts() AS (SELECT map(list(oid), list(__pg.cat.view_body(sql))) FROM __pg.cat.relations WHERE relkind = 'v')
CREATE MACRO __pg.cat.pg_get_viewdef(o) AS __pg.cat.view_texts()[o::BIGINT], (o, p) AS __pg.cat.view_texts()[o::BIGINT]
CREATE MACRO __pg.cat.key_texts() AS (SELECT map(list(oid), list(CASE type
    WHEN 'p' THEN 'PRIMARY KEY (' || __pg.cat.quoted_list(columns) || ')'
    WHEN 'u' THEN 'UNIQUE (' || __pg.cat.quoted_list(columns) || ')'
    WHEN 'f' THEN 'FOREIGN KEY (' || __pg.cat.quoted_list(columns) || ') REFERENCES ' || __pg.cat.quoted(other_table) || '('
        || __pg.cat.quoted_list(other_columns) || ')'
    ELSE 'CHECK ' || expression END)) FROM __pg.cat.keys)
CREATE MACRO __pg.cat.pg_get_constraintdef(o) AS __pg.cat.key_texts()[o::BIGINT], (o, p) AS __pg.cat.key_texts()[o::BIGINT]
CREATE MACRO __pg.cat.pg_get_function_result(o) AS (SELECT map(list(oid), list(__pg.cat.format_type(result_type, NULL))) FROM __pg.cat.functions)[o::BIGINT]
CREATE MACRO __pg.cat.pg_get_function_arguments(o) AS (SELECT map(list(oid), list(arguments)) FROM __pg.cat.functions)[o::BIGINT]
CREATE MACRO __pg.cat.pg_get_function_identity_arguments(o) AS (SELECT map(list(oid), list(arguments)) FROM __pg.cat.functions)[o::BIGINT]
CREATE MACRO __pg.cat.pg_get_functiondef(o) AS (SELECT map(list(f.oid), list(CASE WHEN f.is_model
    THEN 'CREATE OR REPLACE FUNCTION ' || n.nspname || '.' || __pg.cat.quoted(f.name) || '(' || f.arguments || E')\n RETURNS '
        || __pg.cat.format_type(f.result_type, NULL) || E'\n LANGUAGE internal\nAS $function$' || f.source || E'$function$\n'
    ELSE 'CREATE OR REPLACE MACRO ' || n.nspname || '.' || __pg.cat.quoted(f.name) || '(' || f.arguments || ') AS ' || f.source || E'\n'
    END)) FROM __pg.cat.functions AS f JOIN __pg.cat.namespaces AS n ON n.oid = f.namespace)[o::BIGINT]
CREATE MACRO __pg.cat.pg_get_function_sqlbody(o) AS NULL::VARCHAR
CREATE MACRO __pg.cat.pg_get_triggerdef(o) AS NULL::VARCHAR, (o, p) AS NULL::VARCHAR
CREATE MACRO __pg.cat.pg_get_ruledef(o) AS NULL::VARCHAR, (o, p) AS NULL::VARCHAR
CREATE MACRO __pg.cat.pg_get_partkeydef(o) AS NULL::VARCHAR
CREATE MACRO __pg.cat.pg_get_partition_constraintdef(o) AS NULL::VARCHAR
CREATE MACRO __pg.cat.pg_get_statisticsobjdef(o) AS NULL::VARCHAR
CREATE MACRO __pg.cat.pg_get_statisticsobjdef_columns(o) AS NULL::VARCHAR
CREATE MACRO __pg.cat.pg_get_serial_sequence(t, c) AS (SELECT 'public.' || regexp_extract(k.column_default, 'nextval\(''(?:main\.)?"?([^''"]+)"?''', 1)
    FROM duckdb_columns() AS k WHERE k.table_name = regexp_replace(trim(t, '"'), '^.*\.', '') AND k.column_name = c
    AND contains(k.column_default, 'nextval'))
CREATE MACRO __pg.cat.descriptions() AS (SELECT map(list(objoid::BIGINT * 2000 + objsubid), list(description)) FROM __pg.cat.pg_description)
CREATE MACRO __pg.cat.obj_description(o, c) AS __pg.cat.descriptions()[o::BIGINT * 2000], (o) AS __pg.cat.descriptions()[o::BIGINT * 2000]
CREATE MACRO __pg.cat.col_description(o, n) AS __pg.cat.descriptions()[o::BIGINT * 2000 + n]
CREATE MACRO __pg.cat.shobj_description(o, c) AS NULL::VARCHAR
CREATE MACRO __pg.cat.has_table_privilege(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.has_schema_privilege(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.has_database_privilege(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.has_column_privilege(a, b, c) AS true, (a, b, c, d) AS true
CREATE MACRO __pg.cat.has_any_column_privilege(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.has_function_privilege(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.has_sequence_privilege(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.has_type_privilege(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.has_language_privilege(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.has_tablespace_privilege(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.pg_has_role(a, b) AS true, (a, b, c) AS true
CREATE MACRO __pg.cat.pg_encoding_to_char(e) AS CASE e WHEN 6 THEN 'UTF8' WHEN 0 THEN 'SQL_ASCII' END
CREATE MACRO __pg.cat.pg_char_to_encoding(e) AS 6
CREATE MACRO __pg.cat.pg_database_size(d) AS (SELECT sum(coalesce(estimated_size, 0)) * 64 FROM duckdb_tables())::BIGINT
CREATE MACRO __pg.cat.pg_total_relation_size(o) AS coalesce((SELECT map(list(table_oid), list(estimated_size * 64)) FROM duckdb_tables())[o::BIGINT], 0)::BIGINT
CREATE MACRO __pg.cat.pg_table_size(o) AS coalesce((SELECT map(list(table_oid), list(estimated_size * 64)) FROM duckdb_tables())[o::BIGINT], 0)::BIGINT
CREATE MACRO __pg.cat.pg_relation_size(o) AS coalesce((SELECT map(list(table_oid), list(estimated_size * 64)) FROM duckdb_tables())[o::BIGINT], 0)::BIGINT, (o, f) AS coalesce((SELECT map(list(table_oid), list(estimated_size * 64)) FROM duckdb_tables())[o::BIGINT], 0)::BIGINT
CREATE MACRO __pg.cat.pg_indexes_size(o) AS 0::BIGINT
CREATE MACRO __pg.cat.pg_tablespace_location(o) AS ''
CREATE MACRO __pg.cat.pg_tablespace_size(o) AS 0::BIGINT
CREATE MACRO __pg.cat.pg_size_pretty(n) AS CASE WHEN abs(n) < 10240 THEN n::BIGINT || ' bytes' WHEN abs(n) < 10485760 THEN round(n / 1024)::BIGINT || ' kB'
    WHEN abs(n) < 10737418240 THEN round(n / 1048576)::BIGINT || ' MB' ELSE round(n / 1073741824)::BIGINT || ' GB' END
CREATE MACRO __pg.cat.pg_relation_is_publishable(o) AS false
CREATE MACRO __pg.cat.pg_relation_is_updatable(o, c) AS 28
CREATE MACRO __pg.cat.pg_column_is_updatable(o, n, c) AS true
CREATE MACRO __pg.cat.pg_is_in_recovery() AS false
CREATE MACRO __pg.cat.pg_backend_pid() AS 0
CREATE MACRO __pg.cat.pg_my_temp_schema() AS 0::BIGINT
CREATE MACRO __pg.cat.pg_is_other_temp_schema(o) AS false
CREATE MACRO __pg.cat.pg_postmaster_start_time() AS now()
CREATE MACRO __pg.cat.pg_conf_load_time() AS now()
CREATE MACRO __pg.cat.pg_stat_get_numscans(o) AS 0::BIGINT
CREATE MACRO __pg.cat.pg_cancel_backend(p) AS false
CREATE MACRO __pg.cat.pg_options_to_table(o) AS NULL
CREATE MACRO __pg.cat.inet_server_addr() AS NULL::VARCHAR
CREATE MACRO __pg.cat.inet_server_port() AS NULL::INTEGER
CREATE MACRO __pg.cat.inet_client_addr() AS NULL::VARCHAR
CREATE MACRO __pg.cat.txid_current() AS 1::BIGINT
CREATE MACRO __pg.cat.quote_ident(n) AS __pg.cat.quoted(n)
CREATE MACRO __pg.cat.pg_partition_ancestors(o) AS TABLE SELECT NULL::BIGINT AS relid, NULL::BIGINT AS depth WHERE false
CREATE MACRO __pg.cat.pg_partition_tree(o) AS TABLE SELECT NULL::BIGINT AS relid, NULL::BIGINT AS parentrelid, true AS isleaf, 0 AS level
    WHERE false
CREATE MACRO __pg.cat.pg_get_keywords() AS TABLE SELECT keyword_name AS word, CASE keyword_category WHEN 'reserved' THEN 'R'
    WHEN 'unreserved' THEN 'U' WHEN 'column_name' THEN 'C' ELSE 'T' END AS catcode, true AS barelabel, keyword_category AS catdesc,
    'can be bare label' AS baredesc FROM duckdb_keywords()
CREATE MACRO __pg.cat.bpchar(x) AS x
CREATE MACRO __pg.cat.pg_is_wal_replay_paused() AS false
CREATE MACRO __pg.cat.pg_blocking_pids(p) AS []::INTEGER[]
CREATE MACRO __pg.cat.pg_stat_get_live_tuples(o) AS (SELECT map(list(table_oid), list(estimated_size)) FROM duckdb_tables())[o::BIGINT]
CREATE MACRO __pg.cat.acldefault(t, o) AS NULL::VARCHAR[]
CREATE MACRO __pg.cat.aclexplode(a) AS unnest([]::STRUCT(grantor UINTEGER, grantee UINTEGER, privilege_type VARCHAR, is_grantable BOOLEAN)[])
CREATE MACRO __pg.cat.oidvectortypes(l) AS (SELECT string_agg(__t.sql_name, ', ' ORDER BY __v.__number) FROM
    (SELECT unnest(l) AS __oid, unnest(range(1, len(l) + 1)) AS __number) AS __v JOIN __pg.cat.types AS __t ON __t.oid = __v.__oid)
CREATE MACRO __pg.cat.pg_available_extensions() AS TABLE SELECT NULL::VARCHAR AS name, NULL::VARCHAR AS default_version,
    NULL::VARCHAR AS comment WHERE false
CREATE MACRO __pg.cat.array_remove(l, e) AS list_filter(l, lambda x: x IS DISTINCT FROM e)
CREATE MACRO __pg.cat.array_upper(l, d) AS len(l)
CREATE MACRO __pg.cat.array_lower(l, d) AS 1
CREATE MACRO __pg.cat._pg_expandarray(l) AS unnest(list_transform(l, lambda x, i: {'x': x, 'n': i}))
CREATE MACRO __pg.cat.generate_subscripts(l, d) AS unnest(range(1, len(l) + 1))
CREATE MACRO __pg.cat.unquoted(n) AS CASE WHEN starts_with(n, '"') THEN replace(substr(n, 2, length(n) - 2), '""', '"') ELSE lower(n) END
CREATE MACRO __pg.cat.to_regclass(n) AS (SELECT min(c.oid) FROM __pg.cat.pg_class AS c JOIN __pg.cat.pg_namespace AS s ON s.oid = c.relnamespace
    WHERE c.relname = __pg.cat.unquoted(regexp_extract(n, '(?:^|\.)\s*("(?:[^"]|"")*"|[^".]+?)\s*$', 1))
    AND CASE WHEN regexp_matches(n, '^\s*("(?:[^"]|"")*"|[^".]+)\s*\.') THEN s.nspname = __pg.cat.unquoted(regexp_extract(n,
        '^\s*("(?:[^"]|"")*"|[^".]+?)\s*\.', 1)) ELSE s.nspname IN ('public', 'pg_catalog') END)
CREATE MACRO __pg.cat.plain(n) AS regexp_replace(n, '"([a-z_][a-z0-9_$]*)"', '\1', 'g')
CREATE MACRO __pg.cat.regclass_of(n) AS (SELECT map(list(__k.name), list(__k.oid)) FROM (SELECT name, min(oid) AS oid FROM (
    SELECT __pg.cat.plain('"' || __n.nspname || '"."' || __c.relname || '"') AS name, __c.oid FROM __pg.cat.pg_class AS __c
        JOIN __pg.cat.pg_namespace AS __n ON __n.oid = __c.relnamespace
    UNION ALL SELECT __pg.cat.plain('"' || __c.relname || '"'), __c.oid FROM __pg.cat.pg_class AS __c
        JOIN __pg.cat.pg_namespace AS __n ON __n.oid = __c.relnamespace WHERE __n.nspname IN ('public', 'pg_catalog')
    ) GROUP BY name) AS __k)[__pg.cat.plain(n)]
CREATE MACRO __pg.cat.regclass_name(o) AS coalesce((SELECT map(list(__c.oid::BIGINT), list(CASE WHEN __n.nspname IN ('public', 'pg_catalog')
    THEN '' ELSE __pg.cat.quoted(__n.nspname) || '.' END || __pg.cat.quoted(__c.relname))) FROM __pg.cat.pg_class AS __c
    JOIN __pg.cat.pg_namespace AS __n ON __n.oid = __c.relnamespace)[o::BIGINT], CASE o WHEN 0 THEN '-' ELSE o::VARCHAR END)
CREATE MACRO __pg.cat.to_regtype(n) AS (SELECT min(y.oid) FROM __pg.cat.types AS y WHERE y.typname = lower(n) OR y.sql_name = lower(n))
CREATE MACRO __pg.cat.regtype_name(o) AS coalesce(__pg.cat.format_type(o, NULL), o::VARCHAR)
CREATE MACRO __pg.cat.to_regproc(n) AS coalesce((SELECT min(oid) FROM __pg.cat.functions
    WHERE lower(name) = lower(trim(regexp_replace(regexp_extract(n, '^[^(]*'), '^.*[.]', ''), '"'))),
    error('function "' || n || '" does not exist'))
CREATE MACRO __pg.cat.regproc_name(o) AS o::VARCHAR
CREATE MACRO __pg.cat.to_regnamespace(n) AS (SELECT s.oid FROM __pg.cat.pg_namespace AS s WHERE s.nspname = trim(n, '"'))
CREATE MACRO __pg.cat.regnamespace_name(o) AS coalesce((SELECT map(list(oid::BIGINT), list(nspname)) FROM __pg.cat.pg_namespace)[o::BIGINT], o::VARCHAR)
CREATE MACRO __pg.cat.to_regrole(n) AS 10::BIGINT
CREATE MACRO __pg.cat.regrole_name(o) AS coalesce(getvariable('__pg_user'), 'sqlml')
CREATE MACRO __pg.cat.current_schemas(i) AS CASE WHEN i THEN ['pg_catalog', 'public'] ELSE ['public'] END
