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
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use ringlake_event::generate::Generator;

use self::nginx::Nginx;
use self::wrk::{Load, Outcome};
use crate::bulk::{client, count_as_f64, megabytes};
use crate::machine::Machine;
use crate::report::{Column, Report, number, verdict};
use crate::server::{self, Server};

/// The server's core; wrk takes the next one.
const CORE: usize = 0;
/// Distinct events that are sent in turn.
const EVENTS: u32 = 1_000;
/// What a generated event begins with: its message id, which is taken out. The second time it came
/// it would be a duplicate, which is answered but not stored.
const MESSAGE_ID: &str = "{\"message_id\":\"";
const RATIO_MIN: f64 = 0.5;

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
    /// Where logs and data directories lie meanwhile [default: the system's temporary directory].
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keep the run under perf/runs/.
    #[arg(long)]
    save: bool,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    wrk::require(&["nginx", "wrk", "taskset"])?;
    let machine = Machine::read();
    ensure!(machine.cores >= 2, "the case needs 2 cores, this machine gives {}", machine.cores);
    let binary = server::binary()?;
    let base = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::Builder::new().prefix("perf-single-").tempdir_in(&base)?;
    let load = load(scratch.path(), options)?;

    let title = format!(
        "one event a request, {} connections, {} s a side, server on core 0, wrk on core 1",
        options.connections, options.seconds,
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
    print!("{}", report.text(&machine));
    if options.save {
        println!("saved in {}", report.save(&machine)?.display());
    }
    Ok(())
}

/// Generated events without their message ids, one a line.
fn events() -> Result<String> {
    let mut generator = Generator::new(1);
    let mut generated = Vec::new();
    for _ in 0..EVENTS {
        generator.write_event(&mut generated);
    }
    let mut events = String::with_capacity(generated.len());
    for line in String::from_utf8(generated)?.lines() {
        let rest = line.strip_prefix(MESSAGE_ID).and_then(|rest| rest.split_once("\","));
        let (_, rest) = rest.context("a generated event begins with its message id")?;
        events.extend(["{", rest, "\n"]);
    }
    Ok(events)
}

/// Writes the events and the script that posts them.
fn load(scratch: &Path, options: &Options) -> Result<Load> {
    let events_file = scratch.join("events.ndjson");
    fs::write(&events_file, events()?)?;
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
    let mut command = server::command(binary, data, Some(CORE));
    command.args(["--ack", ack]);
    let server = Server::start(command)?;
    let start = server.cpu_seconds()?;
    let outcome = load.run(server.address())?;
    let cpu = server.cpu_seconds()? - start;
    let peak = server.memory()?.peak;
    client::flush(server.address())?;
    let count = client::count(server.address())?;
    let stored = outcome.requests.saturating_sub(outcome.refused);
    let under_way = u64::from(load.connections);
    ensure!(
        (stored..=stored + under_way).contains(&count),
        "{stored} requests were answered with 2xx, {count} events are there",
    );
    let status = server.stop()?;
    ensure!(status.success(), "the server ended with {status}");
    fs::remove_dir_all(data).context("cannot remove the round's data directory")?;
    rustix::fs::sync();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_everything_but_a_message_id() {
        let events = events().expect("the generator's events are as expected");
        assert_eq!(events.lines().count(), 1_000);
        for line in events.lines() {
            let event: serde_json::Value = serde_json::from_str(line).expect("they are JSON");
            assert!(event["tenant"].is_string() && event["message_id"].is_null(), "{line}");
        }
    }
}
