//! What retention has taken out of the table: which numbers are gone because they were old, or too
//! many.
//!
//! **Guarantees.** The numbers are durable before the commit that takes their events out, so that
//! `verify` can always tell them from lost ones, and that a batch in quarantine does not bring them
//! back. They are recorded once, whatever was killed in between.
//!
//! **Not guaranteed.** That every number in the record is gone: a crash may come before the commit,
//! and the events stay until the next look, which takes them.
//!
//! **Layout.** `<data>/retention.json`, see [`crate::checked_json`]: runs of numbers by shard. Old
//! events have small numbers, so that the runs of a shard grow together to one.
//!
//! **Roles.** The compactor writes it; `verify`, `import` of a quarantined batch and `backup` read it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use ringlake_disk::Disk;
use serde::{Deserialize, Serialize};

use crate::checked_json;
use crate::erase::{Runs, joined};
use crate::error::Error;
use crate::lake::SequenceSet;

const FILE: &str = "retention.json";
const WHAT: &str = "the record of what retention has taken out";

/// The numbers that are gone, or about to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Expired {
    gone: Runs,
}

impl Expired {
    /// Reads the record of the data directory `data`; without one nothing is gone.
    pub fn read(data: &Path) -> Result<Self, Error> {
        match checked_json::read(&path(data), WHAT) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                Ok(Self::default())
            }
            read => read,
        }
    }

    /// Adds numbers; those that are there count once.
    pub fn add(&mut self, numbers: &BTreeMap<u32, SequenceSet>) {
        for (shard, set) in numbers {
            let runs = self.gone.entry(*shard).or_default();
            *runs = joined(runs, set.runs().map(RangeInclusive::into_inner));
        }
    }

    /// Puts the record on the medium in the data directory `data`.
    pub fn write(&self, data: &Path, disk: &dyn Disk) -> Result<(), Error> {
        checked_json::write(self, &path(data), disk, "write the record of retention")
    }

    /// The numbers by shard, in order.
    pub fn by_shard(&self) -> BTreeMap<u32, Vec<RangeInclusive<i64>>> {
        let ranges = |runs: &Vec<(i64, i64)>| runs.iter().map(|run| run.0..=run.1).collect();
        self.gone.iter().map(|(shard, runs)| (*shard, ranges(runs))).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.gone.is_empty()
    }
}

fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use ringlake_disk::RealDisk;

    use super::*;

    fn numbers(shard: u32, ranges: &[RangeInclusive<i64>]) -> BTreeMap<u32, SequenceSet> {
        let mut set = SequenceSet::default();
        ranges.iter().for_each(|range| set.insert_all(range.clone()));
        BTreeMap::from([(shard, set)])
    }

    #[test]
    fn runs_grow_together_and_a_changed_byte_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        let read = || Expired::read(scratch.path());
        let mut record = read().unwrap();
        assert!(record.is_empty());
        record.add(&numbers(3, &[1..=10, 21..=30]));
        record.add(&numbers(0, &[5..=70_000]));
        record.write(scratch.path(), &RealDisk).unwrap();
        assert_eq!(read().unwrap(), record);
        // The same once more, after a crash, and what lies between.
        record.add(&numbers(3, &[1..=10, 11..=20]));
        record.write(scratch.path(), &RealDisk).unwrap();
        let runs = BTreeMap::from([(0, vec![5..=70_000]), (3, vec![1..=30])]);
        assert_eq!(read().unwrap().by_shard(), runs);

        let text = std::fs::read_to_string(path(scratch.path())).unwrap();
        std::fs::write(path(scratch.path()), text.replacen("30", "31", 1)).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains("not what was written"), "{error}");
    }
}
