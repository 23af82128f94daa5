//! Content encodings: what a body is packed in, and unpacking it inside a limit.
//!
//! **Guarantees.** Unpacking never holds more than the limit and one chunk of output, whatever the
//! body claims: a bomb is noticed at the limit and refused. Windows are bounded too (zstd 8 MiB,
//! brotli 16 MiB, gzip and deflate 32 KiB).
//!
//! **Algorithm.** The header decides when there is one. Without it the first bytes do: several
//! SDKs send gzip and say nothing about it. No JSON text begins like a gzip or zstd frame.

use std::io::{self, BufRead, Read};

use brotli_decompressor::{BrotliDecoderParameter, Decompressor};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::HeaderMap;
use hyper::header::CONTENT_ENCODING;

use super::answer::Problem;

/// How much is unpacked between two looks at the limit.
const CHUNK_BYTES: usize = 64 << 10;
/// Memory that is kept for the next body at most.
const KEPT_MAX_BYTES: usize = 8 << 20;
/// log2 of the largest zstd window: the most that a decoder of HTTP content has to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Input that the brotli decoder takes at a time.
const BROTLI_BUFFER_BYTES: usize = 4 << 10;

const GZIP_MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What a body is packed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Nothing.
    Identity,
    /// gzip, one or several members.
    Gzip,
    /// zlib, or the raw deflate that some clients send under the same name.
    Deflate,
    /// zstd, one or several frames.
    Zstd,
    /// brotli.
    Brotli,
}

impl Coding {
    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
            Self::Brotli => "brotli",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        const NAMES: [(&str, Coding); 6] = [
            ("gzip", Coding::Gzip),
            ("x-gzip", Coding::Gzip),
            ("deflate", Coding::Deflate),
            ("zstd", Coding::Zstd),
            ("br", Coding::Brotli),
            ("identity", Coding::Identity),
        ];
        let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, coding)| *coding)
    }
}

/// The encoding that the header names.
///
/// # Errors
/// [`Problem::UnknownEncoding`] for a name that is not known, and for several in a row.
pub fn of(headers: &HeaderMap) -> Result<Coding, Problem> {
    let mut coding = Coding::Identity;
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = String::from_utf8_lossy(value.as_bytes());
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let known =
                Coding::from_name(name).ok_or_else(|| Problem::UnknownEncoding(name.into()))?;
            if known == Coding::Identity {
                continue;
            }
            if coding != Coding::Identity {
                return Err(Problem::UnknownEncoding(format!("{}, {name}", coding.name())));
            }
            coding = known;
        }
    }
    Ok(coding)
}

/// The encoding of a body that `declared` nothing, by its first bytes.
#[must_use]
pub fn sniff(declared: Coding, body: &[u8]) -> Coding {
    match declared {
        Coding::Identity if body.starts_with(&GZIP_MAGIC) => Coding::Gzip,
        Coding::Identity if body.starts_with(&ZSTD_MAGIC) => Coding::Zstd,
        other => other,
    }
}

/// Memory to unpack into, kept from one body to the next: a fresh buffer for each would cost its
/// page faults every time.
#[derive(Debug, Default)]
pub struct Room(Vec<u8>);

impl Room {
    /// Unpacks `body`, which is in `coding`.
    ///
    /// # Errors
    /// [`Problem::BodyTooLarge`] above `limit` bytes of output, [`Problem::BadEncoding`] for a body
    /// that is damaged, cut short, or something else.
    pub fn unpack(&mut self, coding: Coding, body: &[u8], limit: usize) -> Result<&[u8], Problem> {
        if self.0.len() > KEPT_MAX_BYTES {
            self.0 = Vec::new();
        }
        let mut rest = body;
        let unpacked = match coding {
            Coding::Identity => self.fill(&mut rest, limit),
            Coding::Gzip => self.fill(&mut MultiGzDecoder::new(&mut rest), limit),
            Coding::Deflate if is_zlib(body) => self.fill(&mut ZlibDecoder::new(&mut rest), limit),
            Coding::Deflate => self.fill(&mut DeflateDecoder::new(&mut rest), limit),
            Coding::Zstd => zstd_decoder(&mut rest).and_then(|mut it| self.fill(&mut it, limit)),
            Coding::Brotli => {
                let mut decoder = brotli_decoder(&mut rest);
                let length = self.fill(&mut decoder, limit);
                // Only a read after the end looks whether its buffer holds more.
                length.and_then(|length| decoder.read(&mut [0]).map(|_| length))
            }
        };
        let bad = |reason: String| Problem::BadEncoding { coding: coding.name(), reason };
        let length = unpacked
            .map_err(|error| bad(error.to_string()))?
            .ok_or(Problem::BodyTooLarge { limit })?;
        if matches!(coding, Coding::Deflate | Coding::Brotli) && !rest.is_empty() {
            // The others look for another member there and fail by themselves.
            return Err(bad("there are bytes after its end".into()));
        }
        Ok(&self.0[..length])
    }

    /// Reads everything and tells how much it was, or `None` when there is more than `limit`.
    fn fill(&mut self, reader: &mut dyn Read, limit: usize) -> io::Result<Option<usize>> {
        let bytes = &mut self.0;
        let mut filled = 0;
        while filled <= limit {
            if filled == bytes.len() {
                // Doubling, but never past the limit and one chunk.
                let target = (2 * filled).max(CHUNK_BYTES).min(limit + CHUNK_BYTES);
                bytes.reserve_exact(target - filled);
                bytes.resize(target, 0);
            }
            // A chunk at a time, so that what lies beyond the limit is never more than that.
            let end = bytes.len().min(filled + CHUNK_BYTES);
            match reader.read(&mut bytes[filled..end]) {
                Ok(0) => return Ok(Some(filled)),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

fn zstd_decoder<R: BufRead>(body: R) -> io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(decoder)
}

fn brotli_decoder<R: Read>(body: R) -> Decompressor<R> {
    let mut decoder = Decompressor::new(body, BROTLI_BUFFER_BYTES);
    // The library accepts windows up to 1 GiB unless it is told not to.
    decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
    decoder
}

/// A zlib header is a multiple of 31 and names method 8; raw deflate starts so only by accident.
fn is_zlib(body: &[u8]) -> bool {
    match body {
        [first, second, ..] => {
            first & 0x0f == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn unpack(coding: Coding, body: &[u8], limit: usize) -> Result<Vec<u8>, Problem> {
        Room::default().unpack(coding, body, limit).map(<[u8]>::to_vec)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ::zstd::encode_all(bytes, 3).unwrap()
    }

    /// `{"event":"a"}` in one stored meta-block: the crate at hand only decodes.
    fn brotli() -> Vec<u8> {
        let text = br#"{"event":"a"}"#;
        let length = u8::try_from(text.len()).unwrap() - 1;
        // Window bits 16 (one 0 bit), not last, four nibbles of length, stored; then the end.
        let head = u32::from(length) << 4 | 1 << 20;
        let mut stream = head.to_le_bytes()[..3].to_vec();
        stream.extend_from_slice(text);
        stream.push(0x03);
        stream
    }

    fn header(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_ENCODING, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn every_encoding_gives_the_bytes_back() {
        let text = b"{\"event\":\"a\"}".repeat(10_000);
        for (coding, packed) in [
            (Coding::Gzip, gzip(&text)),
            (Coding::Deflate, zlib(&text)),
            (Coding::Deflate, deflate(&text)),
            (Coding::Zstd, zstd(&text)),
            (Coding::Identity, text.clone()),
        ] {
            assert_eq!(unpack(coding, &packed, LIMIT).unwrap(), text, "{coding:?}");
        }
        assert_eq!(unpack(Coding::Brotli, &brotli(), LIMIT).unwrap(), br#"{"event":"a"}"#);
    }

    #[test]
    fn an_empty_body_unpacks_to_nothing() {
        assert_eq!(unpack(Coding::Gzip, &gzip(b""), LIMIT).unwrap(), b"");
        assert_eq!(unpack(Coding::Zstd, &zstd(b""), LIMIT).unwrap(), b"");
    }

    #[test]
    fn the_limit_is_exact() {
        let text = vec![b'x'; LIMIT];
        assert_eq!(unpack(Coding::Gzip, &gzip(&text), LIMIT).unwrap().len(), LIMIT);
        let text = vec![b'x'; LIMIT + 1];
        for (coding, packed) in [
            (Coding::Gzip, gzip(&text)),
            (Coding::Deflate, zlib(&text)),
            (Coding::Deflate, deflate(&text)),
            (Coding::Zstd, zstd(&text)),
        ] {
            let problem = unpack(coding, &packed, LIMIT).unwrap_err();
            assert!(matches!(problem, Problem::BodyTooLarge { limit: LIMIT }), "{problem}");
        }
    }

    #[test]
    fn a_bomb_is_held_at_the_limit_and_one_chunk() {
        struct Endless(usize);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 += buffer.len();
                Ok(buffer.len())
            }
        }
        let mut endless = Endless(0);
        let mut room = Room::default();
        assert!(room.fill(&mut endless, LIMIT).unwrap().is_none());
        assert!(endless.0 <= LIMIT + CHUNK_BYTES, "{}", endless.0);
        assert!(room.0.capacity() <= LIMIT + CHUNK_BYTES, "{}", room.0.capacity());
    }

    #[test]
    fn what_one_body_left_behind_does_not_show_in_the_next() {
        let mut room = Room::default();
        let long = vec![b'x'; LIMIT];
        assert_eq!(room.unpack(Coding::Gzip, &gzip(&long), LIMIT).unwrap(), long);
        assert_eq!(room.unpack(Coding::Zstd, &zstd(b"{}"), LIMIT).unwrap(), b"{}");
    }

    #[test]
    fn damaged_and_short_bodies_are_refused() {
        let text = b"{\"event\":\"a\"}".repeat(100);
        for (coding, mut packed) in [
            (Coding::Gzip, gzip(&text)),
            (Coding::Deflate, zlib(&text)),
            (Coding::Zstd, zstd(&text)),
            (Coding::Brotli, brotli()),
        ] {
            packed.truncate(packed.len() - 3);
            let problem = unpack(coding, &packed, LIMIT).unwrap_err();
            assert!(matches!(problem, Problem::BadEncoding { .. }), "{coding:?}: {problem}");
            let problem = unpack(coding, &text, LIMIT).unwrap_err();
            assert!(matches!(problem, Problem::BadEncoding { .. }), "{coding:?}: {problem}");
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        for (coding, mut packed) in [
            (Coding::Gzip, gzip(b"{}")),
            (Coding::Deflate, zlib(b"{}")),
            (Coding::Zstd, zstd(b"{}")),
            (Coding::Brotli, brotli()),
        ] {
            let end = packed.len();
            // A few, which the decoder has in its buffer, and more than that holds.
            for tail in [1, 4, 2 * BROTLI_BUFFER_BYTES] {
                packed.resize(end + tail, b'x');
                assert!(unpack(coding, &packed, LIMIT).is_err(), "{coding:?} and {tail} bytes");
            }
        }
        // A second stream of events is not dropped without a word.
        assert!(unpack(Coding::Brotli, &brotli().repeat(2), LIMIT).is_err());
    }

    #[test]
    fn a_zstd_window_above_the_bound_is_refused() {
        let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(&vec![b'x'; 64 << 10]).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(unpack(Coding::Zstd, &packed, LIMIT).is_err());
    }

    #[test]
    fn the_header_decides_when_there_is_one() {
        assert_eq!(of(&header(&[])).unwrap(), Coding::Identity);
        assert_eq!(of(&header(&["GZIP"])).unwrap(), Coding::Gzip);
        assert_eq!(of(&header(&["x-gzip"])).unwrap(), Coding::Gzip);
        assert_eq!(of(&header(&["identity, br"])).unwrap(), Coding::Brotli);
        assert_eq!(sniff(Coding::Zstd, &GZIP_MAGIC), Coding::Zstd);
    }

    #[test]
    fn unknown_encodings_and_several_in_a_row_are_named() {
        assert!(of(&header(&["compress"])).unwrap_err().to_string().contains("`compress`"));
        assert!(of(&header(&["gzip, br"])).unwrap_err().to_string().contains("`gzip, br`"));
        assert!(of(&header(&["gzip", "gzip"])).is_err());
    }

    #[test]
    fn the_first_bytes_decide_without_a_header() {
        assert_eq!(sniff(Coding::Identity, &gzip(b"{}")), Coding::Gzip);
        assert_eq!(sniff(Coding::Identity, &zstd(b"{}")), Coding::Zstd);
        assert_eq!(sniff(Coding::Identity, b"{}"), Coding::Identity);
        assert_eq!(sniff(Coding::Identity, b""), Coding::Identity);
    }
}
