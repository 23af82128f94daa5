//! A ring that is too simple to be wrong, and the real one held against it step by step.
//!
//! **Guarantees.** [`Queue`] is what the crate promises, said without bytes, atomics or threads:
//! how full the ring is follows from the lengths alone. [`run`] panics at the first step at which
//! the real ring answers otherwise, or hands out bytes that hold a record which was not released.
//!
//! **Roles.** Unit tests draw random steps, the fuzzer reads them from its input.

#![allow(clippy::unwrap_used, reason = "a failed test should panic")]

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::record::{WORD, footprint, longest};
use crate::{Consumer, MIN_CAPACITY, Producer, ReserveError, Waker, ring_at};

/// Longer than any test: a park that should return at once and does not is noticed.
const FOREVER: Duration = Duration::from_secs(3_600);

/// A ring without its bytes. Positions are those of the crate's Layout section.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    capacity: usize,
    tail: usize,
    read: usize,
    head: usize,
    /// Length of each unread record, and the bytes of the ring that it takes, a skip included.
    unread: VecDeque<(usize, usize)>,
    pub(crate) producer_gone: bool,
    pub(crate) consumer_gone: bool,
}

impl Queue {
    /// An empty ring whose positions begin at `position`.
    pub(crate) fn new(capacity: usize, position: usize) -> Self {
        Self {
            capacity,
            tail: position,
            read: position,
            head: position,
            unread: VecDeque::new(),
            producer_gone: false,
            consumer_gone: false,
        }
    }

    /// Bytes that a record of `len` bytes takes from here: a skip in front of it, and itself.
    fn needed(&self, len: usize) -> usize {
        let to_end = self.capacity - self.tail % self.capacity;
        footprint(len) + if footprint(len) > to_end { to_end } else { 0 }
    }

    pub(crate) fn reserve(&self, len: usize) -> Result<(), ReserveError> {
        let max = longest(self.capacity);
        if len > max {
            return Err(ReserveError::TooLarge { len, max });
        }
        if self.consumer_gone {
            return Err(ReserveError::Abandoned);
        }
        if self.used() + self.needed(len) > self.capacity {
            return Err(ReserveError::Full);
        }
        Ok(())
    }

    /// Commits `len` bytes of a reservation of `reserved`, which decided on the skip.
    pub(crate) fn commit(&mut self, reserved: usize, len: usize) {
        let taken = self.needed(reserved) - footprint(reserved) + footprint(len);
        self.tail = self.tail.wrapping_add(taken);
        self.unread.push_back((len, taken));
    }

    /// The length of the next record.
    pub(crate) fn next(&mut self) -> Option<usize> {
        let (len, taken) = self.unread.pop_front()?;
        self.read = self.read.wrapping_add(taken);
        Some(len)
    }

    pub(crate) fn release(&mut self) {
        self.head = self.read;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    pub(crate) fn used(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }
}

/// One call on the ring.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Reserve `reserved` bytes, fill them, and end the reservation.
    Write {
        /// Bytes asked for.
        reserved: usize,
        /// What becomes of them.
        end: End,
    },
    /// Read the next record.
    Read,
    /// Give back what was read.
    Release,
    /// Leave a wake.
    Wake,
    /// Park: for ever if there is a reason to return, else for no time.
    Park,
    /// Drop the producer.
    DropProducer,
    /// Drop the consumer.
    DropConsumer,
}

/// What becomes of a reservation.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// This many bytes, or as many as were reserved if that is less, become a record.
    Commit(usize),
    /// It is dropped.
    Drop,
    /// The writer panics.
    Panic,
}

/// Runs `steps` on a ring of `capacity` bytes whose positions begin at `position`, a multiple of a
/// word.
///
/// # Panics
///
/// When the ring does anything that [`Queue`] does not.
pub fn run(capacity: usize, position: usize, steps: impl IntoIterator<Item = Step>) {
    let mut pair = Pair::new(capacity, position);
    for step in steps {
        pair.step(step);
        assert_eq!(pair.gauge.used_bytes(), pair.queue.used(), "after {step:?}");
    }
    pair.drain();
}

/// Runs the steps that `bytes` stand for; any bytes stand for some.
pub fn run_bytes(bytes: &[u8]) {
    let Some((&[shape, start], steps)) = bytes.split_first_chunk() else {
        return;
    };
    let capacity = MIN_CAPACITY << (shape % 5);
    // Half of the rings are about to wrap their positions.
    let position = usize::from(start >> 1) * WORD;
    let position = if start & 1 == 0 { position } else { position.wrapping_neg() };
    let mut bytes = steps.iter().copied();
    run(capacity, position, std::iter::from_fn(|| Step::read(capacity, &mut bytes)));
}

impl Step {
    fn read(capacity: usize, bytes: &mut impl Iterator<Item = u8>) -> Option<Self> {
        let step = match bytes.next()? {
            0..=127 => {
                // Up to one byte above the limit.
                let reserved = usize::from(bytes.next()?) % (longest(capacity) + 2);
                let end = match bytes.next()? {
                    byte @ 0..=223 => End::Commit(usize::from(byte) % (reserved + 1)),
                    224..=239 => End::Drop,
                    240..=255 => End::Panic,
                };
                Self::Write { reserved, end }
            }
            128..=199 => Self::Read,
            200..=231 => Self::Release,
            232..=239 => Self::Wake,
            240..=251 => Self::Park,
            252..=253 => Self::DropProducer,
            254..=255 => Self::DropConsumer,
        };
        Some(step)
    }
}

/// A real ring and what must be in it.
struct Pair {
    queue: Queue,
    producer: Option<Producer>,
    consumer: Option<Consumer>,
    gauge: crate::Gauge,
    waker: Waker,
    pending: bool,
    /// Each unread record's first payload byte.
    fills: VecDeque<u8>,
    /// Addresses of unread, then of read and unreleased records' payloads.
    unread_places: VecDeque<Range<usize>>,
    read_places: Vec<Range<usize>>,
    fill: u8,
}

impl Pair {
    fn new(capacity: usize, position: usize) -> Self {
        let (producer, consumer) = ring_at(capacity, position);
        Self {
            queue: Queue::new(capacity, position),
            gauge: producer.gauge(),
            waker: consumer.waker(),
            producer: Some(producer),
            consumer: Some(consumer),
            pending: false,
            fills: VecDeque::new(),
            unread_places: VecDeque::new(),
            read_places: Vec::new(),
            fill: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { reserved, end } => self.write(reserved, end),
            Step::Read => self.read(),
            Step::Release => self.release(),
            Step::Wake => {
                self.waker.wake();
                self.pending = true;
            }
            Step::Park => self.park(),
            Step::DropProducer => {
                self.producer = None;
                self.queue.producer_gone = true;
            }
            Step::DropConsumer => {
                self.consumer = None;
                self.queue.consumer_gone = true;
            }
        }
    }

    fn write(&mut self, reserved: usize, end: End) {
        let Some(producer) = &mut self.producer else {
            return;
        };
        let expected = self.queue.reserve(reserved);
        let mut reservation = match (producer.try_reserve(reserved), expected) {
            (Ok(reservation), Ok(())) => reservation,
            (outcome, expected) => {
                assert_eq!(outcome.err(), expected.err(), "a reservation of {reserved} bytes");
                return;
            }
        };
        assert_eq!(reservation.len(), reserved);
        let start = reservation.as_ptr().addr();
        for live in self.unread_places.iter().chain(&self.read_places) {
            assert!(start + reserved <= live.start || live.end <= start, "a live record is hit");
        }
        self.fill = self.fill.wrapping_add(1);
        reservation.fill(self.fill);
        match end {
            End::Commit(len) => {
                let len = len.min(reserved);
                reservation.commit(len);
                self.queue.commit(reserved, len);
                self.fills.push_back(self.fill);
                self.unread_places.push_back(start..start + len);
            }
            End::Drop => drop(reservation),
            End::Panic => {
                let writer = AssertUnwindSafe(move || {
                    let _unwound = reservation;
                    resume_unwind(Box::new("in the middle of the write"));
                });
                catch_unwind(writer).unwrap_err();
            }
        }
    }

    fn read(&mut self) {
        let Some(consumer) = &mut self.consumer else {
            return;
        };
        assert_eq!(consumer.is_abandoned(), self.queue.producer_gone);
        assert_eq!(consumer.is_empty(), self.queue.is_empty());
        let expected = self.queue.next().map(|len| vec![self.fills.pop_front().unwrap(); len]);
        assert_eq!(consumer.next(), expected.as_deref());
        self.read_places.extend(self.unread_places.pop_front());
    }

    fn release(&mut self) {
        if let Some(consumer) = &mut self.consumer {
            consumer.release();
            self.queue.release();
            self.read_places.clear();
        }
    }

    fn park(&mut self) {
        let Some(consumer) = &mut self.consumer else {
            return;
        };
        let reason = self.pending || self.queue.producer_gone || !self.queue.is_empty();
        consumer.park(if reason { FOREVER } else { Duration::ZERO });
        self.pending = false;
    }

    /// Reads and gives back all that is left: it is complete.
    fn drain(&mut self) {
        while self.consumer.is_some() && !self.queue.is_empty() {
            self.read();
        }
        self.read();
        self.release();
        assert_eq!(self.gauge.used_bytes(), self.queue.used());
    }
}
