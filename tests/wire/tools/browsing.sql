--: settings as a function's rows (pgAdmin connects)
SELECT s.name, set_config('bytea_output', 'hex', false) AS value FROM pg_show_all_settings() AS s WHERE s.name = 'bytea_output'
--: numbers of the catalog (pgAdmin's tree)
SELECT c.oid > 0 AS has, c.oid::text <> '' AS text FROM pg_catalog.pg_class c WHERE c.relname = 'parents'
--: names without quotes are in small letters (pgAdmin's columns)
SELECT att.attname AS Name, att.attnum AS OID FROM pg_catalog.pg_attribute att WHERE att.attrelid = 'public.kids'::regclass AND att.attnum > 0 ORDER BY att.attnum
--: the index of a key hangs on the key (pgAdmin's indexes)
SELECT i.relname, dep.deptype IS NOT NULL AS of_key FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid LEFT JOIN pg_catalog.pg_depend dep ON dep.classid = i.tableoid AND dep.objid = i.oid AND dep.refobjsubid = '0' AND dep.deptype = 'i' AND dep.refclassid = (SELECT oid FROM pg_catalog.pg_class WHERE relname = 'pg_constraint') WHERE x.indrelid = 'kids'::regclass ORDER BY 1
--: what a plain index hangs on (pgAdmin's dependencies)
SELECT d.deptype, d.refobjsubid FROM pg_catalog.pg_depend d WHERE d.objid = 'kids_note'::regclass AND d.refclassid = 'pg_class'::regclass
--: columns of an index by their numbers (pgAdmin's index)
SELECT i.attnum, pg_catalog.pg_get_indexdef(i.indexrelid, i.attnum, true) AS def, CASE i.indoption[i.attnum - 1] WHEN 0 THEN ARRAY['ASC', 'NULLS LAST'] ELSE ARRAY['?'] END::text[] AS options FROM (SELECT indexrelid, x.indoption, pg_catalog.unnest(ARRAY(SELECT pg_catalog.generate_series(1, x.indnkeyatts) AS n))::int AS attnum FROM pg_catalog.pg_index x WHERE x.indexrelid = 'kids_pid_b'::regclass) i ORDER BY i.attnum
--: a view by its rule (pgAdmin's views)
SELECT c.relname, c.xmin IS NOT NULL AS seen FROM pg_catalog.pg_class c WHERE c.relnamespace = 'public'::regnamespace AND EXISTS (SELECT r.rulename FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND pg_catalog.bpchar(r.ev_type) = '1'::bpchar)
--: a sequence as a relation (pgAdmin's sequences)
SELECT last_value, seqmin AS min_value, seqincrement AS increment_by, is_called FROM pg_catalog.pg_sequence, public.counter WHERE seqrelid = 'public.counter'::regclass
--: privileges as rows (pgAdmin's properties)
SELECT d.grantee, d.privilege_type FROM (SELECT rel.relacl FROM pg_catalog.pg_class rel WHERE rel.relname = 'parents') rel, LATERAL aclexplode(rel.relacl) d
--: schemas that are searched (pgAdmin completes)
SELECT schema FROM pg_catalog.unnest(current_schemas(true)) AS schema ORDER BY 1
--: a list as a literal (pgAdmin searches)
SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.nspname = ANY('{public,other}') ORDER BY 1
--: words that need quotes
SELECT quote_ident('default'), quote_ident('name'), quote_ident('two words'), quote_ident('select')
--: who waits for whom (pgAdmin's dashboard, DBeaver's locks)
SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE array_to_string(pg_catalog.pg_blocking_pids(pid), ', ') <> ''
--: a vector as text (SQLAlchemy 1.4's indexes)
SELECT i.relname, ix.indkey::varchar, ix.indoption::varchar FROM pg_catalog.pg_index ix JOIN pg_catalog.pg_class i ON i.oid = ix.indexrelid WHERE ix.indrelid = 'kids'::regclass ORDER BY 1
--: a table's number from its names (Metabase's columns)
SELECT c.table_name, c.column_name, col_description(CAST(CAST(format('%I.%I', CAST(c.table_schema AS text), CAST(c.table_name AS text)) AS regclass) AS oid), c.ordinal_position) AS comment FROM information_schema.columns AS c WHERE c.table_schema IN ('public', 'other') ORDER BY 1, 2
--: a table's number from pieces (Grafana's columns)
SELECT t.table_name, obj_description((quote_ident(t.table_schema) || '.' || quote_ident(t.table_name))::regclass) AS comment FROM information_schema.tables t WHERE t.table_schema = 'public' ORDER BY 1
--: privileges in columns called like words (Metabase's privileges)
SELECT t.schemaname AS schema, t.tablename AS table, pg_catalog.has_table_privilege(current_user, '"' || replace(t.tablename, '"', '""') || '"', 'select') AS select, true AS update FROM pg_catalog.pg_tables t WHERE t.schemaname = 'public' ORDER BY 2
--: rows by statistics (Metabase's tables)
SELECT s.schemaname, s.relname, s.n_live_tup >= 0 AS counted FROM pg_catalog.pg_stat_user_tables s WHERE s.relname IN ('parents', 'kids') ORDER BY 2
--: keys on both sides (Metabase's foreign keys)
SELECT f.attname AS fk, p.attname AS pk FROM pg_constraint c JOIN pg_attribute f ON c.conrelid = f.attrelid JOIN pg_attribute p ON c.confrelid = p.attrelid WHERE c.contype = 'f'::char AND f.attnum = ANY(c.conkey) AND p.attnum = ANY(c.confkey)
--: words of the language (DBeaver connects)
SELECT count(*) > 0 AS some FROM pg_catalog.pg_get_keywords() WHERE word <> ALL ('{a,abs,select,from}'::text[])
--: constraints of a table (DBeaver's constraints)
SELECT c.conname, c.contype, array_to_string(c.conkey, ' ') AS key, array_to_string(c.confkey, ' ') AS other, c.connoinherit FROM pg_catalog.pg_constraint c WHERE c.conrelid IN ('kids'::regclass, 'parents'::regclass) AND c.contype <> 'n' ORDER BY 1
--: triggers with their arguments (pgAdmin's view)
SELECT t.tgname, pg_catalog.substring(pg_catalog.pg_get_triggerdef(t.oid, true), 'WHEN (.*) EXECUTE') AS condition, (pg_catalog.string_to_array(encode(t.tgargs, 'escape'), E'\\000')::text[])[1:t.tgnargs] AS arguments FROM pg_catalog.pg_trigger t WHERE t.tgrelid = 'grown'::regclass
