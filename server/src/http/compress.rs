//! Compression of answers, as the client accepts it: of whole ones, and of those that are sent in
//! pieces.
//!
//! **Guarantees.** Of an answer in pieces, what has been given can be unpacked to its last byte: a
//! reader sees a batch when it has left. One that is broken off has no end, so that nobody takes it
//! for whole.
//!
//! **Memory.** About 1 MB for zstd, 300 KB for gzip, for each answer in pieces.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, HeaderValue};
use zstd::stream::write::Encoder as ZstdEncoder;

/// Shorter answers fit one packet anyway.
const WORTH_BYTES: usize = 1_024;
/// Both are quick rather than thorough: the answer is made once.
const ZSTD_LEVEL: i32 = 1;
const GZIP_LEVEL: u32 = 1;

/// What answers are packed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// zstd.
    Zstd,
    /// gzip.
    Gzip,
}

/// Packs `body` in what `headers` accept; says in what, if in anything.
///
/// # Errors
/// None in practice: the output is memory.
pub fn pack(headers: &HeaderMap, body: Vec<u8>) -> io::Result<(Vec<u8>, Option<HeaderValue>)> {
    if body.len() < WORTH_BYTES {
        return Ok((body, None));
    }
    let Some(coding) = Coding::accepted(headers) else { return Ok((body, None)) };
    let packed = match coding {
        Coding::Zstd => zstd::bulk::compress(&body, ZSTD_LEVEL)?,
        Coding::Gzip => Packer::new(Some(coding))?.finish(&body)?,
    };
    Ok((packed, Some(coding.name())))
}

impl Coding {
    /// Its name in `Content-Encoding`.
    #[must_use]
    pub fn name(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        })
    }

    /// The coding with the highest `q`, zstd among equals. `*` stands for gzip where that is not named.
    #[must_use]
    pub fn accepted(headers: &HeaderMap) -> Option<Self> {
        let (mut zstd, mut gzip, mut any) = (None, None, None);
        let values =
            headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for part in values.flat_map(|value| value.split(',')) {
            let mut words = part.split(';').map(str::trim);
            let said = match words.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "zstd" => &mut zstd,
                "gzip" | "x-gzip" => &mut gzip,
                "*" => &mut any,
                _ => continue,
            };
            let quality = words
                .find_map(|word| word.strip_prefix("q=").or_else(|| word.strip_prefix("Q=")))
                .map_or(Some(1.0), |q| q.trim().parse::<f32>().ok())
                .unwrap_or(0.0);
            // Said twice, the better one counts.
            *said = Some(said.map_or(quality, |known: f32| known.max(quality)));
        }
        let (zstd, gzip) = (zstd.unwrap_or(0.0), gzip.or(any).unwrap_or(0.0));
        match zstd.max(gzip) {
            best if best <= 0.0 => None,
            best if zstd >= best => Some(Self::Zstd),
            _ => Some(Self::Gzip),
        }
    }
}

/// Packs one answer that is sent in pieces.
pub enum Packer {
    /// Passes on what it is given.
    Plain,
    /// See [`Coding::Gzip`].
    Gzip(GzEncoder<Vec<u8>>),
    /// See [`Coding::Zstd`].
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Packer {
    /// Starts an answer in `coding`, or as it is.
    ///
    /// # Errors
    /// When zstd finds no memory.
    pub fn new(coding: Option<Coding>) -> io::Result<Self> {
        Ok(match coding {
            None => Self::Plain,
            Some(Coding::Gzip) => {
                Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL)))
            }
            Some(Coding::Zstd) => Self::Zstd(ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?),
        })
    }

    /// Packs the next piece; nothing becomes of nothing.
    ///
    /// # Errors
    /// When zstd fails.
    pub fn pack(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        if piece.is_empty() {
            return Ok(piece);
        }
        match self {
            Self::Plain => Ok(piece),
            Self::Gzip(encoder) => {
                encoder.write_all(&piece)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Zstd(encoder) => {
                encoder.write_all(&piece)?;
                encoder.flush()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    /// Packs the last piece and ends the answer.
    ///
    /// # Errors
    /// When zstd fails.
    pub fn finish(self, piece: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(piece.to_vec()),
            Self::Gzip(mut encoder) => {
                encoder.write_all(piece)?;
                encoder.finish()
            }
            Self::Zstd(mut encoder) => {
                encoder.write_all(piece)?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::io::Read;

    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        headers
    }

    #[test]
    fn the_client_chooses_and_zstd_wins_a_tie() {
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, zstd;q=0.5", Some(Coding::Gzip)),
            ("*", Some(Coding::Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0, *", None),
            ("gzip;Q=0.5, zstd;q=0", Some(Coding::Gzip)),
            ("*;q=0.1, zstd;q=0", Some(Coding::Gzip)),
            ("br", None),
            ("", None),
        ] {
            assert_eq!(Coding::accepted(&headers(accept)), expected, "{accept}");
        }
    }

    #[test]
    fn what_is_packed_can_be_unpacked() {
        let body = b"{\"events\":[]}".repeat(200);
        let (packed, coding) = pack(&headers("zstd"), body.clone()).unwrap();
        assert_eq!(coding.unwrap(), "zstd");
        assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), body);
        let (packed, coding) = pack(&headers("gzip"), body.clone()).unwrap();
        assert_eq!(coding.unwrap(), "gzip");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, body);
        assert_eq!(pack(&headers("zstd"), b"{}".to_vec()).unwrap(), (b"{}".to_vec(), None));
    }

    #[test]
    fn every_piece_can_be_unpacked_when_it_has_left() {
        for coding in [None, Some(Coding::Gzip), Some(Coding::Zstd)] {
            let mut packer = Packer::new(coding).unwrap();
            let mut packed = packer.pack(b"first ".repeat(1000)).unwrap();
            let mut start = vec![0; 6_000];
            let unpack = |packed: &[u8], into: &mut [u8]| match coding {
                None => (&mut &packed[..]).read_exact(into),
                Some(Coding::Gzip) => flate2::read::GzDecoder::new(packed).read_exact(into),
                Some(Coding::Zstd) => zstd::Decoder::new(packed).unwrap().read_exact(into),
            };
            unpack(&packed, &mut start).unwrap();
            assert_eq!(start, b"first ".repeat(1000));
            assert!(packer.pack(Vec::new()).unwrap().is_empty());
            packed.extend(packer.finish(b"second").unwrap());
            let mut whole = vec![0; 6_006];
            unpack(&packed, &mut whole).unwrap();
            assert!(whole.ends_with(b"second"));
        }
    }
}
