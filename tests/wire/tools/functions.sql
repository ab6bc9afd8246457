--: a time range of a chart
SELECT id FROM parents WHERE met >= TO_TIMESTAMP('2024-02-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US') AND met < TO_TIMESTAMP('2027-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
--: a range of days of a chart
SELECT id FROM parents WHERE born >= TO_DATE('2024-02-01', 'YYYY-MM-DD') AND born < TO_DATE('2027-01-01', 'YYYY-MM-DD')
--: a moment's name
SELECT to_timestamp('2024-02-01 10:20:30', 'YYYY-MM-DD HH24:MI:SS'), to_date('20240201', 'YYYYMMDD')
--: months that there are
SELECT DISTINCT to_char(met, 'YYYY-MM') FROM parents WHERE met IS NOT NULL ORDER BY to_char(met, 'YYYY-MM')
--: a moment in a call
SELECT coalesce(to_char(to_date('2024', 'YYYY'), 'YYYY-MM'), 'x') AS c, extract(year FROM to_date('2024-02-01', 'YYYY-MM-DD'))::int AS y
--: seconds
SELECT to_timestamp(1700000000) AS t
--: parts of a moment as text
SELECT to_char(met, 'YYYY-MM-DD"T"HH24:MI:SS.MS') AS a, to_char(met, 'Mon DD, YYYY HH12:MI AM') AS b, to_char(met, 'Dy DDD IYYY-IW ID') AS c FROM parents WHERE id = 1
--: long names of a moment
SELECT to_char(met, 'FMDay FMDD FMMonth YY'), to_char(born, 'YYYY%MM') FROM parents WHERE id = 1
--: a moment with a zone as text
SELECT to_char(seen, 'YYYY-MM-DD HH24:MI:SS') FROM parents WHERE id = 1
--: steps of time
SELECT date_bin('15 minutes', met, TIMESTAMP '2000-01-01') AS step, count(*) FROM parents WHERE id = 1 GROUP BY 1
--: steps of time from an interval
SELECT date_bin(INTERVAL '2 hours', met, TIMESTAMP '2000-01-01') FROM parents WHERE id = 1
--: what matches
SELECT substring(name FROM '[a-z]'), substring(name FROM 'x+') AS none, substring('ab12' FROM '[a-z]+([0-9])') AS group, substring('abc' FROM 2 FOR 1) AS place FROM parents ORDER BY id
--: bytes as text
SELECT encode(raw, 'hex'), encode(raw, 'base64') AS b, decode('00ff', 'hex') AS c, decode('YQ==', 'base64') AS d FROM parents WHERE id = 1
--: other names
SELECT btrim(' a '), every(id > 0), clock_timestamp() IS NOT NULL AS now FROM parents
--: a list as a literal
SELECT '{a,"b c",NULL}'::text[], '{}'::int[] AS none, CAST('{1,2}' AS integer[]) AS numbers, '{"a": 1}'::json AS json
--: one of a list
SELECT id FROM parents WHERE name = ANY('{a,x}') OR id = ANY('{7}'::int[])
--: a path into a document
SELECT doc #>> ARRAY['a', 'b']::text[] AS a, doc #>> '{a,c,1}' AS b, (doc #>> array['a', 'n']::text[])::bigint AS c, doc #> '{a,c}' AS d FROM (SELECT '{"a": {"b": "x", "c": [1, 2], "n": 7}}'::json AS doc) AS t
--: who asks, in a call
SELECT coalesce(NULL, current_user) AS who, lower(current_user) AS small, current_user
--: a temporary table as the standard writes it
CREATE LOCAL TEMPORARY TABLE "#check" ("COL" INTEGER) ON COMMIT PRESERVE ROWS
--: names of calls
SELECT substring('foobar' FROM 2 FOR 3), position('b' IN 'foobar')::int AS p, coalesce(NULL, 1), nullif(1, 2), upper('a'), percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM parents
