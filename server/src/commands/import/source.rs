//! Opening what is imported: files or standard input, compressed or not.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;

use super::Input;

/// Bytes read from a file at a time.
const READ_BYTES: usize = 256 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Opens `file` (`-` is standard input) and unpacks it when its first bytes say that it is gzip or
/// zstd. What is read counts in `progress`, as it is on the disk.
///
/// # Errors
/// When it cannot be opened or its first bytes cannot be read.
pub fn open(file: &Path, progress: &ProgressBar) -> io::Result<Input> {
    if file == Path::new("-") {
        return unpack(progress.wrap_read(io::stdin()));
    }
    unpack(progress.wrap_read(File::open(file)?))
}

fn unpack(mut input: impl Read + Send + 'static) -> io::Result<Input> {
    let mut start = Vec::with_capacity(ZSTD_MAGIC.len());
    input.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start)?;
    let gzip = start.starts_with(&GZIP_MAGIC);
    let zstd = start.starts_with(&ZSTD_MAGIC);
    let whole = Cursor::new(start).chain(input);
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, whole)))
    } else if zstd {
        let buffered = BufReader::with_capacity(READ_BYTES, whole);
        Box::new(zstd::stream::read::Decoder::with_buffer(buffered)?)
    } else {
        Box::new(whole)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::io::Write;

    use super::*;

    fn through(bytes: Vec<u8>) -> Vec<u8> {
        let mut text = Vec::new();
        unpack(Cursor::new(bytes)).unwrap().read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn compressed_files_are_recognised_by_their_content() {
        let text = b"{\"event\":\"a\"}\n".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        assert_eq!(through(gzip.finish().unwrap()), text);
        assert_eq!(through(zstd::encode_all(&text[..], 1).unwrap()), text);
        assert_eq!(through(text.clone()), text);
    }

    #[test]
    fn short_files_are_passed_on_whole() {
        for text in [&b""[..], b"{", b"{}\n"] {
            assert_eq!(through(text.to_vec()), text);
        }
    }
}
