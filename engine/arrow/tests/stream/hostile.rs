//! Streams that nobody writes by mistake.

use std::sync::Arc;

use arrow::array::{
    FixedSizeListArray, Int32Array, ListArray, NullArray, StringArray, StringDictionaryBuilder,
    StringViewArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::IpcWriteOptions;
use proptest::prelude::*;
use ringlake_event::ErrorKind;

use super::*;

/// A stream with most of what there is: texts, views, a dictionary, lists, nulls.
fn rich(codec: Option<CompressionType>) -> Vec<u8> {
    let mut coded = StringDictionaryBuilder::<Int32Type>::new();
    coded.extend([Some("one"), None, Some("two")]);
    let views = StringViewArray::from(vec![Some("short"), None, Some("too long to be in a view")]);
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]);
    let mut columns = vec![
        column("event", StringArray::from(vec!["a", "b", "c"])),
        column("url", coded.finish()),
        column("number", Int32Array::from(vec![1, 2, 3])),
        column("lists", lists),
        column("nothing", NullArray::new(3)),
    ];
    if codec.is_none() {
        columns.push(column("views", views));
    }
    let options = IpcWriteOptions::default().try_with_compression(codec).unwrap();
    stream_with(&batch(columns), options)
}

#[test]
fn a_stream_that_breaks_off_anywhere_is_refused_or_read() {
    let bytes = rich(None);
    for length in 0..bytes.len() - 8 {
        assert!(read(&bytes[..length], &BODY).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn damaged_streams_are_read_or_refused(
        packed in any::<bool>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = rich(packed.then_some(CompressionType::LZ4_FRAME));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes, &BODY);
    }

    #[test]
    fn any_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(&bytes, &BODY).is_err());
    }
}

#[test]
fn every_byte_at_its_extremes_is_read_or_refused() {
    let bytes = rich(None);
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            let _ = read(&damaged, &BODY);
        }
    }
}

#[test]
fn what_unpacks_to_more_than_it_may_is_refused_before() {
    let zeros = "0".repeat(3 << 20);
    let large = batch([column("event", StringArray::from(vec![zeros.as_str()]))]);
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let options = IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
        let bytes = stream_with(&large, options);
        assert!(bytes.len() < 100_000);
        assert_eq!(read(&bytes, &BODY).err().unwrap().kind, ErrorKind::TooLarge);
    }
}

#[test]
fn endless_lists_of_nothing_end_at_the_size_of_an_event() {
    let names = || column("event", StringArray::from(vec!["a"]));
    let nothing = || Arc::new(NullArray::new(i32::MAX as usize));
    let field = || Arc::new(Field::new("item", DataType::Null, true));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, i32::MAX]));
    for endless in [
        column("x", ListArray::new(field(), offsets, nothing(), None)),
        column("x", FixedSizeListArray::new(field(), i32::MAX, nothing(), None)),
    ] {
        let error = read(&stream([names(), endless]), &BODY).err().unwrap();
        assert_eq!((error.kind, error.index), (ErrorKind::TooLarge, Some(0)));
    }
}

#[test]
fn views_that_all_refer_to_the_same_bytes_are_counted() {
    let text = Buffer::from(vec![b'x'; 100_000]);
    // A length of 100,000, four bytes of the text, the first buffer, its start.
    let view = u128::from_le_bytes(*b"\xa0\x86\x01\0xxxx\0\0\0\0\0\0\0\0");
    let views = StringViewArray::new(ScalarBuffer::from(vec![view; 900]), vec![text], None);
    let bytes = stream([column("event", views)]);
    assert_eq!(read(&bytes, &BODY).err().unwrap().kind, ErrorKind::TooLarge);
}

#[test]
fn buffers_that_overlap_are_refused() {
    let bytes = stream([
        column("event", StringArray::from(vec!["sixteen bytes ok"; 64])),
        column("url", StringArray::from(vec!["sixteen of other"; 64])),
    ]);
    // In the head stands where each buffer lies and how long it is.
    let lengths = bytes.windows(8).enumerate();
    let lengths = lengths.filter(|(_, word)| **word == 1_024_u64.to_le_bytes());
    let [first, second, ..] = lengths.map(|(at, _)| at).collect::<Vec<_>>()[..] else {
        panic!("there are two buffers of that size")
    };
    assert!(read(&bytes, &BODY).is_ok());
    let mut shared = bytes.clone();
    shared.copy_within(first - 8..first, second - 8);
    shared[second..second + 8].copy_from_slice(&2_048_u64.to_le_bytes());
    let error = read(&shared, &BODY).err().unwrap();
    assert_eq!(error.kind, ErrorKind::NotArrow);
    assert!(error.message.contains("overlap"), "{error}");
}
