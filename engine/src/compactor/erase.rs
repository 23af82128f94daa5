//! The steps of an erase; what they guarantee together is said in [`crate::erase`].

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tracing::field::Empty;

use super::Compactor;
use crate::WORK;
use crate::directory::Directory;
use crate::erase::{Erasures, Record, Selection};
use crate::error::{Error, chain};
use crate::export::{ExportError, Exports};
use crate::hot::Goal;
use crate::lake::erase::{find, numbers_of, without};
use crate::lake::{DataFile, LakeError, NewFile, ReplaceOutcome};
use crate::log::{self, Identity, Log, Quarantined};
use crate::markers::Markers;
use crate::quarantine::{self, Aside, EXTENSION};
use crate::roller::Request;
use crate::schema::log_schema;

/// Pause before a job that failed is tried again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A disk that stays full is tried this often.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Pause before replaced files that a reader holds are looked at again; it doubles up to
/// [`READERS_PAUSE_MAX`].
const READERS_PAUSE: Duration = Duration::from_millis(50);
const READERS_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Files that are replaced by one commit at most, and bytes of them: what is written and not yet
/// committed takes room beside what it replaces.
const GROUP_FILES: usize = 64;
const GROUP_BYTES: u64 = 1 << 30;
/// Longest wait for the shards to let go of their segments: a roll has just put all of it into the
/// table.
const SCRUB_LIMIT: Duration = Duration::from_secs(60);
/// Time between two looks whether they have.
const SCRUB_LOOK: Duration = Duration::from_millis(5);

/// What the compactor needs for erasing.
#[derive(Debug)]
pub(crate) struct Erasing {
    pub erasures: Arc<Erasures>,
    pub markers: Arc<Markers>,
    pub directory: Arc<Directory>,
    pub exports: Arc<Exports>,
    /// How long jobs that are not done wait for the next try; zero when there are none.
    pub pause: Duration,
}

/// Whether a job is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Done,
    /// Readers of this process still hold files that it has replaced.
    Held,
}

/// A job under way.
struct Work {
    record: Record,
    selection: Selection,
}

impl Compactor {
    /// Does what has been asked for and is not done, oldest first.
    pub(super) fn erase_pending(&mut self) {
        let mut pause = Duration::ZERO;
        for id in self.erasing.erasures.pending() {
            match self.erase(&id) {
                Ok(Progress::Done) => {}
                Ok(Progress::Held) => {
                    let next = (self.erasing.pause * 2).clamp(READERS_PAUSE, READERS_PAUSE_MAX);
                    pause = pause.max(next);
                }
                Err(Error::Closed) => return,
                Err(error) => {
                    let problem = chain(&error);
                    if self.erasing.erasures.failed(&id, &problem) {
                        tracing::warn!(id, problem, "an erase has not gone on; it is tried again");
                    }
                    pause = (self.erasing.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                }
            }
            if self.state.is_stopping() {
                return;
            }
        }
        self.erasing.pause = pause;
    }

    fn erase(&self, id: &str) -> Result<Progress, Error> {
        let erasures = &self.erasing.erasures;
        let Some((record, removing)) = erasures.begin(id) else { return Ok(Progress::Done) };
        let Some(erasure) = record.erasure.clone() else { return Ok(Progress::Done) };
        let selection =
            Selection { node: self.node.clone(), erasure, through: record.through.clone() };
        let mut work = Work { record, selection };
        if !removing {
            let span = tracing::info_span!(target: WORK, "erase", id, error = Empty);
            let outcome = self.erase_everywhere(&mut work, id);
            if let Err(error) = &outcome {
                span.record("error", chain(error).as_str());
            }
            outcome?;
        }
        // Files that were replaced before may hold the events too.
        if self.erasing.exports.is_removing() || self.vacuum(Duration::ZERO)?.waiting > 0 {
            return Ok(Progress::Held);
        }
        erasures.finish(work.record)?;
        Ok(Progress::Done)
    }

    /// Takes the events out of everything but the files that readers of this process still hold.
    fn erase_everywhere(&self, work: &mut Work, id: &str) -> Result<(), Error> {
        let erasures = &self.erasing.erasures;
        let began = Instant::now();
        self.erasing.markers.reach(Goal::Rolled)?;
        while !self.erase_from_table(work)? {}
        self.ask(|answer| Request::ForgetHistory { answer })??;
        self.erase_from_quarantine(work)?;
        self.scrub_logs()?;
        self.scrub_idle_logs()?;
        // Those that begin from here on read the table as it is now.
        self.end_exports(work)?;
        erasures.save(&work.record)?;
        erasures.removing(id);
        let (events, ms) = (work.record.events, began.elapsed().as_millis());
        tracing::info!(id, events, ms, "erased; replaced files go when nobody reads them");
        Ok(())
    }

    /// Takes the events out of every file of the table. False when another writer came in between
    /// and the table has to be looked at once more.
    fn erase_from_table(&self, work: &mut Work) -> Result<bool, Error> {
        let Work { record, selection } = work;
        let columns = selection.columns();
        let doomed = |batch: &RecordBatch| selection.doomed(batch);
        let (mut found, mut unreadable) = (Vec::new(), None);
        // Without the hot tables of the snapshot: the search may take minutes.
        let files = Arc::clone(&self.snapshots.load().files);
        for file in files.iter().filter(|file| selection.may_be_in(file)) {
            match find(file, &columns, &doomed, &mut || self.may_go_on()).map_err(given_up) {
                Ok(numbers) if numbers.is_empty() => {}
                Ok(numbers) => {
                    record.add(&numbers);
                    found.push((file.clone(), numbers.len() as u64));
                }
                Err(Error::Closed) => return Err(Error::Closed),
                // The others need not wait for it.
                Err(error) => {
                    unreadable.get_or_insert(error);
                }
            }
        }
        // Before the first commit that makes it true.
        self.erasing.erasures.save(record)?;
        let mut rest = &found[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |(file, _): &&(DataFile, u64)| {
                bytes += file.bytes;
                bytes <= GROUP_BYTES
            };
            let count = rest.iter().take(GROUP_FILES).take_while(fits).count().max(1);
            let (group, left) = rest.split_at(count);
            if !self.rewrite(work, group)? {
                return Ok(false);
            }
            rest = left;
        }
        unreadable.map_or(Ok(true), Err)
    }

    /// Puts files without the events in the place of `group`, in one commit. False when another
    /// writer was faster.
    fn rewrite(&self, work: &mut Work, group: &[(DataFile, u64)]) -> Result<bool, Error> {
        let removed: Vec<DataFile> = group.iter().map(|(file, _)| file.clone()).collect();
        let erased = group.iter().map(|(_, rows)| rows).sum();
        self.space.look_if_due();
        let [_, lake] = self.space.rooms();
        self.check_room(lake, removed.iter().map(|file| file.bytes).sum())?;
        let mut added = Vec::new();
        if let Err(error) = self.write_without(work, &removed, &mut added) {
            self.discard(&added)?;
            return Err(error);
        }
        let files = added.clone();
        let replaced =
            self.ask(|answer| Request::Replace { removed, added: files, erased, answer })?;
        match replaced {
            Ok(ReplaceOutcome::Replaced { .. }) => {
                work.record.files += group.len() as u64;
                Ok(true)
            }
            Ok(ReplaceOutcome::Outdated { .. }) => {
                self.discard(&added)?;
                Ok(false)
            }
            Err(error) => {
                if error.is_without_effect() {
                    self.discard(&added)?;
                }
                Err(error.into())
            }
        }
    }

    /// Writes what is left of `files` to `added`.
    fn write_without(
        &self,
        work: &Work,
        files: &[DataFile],
        added: &mut Vec<NewFile>,
    ) -> Result<(), Error> {
        let doomed = |batch: &RecordBatch| work.selection.doomed(batch);
        for file in files {
            let go_on = &mut || self.may_go_on();
            let left = without(&self.location, &self.node, file, &doomed, go_on);
            added.extend(left.map_err(given_up)?);
        }
        Ok(())
    }

    /// Removes the exports that may hold the events, with those of other people in them: whoever
    /// wants one begins it again.
    fn end_exports(&self, work: &Work) -> Result<(), Error> {
        let exports = &self.erasing.exports;
        let path = self.erasing.directory.root().join("exports");
        if !exports.is_started() && fs::read_dir(&path).is_ok_and(|mut jobs| jobs.next().is_some())
        {
            let problem = "holds exports, which only a server can end".to_owned();
            return Err(Error::Format { path, problem });
        }
        exports.forget(&work.selection.erasure.tenant).map_err(|error| match error {
            ExportError::Store(error) => error,
            _ => Error::Closed,
        })
    }

    /// Takes the events out of what is set aside.
    fn erase_from_quarantine(&self, work: &mut Work) -> Result<(), Error> {
        let quarantine = self.erasing.directory.quarantine();
        let needle = work.selection.erasure.who.bytes();
        work.record.unreadable.clear();
        for path in paths_in(&quarantine)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let restored = name.ends_with(quarantine::RESTORED);
            // A report holds no event; what it explains stays explained.
            if name.trim_end_matches(quarantine::RESTORED).trim_end_matches('.').ends_with(".json")
            {
                continue;
            }
            let batch = path.extension().is_some_and(|extension| extension == EXTENSION);
            if let (true, Ok(aside)) = (batch, quarantine::read(&path)) {
                self.erase_from_batch(work, &aside)?;
                continue;
            }
            // It may be all that is left of other people's events.
            if !restored {
                work.record.unreadable.push(name);
                continue;
            }
            // What was restored is in the table, and nobody needs it here.
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            if !needle.is_empty() && bytes.windows(needle.len()).any(|it| it == needle) {
                self.remove_aside(&path)?;
                work.record.quarantined += 1;
            }
        }
        Ok(())
    }

    /// Puts what is left of a batch in quarantine in its place.
    fn erase_from_batch(&self, work: &mut Work, aside: &Aside) -> Result<(), Error> {
        let doomed = |rows: &RecordBatch| work.selection.doomed(rows);
        let numbers: Vec<_> =
            aside.rows.iter().flat_map(|rows| numbers_of(rows, &doomed(rows))).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let left = aside.without(&doomed);
        work.record.add(&numbers);
        work.record.quarantined += 1;
        // Before the report that explains them goes.
        self.erasing.erasures.save(&work.record)?;
        let directory = &self.erasing.directory;
        for part in left {
            let bytes = part.encode()?;
            let report = Quarantined {
                shard: part.shard,
                sequences: Some((part.first, part.last)),
                origin: "a batch in quarantine of which events were erased".into(),
                reason: part.reason.clone(),
                bytes: bytes.len() as u64,
            };
            let quarantine = directory.quarantine();
            log::set_aside(&**directory.disk(), &quarantine, &part.name(), &bytes, &report)?;
        }
        // The report goes last: a batch without one would be taken for a file of new events.
        self.remove_aside(&aside.path)?;
        self.remove_aside(&aside.path.with_extension("json"))
    }

    fn remove_aside(&self, path: &Path) -> Result<(), Error> {
        let directory = &self.erasing.directory;
        directory
            .disk()
            .remove(path)
            .and_then(|()| directory.disk().sync_directory(&directory.quarantine()))
            .map_err(Error::io("remove", path))
    }

    /// Waits until the shards have let go of every byte of log that there was.
    fn scrub_logs(&self) -> Result<(), Error> {
        let mut wanted = Vec::new();
        for shard in self.shards.iter() {
            // Relaxed: this thread is the only writer.
            let number = shard.scrub_wanted.load(Ordering::Relaxed) + 1;
            shard.scrub_wanted.store(number, Ordering::Relaxed);
            shard.waker.wake();
            wanted.push(number);
        }
        let shards = || self.shards.iter().zip(&wanted);
        // Relaxed: what was committed before the segments were closed is in the roll that follows.
        self.wait_for_shards(|| {
            shards().all(|(shard, wanted)| shard.scrub_begun.load(Ordering::Relaxed) >= *wanted)
        })?;
        // Events that came meanwhile are in the segments that have been closed.
        self.erasing.markers.reach(Goal::Rolled)?;
        // Acquire: pairs with the Release store in `Shard::end_scrub`.
        self.wait_for_shards(|| {
            shards().all(|(shard, wanted)| shard.scrubbed.load(Ordering::Acquire) >= *wanted)
        })
    }

    fn wait_for_shards(&self, done: impl Fn() -> bool) -> Result<(), Error> {
        let until = Instant::now() + SCRUB_LIMIT;
        while !done() {
            if self.state.is_stopping() {
                return Err(Error::Closed);
            }
            if Instant::now() >= until {
                let what = "letting go of the log's segments";
                return Err(Error::Deadline { what, limit: SCRUB_LIMIT });
            }
            thread::sleep(SCRUB_LOOK);
        }
        Ok(())
    }

    /// The same for logs of shards that are not configured any more: nobody writes them, and the
    /// table holds all of them.
    fn scrub_idle_logs(&self) -> Result<(), Error> {
        let directory = &self.erasing.directory;
        let configured: HashSet<u32> = self.shards.iter().map(|shard| shard.shard).collect();
        for (shard, path) in log::shard_directories(&directory.log())? {
            if configured.contains(&shard) {
                continue;
            }
            let found = log::scan::<Error>(&path, &mut |_| Ok(()))?;
            let last = found.voids.iter().map(|void| *void.end()).fold(found.last, i64::max);
            let identity = Identity { node: self.node.clone(), shard, schema: log_schema() };
            let disk = Arc::clone(directory.disk());
            let mut log = Log::new(path, disk, identity, u64::MAX, found.segments, found.voids)?;
            log.retire(last + 1)?;
            log.release(i64::MAX)?;
        }
        Ok(())
    }
}

/// The files of `directory`, by name.
fn paths_in(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
        paths.push(entry.map_err(Error::io("list", directory))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Work is given up only when the engine stops.
fn given_up(error: LakeError) -> Error {
    match error {
        LakeError::GivenUp => Error::Closed,
        error => error.into(),
    }
}
