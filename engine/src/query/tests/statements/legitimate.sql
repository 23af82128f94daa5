# Statements that have to work. One a line; ⏎ stands for the end of a line.

SELECT 1
SELECT 1;
/* a comment */ SELECT 1 -- and another
FROM events
TABLE events
SELECT * FROM EVENTS
SELECT * FROM "events" AS e
VALUES (1, 'a'), (2, 'b')
SELECT * FROM (VALUES (1), (2)) v(a)
SELECT type, count(*) FROM events GROUP BY ALL ORDER BY ALL LIMIT 5 OFFSET 1
SELECT count(*) FROM events WHERE timestamp > now() - INTERVAL 7 DAY
SELECT count(*) FROM events WHERE received_at >= today() - 1 AND date = today()
SELECT date_trunc('hour', timestamp) AS hour, count(DISTINCT user_id) FROM events GROUP BY 1
SELECT time_bucket(INTERVAL 5 MINUTE, timestamp), approx_quantile(sequence, 0.9) FROM events GROUP BY 1
SELECT properties->>'$.price', json_extract(context, '$.a') FROM events
SELECT extract(year FROM timestamp), strftime(timestamp, '%Y'), CAST(shard AS BIGINT) FROM events
WITH a AS (SELECT * FROM events), b AS (FROM a) SELECT * FROM a JOIN b USING (sequence)
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t
WITH a AS MATERIALIZED (SELECT 1 AS n) SELECT (SELECT max(n) FROM a) FROM a
SELECT * FROM range(3) UNION ALL SELECT * FROM generate_series(1, 3)
SELECT unnest([1, 2]), [x + 1 FOR x IN [1, 2]], list_transform([1], lambda x: x + 1)
SELECT * FROM unnest([1, 2]) t(a)
SELECT {'a': 1}, MAP {'k': 1}, (1, 2), [1][1], 'x' || 'y'
SELECT row_number() OVER (PARTITION BY type ORDER BY timestamp) FROM events QUALIFY 1 = 1
SELECT sum(shard) FILTER (WHERE type = 'x') FROM events HAVING count(*) >= 0
SELECT CASE WHEN shard = 1 THEN 'a' ELSE 'b' END, shard BETWEEN 1 AND 2, type IN ('a', 'b'), type LIKE 'a%', user_id IS NULL, NOT true, TRY_CAST(type AS INTEGER) FROM events
SELECT * FROM events e WHERE EXISTS (SELECT 1 FROM events f WHERE f.user_id = e.user_id)
SELECT * FROM events e ASOF JOIN events f ON e.timestamp >= f.timestamp
SELECT * EXCLUDE (ip) REPLACE (1 AS shard) FROM events
SELECT COLUMNS('.*_id') FROM events
SELECT DISTINCT ON (user_id) user_id, type FROM events
SELECT * FROM events USING SAMPLE 5 ROWS
SELECT type, count(*) FROM events GROUP BY ROLLUP (type)
SELECT * FROM (SELECT type, shard FROM events) PIVOT (count(*) FOR type IN ('a', 'b'))
SELECT * FROM (SELECT shard, sequence FROM events) UNPIVOT (v FOR k IN (shard, sequence))
SELECT type = ANY (['a']), shard > ALL (SELECT 1) FROM events
SELECT pg_typeof(1), typeof(1), version(), gen_random_uuid() IS NOT NULL
SELECT current_date IS NULL FROM (SELECT 1 AS current_date)
SELECT * FROM 'events'

# What people write.
SELECT count(*) FROM events WHERE timestamp > now() - interval 7 day
SELECT count(*) FROM events WHERE timestamp > now() - INTERVAL '1 hour'
SELECT count(*) FROM events WHERE timestamp >= '2026-01-01' AND timestamp < TIMESTAMP '2026-02-01'
SELECT count(*) FROM events WHERE timestamp >= '2026-01-01T00:00:00Z'::TIMESTAMP
SELECT count(*) FROM events WHERE date BETWEEN DATE '2026-01-01' AND today()
SELECT date, count(*) AS n, count(DISTINCT visitor_id) AS visitors FROM events GROUP BY date ORDER BY date DESC
SELECT url, count(*) AS n FROM events WHERE type = 'page' GROUP BY url ORDER BY n DESC, url LIMIT 20
SELECT * FROM events WHERE user_id = 'u-1' ORDER BY timestamp DESC LIMIT 50
SELECT event, count(*) FILTER (WHERE timestamp > now() - INTERVAL 1 DAY) AS today, count(*) AS total FROM events GROUP BY ALL
SELECT user_id, timestamp, lag(timestamp) OVER w, timestamp - lag(timestamp) OVER w AS gap FROM events WINDOW w AS (PARTITION BY user_id ORDER BY timestamp)
SELECT user_id, sum(new) OVER (PARTITION BY user_id ORDER BY timestamp ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM (SELECT *, CASE WHEN timestamp - lag(timestamp) OVER (PARTITION BY user_id ORDER BY timestamp) > INTERVAL 30 MINUTE THEN 1 ELSE 0 END AS new FROM events)
SELECT first_value(url) OVER (PARTITION BY session_id ORDER BY timestamp), ntile(4) OVER (ORDER BY timestamp), dense_rank() OVER (ORDER BY type), percent_rank() OVER (ORDER BY type), nth_value(url, 2) OVER (ORDER BY timestamp) FROM events
SELECT avg(shard) OVER (ORDER BY timestamp RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW) FROM events
SELECT * FROM events QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY timestamp DESC) = 1
WITH steps AS (SELECT user_id, min(timestamp) FILTER (WHERE event = 'a') AS a, min(timestamp) FILTER (WHERE event = 'b') AS b FROM events GROUP BY user_id) SELECT count(a), count(b) FILTER (WHERE b > a) FROM steps
WITH days AS (SELECT unnest(generate_series(DATE '2026-01-01', DATE '2026-01-07', INTERVAL 1 DAY)) AS day) SELECT day, count(sequence) FROM days LEFT JOIN events ON date = day::DATE GROUP BY day ORDER BY day
WITH RECURSIVE path(n, p) AS (SELECT 1, 'a' UNION SELECT n + 1, p || 'a' FROM path WHERE n < 10) SELECT * FROM path
WITH a(x) AS (VALUES (1), (2)), b AS (SELECT x * 2 AS y FROM a) SELECT * FROM a, b WHERE x = y
WITH events AS (SELECT * FROM events WHERE type = 'page') SELECT count(*) FROM events
WITH e AS NOT MATERIALIZED (FROM events) SELECT count(*) FROM e
FROM events SELECT type, count(*) GROUP BY type
FROM (FROM events WHERE type = 'page') LIMIT 10
SELECT properties->'$.items'->0->>'$.sku', properties->>'price', json_extract_string(context, '$.page.title') FROM events
SELECT TRY_CAST(properties->>'$.price' AS DOUBLE) AS price, sum(price) OVER () FROM events
SELECT json_extract(properties, ['$.a', '$.b']), json_type(properties), json_keys(properties), json_array_length(properties, '$.items') FROM events
SELECT json_object('a', 1, 'b', type), json_array(1, type), to_json({'a': shard}), json_valid(properties), json_structure(properties) FROM events
SELECT json_group_array(type), json_group_object(type, shard), json_merge_patch('{"a":1}', '{"b":2}') FROM events
SELECT from_json(properties, '{"price":"DOUBLE"}').price, json_transform(properties, '{"a":"VARCHAR"}') FROM events
SELECT unnest(from_json(properties->'$.items', '["JSON"]')) AS item FROM events
SELECT unnest({'a': 1, 'b': 2}), unnest([{'c': 3}], recursive := true)
SELECT e.type, t.x FROM events e, unnest([1, 2, 3]) AS t(x)
SELECT e.type, x FROM events e CROSS JOIN LATERAL (SELECT e.shard + 1 AS x)
SELECT type, (SELECT count(*) FROM events i WHERE i.user_id = o.user_id) FROM events o
SELECT type FROM events WHERE user_id IN (SELECT user_id FROM events WHERE type = 'identify') AND user_id NOT IN ('a')
SELECT coalesce(user_id, anonymous_id) AS who, count(*) FROM events GROUP BY who HAVING count(*) > 1
SELECT * FROM events a LEFT JOIN events b ON a.user_id = b.user_id AND b.timestamp > a.timestamp
SELECT * FROM events a SEMI JOIN events b USING (user_id)
SELECT * FROM events a ANTI JOIN events b USING (user_id)
SELECT a.type FROM events a FULL OUTER JOIN events b USING (sequence) POSITIONAL JOIN events c
SELECT type FROM events UNION SELECT event FROM events EXCEPT SELECT 'x' INTERSECT SELECT 'y' ORDER BY 1 NULLS FIRST
SELECT type, shard, count(*) FROM events GROUP BY CUBE (type, shard)
SELECT type, shard, grouping(type), count(*) FROM events GROUP BY GROUPING SETS ((type, shard), (type), ())
SELECT quantile_cont(sequence, [0.5, 0.95, 0.99]), median(sequence), mode(type), stddev(sequence), approx_count_distinct(user_id), histogram(type) FROM events
SELECT arg_max(url, timestamp), max_by(url, timestamp), first(url ORDER BY timestamp), list(url ORDER BY timestamp), string_agg(DISTINCT type, ',') FROM events
SELECT min(sequence, 3), max(sequence, 3), arg_max(url, timestamp, 5) FROM events
SELECT regexp_extract(url, '^https?://([^/]+)', 1) AS host, regexp_replace(url, '\?.*$', ''), regexp_matches(url, 'a.*b'), url SIMILAR TO '.*a' FROM events
SELECT split_part(url, '/', 3), string_split(url, '/')[1], lower(url), trim(url), substring(url, 1, 10), url[1:5], length(url), left(url, 3), strpos(url, 'a') FROM events
SELECT url LIKE '%a%', url ILIKE '%A%', url NOT LIKE 'b_', url GLOB '*a*', starts_with(url, 'http'), contains(url, 'x'), url LIKE '10\%' ESCAPE '\' FROM events
SELECT date_trunc('week', timestamp), date_part('dow', timestamp), date_diff('day', timestamp, now()), age(timestamp), dayname(timestamp), last_day(timestamp), epoch_ms(timestamp), hour(timestamp) FROM events
SELECT time_bucket(INTERVAL '15 minutes', timestamp) AS b, count(*) FROM events GROUP BY b ORDER BY b
SELECT strptime('2026-01-02', '%Y-%m-%d'), make_date(2026, 1, 2), make_timestamp(2026, 1, 2, 3, 4, 5.6), TIMESTAMP '2026-01-01' + INTERVAL 1 MONTH, to_days(3), epoch_ms(1700000000000)
SELECT list_filter([1, 2, 3], lambda x: x > 1), list_reduce([1, 2, 3], lambda a, b: a + b), list_sort([3, 1]), list_distinct([1, 1]), list_aggregate([1, 2], 'sum'), [1, 2] || [3], len([1]), list_zip([1], ['a']), flatten([[1], [2]])
SELECT map_keys(MAP {'a': 1}), map_from_entries([('a', 1)]), MAP {'a': 1}['a'], struct_pack(a := 1).a, {'a': {'b': 1}}.a.b, row(1, 'x')
SELECT round(1.234, 2), floor(1.5), abs(-1), 7 // 2, 7 % 2, 2 ** 10, power(2, 3), greatest(1, 2), least(1, 2), pi(), ln(2), sqrt(2), bit_count(7), 5 & 3, 1 << 3, random() < 1
SELECT hash(user_id), md5('x'), sha256('x'), base64('x'::BLOB), from_base64('eA=='), hex('x'), url_encode('a b'), url_decode('a%20b') FROM events
SELECT 1::BIGINT, '1'::INT, CAST('2026-01-01' AS DATE), '00000000-0000-0000-0000-000000000001'::UUID, 1.5::DECIMAL(10, 2), 'a'::BLOB, TRY_CAST('x' AS INT), true::INT, '1 day'::INTERVAL, 1::HUGEINT, '{"a":1}'::JSON
SELECT NULL IS DISTINCT FROM 1, nullif(1, 1), ifnull(NULL, 1), if(true, 1, 2), CASE type WHEN 'a' THEN 1 ELSE 0 END, 1 IN (1, 2), 1 BETWEEN 0 AND 2 FROM events
SELECT format('{} has {:.2f}', type, 1.5), printf('%s %d', type, 3), format_bytes(1000), 'a' || 1, concat_ws('-', 'a', NULL, 'b'), repeat('ab', 3), lpad('1', 5, '0'), reverse('abc'), translate('abc', 'a', 'b') FROM events
SELECT levenshtein('abc', 'abd'), jaro_winkler_similarity('abc', 'abd'), damerau_levenshtein('a', 'b'), hamming('ab', 'ac'), strip_accents('é')
SELECT * FROM (SELECT type, date, shard FROM events) PIVOT (sum(shard) FOR type IN ('page', 'track') GROUP BY date)
SELECT * FROM (PIVOT (SELECT type, shard FROM events) ON type IN ('page', 'track') USING count(*))
SELECT COLUMNS(lambda c: c LIKE '%_id') FROM events
SELECT min(COLUMNS(*)) FROM events
SELECT * RENAME (user_id AS who) FROM events
SELECT * LIKE '%_id' FROM events
SELECT #1, type FROM (SELECT 1), events
SELECT 1 AS "select", 'it''s' AS "a ""b""", E'a\tb', $$dollar 'quoted'$$, x'AB', 1_000_000, 0xFF, 1e3, .5
SELECT type AS t, t || '!' AS u FROM events WHERE t = 'x' GROUP BY ALL ORDER BY ALL
SELECT prefix: type, n: count(*) FROM events GROUP BY ALL
SELECT 'DROP TABLE events; -- ' AS text, 'FROM hot_1' AS other, "type" AS "getenv" FROM events
SELECT /* FROM hot_1 */ type -- ; DROP VIEW events⏎FROM events
SELECT 1 FROM events TABLESAMPLE reservoir(10%)
SELECT * FROM events USING SAMPLE 10 PERCENT (bernoulli)
SELECT * FROM events ORDER BY timestamp DESC NULLS LAST, sequence ASC LIMIT 10 OFFSET 5
SELECT * FROM events LIMIT 50%
SELECT * FROM events ORDER BY type COLLATE NOCASE
SELECT * FROM range(1, 10, 2) t(i) JOIN events ON i = shard
SELECT * FROM generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-02', INTERVAL 6 HOUR)
SELECT array_agg(x) FROM (VALUES (1, 'a'), (2, 'b')) v(x, y) WHERE y <> 'c'
SELECT ARRAY(SELECT type FROM events), ARRAY[1, 2], array_length([1]), EXISTS (FROM events)
SELECT node || '-' || shard || '-' || sequence AS id, received_at, source FROM events ORDER BY received_at, node, shard, sequence LIMIT 50
SELECT tenant, count(*) AS n FROM events GROUP BY tenant
SELECT * FROM events WHERE (type, event) IN (('track', 'a'), ('page', 'b'))
SELECT bool_and(shard > 0), bool_or(shard > 0), bit_or(shard), count(*), any_value(type), sum(shard) / count(*), corr(shard, sequence), regr_slope(shard, sequence) FROM events
SELECT uuid(), gen_random_uuid(), version(), typeof(type), pg_typeof(type), current_user FROM events
