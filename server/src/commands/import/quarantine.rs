//! Importing what is in quarantine: batches go back under their old numbers, damaged bytes cannot.
//!
//! **Failure.** The first file that cannot be restored ends the command; those before it are in the
//! table, and a second run says so of them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ringlake_engine::quarantine;
use ringlake_engine::restore::restore;

use super::super::{cannot_open, grouped, must_exist};
use crate::cli::{Import, Place};
use crate::config::Config;
use crate::{EXIT_FINE, UsageError};

/// Whether the files are from quarantine.
///
/// # Errors
/// When some are and some are not, when they cannot be imported, or cannot be read.
pub fn are_from(arguments: &Import) -> Result<bool> {
    let mut from = Vec::new();
    for file in &arguments.files {
        from.push(is_batch(file)?);
    }
    if !from.contains(&true) {
        return Ok(false);
    }
    if from.contains(&false) {
        bail!(UsageError(
            "files from quarantine and files of events go in commands of their own".into()
        ));
    }
    if arguments.url.is_some() {
        bail!(UsageError(
            "files from quarantine are imported with --data, while no server runs on it".into()
        ));
    }
    Ok(true)
}

/// Whether `file` is a batch from quarantine.
fn is_batch(file: &Path) -> Result<bool> {
    if file == Path::new("-") {
        return Ok(false);
    }
    let name = file.display();
    refuse_what_is_no_batch(file)?;
    quarantine::is_one(file).with_context(|| format!("cannot read {name}"))
}

/// Quarantine also holds bytes that nobody can read, and reports.
fn refuse_what_is_no_batch(file: &Path) -> Result<()> {
    let extension = file.extension().and_then(|extension| extension.to_str());
    let report = file.with_extension("json");
    let Ok(text) = std::fs::read(&report) else { return Ok(()) };
    let Ok(report) = serde_json::from_slice::<ringlake_engine::log::Quarantined>(&text) else {
        return Ok(());
    };
    match extension {
        Some("bin") => bail!(
            "{} holds {} damaged bytes of the log and cannot be imported: {}",
            file.display(),
            grouped(report.bytes),
            report.reason
        ),
        Some("json") => bail!(
            "{} is a report of the quarantine; import the .{} file beside it, if there is one",
            file.display(),
            quarantine::EXTENSION
        ),
        _ => Ok(()),
    }
}

/// Restores `files`, in order.
pub fn run(files: &[PathBuf], place: &Place) -> Result<u8> {
    let config = Config::for_command(place, None)?;
    must_exist(&config)?;
    for file in files {
        let aside = quarantine::read(file)?;
        let restored = restore(&config.engine, &aside).map_err(|error| match error {
            error @ ringlake_engine::Error::Locked { .. } => anyhow::Error::new(error)
                .context("stop the server before importing what it has set aside"),
            error => anyhow::Error::new(error).context(cannot_open(&config.engine.data)),
        })?;
        let again = if restored.already { " already" } else { "" };
        writeln!(
            io::stdout(),
            "{} events of shard {}, numbers {} to {}, are{again} in version {} of the table",
            grouped(aside.events() as u64),
            aside.shard,
            grouped(aside.first.unsigned_abs()),
            grouped(aside.last.unsigned_abs()),
            restored.version,
        )
        .context("cannot write to standard output")?;
    }
    Ok(EXIT_FINE)
}
