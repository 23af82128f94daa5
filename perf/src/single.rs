//! The single-event case: one event a request over kept-alive connections, beside nginx.
//!
//! **Guarantees**: the server has core 0 and wrk has core 1; sides run in turn, round by round;
//! what each side claims to have stored is counted afterwards.
//!
//! **Not guaranteed**: open-loop latencies. wrk waits for an answer before it sends the next
//! request, so its percentiles describe a saturated server and nothing else.

mod nginx;
mod wrk;

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use clap::Args;

use self::nginx::Nginx;
use self::wrk::{Load, Outcome};
use crate::bulk::{count_as_f64, megabytes};
use crate::events;
use crate::machine::Machine;
use crate::report::{Column, Report, number, verdict};
use crate::server;
use crate::trial::{CORE, Common, Trial};

/// Distinct events that are sent in turn.
const EVENTS: usize = 1_000;
/// Of the generator.
const SEED: u64 = 1;
const RATIO_MIN: f64 = 0.8;

const RATE: &str = "requests/s";
const EMPTY: &str = "nginx 204";
const LOGGED: &str = "nginx log";
const DISK: &str = "ack=disk";
const MEMORY: &str = "ack=memory";
const COLUMNS: [Column; 6] = [
    Column { name: RATE, decimals: 0 },
    Column { name: "cpu us/request", decimals: 2 },
    Column { name: "p50 ms", decimals: 2 },
    Column { name: "p99 ms", decimals: 2 },
    Column { name: "non-2xx", decimals: 0 },
    Column { name: "peak MB", decimals: 0 },
];

/// `perf single`
#[derive(Debug, Args)]
pub struct Options {
    /// Seconds of load for each side in each round.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Kept-alive connections.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How often each side runs, in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    common: Common,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    wrk::require(&["nginx", "wrk", "taskset"])?;
    let machine = Machine::read();
    ensure!(machine.cores >= 2, "the case needs 2 cores, this machine gives {}", machine.cores);
    let binary = server::binary()?;
    let scratch = options.common.scratch("single")?;
    let load = load(scratch.path(), options)?;

    let title = format!(
        "one event a request, {} connections, {} s a side, server on core {CORE}, wrk on core {}",
        options.connections,
        options.seconds,
        CORE + 1,
    );
    let mut report = Report::new("single", title, &COLUMNS);
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        let directory = scratch.path().join("nginx");
        let (empty, logged) = theirs(&directory, &load)?;
        report.add(EMPTY, round, &empty);
        report.add(LOGGED, round, &logged);
        for (side, ack) in [(DISK, "disk"), (MEMORY, "memory")] {
            let data = scratch.path().join("data");
            report.add(side, round, &ours(&binary, &data, ack, &load)?);
        }
    }
    let ratio = report.median(DISK, RATE) / report.median(LOGGED, RATE);
    let limit = format!("at least {RATIO_MIN} of nginx writing a log");
    report.note(verdict("ratio of medians", &number(ratio, 2), &limit, ratio >= RATIO_MIN));
    report.finish(&machine, options.common.save)
}

/// Writes the events and the script that posts them.
fn load(scratch: &Path, options: &Options) -> Result<Load> {
    let events_file = scratch.join("events.ndjson");
    fs::write(&events_file, events::without_ids(EVENTS, SEED)?.concat())?;
    let script = scratch.join("post.lua");
    fs::write(&script, include_str!("../cases/single/post.lua"))?;
    Ok(Load {
        script,
        events: events_file,
        connections: options.connections,
        seconds: options.seconds,
        core: CORE + 1,
    })
}

/// The values of a side, in the order of [`COLUMNS`].
type Values = [f64; 6];

/// nginx, answering at once and writing the bodies to a file.
fn theirs(directory: &Path, load: &Load) -> Result<(Values, Values)> {
    let nginx = Nginx::start(directory, CORE)?;
    let start = nginx.cpu_seconds()?;
    let empty = load.run(nginx.empty())?;
    let middle = nginx.cpu_seconds()?;
    let logged = load.run(nginx.logged())?;
    let end = nginx.cpu_seconds()?;
    let log = nginx.stop()?;
    nginx::check(&log, &load.events, logged.requests)?;
    fs::remove_dir_all(directory)?;
    rustix::fs::sync();
    let none = f64::NAN;
    Ok((values(&empty, middle - start, none), values(&logged, end - middle, none)))
}

/// ringlake at one level of acknowledgement.
fn ours(binary: &Path, data: &Path, ack: &str, load: &Load) -> Result<Values> {
    let trial = Trial::start(binary, data, Some(CORE), &[("RINGLAKE_ACK", ack)])?;
    let start = trial.server.cpu_seconds()?;
    let outcome = load.run(trial.address())?;
    let cpu = trial.server.cpu_seconds()? - start;
    let peak = trial.server.memory()?.peak;
    let stored = outcome.requests.saturating_sub(outcome.refused);
    // wrk leaves without waiting for the answers that are under way.
    trial.end(stored..=stored + u64::from(load.connections))?;
    Ok(values(&outcome, cpu, megabytes(peak)))
}

fn values(outcome: &Outcome, cpu_seconds: f64, peak_mb: f64) -> Values {
    [
        outcome.rate,
        1e6 * cpu_seconds / count_as_f64(outcome.requests),
        outcome.p50_ms,
        outcome.p99_ms,
        count_as_f64(outcome.refused),
        peak_mb,
    ]
}
