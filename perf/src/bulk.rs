//! The bulk case: a file of generated events, from the first byte of HTTP to the Delta commit,
//! beside DuckDB's own way from the same file to sorted Parquet.
//!
//! **Guarantees**: both sides read the same bytes on the same machine, in turn, round by round.
//! Every round of ringlake starts from an empty directory and ends with a count that must equal
//! the number of events.
//!
//! **Not guaranteed**: that the two do the same work. The reference reads a local file and
//! promises nothing; ours takes HTTP, syncs a log before each answer, and commits a table.
//!
//! **Memory**: the file is held once, as shared slices of 1 MiB.

pub mod client;
pub mod reference;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use ringlake_event::generate::Generator;

use crate::machine::Machine;
use crate::report::{Column, Report, number, verdict};
use crate::server;
use crate::trial::{Common, Trial};

/// Body size of a request: a quarter of the default limit, as a sensible bulk client would send.
const PIECE_BYTES: usize = 1 << 20;
const RATIO_MIN: f64 = 0.75;
const PEAK_MAX_MB: f64 = 512.0;
const IDLE_MAX_MB: f64 = 200.0;
const MB: f64 = 1_000_000.0;

const OURS: &str = "ringlake";
const THEIRS: &str = "duckdb";
const RATE: &str = "events/s";
const PEAK: &str = "peak MB";
const IDLE: &str = "idle MB";
const COLUMNS: [Column; 6] = [
    Column { name: RATE, decimals: 0 },
    Column { name: "answered s", decimals: 2 },
    Column { name: "done s", decimals: 2 },
    Column { name: "cpu us/event", decimals: 2 },
    Column { name: IDLE, decimals: 0 },
    Column { name: PEAK, decimals: 0 },
];

/// `perf bulk`
#[derive(Debug, Args)]
pub struct Options {
    /// Events in the file.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Seed of the generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each side runs, in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Kept-alive connections of the client.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Leave the reference out.
    #[arg(long)]
    alone: bool,
    #[command(flatten)]
    common: Common,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let binary = server::binary()?;
    let scratch = options.common.scratch("bulk")?;
    let file = scratch.path().join("events.ndjson");
    generate(&file, options.events, options.seed)?;
    let pieces = pieces(Bytes::from(std::fs::read(&file)?));
    let bytes: usize = pieces.iter().map(Bytes::len).sum();

    let title = format!(
        "{} events of seed {}, {:.1} MB in {} pieces, {} connections",
        options.events,
        options.seed,
        megabytes(bytes as u64),
        pieces.len(),
        options.connections,
    );
    let machine = Machine::read();
    let mut report = Report::new("bulk", title, &COLUMNS);
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}: ringlake", options.rounds);
        let values = ours(&binary, &scratch.path().join("data"), &pieces, options)?;
        report.add(OURS, round, &values);
        if !options.alone {
            eprintln!("round {round} of {}: duckdb", options.rounds);
            let theirs = reference::run(&file, &scratch.path().join("reference.parquet"))?;
            ensure!(theirs.rows == options.events, "the reference wrote {} rows", theirs.rows);
            report.add(THEIRS, round, &theirs.values());
        }
    }
    judge(&mut report, options.alone);
    report.finish(&machine, options.common.save)
}

/// One round of ours: its values in the order of [`COLUMNS`].
fn ours(binary: &Path, data: &Path, pieces: &[Bytes], options: &Options) -> Result<[f64; 6]> {
    let trial = Trial::start(binary, data, None, &[])?;
    let server = &trial.server;
    let idle = server.memory()?;
    let cpu_before = server.cpu_seconds()?;
    let timing = client::load(server.address(), pieces, options.connections)?;
    let cpu = server.cpu_seconds()? - cpu_before;
    let peak = server.memory()?;
    if timing.retries > 0 {
        eprintln!("{} pieces were sent again after 429 or 503", timing.retries);
    }
    trial.end(options.events..=options.events)?;
    Ok([
        rate(options.events, timing.committed.as_secs_f64()),
        timing.answered.as_secs_f64(),
        timing.committed.as_secs_f64(),
        1e6 * cpu / count_as_f64(options.events),
        megabytes(idle.resident),
        megabytes(peak.peak),
    ])
}

fn judge(report: &mut Report, alone: bool) {
    if !alone {
        let ratio = report.median(OURS, RATE) / report.median(THEIRS, RATE);
        let limit = format!("at least {RATIO_MIN} of DuckDB's loader");
        report.note(verdict("ratio of medians", &number(ratio, 2), &limit, ratio >= RATIO_MIN));
    }
    let peak = report.maximum(OURS, PEAK);
    let limit = format!("under {PEAK_MAX_MB} MB through the load");
    report.note(verdict("peak resident MB", &number(peak, 0), &limit, peak < PEAK_MAX_MB));
    let idle = report.maximum(OURS, IDLE);
    let limit = format!("under {IDLE_MAX_MB} MB before it");
    report.note(verdict("idle resident MB", &number(idle, 0), &limit, idle < IDLE_MAX_MB));
}

fn generate(path: &Path, events: u64, seed: u64) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut generator = Generator::new(seed);
    let mut buffer = Vec::with_capacity(PIECE_BYTES);
    for _ in 0..events {
        generator.write_event(&mut buffer);
        if buffer.len() >= PIECE_BYTES / 2 {
            file.write_all(&buffer)?;
            buffer.clear();
        }
    }
    file.write_all(&buffer)?;
    file.into_inner().context("the event file was not written")?.sync_all()?;
    Ok(())
}

/// Cuts the file behind the last newline of every [`PIECE_BYTES`]; nothing is copied.
fn pieces(mut rest: Bytes) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while rest.len() > PIECE_BYTES {
        let newline = rest[..PIECE_BYTES].iter().rposition(|byte| *byte == b'\n');
        let end = newline.expect("a generated line is far shorter than a piece") + 1;
        pieces.push(rest.split_to(end));
    }
    pieces.push(rest);
    pieces
}

fn rate(events: u64, seconds: f64) -> f64 {
    count_as_f64(events) / seconds
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
pub fn count_as_f64(count: u64) -> f64 {
    count as f64
}

/// Millions of bytes.
pub fn megabytes(bytes: u64) -> f64 {
    count_as_f64(bytes) / MB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_newlines_and_hold_every_byte() {
        let mut generator = Generator::new(1);
        let mut file = Vec::new();
        for _ in 0..10_000 {
            generator.write_event(&mut file);
        }
        let pieces = pieces(Bytes::from(file.clone()));
        assert!(pieces.len() > 3);
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n") && piece.len() <= PIECE_BYTES));
        assert_eq!(pieces.concat(), file);
    }
}
