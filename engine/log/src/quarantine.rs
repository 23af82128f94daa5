//! The quarantine directory: what cannot be used is kept there, each piece with a report.
//!
//! **Guarantees.** [`set_aside`] returns only when the bytes, the report and the directory entry
//! are synced, so that the numbers a piece held may be passed over.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;

/// The report beside a quarantined stretch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The shard whose numbers are affected.
    pub shard: u32,
    /// The numbers that were lost with it, inclusive; `None` when no number is missing.
    pub sequences: Option<(i64, i64)>,
    /// Where the bytes were.
    pub origin: String,
    /// Why they were set aside.
    pub reason: String,
    /// Their length in bytes.
    pub bytes: u64,
}

/// Writes `bytes` and the report into the quarantine directory, as `name` with the extensions `bin`
/// and `json`, and syncs both.
///
/// # Errors
/// When a file cannot be written or synced.
pub fn set_aside(
    quarantine: &Path,
    name: &str,
    bytes: &[u8],
    report: &Quarantined,
) -> Result<(), Error> {
    fs::create_dir_all(quarantine).map_err(Error::io("create", quarantine))?;
    let json = serde_json::to_vec_pretty(report).map_err(|source| Error::Io {
        action: "describe",
        path: quarantine.into(),
        source: source.into(),
    })?;
    for (extension, content) in [("bin", bytes), ("json", json.as_slice())] {
        let path = quarantine.join(format!("{name}.{extension}"));
        File::create(&path)
            .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
            .map_err(Error::io("write the quarantine file", &path))?;
    }
    File::open(quarantine)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("sync", quarantine))?;
    tracing::error!(name, reason = %report.reason, sequences = ?report.sequences, "set aside in quarantine");
    Ok(())
}

/// The numbers that quarantine reports explain, by shard.
///
/// # Errors
/// When the directory cannot be read.
pub fn quarantined_ranges(quarantine: &Path) -> Result<Vec<Quarantined>, Error> {
    let mut reports = Vec::new();
    if !quarantine.exists() {
        return Ok(reports);
    }
    for entry in fs::read_dir(quarantine).map_err(Error::io("list", quarantine))? {
        let path = entry.map_err(Error::io("list", quarantine))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read(&path).map_err(Error::io("read", &path))?;
        let report = serde_json::from_slice(&text).map_err(|error| Error::Format {
            path,
            problem: format!("is no quarantine report: {error}"),
        })?;
        reports.push(report);
    }
    Ok(reports)
}
