//! Which files of a table are past what is kept, and which numbers they hold.
//!
//! **Guarantees.** Whole files go, in the order of their youngest rows. A file goes by age only when
//! every row of it is past the bound, and none goes while one with older rows alone stays. Files of
//! other nodes, and files whose writer did not say when their rows were received, stay.
//!
//! **Not guaranteed.** That nothing past the bound is there: a row stays as long as its file has a
//! younger one. A file is of one day, so that is a day at most.
//!
//! **Limits.** Compaction makes the files; those of [`CompactionConfig::file_bytes`] are the steps in
//! which a bound on bytes is kept.
//!
//! [`CompactionConfig::file_bytes`]: crate::config::CompactionConfig::file_bytes

use std::collections::BTreeMap;

use arrow::array::BooleanArray;
use object_store::path;

use super::delta::DataFile;
use super::erase::{numbers_of, visit};
use super::error::{LakeError, Result};
use super::location::is_data_file_of;
use super::verify::SequenceSet;

/// What is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Events received at this moment or later, in microseconds since 1970; all when absent.
    pub received_from: Option<i64>,
    /// So many bytes of files; any number when absent.
    pub bytes: Option<u64>,
}

/// The files of `node` that are past what is kept, those with the oldest rows first.
#[must_use]
pub fn expired(files: &[DataFile], node: &str, keep: Keep) -> Vec<DataFile> {
    if keep == Keep::default() {
        return Vec::new();
    }
    let of_node = |file: &&DataFile| {
        path::Path::parse(&*file.path).is_ok_and(|name| is_data_file_of(&name, node))
    };
    let ours: Vec<&DataFile> = files.iter().filter(of_node).collect();
    let mut bytes: u64 = ours.iter().map(|file| file.bytes).sum();
    let youngest = |file: &DataFile| file.rows.and(file.bounds.received_at).map(|ends| ends.1);
    let mut known: Vec<_> =
        ours.into_iter().filter_map(|file| Some((youngest(file)?, file))).collect();
    known.sort_by(|one, other| (one.0, &one.1.path).cmp(&(other.0, &other.1.path)));
    let is_past = |(youngest, file): &(i64, &DataFile)| {
        let old = keep.received_from.is_some_and(|from| *youngest < from);
        let much = keep.bytes.is_some_and(|most| bytes > most);
        bytes -= file.bytes;
        old || much
    };
    known.into_iter().take_while(is_past).map(|(_, file)| file.clone()).collect()
}

/// The numbers of all rows of `file`, by shard. `go_on` as in [`super::erase::find`].
///
/// # Errors
///
/// As [`super::erase::find`], and [`LakeError::Content`] when rows have no number of their own.
pub fn numbers(
    file: &DataFile,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<BTreeMap<u32, SequenceSet>> {
    let mut shards: BTreeMap<u32, SequenceSet> = BTreeMap::new();
    let (mut rows, mut numbered) = (0, 0);
    visit(file, &["shard", "sequence"], go_on, &mut |batch| {
        rows += batch.num_rows();
        let all = BooleanArray::from(vec![true; batch.num_rows()]);
        for (shard, number) in numbers_of(batch, &all) {
            numbered += usize::from(shards.entry(shard).or_default().insert(number));
        }
    })?;
    if rows != numbered || file.rows != u64::try_from(rows).ok() {
        let problem =
            format!("has {rows} rows with {numbered} numbers, the log says {:?}", file.rows);
        return Err(LakeError::Content { path: file.local.to_path_buf(), problem });
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::*;
    use crate::lake::delta::Bounds;
    use crate::lake::testing::{DAY, NODE, append, hot_table, scratch, write_table};

    /// A file of `bytes` bytes with rows received between both moments.
    fn file(node: &str, ends: Option<(i64, i64)>, bytes: u64) -> DataFile {
        let path = format!("date={DAY}/{node}-{}.parquet", uuid::Uuid::now_v7());
        DataFile {
            local: std::path::Path::new(&path).into(),
            path: path.into(),
            date: DAY.into(),
            rows: Some(1),
            bytes,
            modified_ms: 0,
            bounds: Bounds { received_at: ends, ..Bounds::default() },
        }
    }

    fn sizes(files: &[DataFile]) -> Vec<u64> {
        files.iter().map(|file| file.bytes).collect()
    }

    #[test]
    fn a_file_goes_when_its_last_row_is_past_the_bound() {
        let ends = [(10, 20), (0, 30), (5, 9), (31, 31)];
        let files: Vec<_> =
            (0_u64..).zip(ends).map(|(at, ends)| file(NODE, Some(ends), at)).collect();
        let past = |from| {
            let keep = Keep { received_from: Some(from), bytes: None };
            sizes(&expired(&files, NODE, keep))
        };
        assert_eq!(past(9), [0_u64; 0]);
        assert_eq!(past(10), [2]);
        assert_eq!(past(20), [2]);
        assert_eq!(past(21), [2, 0], "the row of moment 0 stays with that of moment 30");
        assert_eq!(past(32), [2, 0, 1, 3]);
        assert_eq!(expired(&files, NODE, Keep::default()), []);
    }

    #[test]
    fn files_go_until_the_bytes_fit() {
        let files: Vec<_> =
            [40, 30, 20, 10].map(|at| file(NODE, Some((0, at)), at.unsigned_abs())).into();
        let past =
            |bytes| sizes(&expired(&files, NODE, Keep { received_from: None, bytes: Some(bytes) }));
        assert_eq!(past(100), [0_u64; 0]);
        assert_eq!(past(99), [10]);
        assert_eq!(past(70), [10, 20]);
        assert_eq!(past(0), [10, 20, 30, 40]);
    }

    proptest! {
        /// Nothing that may stay goes, whatever the files are, and as little as may.
        #[test]
        fn nothing_younger_than_the_bound_goes(
            made in prop::collection::vec((0..3_u8, 0..50_i64, 0..50_i64, 0..100_u64), 0..40),
            from in prop::option::of(0..110_i64),
            most in prop::option::of(0..2_000_u64),
        ) {
            let files: Vec<_> = made
                .iter()
                .map(|&(kind, first, length, bytes)| match kind {
                    0 => file("node-b", Some((first, first + length)), bytes),
                    1 => file(NODE, None, bytes),
                    _ => file(NODE, Some((first, first + length)), bytes),
                })
                .collect();
            let gone = expired(&files, NODE, Keep { received_from: from, bytes: most });
            let stays = |file: &&DataFile| !gone.contains(file);
            let youngest = |file: &DataFile| file.bounds.received_at.unwrap().1;
            for file in &gone {
                prop_assert!(file.path.contains(NODE) && file.bounds.received_at.is_some());
            }
            let ours = || files.iter().filter(|file| file.path.contains(NODE));
            let mut bytes: u64 = ours().map(|file| file.bytes).sum();
            for file in &gone {
                let old = from.is_some_and(|from| youngest(file) < from);
                prop_assert!(old || most.is_some_and(|most| bytes > most), "{file:?}");
                bytes -= file.bytes;
            }
            let last = gone.iter().map(youngest).max();
            for file in ours().filter(stays).filter(|file| file.bounds.received_at.is_some()) {
                prop_assert!(from.is_none_or(|from| youngest(file) >= from), "{file:?} stays");
                prop_assert!(last.is_none_or(|last| youngest(file) >= last), "{file:?} is older");
                prop_assert!(most.is_none_or(|most| bytes <= most), "{bytes} bytes stay");
            }
        }
    }

    #[test]
    fn the_numbers_of_a_file_are_all_of_its_rows() {
        let (_data, location) = scratch();
        location.create().unwrap();
        let connection = hot_table("hot");
        append(&connection, "hot", NODE, 3, "range(7, 20001) t(i) WHERE i <> 500", 0);
        append(&connection, "hot", NODE, 0, "range(1, 4) t(i)", 0);
        let rolled = write_table(&connection, "hot", &location, NODE).unwrap();
        let mut file = DataFile::of(&location, &rolled[0]);
        let runs = |file: &DataFile| {
            let found = numbers(file, &mut || true)?;
            let runs = |set: &SequenceSet| set.runs().collect::<Vec<_>>();
            Ok::<_, LakeError>(
                found.iter().map(|(shard, set)| (*shard, runs(set))).collect::<Vec<_>>(),
            )
        };
        assert_eq!(runs(&file).unwrap(), [(0, vec![1..=3]), (3, vec![7..=499, 501..=20_000])]);
        assert!(matches!(numbers(&file, &mut || false), Err(LakeError::GivenUp)));
        file.rows = Some(20_000);
        let error = runs(&file).unwrap_err().to_string();
        assert!(error.contains("19996 rows"), "{error}");
    }
}
