//! Damaged logs: what was written, what was done to it, and what may come back.
//!
//! The logs to be damaged are few and always the same, so that an input is damage and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use ringlake_disk::RealDisk;
use ringlake_log::{Frame, Identity, Item, Log, SegmentReader};
use tempfile::TempDir;

pub const SHARD: u32 = 0;

/// More damage than this leaves nothing to check.
const EDITS_MAX: usize = 8;

/// A frame as it was written.
pub struct Written {
    pub first: i64,
    pub last: i64,
    pub body: Vec<u8>,
    /// Header and body.
    pub bytes: Vec<u8>,
}

/// A segment file as it was written.
pub struct Segment {
    pub name: String,
    pub bytes: Vec<u8>,
    pub header_length: usize,
    pub frames: Vec<Written>,
}

/// One shard's directory.
pub struct Directory {
    pub segments: Vec<Segment>,
}

/// A directory in memory where there is one: recovery syncs all the time.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn identity() -> Identity {
    let schema = Schema::new(vec![Field::new("text", DataType::Utf8, false)]);
    Identity { node: "0123456789ab".into(), shard: SHARD, schema: Arc::new(schema) }
}

pub fn batch(texts: &[String]) -> RecordBatch {
    let schema: SchemaRef = identity().schema;
    let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    RecordBatch::try_new(schema, vec![column]).unwrap()
}

/// The logs that are damaged.
pub static LOGS: LazyLock<Vec<Directory>> = LazyLock::new(|| {
    let short = |frame: usize| vec![format!("row {frame}"); frame];
    let long = |_| vec!["a row that does not compress to nothing ".repeat(100); 40];
    // Texts that are frames of the segment that they lie in, of the next one, and of none.
    let forged = |frame: usize| vec![forged_text(frame as u64); 2];
    vec![
        // One segment of small frames.
        write(1 << 20, 5, None, short),
        // Compressed ones.
        write(1 << 20, 2, None, long),
        // A segment a frame, the last ones in the blocks of the first ones.
        write(1, 6, Some(3), |frame| if frame == 1 { long(1) } else { forged(frame) }),
        // Many frames in two segments.
        write(4_000, 12, None, short),
    ]
});

/// Writes `frames` frames, numbered from 1, and releases those before `released` half-way.
fn write(
    segment_bytes: u64,
    frames: usize,
    released: Option<i64>,
    texts: impl Fn(usize) -> Vec<String>,
) -> Directory {
    let scratch = scratch();
    let directory = scratch.path().to_owned();
    let disk = Arc::new(RealDisk);
    let mut log = Log::new(directory, disk, identity(), segment_bytes, vec![], vec![]).unwrap();
    let mut next = 1;
    for frame in 1..=frames {
        let batch = batch(&texts(frame));
        log.append(&batch, next).unwrap();
        next += i64::try_from(batch.num_rows()).unwrap();
        if let Some(released) = released
            && frame == frames / 2
        {
            log.release(released).unwrap();
        }
    }
    drop(log);
    Directory { segments: paths(scratch.path()).iter().map(|path| read(path)).collect() }
}

/// The segments of a directory, oldest first.
pub fn paths(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|found| found == "log")).collect();
    paths.sort();
    paths
}

/// Takes down what is in an undamaged segment.
fn read(path: &Path) -> Segment {
    let bytes = fs::read(path).unwrap();
    let mut reader = SegmentReader::open(path).unwrap();
    let header_length = usize::try_from(reader.position()).unwrap();
    let mut frames = Vec::new();
    let mut start = header_length;
    while let Some(item) = reader.next_item().unwrap() {
        let Item::Frame(frame) = item else { panic!("an undamaged segment") };
        let end = usize::try_from(reader.position()).unwrap();
        let body = frame.body().to_vec();
        let bytes = bytes[start..end].to_vec();
        frames.push(Written { first: frame.first(), last: frame.last(), body, bytes });
        start = end;
    }
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    Segment { name, bytes, header_length, frames }
}

/// A text that would be a frame of the segment whose stamp is `stamp`.
fn forged_text(stamp: u64) -> String {
    let frame = |number: u32| {
        let mut frame = b"RFRM\0\0\0\0".to_vec();
        for number in [8_u32, 8, 1, SHARD] {
            frame.extend_from_slice(&number.to_le_bytes());
        }
        for number in [stamp, 77, 77] {
            frame.extend_from_slice(&number.to_le_bytes());
        }
        frame.extend_from_slice(format!("{number:08}").as_bytes());
        let crc = crc32c::crc32c(&frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        String::from_utf8(frame).ok()
    };
    (0..).find_map(frame).unwrap()
}

impl Segment {
    /// Whether `file` still says what the segment is.
    pub fn has_header(&self, file: &[u8]) -> bool {
        file.starts_with(&self.bytes[..self.header_length])
    }

    /// The frames whose bytes are all in `file`.
    pub fn untouched<'a>(&'a self, file: &'a [u8]) -> impl Iterator<Item = &'a Written> {
        self.frames.iter().filter(|frame| contains(file, &frame.bytes))
    }

    /// The frame that `found` is.
    ///
    /// # Panics
    ///
    /// When it is none of this segment's.
    pub fn written(&self, found: &Frame) -> &Written {
        let same = |frame: &&Written| {
            (frame.first, frame.last, frame.body.as_slice())
                == (found.first(), found.last(), found.body())
        };
        self.frames.iter().find(same).expect("a frame that was never written")
    }
}

pub fn contains(file: &[u8], part: &[u8]) -> bool {
    let mut rest = file;
    while let Some(at) = rest.iter().position(|byte| *byte == part[0]) {
        rest = &rest[at..];
        if rest.starts_with(part) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// Changes `file` in a few places. It is never more than twice as long as before.
pub fn damage(file: &mut Vec<u8>, bytes: &mut Unstructured<'_>) -> Result<()> {
    let longest = 2 * file.len();
    for _ in 0..bytes.int_in_range(0..=EDITS_MAX)? {
        let at = place(file.len(), bytes)?;
        let end = at + place(file.len() - at, bytes)?;
        match bytes.int_in_range(0..=7)? {
            0 => file.truncate(at),
            1 => file[at..end].fill(0),
            2 => drop(file.drain(at..end)),
            3 => {
                let copy = file[at..end].to_vec();
                let to = place(file.len(), bytes)?;
                file.splice(to..to, copy);
            }
            4 => {
                let part: [u8; 8] = bytes.arbitrary()?;
                file.splice(at..at, part);
            }
            5 => file.resize(file.len() + (end - at), 0),
            _ => {
                let part: [u8; 4] = bytes.arbitrary()?;
                for (byte, new) in file[at..].iter_mut().zip(part) {
                    *byte = new;
                }
            }
        }
        file.truncate(longest);
    }
    Ok(())
}

/// A place from 0 to `length`, often a multiple of 8 as everything in a log is.
fn place(length: usize, bytes: &mut Unstructured<'_>) -> Result<usize> {
    let place = bytes.int_in_range(0..=length)?;
    Ok(if bytes.arbitrary()? { place / 8 * 8 } else { place })
}
