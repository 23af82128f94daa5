//! Which small files compaction joins next.
//!
//! **Guarantees.**
//! - A job's files are of one day and one node, and neighbours in the order of `received_at`.
//! - A job makes fewer files of more, or files that no longer overlap of such that do: asking again
//!   until there is no job comes to an end.
//! - While its day receives events a file is rewritten only when what comes out belongs to a higher
//!   power of [`FAN_IN`] rows or is finished. So rolls of 32,768 events that become files of 7
//!   million are rewritten three times at most, smaller rolls once more for each power of 8. When
//!   the day is over a small file is joined once or twice more, and parted once where files overlap.
//!
//! **Not guaranteed.** Disjoint files while their day still receives events: rolls reach a moment
//! back into their predecessors. A job cuts that off where it can ([`Job::cut`]); what is left is
//! put right when the day is over.
//!
//! **Limits.** [`INPUTS_MAX`] files a job, and one and a quarter times the size of a finished file;
//! [`OVERLAP_MAX`] times that size to part files that overlap, and files that overlap further are
//! left as they are.
//!
//! **Algorithm.** Size tiers, as in log-structured stores, over stretches of time. Within a day that
//! still receives events a stretch of small files is joined when together they reach the next tier;
//! the newest file waits. When the day is over, whatever small files stand side by side are joined.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::Date32Type;
use object_store::path;

use super::delta::{DataFile, millis};
use super::location::is_data_file_of;

/// Each tier holds files of this many times the rows of the one below.
pub const FAN_IN: u64 = 8;
/// Fewer files are not worth a job while their day still receives events.
pub const INPUTS_MIN: usize = 4;
/// Most files of one job: each is open, with a buffer for every column.
pub const INPUTS_MAX: usize = 128;
/// A day is over when it has passed and its newest file is this old: rolls come every minute, and
/// the replay of a long log after a crash makes one every few seconds.
pub const QUIET: Duration = Duration::from_mins(15);
/// How many times a finished file's size may be rewritten at once to part overlapping files.
pub const OVERLAP_MAX: u64 = 8;

const DAY_MS: i64 = 86_400_000;

/// What plans follow.
#[derive(Debug)]
pub struct Rules<'a> {
    /// Only this node's files are joined: other nodes take care of theirs.
    pub node: &'a str,
    /// The size of a finished file in bytes; one of half that size is not touched again.
    pub file_bytes: u64,
    /// The present time in milliseconds since 1970; absent when every day counts as over.
    pub now_ms: Option<i64>,
    /// Files that could not be read.
    pub avoid: &'a HashSet<Arc<str>>,
}

/// Files to be replaced by fewer or larger ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The files, in the order of their first `received_at`.
    pub inputs: Vec<DataFile>,
    /// Rows received at this moment (whole milliseconds, in microseconds since 1970) or later go
    /// into a file of their own, because the file after the job begins there.
    pub cut: Option<i64>,
    /// Into how many files the rows before the cut go, by the time they were received.
    pub pieces: u64,
}

impl Job {
    /// Bytes of the files that are read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().map(|file| file.bytes).sum()
    }

    /// The first `inputs` files of the job as a job of its own.
    #[must_use]
    pub fn shortened(mut self, inputs: usize) -> Self {
        let rest = self.inputs.split_off(inputs.min(self.inputs.len()));
        if let Some(next) = rest.first() {
            let runs = self.inputs.iter().filter_map(Run::of).collect::<Vec<_>>();
            self.cut = Run::of(next).and_then(|next| cut(&runs, Some(&next)));
            self.pieces = 1;
        }
        self
    }
}

/// The next job for the live files of a table, newest day first.
#[must_use]
pub fn next_job(files: &[DataFile], rules: &Rules<'_>) -> Option<Job> {
    let mut days: BTreeMap<&str, Vec<Run<'_>>> = BTreeMap::new();
    for run in files.iter().filter(|file| rules.may_use(file)).filter_map(Run::of) {
        days.entry(&run.file.date).or_default().push(run);
    }
    days.into_iter().rev().find_map(|(date, mut runs)| {
        runs.sort_by(Run::order);
        if rules.is_over(date, &runs) {
            tiers(&runs, &runs, rules)
                .or_else(|| leftovers(&runs, rules))
                .or_else(|| overlaps(&runs, rules))
        } else {
            let newest = (0..runs.len()).max_by_key(|&index| runs[index].last)?;
            let mut settled = runs.clone();
            settled.remove(newest);
            tiers(&settled, &runs, rules)
        }
    })
}

impl Rules<'_> {
    fn may_use(&self, file: &DataFile) -> bool {
        let ours = |name: &path::Path| is_data_file_of(name, self.node);
        !file.date.is_empty()
            && !self.avoid.contains(&file.path)
            && path::Path::parse(&*file.path).is_ok_and(|name| ours(&name))
    }

    fn is_over(&self, date: &str, runs: &[Run<'_>]) -> bool {
        let Some(now) = self.now_ms else { return true };
        let Some(day) = Date32Type::parse(date) else { return false };
        let newest = runs.iter().map(|run| run.file.modified_ms).max().unwrap_or(i64::MAX);
        now >= (i64::from(day) + 1) * DAY_MS
            && now.checked_sub(newest).is_some_and(|age| age >= millis(QUIET))
    }

    /// Whether a file is large enough to be left alone.
    fn is_finished(&self, file: &DataFile) -> bool {
        file.bytes >= self.file_bytes / 2
    }

    /// Most bytes that are joined into one file.
    fn joined_max(&self) -> u64 {
        self.file_bytes / 4 * 5
    }
}

/// A file and the time that its rows were received in.
#[derive(Debug, Clone, Copy)]
struct Run<'a> {
    file: &'a DataFile,
    rows: u64,
    /// At or before its first row.
    first: i64,
    /// At or after its last row.
    last: i64,
}

impl<'a> Run<'a> {
    /// `None` for a file whose rows and times its writer did not tell.
    fn of(file: &'a DataFile) -> Option<Self> {
        let (first, last) = file.bounds.received_at?;
        Some(Self { file, rows: file.rows?, first, last })
    }

    fn order(&self, other: &Self) -> Ordering {
        (self.first, self.last, &self.file.path).cmp(&(other.first, other.last, &other.file.path))
    }

    /// The power of [`FAN_IN`] that its rows reach.
    fn tier(&self) -> u32 {
        tier(self.rows)
    }
}

fn tier(rows: u64) -> u32 {
    rows.max(1).ilog(FAN_IN)
}

/// Neighbouring small files that together reach a higher tier or a finished file. `all` are the
/// day's files, among them those that `runs` leaves out.
fn tiers(runs: &[Run<'_>], all: &[Run<'_>], rules: &Rules<'_>) -> Option<Job> {
    let highest = runs.iter().map(Run::tier).max()?;
    for level in 0..=highest {
        let stretches = runs.split(|run| rules.is_finished(run.file) || run.tier() > level);
        for stretch in stretches {
            for start in 0..stretch.len().saturating_sub(INPUTS_MIN - 1) {
                let (taken, is_full) = fill(&stretch[start..], rules);
                let rows: u64 = taken.iter().map(|run| run.rows).sum();
                if taken.len() >= INPUTS_MIN && (tier(rows) > level || is_full) {
                    return Some(join(taken, all));
                }
            }
        }
    }
    None
}

/// Small files side by side, whatever their tiers.
fn leftovers(runs: &[Run<'_>], rules: &Rules<'_>) -> Option<Job> {
    let mut stretches = runs.split(|run| rules.is_finished(run.file));
    let stretch = stretches.find(|stretch| stretch.len() >= 2)?;
    // A finished file behind the stretch is none that the cut-off rows could be joined with.
    Some(join(fill(stretch, rules).0, stretch))
}

/// The first files of `stretch` that fit into one job, and whether it has no room for the next.
fn fill<'a, 'b>(stretch: &'b [Run<'a>], rules: &Rules<'_>) -> (&'b [Run<'a>], bool) {
    let mut bytes = 0_u64;
    let fits = |run: &&Run<'_>| {
        bytes = bytes.saturating_add(run.file.bytes);
        bytes <= rules.joined_max()
    };
    let count = stretch.iter().take(INPUTS_MAX).take_while(fits).count();
    (&stretch[..count], count < stretch.len())
}

/// The job that joins `taken` into one file.
fn join(taken: &[Run<'_>], all: &[Run<'_>]) -> Job {
    let next =
        taken.last().and_then(|last| all.iter().find(|run| run.order(last) == Ordering::Greater));
    Job {
        inputs: taken.iter().map(|run| run.file.clone()).collect(),
        cut: cut(taken, next),
        pieces: 1,
    }
}

/// Where rows of `taken` reach into the file that comes after them, unless a quarter of the rows
/// would be cut off, or no fewer files would come out than go in.
fn cut(taken: &[Run<'_>], next: Option<&Run<'_>>) -> Option<i64> {
    let cut = next?.first;
    let first = taken.iter().map(|run| run.first).min()?;
    let last = taken.iter().map(|run| run.last).max()?;
    if taken.len() < 3 || !(first < cut && cut < last) {
        return None;
    }
    let beyond = |run: &Run<'_>| {
        let length = i128::from(run.last) - i128::from(run.first) + 1;
        let late = (i128::from(run.last) - i128::from(cut.max(run.first)) + 1).max(0);
        i128::from(run.rows) * late / length
    };
    let rows: i128 = taken.iter().map(|run| i128::from(run.rows)).sum();
    (taken.iter().map(beyond).sum::<i128>() <= rows / 4).then_some(cut)
}

/// The first files that were received in the same time, with all that overlap them in turn.
fn overlaps(runs: &[Run<'_>], rules: &Rules<'_>) -> Option<Job> {
    let mut start = 0;
    while start < runs.len() {
        let mut last = runs[start].last;
        let mut end = start + 1;
        // Bounds are whole milliseconds, so neighbours that only touch are disjoint.
        while end < runs.len() && runs[end].first < last {
            last = last.max(runs[end].last);
            end += 1;
        }
        let found = &runs[start..end];
        let bytes: u64 = found.iter().map(|run| run.file.bytes).sum();
        let bearable = bytes <= rules.file_bytes.saturating_mul(OVERLAP_MAX);
        if (2..=INPUTS_MAX).contains(&found.len()) && bearable {
            let pieces =
                if bytes <= rules.joined_max() { 1 } else { bytes.div_ceil(rules.file_bytes) };
            let inputs = found.iter().map(|run| run.file.clone()).collect();
            return Some(Job { inputs, cut: None, pieces });
        }
        start = end;
    }
    None
}

#[cfg(test)]
pub(super) mod tests;
