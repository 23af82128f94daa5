//! The writing side of one shard's log.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use ringlake_disk::{Access, Disk, DiskFile};

use super::format::{END_MARK, FrameEncoder, SegmentHeader, readdress};
use super::{Error, SegmentFile, Void};

/// What every segment of a log says about itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The node that writes it, at most 16 bytes.
    pub node: String,
    /// The shard that it belongs to.
    pub shard: u32,
    /// The columns of its rows.
    pub schema: SchemaRef,
}

/// The log of one shard; see [`super`].
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    identity: Identity,
    segment_bytes: u64,
    encoder: FrameEncoder,
    frame: Vec<u8>,
    /// The segment that takes frames; `None` at first and after a failure.
    current: Option<Open>,
    next_segment: u64,
    /// Segments that take no more frames, oldest first.
    closed: VecDeque<SegmentFile>,
    /// Released segments whose blocks later ones take over, at most [`SPARES_MAX`].
    spares: Vec<PathBuf>,
    /// Segments below this number are removed when they are released, and their blocks not used
    /// again.
    retired_below: u64,
    voids: Vec<Void>,
}

#[derive(Debug)]
struct Open {
    file: Box<dyn DiskFile>,
    summary: SegmentFile,
    stamp: u64,
    has_frames: bool,
}

impl Open {
    /// It takes no more frames.
    fn closed(self) -> SegmentFile {
        let last = if self.has_frames { self.summary.last } else { EMPTY };
        SegmentFile { last, ..self.summary }
    }
}

impl Log {
    /// A log that goes on after `closed`, the segments that recovery kept. It writes nothing
    /// until the first batch, which opens a new segment.
    ///
    /// # Errors
    /// When arrow was built without LZ4.
    pub fn new(
        directory: PathBuf,
        disk: Arc<dyn Disk>,
        identity: Identity,
        segment_bytes: u64,
        closed: Vec<SegmentFile>,
        voids: Vec<Void>,
    ) -> Result<Self, Error> {
        let next_segment = closed.iter().map(|segment| segment.segment + 1).max().unwrap_or(1);
        let encoder = FrameEncoder::new()
            .map_err(|source| Error::Arrow { action: "set up the log's frames", source })?;
        Ok(Self {
            directory,
            disk,
            identity,
            segment_bytes,
            encoder,
            frame: Vec::new(),
            current: None,
            next_segment,
            closed: closed.into(),
            spares: Vec::new(),
            retired_below: 0,
            voids,
        })
    }

    /// Makes `batch`, whose rows are numbered from `first`, durable.
    ///
    /// # Errors
    /// When it could not be written and synced, not even in a second segment. Its numbers are
    /// void then: the caller goes on above them.
    pub fn append(&mut self, batch: &RecordBatch, first: i64) -> Result<(), Error> {
        let mut frame = std::mem::take(&mut self.frame);
        let encoded = self
            .encoder
            .encode(batch, self.identity.shard, 0, first, &mut frame)
            .map_err(|source| Error::Arrow { action: "encode a log frame", source });
        let last = first + i64::try_from(batch.num_rows()).unwrap_or(i64::MAX) - 1;
        let outcome = encoded.and_then(|()| match self.write(&mut frame, first, last) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!(
                    shard = self.identity.shard,
                    error = &error as &dyn std::error::Error,
                    "log segment given up; trying a new one"
                );
                self.write(&mut frame, first, last)
            }
        });
        self.frame = frame;
        outcome.inspect_err(|_| self.declare_void(first, last))
    }

    /// Opens a segment for the batch that will begin at `first` now, unless one is open. After a
    /// failure this tells whether the disk takes anything again, without risking a batch, and makes
    /// the void ranges durable.
    ///
    /// # Errors
    /// When the segment could not be written and synced.
    pub fn start_segment(&mut self, first: i64) -> Result<(), Error> {
        if self.current.is_none() {
            self.current = Some(self.open_segment(first)?);
        }
        Ok(())
    }

    /// Closes the open segment when every number in it is at most `sequence`, so that
    /// [`Log::release`] can let go of it before it is full. The next batch opens another one.
    pub fn close_released(&mut self, sequence: i64) {
        if self.current.as_ref().is_some_and(|open| open.summary.last <= sequence) {
            self.close_segment();
        }
    }

    /// Closes the open segment and takes care that no block of the segments that exist now is used
    /// again: [`Log::release`] removes them. The next batch, which begins at `first`, opens a new
    /// one.
    ///
    /// # Errors
    /// When a spare segment could not be removed, or no segment be started that keeps the void
    /// ranges; the same call may be repeated.
    pub fn retire(&mut self, first: i64) -> Result<(), Error> {
        self.remove_spares()?;
        self.close_segment();
        self.retired_below = self.next_segment;
        if self.voids.is_empty() { Ok(()) } else { self.start_segment(first) }
    }

    /// Whether segments from before the last [`Log::retire`] still exist.
    #[must_use]
    pub fn has_retired(&self) -> bool {
        self.closed.front().is_some_and(|oldest| oldest.segment < self.retired_below)
    }

    /// Gives the blocks of released segments back to the file system. True when there were any.
    ///
    /// # Errors
    /// When a file cannot be removed; it is tried again at the next call.
    pub fn remove_spares(&mut self) -> Result<bool, Error> {
        let any = !self.spares.is_empty();
        while let Some(spare) = self.spares.last() {
            self.disk.remove(spare).map_err(Error::io("remove the spare segment", spare))?;
            self.spares.pop();
        }
        Ok(any)
    }

    /// Bytes and number of the segments that exist.
    #[must_use]
    pub fn size(&self) -> (u64, usize) {
        let open = self.current.iter().map(|open| &open.summary);
        let all = self.closed.iter().chain(open);
        all.fold((0, 0), |(bytes, count), segment| (bytes + segment.bytes, count + 1))
    }

    /// Whether [`Log::release`] of `sequence` would delete anything.
    #[must_use]
    pub fn can_release(&self, sequence: i64) -> bool {
        // The newest segment stays when its header carries void ranges.
        let newest = self.closed.len() == 1 && self.current.is_none();
        let unneeded = !newest || self.voids.is_empty();
        unneeded && self.closed.front().is_some_and(|oldest| oldest.last <= sequence)
    }

    /// Lets go of every closed segment whose numbers are all at most `sequence`: they are in the
    /// lake. The caller makes sure that the Delta commit which says so has returned.
    ///
    /// # Errors
    /// When a file cannot be removed or renamed; it is tried again at the next call.
    pub fn release(&mut self, sequence: i64) -> Result<usize, Error> {
        let mut released = 0;
        while self.can_release(sequence) {
            let Some(oldest) = self.closed.front() else { break };
            let path = &oldest.path;
            // A segment that was closed early has too few blocks to be worth it.
            let has_blocks = oldest.bytes >= self.segment_bytes;
            let retired = oldest.segment < self.retired_below;
            if self.spares.len() < SPARES_MAX && has_blocks && !retired {
                let spare = path.with_extension(SPARE);
                self.disk
                    .rename(path, &spare)
                    .map_err(Error::io("rename the log segment", path))?;
                self.spares.push(spare);
            } else {
                self.disk.remove(path).map_err(Error::io("remove the log segment", path))?;
            }
            self.closed.pop_front();
            released += 1;
        }
        Ok(released)
    }

    /// The numbers that will never exist.
    #[must_use]
    pub fn voids(&self) -> &[Void] {
        &self.voids
    }

    fn write(&mut self, frame: &mut Vec<u8>, first: i64, last: i64) -> Result<(), Error> {
        let segment_bytes = self.segment_bytes;
        if self.current.as_ref().is_some_and(|open| open.summary.bytes >= segment_bytes) {
            self.close_segment();
        }
        let mut open = match self.current.take() {
            Some(open) => open,
            None => self.open_segment(first)?,
        };
        readdress(frame, open.stamp);
        let length = frame.len();
        frame.resize(length + END_MARK, 0);
        let written = open.file.write_at(frame, open.summary.bytes).and_then(|()| open.file.sync());
        frame.truncate(length);
        match written {
            Ok(()) => {
                open.summary.bytes += frame.len() as u64;
                open.summary.last = last;
                open.has_frames = true;
                self.current = Some(open);
                Ok(())
            }
            Err(source) => {
                // Best effort: a frame whose waiters are told "not stored" should not come back
                // at the next start. Recovery drops a repeated number either way.
                if let Err(error) = open.file.truncate(open.summary.bytes) {
                    tracing::warn!(path = %open.summary.path.display(), %error, "cannot cut a failed frame off");
                }
                let path = open.summary.path.clone();
                self.closed.push_back(open.closed());
                Err(Error::Io { action: "write to the log segment", path, source })
            }
        }
    }

    fn close_segment(&mut self) {
        if let Some(open) = self.current.take() {
            self.closed.push_back(open.closed());
        }
    }

    fn open_segment(&mut self, first: i64) -> Result<Open, Error> {
        let segment = self.next_segment;
        let path = segment_path(&self.directory, segment);
        // The number is used up whatever happens: a half-made file keeps its name.
        self.next_segment += 1;
        let stamp = random();
        let header = SegmentHeader {
            node: self.identity.node.clone(),
            shard: self.identity.shard,
            segment,
            stamp,
            first_sequence: first,
            voids: self.voids.clone(),
            schema: Arc::clone(&self.identity.schema),
        }
        .encode();
        let spare = self.spares.pop();
        match self.make_segment(&path, spare.as_deref(), header.clone()) {
            Ok(file) => {
                let bytes = header.len() as u64;
                let summary = SegmentFile { path, segment, last: first - 1, bytes };
                Ok(Open { file, summary, stamp, has_frames: false })
            }
            Err(source) => {
                // Nothing is in it; recovery removes what stays behind if this fails too.
                for half_made in spare.iter().chain([&path]) {
                    let _ = self.disk.remove(half_made);
                }
                Err(Error::Io { action: "start the log segment", path, source })
            }
        }
    }

    /// A file of the name `path` that holds `header` and nothing else that is valid, durably.
    fn make_segment(
        &self,
        path: &Path,
        spare: Option<&Path>,
        mut header: Vec<u8>,
    ) -> io::Result<Box<dyn DiskFile>> {
        header.resize(header.len() + END_MARK, 0);
        let mut file = match spare {
            Some(spare) => {
                // Its old name must be gone for good before its old header is: a power cut would
                // else leave a segment whose name and header disagree.
                self.disk.sync_directory(&self.directory)?;
                self.disk.reopen(spare, Access::Direct)?
            }
            None => self.disk.create(path, Access::Direct)?,
        };
        file.write_at(&header, 0)?;
        file.sync()?;
        if let Some(spare) = spare {
            self.disk.rename(spare, path)?;
        }
        self.disk.sync_directory(&self.directory)?;
        Ok(file)
    }

    fn declare_void(&mut self, first: i64, last: i64) {
        // Adjacent ranges are merged, so that a disk that stays full costs one entry.
        match self.voids.last_mut() {
            Some(void) if *void.end() + 1 == first => *void = *void.start()..=last,
            _ => self.voids.push(first..=last),
        }
    }
}

/// A roll releases a handful of segments at once, and as many are filled until the next one.
const SPARES_MAX: usize = 4;

/// The highest number of a segment without frames: numbers that are void may stand between it and
/// those that the lake holds.
pub(super) const EMPTY: i64 = 0;

/// The extension of a released segment that waits to be recycled.
pub(super) const SPARE: &str = "spare";

/// A number that cannot be foretold: the standard library keys its hashers from the system's random
/// numbers.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The file of segment number `segment`; the zeros make a directory listing sort by number.
pub(super) fn segment_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:020}.log"))
}
