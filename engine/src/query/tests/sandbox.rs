//! What may be asked and what may not.

use super::Fixture;
use crate::query::{QueryError, sandbox};

/// Statements that are not a read of `events`.
const FORBIDDEN: &[&str] = &[
    // Other statements.
    "INSERT INTO events VALUES (1)",
    "UPDATE events SET type = 'x'",
    "DELETE FROM events",
    "MERGE INTO events USING x ON true WHEN MATCHED THEN DELETE",
    "CREATE TABLE t AS SELECT 1",
    "CREATE MACRO f() AS 1",
    "DROP VIEW events",
    "ALTER TABLE hot_1 ADD COLUMN x INTEGER",
    "COPY events TO '/tmp/out.parquet'",
    "COPY (SELECT 1) TO '/tmp/out.csv'",
    "EXPORT DATABASE '/tmp/out'",
    "IMPORT DATABASE '/tmp/out'",
    "ATTACH '/tmp/x.db'",
    "DETACH memory",
    "USE memory",
    "SET threads = 1",
    "RESET threads",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "COMMIT",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "DESCRIBE events",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SUMMARIZE events",
    "SELECT * FROM (DESCRIBE events)",
    "SELECT * FROM (SHOW TABLES)",
    "PIVOT events ON type",
    // More than one.
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW events",
    // Statements inside WITH.
    "WITH x AS (COPY events TO '/tmp/out.parquet') FROM x",
    "WITH x AS (DELETE FROM hot_1 RETURNING *) FROM x",
    "WITH x AS (INSERT INTO hot_1 SELECT * FROM events RETURNING 1) SELECT 1",
    "SELECT (WITH x AS (UPDATE hot_1 SET type = '' RETURNING 1) FROM x)",
    // Other tables.
    "SELECT * FROM hot_1",
    "SELECT * FROM main.events",
    "SELECT * FROM temp.events",
    "SELECT * FROM memory.main.hot_1",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'data.parquet'",
    "SELECT * FROM \"s3://bucket/x.parquet\"",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM duckdb_tables",
    "SELECT 1 WHERE EXISTS (SELECT * FROM hot_1)",
    "SELECT * FROM events JOIN hot_1 USING (sequence)",
    "SELECT * FROM events, LATERAL (SELECT * FROM hot_1)",
    "SELECT * FROM events ORDER BY (SELECT 1 FROM hot_1)",
    "SELECT * FROM events LIMIT (SELECT count(*) FROM hot_1)",
    "SELECT list_transform([1], x -> (SELECT max(shard) FROM hot_1))",
    "SELECT list_transform([1], lambda x: (SELECT max(shard) FROM hot_1))",
    "SELECT 1 UNION ALL SELECT shard FROM hot_1",
    "SELECT * FROM events AT (VERSION => 1)",
    // Names of WITH outside their scope.
    "SELECT * FROM (WITH x AS (SELECT 1) FROM x), x",
    "WITH a AS (FROM b), b AS (SELECT 1) FROM a",
    "WITH hot_1 AS (FROM hot_1) FROM hot_1",
    // Table functions.
    "SELECT * FROM read_parquet('/tmp/x.parquet')",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM READ_BLOB('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM parquet_metadata('/tmp/x.parquet')",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('hot_1')",
    "SELECT * FROM json_execute_serialized_sql('{}')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM pragma_table_info('hot_1')",
    "SELECT * FROM checkpoint()",
    "SELECT * FROM force_checkpoint()",
    "SELECT * FROM enable_logging()",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM explain('SELECT 1')",
    "SELECT * FROM system.main.range(3)",
    // Functions.
    "SELECT getenv('HOME')",
    "SELECT GetEnv('HOME')",
    "SELECT current_setting('temp_directory')",
    "SELECT getvariable('x')",
    "SELECT nextval('s')",
    "SELECT currval('s')",
    "SELECT setseed(0.5)",
    "SELECT write_log('x')",
    "SELECT current_database()",
    "SELECT current_catalog",
    "SELECT current_query()",
    "SELECT pg_get_viewdef(1)",
    "SELECT pg_sleep(10)",
    "SELECT sleep_ms(10000)",
    "SELECT json_serialize_plan('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT system.main.current_setting('threads')",
    "SELECT 1 FROM events WHERE getenv(user_id) = 'x'",
    "SELECT 'x'.getenv()",
    "SELECT nextval('s') OVER ()",
    "VALUES (getenv('HOME'))",
];

/// Statements that are.
const ALLOWED: &[&str] = &[
    "SELECT 1",
    "SELECT 1;",
    "/* a comment */ SELECT 1 -- and another",
    "FROM events",
    "TABLE events",
    "SELECT * FROM EVENTS",
    "SELECT * FROM \"events\" AS e",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT * FROM (VALUES (1), (2)) v(a)",
    "SELECT type, count(*) FROM events GROUP BY ALL ORDER BY ALL LIMIT 5 OFFSET 1",
    "SELECT count(*) FROM events WHERE timestamp > now() - INTERVAL 7 DAY",
    "SELECT count(*) FROM events WHERE received_at >= today() - 1 AND date = today()",
    "SELECT date_trunc('hour', timestamp) AS hour, count(DISTINCT user_id) FROM events GROUP BY 1",
    "SELECT time_bucket(INTERVAL 5 MINUTE, timestamp), approx_quantile(sequence, 0.9) FROM events GROUP BY 1",
    "SELECT properties->>'$.price', json_extract(context, '$.a') FROM events",
    "SELECT extract(year FROM timestamp), strftime(timestamp, '%Y'), CAST(shard AS BIGINT) FROM events",
    "WITH a AS (SELECT * FROM events), b AS (FROM a) SELECT * FROM a JOIN b USING (sequence)",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t",
    "WITH a AS MATERIALIZED (SELECT 1 AS n) SELECT (SELECT max(n) FROM a) FROM a",
    "SELECT * FROM range(3) UNION ALL SELECT * FROM generate_series(1, 3)",
    "SELECT unnest([1, 2]), [x + 1 FOR x IN [1, 2]], list_transform([1], lambda x: x + 1)",
    "SELECT * FROM unnest([1, 2]) t(a)",
    "SELECT {'a': 1}, MAP {'k': 1}, (1, 2), [1][1], 'x' || 'y'",
    "SELECT row_number() OVER (PARTITION BY type ORDER BY timestamp) FROM events QUALIFY 1 = 1",
    "SELECT sum(shard) FILTER (WHERE type = 'x') FROM events HAVING count(*) >= 0",
    "SELECT CASE WHEN shard = 1 THEN 'a' ELSE 'b' END, shard BETWEEN 1 AND 2, type IN ('a', 'b'), \
     type LIKE 'a%', user_id IS NULL, NOT true, TRY_CAST(type AS INTEGER) FROM events",
    "SELECT * FROM events e WHERE EXISTS (SELECT 1 FROM events f WHERE f.user_id = e.user_id)",
    "SELECT * FROM events e ASOF JOIN events f ON e.timestamp >= f.timestamp",
    "SELECT * EXCLUDE (ip) REPLACE (1 AS shard) FROM events",
    "SELECT COLUMNS('.*_id') FROM events",
    "SELECT DISTINCT ON (user_id) user_id, type FROM events",
    "SELECT * FROM events USING SAMPLE 5 ROWS",
    "SELECT type, count(*) FROM events GROUP BY ROLLUP (type)",
    "SELECT * FROM (SELECT type, shard FROM events) PIVOT (count(*) FOR type IN ('a', 'b'))",
    "SELECT * FROM (SELECT shard, sequence FROM events) UNPIVOT (v FOR k IN (shard, sequence))",
    "SELECT type = ANY (['a']), shard > ALL (SELECT 1) FROM events",
    "SELECT pg_typeof(1), typeof(1), version(), gen_random_uuid() IS NOT NULL",
    "SELECT current_date IS NULL FROM (SELECT 1 AS current_date)",
];

#[test]
fn everything_but_one_select_over_events_is_forbidden() {
    let connection = Fixture::new().database.connect().unwrap();
    for sql in FORBIDDEN {
        match sandbox::check(&connection, sql) {
            Err(QueryError::Forbidden { message }) => {
                assert!(!message.is_empty(), "{sql}: no reason is given");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn selects_over_events_pass_and_run() {
    let fixture = Fixture::new();
    for sql in ALLOWED {
        if let Err(error) = fixture.run(sql) {
            panic!("{sql}: {error:?}");
        }
    }
}

#[test]
fn what_is_not_sql_is_a_syntax_error_with_its_position() {
    let connection = Fixture::new().database.connect().unwrap();
    for (sql, position) in [
        ("SELECT 1 AS x INTO y", Some(14)),
        ("SELECT 'é' FROM events WHERE ++ SELECT", Some(33)),
        ("SELEC 1", Some(0)),
        ("", None),
        (" ; -- nothing", None),
        ("SELECT \0", None),
        ("SELECT $name", None),
    ] {
        match sandbox::check(&connection, sql) {
            Err(QueryError::Sql { message, position: at }) => {
                assert_eq!(at, position, "{sql}: {message}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn deep_nesting_and_excessive_length_are_refused_and_long_lists_are_not() {
    let fixture = Fixture::new();
    for sql in [
        format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("SELECT {}1", "- ".repeat(10_000)),
        format!("SELECT 1{}", " + 1".repeat(10_000)),
        format!("SELECT {}{}", "[".repeat(5_000), "]".repeat(5_000)),
        format!("SELECT {}1{}", "(SELECT ".repeat(500), ")".repeat(500)),
        format!("SELECT '{}'", "x".repeat(1 << 20)),
    ] {
        let result = fixture.run(&sql);
        assert!(matches!(result, Err(QueryError::Sql { .. })), "{}: {result:?}", &sql[..40]);
    }
    let alternatives = vec!["shard = 1"; 2_000].join(" OR ");
    fixture.run(&format!("SELECT * FROM events WHERE {alternatives}")).unwrap();
    let numbers = vec!["1"; 10_000].join(", ");
    fixture.run(&format!("SELECT * FROM events WHERE shard IN ({numbers})")).unwrap();
    let unions = vec!["SELECT 1"; 200].join(" UNION ALL ");
    assert_eq!(super::rows(&fixture.run(&unions).unwrap()), 200);
    fixture.run(&format!("SELECT 1{}", " + 1".repeat(30))).unwrap();
}

#[test]
fn a_passing_statement_still_cannot_write() {
    let fixture = Fixture::new();
    fixture.execute("CREATE TABLE other (a INTEGER); CREATE SEQUENCE s;");
    // Were the check to miss something, the transaction would refuse it.
    let connection = fixture.database.connect().unwrap();
    connection.execute_batch("BEGIN TRANSACTION READ ONLY").unwrap();
    assert!(connection.execute_batch("INSERT INTO other VALUES (1)").is_err());
}
