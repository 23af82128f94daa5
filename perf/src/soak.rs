//! The soak case: whether memory, latency or files grow under a load that goes on.
//!
//! **Guarantees**: an open loop at a share of the measured maximum without a pause, in windows that
//! are measured one by one; rolls and compaction run by themselves; everything acknowledged is
//! counted by SQL at the end. A slope is that of a straight line through the windows behind the
//! first third, in which caches and pools fill, with twice its standard error.
//!
//! **Disk**: about 100 bytes an event, replaced files included, which stay for a minute.

use std::fmt::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use serde_json::Value;

use crate::bulk::{count_as_f64, megabytes};
use crate::load::{Bodies, Client, Outcome, Pace};
use crate::report::{Column, Report, number, verdict};
use crate::trial::{CORE, Common, Lab, Trial};
use crate::{events, http};

const EVENTS: usize = 10_000;
const CLOSED_CONNECTIONS: usize = 64;
const CONNECTIONS: usize = 256;
/// Percent of the measured maximum.
const SHARE: f64 = 60.0;
const WINDOWS: u32 = 30;
/// The maximum is measured for as long as a window, and no longer than this.
const MAXIMUM: Duration = Duration::from_secs(10);
/// How long replaced files stay: a soak would fill the disk with them otherwise.
const RETAIN: (&str, &str) = ("RINGLAKE_COMPACTION_RETAIN_MS", "60000");
/// Growth over the whole soak that is none, as a share of the median.
const GROWTH_MAX: f64 = 0.05;

/// Between two looks at the server's memory.
const LOOK_EVERY: Duration = Duration::from_millis(250);

const SIDE: &str = "window";
/// What stays: what rolls and merges take for a moment comes on top.
const LEAST: &str = "least MB";
const MOST: &str = "most MB";
const P99: &str = "p99 ms";
const COLUMNS: [Column; 11] = [
    Column { name: "answered/s", decimals: 0 },
    Column { name: "p50 ms", decimals: 2 },
    Column { name: P99, decimals: 2 },
    Column { name: "max ms", decimals: 1 },
    Column { name: "refused", decimals: 0 },
    Column { name: "server cpu %", decimals: 0 },
    Column { name: LEAST, decimals: 0 },
    Column { name: MOST, decimals: 0 },
    Column { name: "log MB", decimals: 0 },
    Column { name: "files", decimals: 0 },
    Column { name: "million rows", decimals: 2 },
];

/// `perf soak`
#[derive(Debug, Args)]
pub struct Options {
    /// Length of the load; fractions are allowed.
    #[arg(long, default_value_t = 30.0, value_parser = minutes)]
    minutes: f64,
    /// Seed of the events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    common: Common,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("{text} is not a number of minutes"))?;
    let sensible = (0.01..=1_440.0).contains(&minutes);
    sensible.then_some(minutes).ok_or_else(|| format!("{text} is not between 0.01 and 1440"))
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let lab = Lab::on_two_cores("soak", &options.common)?;
    let bodies = events::without_ids(EVENTS, options.seed)?;
    let trial = lab.start(&[RETAIN])?;
    let address = trial.address();
    let window = Duration::from_secs_f64(options.minutes * 60.0 / f64::from(WINDOWS));

    let mut closed =
        Client::connect(address, Bodies::in_turn(address, &bodies), CLOSED_CONNECTIONS)?;
    let most = closed.run(Pace::Closed, window.min(MAXIMUM))?;
    drop(closed);
    let pace = Pace::PerSecond(most.rate() * SHARE / 100.0);
    let title = format!(
        "{} minutes of single events at {SHARE} % of {} a second, {WINDOWS} windows, server on core \
         {CORE}, generator on core {}",
        options.minutes,
        number(most.rate(), 0),
        CORE + 1,
    );
    let mut report = Report::new("soak", title, &COLUMNS);
    let mut client = Client::connect(address, Bodies::in_turn(address, &bodies), CONNECTIONS)?;
    let mut stored = most.answered;
    for round in 1..=WINDOWS {
        let cpu = trial.server.cpu_seconds()?;
        let (outcome, memory) = watched(&trial, || client.run(pace, window))?;
        stored += outcome.answered;
        let cpu = trial.server.cpu_seconds()? - cpu;
        report.add(SIDE, round, &values(&trial, &outcome, cpu, memory)?);
        eprintln!("window {round} of {WINDOWS}");
    }
    for (what, unit) in [(LEAST, "MB"), (MOST, "MB"), (P99, "ms")] {
        report.note(judge(&report, what, unit, window));
    }
    trial.end(stored..=stored)?;
    report.note(format!("lost: 0 of {} events", number(count_as_f64(stored), 0)));
    report.finish(&lab.machine, options.common.save)
}

/// Resident memory of a window in bytes.
#[derive(Debug, Clone, Copy)]
struct Resident {
    least: u64,
    most: u64,
}

/// What `work` gives, and the server's memory meanwhile.
fn watched<T>(trial: &Trial, work: impl FnOnce() -> Result<T>) -> Result<(T, Resident)> {
    thread::scope(|scope| {
        let (end, ended) = mpsc::channel::<()>();
        let watcher = scope.spawn(move || -> Result<Resident> {
            let mut resident = Resident { least: u64::MAX, most: 0 };
            loop {
                let now = trial.server.memory()?.resident;
                resident.least = resident.least.min(now);
                resident.most = resident.most.max(now);
                if ended.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    return Ok(resident);
                }
            }
        });
        let done = work();
        drop(end);
        let resident = watcher.join().map_err(|_| anyhow!("the look at memory panicked"))??;
        Ok((done?, resident))
    })
}

/// What a window brought and left, in the order of [`COLUMNS`].
fn values(trial: &Trial, outcome: &Outcome, cpu: f64, memory: Resident) -> Result<[f64; 11]> {
    let status = http::status(trial.address())?;
    let of = |path: &str| -> Result<u64> {
        let value = status.pointer(path).and_then(Value::as_u64);
        value.with_context(|| format!("/v1/status has no count {path}"))
    };
    Ok([
        outcome.rate(),
        outcome.milliseconds(50.0),
        outcome.milliseconds(99.0),
        outcome.milliseconds(100.0),
        count_as_f64(outcome.refused),
        100.0 * cpu / outcome.seconds,
        megabytes(memory.least),
        megabytes(memory.most),
        megabytes(of("/log_bytes")?),
        count_as_f64(of("/lake/files")?),
        count_as_f64(of("/lake/rows")? + of("/hot/rows")?) / 1e6,
    ])
}

/// Says whether a column grows.
fn judge(report: &Report, column: &str, unit: &str, window: Duration) -> String {
    let all = report.values_of(SIDE, column);
    let late = &all[all.len() / 3..];
    let (slope, error) = line(late);
    let median = report.median(SIDE, column);
    let growth = slope * count_as_f64(all.len() as u64);
    let holds = growth <= GROWTH_MAX * median || slope <= 2.0 * error;
    let hourly = 3_600.0 / window.as_secs_f64();
    let mut value = number(slope * hourly, 1);
    let _ = write!(value, " ± {} {unit} an hour", number(2.0 * error * hourly, 1));
    verdict(&format!("slope of {column}"), &value, "none, or under 5 % over all of it", holds)
}

/// The slope of the straight line through `values`, one a step, and its standard error.
fn line(values: &[f64]) -> (f64, f64) {
    let count = count_as_f64(values.len() as u64);
    let middle = (count - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / count;
    let steps = || (0_u32..).map(|step| f64::from(step) - middle).zip(values);
    let squares: f64 = steps().map(|(step, _)| step * step).sum();
    let slope = steps().map(|(step, value)| step * (value - mean)).sum::<f64>() / squares;
    let left: f64 = steps().map(|(step, value)| (value - mean - slope * step).powi(2)).sum();
    (slope, (left / (count - 2.0) / squares).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_slope_and_no_error() {
        let (slope, error) = line(&[1.0, 3.0, 5.0, 7.0]);
        assert!((slope - 2.0).abs() < 1e-9 && error < 1e-9, "{slope} ± {error}");
    }

    #[test]
    fn noise_without_a_slope_is_within_twice_its_error() {
        let (slope, error) = line(&[5.0, 4.0, 6.0, 5.0, 4.0, 6.0, 5.0, 4.0, 6.0, 5.0]);
        assert!(slope.abs() < 2.0 * error, "{slope} ± {error}");
    }
}
