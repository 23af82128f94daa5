//! A single-producer, single-consumer, lock-free byte ring.
//!
//! [`ring`] makes one bounded buffer and its two ends. The [`Producer`] reserves a contiguous
//! stretch of bytes, writes into it in place and commits it as one record; the [`Consumer`] reads
//! records in place, as many as it likes, and gives their room back with one [`release`]. Records
//! have any length up to [`max_record`]; nothing is copied, boxed or allocated on the way.
//!
//! ```
//! use std::time::Duration;
//!
//! let (mut producer, mut consumer) = ringlake_ring::ring(64 * 1024);
//! let shard = std::thread::spawn(move || {
//!     let mut bytes = 0;
//!     loop {
//!         while let Some(record) = consumer.next() {
//!             bytes += record.len();
//!         }
//!         consumer.release();
//!         if consumer.is_abandoned() && consumer.is_empty() {
//!             return bytes;
//!         }
//!         consumer.park(Duration::from_secs(1));
//!     }
//! });
//!
//! let mut reservation = producer.try_reserve(100)?;
//! reservation[..5].copy_from_slice(b"hello");
//! reservation.commit(5);
//! drop(producer);
//! # let bytes = shard.join().expect("the shard does not panic");
//! # assert_eq!(bytes, 5);
//! # Ok::<(), ringlake_ring::ReserveError>(())
//! ```
//!
//! # Guarantees
//!
//! - Records come out whole, once each, in the order of their commits.
//! - Every call but [`park`] returns after a bounded number of steps, whatever the other side does:
//!   no lock, no spinning, no compare-and-swap loop.
//! - The buffer is allocated once, by [`ring`]. It comes zeroed from the operating system, which
//!   backs its pages with memory when they are first written.
//! - A reservation that is dropped, forgotten or unwound through leaves no trace: nothing that the
//!   consumer looks at changes before [`commit`].
//! - On an empty ring a reservation of up to [`max_record`] bytes succeeds, wherever in the buffer
//!   the last record ended.
//! - [`commit`] makes no system call while the consumer is awake. A parked consumer costs the one
//!   commit that finds it asleep one `unpark`.
//! - A record committed before or during [`park`] ends it, as do [`Waker::wake`] and the drop of
//!   the producer; no interleaving loses a wake-up.
//! - Either side may be dropped at any time; the other learns of it and keeps working memory.
//!
//! # Not guaranteed
//!
//! - There is no way to wait for room. [`ReserveError::Full`] is an answer for the caller to pass
//!   on, not a state to poll.
//! - A fresh reservation holds bytes of earlier records, not zeros. The writer fills what it
//!   commits.
//! - Records that the consumer has not read when it is dropped are lost; [`commit`] does not tell.
//! - Nothing survives the process.
//! - [`park`] may return early for no reason, allocates a few bytes, and on Linux interrupts the
//!   other threads of the process for a microsecond, so that commits need no fence. It is the idle
//!   path.
//! - [`Gauge`] is for statistics: its value is old when it is read.
//!
//! # Roles
//!
//! | Handle | Threads | May |
//! |---|---|---|
//! | [`Producer`] | one at a time; `Send`, not `Sync` | reserve, write, commit |
//! | [`Consumer`] | one at a time; `Send`, not `Sync` | read, release, park |
//! | [`Waker`] | any number | end the consumer's park |
//! | [`Gauge`] | any number | read how full the ring is |
//!
//! # Layout
//!
//! Positions count bytes since the ring was made and only grow; `position & (capacity - 1)` is the
//! place in the buffer. They are `usize` and all arithmetic on them wraps, which is harmless: the
//! capacity divides 2^32, and two live positions are never more than one capacity apart.
//!
//! ```text
//!            head          read        tail                 (positions, left to right in time)
//!             │             │           │
//!  ───────────┼─────────────┼───────────┼──────────────┬──────────
//!   free      │ read,       │ committed,│ producer's   │ free
//!             │ unreleased  │ unread    │ reservation  │
//!  ───────────┴─────────────┴───────────┴──────────────┴──────────
//!             └──── tail - head <= capacity ────┘
//!
//!  record      0        8                    8 + len      8 + len rounded up to 8
//!              ├────────┼─────────────────────┼────────────┤
//!              │ header │ payload             │ padding    │   header: u64, native endian
//!              ├────────┼─────────────────────┴────────────┘
//!                len                                            a record of len bytes
//!                u64::MAX                                       skip: go on at the buffer's start
//!
//!  wrap        the record needs 5 words, 3 are left before the end of the buffer:
//!              │ … │ skip ░░░░░░░░░░ │  ⟶  │ header payload… │
//!                  tail         end         start
//! ```
//!
//! A skip marker and the record behind it are published by one store of `tail`, so that a consumer
//! that sees the marker also sees the record, and an aborted reservation leaves no marker.
//!
//! A record and its marker must fit in one capacity. With `o` the place of `tail` in the buffer the
//! record needs at most `capacity - o` bytes to go before the end, or at most `o` to go at the
//! start. Every `o` allows one of them as long as the record takes up at most half the capacity:
//! that is [`max_record`].
//!
//! # Limits
//!
//! - Capacity: a power of two from [`MIN_CAPACITY`] to [`MAX_CAPACITY`].
//! - Record: 0 to `capacity / 2 - 8` bytes.
//! - Overhead: 8 to 15 bytes a record, and less than one record's reservation at the end of each
//!   lap. [`Gauge::used_bytes`] counts both.
//!
//! # Ordering
//!
//! What one thread hands to another, and by which pair. Everything else is `Relaxed` and says why
//! where it stands.
//!
//! | Written by | Read by | Hands over |
//! |---|---|---|
//! | `tail`, Release, [`commit`] | `tail`, Acquire, [`Consumer::next`], [`Consumer::is_empty`] | header, payload and skip marker of every record below it |
//! | `head`, Release, [`release`] | `head`, Acquire, [`Producer::try_reserve`] | the room below it: the consumer's reads of it are over |
//! | `head`, Release, [`release`] | `head`, Acquire, [`Gauge::used_bytes`] | the `tail` that the consumer had seen, so that `tail >= head` |
//! | `producer_gone`, Release, drop of [`Producer`] | `producer_gone`, Acquire, [`Consumer::is_abandoned`] | the last `tail` |
//! | `thread`, AcqRel swap, `Sleeper::sleep` | `thread`, AcqRel swap, `Sleeper::rouse` | the boxed handle of the sleeping thread |
//! | `pending`, AcqRel swap, [`Waker::wake`] | `pending`, AcqRel swap, end of [`park`] | what the waking thread wrote before |
//! | light barrier, `Sleeper::notify` | heavy barrier, `Sleeper::sleep` | nothing: of "publish, then look for a sleeper" and "announce sleep, then look for records" at least one sees the other |
//!
//! # Memory
//!
//! The buffer and one page of positions and flags, freed when the last of [`Producer`],
//! [`Consumer`], [`Waker`] and [`Gauge`] is dropped. `tail`, `head` and the rarely written rest lie
//! on cache lines of their own, and each side keeps a copy of the other's position, which it
//! refreshes only when the copy says "full" or "empty": while the ring is neither, the sides do not
//! touch each other's lines at all.
//!
//! # Failure
//!
//! | What happens | What holds |
//! |---|---|
//! | the writer panics before [`commit`] | the record does not exist; the producer goes on |
//! | the reader panics with a record in hand | the record counts as read; its room comes back with the next [`release`] |
//! | the producer is dropped | a parked consumer wakes, reads the rest, sees [`is_abandoned`] |
//! | the consumer is dropped | [`Producer::try_reserve`] answers [`ReserveError::Abandoned`] |
//!
//! # Checking
//!
//! `crate::sync` is the only door to atomics and threads. Built with `--cfg engine_loom` it leads
//! to loom, the buffer carries a shadow cell per word through which loom sees data races, and the
//! models in `tests/loom_*.rs` run. There is one for every pair of operations that touch the same
//! memory, named here without `loom_`:
//!
//! | | `next`, `is_empty` | `release` | `park` | end of the consumer |
//! |---|---|---|---|---|
//! | reserve | `push_pop` | `full_release`, `batch_release`, `wrap_release` | – | `consumer_gone` |
//! | commit | `push_pop` | `wrap_release` | `park_push`, `park_timeout` | `consumer_gone`, `all_gone` |
//! | abort, panic | `abort_read` | `abort_read` | – | – |
//! | end of the producer | `producer_gone` | `all_gone` | `producer_gone`, `park_gone_waker` | `all_gone` |
//! | wake | – | – | `park_waker`, `park_wakers`, `park_gone_waker` | `all_gone` |
//! | gauge | `gauge` | `gauge` | – | `all_gone` |
//!
//! Miri runs the unit tests. They hold the ring, call by call, against a model of it (`model.rs`,
//! which the fuzzer uses too), and check that what two threads observe is what one thread could
//! have observed (`tests/linear.rs`).
//!
//! [`release`]: Consumer::release
//! [`park`]: Consumer::park
//! [`is_abandoned`]: Consumer::is_abandoned
//! [`commit`]: Reservation::commit
//! [`max_record`]: Producer::max_record

#![deny(unsafe_code)]

// In the order of a record's way: its format, where it lies, who writes it, who reads it.
mod barrier;
#[expect(unsafe_code, reason = "turns committed positions into bytes")]
mod consumer;
mod gauge;
#[cfg(any(fuzzing, all(test, not(engine_loom))))]
#[doc(hidden)]
pub mod model;
#[expect(unsafe_code, reason = "passes a boxed thread handle through an atomic pointer")]
mod park;
#[expect(unsafe_code, reason = "turns reserved positions into bytes")]
mod producer;
mod record;
mod shared;
#[expect(unsafe_code, reason = "owns the buffer that both sides write and read")]
mod storage;
mod sync;

#[cfg(all(test, not(engine_loom)))]
mod tests;

pub use consumer::Consumer;
pub use gauge::Gauge;
pub use park::Waker;
pub use producer::{Producer, Reservation, ReserveError};

use shared::Shared;
use sync::Arc;

/// The smallest capacity of a ring, in bytes.
///
/// One page: less saves nothing. Tests and models shrink it, so that a handful of records goes
/// around the buffer.
pub const MIN_CAPACITY: usize = if cfg!(any(test, fuzzing, engine_loom)) { 32 } else { 4096 };

/// The largest capacity of a ring, in bytes: 1 GiB.
///
/// It keeps every position, length and allocation in range on 32-bit targets. A ring holds what a
/// consumer has not got to yet; a gigabyte of that is a stall, not a buffer.
pub const MAX_CAPACITY: usize = 1 << 30;

const _: () = assert!(MIN_CAPACITY.is_power_of_two());
const _: () = assert!(MAX_CAPACITY.is_power_of_two());
const _: () = assert!(MIN_CAPACITY <= MAX_CAPACITY);

/// Makes a ring of `capacity` bytes and hands out its two ends.
///
/// # Panics
///
/// If `capacity` is not a power of two from [`MIN_CAPACITY`] to [`MAX_CAPACITY`].
#[must_use]
#[track_caller]
pub fn ring(capacity: usize) -> (Producer, Consumer) {
    assert!(
        capacity.is_power_of_two() && (MIN_CAPACITY..=MAX_CAPACITY).contains(&capacity),
        "the capacity of a ring is a power of two from {MIN_CAPACITY} to {MAX_CAPACITY} bytes, not {capacity}"
    );
    ring_at(capacity, 0)
}

/// A ring whose positions begin at `position`, a multiple of a word: tests let them wrap soon.
fn ring_at(capacity: usize, position: usize) -> (Producer, Consumer) {
    let shared = Arc::new(Shared::new(capacity, position));
    (Producer::new(Arc::clone(&shared), position), Consumer::new(shared, position))
}
