//! Shards that share message ids, on disks that stop and fail.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::thread::JoinHandle;

use arrow::array::AsArray;
use crossbeam_channel::{Sender, unbounded};
use ringlake_dedup::{Dedup, Limits};

use super::held::REQUESTS_MAX;
use super::testing::{PATIENCE, TestDisk};
use super::*;
use crate::accounting::Accounting;
use crate::ack::{self, Ticket};
use crate::hot::{Goal, Receiving, test_queue};
use crate::ingest::{Bar, Gate, Ingest, IngestError};
use crate::log::Identity;
use crate::schema::log_schema;
use crate::space;
use crate::tests::support::commit;

const NEW: Result<Durable, NotDurable> = Ok(Durable { duplicates: 0 });
const KNOWN: Result<Durable, NotDurable> = Ok(Durable { duplicates: 1 });

/// Two running shards that share their ids.
struct Rig {
    disks: Vec<TestDisk>,
    ingests: Vec<Ingest>,
    states: Vec<Arc<ShardState>>,
    markers: Vec<Sender<Arc<Marker>>>,
    receiving: Receiving,
    threads: Vec<JoinHandle<()>>,
    _scratch: tempfile::TempDir,
}

impl Rig {
    fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let gate = Arc::new(Gate::default());
        gate.lift(Bar::Closed);
        let (queue, receiving) = test_queue(64 << 20);
        let mut rig = Self {
            disks: Vec::new(),
            ingests: Vec::new(),
            states: Vec::new(),
            markers: Vec::new(),
            receiving,
            threads: Vec::new(),
            _scratch: scratch,
        };
        let mut parts = Vec::new();
        for shard in 0..2 {
            let (producer, consumer) = ringlake_ring::ring(1 << 20);
            let (settler, acks) = ack::channel();
            let state = Arc::new(ShardState::new(shard, producer.gauge(), consumer.waker()));
            rig.states.push(Arc::clone(&state));
            rig.ingests.push(Ingest::new(producer, acks, Arc::clone(&gate), Arc::clone(&state)));
            rig.disks.push(TestDisk::default());
            let (sender, markers) = unbounded();
            rig.markers.push(sender);
            parts.push((consumer, settler, state, markers));
        }
        let limits =
            Limits { ids: NonZeroUsize::new(1_000_000).unwrap(), window: Duration::from_secs(60) };
        let wakers = rig.states.clone();
        let tell = move || wakers.iter().for_each(|state| state.waker.wake());
        let dedup = Arc::new(Dedup::new(&limits, [1; 16], tell));
        let space = Arc::new(Space::new(
            space::Limits { free_min_bytes: Some(0), log_max_bytes: u64::MAX },
            gate,
            rig.states.clone().into(),
            queue.waker(),
            rig._scratch.path().to_owned(),
            rig._scratch.path().to_owned(),
        ));
        for ((consumer, settler, state, markers), disk) in parts.into_iter().zip(&rig.disks) {
            let directory = rig._scratch.path().join(state.shard.to_string());
            std::fs::create_dir(&directory).unwrap();
            let identity = Identity { node: "n".into(), shard: state.shard, schema: log_schema() };
            let disk = Arc::new(disk.clone());
            let shard = Shard {
                consumer,
                intake: Intake::new(Some(Arc::clone(&dedup)), state.shard),
                log: Log::new(directory, disk, identity, 1 << 20, vec![], vec![]).unwrap(),
                settler,
                queue: queue.clone(),
                state,
                operations: Arc::default(),
                markers,
                limits: LogConfig::default(),
                space: Arc::clone(&space),
                mending: Mending::default(),
                scrubbing: 0,
                next_sequence: 1,
            };
            rig.threads.push(std::thread::spawn(move || shard.run()));
        }
        rig
    }

    /// Sends one request to a shard: an event for each id, none for an empty one.
    fn send(&mut self, shard: usize, ids: &[&str]) -> Ticket {
        let lines: Vec<String> = ids
            .iter()
            .map(|id| format!(r#"{{"event":"e","message_id":"{id}","user_id":"{shard}"}}"#))
            .collect();
        let until = Instant::now() + PATIENCE;
        // After a failed batch nothing is accepted until the log has come back.
        while self.ingests[shard].reserve(1).err() == Some(IngestError::NotDurable) {
            assert!(Instant::now() < until, "the log comes back");
            std::thread::yield_now();
        }
        commit(&mut self.ingests[shard], &lines).unwrap()
    }

    fn answer(&self, shard: usize, ticket: Ticket) -> Result<Durable, NotDurable> {
        self.ingests[shard].acks().wait_blocking(ticket)
    }

    /// Waits until `count` requests of `shard` wait for the other one.
    fn wait_until_held(&self, shard: usize, count: usize) {
        let until = Instant::now() + PATIENCE;
        // Relaxed: a statistic.
        while self.states[shard].held_requests.load(Ordering::Relaxed) != count {
            assert!(Instant::now() < until, "{count} requests are held back");
            std::thread::yield_now();
        }
    }

    /// Stops shard 0 in the sync of a request with `id`; gives the request's ticket.
    fn stop_in_the_sync_of(&mut self, id: &str) -> Ticket {
        self.disks[0].stop();
        let ticket = self.send(0, &[id]);
        self.disks[0].wait_until_stopped();
        ticket
    }

    /// Ends the shards; gives the ids that were stored, with the shard that stored each, batch by
    /// batch, and the accounting.
    fn end(self) -> (Vec<Vec<(String, u32)>>, Accounting) {
        for state in &self.states {
            // Release: pairs with the Acquire load in `Shard::run`.
            state.stop.store(true, Ordering::Release);
            state.waker.wake();
        }
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let batches = self.receiving.messages.try_iter().filter_map(|message| match message {
            Message::Batch(batch) => Some(ids_of(&batch)),
            _ => None,
        });
        let accounting = Accounting::of(self.states.iter().map(|state| &state.tally));
        let parts = [accounting.stored, accounting.duplicate, accounting.refused.total()];
        assert_eq!(accounting.received, parts.iter().sum::<u64>() + accounting.in_flight);
        assert_eq!(accounting.in_flight, 0);
        (batches.collect(), accounting)
    }
}

fn ids_of(batch: &LogBatch) -> Vec<(String, u32)> {
    let ids = batch.batch.column_by_name("message_id").unwrap().as_string::<i32>();
    ids.iter().map(|id| (id.unwrap().to_owned(), batch.shard)).collect()
}

/// How often each id was stored.
fn counted(batches: &[Vec<(String, u32)>]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for (id, _) in batches.iter().flatten() {
        *counts.entry(id.as_str()).or_default() += 1;
    }
    counts
}

#[test]
fn a_repetition_is_answered_with_its_count_and_not_stored() {
    let mut rig = Rig::start();
    let ticket = rig.send(0, &["a", "b", "a", ""]);
    assert_eq!(rig.answer(0, ticket), KNOWN);
    for shard in [0, 1] {
        let ticket = rig.send(shard, &["b"]);
        assert_eq!(rig.answer(shard, ticket), KNOWN);
    }
    let ticket = rig.send(1, &["a", "b", "c"]);
    assert_eq!(rig.answer(1, ticket), Ok(Durable { duplicates: 2 }));
    let (batches, accounting) = rig.end();
    assert_eq!(counted(&batches), BTreeMap::from([("", 1), ("a", 1), ("b", 1), ("c", 1)]));
    assert_eq!((accounting.stored, accounting.duplicate), (4, 5));
}

#[test]
fn a_request_waits_until_the_other_shard_has_stored_its_event_and_others_pass_it() {
    let mut rig = Rig::start();
    let first = rig.stop_in_the_sync_of("a");
    let second = rig.send(1, &["b", "a"]);
    let third = rig.send(1, &["c"]);
    assert_eq!(rig.answer(1, third), NEW, "it does not wait for the one before it");
    rig.wait_until_held(1, 1);
    rig.disks[0].go_on(false);
    assert_eq!(rig.answer(0, first), NEW);
    assert_eq!(rig.answer(1, second), KNOWN);
    rig.wait_until_held(1, 0);
    let (batches, accounting) = rig.end();
    assert_eq!(counted(&batches), BTreeMap::from([("a", 1), ("b", 1), ("c", 1)]));
    assert!(batches.contains(&vec![("b".into(), 1)]), "it was stored whole: {batches:?}");
    assert_eq!((accounting.stored, accounting.duplicate), (3, 1));
}

#[test]
fn when_the_first_fails_the_second_is_stored() {
    let mut rig = Rig::start();
    let first = rig.stop_in_the_sync_of("a");
    let second = rig.send(1, &["b", "a"]);
    rig.wait_until_held(1, 1);
    rig.disks[0].go_on(true);
    assert_eq!(rig.answer(0, first), Err(NotDurable));
    assert_eq!(rig.answer(1, second), NEW);
    let (batches, accounting) = rig.end();
    assert_eq!(batches, [[("b".to_owned(), 1), ("a".to_owned(), 1)]]);
    assert_eq!((accounting.stored, accounting.refused.not_durable), (2, 1));
}

#[test]
fn repetitions_in_one_batch_share_its_fate() {
    for failing in [false, true] {
        let mut rig = Rig::start();
        let first = rig.stop_in_the_sync_of("a");
        // Both are in the ring when the first sync ends: one batch.
        let tickets = [rig.send(0, &["b"]), rig.send(0, &["b", "c"])];
        rig.disks[0].go_on(failing);
        let answers = tickets.map(|ticket| rig.answer(0, ticket));
        let expected = if failing { [Err(NotDurable); 2] } else { [NEW, KNOWN] };
        assert_eq!(answers, expected);
        assert_eq!(rig.answer(0, first).is_ok(), !failing);
        rig.disks[0].go_on(false);
        let again = rig.send(1, &["a", "b", "c"]);
        let known = if failing { 0 } else { 3 };
        assert_eq!(rig.answer(1, again), Ok(Durable { duplicates: known }));
        let (batches, accounting) = rig.end();
        assert_eq!(counted(&batches), BTreeMap::from([("a", 1), ("b", 1), ("c", 1)]));
        assert_eq!(accounting.stored, 3);
        assert_eq!(accounting.refused.not_durable, if failing { 4 } else { 0 });
    }
}

#[test]
fn crossing_requests_are_all_answered_and_each_id_is_stored_once() {
    let mut rig = Rig::start();
    let ids: Vec<String> = (0..40).map(|id| format!("id{id}")).collect();
    let mut tickets = Vec::new();
    for round in 0..ids.len() {
        // The same ids in different orders, again and again, to both shards at a time.
        let mut order: Vec<&str> = ids.iter().map(String::as_str).collect();
        order.rotate_left(round);
        tickets.push((0, rig.send(0, &order)));
        order.reverse();
        tickets.push((1, rig.send(1, &order)));
    }
    let duplicates: usize =
        tickets.iter().map(|&(shard, ticket)| rig.answer(shard, ticket).unwrap().duplicates).sum();
    assert_eq!(duplicates, 40 * 80 - 40);
    let (batches, _) = rig.end();
    assert_eq!(counted(&batches).len(), 40);
    assert!(counted(&batches).values().all(|count| *count == 1));
}

#[test]
fn a_marker_waits_for_the_requests_before_it_that_wait() {
    let mut rig = Rig::start();
    let first = rig.stop_in_the_sync_of("a");
    let second = rig.send(1, &["a"]);
    rig.wait_until_held(1, 1);
    let (marker, _answer) = Marker::new(Goal::Visible, 1);
    rig.markers[1].send(marker).unwrap();
    rig.states[1].waker.wake();
    // The shard has seen the marker once it has answered what came after it.
    for id in ["b", "c"] {
        let ticket = rig.send(1, &[id]);
        assert_eq!(rig.answer(1, ticket), NEW);
    }
    let passed = |rig: &Rig| {
        rig.receiving.messages.try_iter().any(|message| matches!(message, Message::Marker(_)))
    };
    assert!(!passed(&rig));
    rig.disks[0].go_on(false);
    assert_eq!((rig.answer(0, first), rig.answer(1, second)), (NEW, KNOWN));
    let until = Instant::now() + PATIENCE;
    while !passed(&rig) {
        assert!(Instant::now() < until, "the marker goes on");
        std::thread::yield_now();
    }
    rig.end();
}

#[test]
fn beyond_the_bound_of_waiting_requests_the_ring_is_read_no_further_and_nothing_is_lost() {
    let mut rig = Rig::start();
    let first = rig.stop_in_the_sync_of("a");
    let tickets: Vec<Ticket> = (0..REQUESTS_MAX + 50).map(|_| rig.send(1, &["a"])).collect();
    let behind = rig.send(1, &["b"]);
    rig.wait_until_held(1, REQUESTS_MAX);
    assert!(rig.states[1].gauge.used_bytes() > 0, "the rest stays in the ring");
    rig.disks[0].go_on(false);
    assert_eq!(rig.answer(0, first), NEW);
    assert_eq!(rig.answer(1, behind), NEW);
    assert!(tickets.into_iter().all(|ticket| rig.answer(1, ticket) == KNOWN));
    let (_, accounting) = rig.end();
    assert_eq!((accounting.stored, accounting.duplicate), (2, REQUESTS_MAX as u64 + 50));
}

#[test]
fn a_shard_that_is_told_to_stop_answers_those_that_wait_first() {
    let mut rig = Rig::start();
    let first = rig.stop_in_the_sync_of("a");
    let second = rig.send(1, &["a"]);
    rig.wait_until_held(1, 1);
    // Release: pairs with the Acquire load in `Shard::run`.
    rig.states[1].stop.store(true, Ordering::Release);
    rig.states[1].waker.wake();
    rig.disks[0].go_on(false);
    assert_eq!((rig.answer(0, first), rig.answer(1, second)), (NEW, KNOWN));
    rig.end();
}
