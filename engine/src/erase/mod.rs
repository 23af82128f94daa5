//! Erasing: every event of one user, of one browser or of one visitor goes, from the log, the hot
//! tables, the Parquet files, the quarantine and the history of the table.
//!
//! ```text
//!  asked ──▶ record synced ──▶ answered
//!               │  whose, and up to which number of each shard
//!               ▼
//!            roll ──▶ numbers synced ──▶ files without them, commit ──▶ checkpoint, older log gone
//!               ──▶ quarantine ──▶ log segments ──▶ exports ──▶ replaced files
//!            ──▶ record without the name
//! ```
//!
//! **Guarantees**
//! - What was accepted before the request goes, and nothing that comes later: an erase reaches up to
//!   the numbers that the shards have given out by then.
//! - A job is answered when its record is on the medium. A crash at any point is followed by the
//!   whole job again, which finds what is left: whatever a replay or a roll brings back before it has
//!   ended is erased by it.
//! - The numbers are recorded durably before the commit that makes them gone, and for good, so that
//!   `verify` can tell them from lost ones, and finds an event that has come back.
//! - A job is done when no file of the data directory holds the events any more, and the record does
//!   not say any more whose they were.
//!
//! **Not guaranteed**
//! - Readers outside this process that use an older version of the table: its history and all files
//!   that were replaced are gone with the job, whatever time they had left.
//! - Bytes in quarantine that nobody can read: they may hold events of anybody, so they stay, and the
//!   report names the files ([`EraseJob::unreadable`]).
//! - That the message ids of erased events are known after the next start: a client that sends such
//!   an event again then brings a new one. Nor anything about copies: backups, exports that were
//!   fetched, other nodes, which erase what they have written themselves, and blocks of the medium
//!   that the file system has freed.
//!
//! **Roles.** Anybody asks ([`Engine::erase`](crate::Engine::erase)). The compactor's thread does
//! one job after the other, between merges; the roller commits; each shard lets go of its segments.
//!
//! **Limits.** At most [`PENDING_MAX`] jobs wait. Each reads four columns of the whole table.
//! In memory about 200 bytes a job, done ones included, and 16 a run of numbers while it runs.

mod ask;
mod record;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use ringlake_disk::{Disk, create_directories};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::now_micros;
use crate::error::Error;
use crate::lake::DataFile;
use crate::query::format::timestamp_text;

pub use record::{Erased, erased};
pub(crate) use record::{Record, Records, Runs, joined};

/// Jobs that may wait. Each takes a scan of the table, so that more are a backlog of hours.
pub const PENDING_MAX: usize = 1_000;

/// Whose events go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// The owner of the events.
    pub tenant: String,
    /// Who in them.
    pub who: Who,
}

/// Who is erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the columns")]
pub enum Who {
    UserId(String),
    AnonymousId(String),
    VisitorId(i64),
}

impl Who {
    /// The column that says it.
    #[must_use]
    pub fn column(&self) -> &'static str {
        match self {
            Self::UserId(_) => "user_id",
            Self::AnonymousId(_) => "anonymous_id",
            Self::VisitorId(_) => "visitor_id",
        }
    }

    /// Its bytes as they stand in files that are not compressed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::UserId(text) | Self::AnonymousId(text) => text.clone().into_bytes(),
            Self::VisitorId(number) => number.to_le_bytes().to_vec(),
        }
    }

    fn matches(&self, batch: &RecordBatch) -> Option<BooleanArray> {
        let column = batch.column_by_name(self.column())?;
        Some(match self {
            Self::UserId(text) | Self::AnonymousId(text) => {
                let found = column.as_string_opt::<i32>()?.iter();
                found.map(|value| Some(value == Some(text))).collect()
            }
            Self::VisitorId(number) => {
                let found = column.as_primitive_opt::<Int64Type>()?.iter();
                found.map(|value| Some(value == Some(*number))).collect()
            }
        })
    }
}

/// Which rows an erase takes.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub node: String,
    pub erasure: Erasure,
    /// The highest number of each shard that it takes.
    pub through: BTreeMap<u32, i64>,
}

impl Selection {
    /// The columns that [`Selection::doomed`] looks at.
    pub fn columns(&self) -> [&'static str; 5] {
        ["node", "shard", "sequence", "tenant", self.erasure.who.column()]
    }

    /// Whether `file` may hold rows that go.
    pub fn may_be_in(&self, file: &DataFile) -> bool {
        let tenants = file.bounds.tenant.as_ref();
        tenants.is_none_or(|(min, max)| (&**min..=&**max).contains(&&*self.erasure.tenant))
    }

    /// Which rows of `batch` go.
    pub fn doomed(&self, batch: &RecordBatch) -> BooleanArray {
        self.find(batch).unwrap_or_else(|| BooleanArray::from(vec![false; batch.num_rows()]))
    }

    fn find(&self, batch: &RecordBatch) -> Option<BooleanArray> {
        let named = self.erasure.who.matches(batch)?;
        let text = |name| batch.column_by_name(name)?.as_string_opt::<i32>();
        let (nodes, tenants) = (text("node")?, text("tenant")?);
        let shards = batch.column_by_name("shard")?.as_primitive_opt::<Int32Type>()?;
        let sequences = batch.column_by_name("sequence")?.as_primitive_opt::<Int64Type>()?;
        let within = |row: usize| {
            let shard = u32::try_from(shards.value(row)).ok();
            let last = shard.and_then(|shard| self.through.get(&shard));
            last.is_some_and(|last| sequences.value(row) <= *last)
        };
        let doomed = |row: usize| {
            named.value(row)
                && tenants.is_valid(row)
                && tenants.value(row) == self.erasure.tenant
                && nodes.is_valid(row)
                && nodes.value(row) == self.node
                && within(row)
        };
        Some((0..batch.num_rows()).map(|row| Some(doomed(row))).collect())
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EraseStatus {
    /// It waits for its turn.
    Queued,
    /// It is being done, or is tried again: [`EraseJob::problem`] says why.
    Running,
    /// No file holds the events any more.
    Done,
}

/// A job and its report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EraseJob {
    /// Its id. Ids sort by the time of the request.
    pub id: String,
    /// How far it is.
    pub status: EraseStatus,
    /// Whose events they are.
    pub tenant: String,
    /// The column that the request names; its value is not told.
    pub by: String,
    /// When it was asked for (RFC 3339).
    pub requested_at: String,
    /// When it was done.
    pub finished_at: Option<String>,
    /// Events found so far; when it is done, events erased.
    pub events: u64,
    /// Files of the table that were written again without them, or removed.
    pub files: u64,
    /// Pieces in quarantine that were written again without them, or removed.
    pub quarantined: u64,
    /// Files in quarantine that cannot be read, and may hold the events and others': whoever runs the
    /// server decides what becomes of them.
    pub unreadable: Vec<String>,
    /// Why it did not go on the last time.
    pub problem: Option<String>,
}

/// All jobs of a data directory.
#[derive(Debug)]
pub(crate) struct Erasures {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    jobs: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Without the numbers when it is done.
    record: Record,
    running: bool,
    /// Nothing is left to do but to remove files that readers hold.
    removing: bool,
    problem: Option<String>,
}

/// Where the records are.
#[must_use]
pub fn directory(data: &Path) -> PathBuf {
    data.join("erasures")
}

impl Erasures {
    /// Reads the records of the data directory `data`.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn open(data: &Path, disk: Arc<dyn Disk>) -> Result<Self, Error> {
        let directory = directory(data);
        let mut jobs = BTreeMap::new();
        for mut record in record::read_all(&directory)? {
            record.settle();
            jobs.insert(record.id.clone(), Entry::new(record));
        }
        Ok(Self { directory, disk, jobs: Mutex::new(jobs) })
    }

    /// Makes a job durable.
    ///
    /// # Errors
    /// [`Error::Crowded`] when too many wait, and what keeps the record from being written.
    pub fn add(&self, erasure: Erasure, through: BTreeMap<u32, i64>) -> Result<EraseJob, Error> {
        let mut jobs = self.lock();
        let pending = jobs.values().filter(|entry| entry.record.is_pending()).count();
        if pending >= PENDING_MAX {
            return Err(Error::Crowded { what: "erasures", limit: PENDING_MAX });
        }
        let id = Uuid::now_v7().simple().to_string();
        let record = Record::new(id.clone(), erasure, through, now_micros());
        create_directories(&*self.disk, &self.directory)
            .and_then(|()| {
                self.disk.sync_directory(self.directory.parent().unwrap_or(Path::new(".")))
            })
            .map_err(Error::io("create", &self.directory))?;
        record.write(&self.directory, &*self.disk)?;
        let entry = jobs.entry(id).or_insert(Entry::new(record));
        Ok(entry.job())
    }

    /// All jobs, newest first.
    pub fn all(&self) -> Vec<EraseJob> {
        self.lock().values().rev().map(Entry::job).collect()
    }

    /// One job.
    pub fn one(&self, id: &str) -> Option<EraseJob> {
        self.lock().get(id).map(Entry::job)
    }

    /// The ids of the jobs that are not done, oldest first.
    pub fn pending(&self) -> Vec<String> {
        let jobs = self.lock();
        let pending = jobs.iter().filter(|(_, entry)| entry.record.is_pending());
        pending.map(|(id, _)| id.clone()).collect()
    }

    /// The record of a job that is taken on now, and whether only files are left to be removed.
    pub fn begin(&self, id: &str) -> Option<(Record, bool)> {
        let mut jobs = self.lock();
        let entry = jobs.get_mut(id)?;
        entry.running = true;
        Some((entry.record.clone(), entry.removing))
    }

    /// Makes what a job has found durable.
    ///
    /// # Errors
    /// What keeps the record from being written; the old one stays then.
    pub fn save(&self, record: &Record) -> Result<(), Error> {
        record.write(&self.directory, &*self.disk)?;
        if let Some(entry) = self.lock().get_mut(&record.id) {
            entry.record = record.clone();
        }
        Ok(())
    }

    /// Only files are left to be removed, until the next start.
    pub fn removing(&self, id: &str) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.removing = true;
            entry.problem = None;
        }
    }

    /// Makes durable that a job is done.
    ///
    /// # Errors
    /// As [`Erasures::save`].
    pub fn finish(&self, mut record: Record) -> Result<(), Error> {
        record.finish(now_micros());
        record.write(&self.directory, &*self.disk)?;
        record.settle();
        self.lock().insert(record.id.clone(), Entry::new(record));
        Ok(())
    }

    /// Notes why a job has not gone on. True when that is news.
    pub fn failed(&self, id: &str, problem: &str) -> bool {
        let mut jobs = self.lock();
        let Some(entry) = jobs.get_mut(id) else { return false };
        let is_news = entry.problem.as_deref() != Some(problem);
        entry.problem = Some(problem.to_owned());
        is_news
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(record: Record) -> Self {
        Self { record, running: false, removing: false, problem: None }
    }

    fn job(&self) -> EraseJob {
        let record = &self.record;
        let status = match (record.is_pending(), self.running) {
            (false, _) => EraseStatus::Done,
            (true, true) => EraseStatus::Running,
            (true, false) => EraseStatus::Queued,
        };
        EraseJob {
            id: record.id.clone(),
            status,
            tenant: record.tenant.clone(),
            by: record.by.clone(),
            requested_at: timestamp_text(record.requested_at),
            finished_at: record.finished_at.map(timestamp_text),
            events: record.events,
            files: record.files,
            quarantined: record.quarantined,
            unreadable: record.unreadable.clone(),
            problem: self.problem.clone(),
        }
    }
}

/// Numbers by shard.
pub(crate) fn by_shard(numbers: &[(u32, i64)]) -> HashMap<u32, Vec<i64>> {
    let mut shards: HashMap<u32, Vec<i64>> = HashMap::new();
    for &(shard, number) in numbers {
        shards.entry(shard).or_default().push(number);
    }
    shards
}

#[cfg(test)]
mod tests;
