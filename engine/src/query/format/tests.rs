//! Formats compared with each other on results of every type.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use ::arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
    Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, MapBuilder, RecordBatch,
    StringArray, StringBuilder, StructArray, TimestampMicrosecondArray, UInt64Array, UnionArray,
};
use ::arrow::array::{Int32Builder, Time64MicrosecondArray};
use ::arrow::datatypes::{
    DataType, Field, Int32Type, IntervalMonthDayNano, Schema, SchemaRef, UnionFields, UnionMode,
};
use ::arrow::ipc::reader::StreamReader;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::{Encoder, Format, unique_names};

fn encode(format: Format, schema: &SchemaRef, batches: &[RecordBatch]) -> Vec<u8> {
    let mut encoder = Encoder::new(format, schema).unwrap();
    let mut bytes = Vec::new();
    for batch in batches {
        bytes.extend(encoder.batch(batch).unwrap());
    }
    bytes.extend(encoder.finish().unwrap());
    bytes
}

fn encode_text(format: Format, batch: &RecordBatch) -> String {
    String::from_utf8(encode(format, &batch.schema(), std::slice::from_ref(batch))).unwrap()
}

fn named(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn huge(values: Vec<Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
}

/// Two rows, the second one null throughout.
fn typed() -> RecordBatch {
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.keys().append_value("k\"1");
    map.values().append_null();
    map.append(true).unwrap();
    map.append(false).unwrap();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let nested = StructArray::from(vec![(
        Arc::new(Field::new("a", DataType::Int32, true)),
        Arc::new(Int32Array::from(vec![Some(7), None])) as ArrayRef,
    )]);
    let interval = IntervalMonthDayNano::new(1, 2, 3_500_000_000);
    named(vec![
        ("int", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
        ("uint", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("double", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        ("nan", Arc::new(Float64Array::from(vec![Some(f64::NAN), None]))),
        ("sum", huge(vec![Some(i128::from(u64::MAX)), None], 38, 0)),
        ("huge", huge(vec![Some(i128::from(u64::MAX) + 1), None], 38, 0)),
        ("price", huge(vec![Some(-150), None], 10, 2)),
        ("text", Arc::new(StringArray::from(vec![Some("a,\"é\"\n🦀"), None]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None]))),
        ("day", Arc::new(Date32Array::from(vec![Some(1), None]))),
        ("clock", Arc::new(Time64MicrosecondArray::from(vec![Some(1), None]))),
        ("span", Arc::new(IntervalMonthDayNanoArray::from(vec![Some(interval), None]))),
        ("bytes", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff"), None]))),
        ("list", Arc::new(list)),
        ("nested", Arc::new(nested)),
        ("map", Arc::new(map.finish())),
    ])
}

fn typed_values() -> Value {
    json!([
        i64::MIN,
        u64::MAX,
        true,
        0.5,
        null,
        u64::MAX,
        "18446744073709551616",
        "-1.50",
        "a,\"é\"\n🦀",
        "1970-01-01T00:00:01.500000Z",
        "1970-01-02",
        "00:00:00.000001",
        "1 month 2 days 00:00:03.5",
        "00ff",
        [1, null],
        {"a": 7},
        {"k\"1": null},
    ])
}

#[test]
fn ndjson_writes_every_type_and_every_null() {
    let text = encode_text(Format::Ndjson, &typed());
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert!(text.ends_with('\n'));
    let names: Vec<String> = typed().schema().fields().iter().map(|f| f.name().clone()).collect();
    for (index, name) in names.iter().enumerate() {
        assert_eq!(rows[0][name], typed_values()[index], "{name}");
        assert!(rows[1].get(name).is_some(), "{name} is left out");
    }
    assert_eq!(rows[1]["nested"], json!({"a": null}));
    assert_eq!(rows[1]["int"], Value::Null);
}

#[test]
fn a_json_document_has_columns_rows_and_their_count() {
    let document: Value = serde_json::from_str(&encode_text(Format::Json, &typed())).unwrap();
    assert_eq!(document["rows"][0], typed_values());
    assert_eq!(document["row_count"], 2);
    assert_eq!(document["columns"][0], json!({"name": "int", "type": "BIGINT"}));
    assert_eq!(document["columns"][5], json!({"name": "sum", "type": "HUGEINT"}));
    assert_eq!(document["columns"][15]["type"], "STRUCT(a INTEGER)");
    assert_eq!(document["columns"][16]["type"], "MAP(VARCHAR, INTEGER)");
}

#[test]
fn csv_shows_the_text_of_json_and_leaves_nulls_empty() {
    let text = encode_text(Format::Csv, &typed());
    let rows = parse_csv(&text);
    assert_eq!(rows[0][0], "int");
    for (cell, value) in rows[1].iter().zip(typed_values().as_array().unwrap()) {
        let expected = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(*cell, expected);
    }
    assert_eq!(rows[2].iter().filter(|cell| cell.is_empty()).count(), 16);
}

/// Splits RFC 4180 text.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut characters = text.chars().peekable();
    let mut inside = false;
    while let Some(character) = characters.next() {
        let row = rows.last_mut().unwrap();
        match character {
            '"' if inside && characters.peek() == Some(&'"') => {
                row.last_mut().unwrap().push('"');
                characters.next();
            }
            '"' => inside = !inside,
            ',' if !inside => row.push(String::new()),
            '\r' if !inside => {}
            '\n' if !inside => rows.push(vec![String::new()]),
            other => row.last_mut().unwrap().push(other),
        }
    }
    rows.pop();
    rows
}

#[test]
fn csv_tells_null_from_empty_text_and_never_writes_an_empty_line() {
    let texts = StringArray::from(vec![Some(""), None]);
    let numbers = Int32Array::from(vec![1, 2]);
    let two = named(vec![("a", Arc::new(texts.clone())), ("b", Arc::new(numbers))]);
    assert_eq!(encode_text(Format::Csv, &two), "a,b\r\n\"\",1\r\n,2\r\n");
    let one = named(vec![("a", Arc::new(texts))]);
    assert_eq!(encode_text(Format::Csv, &one), "a\r\n\"\"\r\n\"\"\r\n");
}

#[test]
fn arrow_and_parquet_give_the_batches_back() {
    let batch = typed();
    let bytes = encode(Format::Arrow, &batch.schema(), &[batch.clone(), batch.clone()]);
    let read: Vec<RecordBatch> =
        StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, [batch.clone(), batch.clone()]);

    let bytes = encode(Format::Parquet, &batch.schema(), &[batch.clone(), batch.clone()]);
    let read = read_parquet(bytes);
    assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
    for (index, field) in batch.schema().fields().iter().enumerate() {
        let column = read[0].column(index).slice(0, 2);
        if field.name() == "span" {
            let texts = StringArray::from(vec![Some("1 month 2 days 00:00:03.5"), None]);
            assert_eq!(column.to_data(), texts.to_data());
        } else if field.name() != "nan" {
            assert_eq!(&column, batch.column(index), "{}", field.name());
        }
    }
}

fn read_parquet(bytes: Vec<u8>) -> Vec<RecordBatch> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    ParquetRecordBatchReaderBuilder::try_new(file.reopen().unwrap())
        .unwrap()
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

#[test]
fn parquet_gives_bytes_before_the_end() {
    let batch = named(vec![("a", Arc::new(Int64Array::from_iter_values(0..130_000)))]);
    let mut encoder = Encoder::new(Format::Parquet, &batch.schema()).unwrap();
    let mut bytes = encoder.batch(&batch).unwrap();
    assert!(!bytes.is_empty(), "the first row group stays in memory");
    bytes.extend(encoder.finish().unwrap());
    let rows: usize = read_parquet(bytes).iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 130_000);
}

#[test]
fn a_result_without_rows_is_a_document_in_every_format() {
    let schema: SchemaRef = typed().schema();
    let empty = RecordBatch::new_empty(Arc::clone(&schema));
    for batches in [&[][..], &[empty][..]] {
        assert!(encode(Format::Ndjson, &schema, batches).is_empty());
        let document: Value =
            serde_json::from_slice(&encode(Format::Json, &schema, batches)).unwrap();
        assert_eq!((&document["rows"], &document["row_count"]), (&json!([]), &json!(0)));
        let csv = String::from_utf8(encode(Format::Csv, &schema, batches)).unwrap();
        assert_eq!(csv.lines().count(), 1);
        let arrow = encode(Format::Arrow, &schema, batches);
        let reader = StreamReader::try_new(arrow.as_slice(), None).unwrap();
        assert_eq!(reader.schema(), schema);
        assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 0);
        assert!(read_parquet(encode(Format::Parquet, &schema, batches)).is_empty());
    }
}

#[test]
fn repeated_names_stay_apart() {
    let numbers = |value| Arc::new(Int32Array::from(vec![value])) as ArrayRef;
    let batch =
        named(vec![("a", numbers(1)), ("a", numbers(2)), ("a_1", numbers(3)), ("a", numbers(4))]);
    assert_eq!(unique_names(&batch.schema()), ["a", "a_2", "a_1", "a_3"]);
    assert_eq!(encode_text(Format::Ndjson, &batch), "{\"a\":1,\"a_2\":2,\"a_1\":3,\"a_3\":4}\n");
    let document: Value = serde_json::from_str(&encode_text(Format::Json, &batch)).unwrap();
    assert_eq!(document["rows"], json!([[1, 2, 3, 4]]));
    assert_eq!(encode_text(Format::Csv, &batch), "a,a,a_1,a\r\n1,2,3,4\r\n");
    let read = read_parquet(encode(Format::Parquet, &batch.schema(), &[batch]));
    assert_eq!(read[0].schema().field(1).name(), "a_2");
}

#[test]
fn a_union_is_the_value_of_its_active_member() {
    let fields = UnionFields::try_new(
        [0, 1],
        [Field::new("n", DataType::Int32, true), Field::new("t", DataType::Utf8, true)],
    )
    .unwrap();
    let members: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None])),
        Arc::new(StringArray::from(vec![None, Some("x,y")])),
    ];
    let ids = vec![0_i8, 1].into();
    let union = UnionArray::try_new(fields, ids, None, members).unwrap();
    assert!(matches!(union.data_type(), DataType::Union(_, UnionMode::Sparse)));
    let batch = named(vec![("u", Arc::new(union))]);
    assert_eq!(encode_text(Format::Ndjson, &batch), "{\"u\":1}\n{\"u\":\"x,y\"}\n");
    assert_eq!(encode_text(Format::Csv, &batch), "u\r\n1\r\n\"x,y\"\r\n");
    let read = read_parquet(encode(Format::Parquet, &batch.schema(), &[batch]));
    assert_eq!(read[0].column(0).to_data(), StringArray::from(vec!["1", "x,y"]).to_data());
}

#[test]
fn accept_headers_choose_by_quality_then_order() {
    for (accept, expected) in [
        ("", Some(Format::Ndjson)),
        ("*/*", Some(Format::Ndjson)),
        ("text/csv", Some(Format::Csv)),
        ("application/json, */*", Some(Format::Json)),
        ("text/html, application/xhtml+xml, */*;q=0.8", Some(Format::Ndjson)),
        ("text/csv;q=0.5, application/vnd.apache.arrow.stream", Some(Format::Arrow)),
        ("application/vnd.apache.parquet; q=1.0, text/csv", Some(Format::Parquet)),
        ("Application/JSON", Some(Format::Json)),
        ("text/csv;q=0", None),
        ("image/png", None),
    ] {
        assert_eq!(Format::from_accept(accept), expected, "{accept}");
    }
}

#[test]
fn every_content_type_chooses_its_format() {
    for format in Format::ALL {
        let media_type = format.content_type().split(';').next().unwrap();
        assert_eq!(Format::from_accept(media_type), Some(format));
    }
}
