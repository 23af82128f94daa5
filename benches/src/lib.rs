//! Criterion benches, one file a stage beside this folder; run them with `cargo bench`.
