//! The latency case: how long an acknowledgement takes when clients do not wait for each other.
//!
//! **Guarantees**: requests are due at fixed distances, and a latency is counted from the moment at
//! which its request was due. The server has core 0 and the generator core 1. Everything that was
//! answered is counted by SQL at the end.
//!
//! **Not guaranteed**: that the three shares mean the same load on a machine that becomes slower in
//! the middle: the maximum is measured once a round, just before them.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::bulk::count_as_f64;
use crate::events;
use crate::load::{Bodies, Client, Outcome, Pace};
use crate::report::{Column, Report, number, verdict};
use crate::server::cpu_seconds;
use crate::trial::{CORE, Lab, Loads, Trial};

/// Distinct events that are sent in turn.
const EVENTS: usize = 10_000;
/// Connections that find the maximum, as in the single-event case.
const CLOSED_CONNECTIONS: usize = 64;
/// Shapes of a request: name and events.
const SHAPES: [(&str, usize); 2] = [("single", 1), ("batch", 100)];
const ACKS: [&str; 2] = ["disk", "memory"];
/// Percent of the measured maximum.
const SHARES: [u32; 3] = [10, 50, 80];
/// The side that has a limit.
const JUDGED: &str = "single disk 50 %";
const P99_MAX_MS: f64 = 10.0;
const P99: &str = "p99 ms";
/// What the curve of a side is made of.
const PERCENTILES: [f64; 14] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0];

const COLUMNS: [Column; 10] = [
    Column { name: "meant/s", decimals: 0 },
    Column { name: "answered/s", decimals: 0 },
    Column { name: "p50 ms", decimals: 2 },
    Column { name: "p90 ms", decimals: 2 },
    Column { name: P99, decimals: 2 },
    Column { name: "p99.9 ms", decimals: 2 },
    Column { name: "max ms", decimals: 1 },
    Column { name: "refused", decimals: 0 },
    Column { name: "server cpu %", decimals: 0 },
    Column { name: "client cpu %", decimals: 0 },
];

/// `perf latency`
#[derive(Debug, Args)]
pub struct Options {
    /// Kept-alive connections of the open loop.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    #[command(flatten)]
    loads: Loads,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let loads = &options.loads;
    let lab = Lab::on_two_cores("latency", &loads.common)?;
    let events = events::without_ids(EVENTS, loads.seed)?;
    let title = format!(
        "{} s a load, {CLOSED_CONNECTIONS} connections for the maximum, {} for the open loop, \
         server on core {CORE}, generator on core {}",
        loads.seconds,
        options.connections,
        CORE + 1,
    );
    let mut report = Report::new("latency", title, &COLUMNS);
    let mut curves = Curves::default();
    for round in loads.rounds() {
        for (shape, size) in SHAPES {
            let bodies = events::batches(&events, size);
            for ack in ACKS {
                eprintln!("{shape} {ack}");
                let steps = ours(&lab, ack, &bodies, size, options)?;
                for (load, outcome, values) in steps {
                    let side = format!("{shape} {ack} {load}");
                    report.add(&side, round, &values);
                    curves.add(side, outcome)?;
                }
            }
        }
    }
    let p99 = report.median(JUDGED, P99);
    let limit = format!("under {P99_MAX_MS} ms at half of the maximum, synced");
    report.note(verdict(
        &format!("p99 of {JUDGED}, ms"),
        &number(p99, 2),
        &limit,
        p99 < P99_MAX_MS,
    ));
    report.attach("percentiles.csv", curves.csv());
    report.finish(&lab.machine, loads.common.save)
}

/// A load's name, what it brought, and its values in the order of [`COLUMNS`].
type Step = (String, Outcome, [f64; 10]);

/// The maximum and its shares, on a server of their own.
fn ours(
    lab: &Lab,
    ack: &str,
    bodies: &[String],
    size: usize,
    options: &Options,
) -> Result<Vec<Step>> {
    let trial = lab.start(&[("RINGLAKE_ACK", ack)])?;
    let length = options.loads.length();
    let address = trial.address();
    let connect = |count| Client::connect(address, Bodies::in_turn(address, bodies), count);
    let mut steps = Vec::new();
    let mut closed = connect(CLOSED_CONNECTIONS)?;
    let (outcome, values) = measured(&trial, &mut closed, Pace::Closed, length)?;
    let most = outcome.rate();
    drop(closed);
    steps.push(("maximum".to_owned(), outcome, values));
    let mut open = connect(usize::from(options.connections))?;
    for share in SHARES {
        // What the last load left in the rings would be charged to this one.
        trial.flush()?;
        let pace = Pace::PerSecond(most * f64::from(share) / 100.0);
        let (outcome, values) = measured(&trial, &mut open, pace, length)?;
        steps.push((format!("{share} %"), outcome, values));
    }
    let answered: u64 = steps.iter().map(|(_, outcome, _)| outcome.answered).sum();
    let stored = answered * size as u64;
    trial.end(stored..=stored)?;
    Ok(steps)
}

fn measured(
    trial: &Trial,
    client: &mut Client,
    pace: Pace,
    length: Duration,
) -> Result<(Outcome, [f64; 10])> {
    let myself = std::process::id();
    let (server_before, client_before) = (trial.server.cpu_seconds()?, cpu_seconds(myself)?);
    let outcome = client.run(pace, length)?;
    let server = trial.server.cpu_seconds()? - server_before;
    let client = cpu_seconds(myself)? - client_before;
    let meant = match pace {
        Pace::Closed => f64::NAN,
        Pace::PerSecond(rate) => rate,
    };
    let values = [
        meant,
        outcome.rate(),
        outcome.milliseconds(50.0),
        outcome.milliseconds(90.0),
        outcome.milliseconds(99.0),
        outcome.milliseconds(99.9),
        outcome.milliseconds(100.0),
        count_as_f64(outcome.refused),
        100.0 * server / outcome.seconds,
        100.0 * client / outcome.seconds,
    ];
    Ok((outcome, values))
}

/// The latencies of all rounds, a side each.
#[derive(Debug, Default)]
pub struct Curves {
    sides: Vec<(String, Outcome)>,
}

impl Curves {
    /// Adds what one round of a side brought.
    pub fn add(&mut self, side: String, outcome: Outcome) -> Result<()> {
        match self.sides.iter_mut().find(|(name, _)| *name == side) {
            Some((_, all)) => all.add(&outcome),
            None => {
                self.sides.push((side, outcome));
                Ok(())
            }
        }
    }

    /// One line a side and percentile.
    pub fn csv(&self) -> String {
        let mut csv = String::from("side,percentile,ms\n");
        for (side, outcome) in &self.sides {
            for percentile in PERCENTILES {
                let value = outcome.milliseconds(percentile);
                let _ = writeln!(csv, "{side},{percentile},{value}");
            }
        }
        csv
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn rounds_of_a_side_make_one_curve() {
        let mut curves = Curves::default();
        for nanoseconds in [1_000_000, 3_000_000] {
            let mut outcome = Outcome::new().unwrap();
            outcome.latencies.record(nanoseconds).unwrap();
            curves.add("single disk".to_owned(), outcome).unwrap();
        }
        let csv = curves.csv();
        assert_eq!(csv.lines().count(), 1 + PERCENTILES.len());
        let most = csv.lines().last().unwrap().rsplit(',').next().unwrap();
        assert!((most.parse::<f64>().unwrap() - 3.0).abs() < 0.01, "{csv}");
    }
}
