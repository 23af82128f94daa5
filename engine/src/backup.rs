//! `backup`: a data directory of its own with everything that was acknowledged.
//!
//! **Guarantees.** Every event that was acknowledged before the call is in the copy, once; of those that
//! come meanwhile some are. It takes no lock and asks nothing of the server, so that it runs beside
//! one. A copy that is not complete never has its name: it is made beside it.
//!
//! **How.** The logs are copied first and the table second. What is released from a log between the
//! two is in the version of the table that is copied then, and what is in both is known by its number
//! when the copy is started. What was set aside and the records of erases come last, because they
//! explain what is in neither. When an erase has ended meanwhile the copy begins again, so that it
//! holds nothing that was erased; one that is under way goes on when the copy is started. Webhooks
//! come first of all: a copy that is started sends what they had not been sent then.
//!
//! **Not copied.** Today's visitor salt, which has to be gone tomorrow (visitors are new ones to a
//! copy), spill files, and jobs.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use ringlake_disk::{RealDisk, create_directories_durably};

use crate::directory;
use crate::erase;
use crate::error::Error;
use crate::lake::Location;
use crate::lake::copy::{Copied, TRIES, copy_table};
use crate::log;
use crate::retention::Expired;
use crate::webhook;

/// Small files of the data directory that a copy needs as they are.
const SMALL_FILES: [&str; 3] = ["node", "cursor.key", "keys.json"];
/// What the copy is called until it is complete, behind its name.
const UNFINISHED: &str = ".unfinished";

/// What has been copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// Of the table.
    pub table: Copied,
    /// Bytes of the logs.
    pub log_bytes: u64,
}

/// Copies the data directory `data`, whose table is at `lake` or in its usual place, to `output`, which
/// must not exist; the copy's table is in its usual place. `progress` is told the bytes of the table
/// that have been copied, and all of them.
///
/// # Errors
/// When something cannot be read or written, or `output` or an unfinished one is there.
pub fn backup(
    data: &Path,
    lake: Option<&str>,
    output: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackupReport, Error> {
    let node = directory::read_node(data)?;
    let output = std::path::absolute(output).map_err(Error::io("locate", output))?;
    let draft = beside(&output);
    let problems = [
        (&output, "is there already; a backup makes a new directory"),
        (
            &draft,
            "is there already: a backup that did not end has left it; remove it and try again",
        ),
    ];
    for (path, problem) in problems {
        if fs::symlink_metadata(path).is_ok() {
            return Err(Error::Format { path: path.clone(), problem: problem.to_owned() });
        }
    }
    let from = Location::parse(lake, data)?;
    let mut tries = 1;
    let report = loop {
        create_directories_durably(&RealDisk, &draft).map_err(Error::io("create", &draft))?;
        let copied = copy_events(data, &from, &node, &draft, progress);
        match copied {
            Ok(Some(report)) => break report,
            Err(error) if tries == TRIES || !is_gone(&error) => return Err(error),
            Ok(None) if tries == TRIES => {
                let problem = "has had events erased again and again while it was copied".into();
                return Err(Error::Format { path: data.into(), problem });
            }
            _ => {}
        }
        tries += 1;
        fs::remove_dir_all(&draft).map_err(Error::io("remove", &draft))?;
    };
    for name in SMALL_FILES {
        match copy_file(&data.join(name), &draft.join(name)) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    sync_tree(&draft)?;
    fs::rename(&draft, &output).map_err(Error::io("rename", &draft))?;
    let parent = output.parent().unwrap_or(&output);
    sync(parent)?;
    Ok(report)
}

/// Copies everything that holds events or explains where they are. `None` when an erase has ended
/// meanwhile: the copy may hold what it has taken, and nothing would take it out of there.
fn copy_events(
    data: &Path,
    from: &Location,
    node: &str,
    draft: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<BackupReport>, Error> {
    // Before the logs: behind what a webhook has passed nothing may be missing in the copy.
    copy_webhooks(data, draft)?;
    let before = erase::Records::read(data)?;
    let log_bytes = copy_logs(data, draft)?;
    let to = Location::parse(None, draft)?;
    let table = copy_table(from, node, to.root(), progress)?;
    copy_directory(&data.join("quarantine"), &draft.join("quarantine"))?;
    let records = erase::Records::read(data)?;
    if !records.has_ended_as(&before) {
        return Ok(None);
    }
    // An erase that is under way goes on in the copy.
    records.write(draft, &RealDisk)?;
    // Read after the table: whatever that lacks is in it.
    let expired = Expired::read(data)?;
    if !expired.is_empty() {
        expired.write(draft, &RealDisk)?;
    }
    Ok(Some(BackupReport { table, log_bytes }))
}

/// Copies the webhooks; one that goes meanwhile is not there.
fn copy_webhooks(data: &Path, draft: &Path) -> Result<(), Error> {
    let to = draft.join(webhook::DIRECTORY);
    for file in webhook::files_of(data)? {
        fs::create_dir_all(&to).map_err(Error::io("create", &to))?;
        let copied = copy_file(&file, &to.join(file.file_name().unwrap_or_default()));
        if copied.as_ref().is_err_and(is_gone) {
            continue;
        }
        copied?;
    }
    Ok(())
}

/// An erase removes what it has taken, also while it is being copied.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

fn beside(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

fn copy_logs(data: &Path, draft: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for (shard, from) in log::shard_directories(&data.join("log"))? {
        let to = draft.join("log").join(shard.to_string());
        fs::create_dir_all(&to).map_err(Error::io("create", &to))?;
        bytes += log::copy_shard(&from, &to)?;
    }
    Ok(bytes)
}

/// Copies a directory of files that are written once.
fn copy_directory(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::io("create", to))?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(Error::io("list", from))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", from))?.path();
        let to = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_directory(&path, &to)?;
        } else {
            copy_file(&path, &to)?;
        }
    }
    Ok(())
}

/// Copies a file with its permissions, synced but for its name.
fn copy_file(from: &Path, to: &Path) -> Result<(), Error> {
    let mut read = File::open(from).map_err(Error::io("read", from))?;
    let allowed = read.metadata().map_err(Error::io("read", from))?.permissions();
    let mut copy = File::create_new(to).map_err(Error::io("create", to))?;
    copy.set_permissions(allowed)
        .and_then(|()| io::copy(&mut read, &mut copy))
        .and_then(|_| copy.sync_all())
        .map_err(Error::io("write", to))
}

/// Makes the names below `directory` durable.
fn sync_tree(directory: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let path = entry.map_err(Error::io("list", directory))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        }
    }
    sync(directory)
}

fn sync(directory: &Path) -> Result<(), Error> {
    let opened = File::open(directory).and_then(|directory| directory.sync_all());
    opened.map_err(Error::io("sync", directory))
}
