//! The look at a request's key: one that was verified not long ago, and ones that are not known.
//!
//! **Goal.** What every request pays for its key, on one core and while another one looks as well.
//!
//! **Non-goal.** Argon2, which costs tens of milliseconds on purpose and runs on threads of its own.
//!
//! **Meaning.** Twenty keys are cached; the same one is looked at again and again, as by a page
//! that many people read. `cached` is all that a good request pays; `unknown` is a key without a
//! record, `forged` a right id with a wrong secret.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use ringlake_keys::{Keys, Refused, Scope, Wanted};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Making a key takes tens of milliseconds.
const KEYS: usize = 20;

fn looks(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let keys = Keys::open(directory.path()).expect("an empty directory has no keys");
    let mut texts = Vec::new();
    for number in 0..KEYS {
        let tenant = Some(format!("tenant-{number}"));
        let wanted =
            Wanted { scope: Scope::Write, tenant, aliases: Vec::new(), origins: Vec::new() };
        let (key, _) = keys.file().create(wanted).expect("there is room");
        texts.push(key.reveal().to_owned());
    }
    keys.reload().expect("the file was just written");
    for text in &texts {
        runtime.block_on(keys.check(text, HERE)).expect("the key is good");
    }
    let good = texts[KEYS / 2].as_str();
    let record = keys.cached(good, Instant::now()).expect("it has been verified");
    assert_eq!(record.tenant, format!("tenant-{}", KEYS / 2));
    let unknown = format!("rl_waaaaaaaaaa_{}", "a".repeat(32));
    let forged = format!("{}{}", &good[..good.len() - 32], "a".repeat(32));
    for wrong in [&unknown, &forged] {
        assert_eq!(runtime.block_on(keys.check(wrong, HERE)).err(), Some(Refused::Unknown));
    }

    let mut group = criterion.benchmark_group("keys");
    group.bench_function("cached", |bencher| {
        bencher.iter(|| keys.cached(black_box(good), Instant::now()));
    });
    group.bench_function("cached_while_another_looks", |bencher| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Relaxed: the flag is all there is.
                while !stop.load(Ordering::Relaxed) {
                    black_box(keys.cached(black_box(good), Instant::now()));
                }
            });
            bencher.iter(|| keys.cached(black_box(good), Instant::now()));
            // Relaxed: as above.
            stop.store(true, Ordering::Relaxed);
        });
    });
    for (name, wrong) in [("unknown", &unknown), ("forged", &forged)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(keys.check(black_box(wrong), HERE)).is_err());
        });
    }
    group.finish();
}

criterion_group!(benches, looks);
criterion_main!(benches);
