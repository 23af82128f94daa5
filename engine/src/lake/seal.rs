//! Sealing: every byte of a data file is covered by a checksum before a commit names it.
//!
//! DuckDB does not look at the checksums that Parquet has for pages, and zstd frames carry none by
//! themselves: of 2,000 single bits flipped in a file of DuckDB's, 66 % came back as other values
//! without an error. So a file that has been written is copied once, with checksums added:
//!
//! | bytes | covered by | looked at by |
//! |---|---|---|
//! | page bodies (all values) | the content checksum of their zstd frame | every reader, at every read: DuckDB, this engine, other engines |
//! | page headers, Bloom filters, page index | a CRC32C in the file's name | [`check`](super::check), once a process, before the first query |
//! | the footer | a CRC32C in the file's name | the same |
//! | the whole file | a CRC32C in the file's name | `verify` |
//!
//! **Guarantees.** The sealed file holds the same pages as the draft; each was decompressed once to
//! compute its checksum, so a page that cannot be read back is found before the commit. The name
//! carries the checksums into the Delta log: a commit and the checksums of its files are one.
//!
//! **Not guaranteed.** Damage to a page header that happens after its check and before a read of
//! the same process; about one byte in 2,000 is in a header, and one flipped bit in 40 of a header
//! changes values without an error. Files that others have written are not sealed.
//!
//! **Layout.** A checksum of zstd is a flag in the frame's header and the low half of the content's
//! XXH64 behind its last block (RFC 8878). A page grows by four bytes, so that its header, the page
//! index and the offsets in the footer are written anew. Names: `<node>-<uuid>-<sums>.parquet`,
//! see [`Sums`].
//!
//! **Memory.** One page, compressed and not; one Bloom filter, 4 MiB at most.

mod index;
mod page;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::file::metadata::page_index::PageIndexProvider;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader,
    ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::writer::TrackedWrite;
use ringlake_disk::{Access, Disk, DiskFile};
use twox_hash::XxHash64;
use zstd::bulk::Decompressor;
use zstd::zstd_safe::find_frame_compressed_size;

use super::error::{LakeError, Result};
use index::{MovedIndex, Pages};
use page::PageKind;
pub(super) use page::{PageReader, read_at};

/// What a Parquet file begins and ends with.
pub(super) const MAGIC: &[u8; 4] = b"PAR1";
/// The footer's length and the closing magic.
pub(super) const TAIL_BYTES: usize = 8;
/// The largest Bloom filter that is copied. Writers of Parquet allow 128 MB; one for a row group of ours
/// has 128 KB at most.
const BLOOM_BYTES: i32 = 4 << 20;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The bit of a zstd frame's descriptor (its fifth byte) that says that a checksum follows.
const ZSTD_CHECKSUM_FLAG: u8 = 4;

/// The checksums in a data file's name, CRC32C each, eight hexadecimal digits each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// Of the whole file.
    pub whole: u32,
    /// Of everything before the footer that is no page body.
    pub headers: u32,
    /// Of the footer, with its length and the closing magic.
    pub footer: u32,
}

impl Sums {
    /// Hexadecimal digits in a name.
    const DIGITS: usize = 24;

    /// Reads the digits of a name.
    pub(super) fn parse(digits: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != Self::DIGITS || !digits.bytes().all(plain) {
            return None;
        }
        let number = |from: usize| u32::from_str_radix(&digits[from..from + 8], 16).ok();
        Some(Self { whole: number(0)?, headers: number(8)?, footer: number(16)? })
    }
}

impl std::fmt::Display for Sums {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:08x}{:08x}{:08x}", self.whole, self.headers, self.footer)
    }
}

/// Writes the Parquet file `draft`, whose pages are compressed with zstd, as `sealed`, with
/// checksums. Neither is synced. `between` gets `sealed` after each row group; its error ends the
/// work.
///
/// # Errors
///
/// [`LakeError::Io`]; [`LakeError::Parquet`] or [`LakeError::Content`] when the draft is not such a
/// file; what `between` says. What there is of `sealed` is the caller's to remove.
pub(super) fn seal(
    disk: &dyn Disk,
    draft: &Path,
    sealed: &Path,
    between: &mut dyn FnMut(&Path) -> Result<()>,
) -> Result<Sums> {
    let source = File::open(draft).map_err(LakeError::io("open", draft))?;
    let metadata = ParquetMetaDataReader::new()
        .with_page_index_policy(PageIndexPolicy::Optional)
        .parse_and_finish(&source)
        .map_err(LakeError::parquet(draft))?;
    let target = disk.create(sealed, Access::Cached).map_err(LakeError::io("create", sealed))?;
    let mut tee = Tee { file: target, length: 0, whole: 0, tail: None, failed: None };
    let out = TrackedWrite::new(&mut tee);
    let checksums = Checksums::new().map_err(LakeError::io("decompress", draft))?;
    let body = Vec::new();
    let mut sealer = Sealer { source: &source, draft, sealed, out, headers: 0, body, checksums };
    sealer.header(MAGIC)?;
    let (mut groups, mut pages) = (Vec::new(), Vec::new());
    for group in metadata.row_groups() {
        let (group, places) = sealer.row_group(group)?;
        groups.push(group);
        pages.push(places);
        sealer.out.flush().map_err(LakeError::io("write", sealed))?;
        between(sealed)?;
    }
    let headers = sealer.footer(metadata, groups, pages)?;
    tee.finish(headers).map_err(LakeError::io("write", sealed))
}

/// The sealed file, and the checksum of what has gone into it.
struct Tee {
    file: Box<dyn DiskFile>,
    /// Bytes written.
    length: u64,
    whole: u32,
    /// What was written since this was set.
    tail: Option<Vec<u8>>,
    /// The first error. The writer of the footer is dropped with a full buffer, and an error of
    /// its last write would be lost.
    failed: Option<io::Error>,
}

impl Tee {
    /// The checksums, once the footer has been written; `headers` is that of everything before
    /// the page index that is no page body.
    fn finish(self, headers: u32) -> io::Result<Sums> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let tail = self.tail.unwrap_or_default();
        let broken = || io::Error::other("the footer was not written whole");
        let (rest, end) = tail.split_last_chunk::<TAIL_BYTES>().ok_or_else(broken)?;
        let [a, b, c, d, ..] = *end;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).map_err(|_| broken())?;
        let footer_at = rest.len().checked_sub(length).ok_or_else(broken)?;
        Ok(Sums {
            whole: self.whole,
            headers: crc32c::crc32c_append(headers, &tail[..footer_at]),
            footer: crc32c::crc32c(&tail[footer_at..]),
        })
    }
}

impl Write for &mut Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write_at(bytes, self.length) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                self.whole = crc32c::crc32c_append(self.whole, bytes);
                if let Some(tail) = &mut self.tail {
                    tail.extend_from_slice(bytes);
                }
                Ok(bytes.len())
            }
            Err(error) => {
                let kind = error.kind();
                self.failed.get_or_insert(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Sealer<'a> {
    source: &'a File,
    draft: &'a Path,
    sealed: &'a Path,
    /// It knows how much has been written: where things are.
    out: TrackedWrite<&'a mut Tee>,
    /// CRC32C of everything so far that is no page body.
    headers: u32,
    /// The page at hand.
    body: Vec<u8>,
    checksums: Checksums,
}

impl Sealer<'_> {
    fn header(&mut self, bytes: &[u8]) -> Result<()> {
        self.headers = crc32c::crc32c_append(self.headers, bytes);
        self.out.write_all(bytes).map_err(LakeError::io("write", self.sealed))
    }

    /// Where the next byte will be.
    fn position(&self) -> u64 {
        self.out.bytes_written() as u64
    }

    fn unexpected(&self, problem: impl Into<String>) -> LakeError {
        LakeError::Content { path: self.draft.to_path_buf(), problem: problem.into() }
    }

    fn row_group(&mut self, group: &RowGroupMetaData) -> Result<(RowGroupMetaData, Vec<Pages>)> {
        let (mut columns, mut places) = (Vec::new(), Vec::new());
        for chunk in group.columns() {
            let (chunk, pages) = self.chunk(chunk)?;
            columns.push(chunk);
            places.push(pages);
        }
        // Behind the pages of all columns: whoever reads those of several reads in one go.
        for chunk in &mut columns {
            self.bloom_filter(chunk)?;
        }
        let mut sealed = group.clone().into_builder();
        if let Some(first) = columns.first().filter(|_| group.file_offset().is_some()) {
            sealed = sealed.set_file_offset(start_of(first));
        }
        let sealed = sealed.set_column_metadata(columns).build();
        Ok((sealed.map_err(LakeError::parquet(self.draft))?, places))
    }

    /// Copies one column's pages and tells where they are now.
    fn chunk(&mut self, chunk: &ColumnChunkMetaData) -> Result<(ColumnChunkMetaData, Pages)> {
        if !matches!(chunk.compression(), Compression::ZSTD(_)) {
            let codec = chunk.compression();
            return Err(self.unexpected(format!("has pages compressed as {codec}, not as ZSTD")));
        }
        let begin = self.position();
        let mut dictionary_at = None;
        let mut pages = Pages::new();
        let (start, length) = chunk.byte_range();
        let mut reader = PageReader::new(self.source, start, start + length);
        while let Some(page) = reader.next_header().map_err(LakeError::io("read", self.draft))? {
            let Some(page) = page else {
                return Err(self.unexpected("has a page header that cannot be read"));
            };
            reader.read_body(&page, &mut self.body).map_err(LakeError::io("read", self.draft))?;
            self.checksums
                .add(&mut self.body, page.uncompressed)
                .map_err(|problem| self.unexpected(problem))?;
            let at = self.position();
            self.header(&page.with_compressed(self.body.len()))?;
            self.out.write_all(&self.body).map_err(LakeError::io("write", self.sealed))?;
            match page.kind {
                PageKind::Dictionary => dictionary_at = Some(at),
                PageKind::Data => pages.push((at, self.position() - at)),
                PageKind::Other => return Err(self.unexpected("has a page of an unknown kind")),
            }
        }
        let Some(&(data_at, _)) = pages.first() else {
            return Err(self.unexpected("has a column without pages"));
        };
        let length = self.position() - begin;
        let chunk = chunk
            .clone()
            .into_builder()
            .set_dictionary_page_offset(dictionary_at.map(u64::cast_signed))
            .set_data_page_offset(data_at.cast_signed())
            .set_total_compressed_size(length.cast_signed())
            .build();
        Ok((chunk.map_err(LakeError::parquet(self.draft))?, pages))
    }

    /// Copies a column's Bloom filter, if it has one, and notes in `chunk` where it is now.
    fn bloom_filter(&mut self, chunk: &mut ColumnChunkMetaData) -> Result<()> {
        let Some(offset) = chunk.bloom_filter_offset() else { return Ok(()) };
        let length =
            chunk.bloom_filter_length().filter(|length| (1..=BLOOM_BYTES).contains(length));
        let (Ok(offset), Some(Ok(length))) = (u64::try_from(offset), length.map(usize::try_from))
        else {
            return Err(self.unexpected("has a Bloom filter of an impossible place or size"));
        };
        let mut filter = vec![0; length];
        read_at(self.source, &mut filter, offset).map_err(LakeError::io("read", self.draft))?;
        let at = self.position().cast_signed();
        self.header(&filter)?;
        let moved = chunk.clone().into_builder().set_bloom_filter_offset(Some(at)).build();
        *chunk = moved.map_err(LakeError::parquet(self.draft))?;
        Ok(())
    }

    /// Writes the page index and the footer; gives the checksum of everything before them that is
    /// no page body.
    fn footer(
        mut self,
        draft: ParquetMetaData,
        groups: Vec<RowGroupMetaData>,
        pages: Vec<Vec<Pages>>,
    ) -> Result<u32> {
        let mut sealed = draft.into_builder();
        let index = match sealed.take_page_index() {
            None => None,
            Some(old) => {
                let moved = MovedIndex::new(old, &pages);
                let misfit = || self.unexpected("has a page index that does not fit its pages");
                Some(Arc::new(moved.ok_or_else(misfit)?) as Arc<dyn PageIndexProvider>)
            }
        };
        let metadata = sealed.set_row_groups(groups).set_page_index(index).build();
        self.out.flush().map_err(LakeError::io("write", self.sealed))?;
        self.out.inner_mut().tail = Some(Vec::new());
        ParquetMetaDataWriter::new_with_tracked(self.out, &metadata)
            .with_preserve_page_index_locations(false)
            .finish()
            .map_err(LakeError::parquet(self.sealed))?;
        Ok(self.headers)
    }
}

/// Where a column's pages begin.
fn start_of(chunk: &ColumnChunkMetaData) -> i64 {
    chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset())
}

/// Adds the content checksum to zstd frames.
struct Checksums {
    decoder: Decompressor<'static>,
    /// The content of the frame at hand.
    content: Vec<u8>,
}

impl Checksums {
    fn new() -> io::Result<Self> {
        Ok(Self { decoder: Decompressor::new()?, content: Vec::new() })
    }

    /// Adds it to `frame`, which has `content_bytes` bytes of content.
    fn add(&mut self, frame: &mut Vec<u8>, content_bytes: usize) -> Result<(), String> {
        if frame.get(..4) != Some(&ZSTD_MAGIC) || frame.len() < 6 {
            return Err("has a page that is no zstd frame".into());
        }
        if find_frame_compressed_size(frame) != Ok(frame.len()) {
            return Err("has a page that is not one whole zstd frame".into());
        }
        if frame[4] & ZSTD_CHECKSUM_FLAG != 0 {
            return Ok(());
        }
        self.content.clear();
        self.content.reserve(content_bytes);
        let read = self
            .decoder
            .decompress_to_buffer(frame, &mut self.content)
            .map_err(|error| format!("has a page that cannot be read back ({error})"))?;
        if read != content_bytes {
            return Err(format!("has a page of {read} bytes where {content_bytes} should be"));
        }
        let hash = XxHash64::oneshot(0, &self.content);
        let low = u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0);
        frame[4] |= ZSTD_CHECKSUM_FLAG;
        frame.extend_from_slice(&low.to_le_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
