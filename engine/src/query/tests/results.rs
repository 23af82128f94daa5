//! Results: values, parameters, errors.

use serde_json::{Value, json};

use super::{Fixture, config, no_events, read, rows};
use crate::config::DuckDbConfig;
use crate::query::format::{Encoder, Format};
use crate::query::{Params, QueryError, QueryRequest};

/// One row of every type, and one of nulls.
const TYPED: &str = "
    SELECT * FROM (
        SELECT 1::TINYINT AS tiny, 2::SMALLINT AS small, 3 AS int, -9223372036854775808 AS big,
               18446744073709551615::UBIGINT AS ubig, sum(range) AS total,
               sum(range)::HUGEINT * 10000000000000000000 AS huge,
               1.50::DECIMAL(10, 2) AS price, 0.5::DOUBLE AS half, 'nan'::DOUBLE AS nan, true AS flag,
               'a,\"é\"' || chr(10) || '🦀' AS text, '\\xAB'::BLOB AS bytes,
               TIMESTAMP '2026-11-21 12:44:32.5' AS at, DATE '2026-11-21' AS day,
               TIME '10:00:00' AS clock, INTERVAL '14 months 3 days 1 hour' AS span,
               '00000000-0000-0000-0000-000000000001'::UUID AS id,
               'b'::ENUM('a', 'b') AS choice, '{\"a\":1}'::JSON AS doc,
               [1, NULL, 3] AS list, [1, 2]::INTEGER[2] AS pair,
               {'a': 1, 'b': {'c': 'x'}, 'd': [{'at': TIMESTAMP '2026-01-01'}]} AS nested,
               MAP {'k': 1.5, 'l': NULL} AS dict, MAP {1: 'x'} AS numbered,
               union_value(n := 1) AS either
        FROM range(100)
    ) UNION ALL BY NAME SELECT NULL AS tiny ORDER BY tiny NULLS LAST";

fn typed_values() -> Value {
    json!([
        1, 2, 3, i64::MIN, u64::MAX, 4950, "49500000000000000000000", "1.50", 0.5, null, true,
        "a,\"é\"\n🦀", "ab", "2026-11-21T12:44:32.500000Z", "2026-11-21", "10:00:00.000000",
        "1 year 2 months 3 days 01:00:00", "00000000-0000-0000-0000-000000000001", "b",
        "{\"a\":1}", [1, null, 3], [1, 2],
        {"a": 1, "b": {"c": "x"}, "d": [{"at": "2026-01-01T00:00:00.000000Z"}]},
        {"k": "1.5", "l": null}, {"1": "x"}, 1,
    ])
}

fn encode(fixture: &Fixture, sql: &str, format: Format) -> Vec<u8> {
    let mut stream = fixture.start(sql).unwrap();
    let mut encoder = Encoder::new(format, stream.schema()).unwrap();
    let mut bytes = Vec::new();
    while let Some(batch) = stream.blocking_next() {
        bytes.extend(encoder.batch(&batch.unwrap()).unwrap());
    }
    bytes.extend(encoder.finish().unwrap());
    bytes
}

#[test]
fn every_type_has_its_documented_json() {
    let fixture = Fixture::new();
    let rows = fixture.rows(TYPED);
    assert_eq!(rows[0], typed_values());
    assert!(rows[1].as_array().unwrap().iter().all(Value::is_null), "{}", rows[1]);
}

#[test]
fn all_formats_agree_on_a_typed_result() {
    let fixture = Fixture::new();
    let document: Value = serde_json::from_slice(&encode(&fixture, TYPED, Format::Json)).unwrap();
    let names: Vec<&str> = document["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    let lines = String::from_utf8(encode(&fixture, TYPED, Format::Ndjson)).unwrap();
    for (line, row) in lines.lines().zip(document["rows"].as_array().unwrap()) {
        let object: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        let from_lines: Vec<&Value> = names.iter().map(|name| &object[*name]).collect();
        assert_eq!(json!(from_lines), *row);
    }
    // Arrow and Parquet, read back and written as NDJSON, give the same lines.
    let arrow = encode(&fixture, TYPED, Format::Arrow);
    let reader = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
    let schema = reader.schema();
    let mut encoder = Encoder::new(Format::Ndjson, &schema).unwrap();
    let again: Vec<u8> = reader.flat_map(|batch| encoder.batch(&batch.unwrap()).unwrap()).collect();
    assert_eq!(String::from_utf8(again).unwrap(), lines);

    let parquet = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(parquet.path(), encode(&fixture, TYPED, Format::Parquet)).unwrap();
    let connection = duckdb::Connection::open_in_memory().unwrap();
    let path = parquet.path().display();
    let sql =
        format!("SELECT total, price, \"at\", text, nested.b.c, span FROM read_parquet('{path}')");
    let row: (i128, String, String) =
        connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(3)?, row.get(5)?))).unwrap();
    assert_eq!(row, (4950, "a,\"é\"\n🦀".into(), "1 year 2 months 3 days 01:00:00".into()));
}

#[test]
fn columns_are_named_with_duckdbs_types() {
    let fixture = Fixture::new();
    let document: Value = serde_json::from_slice(&encode(&fixture, TYPED, Format::Json)).unwrap();
    let types: Vec<&str> = document["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "TINYINT",
            "SMALLINT",
            "INTEGER",
            "BIGINT",
            "UBIGINT",
            "HUGEINT",
            "HUGEINT",
            "DECIMAL(10,2)",
            "DOUBLE",
            "DOUBLE",
            "BOOLEAN",
            "VARCHAR",
            "BLOB",
            "TIMESTAMP",
            "DATE",
            "TIME",
            "INTERVAL",
            "VARCHAR",
            "VARCHAR",
            "VARCHAR",
            "INTEGER[]",
            "INTEGER[2]",
            "STRUCT(a INTEGER, b STRUCT(c VARCHAR), d STRUCT(at TIMESTAMP)[])",
            "MAP(VARCHAR, DECIMAL(2,1))",
            "MAP(INTEGER, VARCHAR)",
            "UNION(n INTEGER)",
        ]
    );
}

#[test]
fn repeated_column_names_survive() {
    let fixture = Fixture::new();
    assert_eq!(fixture.rows("SELECT 1 AS a, 2 AS a"), [json!([1, 2])]);
    let lines = encode(&fixture, "SELECT 1 AS a, 2 AS a", Format::Ndjson);
    assert_eq!(String::from_utf8(lines).unwrap(), "{\"a\":1,\"a_1\":2}\n");
}

#[test]
fn a_result_without_rows_keeps_its_columns() {
    let fixture = Fixture::new();
    let mut stream = fixture.start("SELECT timestamp, date FROM events").unwrap();
    stream.blocking_ready().unwrap();
    let names: Vec<&String> = stream.schema().fields().iter().map(|field| field.name()).collect();
    assert_eq!(names, ["timestamp", "date"]);
    assert!(stream.blocking_next().is_none());
}

#[test]
fn parameters_are_bound_in_order() {
    let fixture = Fixture::new();
    let ask = |sql: &str, params: Value| {
        let params = serde_json::from_value(params).unwrap();
        fixture.rows_of(QueryRequest { params, ..QueryRequest::new(sql) }, no_events())
    };
    let row = ask("SELECT ?, ?, ?, ?, ?, ?", json!([1, 2.5, "x", true, null, u64::MAX]));
    assert_eq!(row, [json!([1, 2.5, "x", true, null, u64::MAX])]);
    assert_eq!(ask("SELECT $2, $1", json!(["a", "b"])), [json!(["b", "a"])]);
    let sql = "SELECT count(*) FROM events WHERE timestamp >= ? AND type = ? AND shard < ?";
    assert_eq!(ask(sql, json!(["2026-11-21T00:00:00Z", "track", 3])), [json!([0])]);
    assert_eq!(ask("SELECT * FROM range(?)", json!([2])).len(), 2);
}

#[test]
fn parameters_are_bound_by_name() {
    let fixture = Fixture::new();
    let ask = |sql: &str, params: &str| {
        let params = serde_json::from_str(params).unwrap();
        fixture.rows_of(QueryRequest { params, ..QueryRequest::new(sql) }, no_events())
    };
    let sql = "SELECT $b, $a, $B || 'z', $größe";
    let row = ask(sql, r#"{"a":1,"größe":null,"b":"x"}"#);
    assert_eq!(row, [json!(["x", 1, "xz", null])]);
    assert_eq!(ask("SELECT $2, $1", r#"{"1":"a","2":"b"}"#), [json!(["b", "a"])]);
    assert_eq!(ask("SELECT 1", "{}"), [json!([1])]);
    let sql = "SELECT count(*) FROM events WHERE timestamp >= $from AND type = $type";
    assert_eq!(ask(sql, r#"{"type":"track","FROM":"2026-11-21"}"#), [json!([0])]);
}

#[test]
fn wrong_parameters_are_errors_of_the_request() {
    let fixture = Fixture::new();
    for (sql, params) in [
        ("SELECT ?", json!([])),
        ("SELECT 1", json!([1])),
        ("SELECT ?", json!([[1]])),
        ("SELECT ?", json!([{"a": 1}])),
        ("SELECT CAST(? AS TIMESTAMP)", json!(["yesterday"])),
    ] {
        let params = serde_json::from_value(params).unwrap();
        let request = QueryRequest { params, ..QueryRequest::new(sql) };
        let result = fixture.pool.query(request, no_events()).and_then(read);
        assert!(matches!(result, Err(QueryError::Sql { .. })), "{sql}: {result:?}");
    }
}

#[test]
fn a_name_without_a_value_and_a_value_without_a_name_are_named() {
    let fixture = Fixture::new();
    for (sql, params, named) in [
        ("SELECT $here, $gone", json!({"here": 1}), "no value for the parameter $gone"),
        ("SELECT $here", json!({"here": 1, "more": 2}), "no parameter $more"),
        ("SELECT $here", json!([1]), "parameter $here has a name"),
        ("SELECT ?", json!({}), "parameter 1 of the statement has no name"),
        ("SELECT ?", json!({"here": 1}), "no parameter $here"),
        ("SELECT $here, ?", json!({"here": 1}), "Mixing"),
    ] {
        let params = serde_json::from_value(params).unwrap();
        let request = QueryRequest { params, ..QueryRequest::new(sql) };
        match fixture.pool.query(request, no_events()).and_then(read) {
            Err(QueryError::Sql { message, .. }) => {
                assert!(message.contains(named), "{sql}: {message}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    let twice = serde_json::from_str::<Params>(r#"{"here":1,"Here":2}"#).unwrap_err().to_string();
    assert!(twice.contains("the parameter Here is given twice"), "{twice}");
    assert!(serde_json::from_str::<Params>("7").is_err());
}

#[test]
fn binding_errors_name_their_position() {
    let fixture = Fixture::new();
    let sql = "SELECT type,\n  nope FROM events";
    match fixture.run(sql) {
        Err(QueryError::Sql { message, position }) => {
            assert!(message.starts_with("Binder Error: "), "{message}");
            assert!(!message.contains("LINE"), "{message}");
            assert_eq!(position, sql.find("nope"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_of_the_data_come_before_the_first_batch_when_they_can() {
    let fixture = Fixture::new();
    for sql in [
        "SELECT CAST(x AS INTEGER) FROM (VALUES ('1'), ('abc')) v(x)",
        "SELECT max(9223372036854775807::BIGINT + range) FROM range(3)",
        "SELECT error('mine')",
    ] {
        let error = match fixture.start(sql) {
            Ok(mut stream) => stream.blocking_ready().unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(error, QueryError::Sql { .. }), "{sql}: {error:?}");
    }
    assert_eq!(rows(&fixture.run("SELECT 1").unwrap()), 1, "the worker goes on");
}

#[test]
fn errors_of_later_data_end_the_stream_as_an_item() {
    let fixture = Fixture::new();
    // Rows of 2 kB fill DuckDB's result buffer long before the bad one.
    let sql = "SELECT repeat('x', 2000), \
               CASE WHEN range = 100000 THEN error('late') ELSE 'fine' END FROM range(110000)";
    let mut stream = fixture.start(sql).unwrap();
    stream.blocking_ready().unwrap();
    let items: Vec<_> = std::iter::from_fn(|| stream.blocking_next()).collect();
    let (last, before) = items.split_last().unwrap();
    assert!(!before.is_empty() && before.iter().all(Result::is_ok));
    assert!(matches!(last, Err(QueryError::Sql { message, .. }) if message.contains("late")));
}

#[test]
fn a_query_that_needs_too_much_memory_is_refused_as_such() {
    let limits =
        DuckDbConfig { memory_limit: "64MB".into(), temp_max: "1MB".into(), ..Default::default() };
    let fixture = Fixture::with(config(), &limits);
    let sql = "SELECT list(range ORDER BY hash(range)) FROM range(50000000)";
    match fixture.run(sql) {
        Err(QueryError::Sql { message, .. }) => {
            assert!(message.starts_with("Out of Memory Error"), "{message}");
            assert!(message.contains("`duckdb.memory`"), "{message}");
        }
        other => panic!("{:?}", other.map(|batches| rows(&batches))),
    }
    assert_eq!(rows(&fixture.run("SELECT 1").unwrap()), 1, "the worker goes on");
}

#[test]
fn types_that_cannot_be_read_are_errors_of_the_request() {
    let fixture = Fixture::new();
    let error = fixture.run("SELECT 1::VARIANT").unwrap_err();
    assert!(matches!(error, QueryError::Sql { .. }), "{error:?}");
}
