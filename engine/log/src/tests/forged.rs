//! Frames that a client wrote.
//!
//! Small frames lie in the file as they are, and the texts of events in them as they were sent,
//! zero bytes included. So a client can send an event whose text is a frame, with a checksum that
//! holds. It comes to light where the reader looks for a frame behind bytes that are none: in a torn
//! tail, and behind the end of every recycled segment. When frames carried their segment's number,
//! which is easily guessed, a start took such a text for rows, with whatever numbers it claimed.

use super::*;

/// A number that leaves no room for anybody else's.
const CLAIMED: i64 = 0x7F7F_7F7F_7F7F_7F7F;

/// The frame of one row for the segment with this stamp.
fn forge(stamp: u64, body: [u8; 8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(b"RFRM\0\0\0\0");
    // Length of the body and of the message in it, rows, shard.
    for number in [8_u32, 8, 1, 0] {
        frame.extend_from_slice(&number.to_le_bytes());
    }
    frame.extend_from_slice(&stamp.to_le_bytes());
    frame.extend_from_slice(&CLAIMED.to_le_bytes());
    frame.extend_from_slice(&CLAIMED.to_le_bytes());
    frame.extend_from_slice(&body);
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// A frame for segment number `segment` that is text, as far as its stamp can be guessed.
fn forged_text(segment: u64) -> String {
    let tries = (0_u32..)
        .map(|number| forge(segment, *format!("{number:08}").as_bytes().first_chunk().unwrap()));
    let texts = tries.filter_map(|frame| String::from_utf8(frame).ok());
    texts.into_iter().next().unwrap()
}

/// The highest number that a start finds, and the rows that it reads.
fn start(directory: &Path) -> (i64, Vec<i64>) {
    let found =
        recover(0, 0, directory, &directory.join("quarantine"), &RealDisk, &mut |_| ()).unwrap();
    (found.last, rows(directory).into_iter().map(|row| row.0).collect())
}

/// A segment with one good row and a torn frame whose text is a frame. Tells where that text is.
fn torn_with_a_frame_in_it(directory: &Path) -> (PathBuf, usize) {
    let mut log = open(directory, Arc::new(RealDisk), 1 << 20);
    log.append(&numbered(1, 1), 1).unwrap();
    let text = forged_text(1);
    log.append(&batch(std::slice::from_ref(&text)), 2).unwrap();
    let path = segments(directory).remove(0);
    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    fs::write(&path, &bytes[..at + text.len()]).unwrap();
    (path, at)
}

#[test]
fn a_text_that_is_a_frame_does_not_come_out_of_a_torn_one() {
    let scratch = tempfile::tempdir().unwrap();
    torn_with_a_frame_in_it(scratch.path());
    assert_eq!(start(scratch.path()), (1, vec![1]));
}

/// Else the other tests would show nothing.
#[test]
fn only_the_stamp_gives_such_a_text_away() {
    let scratch = tempfile::tempdir().unwrap();
    let (path, at) = torn_with_a_frame_in_it(scratch.path());
    let stamp = SegmentReader::open(&path).unwrap().header().stamp;
    let mut bytes = fs::read(&path).unwrap();
    let forged = forge(stamp, *b"anything");
    bytes[at..at + forged.len()].copy_from_slice(&forged);
    fs::write(&path, bytes).unwrap();
    let found =
        recover(0, 0, scratch.path(), &scratch.path().join("quarantine"), &RealDisk, &mut |_| ())
            .unwrap();
    assert_eq!(found.last, CLAIMED);
}

#[test]
fn a_text_that_is_a_frame_does_not_come_out_of_a_recycled_segment() {
    let scratch = tempfile::tempdir().unwrap();
    let mut log = open(scratch.path(), Arc::new(RealDisk), 1);
    // Each batch gets a segment of its own, the third one the blocks of the first.
    let text = format!("{}{}", "x".repeat(10_000), forged_text(3));
    log.append(&batch(&[text]), 1).unwrap();
    log.append(&numbered(2, 1), 2).unwrap();
    assert_eq!(log.release(1).unwrap(), 1);
    log.append(&numbered(3, 1), 3).unwrap();
    let recycled = fs::read(&segments(scratch.path())[1]).unwrap();
    assert!(recycled.len() > 10_000, "the old frame is still there");
    drop(log);
    assert_eq!(start(scratch.path()), (3, vec![2, 3]));
}

#[test]
fn two_segments_have_different_stamps_also_under_the_same_number() {
    let mut stamps = std::collections::HashSet::new();
    for _ in 0..2 {
        let scratch = tempfile::tempdir().unwrap();
        let mut log = open(scratch.path(), Arc::new(RealDisk), 1);
        for number in 1..=50 {
            log.append(&numbered(number, 1), number).unwrap();
        }
        for path in segments(scratch.path()) {
            stamps.insert(SegmentReader::open(&path).unwrap().header().stamp);
        }
    }
    assert_eq!(stamps.len(), 100);
}
