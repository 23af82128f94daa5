//! The files of webhooks.
//!
//! **Guarantees.** A file is whole and synced, or the one before it; nobody but its owner reads it.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ringlake_disk::{Disk, RealDisk};

use super::Webhook;
use crate::error::{Error, chain};
use crate::secret;

/// The directory, in that of the data.
pub(crate) const DIRECTORY: &str = "webhooks";
const EXTENSION: &str = "json";
/// How a file ends that takes its place.
const DRAFT: &str = "new";

/// Where they are.
#[derive(Debug)]
pub(super) struct Store(PathBuf);

impl Store {
    pub fn of(data: &Path) -> Self {
        Self(data.join(DIRECTORY))
    }

    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// All webhooks; those that cannot be read are reported and left out.
    pub fn read(&self) -> Result<Vec<Webhook>, Error> {
        let mut webhooks = Vec::new();
        for path in files(&self.0)? {
            match path.extension().and_then(OsStr::to_str) {
                // A crash has left it behind; there is a secret in it.
                Some(DRAFT) => drop(fs::remove_file(&path)),
                Some(EXTENSION) => match read(&path) {
                    Ok(webhook) => webhooks.push(webhook),
                    Err(error) => {
                        let error = chain(&error);
                        tracing::error!(error, "a webhook cannot be read; nothing is sent");
                    }
                },
                _ => {}
            }
        }
        Ok(webhooks)
    }

    pub fn write(&self, webhook: &Webhook) -> Result<(), Error> {
        let path = self.path(&webhook.id);
        let failed = || Error::io("write", &path);
        let text = serde_json::to_vec(webhook).map_err(|error| failed()(error.into()))?;
        match fs::create_dir(&self.0) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed()(error)),
            Err(_) => {}
            Ok(()) => sync(self.0.parent().unwrap_or(&self.0))?,
        }
        let draft = secret::draft(&path, &text).map_err(failed())?;
        fs::rename(draft, &path).map_err(failed())?;
        sync(&self.0)
    }

    pub fn remove(&self, id: &str) -> Result<(), Error> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io("remove", &path)(error))
            }
            _ => sync(&self.0),
        }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.{EXTENSION}"))
    }
}

/// The webhooks' files in the data directory `data`.
pub(crate) fn files_of(data: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = files(&data.join(DIRECTORY))?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
    Ok(files)
}

/// All files of `directory`; none where it is not there.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = || Error::io("list", directory);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed())?,
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed())).collect()
}

fn read(path: &Path) -> Result<Webhook, Error> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    let webhook: Webhook = serde_json::from_slice(&text).map_err(|error| {
        // The message itself could quote the secret.
        let problem = format!("is not a webhook: line {} column {}", error.line(), error.column());
        Error::Format { path: path.into(), problem }
    })?;
    // A file with another's name would be one webhook in two places.
    match path.file_stem().is_some_and(|stem| *stem == *webhook.id) {
        true => Ok(webhook),
        false => Err(Error::Format { path: path.into(), problem: "has another's name".into() }),
    }
}

fn sync(directory: &Path) -> Result<(), Error> {
    RealDisk.sync_directory(directory).map_err(Error::io("sync", directory))
}
