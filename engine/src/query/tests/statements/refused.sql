# Statements that are no read of `events`: refused before they are planned, with 403 and one
# sentence. One a line; ⏎ stands for the end of a line.

# Other statements.
INSERT INTO events VALUES (1)
UPDATE events SET type = 'x'
DELETE FROM events
MERGE INTO events USING x ON true WHEN MATCHED THEN DELETE
CREATE TABLE t AS SELECT 1
CREATE MACRO f() AS 1
DROP VIEW events
ALTER TABLE hot_1 ADD COLUMN x INTEGER
COPY events TO '/tmp/out.parquet'
COPY (SELECT 1) TO '/tmp/out.csv'
EXPORT DATABASE '/tmp/out'
IMPORT DATABASE '/tmp/out'
ATTACH '/tmp/x.db'
DETACH memory
USE memory
SET threads = 1
RESET threads
PRAGMA database_list
CALL pragma_version()
INSTALL httpfs
LOAD httpfs
CHECKPOINT
VACUUM
BEGIN
COMMIT
PREPARE p AS SELECT 1
EXECUTE p
EXPLAIN SELECT 1
EXPLAIN ANALYZE SELECT 1
DESCRIBE events
SHOW TABLES
SHOW ALL TABLES
SUMMARIZE events
SELECT * FROM (DESCRIBE events)
SELECT * FROM (SHOW TABLES)
PIVOT events ON type

# More than one.
SELECT 1; SELECT 2
SELECT 1; DROP VIEW events

# Statements inside WITH.
WITH x AS (COPY events TO '/tmp/out.parquet') FROM x
WITH x AS (DELETE FROM hot_1 RETURNING *) FROM x
WITH x AS (INSERT INTO hot_1 SELECT * FROM events RETURNING 1) SELECT 1
SELECT (WITH x AS (UPDATE hot_1 SET type = '' RETURNING 1) FROM x)

# Other tables.
SELECT * FROM hot_1
SELECT * FROM main.events
SELECT * FROM temp.events
SELECT * FROM memory.main.hot_1
SELECT * FROM '/etc/passwd'
SELECT * FROM 'data.parquet'
SELECT * FROM "s3://bucket/x.parquet"
SELECT * FROM information_schema.tables
SELECT * FROM sqlite_master
SELECT * FROM pg_catalog.pg_class
SELECT * FROM duckdb_tables
SELECT 1 WHERE EXISTS (SELECT * FROM hot_1)
SELECT * FROM events JOIN hot_1 USING (sequence)
SELECT * FROM events, LATERAL (SELECT * FROM hot_1)
SELECT * FROM events ORDER BY (SELECT 1 FROM hot_1)
SELECT * FROM events LIMIT (SELECT count(*) FROM hot_1)
SELECT list_transform([1], x -> (SELECT max(shard) FROM hot_1))
SELECT list_transform([1], lambda x: (SELECT max(shard) FROM hot_1))
SELECT 1 UNION ALL SELECT shard FROM hot_1
SELECT * FROM events AT (VERSION => 1)

# Names of WITH outside their scope.
SELECT * FROM (WITH x AS (SELECT 1) FROM x), x
WITH a AS (FROM b), b AS (SELECT 1) FROM a
WITH hot_1 AS (FROM hot_1) FROM hot_1

# Table functions.
SELECT * FROM read_parquet('/tmp/x.parquet')
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM READ_BLOB('/etc/passwd')
SELECT * FROM glob('/*')
SELECT * FROM parquet_metadata('/tmp/x.parquet')
SELECT * FROM query('SELECT 1')
SELECT * FROM query_table('hot_1')
SELECT * FROM json_execute_serialized_sql('{}')
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_secrets()
SELECT * FROM pragma_table_info('hot_1')
SELECT * FROM checkpoint()
SELECT * FROM force_checkpoint()
SELECT * FROM enable_logging()
SELECT * FROM sniff_csv('/etc/passwd')
SELECT * FROM explain('SELECT 1')
SELECT * FROM system.main.range(3)

# Functions.
SELECT getenv('HOME')
SELECT GetEnv('HOME')
SELECT current_setting('temp_directory')
SELECT getvariable('x')
SELECT nextval('s')
SELECT currval('s')
SELECT setseed(0.5)
SELECT write_log('x')
SELECT current_database()
SELECT current_catalog
SELECT current_query()
SELECT pg_get_viewdef(1)
SELECT pg_sleep(10)
SELECT sleep_ms(10000)
SELECT json_serialize_plan('SELECT * FROM read_text(''/etc/passwd'')')
SELECT system.main.current_setting('threads')
SELECT 1 FROM events WHERE getenv(user_id) = 'x'
SELECT 'x'.getenv()
SELECT nextval('s') OVER ()
VALUES (getenv('HOME'))

# Statements of other kinds, written so that they may slip through.
/* SELECT */ DROP VIEW events
-- SELECT⏎DROP VIEW events
SELECT 1;;; DROP VIEW events
SELECT 1 /* ; */ ; SELECT 2 -- the second
SELECT 'a;b'; DELETE FROM hot_1
insert into hot_1 by name select * from events
INSERT INTO hot_1 SELECT * FROM events RETURNING *
DEALLOCATE p
COPY FROM DATABASE memory TO other
COPY events FROM '/etc/passwd'
COPY hot_1 FROM '/etc/passwd' (FORMAT csv)
CREATE VIEW v AS SELECT * FROM hot_1
CREATE TEMP VIEW events AS SELECT * FROM hot_1
CREATE OR REPLACE TEMP VIEW events AS SELECT * FROM hot_1
CREATE TEMP MACRO now() AS 1
CREATE OR REPLACE MACRO now() AS TIMESTAMP '1970-01-01'
CREATE MACRO t() AS TABLE SELECT * FROM hot_1
CREATE FUNCTION f(a) AS (SELECT count(*) FROM hot_1)
CREATE TYPE t AS ENUM (SELECT tenant FROM hot_1)
CREATE SEQUENCE s
CREATE SECRET s (TYPE s3)
CREATE INDEX i ON hot_1 (tenant)
CREATE SCHEMA s
CREATE TRIGGER t AFTER INSERT ON hot_1 FOR EACH ROW DELETE FROM hot_1
COMMENT ON TABLE hot_1 IS 'x'
DROP TABLE IF EXISTS hot_1
DROP MACRO now
ALTER VIEW events RENAME TO other
TRUNCATE hot_1
FORCE CHECKPOINT
VACUUM ANALYZE hot_1
ANALYZE
ROLLBACK
START TRANSACTION
BEGIN TRANSACTION READ ONLY
SET VARIABLE x = 1
SET search_path = 'information_schema'
SET SESSION operator_memory_limit = '100GB'
SET GLOBAL memory_limit = '100GB'
SET lock_configuration = false
PRAGMA memory_limit = '100GB'
PRAGMA enable_profiling = 'json'
PRAGMA show_tables
CALL force_checkpoint()
CALL query('SELECT 1')
FORCE INSTALL httpfs FROM 'http://example.org'
UPDATE EXTENSIONS
ATTACH IF NOT EXISTS ':memory:' AS other
ATTACH '/tmp/x.db' AS x (READ_ONLY)
EXPLAIN (FORMAT json) SELECT * FROM events
EXPLAIN ANALYZE FROM events
SHOW events
SHOW DATABASES
SHOW VARIABLES
DESCRIBE SELECT * FROM events
DESC events
SUMMARIZE SELECT * FROM events
SELECT * FROM (SUMMARIZE events)
SELECT * FROM (SHOW ALL TABLES)
WITH d AS (DESCRIBE events) FROM d
UNPIVOT hot_1 ON shard
PIVOT (SELECT * FROM events) ON tenant USING count(*)
SELECT * FROM (PIVOT events ON tenant)

# Writing inside WITH, at any depth.
WITH x AS MATERIALIZED (INSERT INTO hot_1 FROM events RETURNING sequence) FROM x
WITH a AS (SELECT 1), b AS (COPY (FROM a) TO '/tmp/out.parquet') FROM a
WITH a AS (WITH b AS (DELETE FROM hot_1 RETURNING *) FROM b) FROM a
SELECT * FROM events WHERE sequence IN (WITH x AS (DELETE FROM hot_1 RETURNING sequence) FROM x)
SELECT 1 UNION ALL (WITH x AS (UPDATE hot_1 SET type = '' RETURNING 1) FROM x)
SELECT * FROM events, LATERAL (WITH x AS (DELETE FROM hot_1 RETURNING 1) FROM x)

# Other tables, quoted, spelt or hidden so that they may slip through.
SELECT * FROM "hot_1"
SELECT * FROM HOT_1
SELECT * FROM hot_1 AS events
SELECT * FROM hot_1 events
SELECT hot_1.* FROM events, hot_1
SELECT * FROM "events "
SELECT * FROM "events""x"
SELECT * FROM "main"."events"
SELECT * FROM memory.events
SELECT * FROM "memory"."main"."hot_1"
SELECT * FROM system.main.duckdb_tables
SELECT * FROM temp.main.events
SELECT * FROM temp.information_schema.tables
SELECT * FROM/**/hot_1
SELECT * FROM⏎hot_1
SELECT * FROM -- events⏎hot_1
SELECT * FROM ｅｖｅｎｔｓ
SELECT * FROM évents
SELECT * FROM "еvents"
SELECT * FROM 'events/**/*.parquet'
SELECT * FROM "events/date=2026-11-21/*.parquet"
SELECT * FROM 'http://169.254.169.254/latest/meta-data'
SELECT * FROM 'hf://datasets/a/b/c.parquet'
SELECT * FROM '../log/0/1.log'
SELECT * FROM '/proc/self/environ'
FROM 'file:///etc/passwd'
TABLE hot_1
TABLE 'x.csv'
FROM hot_1 SELECT count(*)
SELECT * FROM pg_class
SELECT * FROM pg_tables
SELECT * FROM pg_catalog.pg_views
SELECT * FROM information_schema.columns
SELECT * FROM sqlite_schema
SELECT * FROM sqlite_temp_master
SELECT * FROM duckdb_views
SELECT * FROM duckdb_settings
SELECT * FROM duckdb_logs
SELECT * FROM pragma_database_list
SELECT 1 FROM events WHERE sequence = (SELECT max(sequence) FROM hot_1)
SELECT 1 FROM events WHERE sequence IN (FROM hot_1 SELECT sequence)
SELECT 1 FROM events HAVING count(*) > (SELECT count(*) FROM hot_1)
SELECT 1 FROM events QUALIFY row_number() OVER (ORDER BY (SELECT 1 FROM hot_1)) = 1
SELECT sum(1) OVER (PARTITION BY (SELECT max(tenant) FROM hot_1)) FROM events
SELECT sum(1) FILTER (WHERE EXISTS (FROM hot_1)) FROM events
SELECT count(*) FROM events GROUP BY (SELECT max(tenant) FROM hot_1)
SELECT DISTINCT ON ((SELECT max(tenant) FROM hot_1)) 1 FROM events
SELECT * FROM events a ASOF JOIN hot_1 b ON a.timestamp >= b.timestamp
SELECT * FROM events a POSITIONAL JOIN hot_1 b
SELECT * FROM events NATURAL JOIN hot_1
SELECT * FROM events SEMI JOIN hot_1 USING (sequence)
SELECT * FROM events JOIN events b ON a.sequence = (SELECT max(sequence) FROM hot_1)
SELECT [x FOR x IN (SELECT list(tenant) FROM hot_1)]
SELECT {'a': (SELECT max(tenant) FROM hot_1)}
SELECT ARRAY(SELECT tenant FROM hot_1)
SELECT COLUMNS(c -> c = (SELECT max(tenant) FROM hot_1)) FROM events
SELECT * REPLACE ((SELECT max(tenant) FROM hot_1) AS tenant) FROM events
SELECT CASE WHEN true THEN (SELECT max(tenant) FROM hot_1) END
SELECT 1 WHERE 'x' = ANY (SELECT tenant FROM hot_1)
VALUES ((SELECT max(tenant) FROM hot_1))
SELECT * FROM (VALUES ((SELECT max(tenant) FROM hot_1))) v(a)
SELECT * FROM range((SELECT count(*) FROM hot_1))
SELECT * FROM unnest((SELECT list(tenant) FROM hot_1)) t(a)
SELECT * FROM events LIMIT 1 OFFSET (SELECT count(*) FROM hot_1)
SELECT * FROM (FROM hot_1) PIVOT (count(*) FOR type IN ('a'))
SELECT * FROM hot_1 TABLESAMPLE 10%
WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t, hot_1 WHERE n < 3) FROM t
WITH events AS (SELECT * FROM hot_1) SELECT * FROM events
WITH x AS (SELECT 1) SELECT * FROM main.x
WITH x AS (SELECT 1) SELECT * FROM X, y
WITH "hot_2" AS (SELECT 1) SELECT * FROM hot_1
SELECT (WITH hot_1 AS (SELECT 1) SELECT 1), * FROM hot_1
WITH a AS (WITH hot_1 AS (SELECT 1) FROM hot_1) SELECT * FROM a, hot_1
SELECT * FROM (WITH hot_1 AS (SELECT 1) FROM hot_1) UNION ALL FROM hot_1
SELECT * FROM events AT (TIMESTAMP => now())

# Other table functions.
SELECT * FROM read_csv_auto('/etc/passwd')
SELECT * FROM "read_text"('/etc/passwd')
SELECT * FROM rEaD_tExT('/proc/self/environ')
SELECT * FROM read_json('/etc/passwd')
SELECT * FROM read_json_objects('/etc/passwd')
SELECT * FROM read_ndjson('/etc/passwd')
SELECT * FROM read_duckdb('/tmp/x.db')
SELECT * FROM parquet_scan(['/tmp/x.parquet'])
SELECT * FROM parquet_schema('/tmp/x.parquet')
SELECT * FROM parquet_file_metadata('/tmp/x.parquet')
SELECT * FROM parquet_bloom_probe('/tmp/x.parquet', 'tenant', 'x')
SELECT * FROM read_text(ARRAY['/etc/passwd'])
SELECT * FROM events, read_text(user_id)
SELECT * FROM events, LATERAL read_csv('/etc/' || user_id)
SELECT * FROM (SELECT * FROM read_blob('/etc/passwd'))
SELECT * FROM query('DELETE FROM hot_1')
SELECT * FROM query_table(['hot_1'])
SELECT * FROM query_table('events')
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM hot_1'))
SELECT * FROM duckdb_tables()
SELECT * FROM duckdb_views()
SELECT * FROM duckdb_columns()
SELECT * FROM duckdb_functions()
SELECT * FROM duckdb_logs()
SELECT * FROM duckdb_memory()
SELECT * FROM duckdb_temporary_files()
SELECT * FROM duckdb_table_sample('hot_1')
SELECT * FROM duckdb_variables()
SELECT * FROM duckdb_prepared_statements()
SELECT * FROM duckdb_external_file_cache()
SELECT * FROM pragma_storage_info('hot_1')
SELECT * FROM pragma_database_size()
SELECT * FROM pragma_show('events')
SELECT * FROM pragma_version()
SELECT * FROM histogram('hot_1', tenant)
SELECT * FROM histogram_values('hot_1', tenant)
SELECT * FROM summary('x')
SELECT * FROM seq_scan('hot_1')
SELECT * FROM arrow_scan(1, 2, 3)
SELECT * FROM which_secret('s3://x', 's3')
SELECT * FROM register_external_resource('x')
SELECT * FROM truncate_duckdb_logs()
SELECT * FROM disable_logging()
SELECT * FROM enable_profiling()
SELECT * FROM test_all_types()
SELECT * FROM repeat('x', 1000000000000)
SELECT * FROM repeat_row(1, num_rows = 1000000000000)
SELECT * FROM main.range(3)
SELECT * FROM "range"(1), "read_text"('/etc/passwd')
SELECT * FROM events WHERE EXISTS (FROM read_text('/etc/passwd'))

# Other functions: files, settings, the catalog, SQL in text, waiting.
SELECT "getenv"('HOME')
SELECT main.getenv('HOME')
SELECT getenv/**/('HOME')
SELECT list_transform(['HOME'], lambda x: getenv(x))
SELECT max(getenv(user_id)) OVER () FROM events
SELECT 1 FROM events ORDER BY current_setting(user_id)
SELECT CURRENT_SETTING('memory_limit')
SELECT current_schemas(true)
SELECT current_schema
SELECT current_database
SELECT CURRENT_CATALOG
SELECT current_connection_id()
SELECT current_transaction_id()
SELECT txid_current()
SELECT in_search_path('memory', 'main')
SELECT sleep_ms(range) FROM range(100000)
SELECT stats(user_id) FROM events
SELECT vector_type(user_id) FROM events
SELECT pg_get_constraintdef(1)
SELECT pg_table_is_visible(1)
SELECT has_table_privilege('hot_1', 'select')
SELECT inet_server_addr()
SELECT col_description(1, 1)
SELECT obj_description(1)
SELECT pg_my_temp_schema()
SELECT write_log('x', level := 'ERROR')
SELECT parse_duckdb_log_message('QueryLog', 'x')
SELECT nextval('main.s')
SELECT setval('s', 1)
SELECT set_config('memory_limit', '100GB', false)
SELECT __internal_barrier(1)
SELECT __internal_decompress_string(1::UBIGINT)
SELECT __internal_tablefilter_dynamic(1)
SELECT events.getenv() FROM events
SELECT ['x'].list_transform(lambda x: x.getenv())
SELECT 'SELECT 1'.json_serialize_plan()

# Functions that parse SQL, or that take the insides of DuckDB's own values.
SELECT json_serialize_sql('SELECT * FROM hot_1')
SELECT json_serialize_sql(repeat('(', 1000000))
SELECT json_deserialize_sql('{}')
SELECT finalize(to_aggregate_state('\x00'::BLOB))
SELECT combine('\x00'::BLOB, '\x00'::BLOB)
SELECT combine_aggr('\x00'::BLOB)
SELECT sum(1) EXPORT_STATE FROM events
SELECT variant_bytes_to_variant('\x00'::BLOB, '\x00'::BLOB)
SELECT create_sort_key(user_id, 'ASC') FROM events
