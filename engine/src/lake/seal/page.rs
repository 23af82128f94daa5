//! Page headers of a Parquet file, as far as sealing and checking need them.
//!
//! A header is a Thrift struct in the compact protocol. Only its kind and its two sizes are
//! understood; everything else is kept as it is, byte by byte.
//!
//! **Limits.** A header of more than [`HEADER_MAX`] bytes is taken for damage: they have about
//! 20, and one with statistics of two long values a few hundred.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// How much is read for a header at first.
const HEADER_USUAL: usize = 64;
/// Longest header.
const HEADER_MAX: usize = 16 << 10;
/// Structs in structs in a header; Parquet has three levels.
const DEPTH_MAX: u32 = 8;

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lake) enum PageKind {
    Data,
    Dictionary,
    Other,
}

/// The header of one page.
#[derive(Debug)]
pub(in crate::lake) struct PageHeader {
    /// What the page holds.
    pub kind: PageKind,
    /// Length of its body before compression.
    pub uncompressed: usize,
    /// Length of its body in the file.
    pub compressed: usize,
    /// The header as it lies in the file.
    pub bytes: Vec<u8>,
    /// Where in `bytes` the length of the body stands.
    compressed_at: Range<usize>,
    /// Where in the file the body begins.
    body: u64,
}

impl PageHeader {
    /// The header of the same page with a body of another length.
    pub fn with_compressed(&self, compressed: usize) -> Vec<u8> {
        let mut bytes = self.bytes[..self.compressed_at.start].to_vec();
        // A positive number in zigzag form is twice itself.
        let mut rest = (compressed as u64) << 1;
        while rest > 0x7f {
            bytes.push(u8::try_from(rest & 0x7f).unwrap_or(0) | 0x80);
            rest >>= 7;
        }
        bytes.push(u8::try_from(rest).unwrap_or(0));
        bytes.extend_from_slice(&self.bytes[self.compressed_at.end..]);
        bytes
    }

    /// Reads the header that `bytes` begin with, which is at `at` in the file. `None` when they are
    /// none, or when they end too early.
    fn parse(bytes: &[u8], at: u64) -> Option<Self> {
        let mut cursor = Cursor { bytes, at: 0 };
        let (mut kind, mut uncompressed, mut compressed) = (None, None, None);
        let mut field = 0;
        while let Some((id, form)) = cursor.field(field)? {
            field = id;
            let start = cursor.at;
            if (1..=3).contains(&id) && form == FORM_I32 {
                let value = cursor.zigzag()?;
                let slot = match id {
                    1 => &mut kind,
                    2 => &mut uncompressed,
                    _ => &mut compressed,
                };
                *slot = Some((value, start..cursor.at));
            } else {
                cursor.skip(form, DEPTH_MAX)?;
            }
        }
        let (compressed, compressed_at) = compressed?;
        Some(Self {
            kind: match kind?.0 {
                0 | 3 => PageKind::Data,
                2 => PageKind::Dictionary,
                _ => PageKind::Other,
            },
            uncompressed: usize::try_from(uncompressed?.0).ok()?,
            compressed: usize::try_from(compressed).ok()?,
            bytes: bytes[..cursor.at].to_vec(),
            compressed_at,
            body: at + cursor.at as u64,
        })
    }
}

/// Goes from page to page through one column of a row group.
#[derive(Debug)]
pub(in crate::lake) struct PageReader<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl<'a> PageReader<'a> {
    /// Reads the pages between `start` and `end` of `file`.
    pub fn new(file: &'a File, start: u64, end: u64) -> Self {
        Self { file, at: start, end }
    }

    /// The next page's header; `Some(None)` when what is there is none, or does not fit into the
    /// column.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_header(&mut self) -> io::Result<Option<Option<PageHeader>>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let mut window = HEADER_USUAL;
        loop {
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            let mut bytes = vec![0; window.min(left)];
            read_at(self.file, &mut bytes, self.at)?;
            if let Some(header) = PageHeader::parse(&bytes, self.at) {
                let next = header.body + header.compressed as u64;
                if next > self.end {
                    return Ok(Some(None));
                }
                self.at = next;
                return Ok(Some(Some(header)));
            }
            if window >= left || window >= HEADER_MAX {
                return Ok(Some(None));
            }
            window = HEADER_MAX;
        }
    }

    /// Reads the body of `page` into `body`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_body(&self, page: &PageHeader, body: &mut Vec<u8>) -> io::Result<()> {
        body.clear();
        body.resize(page.compressed, 0);
        read_at(self.file, body, page.body)
    }
}

/// Fills `bytes` from `at` on.
pub(in crate::lake) fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(bytes, at)
}

const FORM_I32: u8 = 5;

/// Reads the compact protocol.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// The next field's id and form, after a field `last`; `Some(None)` at the end of the struct.
    fn field(&mut self, last: i64) -> Option<Option<(i64, u8)>> {
        let head = self.byte()?;
        if head == 0 {
            return Some(None);
        }
        let id = match head >> 4 {
            0 => self.zigzag()?,
            step => last.checked_add(i64::from(step))?,
        };
        Some(Some((id, head & 0x0f)))
    }

    fn skip(&mut self, form: u8, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match form {
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => self.forward(8)?,
            8 => {
                let length = self.varint()?;
                self.forward(usize::try_from(length).ok()?)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    count => u64::from(count),
                };
                for _ in 0..count {
                    // A boolean in a list is a byte.
                    match head & 0x0f {
                        1 | 2 => drop(self.byte()?),
                        form => self.skip(form, depth)?,
                    }
                }
            }
            12 => {
                let mut field = 0;
                while let Some((id, form)) = self.field(field)? {
                    field = id;
                    self.skip(form, depth)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn forward(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }
}
