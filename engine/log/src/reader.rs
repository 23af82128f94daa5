//! Reads one segment frame by frame, and finds its way past damage.
//!
//! **Memory.** One frame at a time, whatever the segment's length.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::error::ArrowError;

use super::format::{
    END_MARK, FRAME_HEADER, FRAME_MAGIC, FrameHeader, HeaderError, SEGMENT_PREFIX, SegmentHeader,
};

/// What is wrong with a file that is shorter than its header says.
const CUT_SHORT: &str = "ends inside its header";

/// How much is read at a time when looking for the next frame.
const SCAN_BYTES: usize = 1 << 20;

/// What comes next in a segment.
#[derive(Debug)]
pub enum Item {
    /// A frame whose checksum holds.
    Frame(Frame),
    /// Bytes that are no frame, with a valid frame after them.
    Damaged(Range<u64>),
    /// Bytes that are no frame, with nothing valid after them: what a crash leaves.
    TornTail(Range<u64>),
}

/// One intact frame.
#[derive(Debug)]
pub struct Frame {
    header: FrameHeader,
    body: Buffer,
    schema: arrow::datatypes::SchemaRef,
}

impl Frame {
    /// The first sequence number in it.
    #[must_use]
    pub fn first(&self) -> i64 {
        self.header.first
    }

    /// The last sequence number in it.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.header.last
    }

    /// Its length in the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (FRAME_HEADER + self.header.body_length) as u64
    }

    /// Its body as it lies in the file.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.as_slice()
    }

    /// Its rows, in the log's schema.
    ///
    /// # Errors
    /// When the bytes are what was written but arrow cannot read them.
    pub fn batch(&self) -> Result<RecordBatch, ArrowError> {
        self.header.batch(self.body.clone(), &self.schema)
    }
}

/// Why a segment cannot be opened for reading.
#[derive(Debug)]
pub enum OpenError {
    /// The file cannot be read.
    Io(io::Error),
    /// Its header is damaged; a verb phrase says how.
    Damaged(&'static str),
    /// Another version of ringlake wrote it.
    Version(u32),
}

/// A segment being read.
#[derive(Debug)]
pub struct SegmentReader {
    file: File,
    path: PathBuf,
    header: SegmentHeader,
    position: u64,
    length: u64,
}

impl SegmentReader {
    /// Opens the segment at `path` and reads its header.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = File::open(path).map_err(OpenError::Io)?;
        let length = file.metadata().map_err(OpenError::Io)?.len();
        let mut prefix = [0; SEGMENT_PREFIX];
        read_at(&file, &mut prefix, 0)?;
        let header_error = |error| match error {
            HeaderError::Damaged(problem) => OpenError::Damaged(problem),
            HeaderError::Version(version) => OpenError::Version(version),
        };
        let rest_length = SegmentHeader::rest_length(&prefix).map_err(header_error)?;
        // Before so much memory is asked for.
        if (SEGMENT_PREFIX + rest_length) as u64 > length {
            return Err(OpenError::Damaged(CUT_SHORT));
        }
        let mut rest = vec![0; rest_length];
        read_at(&file, &mut rest, SEGMENT_PREFIX as u64)?;
        let header = SegmentHeader::decode(&prefix, &rest).map_err(header_error)?;
        let position = (SEGMENT_PREFIX + rest.len()) as u64;
        Ok(Self { file, path: path.to_owned(), header, position, length })
    }

    /// What the segment says about itself.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next item starts, in bytes from the start of the file.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next frame or bad stretch, or `None` at the end of the frames: the end of the file, or an
    /// end mark with nothing valid behind it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        let start = self.position;
        if start >= self.length {
            return Ok(None);
        }
        if let Some(frame) = self.frame_at(start)? {
            self.position = start + (FRAME_HEADER + frame.header.body_length) as u64;
            return Ok(Some(Item::Frame(frame)));
        }
        match self.find_frame(start + 1)? {
            Some(next) => {
                self.position = next;
                Ok(Some(Item::Damaged(start..next)))
            }
            None if self.is_end_mark(start)? => {
                self.length = start;
                Ok(None)
            }
            None => {
                self.position = self.length;
                Ok(Some(Item::TornTail(start..self.length)))
            }
        }
    }

    /// Whether zeros stand where a frame's header would be; a mark may be cut short by the end of
    /// the file.
    fn is_end_mark(&self, at: u64) -> io::Result<bool> {
        let mut mark = [0; END_MARK];
        let left = usize::try_from(self.length - at).unwrap_or(usize::MAX);
        let mark = &mut mark[..END_MARK.min(left)];
        self.file.read_exact_at(mark, at)?;
        Ok(mark.iter().all(|byte| *byte == 0))
    }

    /// The intact frame that starts at `at`, if one does.
    fn frame_at(&self, at: u64) -> io::Result<Option<Frame>> {
        let mut bytes = [0; FRAME_HEADER];
        if at + (FRAME_HEADER as u64) > self.length {
            return Ok(None);
        }
        self.file.read_exact_at(&mut bytes, at)?;
        let Some(header) = FrameHeader::decode(&bytes) else { return Ok(None) };
        let body_at = at + FRAME_HEADER as u64;
        // Before the body is read: bytes that only look like a header must not cost more than that.
        let ours = header.shard == self.header.shard && header.stamp == self.header.stamp;
        if !ours || body_at + header.body_length as u64 > self.length {
            return Ok(None);
        }
        let mut body = MutableBuffer::from_len_zeroed(header.body_length);
        self.file.read_exact_at(body.as_slice_mut(), body_at)?;
        if !header.matches(&bytes, body.as_slice()) {
            return Ok(None);
        }
        let schema = self.header.schema.clone();
        Ok(Some(Frame { header, body: body.into(), schema }))
    }

    /// The start of the first intact frame at or after `from`.
    fn find_frame(&self, mut from: u64) -> io::Result<Option<u64>> {
        let left = usize::try_from(self.length.saturating_sub(from)).unwrap_or(usize::MAX);
        let mut window = vec![0; SCAN_BYTES.min(left)];
        while from + (FRAME_HEADER as u64) <= self.length {
            let left = usize::try_from(self.length - from).unwrap_or(usize::MAX);
            let window = &mut window[..SCAN_BYTES.min(left)];
            self.file.read_exact_at(window, from)?;
            for at in magic_positions(window) {
                if self.frame_at(from + at as u64)?.is_some() {
                    return Ok(Some(from + at as u64));
                }
            }
            // A magic may lie across the border of two windows.
            from += (window.len() - (FRAME_MAGIC.len() - 1)) as u64;
        }
        Ok(None)
    }
}

/// Where frames may start in `window`.
pub(super) fn magic_positions(window: &[u8]) -> impl Iterator<Item = usize> + '_ {
    window
        .windows(FRAME_MAGIC.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == FRAME_MAGIC)
        .map(|(at, _)| at)
}

fn read_at(file: &File, bytes: &mut [u8], at: u64) -> Result<(), OpenError> {
    file.read_exact_at(bytes, at).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => OpenError::Damaged(CUT_SHORT),
        _ => OpenError::Io(error),
    })
}
