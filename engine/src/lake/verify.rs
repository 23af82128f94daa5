//! Proof of what the table holds: every sequence number of a node, counted from the files.
//!
//! **Guarantees.** Rows are read from the files themselves, never from statistics. Each number that
//! occurs twice, is missing or lies beyond the table's own `txn` number is found, whatever the
//! order of the rows. Every changed byte of a file that carries checksums is found.
//!
//! **Not guaranteed.** That a missing number is lost: numbers may be recorded as gone elsewhere
//! ([`ShardCheck::explain`]).
//!
//! **Memory.** One bit a number while a stretch of 65,536 numbers is incomplete, a few bytes a
//! stretch when it is complete or wholly absent; one batch of rows at a time. Numbers beyond `txn`
//! are only counted, so that a damaged file cannot ask for more.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::RangeInclusive;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::check::{check_outside, check_whole};
use super::delta::{DataFile, Table};
use super::error::{LakeError, Result};
use super::footer;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 65_536;
/// Problems that are described; further ones are counted.
const PROBLEMS_MAX: usize = 1_000;
/// The columns that say which event a row is.
const IDENTITY: [&str; 3] = ["node", "shard", "sequence"];

/// What a table holds.
#[derive(Debug, Default)]
pub struct TableCheck {
    /// The Delta version that was read.
    pub version: u64,
    /// Its files.
    pub files: u64,
    /// Rows of the node that was asked for.
    pub rows: u64,
    /// Rows of other nodes; they are not examined further.
    pub rows_of_other_nodes: u64,
    /// The node's shards, by number.
    pub shards: Vec<ShardCheck>,
    /// Files that are missing, unreadable or not as the log says, one sentence each.
    pub problems: Vec<String>,
}

/// What a table holds of one shard.
#[derive(Debug, Default)]
pub struct ShardCheck {
    /// The shard.
    pub shard: u32,
    /// How far it is in the table, as the table says.
    pub txn: i64,
    /// Its rows.
    pub rows: u64,
    /// Rows whose number another row had already.
    pub doubled: u64,
    /// Rows whose number is above `txn`.
    pub above: u64,
    /// The numbers from 1 to `txn` that there are.
    pub present: SequenceSet,
}

impl ShardCheck {
    /// The numbers from 1 to `txn` that no row has, in runs.
    pub fn missing(&self) -> impl Iterator<Item = RangeInclusive<i64>> {
        self.present.missing(1..=self.txn)
    }

    /// How many of `numbers` there are.
    #[must_use]
    pub fn count(&self, numbers: &RangeInclusive<i64>) -> i64 {
        let (first, last) = (*numbers.start().max(&1), *numbers.end().min(&self.txn));
        let absent = self.present.missing(first..=last).map(|run| run.end() - run.start() + 1);
        (last - first + 1).max(0) - absent.sum::<i64>()
    }

    /// Takes `numbers` for accounted for: they are recorded as gone.
    pub fn explain(&mut self, numbers: RangeInclusive<i64>) {
        let numbers = *numbers.start().max(&1)..=*numbers.end().min(&self.txn);
        self.present.insert_all(numbers);
    }
}

/// Reads every live file of `table` and counts the numbers of its node.
///
/// # Errors
///
/// [`LakeError::Delta`] when the log cannot be read. Damaged files are [`TableCheck::problems`].
pub fn check_table(table: &Table) -> Result<TableCheck> {
    let files = table.live_files()?;
    let new = |(shard, txn)| (shard, ShardCheck { shard, txn, ..ShardCheck::default() });
    let mut count = Count {
        node: table.node(),
        shards: table.all_sequences()?.into_iter().map(new).collect(),
        check: TableCheck {
            version: table.version(),
            files: u64::try_from(files.len()).unwrap_or(u64::MAX),
            ..TableCheck::default()
        },
        problems: 0,
    };
    for file in files.iter() {
        if let Err(error) = count.file(file) {
            count.problem(describe(&error));
        }
    }
    let mut check = count.check;
    check.shards = count.shards.into_values().collect();
    let untold = count.problems - check.problems.len();
    if untold > 0 {
        check.problems.push(format!("and {untold} more problems with files"));
    }
    Ok(check)
}

/// A check under way.
struct Count<'a> {
    node: &'a str,
    shards: BTreeMap<u32, ShardCheck>,
    check: TableCheck,
    /// Problems found, described or not.
    problems: usize,
}

impl Count<'_> {
    fn problem(&mut self, sentence: String) {
        self.problems += 1;
        if self.check.problems.len() < PROBLEMS_MAX {
            self.check.problems.push(sentence);
        }
    }

    /// Compares a file with what the log says of it and counts its rows.
    fn file(&mut self, file: &DataFile) -> Result<()> {
        let path = &*file.local;
        if let Err(error) = check_whole(file) {
            self.problem(describe(&error));
            // With a sound footer the pages that are whole can still be counted.
            if matches!(error, LakeError::Io { .. }) || check_outside(file).is_err() {
                return Ok(());
            }
        }
        let opened = File::open(path).map_err(LakeError::io("open", path))?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(opened, options)
            .map_err(LakeError::parquet(path))?;
        let rows = footer::rows(reader.metadata());
        if let Some(said) = file.rows.filter(|&said| said != rows) {
            self.problem(format!("{} has {rows} rows, the log says {said}", file.path));
        }
        let wanted = ProjectionMask::columns(reader.parquet_schema(), IDENTITY);
        let batches = reader.with_projection(wanted).with_batch_size(BATCH_ROWS).build();
        for batch in batches.map_err(LakeError::parquet(path))? {
            let batch = batch.map_err(|error| LakeError::parquet(path)(error.into()))?;
            self.batch(file, &batch)?;
        }
        Ok(())
    }

    fn batch(&mut self, file: &DataFile, batch: &RecordBatch) -> Result<()> {
        let [node, shard, sequence] = IDENTITY.map(|name| batch.column_by_name(name));
        let node = node.and_then(|column| column.as_string_opt::<i32>());
        let shard = shard.and_then(|column| column.as_primitive_opt::<Int32Type>());
        let sequence = sequence.and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(nodes), Some(shards), Some(sequences)) = (node, shard, sequence) else {
            return Err(LakeError::Content {
                path: file.local.to_path_buf(),
                problem: format!("lacks one of the columns {IDENTITY:?} or has other types"),
            });
        };
        let mut nameless = 0_u64;
        for row in 0..batch.num_rows() {
            if nodes.is_valid(row) && nodes.value(row) != self.node {
                self.check.rows_of_other_nodes += 1;
                continue;
            }
            self.check.rows += 1;
            let known = nodes.is_valid(row) && shards.is_valid(row) && sequences.is_valid(row);
            match u32::try_from(shards.value(row)) {
                Ok(shard) if known && sequences.value(row) >= 1 => {
                    self.number(shard, sequences.value(row));
                }
                _ => nameless += 1,
            }
        }
        if nameless > 0 {
            let sentence = "rows without a node, a shard or a sequence number above 0";
            self.problem(format!("{} has {nameless} {sentence}", file.path));
        }
        Ok(())
    }

    fn number(&mut self, shard: u32, sequence: i64) {
        let check = self
            .shards
            .entry(shard)
            .or_insert_with(|| ShardCheck { shard, ..ShardCheck::default() });
        check.rows += 1;
        if sequence > check.txn {
            check.above += 1;
        } else if !check.present.insert(sequence) {
            check.doubled += 1;
        }
    }
}

/// An error with its causes, in one line.
fn describe(error: &LakeError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Numbers in one stretch.
const STRETCH: i64 = 65_536;
/// Words of a stretch's bitmap.
const WORDS: usize = 1_024;
const _: () = assert!(WORDS * 64 == 65_536);

/// A set of sequence numbers: bitmaps where it is ragged, next to nothing where it is dense.
#[derive(Debug, Default, Clone)]
pub struct SequenceSet {
    /// By number divided by [`STRETCH`]; absent means that none is in the set.
    stretches: BTreeMap<i64, Stretch>,
}

#[derive(Debug, Clone)]
enum Stretch {
    /// Every number is in the set.
    Full,
    /// Some are; `count` says how many bits are set.
    Partial { count: i64, words: Box<[u64; WORDS]> },
}

impl Stretch {
    fn empty() -> Self {
        Self::Partial { count: 0, words: Box::new([0; WORDS]) }
    }

    /// The first number at or after `offset` that is in the set, or that is not, as `wanted` says.
    fn find(&self, offset: i64, wanted: bool) -> Option<i64> {
        let Self::Partial { words, .. } = self else { return wanted.then_some(offset) };
        let (first, bit) = place(offset);
        let flip = if wanted { 0 } else { u64::MAX };
        for (index, word) in words.iter().enumerate().skip(first) {
            let ignored = if index == first { !(u64::MAX << bit) } else { 0 };
            let found = (word ^ flip) & !ignored;
            if found != 0 {
                let index = i64::try_from(index).expect("a stretch has 1,024 words");
                return Some(index * i64::from(u64::BITS) + i64::from(found.trailing_zeros()));
            }
        }
        None
    }
}

/// The word and the bit of the number at `offset` in its stretch.
fn place(offset: i64) -> (usize, u32) {
    let offset = u32::try_from(offset).expect("an offset is below 65,536");
    let word = usize::try_from(offset / u64::BITS).expect("a word index is below 1,024");
    (word, offset % u64::BITS)
}

impl SequenceSet {
    /// Adds `number`; `false` when it was there.
    pub fn insert(&mut self, number: i64) -> bool {
        let (key, offset) = (number.div_euclid(STRETCH), number.rem_euclid(STRETCH));
        let stretch = self.stretches.entry(key).or_insert_with(Stretch::empty);
        let Stretch::Partial { count, words } = stretch else { return false };
        let (word, bit) = place(offset);
        let mask = 1_u64 << bit;
        if words[word] & mask != 0 {
            return false;
        }
        words[word] |= mask;
        *count += 1;
        if *count == STRETCH {
            *stretch = Stretch::Full;
        }
        true
    }

    /// Adds all of `numbers`, whether they were there or not.
    pub fn insert_all(&mut self, numbers: RangeInclusive<i64>) {
        let (mut next, end) = numbers.into_inner();
        while next <= end {
            let key = next.div_euclid(STRETCH);
            let last = key.saturating_mul(STRETCH).saturating_add(STRETCH - 1);
            if next.rem_euclid(STRETCH) == 0 && last <= end {
                self.stretches.insert(key, Stretch::Full);
            } else {
                for number in next..=last.min(end) {
                    self.insert(number);
                }
            }
            let Some(following) = last.checked_add(1) else { return };
            next = following;
        }
    }

    /// Whether `number` is in the set.
    #[must_use]
    pub fn contains(&self, number: i64) -> bool {
        let (key, offset) = (number.div_euclid(STRETCH), number.rem_euclid(STRETCH));
        self.stretches.get(&key).is_some_and(|stretch| stretch.find(offset, true) == Some(offset))
    }

    /// The numbers of `within` that are not in the set, in runs that cannot be joined.
    pub fn missing(
        &self,
        within: RangeInclusive<i64>,
    ) -> impl Iterator<Item = RangeInclusive<i64>> {
        let (start, end) = within.into_inner();
        let mut next = Some(start);
        std::iter::from_fn(move || {
            let first = self.first_absent(next?).filter(|&first| first <= end)?;
            let last = self.first_present(first).map_or(end, |present| end.min(present - 1));
            next = last.checked_add(1);
            Some(first..=last)
        })
    }

    /// The numbers above 0 that are in the set, in runs that cannot be joined.
    pub fn runs(&self) -> impl Iterator<Item = RangeInclusive<i64>> {
        let mut next = Some(1);
        std::iter::from_fn(move || {
            let first = self.first_present(next?)?;
            let absent = self.first_absent(first);
            next = absent;
            Some(first..=absent.map_or(i64::MAX, |absent| absent - 1))
        })
    }

    fn first_absent(&self, from: i64) -> Option<i64> {
        let (mut key, mut offset) = (from.div_euclid(STRETCH), from.rem_euclid(STRETCH));
        loop {
            let Some(stretch) = self.stretches.get(&key) else {
                return key.checked_mul(STRETCH)?.checked_add(offset);
            };
            if let Some(found) = stretch.find(offset, false) {
                return key.checked_mul(STRETCH)?.checked_add(found);
            }
            (key, offset) = (key.checked_add(1)?, 0);
        }
    }

    fn first_present(&self, from: i64) -> Option<i64> {
        let (first, offset) = (from.div_euclid(STRETCH), from.rem_euclid(STRETCH));
        self.stretches.range(first..).find_map(|(&key, stretch)| {
            let offset = if key == first { offset } else { 0 };
            let found = stretch.find(offset, true)?;
            key.checked_mul(STRETCH)?.checked_add(found)
        })
    }
}

#[cfg(test)]
mod tests;
