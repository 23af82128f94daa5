//! Any bytes as a segment, and damaged segments: no panic, nothing that was never written, and
//! everything that the damage left whole.

#![no_main]

use std::cell::RefCell;
use std::fs;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringlake_fuzz::log::{LOGS, Segment, damage, scratch};
use ringlake_log::{Item, SegmentReader};
use tempfile::TempDir;

thread_local! {
    static SCRATCH: RefCell<TempDir> = RefCell::new(scratch());
}

fuzz_target!(|bytes: &[u8]| {
    // Too few bytes are no damage.
    let _ = segment(&mut Unstructured::new(bytes));
});

fn segment(bytes: &mut Unstructured<'_>) -> Result<()> {
    let log = bytes.int_in_range(0..=LOGS.len())?;
    if log == LOGS.len() {
        let file = bytes.bytes(bytes.len())?;
        read(file, None);
        return Ok(());
    }
    let segment = bytes.choose(&LOGS[log].segments)?;
    let mut file = segment.bytes.clone();
    damage(&mut file, bytes)?;
    read(&file, Some(segment));
    Ok(())
}

/// Reads `file`, which was made of `segment`.
fn read(file: &[u8], segment: Option<&Segment>) {
    let path = SCRATCH.with_borrow(|scratch| scratch.path().join("segment.log"));
    fs::write(&path, file).unwrap();
    let Ok(mut reader) = SegmentReader::open(&path) else {
        assert!(!segment.is_some_and(|segment| segment.has_header(file)), "a whole header");
        return;
    };
    let mut found = Vec::new();
    let mut end = reader.position();
    while let Some(item) = reader.next_item().unwrap() {
        let start = match item {
            Item::Frame(frame) => {
                let written = segment.expect("made from nothing").written(&frame);
                let rows = i64::try_from(frame.batch().unwrap().num_rows()).unwrap();
                assert_eq!(rows, frame.last() - frame.first() + 1);
                found.push(written.first);
                reader.position() - frame.bytes()
            }
            Item::Damaged(range) | Item::TornTail(range) => {
                assert_eq!(range.end, reader.position());
                range.start
            }
        };
        assert_eq!(start, end, "no byte is passed over or read twice");
        assert!(reader.position() > end);
        end = reader.position();
    }
    let untouched = segment.into_iter().flat_map(|segment| segment.untouched(file));
    for frame in untouched {
        assert!(found.contains(&frame.first), "frame {} is whole and gone", frame.first);
    }
}
