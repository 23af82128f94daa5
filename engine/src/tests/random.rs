//! The engine under random use, faults, kills and power cuts, against a plain model.
//!
//! The model knows of each event that was sent whether it was acknowledged, refused, or sent to a
//! process that died. What SQL shows must be every acknowledged event once, no refused one while the
//! process lives that refused it, and no other ones that were not sent; and `verify` must find
//! nothing wrong with what any process leaves behind.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use proptest::prelude::*;
use ringlake_faults::{Call, Fault, TestDisk, scratch};

use super::support::*;
use crate::lake::{Location, ShardSequence, Table};
use crate::{Engine, Ingest, verify};

/// Something that is done to the engine, or to the disk under it.
#[derive(Debug, Clone)]
enum Action {
    Send {
        shard: usize,
        events: usize,
    },
    Flush,
    Roll,
    /// Small files are joined, and those that they were are removed.
    Compact,
    /// One call will fail: the one of this kind at that place after so many others of it.
    Fail {
        wrong: Wrong,
        after: u8,
    },
    /// No byte can be written any more; so many requests come; then there is room again.
    FillDisk {
        requests: usize,
    },
    /// Another node commits to the table.
    Conflict,
    /// The process ends in good order, and another one starts; this call fails on the way.
    Restart {
        wrong: Option<Wrong>,
        after: u8,
    },
    /// The process dies after so many calls, in the middle of requests or of a roll.
    Crash {
        calls: u8,
        roll: bool,
        cut: Option<u16>,
    },
}

/// A kind of call that can fail, the places where it is made, and how it fails.
#[derive(Debug, Clone, Copy)]
struct Wrong {
    call: Call,
    place: &'static str,
    fault: Fault,
}

const FAILS: Fault = Fault::Fail(ErrorKind::Other);
const FULL: Fault = Fault::Fail(ErrorKind::StorageFull);
const LIES: Fault = Fault::FailAfterwards(ErrorKind::Other);

/// Everything that a process may meet.
const WRONGS: [(Call, &str, Fault); 26] = [
    (Call::Write, "log/", Fault::Short),
    (Call::Write, "log/", FAILS),
    (Call::Write, "log/", LIES),
    (Call::Sync, "log/", FAILS),
    (Call::Create, "log/", FULL),
    (Call::Reopen, "log/", FAILS),
    (Call::Truncate, "log/", FAILS),
    (Call::Rename, "log/", FAILS),
    (Call::Rename, "log/", LIES),
    (Call::Remove, "log/", FAILS),
    (Call::SyncDirectory, "log/", FAILS),
    (Call::CreateDirectory, "events/date=", FULL),
    (Call::Create, "events/date=", FULL),
    (Call::Write, "events/date=", Fault::Short),
    (Call::SyncFile, "events/date=", FAILS),
    (Call::Rename, "events/date=", FAILS),
    (Call::Rename, "events/_delta_log/", FAILS),
    (Call::SyncDirectory, "events", FAILS),
    (Call::Create, "events/_delta_log/", FULL),
    (Call::Write, "events/_delta_log/", Fault::Short),
    (Call::Sync, "events/_delta_log/", FAILS),
    (Call::Link, "events/_delta_log/", FAILS),
    (Call::Link, "events/_delta_log/", LIES),
    (Call::SyncDirectory, "events/_delta_log", FAILS),
    (Call::Remove, "events/", FAILS),
    (Call::SyncDirectory, "", FAILS),
];

fn wrong() -> impl Strategy<Value = Wrong> {
    prop::sample::select(&WRONGS[..]).prop_map(|(call, place, fault)| Wrong { call, place, fault })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0..2_usize, 1..40_usize).prop_map(|(shard, events)| Action::Send { shard, events }),
        1 => Just(Action::Flush),
        2 => Just(Action::Roll),
        1 => Just(Action::Compact),
        4 => (wrong(), 0..3_u8).prop_map(|(wrong, after)| Action::Fail { wrong, after }),
        1 => (1..4_usize).prop_map(|requests| Action::FillDisk { requests }),
        1 => Just(Action::Conflict),
        1 => (prop::option::of(wrong()), 0..3_u8)
            .prop_map(|(wrong, after)| Action::Restart { wrong, after }),
        2 => (0..40_u8, any::<bool>(), prop::option::of(any::<u16>()))
            .prop_map(|(calls, roll, cut)| Action::Crash { calls, roll, cut }),
    ]
}

/// What became of an event as far as its sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// By the process that is running.
    Refused,
    /// The process died before it answered, or after it refused.
    Unknown,
}

/// An engine, the disk under it, and what it was told.
struct World {
    root: tempfile::TempDir,
    disk: TestDisk,
    engine: Option<(Engine, Vec<Ingest>)>,
    fates: BTreeMap<usize, Fate>,
    /// Commits of the other node.
    foreign: i64,
}

impl World {
    fn new() -> Self {
        let root = scratch();
        let disk = TestDisk::new(root.path()).unwrap().ignoring(outside);
        let mut world = Self { root, disk, engine: None, fates: BTreeMap::new(), foreign: 0 };
        world.start();
        world
    }

    /// Starts a process; one that meets a fault may refuse, the next one may not.
    fn start(&mut self) {
        let config = config(self.root.path());
        let opened = Engine::open_on(config.clone(), Arc::new(self.disk.clone()));
        let ready = match opened {
            Ok((engine, ingests)) => match engine.wait_ready(LIMIT) {
                Ok(()) => Some((engine, ingests)),
                Err(_) => {
                    drop(ingests);
                    engine.shutdown(LIMIT).unwrap();
                    None
                }
            },
            Err(_) => None,
        };
        self.disk.clear_plan();
        self.engine = ready.or_else(|| Some(open(config, Arc::new(self.disk.clone()))));
    }

    fn engine(&self) -> &Engine {
        &self.engine.as_ref().unwrap().0
    }

    fn send(&mut self, shard: usize, events: usize) {
        let first = self.fates.len();
        let ingest = &mut self.engine.as_mut().unwrap().1[shard];
        let fate = if send(ingest, first, events) { Fate::Acknowledged } else { Fate::Refused };
        self.fates.extend((first..first + events).map(|id| (id, fate)));
    }

    fn fail(&self, wrong: Wrong, after: u8) {
        let mut left = u32::from(after) + 1;
        self.disk.set_plan(move |call, path| {
            if left > 0 && call == wrong.call && path.to_str().unwrap().starts_with(wrong.place) {
                left -= 1;
                if left == 0 {
                    return wrong.fault;
                }
            }
            Fault::None
        });
    }

    fn fill_disk(&mut self, requests: usize) {
        self.disk.set_plan(|call, _| if call == Call::Write { FULL } else { Fault::None });
        for request in 0..requests {
            self.send(request % 2, 3);
        }
        self.disk.clear_plan();
        wait_open(&mut self.engine.as_mut().unwrap().1[0]);
        self.send(0, 1);
        let last = self.fates.last_key_value().map(|(_, fate)| *fate);
        assert_eq!(last, Some(Fate::Acknowledged), "there is room again");
    }

    fn conflict(&mut self) {
        let location = Location::parse(None, self.root.path()).unwrap();
        let location = location.with_disk(Arc::new(self.disk.clone()));
        let step = ShardSequence { shard: 0, previous: self.foreign, last: self.foreign + 1 };
        let committed = Table::open(&location, "other").and_then(|mut table| {
            // A commit that failed without knowing it went through shows here.
            let previous = table.sequence(0)?;
            table.commit(&[], &[ShardSequence { previous, last: previous + 1, ..step }])
        });
        if committed.is_ok() {
            self.foreign += 1;
        }
    }

    /// The process ends; the fates of what it refused are open from now on.
    fn end(&mut self) -> bool {
        let (engine, ingests) = self.engine.take().unwrap();
        drop(ingests);
        let durable = engine.shutdown(LIMIT).unwrap().everything_durable;
        for fate in self.fates.values_mut().filter(|fate| **fate == Fate::Refused) {
            *fate = Fate::Unknown;
        }
        durable
    }

    /// The disk takes nothing more after `calls` calls: for everybody outside, the process is dead.
    fn crash(&mut self, calls: u8, roll: bool) {
        let dead = Arc::new(AtomicBool::new(false));
        let (dies, mut left) = (Arc::clone(&dead), calls);
        self.disk.set_plan(move |_, _| {
            if left == 0 {
                // Release: pairs with the Acquire load below.
                dies.store(true, Ordering::Release);
                return FAILS;
            }
            left -= 1;
            Fault::None
        });
        // Acquire: pairs with the Release store above.
        let is_dead = || dead.load(Ordering::Acquire);
        std::thread::scope(|scope| {
            let roller = roll.then(|| {
                let engine = self.engine().clone();
                scope.spawn(move || engine.roll().is_ok())
            });
            let began = Instant::now();
            let rolling = || roller.as_ref().is_some_and(|roller| !roller.is_finished());
            for round in 0_usize.. {
                if is_dead() || began.elapsed() > LIMIT || (round >= 4 && !rolling()) {
                    break;
                }
                self.send(round % 2, 2);
            }
            self.end();
        });
        self.disk.clear_plan();
    }

    /// The power goes: of the possible outcomes the one with the number `outcome` is what is left.
    fn cut_power(&mut self, outcome: u16) {
        let trace = self.disk.trace();
        let mut images = trace.after(trace.steps.len()).outcomes();
        let image = images.swap_remove(usize::from(outcome) % images.len());
        self.root = scratch();
        image.write(self.root.path()).unwrap();
        self.disk = TestDisk::new(self.root.path()).unwrap().ignoring(outside);
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Send { shard, events } => self.send(shard, events),
            Action::Flush => self.compare(),
            Action::Roll => {
                self.engine().roll().unwrap();
                self.compare();
            }
            Action::Compact => {
                // Either may meet a fault; they are not tried again by themselves.
                let _ = self.engine().compact();
                let _ = self.engine().vacuum();
                self.compare();
            }
            Action::Fail { wrong, after } => self.fail(wrong, after),
            Action::FillDisk { requests } => self.fill_disk(requests),
            Action::Conflict => self.conflict(),
            Action::Restart { wrong, after } => {
                self.disk.clear_plan();
                assert!(self.end() || self.fates.values().any(|fate| *fate == Fate::Unknown));
                self.check_files();
                if let Some(wrong) = wrong {
                    self.fail(wrong, after);
                }
                self.start();
                self.compare();
            }
            Action::Crash { calls, roll, cut } => {
                self.crash(calls, roll);
                if let Some(outcome) = cut {
                    self.cut_power(outcome);
                }
                self.start();
                self.compare();
                self.check_files();
            }
        }
    }

    /// What SQL shows against the model.
    fn compare(&self) {
        self.engine().flush().unwrap();
        let visible = visible(self.engine());
        for (id, fate) in &self.fates {
            let times = visible.get(id).copied().unwrap_or(0);
            let right = match fate {
                Fate::Acknowledged => times == 1,
                Fate::Refused => times == 0,
                Fate::Unknown => times <= 1,
            };
            assert!(right, "event {id} was {fate:?} and is there {times} times");
        }
        let unsent = visible.keys().find(|id| !self.fates.contains_key(id));
        assert_eq!(unsent, None, "an event that was never sent");
    }

    fn check_files(&self) {
        let report = verify(self.root.path(), None).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        let past = self.disk.unrecorded().unwrap();
        assert!(past.is_empty(), "changed past the disk's interface: {past:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 60, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn whatever_happens_acknowledged_events_are_there_once(
        actions in prop::collection::vec(action(), 1..16),
    ) {
        let mut world = World::new();
        for action in &actions {
            world.act(action);
        }
        world.disk.clear_plan();
        world.compare();
        world.end();
        world.check_files();
    }
}
