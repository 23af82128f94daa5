//! How much memory waiting events take.

use ringlake_event::generate::Generator;
use ringlake_event::{Decoder, Limits, Mode, record_bound};
use ringlake_ring::ring;

use crate::REQUEST;

/// Each event is a request of its own, which is what costs most.
#[test]
fn ten_thousand_events_of_a_kilobyte_take_less_than_ten_megabytes_of_a_ring() {
    let (mut producer, _consumer) = ring(16 << 20);
    let mut generator = Generator::new(5);
    let mut decoder = Decoder::new();
    for _ in 0..10_000 {
        let mut body = Vec::new();
        generator.write_event(&mut body);
        let body = body.trim_ascii_end().strip_suffix(b"}").unwrap();
        let filler = "x".repeat(1_024 - body.len() - br#","filler":""}"#.len());
        let body = [body, br#","filler":""#, filler.as_bytes(), br#""}"#].concat();
        assert_eq!(body.len(), 1_024);

        let mut reservation = producer.try_reserve(record_bound(body.len())).unwrap();
        let decoded = decoder
            .decode(&body, &REQUEST, &Limits::default(), Mode::Whole, &mut reservation)
            .unwrap();
        assert_eq!(decoded.accepted, 1);
        reservation.commit(decoded.record_len);
    }
    let used = producer.gauge().used_bytes();
    assert!(used < 10_000_000, "{used} bytes");
}
