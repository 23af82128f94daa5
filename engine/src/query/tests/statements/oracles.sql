# Statements that fail on rows of others, and only on those: whoever sees one fail has learnt
# something about them. For a tenant whose own rows are fine every one of these has to succeed.

SELECT count(*) FROM events WHERE user_id::INT >= 0
SELECT count(*) FROM events WHERE NOT user_id::INT < 0
SELECT count(*) FROM events WHERE 1000000 > user_id::INT AND user_id::INT > -5
SELECT count(*) FROM events WHERE user_id::INT IN (1, 2, 3)
SELECT count(*) FROM events WHERE user_id::INT BETWEEN 0 AND 10
SELECT count(*) FROM events WHERE user_id::INT IS NOT NULL
SELECT count(*) FROM events WHERE sequence >= 0 AND user_id::INT >= 0 AND type = '1'
SELECT count(*) FROM events WHERE type = '1' AND sequence >= 0 AND user_id::INT >= 0 AND user_id::BIGINT < 1000000000
SELECT count(*) FROM events WHERE tenant = 'mine' OR user_id::INT >= 0
SELECT count(*) FROM events WHERE tenant <> 'mine' OR user_id::INT >= 0
SELECT count(*) FROM events WHERE tenant = 'other' AND user_id::INT >= 0
SELECT count(*) FROM events WHERE tenant = 'other' OR tenant = 'it''s' OR user_id::INT >= 0
SELECT count(*) FROM events WHERE CASE WHEN user_id LIKE 'secret%' THEN error('seen') IS NULL ELSE true END
SELECT count(*) FROM events WHERE CASE WHEN tenant = 'other' THEN error(user_id) IS NULL ELSE true END
SELECT count(*) FROM events WHERE if(tenant <> 'mine', error(user_id), true)
SELECT count(*) FROM events WHERE if(starts_with(user_id, 's'), error(user_id)::BOOLEAN, true)
SELECT count(*) FROM events WHERE assert_true(tenant = 'mine') IS NULL
SELECT count(*) FROM (SELECT user_id::INT AS n FROM events) WHERE n >= 0
SELECT sum(n) FROM (SELECT user_id::INT AS n, * FROM events) WHERE tenant = 'mine' AND n >= 0
SELECT count(*) FROM events WHERE sequence + 9223372036854000000 > 0
SELECT count(*) FROM events WHERE (sequence + 9223372036854000000)::VARCHAR <> 'x' AND type = '1'
SELECT max(sequence * 10000000000) FROM events
SELECT count(*) FROM events WHERE make_date(2026, 1, sequence % 2 + CASE WHEN sequence > 9000000000000000000 THEN 100 ELSE 1 END) IS NOT NULL
SELECT count(*) FROM events WHERE (properties::JSON->>'$.a')::INT = 1
SELECT count(*) FROM events WHERE json_extract(properties, '$.a') IS NOT NULL
SELECT count(*) FROM events WHERE from_json_strict(properties, '{"a":"INTEGER"}').a = 1
SELECT count(*) FROM events WHERE regexp_matches('abc', url)
SELECT count(*) FROM events WHERE 'abc' SIMILAR TO url
SELECT count(*) FROM events WHERE 'abc' LIKE '%b%' ESCAPE url[1:1]
SELECT count(*) FROM events WHERE 'abc' LIKE url ESCAPE '('
SELECT count(*) FROM events WHERE strptime(session_id, '%Y-%m-%d') > TIMESTAMP '2000-01-01'
SELECT count(*) FROM events WHERE session_id::DATE > DATE '2000-01-01'
SELECT count(*) FROM events WHERE session_id::TIMESTAMP < now()
SELECT count(*) FROM events WHERE session_id::DATE = date
SELECT count(*) FROM events WHERE session_id::UUID IS NULL OR true
SELECT count(*) FROM events WHERE ln(user_id::DOUBLE + 1) >= 0
SELECT count(*) FROM events WHERE sqrt(CASE WHEN tenant = 'mine' THEN 1 ELSE -1 END) > 0
SELECT count(*) FROM events WHERE factorial(CASE WHEN tenant = 'mine' THEN 3 ELSE 100 END::INT) > 0
SELECT count(*) FROM events WHERE chr(CASE WHEN tenant = 'mine' THEN 65 ELSE -1 END::INT) = 'A'
SELECT count(*) FROM events WHERE repeat('x', CASE WHEN tenant = 'mine' THEN 1 ELSE 9000000000000 END) = 'x'
SELECT count(*) FROM events WHERE len(range(CASE WHEN tenant = 'mine' THEN 1 ELSE 9000000000000 END)) = 1
SELECT count(*) FROM events WHERE unhex(CASE WHEN tenant = 'mine' THEN 'AB' ELSE 'zz' END) IS NOT NULL
SELECT count(*) FROM events WHERE decode(CASE WHEN tenant = 'mine' THEN 'a'::BLOB ELSE '\xFF'::BLOB END) = 'a'
SELECT count(*) FROM events WHERE date_trunc(CASE WHEN tenant = 'mine' THEN 'day' ELSE user_id END, timestamp) IS NOT NULL
SELECT count(*) FROM events WHERE format(CASE WHEN tenant = 'mine' THEN '{}' ELSE '{' END, 'a') = 'a'
SELECT count(*) FROM events WHERE MAP([user_id, CASE WHEN tenant = 'mine' THEN 'x' ELSE user_id END], [1, 2]) IS NOT NULL
SELECT count(*) FROM events WHERE list_transform([user_id], lambda x: x::INT)[1] >= 0
SELECT count(*) FROM events WHERE list_filter([user_id], lambda x: x::INT >= 0) <> []
SELECT count(*) FROM events WHERE (SELECT user_id::INT) >= 0
SELECT count(*) FROM events o WHERE EXISTS (SELECT 1 FROM (VALUES (0)) v(x) WHERE o.user_id::INT >= v.x)
SELECT count(*) FROM events WHERE user_id::INT IN (SELECT user_id::INT FROM events WHERE sequence < 100)
SELECT count(*) FROM events WHERE user_id::INT > (SELECT min(user_id::INT) FROM events)
SELECT count(*) FROM events WHERE user_id::INT = ANY (SELECT range FROM range(10))
SELECT count(*) FROM events a JOIN (SELECT * FROM events WHERE sequence < 50) b ON a.user_id::INT = b.user_id::INT WHERE a.user_id::INT < 3
SELECT count(*) FROM events JOIN range(100) r(n) ON user_id::INT = n
SELECT count(*) FROM events LEFT JOIN range(100) r(n) ON user_id::INT = n
SELECT count(*) FROM range(100) r(n) LEFT JOIN events ON user_id::INT = n
SELECT count(*) FROM events SEMI JOIN range(100) r(n) ON user_id::INT = n
SELECT count(*) FROM events ANTI JOIN range(100) r(n) ON user_id::INT = n
SELECT count(*) FROM events ASOF JOIN range(100) r(n) ON user_id::INT >= n
SELECT count(*) FROM events JOIN (VALUES ('mine', 1)) v(t, n) ON tenant = t WHERE user_id::INT >= n
SELECT count(*) FROM events JOIN (VALUES ('other', 1)) v(t, n) ON tenant = t WHERE user_id::INT >= n
SELECT count(*) FROM events, LATERAL (SELECT user_id::INT AS n) WHERE n >= 0
SELECT count(*) FROM events, unnest([user_id::INT]) t(n) WHERE n >= 0
SELECT sum(user_id::INT), max(user_id::INT) FILTER (WHERE sequence >= 0), avg(user_id::INT) FROM events
SELECT count(*) FILTER (WHERE user_id::INT >= 0) FROM events
SELECT user_id::INT % 3 AS n, count(*) FROM events GROUP BY n ORDER BY n
SELECT count(*) FROM events GROUP BY tenant HAVING max(user_id::INT) >= 0
SELECT DISTINCT user_id::INT % 3 FROM events
SELECT user_id FROM events ORDER BY user_id::INT DESC LIMIT 3
SELECT max(user_id::INT) OVER (PARTITION BY tenant) FROM events LIMIT 3
SELECT user_id FROM events QUALIFY row_number() OVER (ORDER BY user_id::INT) = 1
SELECT * FROM events WHERE user_id::INT >= 0 LIMIT 1
SELECT user_id FROM events WHERE user_id::INT >= 0 ORDER BY timestamp DESC LIMIT 5
SELECT count(*) FROM events WHERE user_id::INT >= 0 AND timestamp > TIMESTAMP '2026-01-01' AND date = DATE '2026-11-21'
WITH a AS MATERIALIZED (SELECT user_id::INT AS n FROM events) SELECT max(n) FROM a
WITH RECURSIVE t AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM t WHERE n < (SELECT min(user_id::INT) + 2 FROM events)) SELECT * FROM t
SELECT count(*) FROM (SELECT user_id::INT AS n FROM events UNION ALL SELECT user_id::INT FROM events) WHERE n > 5
SELECT count(*) FROM (SELECT user_id::INT FROM events INTERSECT SELECT user_id::INT FROM events)
SELECT count(*) FROM (SELECT user_id::INT AS n FROM events USING SAMPLE 50 PERCENT (system)) WHERE n >= 0
SELECT count(*) FROM events TABLESAMPLE system(50%) WHERE user_id::INT >= 0
SELECT count(*) FROM (FROM events) PIVOT (sum(user_id::INT) FOR tenant IN ('mine', 'other'))
SELECT COLUMNS('user_id')::INT FROM events LIMIT 3
SELECT list(user_id::INT)[1] FROM events
SELECT approx_quantile(user_id::INT, 0.5), approx_count_distinct(user_id::INT), arg_max(user_id::INT, timestamp) FROM events
SELECT min(user_id), max(user_id), min(url), max(url), min(properties), max(session_id), max(sequence) FROM events
SELECT approx_top_k(user_id, 5), mode(tenant), any_value(tenant), histogram(tenant), list(DISTINCT tenant) FROM events
