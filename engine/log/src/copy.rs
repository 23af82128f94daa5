//! Copies a shard's segments while its writer goes on.
//!
//! **Guarantees.** Every frame that was whole when the call began is in the copy, or its segment was
//! released meanwhile: then what released it has its rows. A copied segment ends with its last whole
//! frame; damage that was there before is copied as it is.
//!
//! **Roles.** It reads files that another process may write, rename and remove, and takes no lock.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::Error;
use super::reader::{Item, OpenError, SegmentReader};
use super::recover::{may_hold_frames, segment_paths};

/// A frame that is being written looks like damage until it is whole: what looks the same so often
/// in a row is damage.
const LOOKS: usize = 3;
/// Between two looks; a write takes less.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// Copies the segments in `directory` to the empty directory `to`, synced but for the names; gives
/// the bytes.
///
/// # Errors
/// When a file cannot be read or written, or another version wrote it.
pub fn copy_shard(directory: &Path, to: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for (_, path) in segment_paths(directory)? {
        let name = path.file_name().unwrap_or_default();
        bytes += copy_segment(&path, &to.join(name))?.unwrap_or(0);
    }
    Ok(bytes)
}

/// Copies one segment; none when it is not there any more, or holds nothing yet.
fn copy_segment(path: &Path, to: &Path) -> Result<Option<u64>, Error> {
    let Some(before) = about(path)? else { return Ok(None) };
    let Some(length) = length_of_frames(path)? else { return Ok(None) };
    let read = |source| Error::io("read the log segment", path)(source);
    let from = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(read)?,
    };
    let written = |source| Error::io("write the log segment", to)(source);
    let mut copy = File::create_new(to).map_err(written)?;
    io::copy(&mut from.take(length), &mut copy).and_then(|_| copy.sync_all()).map_err(written)?;
    // A released segment gets another name before anything is written over what it held.
    let is_same = about(path)?.is_some_and(|after| after.ino() == before.ino());
    if !is_same {
        fs::remove_file(to).map_err(written)?;
    }
    Ok(is_same.then_some(length))
}

fn about(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some).map_err(Error::io("read the log segment", path)),
    }
}

/// Where the last whole frame ends; none when the segment is gone or being created.
fn length_of_frames(path: &Path) -> Result<Option<u64>, Error> {
    let mut seen: Option<Seen> = None;
    for look in 1.. {
        let now = match look_at(path)? {
            Some(now) if now.damage.is_empty() => return Ok(Some(now.length)),
            Some(now) => now,
            None => return Ok(None),
        };
        if look >= LOOKS && seen.is_some_and(|before| before.damage == now.damage) {
            return Ok(Some(now.length));
        }
        seen = Some(now);
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Ok(None)
}

/// What one look at a segment has seen.
struct Seen {
    /// Where the last whole frame ends; the file's length when the header is damaged.
    length: u64,
    /// Stretches before that which are no frames.
    damage: Vec<Range<u64>>,
}

fn look_at(path: &Path) -> Result<Option<Seen>, Error> {
    let mut reader = match SegmentReader::open(path) {
        Ok(reader) => reader,
        Err(OpenError::Io(error)) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(OpenError::Io(error)) => return Err(Error::io("read the log segment", path)(error)),
        Err(OpenError::Version(version)) => {
            let problem = format!("is a log of format {version}, which this version cannot copy");
            return Err(Error::Format { path: path.to_owned(), problem });
        }
        Err(OpenError::Damaged(_)) => {
            let mut bytes = Vec::new();
            match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                read => read.map_err(Error::io("read the log segment", path))?,
            };
            let length = bytes.len() as u64;
            let damaged = Seen { length, damage: std::iter::once(0..length).collect() };
            return Ok(may_hold_frames(&bytes).then_some(damaged));
        }
    };
    let mut seen = Seen { length: reader.position(), damage: Vec::new() };
    while let Some(item) = reader.next_item().map_err(Error::io("read the log segment", path))? {
        match item {
            Item::Frame(_) => seen.length = reader.position(),
            Item::Damaged(stretch) => seen.damage.push(stretch),
            Item::TornTail(_) => {}
        }
    }
    Ok(Some(seen))
}
