//! The shard on a disk that takes nothing for a while.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use ringlake_disk::RealDisk;
use ringlake_faults::{Call, Fault, TestDisk};

use super::*;
use crate::ack;
use crate::config::LogConfig;
use crate::hot::{Marker, Message, Receiving, test_queue};
use crate::ingest::{Bar, Gate, Ingest, IngestError};
use crate::log::{Identity, Log, recover};
use crate::schema::log_schema;
use crate::shard::{Intake, ShardState};
use crate::space::{self, Space};
use crate::tests::support::commit;

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk that can be filled and emptied; it counts how often somebody tried to make a file.
#[derive(Debug)]
struct Fillable {
    disk: TestDisk,
    full: Arc<AtomicBool>,
    created: Arc<AtomicU64>,
}

impl Fillable {
    fn new(directory: &Path) -> Self {
        let disk = TestDisk::new(directory).unwrap();
        let (full, created) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (is_full, count) = (Arc::clone(&full), Arc::clone(&created));
        disk.set_plan(move |call, _| {
            if call == Call::Create {
                // Relaxed: statistics.
                count.fetch_add(1, Ordering::Relaxed);
            }
            let takes_room = matches!(call, Call::Create | Call::Write);
            // Relaxed: the flag is all there is.
            if takes_room && is_full.load(Ordering::Relaxed) {
                return Fault::Fail(io::ErrorKind::StorageFull);
            }
            Fault::None
        });
        Self { disk, full, created }
    }
}

/// A running shard.
struct Running {
    ingest: Ingest,
    state: Arc<ShardState>,
    disk: Fillable,
    directory: PathBuf,
    receiving: Receiving,
    thread: std::thread::JoinHandle<()>,
    _markers: Sender<Arc<Marker>>,
}

fn start(directory: &Path) -> Running {
    let (producer, consumer) = ringlake_ring::ring(1 << 20);
    let (settler, acks) = ack::channel();
    let (to_shard, markers): (_, Receiver<Arc<Marker>>) = unbounded();
    let state = Arc::new(ShardState::new(0, producer.gauge(), consumer.waker()));
    let gate = Arc::new(Gate::default());
    gate.lift(Bar::Closed);
    let (queue, receiving) = test_queue(1 << 20);
    let disk = Fillable::new(directory);
    let space = Space::new(
        space::Limits { free_min_bytes: Some(0), log_max_bytes: u64::MAX },
        Arc::clone(&gate),
        Arc::from([Arc::clone(&state)]),
        queue.waker(),
        directory.to_owned(),
        directory.to_owned(),
    );
    let identity = Identity { node: "0123456789ab".into(), shard: 0, schema: log_schema() };
    let log = Log::new(
        directory.to_owned(),
        Arc::new(disk.disk.clone()),
        identity,
        1 << 20,
        Vec::new(),
        Vec::new(),
    );
    let shard = Shard {
        consumer,
        intake: Intake::new(None, 0),
        log: log.unwrap(),
        settler,
        queue,
        state: Arc::clone(&state),
        operations: Arc::default(),
        markers,
        limits: LogConfig::default(),
        space: Arc::new(space),
        mending: Mending::default(),
        scrubbing: 0,
        next_sequence: 1,
    };
    Running {
        ingest: Ingest::new(producer, acks, gate, Arc::clone(&state)),
        state,
        disk,
        directory: directory.to_owned(),
        receiving,
        thread: std::thread::spawn(move || shard.run()),
        _markers: to_shard,
    }
}

impl Running {
    /// Sends a request of `events` events; whether it became durable.
    fn send(&mut self, events: usize) -> Result<bool, IngestError> {
        let ticket = commit(&mut self.ingest, &vec![r#"{"event":"a"}"#.to_owned(); events])?;
        Ok(self.ingest.acks().wait_blocking(ticket).is_ok())
    }

    fn set_full(&self, full: bool) {
        // Relaxed: the flag is all there is.
        self.disk.full.store(full, Ordering::Relaxed);
    }

    fn stop(self) -> (Receiving, PathBuf) {
        drop(self.ingest);
        self.thread.join().unwrap();
        (self.receiving, self.directory)
    }
}

#[test]
fn a_full_disk_costs_one_batch_and_the_shard_goes_on_by_itself() {
    let scratch = tempfile::tempdir().unwrap();
    let mut shard = start(scratch.path());
    assert_eq!(shard.send(3), Ok(true));
    shard.set_full(true);
    assert_eq!(shard.send(4), Ok(false));
    // Nobody has to try it out: the gate is closed before the first one is told.
    assert_eq!(shard.send(1), Err(IngestError::NotDurable));
    assert!(shard.state.log_problem.text().unwrap().contains("log segment"));
    // Relaxed: statistics.
    let attempts = || shard.disk.created.load(Ordering::Relaxed);
    let began = (attempts(), Instant::now());
    while attempts() < began.0 + 2 {
        assert!(began.1.elapsed() < PATIENCE, "the shard tries again");
        std::thread::yield_now();
    }
    assert!(began.1.elapsed() > PAUSE_MIN, "it does not try all the time");

    shard.set_full(false);
    let until = Instant::now() + PATIENCE;
    while shard.ingest.reserve(1_000).is_err() {
        assert!(Instant::now() < until, "events are accepted again");
        std::thread::yield_now();
    }
    assert!(!shard.state.log_problem.is_there());
    // The void range is durable already, before another batch comes.
    let quarantine = scratch.path().join("quarantine");
    let found = recover(0, 0, &shard.directory, &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert_eq!((found.voids.as_slice(), found.last), ([4..=7].as_slice(), 7));
    assert_eq!(shard.send(2), Ok(true));

    let accounting = crate::accounting::Accounting::of(std::iter::once(&shard.state.tally));
    assert_eq!((accounting.received, accounting.stored, accounting.in_flight), (9, 5, 0));
    assert_eq!(accounting.refused.not_durable, 4);
    let (receiving, directory) = shard.stop();
    let numbers: Vec<(i64, i64)> = receiving
        .messages
        .try_iter()
        .map(|message| match message {
            Message::Batch(batch) => (batch.first, batch.last()),
            Message::Marker(_) => panic!("nobody sent a marker"),
        })
        .collect();
    assert_eq!(numbers, [(1, 3), (8, 9)]);
    let found = recover(0, 0, &directory, &quarantine, &RealDisk, &mut |_| ()).unwrap();
    assert_eq!((found.voids.as_slice(), found.last), ([4..=7].as_slice(), 9));
}

/// `memory` is answered before the log has the events; only then can a loss break a promise.
#[test]
fn a_batch_that_is_lost_breaks_a_promise_only_when_there_was_one() {
    let scratch = tempfile::tempdir().unwrap();
    let mut shard = start(scratch.path());
    shard.ingest.tally().promise(3);
    assert_eq!(shard.send(3), Ok(true));
    assert!(shard.state.tally.kept_promises());
    shard.set_full(true);
    assert_eq!(shard.send(1), Ok(false));
    assert!(!shard.state.tally.kept_promises());
    shard.stop();

    let scratch = tempfile::tempdir().unwrap();
    let mut shard = start(scratch.path());
    shard.set_full(true);
    assert_eq!(shard.send(1), Ok(false));
    assert!(shard.state.tally.kept_promises());
    shard.stop();
}
