//! The record of an erase: one file a job.
//!
//! **Guarantees.** Those of [`checked_json`]. While the job runs the record says whose events go; once
//! it is done it says only which numbers.
//!
//! **Layout.** `<data>/erasures/<id>.json`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::Path;

use ringlake_disk::{Disk, create_directories};
use serde::{Deserialize, Serialize};

use super::{Erasure, by_shard};
use crate::checked_json;
use crate::error::Error;

const EXTENSION: &str = "json";

/// Runs of numbers, first and last, by shard; in order and never side by side.
pub(crate) type Runs = BTreeMap<u32, Vec<(i64, i64)>>;

/// What is durable of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub id: String,
    pub tenant: String,
    /// The column that says who it is.
    pub by: String,
    /// Absent once it is done.
    pub erasure: Option<Erasure>,
    /// The highest number of each shard that it takes.
    pub through: BTreeMap<u32, i64>,
    /// Microseconds since 1970.
    pub requested_at: i64,
    pub finished_at: Option<i64>,
    /// The numbers that are gone, or about to be.
    pub gone: Runs,
    /// How many those are.
    pub events: u64,
    pub files: u64,
    pub quarantined: u64,
    pub unreadable: Vec<String>,
}

impl Record {
    pub fn new(
        id: String,
        erasure: Erasure,
        through: BTreeMap<u32, i64>,
        requested_at: i64,
    ) -> Self {
        Self {
            id,
            tenant: erasure.tenant.clone(),
            by: erasure.who.column().to_owned(),
            erasure: Some(erasure),
            through,
            requested_at,
            finished_at: None,
            gone: Runs::new(),
            events: 0,
            files: 0,
            quarantined: 0,
            unreadable: Vec::new(),
        }
    }

    pub fn is_pending(&self) -> bool {
        self.erasure.is_some()
    }

    /// Adds numbers; those that are there count once.
    pub fn add(&mut self, numbers: &[(u32, i64)]) {
        for (shard, mut found) in by_shard(numbers) {
            let runs = self.gone.entry(shard).or_default();
            found.sort_unstable();
            *runs = joined(runs, found.into_iter().map(|number| (number, number)));
        }
        let lengths = self.gone.values().flatten().map(|(first, last)| last.abs_diff(*first) + 1);
        self.events = lengths.sum();
    }

    /// Forgets whose events they were.
    pub fn finish(&mut self, now: i64) {
        self.erasure = None;
        self.through.clear();
        self.finished_at = Some(now);
    }

    /// Lets go of what nobody asks a job that is done.
    pub fn settle(&mut self) {
        if !self.is_pending() {
            self.gone = Runs::new();
        }
    }

    /// Puts the record on the medium.
    pub fn write(&self, directory: &Path, disk: &dyn Disk) -> Result<(), Error> {
        let path = directory.join(format!("{}.{EXTENSION}", self.id));
        checked_json::write(self, &path, disk, "write the record of an erase")
    }
}

/// Both lists in one, both in order.
pub(crate) fn joined(
    runs: &[(i64, i64)],
    more: impl Iterator<Item = (i64, i64)>,
) -> Vec<(i64, i64)> {
    let mut all: Vec<_> = runs.iter().copied().chain(more).collect();
    all.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::with_capacity(runs.len());
    for (first, last) in all {
        match joined.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// Every record in `directory`, oldest first.
pub(super) fn read_all(directory: &Path) -> Result<Vec<Record>, Error> {
    let mut records = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(records),
        entries => entries.map_err(Error::io("list", directory))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io("list", directory))?.path();
        // A crash may have left a draft behind.
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            records.push(checked_json::read(&path, "a record of an erase")?);
        }
    }
    records.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(records)
}

/// What the erases of a data directory have taken.
#[derive(Debug, Clone, Default)]
pub struct Erased {
    /// Numbers that are gone or about to be, by shard.
    pub gone: BTreeMap<u32, Vec<RangeInclusive<i64>>>,
    /// Those of jobs that are done.
    pub done: BTreeMap<u32, Vec<RangeInclusive<i64>>>,
}

/// Reads what the erases of the data directory `data` have taken.
///
/// # Errors
/// When a record cannot be read, or is damaged.
pub fn erased(data: &Path) -> Result<Erased, Error> {
    let mut erased = Erased::default();
    for record in read_all(&super::directory(data))? {
        let done = !record.is_pending();
        for (shard, runs) in record.gone {
            let ranges = runs.into_iter().map(|(first, last)| first..=last);
            let ranges: Vec<_> = ranges.collect();
            if done {
                erased.done.entry(shard).or_default().extend(ranges.iter().cloned());
            }
            erased.gone.entry(shard).or_default().extend(ranges);
        }
    }
    Ok(erased)
}

/// The records of a data directory at one moment.
#[derive(Debug)]
pub(crate) struct Records(Vec<Record>);

impl Records {
    /// Reads them.
    pub fn read(data: &Path) -> Result<Self, Error> {
        read_all(&super::directory(data)).map(Self)
    }

    /// Whether the jobs that are done are those that were done `before`.
    pub fn has_ended_as(&self, before: &Self) -> bool {
        let done = |records: &Self| {
            let done = records.0.iter().filter(|record| !record.is_pending());
            done.map(|record| record.id.clone()).collect::<Vec<_>>()
        };
        done(self) == done(before)
    }

    /// Puts them on the medium in the data directory `data`.
    pub fn write(&self, data: &Path, disk: &dyn Disk) -> Result<(), Error> {
        let directory = super::directory(data);
        create_directories(disk, &directory).map_err(Error::io("create", &directory))?;
        self.0.iter().try_for_each(|record| record.write(&directory, disk))
    }
}
