//! Random steps of one thread on the ring and on the model.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::{HEADER, rounds};
use crate::model::{End, Step, run, run_bytes};

fn step(max_record: usize) -> impl Strategy<Value = Step> {
    // Sometimes one byte above the limit.
    let write = (0..=max_record + 1).prop_flat_map(|reserved| {
        let end = prop_oneof![
            8 => (0..=reserved).prop_map(End::Commit),
            1 => Just(End::Drop),
            1 => Just(End::Panic),
        ];
        end.prop_map(move |end| Step::Write { reserved, end })
    });
    prop_oneof![
        400 => write,
        300 => Just(Step::Read),
        100 => Just(Step::Release),
        30 => Just(Step::Wake),
        30 => Just(Step::Park),
        1 => Just(Step::DropProducer),
        1 => Just(Step::DropConsumer),
    ]
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: u32::try_from(rounds(512, 2)).unwrap(),
        // Miri has no files to remember failures in.
        failure_persistence: (!cfg!(miri))
            .then(|| Box::new(FileFailurePersistence::SourceParallel("proptest-regressions")) as _),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Half of the rings begin where positions are about to wrap.
    #[test]
    fn the_ring_is_a_bounded_queue_of_byte_strings(
        (capacity, steps) in (5_u32..=9).prop_flat_map(|bits| {
            let capacity = 1_usize << bits;
            let steps = prop::collection::vec(step(capacity / 2 - HEADER), 0..rounds(400, 40));
            (Just(capacity), steps)
        }),
        words in 0..64_usize,
        about_to_wrap in any::<bool>(),
    ) {
        let position = words * HEADER;
        run(capacity, if about_to_wrap { position.wrapping_neg() } else { position }, steps);
    }

    #[test]
    fn any_bytes_are_steps(bytes in prop::collection::vec(any::<u8>(), 0..rounds(1_000, 100))) {
        run_bytes(&bytes);
    }
}
