//! Sorted Parquet files into fewer sorted Parquet files.
//!
//! **Guarantees.** Every row of the inputs is in exactly one output; before a file is given out its
//! events are read back and compared with those that were read. Every returned file is sealed with
//! checksums and on the medium with its directory entries. On an error, or when the work is given
//! up, no file of the call remains.
//!
//! **Not guaranteed.** Sorted outputs when an input is not sorted by tenant and timestamp, as every
//! file of ours is.
//!
//! **Memory.** Of each input the pages that are being read and a batch of rows, but no decompressor
//! between two pages; of the output one row group. Inputs are taken as long as their pages need at most
//! [`PAGES_MAX`] together, but two at least; their batches have [`BATCHES_MAX`] together. DuckDB is not
//! involved.
//!
//! **Limits.** Between two looks at whether to go on lie some thousand rows, the check of one input
//! or the sealing of one row group: milliseconds, or a few tenths of a second.
//!
//! **Algorithm.** A merge of k sorted inputs through a heap. Rows that must not be in the same file
//! because of their `received_at` are written in one pass each, over the inputs that have such
//! rows.

mod input;
mod order;
mod pages;
mod without;

use super::error::{LakeError, Result};
use super::footer::NewFile;
use super::location::{Location, check_node};
use super::output::{Effort, Output, Step, remove};
use super::plan::Job;

use input::{Opened, Range, schema_of};
use order::Merge;
pub use without::without;

/// Uncompressed bytes of pages that a merge may hold; in tests little, so that they reach it.
pub const PAGES_MAX: u64 = if cfg!(test) { 8 << 20 } else { 64 << 20 };
/// Bytes of rows of all inputs that are decoded at a time.
pub const BATCHES_MAX: usize = 16 << 20;
/// Bytes of rows of one input that are decoded at a time.
const BATCH_MAX: usize = 1 << 20;
/// One in so many rows says where to part them.
const SAMPLE: usize = 64;
/// Bounds in the log are whole milliseconds.
const MICROS_PER_MILLI: i64 = 1_000;

/// What a merge has made.
#[derive(Debug)]
pub struct Merged {
    /// The job that was done: the one that was asked for, or its first files.
    pub job: Job,
    /// The files that hold the rows of the job's inputs.
    pub files: Vec<NewFile>,
}

/// Does `job`, or as much of it as fits into memory. `go_on` is asked between two steps; it may
/// wait, and its `false` gives the work up.
///
/// # Errors
///
/// [`LakeError::Io`], [`LakeError::Parquet`], [`LakeError::Content`] and [`LakeError::Damaged`] name
/// the file that could not be read or written, or did not hold what it should;
/// [`LakeError::GivenUp`] after a `false` of `go_on`.
pub fn merge(
    location: &Location,
    node: &str,
    job: Job,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Merged> {
    check_node(node)?;
    let step = &mut || if go_on() { Ok(()) } else { Err(LakeError::GivenUp) };
    let (job, inputs) = open(job, step)?;
    let mut files = Vec::new();
    let written = write_all(location, node, &job, &inputs, &mut files, step);
    if written.is_err() {
        for file in &files {
            remove(location, &file.path);
        }
    }
    written.map(|()| Merged { job, files })
}

/// Opens as many inputs as there is memory for.
fn open(job: Job, step: &mut Step<'_>) -> Result<(Job, Vec<Opened>)> {
    let mut inputs = Vec::with_capacity(job.inputs.len());
    let mut pages = 0_u64;
    for file in &job.inputs {
        step()?;
        let input = Opened::open(file)?;
        if file.rows != Some(input.rows) {
            return Err(LakeError::Content {
                path: file.local.to_path_buf(),
                problem: format!("has {} rows, the log says {:?}", input.rows, file.rows),
            });
        }
        pages = pages.saturating_add(input.page_bytes);
        if pages > PAGES_MAX && inputs.len() >= 2 {
            break;
        }
        inputs.push(input);
    }
    Ok((job.shortened(inputs.len()), inputs))
}

/// Writes one file for each range of `received_at` that has rows.
fn write_all(
    location: &Location,
    node: &str,
    job: &Job,
    inputs: &[Opened],
    files: &mut Vec<NewFile>,
    step: &mut Step<'_>,
) -> Result<()> {
    let Some(first) = job.inputs.first() else { return Ok(()) };
    let schema = schema_of(inputs)?;
    let cuts = cuts(job, inputs)?;
    for range in Range::between(&cuts) {
        let batch_bytes = (BATCHES_MAX / inputs.len().max(1)).min(BATCH_MAX);
        let rows = inputs.iter().filter(|input| input.meets(range));
        let rows =
            rows.map(|input| input.read(range, &schema, batch_bytes)).collect::<Result<_>>()?;
        let mut merge = Merge::new(rows)?;
        let Some(mut batch) = merge.next()? else { continue };
        let mut output = Output::create(location, node, &first.date, &schema, Effort::More)?;
        loop {
            output.write(&batch)?;
            step()?;
            match merge.next()? {
                Some(next) => batch = next,
                None => break,
            }
        }
        files.push(output.finish(merge.events(), step)?);
    }
    let before: u64 = inputs.iter().map(|input| input.rows).sum();
    let after: u64 = files.iter().map(|file| file.rows).sum();
    if before == after {
        return Ok(());
    }
    Err(LakeError::Content {
        path: first.local.to_path_buf(),
        problem: format!("and its neighbours have {before} rows, merged they have {after}"),
    })
}

/// The moments at which one file ends and the next one begins, in order.
fn cuts(job: &Job, inputs: &[Opened]) -> Result<Vec<i64>> {
    let mut cuts = Vec::new();
    if job.pieces > 1 {
        let mut moments = Vec::new();
        for input in inputs {
            input.sample(SAMPLE, &mut |moment| moments.push(moment))?;
        }
        moments.retain(|&moment| job.cut.is_none_or(|cut| moment < cut));
        moments.sort_unstable();
        let pieces = usize::try_from(job.pieces).unwrap_or(usize::MAX).min(moments.len());
        cuts.extend((1..pieces).map(|piece| {
            let moment = moments[moments.len() / pieces * piece];
            moment - moment.rem_euclid(MICROS_PER_MILLI)
        }));
    }
    cuts.extend(job.cut);
    cuts.dedup();
    Ok(cuts)
}

#[cfg(test)]
mod tests;
