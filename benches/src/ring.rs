//! Records and both ends of a ring, for the bench of the ring and for the lab's comparison of it
//! with other queues.

use std::hint::spin_loop;

use ringlake_ring::{Consumer, Producer, ReserveError};

/// Bytes of a ring: the engine's default.
pub const CAPACITY: usize = 16 << 20;

/// Names and lengths of the records that occur: a single beacon, a small and a large batch.
pub const RECORDS: [(&str, usize); 3] = [("420B", 420), ("4KiB", 4 << 10), ("64KiB", 64 << 10)];

/// Records that a consumer reads before it releases, at most.
const RELEASE_EVERY: u64 = 64;

/// Spin hints between two looks at a ring that was empty or full, a microsecond or two. Looking all
/// the time takes the line of the position away from the side that writes it, with every record.
const SPINS: u32 = 64;

/// Bytes whose words differ, so that a lost or doubled word changes the sum.
#[must_use]
pub fn payload(len: usize) -> Vec<u8> {
    (1_u64..)
        .flat_map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes())
        .take(len)
        .collect()
}

/// The sum over a record's words and the bytes behind them: the least that touches every byte.
#[must_use]
pub fn sum(record: &[u8]) -> u64 {
    let (words, rest) = record.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    words.chain(rest).fold(0, u64::wrapping_add)
}

/// Waits a little for the other side.
pub fn spin() {
    (0..SPINS).for_each(|_| spin_loop());
}

/// Commits one record, waiting for room the way no caller of the engine would.
///
/// # Panics
///
/// When the record is longer than the ring or its consumer is gone.
pub fn push(producer: &mut Producer, record: &[u8]) {
    loop {
        match producer.try_reserve(record.len()) {
            Ok(mut reservation) => {
                reservation.copy_from_slice(record);
                reservation.commit(record.len());
                return;
            }
            Err(ReserveError::Full) => spin(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Reads `count` records and does `when_empty` while there is none; the sum over all of them.
pub fn read(consumer: &mut Consumer, count: u64, mut when_empty: impl FnMut(&mut Consumer)) -> u64 {
    let mut total = 0_u64;
    let mut seen = 0;
    while seen < count {
        match consumer.next() {
            Some(record) => {
                total = total.wrapping_add(sum(record));
                seen += 1;
                if seen % RELEASE_EVERY == 0 {
                    consumer.release();
                }
            }
            None => {
                consumer.release();
                when_empty(consumer);
            }
        }
    }
    consumer.release();
    total
}
