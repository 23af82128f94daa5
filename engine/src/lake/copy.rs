//! Copies the newest version of a table while others commit to it, join its files and remove old ones.
//!
//! **Guarantees.** The copy is a table of its own: the files of one version and the part of the log
//! that this version is read from, each synced but for its name. Earlier versions are not in it.
//!
//! **Limits.** When a file goes meanwhile, it begins again with the version of then, [`TRIES`] times in
//! all. Files that lie outside the table's directory cannot be copied.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use super::delta::Table;
use super::error::{LakeError, Result};
use super::location::Location;

/// Files go only some time after others have taken their place, so once is nearly always enough.
pub const TRIES: usize = 5;

/// What has been copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// The table's version.
    pub version: u64,
    /// Its Parquet files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
}

/// Copies the table at `from`, as `node` sees it, to the directory `to`, which is replaced. `progress`
/// is told the bytes copied so far, and the bytes in all. Of a table that does not exist there is no
/// copy.
///
/// # Errors
/// When the table cannot be read, or a file not be written; a part of the copy is there then.
pub fn copy_table(
    from: &Location,
    node: &str,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Copied> {
    for _ in 1..TRIES {
        match copy_version(from, node, to, progress) {
            Err(LakeError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                fs::remove_dir_all(to).map_err(LakeError::io("remove", to))?;
            }
            outcome => return outcome,
        }
    }
    copy_version(from, node, to, progress)
}

fn copy_version(
    from: &Location,
    node: &str,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Copied> {
    fs::create_dir_all(to).map_err(LakeError::io("create", to))?;
    let table = match Table::open(from, node) {
        Err(LakeError::NoTable { .. }) => return Ok(Copied::default()),
        opened => opened?,
    };
    let (live, log) = (table.live_files()?, table.log_files()?);
    let total = live.iter().map(|file| file.bytes).sum();
    let mut copied = Copied { version: table.version(), ..Copied::default() };
    for file in &*live {
        if Path::new(&*file.path).is_absolute() {
            return Err(LakeError::damaged(&*file.local, "lies outside the table's directory"));
        }
        copy_file(&file.local, &to.join(&*file.path))?;
        copied.files += 1;
        copied.bytes += file.bytes;
        copied.rows += file.rows.unwrap_or(0);
        progress(copied.bytes, total);
    }
    for path in &log {
        copy_file(&from.local(path), &to.join(path.as_ref()))?;
    }
    Ok(copied)
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).map_err(LakeError::io("create", directory))?;
    }
    let mut read = File::open(from).map_err(LakeError::io("read", from))?;
    let mut copy = File::create_new(to).map_err(LakeError::io("create", to))?;
    io::copy(&mut read, &mut copy).and_then(|_| copy.sync_all()).map_err(LakeError::io("write", to))
}
