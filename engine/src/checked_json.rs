//! Small records that outlive the process: a value in a file of its own, with a checksum.
//!
//! **Guarantees.** A file is whole and synced or the one before it; a changed byte is found when it
//! is read.
//!
//! **Layout.** A line of JSON, then the CRC32C of that line in eight hexadecimal digits.

use std::fs;
use std::path::Path;

use ringlake_disk::{Disk, write_file};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Puts `value` on the medium, in place of what is at `path`. `action` is what that is, as in "write
/// the record of an erase".
///
/// # Errors
/// What keeps it from being written; what was there stays then.
pub(crate) fn write<T: Serialize>(
    value: &T,
    path: &Path,
    disk: &dyn Disk,
    action: &'static str,
) -> Result<(), Error> {
    let failed = || Error::io(action, path);
    let json = serde_json::to_string(value).map_err(|error| failed()(error.into()))?;
    let crc = crc32c::crc32c(json.as_bytes());
    write_file(disk, path, format!("{json}\n{crc:08x}\n").as_bytes())
        .and_then(|()| disk.sync_directory(path.parent().unwrap_or(Path::new("."))))
        .map_err(failed())
}

/// Reads what [`write`] has written. `what` is what it is, as in "the record of an erase".
///
/// # Errors
/// When it cannot be read, or is not what was written.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T, Error> {
    let damaged = |problem: &str| Error::Format {
        path: path.into(),
        problem: format!("is not {what}: {problem}"),
    };
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let (json, crc) = text
        .strip_suffix('\n')
        .and_then(|text| text.rsplit_once('\n'))
        .ok_or_else(|| damaged("it ends early"))?;
    if u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(json.as_bytes())) {
        return Err(damaged("it is not what was written"));
    }
    serde_json::from_str(json).map_err(|error| damaged(&error.to_string()))
}
