//! The quarantine directory: what cannot be used is kept there, each piece with a report.
//!
//! **Guarantees.** [`set_aside`] returns only when the bytes, the report and their directory entries
//! are synced, so that the numbers a piece held may be passed over. A report is whole whenever there
//! is one, and never without its bytes, whatever a crash or a power cut interrupts.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ringlake_disk::{Disk, create_directories_durably, write_file};
use serde::{Deserialize, Serialize};

use super::Error;

/// The report beside a quarantined stretch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The shard whose numbers are affected.
    pub shard: u32,
    /// The numbers that were lost with it, inclusive; `None` when no number is missing, or when no
    /// frame of it is intact and nothing tells.
    pub sequences: Option<(i64, i64)>,
    /// Where the bytes were.
    pub origin: String,
    /// Why they were set aside.
    pub reason: String,
    /// Their length in bytes.
    pub bytes: u64,
}

/// What the file of a report says beside the report.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    report: Quarantined,
    /// CRC32C of the bytes that were set aside.
    crc32c: u32,
}

/// Writes `bytes` as the file `name` into the quarantine directory, and beside it the report, with
/// the extension `json`, and syncs both.
///
/// # Errors
/// When a file cannot be written or synced.
pub fn set_aside(
    disk: &dyn Disk,
    quarantine: &Path,
    name: &str,
    bytes: &[u8],
    report: &Quarantined,
) -> Result<(), Error> {
    create_directories_durably(disk, quarantine).map_err(Error::io("create", quarantine))?;
    let entry = Entry { report: report.clone(), crc32c: crc32c::crc32c(bytes) };
    let json = serde_json::to_vec_pretty(&entry).map_err(|source| Error::Io {
        action: "describe",
        path: quarantine.into(),
        source: source.into(),
    })?;
    let path = quarantine.join(name);
    for (path, content) in [(path.clone(), bytes), (path.with_extension("json"), &json)] {
        write_file(disk, &path, content)
            .and_then(|()| disk.sync_directory(quarantine))
            .map_err(Error::io("write the quarantine file", &path))?;
    }
    tracing::error!(name, reason = %report.reason, sequences = ?report.sequences, "set aside in quarantine");
    Ok(())
}

/// The reports in the quarantine directory; they explain numbers that are not in the table.
///
/// # Errors
/// When the directory cannot be read, or a report in it.
pub fn quarantined_ranges(quarantine: &Path) -> Result<Vec<Quarantined>, Error> {
    Ok(quarantine_reports(quarantine)?.into_iter().map(|(_, report)| report).collect())
}

/// The numbers of `shard` that reports name. A report that cannot be read is passed over: a start does
/// not fail because of damage.
pub(super) fn numbers_of(quarantine: &Path, shard: u32) -> Result<Vec<RangeInclusive<i64>>, Error> {
    let mut numbers = Vec::new();
    for path in report_paths(quarantine)? {
        match read_entry(&path) {
            Ok(Entry { report, .. }) if report.shard == shard => {
                numbers.extend(report.sequences.map(|(first, last)| first..=last));
            }
            Ok(_) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(path = %path.display(), error, "passed over a report in quarantine");
            }
        }
    }
    Ok(numbers)
}

/// The reports in the quarantine directory with the file that each is in.
///
/// # Errors
/// As [`quarantined_ranges`].
pub fn quarantine_reports(quarantine: &Path) -> Result<Vec<(PathBuf, Quarantined)>, Error> {
    let with_report = |path: PathBuf| read_entry(&path).map(|entry| (path, entry.report));
    report_paths(quarantine)?.into_iter().map(with_report).collect()
}

fn report_paths(quarantine: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    if !quarantine.exists() {
        return Ok(paths);
    }
    for entry in fs::read_dir(quarantine).map_err(Error::io("list", quarantine))? {
        let path = entry.map_err(Error::io("list", quarantine))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// The piece of quarantine in the file `path`, when it is what was written.
///
/// # Errors
/// When it cannot be read, has no report beside it, or is damaged.
pub fn read_aside(path: &Path) -> Result<(Vec<u8>, Quarantined), Error> {
    let bytes = fs::read(path).map_err(Error::io("read the quarantine file", path))?;
    let entry = read_entry(&path.with_extension("json"))?;
    if crc32c::crc32c(&bytes) != entry.crc32c {
        let problem = "is damaged: it is not what its report was written for".into();
        return Err(Error::Format { path: path.into(), problem });
    }
    Ok((bytes, entry.report))
}

fn read_entry(path: &Path) -> Result<Entry, Error> {
    let text = fs::read(path).map_err(Error::io("read the quarantine report", path))?;
    serde_json::from_slice(&text).map_err(|error| Error::Format {
        path: path.into(),
        problem: format!("is no quarantine report: {error}"),
    })
}
