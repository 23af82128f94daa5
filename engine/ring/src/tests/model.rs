//! The ring against a model that is too simple to be wrong: a queue of byte vectors, and the list
//! of address ranges that hold a record which was not released yet.

use std::collections::VecDeque;
use std::ops::Range;

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::{HEADER, rounds};
use crate::{Consumer, Producer, ReserveError, ring};

#[derive(Clone, Debug)]
enum Step {
    /// Reserve `reserved` bytes and commit `committed` of them, or abort.
    Write {
        reserved: usize,
        committed: Option<usize>,
    },
    Read,
    Release,
}

fn step(max_record: usize) -> impl Strategy<Value = Step> {
    // Sometimes one byte above the limit.
    let write = (0..=max_record + 1).prop_flat_map(|reserved| {
        proptest::option::weighted(0.8, 0..=reserved)
            .prop_map(move |committed| Step::Write { reserved, committed })
    });
    prop_oneof![4 => write, 3 => Just(Step::Read), 1 => Just(Step::Release)]
}

/// What must be in the ring.
#[derive(Default)]
struct Model {
    unread: VecDeque<Vec<u8>>,
    /// Addresses of unread, then of read records' payloads.
    unread_places: VecDeque<Range<usize>>,
    read_places: Vec<Range<usize>>,
    /// The payload byte of the next record.
    fill: u8,
}

impl Model {
    fn write(&mut self, producer: &mut Producer, reserved: usize, committed: Option<usize>) {
        let capacity = producer.capacity();
        let used = producer.gauge().used_bytes();
        let mut reservation = match producer.try_reserve(reserved) {
            Ok(reservation) => reservation,
            Err(ReserveError::TooLarge { len, max }) => {
                assert!(len == reserved && len > max && max == capacity / 2 - HEADER);
                return;
            }
            Err(error) => {
                assert_eq!(error, ReserveError::Full);
                assert!(used > 0, "an empty ring takes every legal record");
                // It needs a header, padding, and in the worst case a skip smaller than itself.
                let footprint = HEADER + reserved.next_multiple_of(HEADER);
                assert!(used + 2 * footprint > capacity, "{reserved} bytes refused at {used}");
                return;
            }
        };
        assert_eq!(reservation.len(), reserved);
        let place = reservation.as_ptr().addr()..reservation.as_ptr().addr() + reserved;
        for other in self.unread_places.iter().chain(&self.read_places) {
            assert!(place.end <= other.start || other.end <= place.start, "a live record is hit");
        }
        self.fill = self.fill.wrapping_add(1);
        reservation.fill(self.fill);
        let Some(committed) = committed else {
            return;
        };
        reservation.commit(committed);
        self.unread.push_back(vec![self.fill; committed]);
        self.unread_places.push_back(place.start..place.start + committed);
    }

    fn read(&mut self, consumer: &mut Consumer) {
        assert_eq!(consumer.is_empty(), self.unread.is_empty());
        assert_eq!(consumer.next(), self.unread.pop_front().as_deref());
        self.read_places.extend(self.unread_places.pop_front());
    }

    fn release(&mut self, consumer: &mut Consumer) {
        consumer.release();
        self.read_places.clear();
    }
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: u32::try_from(rounds(512, 4)).unwrap(),
        // Miri has no files to remember failures in.
        failure_persistence: (!cfg!(miri))
            .then(|| Box::new(FileFailurePersistence::SourceParallel("proptest-regressions")) as _),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_ring_is_a_bounded_queue_of_byte_strings(
        (capacity, steps) in (5_u32..=9).prop_flat_map(|bits| {
            let capacity = 1_usize << bits;
            let steps = prop::collection::vec(step(capacity / 2 - HEADER), 0..rounds(400, 40));
            (Just(capacity), steps)
        })
    ) {
        let (mut producer, mut consumer) = ring(capacity);
        let gauge = producer.gauge();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Write { reserved, committed } => {
                    model.write(&mut producer, reserved, committed);
                }
                Step::Read => model.read(&mut consumer),
                Step::Release => model.release(&mut consumer),
            }
            prop_assert!(gauge.used_bytes() <= capacity);
        }
        drop(producer);
        while !model.unread.is_empty() {
            model.read(&mut consumer);
        }
        model.read(&mut consumer);
        model.release(&mut consumer);
        prop_assert_eq!(gauge.used_bytes(), 0);
    }
}
