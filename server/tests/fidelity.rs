//! The five formats of a result say the same, value by value: each is read by a decoder that is not
//! ours and compared with the others. And a result of any size passes through bounded memory.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::io::{BufRead, Read};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, UInt64Type};
use arrow::ipc::reader::StreamReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};
use support::{Connection, PATIENCE, Server};

mod support;

/// Values at the ends of their types, in three rows of which the last is all null.
const SQL: &str = "
    SELECT row, row = 1 AS flag,
        [-9223372036854775808, 9223372036854775807][row] AS big,
        [0::UBIGINT, 18446744073709551615][row] AS ubig,
        [sum(row) OVER (), '-170141183460469231731687303715884105728'::HUGEINT][row] AS huge,
        ['0.01'::DECIMAL(10, 2), '-99999999.99'][row] AS price,
        ['1234567890123456789012345.123456789'::DECIMAL(38, 9), '-0.000000001'][row] AS wide,
        [0.1::DOUBLE, -1.7976931348623157e308][row] AS real,
        [TIMESTAMP '1969-12-31 23:59:59.999999', '9999-12-31 23:59:59.999999'][row] AS at,
        [TIMESTAMP_NS '2026-11-22 01:02:03.123456789', NULL][row] AS nanos,
        [DATE '1582-10-15', '2400-02-29'][row] AS day,
        ['00000000-0000-0000-0000-000000000000'::UUID, 'ffffffff-ffff-ffff-ffff-ffffffffffff'][row]
            AS id,
        ['', 'a,\"b\"' || chr(13) || chr(10) || '\\ Grüße 🦀' || chr(9) || chr(1)][row] AS text,
        [''::BLOB, '\\x00\\xFF'::BLOB][row] AS bytes,
        [[1, NULL, 3], []][row] AS list,
        [[['x', ''], NULL], [[]]][row] AS lists,
        [{'a': 1, 'b': {'c': 'ü', 'at': TIMESTAMP '2026-01-01'}},
         {'a': NULL, 'b': {'c': NULL, 'at': NULL}}][row] AS nested,
        [MAP {'k': [1.50], 'l': NULL}, MAP {}][row] AS dict
    FROM (SELECT range::INTEGER AS row FROM range(1, 4)) ORDER BY row";

fn ask(server: &Server, accept: &str) -> Vec<u8> {
    let headers = [("Accept", accept)];
    let answer = server.connect().request("POST", "/v1/query", &headers, SQL.as_bytes());
    assert!(answer.status == 200 && answer.complete, "{}", answer.text());
    answer.body
}

fn joined(batches: impl Iterator<Item = RecordBatch>) -> RecordBatch {
    let batches: Vec<RecordBatch> = batches.collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// What the documentation of the formats says that a value is in JSON.
fn json_of(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let all = |array: &dyn Array| (0..array.len()).map(|row| json_of(array, row)).collect();
    let as_text = |array: &dyn Array| {
        let text = cast(array, &DataType::Utf8).unwrap();
        text.as_string::<i32>().value(row).to_owned()
    };
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int32 | DataType::Int64 => {
            let wide = cast(array, &DataType::Int64).unwrap();
            wide.as_primitive::<Int64Type>().value(row).into()
        }
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Decimal128(38, 0) => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            i64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from)
        }
        DataType::Decimal128(..) => {
            array.as_primitive::<Decimal128Type>().value_as_string(row).into()
        }
        DataType::Timestamp(unit, _) => {
            let digits = if *unit == arrow::datatypes::TimeUnit::Nanosecond { 9 } else { 6 };
            let text = as_text(array);
            let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
            format!("{whole}.{rest:0<digits$}Z").into()
        }
        DataType::Date32 => as_text(array).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Binary => {
            let bytes = array.as_binary::<i32>().value(row);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
        }
        DataType::List(_) => Value::Array(all(&array.as_list::<i32>().value(row))),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let member = |(field, column): (&arrow::datatypes::FieldRef, _)| {
                let column: &std::sync::Arc<dyn Array> = column;
                (field.name().clone(), json_of(column, row))
            };
            Value::Object(fields.iter().zip(columns).map(member).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let keys = entries.column(0).as_string::<i32>();
            let pair = |at: usize| (keys.value(at).to_owned(), json_of(entries.column(1), at));
            Value::Object((0..entries.len()).map(pair).collect())
        }
        other => panic!("{other} is not in the question"),
    }
}

fn rows_of(batch: &RecordBatch) -> Vec<Vec<Value>> {
    let row = |row| batch.columns().iter().map(|column| json_of(column, row)).collect();
    (0..batch.num_rows()).map(row).collect()
}

/// The fields of a CSV document after RFC 4180, line by line; none for one that is empty and has no
/// quotes.
fn csv_of(text: &str) -> Vec<Vec<Option<String>>> {
    let (mut lines, mut line) = (Vec::new(), Vec::new());
    let mut rest = text;
    while !rest.is_empty() {
        let field;
        (field, rest) = match rest.strip_prefix('"') {
            Some(mut quoted) => {
                let mut content = String::new();
                loop {
                    let (part, behind) = quoted.split_once('"').unwrap();
                    content.push_str(part);
                    quoted = behind;
                    let Some(more) = quoted.strip_prefix('"') else { break };
                    content.push('"');
                    quoted = more;
                }
                (Some(content), quoted)
            }
            None => {
                let end = rest.find([',', '\r']).unwrap();
                (Some(rest[..end].to_owned()).filter(|text| !text.is_empty()), &rest[end..])
            }
        };
        line.push(field);
        if let Some(more) = rest.strip_prefix(',') {
            rest = more;
        } else {
            rest = rest.strip_prefix("\r\n").unwrap();
            lines.push(std::mem::take(&mut line));
        }
    }
    lines
}

#[test]
fn all_five_formats_say_the_same_of_every_value() {
    let server = Server::start();
    let document: Value = serde_json::from_slice(&ask(&server, "application/json")).unwrap();
    let names: Vec<&str> = document["columns"].as_array().unwrap().iter().map(name_of).collect();
    let rows: Vec<Vec<Value>> = serde_json::from_value(document["rows"].clone()).unwrap();
    assert_eq!((rows.len(), names.len()), (3, 18));
    // Some of it in full, so that not all can be wrong in the same way.
    for (row, name, expected) in [
        (0, "big", json!(i64::MIN)),
        (1, "big", json!(i64::MAX)),
        (1, "ubig", json!(u64::MAX)),
        (0, "huge", json!(6)),
        (1, "huge", json!("-170141183460469231731687303715884105728")),
        (1, "price", json!("-99999999.99")),
        (0, "wide", json!("1234567890123456789012345.123456789")),
        (0, "at", json!("1969-12-31T23:59:59.999999Z")),
        (0, "nanos", json!("2026-11-22T01:02:03.123456789Z")),
        (1, "day", json!("2400-02-29")),
        (1, "id", json!("ffffffff-ffff-ffff-ffff-ffffffffffff")),
        (0, "text", json!("")),
        (1, "text", json!("a,\"b\"\r\n\\ Grüße 🦀\t\u{1}")),
        (1, "bytes", json!("00ff")),
        (0, "lists", json!([["x", ""], null])),
        (0, "nested", json!({"a": 1, "b": {"c": "ü", "at": "2026-01-01T00:00:00.000000Z"}})),
        (0, "dict", json!({"k": ["1.50"], "l": null})),
    ] {
        let column = names.iter().position(|known| *known == name).unwrap();
        assert_eq!(rows[row][column], expected, "{name}");
    }
    assert!(rows[2][2..].iter().all(Value::is_null), "{:?}", rows[2]);

    let lines = String::from_utf8(ask(&server, "application/x-ndjson")).unwrap();
    for (line, row) in lines.lines().zip(&rows) {
        let object: Map<String, Value> = serde_json::from_str(line).unwrap();
        let expected = names.iter().map(|name| (*name).to_owned()).zip(row.clone()).collect();
        assert_eq!(object, expected);
    }
    assert_eq!(lines.lines().count(), 3);

    let text = String::from_utf8(ask(&server, "text/csv")).unwrap();
    let csv = csv_of(&text);
    assert_eq!(csv[0].iter().map(|name| name.as_deref().unwrap()).collect::<Vec<_>>(), names);
    for (fields, row) in csv[1..].iter().zip(&rows) {
        for ((field, value), name) in fields.iter().zip(row).zip(&names) {
            let same = match (field, value) {
                (None, Value::Null) => true,
                (Some(field), Value::String(text)) => field == text,
                (Some(field), value) => serde_json::from_str::<Value>(field).unwrap() == *value,
                (None, _) => false,
            };
            assert!(same, "{name}: {field:?} in CSV, {value} in JSON");
        }
        assert_eq!(fields.len(), row.len());
    }
    assert_eq!(csv.len(), 4);

    let arrow = ask(&server, "application/vnd.apache.arrow.stream");
    let arrow = joined(StreamReader::try_new(&arrow[..], None).unwrap().map(Result::unwrap));
    assert_eq!(rows_of(&arrow), rows, "Arrow");
    let parquet = bytes::Bytes::from(ask(&server, "application/vnd.apache.parquet"));
    let parquet = ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap().build().unwrap();
    let parquet = joined(parquet.map(Result::unwrap));
    assert_eq!(rows_of(&parquet), rows, "Parquet");
}

fn name_of(column: &Value) -> &str {
    column["name"].as_str().unwrap()
}

/// Reads a chunked answer to its end and keeps nothing of it; gives its length.
fn drained(connection: &mut Connection) -> u64 {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        connection.stream.read_line(&mut line).unwrap();
    }
    let (mut total, mut sink) = (0, std::io::sink());
    loop {
        line.clear();
        connection.stream.read_line(&mut line).unwrap();
        let size = u64::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = connection.stream.by_ref().take(size + 2);
        assert_eq!(std::io::copy(&mut chunk, &mut sink).unwrap(), size + 2);
        if size == 0 {
            return total;
        }
        total += size;
    }
}

/// The bound is that of the requirements; what a result takes must not depend on its length.
#[test]
fn ten_million_rows_pass_through_300_megabytes() {
    let server = Server::start();
    let sql = "SELECT range AS n, 'some text ' || range AS t, range / 7 AS r FROM range(10000000)";
    for accept in ["application/vnd.apache.arrow.stream", "text/csv"] {
        let mut connection = server.connect();
        connection.ask("POST", "/v1/query", &[("Accept", accept)], sql.as_bytes());
        let bytes = drained(&mut connection);
        let peak = server.peak_memory();
        eprintln!("{accept}: {bytes} bytes, {peak} resident at most");
        assert!(bytes > 300_000_000, "{bytes}");
        assert!(peak < 300 << 20, "{peak} bytes resident");
    }
}

/// Nobody asks for it, and no thread of the server has to do anything for it.
#[test]
fn what_a_query_took_goes_back_to_the_system() {
    let server = Server::start();
    let idle = server.resident_memory();
    let sql = b"SELECT count(*) FROM (SELECT DISTINCT 'some text ' || range FROM range(3000000))";
    assert_eq!(server.connect().request("POST", "/v1/query", &[], sql).status, 200);
    let taken = server.peak_memory() - idle;
    assert!(taken > 100 << 20, "{taken} bytes");
    let began = Instant::now();
    loop {
        let kept = server.resident_memory().saturating_sub(idle);
        if kept < taken / 5 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{kept} of {taken} bytes are still there");
        std::thread::sleep(Duration::from_millis(100));
    }
}
