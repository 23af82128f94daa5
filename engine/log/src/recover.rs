//! What a start makes of the segments it finds.
//!
//! **Guarantees.** Torn tails are cut, damaged bytes are copied to
//! `quarantine/` with a report, every kept segment and its directory is synced: whatever is
//! replayed afterwards survives a power cut, also what an earlier process could not sync. Recovery
//! never refuses because of damage, only because a file cannot be read or written, or because another
//! version wrote it.
//!
//! A number that was in a frame is not given out again, whatever became of the frame: quarantine tells
//! which ones it has. Frames that have vanished from the end of a segment, or with a whole one between
//! two others, are missed because the next segment says where it began.
//!
//! **Not guaranteed.** A damaged last frame of the last segment cannot be told from one that a crash
//! has cut short: it is cut off, and its numbers are given out again. Nor is it noticed here when the
//! oldest or the newest segment vanishes as a whole.
//!
//! **Memory.** One frame at a time, and a damaged segment or stretch as a whole; a summary a segment.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ringlake_disk::{Access, Disk};

use super::format::FrameHeader;
use super::quarantine::{Quarantined, numbers_of, set_aside};
use super::reader::{Item, OpenError, SegmentReader, magic_positions};
use super::writer::{EMPTY, SPARE};
use super::{Error, FrameVisitor, Void};

const BETWEEN_FRAMES: &str = "damaged bytes between two valid frames";
const AT_THE_END: &str = "damaged bytes at the end of a segment that is not the last one";
const MISSING: &str = "frames are missing between the last one of a segment and the next segment";

/// A segment that takes no more frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its file.
    pub path: PathBuf,
    /// Its number.
    pub segment: u64,
    /// The highest sequence number in it; below its first one, or 0, when it is empty.
    pub last: i64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What recovery found in one shard's directory.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The segments kept, oldest first.
    pub segments: Vec<SegmentFile>,
    /// Every void range that the newest header knows.
    pub voids: Vec<Void>,
    /// The highest number in any frame, void range or report in quarantine; 0 when there is none.
    pub last: i64,
    /// Bytes cut off as torn tails.
    pub torn_bytes: u64,
    /// Bad stretches set aside.
    pub quarantined: Vec<Quarantined>,
}

/// The shards that have a directory under `log`, in order.
///
/// # Errors
/// When the directory cannot be read.
pub fn shard_directories(log: &Path) -> Result<Vec<(u32, PathBuf)>, Error> {
    let mut shards = Vec::new();
    if !log.exists() {
        return Ok(shards);
    }
    for entry in fs::read_dir(log).map_err(Error::io("list", log))? {
        let entry = entry.map_err(Error::io("list", log))?;
        if let Some(shard) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            shards.push((shard, entry.path()));
        }
    }
    shards.sort_unstable();
    Ok(shards)
}

/// The node that wrote what is under `log`, by the newest header of any shard that is intact; `None` when
/// there is none.
///
/// # Errors
/// When a directory or a file cannot be read, or another version wrote it.
pub fn node_of(log: &Path) -> Result<Option<String>, Error> {
    for (_, directory) in shard_directories(log)? {
        for (_, path) in segment_paths(&directory)?.iter().rev() {
            if let Ok(reader) = open(path)? {
                return Ok(Some(reader.header().node.clone()));
            }
        }
    }
    Ok(None)
}

/// The length of all segments in a shard's directory; for estimates.
#[must_use]
pub fn bytes_in(directory: &Path) -> u64 {
    let segments = segment_paths(directory).unwrap_or_default();
    segments.iter().map(|(_, path)| length(path)).sum()
}

fn length(segment: &Path) -> u64 {
    fs::metadata(segment).map_or(0, |about| about.len())
}

/// The segment files of a shard's directory, oldest first.
pub(super) fn segment_paths(directory: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let path = entry.map_err(Error::io("list", directory))?.path();
        let number =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|ext| ext.to_str()))
        {
            segments.push((number, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Makes one shard's directory sound; see the module's guarantees. Numbers up to `stored` are in the
/// table, and not missed where they are in no frame. `checked` is told the length that each segment had,
/// once it is sound.
///
/// # Errors
/// When a file cannot be read or written, or another version wrote it.
pub fn recover(
    shard: u32,
    stored: i64,
    directory: &Path,
    quarantine: &Path,
    disk: &dyn Disk,
    checked: &mut dyn FnMut(u64),
) -> Result<Recovered, Error> {
    remove_spares(directory, disk)?;
    let aside = numbers_of(quarantine, shard)?;
    let highest_aside = aside.iter().map(|numbers| *numbers.end()).max().unwrap_or(0);
    let found = Recovered::default();
    let mut recovery = Recovery { shard, stored, quarantine, disk, aside, found };
    let paths = segment_paths(directory)?;
    for (index, (segment, path)) in paths.iter().enumerate() {
        let bytes = length(path);
        recovery.segment(*segment, path, paths.get(index + 1))?;
        checked(bytes);
    }
    let mut found = recovery.found;
    if let Some(void) = found.voids.iter().map(RangeInclusive::end).max() {
        found.last = found.last.max(*void);
    }
    found.last = found.last.max(highest_aside);
    disk.sync_directory(directory).map_err(Error::io("sync", directory))?;
    Ok(found)
}

/// Nothing valid is in a spare, and this start numbers its segments anew.
fn remove_spares(directory: &Path, disk: &dyn Disk) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let path = entry.map_err(Error::io("list", directory))?.path();
        if path.extension().is_some_and(|extension| extension == SPARE) {
            disk.remove(&path).map_err(Error::io("remove the spare segment", &path))?;
        }
    }
    Ok(())
}

impl Recovered {
    fn note_header(&mut self, reader: &SegmentReader) {
        // Headers carry every void range so far: the newest one knows them all.
        if reader.header().voids.len() >= self.voids.len() {
            self.voids.clone_from(&reader.header().voids);
        }
    }
}

/// The reader of the segment at `path`, or what is wrong with its header.
fn open(path: &Path) -> Result<Result<SegmentReader, &'static str>, Error> {
    match SegmentReader::open(path) {
        Ok(reader) => Ok(Ok(reader)),
        Err(OpenError::Damaged(problem)) => Ok(Err(problem)),
        Err(OpenError::Io(source)) => {
            Err(Error::Io { action: "read the log segment", path: path.into(), source })
        }
        Err(OpenError::Version(version)) => {
            let ours = super::format::VERSION;
            let problem = format!("is a log of format {version}; this version reads format {ours}");
            Err(Error::Format { path: path.into(), problem })
        }
    }
}

/// A recovery under way.
struct Recovery<'a> {
    shard: u32,
    /// The table holds everything up to this number.
    stored: i64,
    quarantine: &'a Path,
    disk: &'a dyn Disk,
    /// What earlier starts have set aside.
    aside: Vec<RangeInclusive<i64>>,
    found: Recovered,
}

impl Recovery<'_> {
    /// Makes the segment number `segment` sound, which `next` follows.
    fn segment(
        &mut self,
        segment: u64,
        path: &Path,
        next: Option<&(u64, PathBuf)>,
    ) -> Result<(), Error> {
        let mut reader = match open(path)? {
            Ok(reader) => reader,
            Err(problem) => return self.set_segment_aside(path, problem),
        };
        self.found.note_header(&reader);
        let mut last = reader.header().first_sequence - 1;
        let mut end = reader.position();
        let mut last_frame = end..end;
        let (mut damage, mut is_torn) = (None, false);
        while let Some(item) =
            reader.next_item().map_err(Error::io("read the log segment", path))?
        {
            match item {
                Item::Frame(frame) => {
                    if let Some(range) = damage.take() {
                        let lost = (self.found.last.max(last) + 1, frame.first() - 1);
                        self.set_stretch_aside(segment, path, &range, lost, BETWEEN_FRAMES)?;
                    }
                    last = last.max(frame.last());
                    self.found.last = self.found.last.max(last);
                    end = reader.position();
                    last_frame = end - frame.bytes()..end;
                }
                Item::Damaged(range) => damage = Some(range),
                Item::TornTail(range) => {
                    self.tail(segment, path, &range, last, next)?;
                    end = range.start;
                    is_torn = true;
                }
            }
        }
        if !is_torn && let Some(lost) = self.lost_before(next, last)? {
            let rest = end..length(path).max(end);
            self.set_stretch_aside(segment, path, &rest, lost, MISSING)?;
        }
        // The sync of the last frame may have failed before the crash. The page cache then takes the
        // frame for written, and a sync would do nothing about it unless it is written again.
        let frame = read_range(path, &last_frame)?;
        self.disk
            .reopen(path, Access::Cached)
            .and_then(|mut file| {
                file.write_at(&frame, last_frame.start)?;
                file.truncate(end)
            })
            .map_err(Error::io("cut and sync the log segment", path))?;
        let last = if frame.is_empty() { EMPTY } else { last };
        self.found.segments.push(SegmentFile { path: path.into(), segment, last, bytes: end });
        Ok(())
    }

    /// Bytes that nothing valid follows are what a crash leaves, unless the next segment begins above
    /// numbers that should be here.
    fn tail(
        &mut self,
        segment: u64,
        path: &Path,
        range: &Range<u64>,
        last: i64,
        next: Option<&(u64, PathBuf)>,
    ) -> Result<(), Error> {
        if let Some(lost) = self.lost_before(next, last)? {
            return self.set_stretch_aside(segment, path, range, lost, AT_THE_END);
        }
        let bytes = range.end - range.start;
        tracing::warn!(path = %path.display(), bytes, "torn tail cut off");
        self.found.torn_bytes += bytes;
        Ok(())
    }

    /// The numbers between `last`, the highest one of a segment, and the segment `next`, without those that
    /// the table holds; nothing when each of the others is void or told of by a report.
    fn lost_before(
        &mut self,
        next: Option<&(u64, PathBuf)>,
        last: i64,
    ) -> Result<Option<(i64, i64)>, Error> {
        let Some((_, next)) = next else { return Ok(None) };
        let Ok(next) = open(next)? else { return Ok(None) };
        // It knows the void ranges up to its own beginning.
        self.found.note_header(&next);
        let lost =
            (self.found.last.max(last).max(self.stored) + 1, next.header().first_sequence - 1);
        let explained = |number| {
            let mut known = self.found.voids.iter().chain(&self.aside);
            known.any(|numbers| numbers.contains(&number))
        };
        Ok((lost.0..=lost.1).any(|number| !explained(number)).then_some(lost))
    }

    /// The bytes in `range` are none, and the numbers `lost` are gone with them.
    fn set_stretch_aside(
        &mut self,
        segment: u64,
        path: &Path,
        range: &Range<u64>,
        lost: (i64, i64),
        reason: &str,
    ) -> Result<(), Error> {
        let bytes = read_range(path, range)?;
        let stem = format!("log-{}-{segment}-{}", self.shard, range.start);
        let name = name_for(self.quarantine, &stem, &bytes);
        // The bytes may stay in the segment: an earlier start has met them too.
        if self.quarantine.join(&name).with_extension("json").exists() {
            return Ok(());
        }
        let report = Quarantined {
            shard: self.shard,
            sequences: (lost.0 <= lost.1).then_some(lost),
            origin: format!("{}:{}", path.display(), range.start),
            reason: reason.into(),
            bytes: range.end - range.start,
        };
        set_aside(self.disk, self.quarantine, &name, &bytes, &report)?;
        self.found.quarantined.push(report);
        Ok(())
    }

    /// A segment whose header is bad: nothing in it can be trusted to belong where it says.
    fn set_segment_aside(&mut self, path: &Path, problem: &str) -> Result<(), Error> {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("segment");
        let bytes = fs::read(path).map_err(Error::io("read the log segment", path))?;
        if may_hold_frames(&bytes) {
            let lost = numbers_in(&bytes, self.shard).map(|(first, last)| {
                // Where its first frames are unreadable, the segment before tells where it began.
                (if self.found.last > 0 { first.min(self.found.last + 1) } else { first }, last)
            });
            self.found.last = self.found.last.max(lost.map_or(0, |(_, last)| last));
            let report = Quarantined {
                shard: self.shard,
                sequences: lost,
                origin: path.display().to_string(),
                reason: problem.into(),
                bytes: bytes.len() as u64,
            };
            let name = name_for(self.quarantine, &format!("log-{}-{name}", self.shard), &bytes);
            set_aside(self.disk, self.quarantine, &name, &bytes, &report)?;
            self.found.quarantined.push(report);
        } else {
            tracing::warn!(path = %path.display(), "removed a log segment that was never finished");
        }
        self.disk.remove(path).map_err(Error::io("remove the log segment", path))
    }
}

/// Whether frames may be in the segment with these bytes, whose header is bad. A crash while a
/// segment is being created leaves a file without a whole header, of any length: no frame can be in
/// it, because the header is synced before the first one is written.
pub(super) fn may_hold_frames(bytes: &[u8]) -> bool {
    magic_positions(bytes).next().is_some()
}

/// The lowest and the highest number in a segment of `shard` with these bytes, whose header is bad.
/// Frames of what the segment's blocks held before are not its own: the first intact one tells which are.
/// What a client has sent is inside of frames, and those are passed over whole.
fn numbers_in(bytes: &[u8], shard: u32) -> Option<(i64, i64)> {
    let (mut stamp, mut numbers, mut end) = (None, None, 0);
    for at in magic_positions(bytes) {
        if at < end {
            continue;
        }
        let Some((frame, frame_end)) = FrameHeader::of_intact(bytes, at) else { continue };
        if frame.shard != shard || *stamp.get_or_insert(frame.stamp) != frame.stamp {
            continue;
        }
        end = frame_end;
        let (first, last) = numbers.unwrap_or((frame.first, frame.last));
        numbers = Some((first.min(frame.first), last.max(frame.last)));
    }
    numbers
}

/// A name in quarantine that no other piece has: segment numbers may begin again, and then damage
/// may come back to the same place. A piece that is already there keeps its name.
fn name_for(quarantine: &Path, stem: &str, bytes: &[u8]) -> String {
    let mut name = format!("{stem}.bin");
    for number in 2_u32.. {
        match fs::read(quarantine.join(&name)) {
            Ok(other) if other != bytes => name = format!("{stem}-{number}.bin"),
            _ => break,
        }
    }
    name
}

/// Calls `visit` with each intact frame of a shard's directory, oldest first. It changes nothing,
/// so that it may run beside a server: a segment that vanishes meanwhile was released.
///
/// # Errors
/// When a file cannot be read, or what `visit` returns.
pub fn scan<E: From<Error>>(
    directory: &Path,
    visit: &mut FrameVisitor<'_, E>,
) -> Result<Recovered, E> {
    let mut found = Recovered::default();
    for (segment, path) in segment_paths(directory)? {
        let mut reader = match open(&path) {
            Ok(Ok(reader)) => reader,
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
            Ok(Err(problem)) => {
                let bytes = fs::read(&path).map_err(Error::io("read the log segment", &path))?;
                // Else a running server may be creating it.
                if may_hold_frames(&bytes) {
                    let directory = directory.file_name().and_then(|name| name.to_str());
                    found.quarantined.push(Quarantined {
                        shard: directory.and_then(|name| name.parse().ok()).unwrap_or(0),
                        sequences: None,
                        origin: path.display().to_string(),
                        reason: problem.into(),
                        bytes: bytes.len() as u64,
                    });
                }
                continue;
            }
        };
        found.note_header(&reader);
        let mut summary = SegmentFile {
            path: path.clone(),
            segment,
            last: reader.header().first_sequence - 1,
            bytes: reader.position(),
        };
        while let Some(item) =
            reader.next_item().map_err(Error::io("read the log segment", &path))?
        {
            match item {
                Item::Frame(frame) => {
                    summary.last = summary.last.max(frame.last());
                    summary.bytes = reader.position();
                    found.last = found.last.max(frame.last());
                    visit(&frame)?;
                }
                Item::Damaged(range) => found.quarantined.push(Quarantined {
                    shard: reader.header().shard,
                    sequences: None,
                    origin: format!("{}:{}", path.display(), range.start),
                    reason: BETWEEN_FRAMES.into(),
                    bytes: range.end - range.start,
                }),
                Item::TornTail(range) => found.torn_bytes += range.end - range.start,
            }
        }
        found.segments.push(summary);
    }
    Ok(found)
}

fn read_range(path: &Path, range: &Range<u64>) -> Result<Vec<u8>, Error> {
    let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut bytes, range.start))
        .map_err(Error::io("read the log segment", path))?;
    Ok(bytes)
}
