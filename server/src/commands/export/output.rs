//! The directory of an export, and what earlier runs of the command have left in it.
//!
//! **Guarantees.** The same command finds the job that it began before, as long as that has not
//! ended. Once an export is complete, no file of an earlier one is left between its files: whoever
//! reads the whole directory reads each event once.
//!
//! **Not guaranteed.** Anything about files that this command has not written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ringlake_engine::export::{ExportFile, ExportRequest, Job};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What runs of the command have noted, in the directory.
const NOTE: &str = ".ringlake-export.json";

/// The directory.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    /// The server or the data directory.
    source: String,
    request: Value,
    /// What the last run noted.
    note: Option<Note>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    source: String,
    request: Value,
    /// The job, until its files are all there.
    id: Option<String>,
    /// Files of the last export that was complete.
    files: Vec<String>,
}

impl Output {
    /// Opens the directory `path` for the events of `source` that `request` describes; it is created
    /// when it is not there.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn open(path: &Path, source: &str, request: &ExportRequest) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut request = serde_json::to_value(request)?;
        if let Some(fields) = request.as_object_mut() {
            // The key says whose events they are.
            fields.remove("tenant");
        }
        let text = fs::read(path.join(NOTE)).ok();
        let note = text.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Self { path: path.to_owned(), source: source.to_owned(), request, note })
    }

    /// What is wanted, as servers take it.
    #[must_use]
    pub fn request(&self) -> &Value {
        &self.request
    }

    /// The job that an earlier run of the same command began.
    #[must_use]
    pub fn known(&self) -> Option<String> {
        let is_same = |note: &&Note| note.source == self.source && note.request == self.request;
        self.note.as_ref().filter(is_same)?.id.clone()
    }

    /// Notes that the job `id` has begun.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn begin(&self, id: &str) -> Result<()> {
        // What belongs to another job is no beginning of these files.
        for found in fs::read_dir(&self.path)?.flatten() {
            let name = found.file_name();
            if name.to_string_lossy().starts_with(".part-") {
                fs::remove_file(found.path())?;
            }
        }
        self.write(Some(id.to_owned()), self.earlier().to_vec())
    }

    /// Notes that all files of `job` are there, and removes those of the export before.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn finish(&self, job: &Job) -> Result<()> {
        let names: Vec<String> = job.files.iter().map(|file| file.name.clone()).collect();
        for name in self.earlier().iter().filter(|name| !names.contains(name)) {
            check(name)?;
            // Somebody may have taken it away.
            let _ = fs::remove_file(self.path.join(name));
        }
        self.write(None, names)
    }

    /// Where `file` goes while it is incomplete, and then.
    ///
    /// # Errors
    /// When its name is no plain one.
    pub fn places(&self, file: &ExportFile) -> Result<(PathBuf, PathBuf)> {
        check(&file.name)?;
        Ok((self.path.join(format!(".{}.partial", file.name)), self.path.join(&file.name)))
    }

    fn earlier(&self) -> &[String] {
        self.note.as_ref().map(|note| note.files.as_slice()).unwrap_or_default()
    }

    fn write(&self, id: Option<String>, files: Vec<String>) -> Result<()> {
        let note = Note { source: self.source.clone(), request: self.request.clone(), id, files };
        let (draft, path) = (self.path.join(format!("{NOTE}.partial")), self.path.join(NOTE));
        fs::write(&draft, serde_json::to_vec(&note)?)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

fn check(name: &str) -> Result<()> {
    if name.contains(['/', '\\']) || name.starts_with('.') {
        bail!("an export names a file `{name}`, which is no plain name");
    }
    Ok(())
}
