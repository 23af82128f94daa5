//! The bytes of segment headers and frames; see the layout in [`super`].

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::convert::try_schema_from_flatbuffer_bytes;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow::ipc::{CompressionType, MetadataVersion, root_as_message};

use super::Void;
const SEGMENT_MAGIC: [u8; 8] = *b"ringlog\0";
/// Version of the layout; a reader refuses any other one.
pub(super) const VERSION: u32 = 2;
/// Magic, version, CRC and length.
pub(super) const SEGMENT_PREFIX: usize = 24;
/// A header longer than this is damage: the schema takes about 2 KiB, a void range 16 bytes.
const SEGMENT_HEADER_MAX: u64 = 16 << 20;

pub(super) const FRAME_MAGIC: [u8; 4] = *b"RFRM";
pub(super) const FRAME_HEADER: usize = 48;
/// Zero bytes behind the last frame: where the next frame's header will be.
pub(super) const END_MARK: usize = FRAME_HEADER;
/// Longest body of a frame in bytes; a longer one is damage. By default the largest request is 8 MiB of
/// ring record and a batch closes at 4 MiB.
pub const FRAME_BYTES_MAX: usize = 256 << 20;

/// Frames whose buffers are smaller than this stay plain: LZ4 saves nothing on a handful of rows
/// and costs a table reset for each of some forty buffers.
const COMPRESS_BYTES_MIN: usize = 64 << 10;

/// What a segment says about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentHeader {
    /// The node that wrote it, as in the `node` column, padded with zeros.
    pub node: String,
    /// Its shard.
    pub shard: u32,
    /// Its number within the shard.
    pub segment: u64,
    /// A random number that stands in each of its frames and that no client can know.
    pub stamp: u64,
    /// No frame in it starts below this number.
    pub first_sequence: i64,
    /// Every void range of the shard so far.
    pub voids: Vec<Void>,
    /// The schema of its frames.
    pub schema: SchemaRef,
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(4_096);
        let mut node = [0_u8; 16];
        let length = self.node.len().min(16);
        node[..length].copy_from_slice(&self.node.as_bytes()[..length]);
        rest.extend_from_slice(&node);
        rest.extend_from_slice(&u64::from(self.shard).to_le_bytes());
        rest.extend_from_slice(&self.segment.to_le_bytes());
        rest.extend_from_slice(&self.stamp.to_le_bytes());
        rest.extend_from_slice(&self.first_sequence.to_le_bytes());
        rest.extend_from_slice(&(self.voids.len() as u64).to_le_bytes());
        for void in &self.voids {
            rest.extend_from_slice(&void.start().to_le_bytes());
            rest.extend_from_slice(&void.end().to_le_bytes());
        }
        let schema = IpcDataGenerator::default()
            .schema_to_bytes_with_dictionary_tracker(
                &self.schema,
                &mut DictionaryTracker::new(false),
                &IpcWriteOptions::default(),
            )
            .ipc_message;
        rest.extend_from_slice(&(schema.len() as u64).to_le_bytes());
        rest.extend_from_slice(&schema);
        pad(&mut rest);

        let mut bytes = Vec::with_capacity(SEGMENT_PREFIX + rest.len());
        bytes.extend_from_slice(&SEGMENT_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(rest.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&rest);
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Length of the part after the prefix, or why the prefix is none.
    pub(super) fn rest_length(prefix: &[u8; SEGMENT_PREFIX]) -> Result<usize, HeaderError> {
        if prefix[..8] != SEGMENT_MAGIC {
            return Err(HeaderError::Damaged("does not start with a segment header"));
        }
        let version = u32_at(prefix, 8);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let length = u64_at(prefix, 16);
        if length > SEGMENT_HEADER_MAX {
            return Err(HeaderError::Damaged("has a header of impossible length"));
        }
        usize::try_from(length)
            .map_err(|_| HeaderError::Damaged("has a header of impossible length"))
    }

    /// Reads the part after the prefix.
    pub(super) fn decode(prefix: &[u8; SEGMENT_PREFIX], rest: &[u8]) -> Result<Self, HeaderError> {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&prefix[16..]), rest);
        if crc != u32_at(prefix, 12) {
            return Err(HeaderError::Damaged("has a damaged header"));
        }
        Self::decode_checked(rest).ok_or(HeaderError::Damaged("has an unreadable header"))
    }

    fn decode_checked(rest: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(rest);
        let node = cursor.take(16)?;
        let node = std::str::from_utf8(node).ok()?.trim_end_matches('\0').to_owned();
        let shard = u32::try_from(cursor.u64()?).ok()?;
        let segment = cursor.u64()?;
        let stamp = cursor.u64()?;
        let first_sequence = cursor.i64()?;
        let void_count = cursor.u64()?;
        let mut voids = Vec::new();
        for _ in 0..void_count {
            voids.push(cursor.i64()?..=cursor.i64()?);
        }
        let schema_length = usize::try_from(cursor.u64()?).ok()?;
        let schema = try_schema_from_flatbuffer_bytes(cursor.take(schema_length)?).ok()?;
        Some(Self { node, shard, segment, stamp, first_sequence, voids, schema: Arc::new(schema) })
    }
}

/// Why a segment header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// The bytes are not what was written; a verb phrase.
    Damaged(&'static str),
    /// Written by another version of the layout.
    Version(u32),
}

/// The header of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub crc: u32,
    pub body_length: usize,
    pub message_length: usize,
    pub rows: u32,
    pub shard: u32,
    pub stamp: u64,
    pub first: i64,
    pub last: i64,
}

impl FrameHeader {
    /// Reads a header, or `None` where there is none. The CRC is not checked here.
    pub(super) fn decode(bytes: &[u8; FRAME_HEADER]) -> Option<Self> {
        if bytes[..4] != FRAME_MAGIC {
            return None;
        }
        let header = Self {
            crc: u32_at(bytes, 4),
            body_length: u32_at(bytes, 8) as usize,
            message_length: u32_at(bytes, 12) as usize,
            rows: u32_at(bytes, 16),
            shard: u32_at(bytes, 20),
            stamp: u64_at(bytes, 24),
            first: u64_at(bytes, 32).cast_signed(),
            last: u64_at(bytes, 40).cast_signed(),
        };
        let sound = header.body_length <= FRAME_BYTES_MAX
            && header.body_length.is_multiple_of(8)
            && header.message_length <= header.body_length
            && header.first > 0
            && header.last.checked_sub(header.first) == Some(i64::from(header.rows) - 1);
        sound.then_some(header)
    }

    /// Whether `body` is what was written under this header.
    pub(super) fn matches(&self, bytes: &[u8; FRAME_HEADER], body: &[u8]) -> bool {
        crc32c::crc32c_append(crc32c::crc32c(&bytes[8..]), body) == self.crc
    }

    /// The header and the end of the intact frame that begins at `at` in `bytes`, if one does.
    pub(super) fn of_intact(bytes: &[u8], at: usize) -> Option<(Self, usize)> {
        let (head, rest) = bytes.get(at..)?.split_first_chunk::<FRAME_HEADER>()?;
        let header = Self::decode(head)?;
        let body = rest.get(..header.body_length)?;
        header.matches(head, body).then_some((header, at + FRAME_HEADER + header.body_length))
    }

    /// The batch in `body`.
    pub(super) fn batch(
        &self,
        body: Buffer,
        schema: &SchemaRef,
    ) -> Result<RecordBatch, ArrowError> {
        let unreadable = |what: &str| ArrowError::IpcError(format!("frame {}: {what}", self.first));
        let message = root_as_message(&body.as_slice()[..self.message_length])
            .map_err(|error| unreadable(&error.to_string()))?;
        let batch = message
            .header_as_record_batch()
            .ok_or_else(|| unreadable("the message is not a record batch"))?;
        let buffers = body.slice(self.message_length.next_multiple_of(8));
        read_record_batch(
            &buffers,
            batch,
            Arc::clone(schema),
            &std::collections::HashMap::new(),
            None,
            &message.version(),
        )
    }
}

/// Turns batches into frames; keeps its buffers between calls.
#[derive(Debug)]
pub struct FrameEncoder {
    plain: IpcWriteOptions,
    compressed: IpcWriteOptions,
    context: IpcWriteContext,
}

impl FrameEncoder {
    /// An encoder with empty buffers.
    ///
    /// # Errors
    /// When arrow was built without LZ4.
    pub fn new() -> Result<Self, ArrowError> {
        let plain = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
        let compressed = plain.clone().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let mut context = IpcWriteContext::default();
        context.set_reserve_scratch(true);
        Ok(Self { plain, compressed, context })
    }

    /// Replaces `frame` with the frame of `batch`, whose rows are numbered from `first`, for the
    /// segment with this `stamp`.
    ///
    /// # Errors
    /// When arrow cannot encode the batch, or the frame would exceed [`FRAME_BYTES_MAX`].
    pub fn encode(
        &mut self,
        batch: &RecordBatch,
        shard: u32,
        stamp: u64,
        first: i64,
        frame: &mut Vec<u8>,
    ) -> Result<(), ArrowError> {
        let small = batch_bytes(batch) < COMPRESS_BYTES_MIN;
        let options = if small { &self.plain } else { &self.compressed };
        let mut tracker = DictionaryTracker::new(false);
        let (_, encoded) =
            IpcDataGenerator::default().encode(batch, &mut tracker, options, &mut self.context)?;

        frame.clear();
        frame.resize(FRAME_HEADER, 0);
        frame.extend_from_slice(&encoded.ipc_message);
        pad(frame);
        frame.extend_from_slice(&encoded.arrow_data);
        pad(frame);

        let body_length = frame.len() - FRAME_HEADER;
        let too_long =
            |_| ArrowError::IpcError(format!("a frame of {body_length} bytes is too long"));
        let rows = u32::try_from(batch.num_rows()).map_err(too_long)?;
        if body_length > FRAME_BYTES_MAX {
            return Err(ArrowError::IpcError(format!(
                "a frame of {body_length} bytes exceeds {FRAME_BYTES_MAX}"
            )));
        }
        frame[..4].copy_from_slice(&FRAME_MAGIC);
        frame[8..12].copy_from_slice(&u32::try_from(body_length).map_err(too_long)?.to_le_bytes());
        let message_length = u32::try_from(encoded.ipc_message.len()).map_err(too_long)?;
        frame[12..16].copy_from_slice(&message_length.to_le_bytes());
        frame[16..20].copy_from_slice(&rows.to_le_bytes());
        frame[20..24].copy_from_slice(&shard.to_le_bytes());
        frame[32..40].copy_from_slice(&first.to_le_bytes());
        frame[40..48].copy_from_slice(&(first + i64::from(rows) - 1).to_le_bytes());
        readdress(frame, stamp);
        Ok(())
    }
}

/// Bytes of values, offsets and validity in `batch`, without unused capacity.
#[must_use]
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// Says that `frame` belongs to the segment with this `stamp`, and renews its CRC.
pub(super) fn readdress(frame: &mut [u8], stamp: u64) {
    frame[24..32].copy_from_slice(&stamp.to_le_bytes());
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64_at(bytes, 0))
    }

    fn i64(&mut self) -> Option<i64> {
        self.u64().map(u64::cast_signed)
    }
}
