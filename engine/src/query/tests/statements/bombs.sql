# Statements that pass the check and want more than there is: memory, time, or space to spill. Each
# ends within its limits, whatever its answer.

# Vectors, which DuckDB's own limit does not count.
SELECT len(range(100000000))
SELECT len(list_transform(range(50000000), lambda x: x + 1))
SELECT length(repeat('x', 4000000000))
SELECT sum(length(repeat('x', 100000000 + range))) FROM range(1000)
SELECT max(length(lpad('x', 50000000 + range::INT, 'y'))) FROM range(1000)
SELECT list(repeat('x', 10000000 + range)) FROM range(1000)
SELECT max(len(list_resize([range], 50000000, 7))) FROM range(1000)
SELECT repeat('x', 20000000 + range) FROM range(1000)
SELECT length(string_agg(repeat('x', 10000000), ',')) FROM range(1000)
SELECT max(length(replace(repeat('x', 10000000 + range), 'x', 'yyyyyyyyyyyyyyyyyyyy'))) FROM range(100)
WITH RECURSIVE t AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t
SELECT list_reduce(range(100), lambda a, b: a + b), length(list_reduce(list_transform(range(40), lambda x: 'x'), lambda a, b: a || a))
SELECT length(array_to_string(list_transform(range(100000), lambda x: repeat('x', 100000)), ','))
SELECT length(to_json(range(50000000)))
SELECT len(string_split(repeat('a,', 50000000), ','))
SELECT len(regexp_extract_all(repeat('a,', 20000000), 'a'))

# State of operators, which it does.
SELECT list(range ORDER BY hash(range)) FROM range(100000000)
SELECT count(*) FROM (SELECT DISTINCT hash(range)::VARCHAR || 'some more text' FROM range(100000000))
SELECT hash(range) AS h, count(*) FROM range(100000000) GROUP BY h ORDER BY h DESC LIMIT 1
SELECT count(*) FROM range(100000000) a JOIN range(100000000) b ON hash(a.range) = hash(b.range)
SELECT row_number() OVER (ORDER BY hash(range)) FROM range(100000000)
SELECT histogram(range), string_agg(range::VARCHAR, ',') FROM range(100000000)
SELECT quantile_cont(hash(range), 0.5) FROM range(100000000)
SELECT approx_top_k(range, 100000), max(range, 100000) FROM range(100000000)
SELECT * FROM range(100000000) ORDER BY hash(range)::VARCHAR || repeat('x', 100)
WITH t AS MATERIALIZED (SELECT repeat('x', 1000) || range AS s FROM range(100000000)) SELECT count(*) FROM t a, t b

# Time.
SELECT count(*) FROM range(10000000) a(x), range(10000000) b(y) WHERE (x * y) % 7 = 9
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t, range(10) WHERE n < 1000) SELECT count(*) FROM t
SELECT count(*) FROM generate_series(0, 9223372036854775806)
SELECT count(*) FROM generate_series(TIMESTAMP '0001-01-01', TIMESTAMP '9999-12-31', INTERVAL 1 MICROSECOND)
SELECT sum(a.range * b.range) FROM range(1000000000) a, range(1000000000) b
SELECT count(*) FROM events a, events b, events c, events d, range(1000000000) WHERE hash(a.sequence, b.sequence, c.sequence, d.sequence, range) = 1
SELECT count(*) FROM range(1000000000) WHERE regexp_matches(range::VARCHAR, '(1?){50}(2?){50}3{20}')
SELECT count(*) FROM range(1000000000) WHERE md5(range::VARCHAR) LIKE '%a%b%c%d%e%f%0%1%'
SELECT max((SELECT count(*) FROM range(1000000) i WHERE i.range > o.range)) FROM range(1000000) o
