//! A job: what is wanted, how far it is, and how it is kept on the disk.
//!
//! **Failure.** A description is replaced in one step and synced with its directory. A job without a
//! readable description is one that was never accepted, or is being removed; a start removes it, and
//! what was cancelled.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ExportError, KEPT, RESTARTS_MAX, remove_others};
use crate::error::Error;
use crate::promoted::TableColumns;
use crate::query::format::{Format, timestamp_text};

/// The description of a job.
const DESCRIPTION: &str = "job.json";
/// Beside it when the job was cancelled.
const CANCELLED: &str = "cancelled";

/// What an export writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// Parquet, compressed with zstd.
    #[default]
    Parquet,
    /// One JSON object a line.
    Ndjson,
    /// RFC 4180 with a header line in each file.
    Csv,
}

impl ExportFormat {
    /// How the result encoders call it.
    pub(super) fn encoding(self) -> Format {
        match self {
            Self::Parquet => Format::Parquet,
            Self::Ndjson => Format::Ndjson,
            Self::Csv => Format::Csv,
        }
    }

    /// How its files end.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }
}

/// Which events an export writes, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRequest {
    /// The only tenant whose events may be seen; all when absent.
    pub tenant: Option<String>,
    /// Events received at or after this moment, in microseconds since 1970.
    #[serde(with = "moment")]
    pub from: Option<i64>,
    /// Events received before this moment, in microseconds since 1970.
    #[serde(with = "moment")]
    pub to: Option<i64>,
    /// Events of this type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Events of this name.
    pub event: Option<String>,
    /// The columns to write; all when absent. Beside those of the table there is `id`, the text
    /// `node-shard-sequence`.
    pub columns: Option<Vec<String>>,
    /// What to write.
    pub format: ExportFormat,
}

impl ExportRequest {
    /// The columns to write, in their order.
    pub(super) fn column_names(&self, table: &TableColumns) -> Vec<String> {
        self.columns.clone().unwrap_or_else(|| table.names().map(str::to_owned).collect())
    }

    fn check(&self, table: &TableColumns) -> Result<(), ExportError> {
        let columns = self.columns.as_deref().unwrap_or_default();
        let wrong = |column: &String, problem| ExportError::Column {
            column: column.chars().take(64).collect(),
            problem,
        };
        for (at, column) in columns.iter().enumerate() {
            let is_known = column == "id" || table.names().any(|known| known == column);
            if !is_known {
                return Err(wrong(column, "is none of the table's"));
            }
            if columns[..at].contains(column) {
                return Err(wrong(column, "is asked for twice"));
            }
        }
        if self.columns.as_ref().is_some_and(Vec::is_empty) {
            return Err(wrong(&String::new(), "is missing: name one, or leave `columns` out"));
        }
        match (self.from, self.to) {
            (Some(from), Some(to)) if from >= to => Err(ExportError::Range),
            _ => Ok(()),
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It waits for its turn.
    Queued,
    /// It is being written.
    Running,
    /// Its files are there.
    Done,
    /// It has ended without files; `error` says why.
    Failed,
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportFile {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// An export as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name; later jobs have larger ones.
    pub id: String,
    /// How far it is.
    pub status: Status,
    /// What it writes.
    #[serde(flatten)]
    pub request: ExportRequest,
    /// When it was accepted, in microseconds since 1970; as text in JSON, as the others.
    #[serde(with = "moment")]
    pub created_at: Option<i64>,
    /// When it began to run, the last time.
    #[serde(with = "moment")]
    pub started_at: Option<i64>,
    /// When it ended.
    #[serde(with = "moment")]
    pub finished_at: Option<i64>,
    /// When it will be removed.
    #[serde(with = "moment")]
    pub expires_at: Option<i64>,
    /// Rows written so far.
    pub rows_done: u64,
    /// Rows that there will be, as far as is known: with filters it shrinks to the truth.
    pub rows_expected: u64,
    /// Bytes written so far.
    pub bytes_done: u64,
    /// Bytes that there will be, estimated from those so far.
    pub bytes_expected: u64,
    /// The files that can be fetched.
    pub files: Vec<ExportFile>,
    /// Why it failed.
    pub error: Option<String>,
    /// How often the process crashed while it ran.
    pub restarts: u32,
}

impl Job {
    /// A job on a table with `columns` that was accepted at `now`.
    pub(super) fn new(
        mut request: ExportRequest,
        columns: &TableColumns,
        now: i64,
    ) -> Result<Self, ExportError> {
        request.check(columns)?;
        // What was accepted at this very moment is in. A range in the future is empty, not wrong.
        let end = now.saturating_add(1);
        request.to = Some(request.to.map_or(end, |to| to.min(end)));
        Ok(Self {
            id: uuid::Uuid::now_v7().simple().to_string(),
            status: Status::Queued,
            request,
            created_at: Some(now),
            started_at: None,
            finished_at: None,
            expires_at: None,
            rows_done: 0,
            rows_expected: 0,
            bytes_done: 0,
            bytes_expected: 0,
            files: Vec::new(),
            error: None,
            restarts: 0,
        })
    }

    /// Whether `tenant` may know of it; everybody without a tenant may.
    pub(super) fn is_visible_to(&self, tenant: Option<&str>) -> bool {
        tenant.is_none() || tenant == self.request.tenant.as_deref()
    }

    pub(super) fn begin(&mut self, now: i64) {
        self.status = Status::Running;
        self.started_at = Some(now);
    }

    /// It ends at `now`, in failure when there is a `problem`.
    pub(super) fn end(&mut self, now: i64, problem: Option<String>) {
        self.status = if problem.is_some() { Status::Failed } else { Status::Done };
        self.finished_at = Some(now);
        let kept = i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX);
        self.expires_at = Some(now.saturating_add(kept));
        if problem.is_some() {
            self.files.clear();
        }
        self.error = problem;
    }

    /// It begins again, in this process or the next.
    pub(super) fn wait_again(&mut self) {
        self.status = Status::Queued;
        self.files.clear();
        (self.rows_done, self.bytes_done) = (0, 0);
    }

    /// Whether events of `tenant` may be in its files.
    pub(super) fn may_hold(&self, tenant: &str) -> bool {
        self.request.tenant.as_deref().is_none_or(|own| own == tenant)
    }

    /// It was running when the process ended: it waits again, or has failed too often.
    fn interrupted(&mut self, now: i64) {
        self.wait_again();
        self.restarts += 1;
        if self.restarts > RESTARTS_MAX {
            let problem = format!("the server crashed {} times while it ran", self.restarts);
            self.end(now, Some(problem));
        }
    }
}

/// The directory of jobs.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens `root`; it is created when it is not there.
    pub(super) fn open(root: PathBuf) -> Result<Self, Error> {
        fs::create_dir_all(&root).map_err(Error::io("create", &root))?;
        Ok(Self { root })
    }

    /// Where the job `id` is.
    pub(super) fn directory(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// What there are directories for.
    pub(super) fn ids(&self) -> Vec<String> {
        let found = fs::read_dir(&self.root).into_iter().flatten().flatten();
        found.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// All jobs, those that were interrupted made ready to begin again.
    pub(super) fn load(&self) -> Result<Vec<Job>, Error> {
        let mut jobs = Vec::new();
        let now = crate::clock::now_micros();
        for found in fs::read_dir(&self.root).map_err(Error::io("read", &self.root))? {
            let directory = found.map_err(Error::io("read", &self.root))?.path();
            let is_cancelled = directory.join(CANCELLED).exists();
            let job = match read(&directory) {
                Ok(job) => job.filter(|job| directory == self.directory(&job.id)),
                // What cannot be read now may be read by the next start.
                Err(error) if !is_cancelled => {
                    let path = directory.display();
                    tracing::error!(%path, %error, "an export is left alone: its job.json cannot be read");
                    continue;
                }
                Err(_) => None,
            };
            let Some(mut job) = job.filter(|_| !is_cancelled) else {
                let path = directory.display();
                tracing::warn!(%path, "removed what is left of a cancelled or unfinished export");
                remove_all(&directory).map_err(Error::io("remove", &directory))?;
                continue;
            };
            if job.status == Status::Running {
                job.interrupted(now);
                self.save(&job)?;
            } else if !job.files.iter().all(|file| is_there(&directory, file)) {
                job.end(now, Some("its files are not there any more".into()));
                self.save(&job)?;
            }
            let names = job.files.iter().map(|file| file.name.as_str());
            remove_others(&directory, &names.chain([DESCRIPTION]).collect::<Vec<_>>());
            jobs.push(job);
        }
        Ok(jobs)
    }

    /// Puts the description of `job` on the medium.
    pub(super) fn save(&self, job: &Job) -> Result<(), Error> {
        let directory = self.directory(&job.id);
        let is_new = !directory.exists();
        let path = directory.join(DESCRIPTION);
        let draft = directory.join("job.json.partial");
        let text = serde_json::to_vec_pretty(job).map_err(std::io::Error::from);
        fs::create_dir_all(&directory)
            .and_then(|()| File::create(&draft))
            .and_then(|mut file| file.write_all(&text?).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &path))
            .and_then(|()| sync(&directory))
            .and_then(|()| if is_new { sync(&self.root) } else { Ok(()) })
            .map_err(Error::io("write", &path))
    }

    /// Puts on the medium that the job `id` is cancelled: the next start removes what this process
    /// does not.
    pub(super) fn cancel(&self, id: &str) -> Result<(), Error> {
        let directory = self.directory(id);
        File::create(directory.join(CANCELLED))
            .and_then(|_| sync(&directory))
            // It was removed meanwhile.
            .or_else(gone)
            .map_err(Error::io("cancel", &directory))
    }

    /// Removes a job with its files. The description goes first: what is left of a removal that was
    /// interrupted is no job any more.
    pub(super) fn remove(&self, id: &str) -> Result<(), Error> {
        let directory = self.directory(id);
        fs::remove_file(directory.join(DESCRIPTION))
            .or_else(gone)
            .and_then(|()| remove_all(&directory).or_else(gone))
            .and_then(|()| sync(&self.root))
            .map_err(Error::io("remove", &directory))
    }

    /// Removes the files of a job that has failed.
    pub(super) fn remove_files(&self, id: &str) {
        remove_others(&self.directory(id), &[DESCRIPTION]);
    }
}

/// That something is gone already is no failure of its removal.
fn gone(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Removes what has been found among the jobs, whatever it is.
fn remove_all(path: &Path) -> std::io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn is_there(directory: &Path, file: &ExportFile) -> bool {
    fs::metadata(directory.join(&file.name)).is_ok_and(|found| found.len() == file.bytes)
}

/// The job in `directory`, if there is a description of one.
fn read(directory: &Path) -> std::io::Result<Option<Job>> {
    match fs::read(directory.join(DESCRIPTION)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Puts the entries of `directory` on the medium.
pub(super) fn sync(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Moments as text.
mod moment {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::timestamp_text;

    // The form of this function is serde's.
    #[expect(clippy::ref_option, reason = "the form of this function is serde's")]
    pub(super) fn serialize<S: Serializer>(at: &Option<i64>, out: S) -> Result<S::Ok, S::Error> {
        at.map(timestamp_text).serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let at = ringlake_event::time::parse_rfc3339(text.as_bytes());
        at.map(Some).ok_or_else(|| D::Error::custom("not a time"))
    }
}
