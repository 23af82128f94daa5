//! What each kind of column becomes.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DurationSecondArray,
    Float64Array, Int32Array, Int64Array, Int64Builder, LargeStringArray, ListArray, MapBuilder,
    NullArray, StringArray, StringBuilder, StringDictionaryBuilder, StringViewArray, StructArray,
    Time32SecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::{DataType, Field, Int16Type, Int32Type, Schema};
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use ringlake_arrow::{DEPTH_MAX, FIELDS_MAX};
use ringlake_event::ErrorKind;
use serde_json::{Value, json};

use super::*;

fn properties(bytes: &[u8]) -> Vec<Value> {
    let outcome = read(bytes, &BODY).unwrap();
    let texts = outcome.events().into_iter().map(|event| event.properties.unwrap_or("null"));
    texts.map(|text| serde_json::from_str(text).unwrap()).collect()
}

fn names() -> (String, ArrayRef) {
    column("event", StringArray::from(vec!["a", "b"]))
}

fn refusal(columns: Vec<(String, ArrayRef)>) -> DecodeError {
    read(&stream(columns), &BODY).err().unwrap()
}

#[test]
fn texts_of_every_kind_are_columns_of_the_table() {
    let mut coded = StringDictionaryBuilder::<Int16Type>::new();
    coded.extend([Some("https://x/1"), None]);
    let bytes = stream([
        column("name", StringArray::from(vec!["a", "b"])),
        column("type", LargeStringArray::from(vec![Some("page"), Some("")])),
        column(
            "userId",
            StringViewArray::from(vec![Some("u1"), Some("a user longer than a view")]),
        ),
        column("url", coded.finish()),
        column("session_id", NullArray::new(2)),
        column("tenant", StringArray::from(vec![Some("shop"), None])),
    ]);
    let outcome = read(&bytes, &BODY).unwrap();
    let events = outcome.events();
    let [first, second] = events[..] else { panic!("{events:?}") };
    assert_eq!((first.event, first.kind, first.user_id), (Some("a"), "page", Some("u1")));
    assert_eq!((first.url, first.session_id, first.tenant), (Some("https://x/1"), None, "shop"));
    let longer = Some("a user longer than a view");
    assert_eq!((second.event, second.kind, second.user_id), (Some("b"), "track", longer));
    assert_eq!((second.url, second.tenant, second.properties), (None, "default", None));
    assert_eq!(second.timestamp, REQUEST.received_at);
}

#[test]
fn times_of_every_kind_are_read() {
    let micros = 1_795_286_693_848_000;
    let columns: [ArrayRef; 6] = [
        Arc::new(
            TimestampMillisecondArray::from(vec![micros / 1_000]).with_timezone("Europe/Oslo"),
        ),
        Arc::new(TimestampNanosecondArray::from(vec![micros * 1_000 + 999])),
        Arc::new(Int64Array::from(vec![micros / 1_000])),
        Arc::new(Float64Array::from(vec![1_795_286_693.848])),
        Arc::new(StringArray::from(vec!["2026-11-21T18:44:53.848Z"])),
        Arc::new(Date32Array::from(vec![20_778])),
    ];
    for (place, times) in columns.into_iter().enumerate() {
        let bytes =
            stream([column("type", StringArray::from(vec!["track"])), ("timestamp".into(), times)]);
        let expected = if place == 5 { 20_778 * 86_400_000_000 } else { micros };
        assert_eq!(read(&bytes, &BODY).unwrap().events()[0].timestamp, expected, "{place}");
    }
    // As in JSON, both clocks correct the time.
    let bytes = stream([
        column("type", StringArray::from(vec!["track"])),
        column("original_timestamp", Int64Array::from(vec![1_700_000_000])),
        column("sent_at", Int64Array::from(vec![1_700_000_005])),
    ]);
    let event_time = read(&bytes, &BODY).unwrap().events()[0].timestamp;
    assert_eq!(event_time, REQUEST.received_at - 5_000_000);
}

#[test]
fn other_columns_are_members_of_properties() {
    let numbers = Int32Array::from(vec![Some(1), Some(2)]);
    let place = StructArray::from(vec![
        (Arc::new(Field::new("x", DataType::Int32, true)), Arc::new(numbers) as ArrayRef),
        (Arc::new(Field::new("none", DataType::Null, true)), Arc::new(NullArray::new(2))),
    ]);
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None]), None]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(7);
    map.append(true).unwrap();
    map.append(true).unwrap();
    let bytes = stream([
        names(),
        column("sequence", Int64Array::from(vec![5, -6])),
        column("ip", StringArray::from(vec![Some("10.0.0.1\n"), None])),
        column("place", place),
        column("lists", lists),
        column("map", map.finish()),
        column("fine", BooleanArray::from(vec![true, false])),
        column("share", Float64Array::from(vec![0.5, f64::NAN])),
        column("bytes", BinaryArray::from(vec![&b"\x00\xff"[..], b""])),
        column(
            "price",
            Decimal128Array::from(vec![1250, -5]).with_precision_and_scale(10, 2).unwrap(),
        ),
        column("day", Date32Array::from(vec![0, 20_778])),
        column("at", Time32SecondArray::from(vec![3_661, -1])),
        column("when", TimestampNanosecondArray::from(vec![1_500_000_000, 0])),
        column("nothing", NullArray::new(2)),
    ]);
    let expected = [
        json!({"sequence":5,"ip":"10.0.0.1\n","place":{"x":1,"none":null},"lists":[1,null],
            "map":{"k":7},"fine":true,"share":0.5,"bytes":"00ff","price":"12.50",
            "day":"1970-01-01","at":"01:01:01","when":"1970-01-01T00:00:01.500Z"}),
        json!({"sequence":-6,"place":{"x":2,"none":null},"map":{},"fine":false,"share":"NaN",
            "bytes":"","price":"-0.05","day":"2026-11-21","at":-1,"when":"1970-01-01T00:00:00Z"}),
    ];
    assert_eq!(properties(&bytes), expected);
}

#[test]
fn properties_may_be_text_or_structure_and_other_columns_join_them() {
    let texts = StringArray::from(vec![Some(r#" {"a":{"b":[1]}} "#), Some("{ }")]);
    let bytes = stream([
        names(),
        column("properties", texts),
        column("x", Int32Array::from(vec![Some(1), Some(2)])),
    ]);
    assert_eq!(properties(&bytes), [json!({"a":{"b":[1]},"x":1}), json!({"x":2})]);
    let inner = Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef;
    let structure =
        StructArray::from(vec![(Arc::new(Field::new("a", DataType::Int32, true)), inner)]);
    let bytes = stream([
        names(),
        column("properties", structure.clone()),
        column("context", structure),
        column("x", Int32Array::from(vec![None, Some(2)])),
    ]);
    assert_eq!(properties(&bytes), [json!({"a":1}), json!({"a":2,"x":2})]);
    let outcome = read(&bytes, &BODY).unwrap();
    assert_eq!(outcome.events()[1].context, Some(r#"{"a":2}"#));
}

#[test]
fn columns_of_the_wrong_type_refuse_the_request_and_are_named() {
    for (name, array) in [
        ("user_id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
        ("timestamp", Arc::new(BooleanArray::from(vec![true, true]))),
        ("properties", Arc::new(Int64Array::from(vec![1, 2]))),
        ("length", Arc::new(DurationSecondArray::from(vec![1, 2]))),
    ] {
        let error = refusal(vec![names(), (name.into(), array)]);
        assert_eq!((error.kind, error.index), (ErrorKind::Type, None), "{error}");
        assert!(error.message.contains(&format!("`{name}`")), "{error}");
    }
    let error = refusal(vec![names(), column("name", StringArray::from(vec!["c", "d"]))]);
    assert_eq!(error.kind, ErrorKind::Duplicate, "{error}");
    let x = || column("x", Int32Array::from(vec![1, 2]));
    assert_eq!(refusal(vec![names(), x(), x()]).kind, ErrorKind::Type);
    let deep = (0..DEPTH_MAX).fold(x().1, |inner, _| {
        let field = Arc::new(Field::new("x", inner.data_type().clone(), true));
        Arc::new(StructArray::from(vec![(field, inner)]))
    });
    let error = refusal(vec![names(), ("deep".into(), deep)]);
    assert_eq!(error.kind, ErrorKind::Type, "{error}");
    let many = (0..=FIELDS_MAX).map(|place| column(&format!("x{place}"), NullArray::new(2)));
    assert_eq!(refusal(many.collect()).kind, ErrorKind::Type);
}

#[test]
fn compressed_buffers_several_batches_and_files_are_read() {
    let texts: Vec<String> = (0..500).map(|number| format!("event {number}")).collect();
    let whole = batch([column("event", StringArray::from(texts))]);
    for codec in [arrow::ipc::CompressionType::LZ4_FRAME, arrow::ipc::CompressionType::ZSTD] {
        let options = IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
        let outcome = read(&stream_with(&whole, options), &BODY).unwrap();
        assert_eq!(outcome.events()[499].event, Some("event 499"));
    }
    let mut writer = StreamWriter::try_new(Vec::new(), whole.schema_ref()).unwrap();
    writer.write(&whole).unwrap();
    writer.write(&whole.slice(0, 0)).unwrap();
    writer.write(&whole.slice(100, 200)).unwrap();
    let two = writer.into_inner().unwrap();
    assert_eq!(read(&two, &BODY).unwrap().events()[699].event, Some("event 299"));
    // A stream may end without saying so, but nothing may follow when it has.
    assert_eq!(read(&two[..two.len() - 8], &BODY).unwrap().events().len(), 700);
    let error = read(&[&two[..], &two].concat(), &BODY).err().unwrap();
    assert_eq!(error.kind, ErrorKind::NotArrow, "{error}");
    let mut file = FileWriter::try_new(Vec::new(), whole.schema_ref()).unwrap();
    file.write(&whole).unwrap();
    let file = file.into_inner().unwrap();
    assert_eq!(read(&file, &BODY).unwrap().events().len(), 500);
}

#[test]
fn a_stream_without_rows_or_without_anything_is_refused() {
    let empty = Schema::new(vec![Field::new("event", DataType::Utf8, true)]);
    let bytes = StreamWriter::try_new(Vec::new(), &empty).unwrap().into_inner().unwrap();
    assert_eq!(read(&bytes, &BODY).err().unwrap().kind, ErrorKind::Empty);
    for bytes in [&b""[..], b"{\"event\":\"a\"}", b"\xff\xff\xff\xff\0\0\0\0"] {
        assert_eq!(read(bytes, &BODY).err().unwrap().kind, ErrorKind::NotArrow, "{bytes:?}");
    }
}
