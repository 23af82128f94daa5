//! The replay case: a start on a log that a crash has left, none of which is in the table.
//!
//! **Guarantees**: the log is written by the engine's own decoder, builder and log, frame by frame
//! and sync by sync, as shards that never rolled would leave it after `kill -9`. Its pages are out
//! of the page cache when the server starts. Every event is counted by SQL after the replay.
//!
//! **Not guaranteed**: that the log came over HTTP. A server rolls while it takes events, and what
//! it has rolled leaves the log; one that does not roll would hold the events in memory.
//!
//! **Disk**: the log, and meanwhile the table that the replay makes of it (a third of the log).

mod write;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::bulk::{client, count_as_f64, megabytes};
use crate::machine::Machine;
use crate::report::{Column, Report, number, verdict};
use crate::server::{self, Server};
use crate::trial::Common;

/// Longest replay: a hundred times what 5 GB take.
const READY_DEADLINE: Duration = Duration::from_secs(3 * 3_600);
const PEAK_MAX_MB: f64 = 512.0;
const MB: u64 = 1_000_000;

const SIDE: &str = "replay";
const PEAK: &str = "peak MB";
const COLUMNS: [Column; 7] = [
    Column { name: "events", decimals: 0 },
    Column { name: "log MB", decimals: 0 },
    Column { name: "ready s", decimals: 1 },
    Column { name: "events/s", decimals: 0 },
    Column { name: "MB/s", decimals: 1 },
    Column { name: "cpu us/event", decimals: 2 },
    Column { name: PEAK, decimals: 0 },
];

/// `perf replay`
#[derive(Debug, Args)]
pub struct Options {
    /// Size of the log in MB (million bytes).
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    megabytes: u64,
    /// Shards that write it, and that the server has.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: u32,
    /// Seed of the generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often it is done, each time on a new log.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    common: Common,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let binary = server::binary()?;
    let title = format!(
        "a start on a log of {} MB by {} shards, all of it above the table's numbers",
        options.megabytes, options.shards,
    );
    let machine = Machine::read();
    let mut report = Report::new("replay", title, &COLUMNS);
    for round in 1..=options.rounds {
        let scratch = options.common.scratch("replay")?;
        let data = scratch.path().join("data");
        eprintln!("round {round} of {}: writing the log", options.rounds);
        let log = write::log(&data, options.megabytes * MB, options.shards, options.seed)?;
        eprintln!("round {round} of {}: replaying {} events", options.rounds, log.events);
        report.add(SIDE, round, &replay(&binary, &data, &log, options.shards)?);
    }
    let peak = report.maximum(SIDE, PEAK);
    let limit = format!("under {PEAK_MAX_MB} MB through the replay");
    report.note(verdict("peak resident MB", &number(peak, 0), &limit, peak < PEAK_MAX_MB));
    report.finish(&machine, options.common.save)
}

/// One start; its values in the order of [`COLUMNS`].
fn replay(binary: &Path, data: &Path, log: &write::Written, shards: u32) -> Result<[f64; 7]> {
    let mut command = server::command(binary, data, None);
    command.env("RINGLAKE_SHARDS", shards.to_string());
    let began = Instant::now();
    let server = Server::spawn(command)?;
    server.wait_ready(READY_DEADLINE)?;
    let ready = began.elapsed().as_secs_f64();
    let cpu = server.cpu_seconds()?;
    let peak = server.memory()?.peak;
    client::flush(server.address(), None)?;
    let count = client::count(server.address(), None)?;
    ensure!(count == log.events, "{} events were logged, {count} are there", log.events);
    let status = server.stop()?;
    ensure!(status.success(), "the server ended with {status}");
    std::fs::remove_dir_all(data).context("cannot remove the round's data directory")?;
    let events = count_as_f64(log.events);
    Ok([
        events,
        megabytes(log.bytes),
        ready,
        events / ready,
        megabytes(log.bytes) / ready,
        1e6 * cpu / events,
        megabytes(peak),
    ])
}
