//! Linearizability: whatever two threads observe on a ring, one thread could have observed, making
//! the same calls one after the other in an order that keeps to the clock.
//!
//! **Algorithm.** Each side notes what it called, what was answered, and when the call began and
//! ended. An order is a merge of the two notes that gives [`Queue`], call by call, the same
//! answers, and in which no call comes before one that had ended when it began. Looking for one is
//! exponential in general. Here each side's calls are already in order, and what is in the ring
//! after some merge depends only on how many calls of each side are in it, not on how they were
//! mixed: with n and m calls there are at most n × m situations to look at, and as calls of one side
//! that end before one of the other begins leave no choice, there are about n + m.
//!
//! **Ordering.** The clock is a counter that both sides add to. What was noted before is then
//! before in happens-before too, so that the check raises no false alarm on any processor. The
//! price is that calls that do not overlap are ordered by the clock and not by the ring alone; that
//! these get along without help is for loom and for the ring's other tests to show.

use std::collections::HashSet;
use std::hint;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::rounds;
use super::threads::Random;
use crate::model::Queue;
use crate::{Consumer, Producer, ReserveError, ring};

/// A call and its answer.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Reserve { len: usize, outcome: Result<(), ReserveError> },
    Commit { reserved: usize, len: usize },
    DropProducer,
    Next(Option<Vec<u8>>),
    IsEmpty(bool),
    IsAbandoned(bool),
    Release,
    DropConsumer,
}

/// A call between two readings of the clock.
#[derive(Clone, Debug)]
struct Noted {
    begin: usize,
    call: Call,
    end: usize,
}

/// One side's calls, in order.
struct Notes<'a> {
    clock: &'a AtomicUsize,
    calls: Vec<Noted>,
}

impl<'a> Notes<'a> {
    fn new(clock: &'a AtomicUsize) -> Self {
        Self { clock, calls: Vec::new() }
    }

    fn tick(&self) -> usize {
        // AcqRel: see the header; pairs with itself on the other side.
        self.clock.fetch_add(1, Ordering::AcqRel)
    }

    /// Makes a call. What it leaves behind is for the caller, the note for the check.
    fn note<T>(&mut self, run: impl FnOnce() -> (Call, T)) -> T {
        let begin = self.tick();
        let (call, rest) = run();
        let end = self.tick();
        self.calls.push(Noted { begin, call, end });
        rest
    }
}

/// The payload of record number `number`.
fn payload(number: usize, len: usize) -> Vec<u8> {
    vec![u8::try_from(number % 251).unwrap(); len]
}

/// What one thread would see after some of the calls.
#[derive(Clone)]
struct Situation {
    queue: Queue,
    /// Records read so far: the number of the next one.
    reads: usize,
}

impl Situation {
    /// Makes `call`; whether the answer is the same.
    fn allows(&mut self, call: &Call) -> bool {
        match call {
            Call::Reserve { len, outcome } => self.queue.reserve(*len) == *outcome,
            Call::Commit { reserved, len } => {
                self.queue.commit(*reserved, *len);
                true
            }
            Call::Next(answer) => {
                let record = self.queue.next().map(|len| payload(self.reads, len));
                self.reads += usize::from(record.is_some());
                record == *answer
            }
            Call::IsEmpty(answer) => self.queue.is_empty() == *answer,
            Call::IsAbandoned(answer) => self.queue.producer_gone == *answer,
            Call::Release => {
                self.queue.release();
                true
            }
            Call::DropProducer => {
                self.queue.producer_gone = true;
                true
            }
            Call::DropConsumer => {
                self.queue.consumer_gone = true;
                true
            }
        }
    }
}

/// Looks for an order; without one, the calls of which neither can be the next.
fn explain(
    capacity: usize,
    producer: &[Noted],
    consumer: &[Noted],
) -> Result<(), [Option<Noted>; 2]> {
    let start = Situation { queue: Queue::new(capacity, 0), reads: 0 };
    let mut open = vec![((0, 0), start)];
    let mut seen = HashSet::new();
    let mut furthest = (0, 0);
    while let Some(((p, c), situation)) = open.pop() {
        if p == producer.len() && c == consumer.len() {
            return Ok(());
        }
        if p + c > furthest.0 + furthest.1 {
            furthest = (p, c);
        }
        let mut go = |next: Option<&Noted>, other: Option<&Noted>, to: (usize, usize)| {
            let Some(next) = next else { return };
            let overtaken = other.is_some_and(|other| other.end < next.begin);
            if overtaken || seen.contains(&to) {
                return;
            }
            let mut after = situation.clone();
            if after.allows(&next.call) {
                seen.insert(to);
                open.push((to, after));
            }
        };
        go(producer.get(p), consumer.get(c), (p + 1, c));
        go(consumer.get(c), producer.get(p), (p, c + 1));
    }
    let (p, c) = furthest;
    Err([producer.get(p).cloned(), consumer.get(c).cloned()])
}

/// Reserves, commits and aborts at random, then goes.
fn produce(mut producer: Producer, calls: usize, mut random: Random, notes: &mut Notes<'_>) {
    let mut number = 0;
    for _ in 0..calls {
        let len = random.below(producer.max_record() + 2);
        let reservation = notes.note(|| match producer.try_reserve(len) {
            Ok(reservation) => (Call::Reserve { len, outcome: Ok(()) }, Some(reservation)),
            Err(error) => (Call::Reserve { len, outcome: Err(error) }, None),
        });
        let Some(mut reservation) = reservation else { continue };
        let used = random.below(len + 1);
        reservation[..used].copy_from_slice(&payload(number, used));
        if random.below(8) > 0 {
            notes.note(|| {
                reservation.commit(used);
                (Call::Commit { reserved: len, len: used }, ())
            });
            number += 1;
        }
    }
    notes.note(|| {
        drop(producer);
        (Call::DropProducer, ())
    });
}

/// Reads, releases and asks at random, then goes.
fn consume(mut consumer: Consumer, calls: usize, mut random: Random, notes: &mut Notes<'_>) {
    for _ in 0..calls {
        match random.below(8) {
            0..=3 => notes.note(|| (Call::Next(consumer.next().map(<[u8]>::to_vec)), ())),
            4 | 5 => notes.note(|| {
                consumer.release();
                (Call::Release, ())
            }),
            6 => notes.note(|| (Call::IsEmpty(consumer.is_empty()), ())),
            _ => notes.note(|| (Call::IsAbandoned(consumer.is_abandoned()), ())),
        }
    }
    notes.note(|| {
        drop(consumer);
        (Call::DropConsumer, ())
    });
}

/// Runs both sides at once; their notes.
fn history(capacity: usize, seed: u64) -> (Vec<Noted>, Vec<Noted>) {
    let (producer, consumer) = ring(capacity);
    let (clock, ready) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Waking a thread takes longer than all of its calls: both begin while they run, if they have a
    // core each, or hardly a call would overlap another.
    let meet = || {
        // Relaxed: hands nothing over.
        ready.fetch_add(1, Ordering::Relaxed);
        for spins in 1.. {
            if ready.load(Ordering::Relaxed) == 2 {
                break;
            }
            if spins % 20_000 == 0 {
                thread::yield_now();
            }
            hint::spin_loop();
        }
    };
    let mut random = Random::new(seed);
    let calls = |random: &mut Random| 1 + random.below(rounds(200, 20));
    let (pushes, pops) = (calls(&mut random), calls(&mut random));
    let (of_producer, of_consumer) = (random.fork(), random.fork());
    let mut producer_notes = Notes::new(&clock);
    let mut consumer_notes = Notes::new(&clock);
    thread::scope(|scope| {
        scope.spawn(|| {
            meet();
            produce(producer, pushes, of_producer, &mut producer_notes);
        });
        meet();
        consume(consumer, pops, of_consumer, &mut consumer_notes);
    });
    (producer_notes.calls, consumer_notes.calls)
}

#[test]
fn what_two_threads_observe_is_an_order_of_single_calls() {
    let (mut refused, mut empty, mut abandoned, mut overlapping) = (0, 0, 0, 0);
    for seed in 1..=rounds(2_000, 2) as u64 {
        let capacity = 32 << (seed % 4);
        let (producer, consumer) = history(capacity, seed);
        if let Err(stuck) = explain(capacity, &producer, &consumer) {
            panic!("no order explains a ring of {capacity}, seed {seed}: neither of {stuck:#?}");
        }
        let refusals = |refusal| {
            let is_one = |noted: &&Noted| matches!(noted.call, Call::Reserve { outcome: Err(error), .. } if error == refusal);
            producer.iter().filter(is_one).count()
        };
        refused += refusals(ReserveError::Full);
        abandoned += refusals(ReserveError::Abandoned);
        empty += consumer.iter().filter(|noted| noted.call == Call::Next(None)).count();
        let beside = |call: &Noted| {
            consumer.iter().any(|other| call.begin < other.end && other.begin < call.end)
        };
        overlapping += producer.iter().filter(|call| beside(call)).count();
    }
    println!("{refused} full, {empty} empty, {abandoned} abandoned, {overlapping} overlapping");
    if !cfg!(miri) {
        assert!(refused > 0 && empty > 0 && abandoned > 0, "histories that show nothing");
    }
}

/// Histories of a ring of 32 bytes, which takes two records of 8.
mod forged {
    use super::*;

    fn noted(begin: usize, end: usize, call: Call) -> Noted {
        Noted { begin, call, end }
    }

    fn reserve(begin: usize, end: usize, outcome: Result<(), ReserveError>) -> Noted {
        noted(begin, end, Call::Reserve { len: 8, outcome })
    }

    fn commit(begin: usize, end: usize) -> Noted {
        noted(begin, end, Call::Commit { reserved: 8, len: 8 })
    }

    fn next(begin: usize, end: usize, number: Option<usize>) -> Noted {
        noted(begin, end, Call::Next(number.map(|number| payload(number, 8))))
    }

    fn is_explained(producer: &[Noted], consumer: &[Noted]) -> bool {
        explain(32, producer, consumer).is_ok()
    }

    #[test]
    fn a_call_that_overlaps_may_come_before_or_after() {
        let producer = [reserve(0, 1, Ok(())), commit(2, 5)];
        assert!(is_explained(&producer, &[next(3, 4, None)]));
        assert!(is_explained(&producer, &[next(3, 4, Some(0))]));
    }

    #[test]
    fn a_record_is_not_late_early_lost_doubled_or_swapped() {
        let one = [reserve(0, 1, Ok(())), commit(2, 3)];
        assert!(!is_explained(&one, &[next(4, 5, None)]), "late");
        let open = [reserve(0, 1, Ok(())), commit(4, 5)];
        assert!(!is_explained(&open, &[next(2, 3, Some(0))]), "early");
        let two = [reserve(0, 1, Ok(())), commit(2, 3), reserve(4, 5, Ok(())), commit(6, 7)];
        assert!(is_explained(&two, &[next(8, 9, Some(0)), next(10, 11, Some(1))]));
        assert!(!is_explained(&two, &[next(8, 9, Some(1))]), "lost");
        assert!(!is_explained(&two, &[next(8, 9, Some(0)), next(10, 11, Some(0))]), "doubled");
        assert!(!is_explained(&two, &[next(8, 9, Some(1)), next(10, 11, Some(0))]), "swapped");
    }

    #[test]
    fn a_ring_is_full_exactly_when_it_is() {
        let mut producer =
            vec![reserve(0, 1, Ok(())), commit(2, 3), reserve(4, 5, Ok(())), commit(6, 7)];
        let release = |begin, end| noted(begin, end, Call::Release);
        producer.push(reserve(14, 15, Err(ReserveError::Full)));
        assert!(is_explained(&producer, &[]));
        assert!(is_explained(&producer, &[next(8, 9, Some(0)), release(13, 16)]), "overlapping");
        assert!(!is_explained(&producer, &[next(8, 9, Some(0)), release(10, 11)]), "has room");
        *producer.last_mut().unwrap() = reserve(14, 15, Ok(()));
        assert!(!is_explained(&producer, &[]), "has no room");
        assert!(!is_explained(&producer, &[next(8, 9, Some(0)), release(16, 17)]), "not yet");
        assert!(is_explained(&producer, &[next(8, 9, Some(0)), release(13, 16)]));
    }

    #[test]
    fn an_end_is_seen_once_it_has_ended_and_for_good() {
        let gone = [noted(2, 3, Call::DropProducer)];
        let asked = |begin, end, answer| noted(begin, end, Call::IsAbandoned(answer));
        assert!(is_explained(&gone, &[asked(0, 1, false), asked(4, 5, true)]));
        assert!(!is_explained(&gone, &[asked(4, 5, false)]));
        assert!(!is_explained(&gone, &[asked(0, 1, true)]));
        let gone = [noted(2, 3, Call::DropConsumer)];
        assert!(is_explained(&[reserve(4, 5, Err(ReserveError::Abandoned))], &gone));
        assert!(!is_explained(&[reserve(4, 5, Ok(()))], &gone));
    }
}
