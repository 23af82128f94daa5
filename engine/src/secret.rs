//! Secrets of the data directory: random keys, in files for their owner's eyes only.
//!
//! **Guarantees.** A file never holds a part of a secret, nor one that others may read.
//!
//! **Not guaranteed.** That a file is there after a power cut: nothing durable rests on one, so they
//! do not go through [`Disk`](ringlake_disk::Disk), which knows no modes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A secret: a key of a keyed hash.
pub(crate) type Key = [u8; 16];

/// A new key.
///
/// # Errors
/// When the operating system has no random numbers.
pub(crate) fn random() -> io::Result<Key> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(key)
}

/// Writes and syncs `bytes` as a file of mode 0600 beside `path`; it is to be renamed to `path`.
///
/// # Errors
/// What the file system says.
pub(crate) fn draft(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    // A draft that a crash has left behind may have another mode.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(draft)
}
