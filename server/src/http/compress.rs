//! Compression of whole answers, as the client accepts it.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, HeaderValue};

/// Shorter answers fit one packet anyway.
const WORTH_BYTES: usize = 1_024;
/// Both are quick rather than thorough: the answer is made once.
const ZSTD_LEVEL: i32 = 1;
const GZIP_LEVEL: u32 = 1;

/// What answers are packed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Zstd,
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
    match accepted(headers) {
        Some(Coding::Zstd) => {
            let packed = zstd::bulk::compress(&body, ZSTD_LEVEL)?;
            Ok((packed, Some(HeaderValue::from_static("zstd"))))
        }
        Some(Coding::Gzip) => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL));
            encoder.write_all(&body)?;
            Ok((encoder.finish()?, Some(HeaderValue::from_static("gzip"))))
        }
        None => Ok((body, None)),
    }
}

/// The coding with the highest `q`, zstd among equals.
fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let mut best: Option<(f32, Coding)> = None;
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for part in values.flat_map(|value| value.split(',')) {
        let mut words = part.split(';').map(str::trim);
        let coding = match words.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "zstd" => Coding::Zstd,
            "gzip" | "x-gzip" | "*" => Coding::Gzip,
            _ => continue,
        };
        let quality = words
            .find_map(|word| word.strip_prefix("q="))
            .map_or(Some(1.0), |q| q.trim().parse::<f32>().ok());
        let quality = quality.unwrap_or(0.0);
        let is_better = best.is_none_or(|(highest, known)| {
            quality > highest
                || quality >= highest && (coding, known) == (Coding::Zstd, Coding::Gzip)
        });
        if quality > 0.0 && is_better {
            best = Some((quality, coding));
        }
    }
    best.map(|(_, coding)| coding)
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
            ("br", None),
            ("", None),
        ] {
            assert_eq!(accepted(&headers(accept)), expected, "{accept}");
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
}
