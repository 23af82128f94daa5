//! The way back from quarantine: a batch that was set aside goes into the table after all.
//!
//! **Guarantees.** The events keep their numbers and are not compared with known message ids: they
//! were accepted once. A number that is in the table, that the log still brings back or that was
//! erased is refused for the whole batch. Doing it again after a crash adds nothing: the commit
//! carries a Delta `txn` of its own, `ringlake/<node>/quarantine/<shard>/<first>`.
//!
//! **Roles.** A command on a stopped directory: it holds the lock while it runs.
//!
//! **Memory.** The batch, and one bit a number of the table.

use std::sync::Arc;

use ringlake_disk::{Disk, RealDisk};

use crate::config::Config;
use crate::directory::Directory;
use crate::engine::promote;
use crate::erase::erased;
use crate::error::Error;
use crate::lake::{Location, ShardCheck, Table, check_table, write_rows};
use crate::log;
use crate::quarantine::{Aside, EXTENSION, RESTORED};
use crate::retention::Expired;

/// What a restore has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The table's version that holds the events.
    pub version: u64,
    /// The table held them already, from a restore that had not been finished.
    pub already: bool,
}

/// Puts `aside` into the table of the data directory of `config`, under its old numbers, and marks
/// its entry in quarantine as restored.
///
/// # Errors
/// [`Error::Locked`] while another process has the directory; [`Error::Format`] when the batch is
/// another node's or a number is present; otherwise what the table says. Nothing has
/// changed then.
pub fn restore(config: &Config, aside: &Aside) -> Result<Restored, Error> {
    restore_on(config, aside, Arc::new(RealDisk))
}

/// The same on another disk than the operating system's.
///
/// # Errors
/// As [`restore`].
pub fn restore_on(config: &Config, aside: &Aside, disk: Arc<dyn Disk>) -> Result<Restored, Error> {
    let directory = Directory::open_on(&config.data, Arc::clone(&disk))?;
    let refuse = |problem: String| Err(Error::Format { path: aside.path.clone(), problem });
    if aside.node != directory.node() {
        let (theirs, ours) = (&aside.node, directory.node());
        return refuse(format!("belongs to the node {theirs}, this directory is the node {ours}"));
    }
    let location = Location::parse(config.lake.as_deref(), directory.root())?.with_disk(disk);
    let mut table = Table::open_or_create(&location, directory.node())?;
    if table.restored(aside.shard, aside.first)? == aside.last {
        mark(&directory, aside)?;
        return Ok(Restored { version: table.version(), already: true });
    }
    if let Some(problem) = problem_in_log(&directory, &table, aside)? {
        return refuse(problem);
    }
    if let Some(problem) = problem_in_table(&table, aside)? {
        return refuse(problem);
    }
    if let Some((first, last)) = gone_of(&directory, aside)? {
        return refuse(format!(
            "holds numbers {first} to {last}, which were erased or are past what is kept"
        ));
    }
    table.remove_orphans(config.compaction.retain_replaced)?;
    let mut promoter = promote(config, &mut table)?;
    let rows = promoter
        .complete(aside.rows.clone())
        .map_err(|source| Error::Arrow { action: "fill the promoted columns", source })?;
    let files = write_rows(&rows, &location, directory.node(), &mut || true)?;
    let outcome = table.commit_restored(&files, aside.shard, aside.first, aside.last)?;
    mark(&directory, aside)?;
    Ok(Restored { version: outcome.version(), already: false })
}

/// Why the log forbids it.
fn problem_in_log(
    directory: &Directory,
    table: &Table,
    aside: &Aside,
) -> Result<Option<String>, Error> {
    let in_table = table.sequence(aside.shard)?;
    if aside.last > in_table {
        let path = directory.shard_log(aside.shard);
        let mut found = false;
        if path.is_dir() {
            log::scan::<Error>(&path, &mut |frame| {
                found |= frame.first() <= aside.last && frame.last() >= aside.first;
                Ok(())
            })?;
        }
        let (first, last) = (aside.first, aside.last);
        return Ok(Some(if found {
            format!(
                "holds numbers {first} to {last}, which the log still has; the next start of the \
                 server takes them from there"
            )
        } else {
            format!("holds numbers up to {last}, but the table has come only to {in_table}")
        }));
    }
    Ok(None)
}

/// Why the table forbids it.
fn problem_in_table(table: &Table, aside: &Aside) -> Result<Option<String>, Error> {
    let check = check_table(table)?;
    if let Some(problem) = check.problems.first() {
        return Ok(Some(format!(
            "cannot be compared with the numbers in the table, which is damaged: {problem}"
        )));
    }
    let of_shard = |check: &&ShardCheck| check.shard == aside.shard;
    let Some(shard) = check.shards.iter().find(of_shard) else { return Ok(None) };
    let absent: i64 = shard
        .present
        .missing(aside.first..=aside.last)
        .map(|range| range.end() - range.start() + 1)
        .sum();
    let all = aside.last - aside.first + 1;
    Ok((absent < all).then(|| {
        let (first, last, present) = (aside.first, aside.last, all - absent);
        format!("holds numbers {first} to {last}, of which the table has {present} already")
    }))
}

/// The first run of numbers of the batch that an erase or retention has taken or is about to.
fn gone_of(directory: &Directory, aside: &Aside) -> Result<Option<(i64, i64)>, Error> {
    let erased = erased(directory.root())?.gone.remove(&aside.shard).unwrap_or_default();
    let expired = Expired::read(directory.root())?.by_shard().remove(&aside.shard);
    let mut common = erased.into_iter().chain(expired.unwrap_or_default()).map(|range| {
        let (first, last) = range.into_inner();
        (first.max(aside.first), last.min(aside.last))
    });
    Ok(common.find(|(first, last)| first <= last))
}

/// Renames every piece in quarantine that holds exactly these numbers.
fn mark(directory: &Directory, aside: &Aside) -> Result<(), Error> {
    let quarantine = directory.quarantine();
    for (path, report) in log::quarantine_reports(&quarantine)? {
        if (report.shard, report.sequences) != (aside.shard, Some((aside.first, aside.last))) {
            continue;
        }
        // The report goes last, also after a power cut: a batch without one would be taken for a
        // file of new events.
        for piece in [path.with_extension(EXTENSION), path] {
            let mut restored = piece.clone().into_os_string();
            restored.push(".");
            restored.push(RESTORED);
            match directory.disk().rename(&piece, restored.as_ref()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                renamed => renamed.map_err(Error::io("rename", &piece))?,
            }
            let synced = directory.disk().sync_directory(&quarantine);
            synced.map_err(Error::io("sync", &quarantine))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
