//! Retention: files past what is kept go out of the table.
//!
//! **Guarantees.** Only whole files, never hot rows: what has not been rolled stays whatever its age.
//! The numbers of their events are durable before the commit ([`crate::retention`]); a commit takes
//! out files and adds none. The files stay on disk for as long as replaced ones do, for readers.
//!
//! **Not guaranteed.** Anything about a clock that is wrong: events are as old as the machine says.
//!
//! **Limits.** [`GROUP_FILES`] files a commit. Their numbers take a bit each while they are read.
//!
//! **Failure.** A file that cannot be read stays, and is named; the others go all the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Compactor;
use crate::clock::now_ms;
use crate::config::RetentionConfig;
use crate::error::{Error, chain};
use crate::lake::retention::{Keep, expired, numbers};
use crate::lake::{DataFile, LakeError, ReplaceOutcome, SequenceSet};
use crate::retention::Expired;
use crate::roller::Request;

/// Files that one commit takes out at most: a hundred thousand rolls that nobody joined are a
/// hundred commits.
const GROUP_FILES: usize = 1_000;

impl RetentionConfig {
    /// What is kept at the moment `now_ms`, in milliseconds since 1970.
    pub(crate) fn keep(&self, now_ms: i64) -> Keep {
        let age = i64::try_from(self.age.as_micros()).unwrap_or(i64::MAX);
        Keep {
            received_from: (age > 0).then(|| now_ms.saturating_mul(1_000).saturating_sub(age)),
            bytes: (self.max_bytes > 0).then_some(self.max_bytes),
        }
    }
}

impl Compactor {
    /// Takes everything out of the table that is past what is kept; gives how many events went.
    pub(super) fn retain(&self) -> Result<u64, Error> {
        let outcome = self.take_out();
        match &outcome {
            Ok(_) => {
                self.state.retention_problem.clear();
            }
            Err(Error::Closed) => {}
            Err(error) => {
                let problem = chain(error);
                if self.state.retention_problem.set(problem.clone()) {
                    tracing::warn!(%problem, "files past retention stay; it is tried again");
                }
            }
        }
        outcome
    }

    fn take_out(&self) -> Result<u64, Error> {
        // Without the hot tables of the snapshot.
        let files = Arc::clone(&self.snapshots.load().files);
        let past = expired(&files, &self.node, self.retention.keep(now_ms()));
        let (mut events, mut unreadable) = (0, None);
        for group in past.chunks(GROUP_FILES) {
            let mut found = Found::default();
            for file in group {
                match numbers(file, &mut || self.may_go_on()) {
                    Ok(numbers) => found.add(file, numbers),
                    Err(LakeError::GivenUp) => return Err(Error::Closed),
                    Err(error) => {
                        unreadable.get_or_insert(error);
                    }
                }
            }
            if !found.files.is_empty() {
                events += self.commit_without(found)?;
            }
        }
        unreadable.map_or(Ok(events), |error| Err(error.into()))
    }

    fn commit_without(&self, found: Found) -> Result<u64, Error> {
        let began = Instant::now();
        let directory = &self.erasing.directory;
        let mut record = Expired::read(directory.root())?;
        record.add(&found.numbers);
        record.write(directory.root(), &**directory.disk())?;
        let (files, bytes) = (found.files.len() as u64, found.bytes());
        let replaced = self.ask(|answer| Request::Replace {
            removed: found.files,
            added: Vec::new(),
            erased: found.rows,
            answer,
        })??;
        if let ReplaceOutcome::Outdated { path } = replaced {
            tracing::info!(path, "another writer has replaced a file; retention looks again later");
            return Ok(0);
        }
        let state = &self.state;
        // Relaxed, all: statistics.
        state.expired_files.fetch_add(files, Ordering::Relaxed);
        state.expired_rows.fetch_add(found.rows, Ordering::Relaxed);
        state.expired_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (rows, ms) = (found.rows, began.elapsed().as_millis());
        tracing::info!(files, rows, bytes, ms, "past retention, taken out of the table");
        Ok(found.rows)
    }
}

/// Files that go together.
#[derive(Default)]
struct Found {
    files: Vec<DataFile>,
    rows: u64,
    numbers: BTreeMap<u32, SequenceSet>,
}

impl Found {
    fn add(&mut self, file: &DataFile, numbers: BTreeMap<u32, SequenceSet>) {
        self.files.push(file.clone());
        self.rows += file.rows.unwrap_or(0);
        for (shard, set) in numbers {
            let all = self.numbers.entry(shard).or_default();
            set.runs().for_each(|run| all.insert_all(run));
        }
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}
