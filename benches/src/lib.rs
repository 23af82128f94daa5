//! Criterion benches, one file a stage beside this folder; run them with `cargo bench`. Here is what
//! they have in common with the perf lab.

pub mod records;
pub mod ring;
