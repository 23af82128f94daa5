//! Any sequence of calls on a ring, held against the model of it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ringlake_ring::model::run_bytes(bytes));
