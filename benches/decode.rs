//! Decoding and validating request bodies: NDJSON of 1, 10, 100 KiB and 1 MiB to ring records, and
//! those records back to events.
//!
//! **Goal.** The cost of an event between the socket and the ring, and between the ring and the
//! column builders.
//!
//! **Non-goal.** HTTP, decompression, the ring itself.
//!
//! **Meaning.** The events are the generator's, about 420 bytes each. The same decoder and output
//! serve every body, as in a serving loop, so everything but the input is warm.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringlake_benches::records::REQUEST;
use ringlake_event::generate::Generator;
use ringlake_event::{Decoded, Decoder, Limits, Mode, Record, record_bound};

const SIZES: [(&str, usize); 4] =
    [("1KiB", 1 << 10), ("10KiB", 10 << 10), ("100KiB", 100 << 10), ("1MiB", 1 << 20)];

/// Lines up to `size` bytes, at least one, and how many there are.
fn body_of(size: usize) -> (Vec<u8>, usize) {
    let mut generator = Generator::new(1);
    let (mut body, mut line, mut events) = (Vec::new(), Vec::new(), 0);
    loop {
        line.clear();
        generator.write_event(&mut line);
        if events > 0 && body.len() + line.len() > size {
            return (body, events);
        }
        body.extend_from_slice(&line);
        events += 1;
    }
}

fn decode(decoder: &mut Decoder, body: &[u8], out: &mut [u8]) -> Decoded {
    decoder
        .decode(body, &REQUEST, &Limits::default(), Mode::Whole, out)
        .expect("the generator writes valid events")
}

/// Something of every event, so that none of the reading can be left out.
fn read(record: &[u8]) -> usize {
    let record = Record::parse(record).expect("the decoder writes valid records");
    let texts = record.iter().map(|event| {
        let properties = event.properties.map_or(0, str::len);
        event.tenant.len() + event.kind.len() + event.user_id.map_or(0, str::len) + properties
    });
    texts.sum()
}

fn bodies(criterion: &mut Criterion) {
    for (name, size) in SIZES {
        let (body, events) = body_of(size);
        let mut decoder = Decoder::new();
        let mut out = vec![0; record_bound(body.len())];

        let decoded = decode(&mut decoder, &body, &mut out);
        assert_eq!((decoded.accepted, decoded.rejected.len()), (events, 0));
        let record = out[..decoded.record_len].to_vec();
        assert_eq!(Record::parse(&record).map(|record| record.events()), Ok(events));

        let per = [
            ("bytes", Throughput::Bytes(body.len() as u64)),
            ("events", Throughput::Elements(events as u64)),
        ];
        for (unit, throughput) in per {
            let mut group = criterion.benchmark_group(format!("decode/{unit}"));
            group.throughput(throughput);
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| decode(&mut decoder, black_box(&body), &mut out));
            });
            group.finish();
        }

        let mut group = criterion.benchmark_group("record/events");
        group.throughput(Throughput::Elements(events as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| read(black_box(&record)));
        });
        group.finish();
    }
}

criterion_group!(benches, bodies);
criterion_main!(benches);
