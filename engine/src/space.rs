//! Room for what is accepted: who looks how much is left, and what happens when it is too little.
//!
//! **Guarantees**
//! - Below the floor of free space, at the cap of the logs, and while a log takes nothing, events
//!   are refused; queries, rolls and everything accepted before go on.
//! - Events are accepted again by themselves: a quarter above the floor, below three quarters of
//!   the cap, once the log takes a segment. The gap keeps the gate from opening and closing with
//!   every batch.
//!
//! **Not guaranteed.** That a disk is never full: others write to it, and between two looks so do
//! we. The log then refuses batch by batch, see [`crate::shard`].
//!
//! **Roles.** It has no thread. Shards look between batches and at least once a second, the roller
//! while it waits to try again; whoever comes first after [`LOOK_EVERY`] does it. That costs one
//! `statvfs` for each of the two places, some microseconds.
//!
//! **Why the floor comes first.** A roll frees the log, but writes Parquet before; so the room for
//! what has been accepted must not be given to new events. When a bar goes up the open hot table is
//! rolled at once, because that is what frees the log.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{DEFAULT_FREE_MIN_BYTES, DEFAULT_FREE_MIN_PART};
use crate::hot::Wake;
use crate::ingest::{Bar, Gate};
use crate::problem::Problem;
use crate::shard::ShardState;

/// Time between two looks. At 50 MB/s of log the floor is missed by 5 MB at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The limits to keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Free bytes that either file system keeps; see [`DiskConfig`](crate::config::DiskConfig).
    pub free_min_bytes: Option<u64>,
    /// Bytes that all logs together may have.
    pub log_max_bytes: u64,
}

/// Watches file systems and logs for the gate.
#[derive(Debug)]
pub(crate) struct Space {
    limits: Limits,
    gate: Arc<Gate>,
    shards: Arc<[Arc<ShardState>]>,
    /// Used when a bar goes up, so that the flusher rolls.
    flusher: Wake,
    log: Place,
    lake: Place,
    began: Instant,
    /// Milliseconds after `began` at which the next look is due.
    next_look: AtomicU64,
    /// Why events are refused for lack of space, while they are.
    lack: Problem,
    /// What the last look found.
    bars: Mutex<Bars>,
}

/// One of the two places that have to have room.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Written by whoever looks; `u64::MAX` before the first look.
    free: AtomicU64,
    /// Written by whoever looks: what should stay free.
    floor: AtomicU64,
    unreadable: Problem,
}

/// What there is of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes that anyone may still write; `u64::MAX` before they have been seen.
    pub free: u64,
    /// Bytes that should stay free.
    pub floor: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Bars {
    disk_full: bool,
    log_full: bool,
}

impl Space {
    /// Watches the file systems of `log` and `lake` and the logs of `shards`.
    pub(crate) fn new(
        limits: Limits,
        gate: Arc<Gate>,
        shards: Arc<[Arc<ShardState>]>,
        flusher: Wake,
        log: PathBuf,
        lake: PathBuf,
    ) -> Self {
        Self {
            limits,
            gate,
            shards,
            flusher,
            log: Place::new(log),
            lake: Place::new(lake),
            began: Instant::now(),
            next_look: AtomicU64::new(0),
            lack: Problem::default(),
            bars: Mutex::default(),
        }
    }

    /// Looks, if nobody has for a while.
    pub(crate) fn look_if_due(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Relaxed, both: the number is all there is; it only chooses who looks.
        let due = self.next_look.load(Ordering::Relaxed);
        let next = now + u64::try_from(LOOK_EVERY.as_millis()).unwrap_or(u64::MAX);
        let chosen = now >= due
            && self
                .next_look
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if chosen {
            self.look();
        }
    }

    /// Looks now and moves the gate's bars.
    pub(crate) fn look(&self) {
        let mut bars = self.lock();
        for place in [&self.log, &self.lake] {
            place.look(self.limits.free_min_bytes);
        }
        let before = *bars;
        *bars = self.limits.judge(before, self.rooms(), self.log_bytes());
        let is_short = *bars != Bars::default();
        // Before the gate closes and after it opens: who finds it closed finds the reason.
        if is_short {
            let lack = self.describe(*bars);
            if self.lack.set(lack.clone()) {
                tracing::warn!("{lack}; events are refused until there is room again");
            }
        }
        self.set(Bar::DiskFull, bars.disk_full);
        self.set(Bar::LogFull, bars.log_full);
        self.set(Bar::LogBroken, self.shards.iter().any(|shard| shard.log_problem.is_there()));
        if !is_short && self.lack.clear() {
            tracing::info!("there is room again; events are accepted");
        }
        if is_short && before == Bars::default() {
            self.flusher.wake();
        }
    }

    /// Why events are refused for lack of space, while they are.
    pub(crate) fn lack(&self) -> Option<String> {
        self.lack.text()
    }

    /// Whether events are refused for lack of space. The hot table should be rolled then.
    pub(crate) fn is_short(&self) -> bool {
        self.gate.has(Bar::DiskFull) || self.gate.has(Bar::LogFull)
    }

    /// The room where the log is and where the table is, as last seen.
    pub(crate) fn rooms(&self) -> [Room; 2] {
        [self.log.room(), self.lake.room()]
    }

    /// The cap of all logs together.
    pub(crate) fn log_max_bytes(&self) -> u64 {
        self.limits.log_max_bytes
    }

    fn log_bytes(&self) -> u64 {
        // Relaxed: statistics of the shards, good enough for a cap.
        self.shards.iter().map(|shard| shard.log_bytes.load(Ordering::Relaxed)).sum()
    }

    fn set(&self, bar: Bar, up: bool) {
        if up {
            self.gate.bar(bar);
        } else {
            self.gate.lift(bar);
        }
    }

    fn describe(&self, bars: Bars) -> String {
        if !bars.disk_full {
            let (bytes, cap) = (Bytes(self.log_bytes()), Bytes(self.limits.log_max_bytes));
            return format!("the log is full: {bytes} of {cap} are used");
        }
        let places = [&self.log, &self.lake];
        let tightest = places.into_iter().min_by_key(|place| {
            let Room { free, floor } = place.room();
            i128::from(free) - i128::from(floor)
        });
        let Some(place) = tightest else { return String::new() };
        let Room { free, floor } = place.room();
        let (free, floor, path) = (Bytes(free), Bytes(floor), place.path.display());
        format!("the disk is full: {free} are free at {path}, {floor} should be")
    }

    fn lock(&self) -> MutexGuard<'_, Bars> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    /// Which bars are up after `before`, with `rooms` left and `log` bytes used.
    fn judge(self, before: Bars, rooms: [Room; 2], log: u64) -> Bars {
        let is_full = |Room { free, floor }| {
            let above = if before.disk_full { floor / 4 } else { 0 };
            free < u64::saturating_add(floor, above)
        };
        let cap = self.log_max_bytes;
        let cap = if before.log_full { cap / 4 * 3 } else { cap };
        Bars { disk_full: rooms.into_iter().any(is_full), log_full: log >= cap }
    }
}

impl Place {
    fn new(path: PathBuf) -> Self {
        let (free, floor) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        Self { path, free, floor, unreadable: Problem::default() }
    }

    fn look(&self, free_min_bytes: Option<u64>) {
        match look_at(&self.path) {
            Ok(Seen { free, size }) => {
                let default = DEFAULT_FREE_MIN_BYTES.min(size / DEFAULT_FREE_MIN_PART);
                // Relaxed, both: the number is all there is.
                self.floor.store(free_min_bytes.unwrap_or(default), Ordering::Relaxed);
                self.free.store(free, Ordering::Relaxed);
                self.unreadable.clear();
            }
            // What was seen last still counts. When the place is gone, writing to it fails.
            Err(error) => {
                if self.unreadable.set(error.to_string()) {
                    let path = self.path.display();
                    tracing::warn!(%path, %error, "cannot see how much space is left");
                }
            }
        }
    }

    fn room(&self) -> Room {
        // Relaxed, both: see `look`.
        let free = self.free.load(Ordering::Relaxed);
        Room { free, floor: self.floor.load(Ordering::Relaxed) }
    }
}

/// What a file system says of itself.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Bytes that anyone may still write.
    free: u64,
    size: u64,
}

fn look_at(path: &Path) -> io::Result<Seen> {
    let found = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Seen { free: bytes(found.f_bavail), size: bytes(found.f_blocks) })
}

/// A number of bytes for people.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes < 10 << 10 => write!(formatter, "{bytes} bytes"),
            bytes if bytes < 10 << 20 => write!(formatter, "{} KiB", bytes >> 10),
            bytes => write!(formatter, "{} MiB", bytes >> 20),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { free_min_bytes: None, log_max_bytes: 1_000 };
    const OPEN: Bars = Bars { disk_full: false, log_full: false };

    /// A place that is tight beside one that never is.
    fn rooms(free: u64, floor: u64) -> [Room; 2] {
        [Room { free: u64::MAX, floor: 0 }, Room { free, floor }]
    }

    #[test]
    fn the_gate_closes_at_a_limit_and_opens_at_a_distance_from_it() {
        let full = Bars { disk_full: true, ..OPEN };
        assert_eq!(LIMITS.judge(OPEN, rooms(100, 100), 0), OPEN);
        assert_eq!(LIMITS.judge(OPEN, rooms(99, 100), 0), full);
        assert_eq!(LIMITS.judge(full, rooms(124, 100), 0), full);
        assert_eq!(LIMITS.judge(full, rooms(125, 100), 0), OPEN);
        let full = Bars { log_full: true, ..OPEN };
        assert_eq!(LIMITS.judge(OPEN, rooms(500, 100), 999), OPEN);
        assert_eq!(LIMITS.judge(OPEN, rooms(500, 100), 1_000), full);
        assert_eq!(LIMITS.judge(full, rooms(500, 100), 750), full);
        assert_eq!(LIMITS.judge(full, rooms(500, 100), 749), OPEN);
    }

    #[test]
    fn without_a_floor_a_disk_may_fill_to_its_last_byte() {
        assert_eq!(LIMITS.judge(OPEN, rooms(0, 0), 0), OPEN);
    }

    proptest! {
        /// Whatever the limits, what is up comes down again, and not at the number that put it up.
        #[test]
        fn a_bar_neither_stays_for_ever_nor_flaps(floor in 4_u64.., cap in 4_u64..) {
            let limits = Limits { free_min_bytes: None, log_max_bytes: cap };
            let up = limits.judge(OPEN, rooms(floor - 1, floor), cap);
            prop_assert_eq!(up, Bars { disk_full: true, log_full: true });
            prop_assert_eq!(limits.judge(up, rooms(floor, floor), cap - 1), up);
            prop_assert_eq!(limits.judge(up, rooms(u64::MAX, floor), 0), OPEN);
        }
    }

    #[test]
    fn by_default_a_floor_fits_its_file_system() {
        let root = Place::new("/".into());
        root.look(None);
        let Room { free, floor } = root.room();
        assert!(0 < free && free < u64::MAX);
        let size = look_at(Path::new("/")).unwrap().size;
        assert_eq!(floor, (size / 8).min(512 << 20));
        root.look(Some(7));
        assert_eq!(root.room().floor, 7);

        let nowhere = Place::new("/nowhere/at/all".into());
        nowhere.look(Some(7));
        assert!(nowhere.unreadable.is_there());
        assert_eq!(nowhere.room().free, u64::MAX);
    }
}
