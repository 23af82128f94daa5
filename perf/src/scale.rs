//! The scale case: what a rate and memory do when the events have more ids or tenants, are larger,
//! or have more shards.
//!
//! **Guarantees**: one thing changes at a time, against the same middle; every step has an empty
//! directory of its own; what was acknowledged is counted by SQL.
//!
//! **Not guaranteed**: that every id occurs. Numbers are given out of order and repeat only when all
//! of their range were used: ten million of them need as many events.

use anyhow::Result;
use clap::Args;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::bulk::{count_as_f64, megabytes};
use crate::load::{Bodies, Client, Pace, SLOT};
use crate::report::{Column, Report};
use crate::trial::{Lab, Loads};

const CONNECTIONS: usize = 8;
/// Size of a request, about; at most a thousand events, at least one.
const REQUEST_BYTES: usize = 512 << 10;
const BATCH_MAX: usize = 1_000;
/// What an event has besides its padding, about.
const BARE_BYTES: usize = 160;
/// The middle from which each step differs in one thing.
const MIDDLE: Step = Step { ids: 10_000, tenants: 10, bytes: 400, shards: 2 };

const COLUMNS: [Column; 6] = [
    Column { name: "events/s", decimals: 0 },
    Column { name: "MB/s", decimals: 1 },
    Column { name: "cpu us/event", decimals: 2 },
    Column { name: "peak MB", decimals: 0 },
    Column { name: "p99 ms", decimals: 1 },
    Column { name: "refused", decimals: 0 },
];

/// `perf scale`
#[derive(Debug, Args)]
#[command(mut_arg("seconds", |arg| arg.default_value("5")))]
#[command(mut_arg("rounds", |arg| arg.default_value("1")))]
pub struct Options {
    #[command(flatten)]
    loads: Loads,
}

/// The events of a step and what takes them.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// Distinct users.
    ids: u64,
    tenants: u64,
    /// Of an event.
    bytes: usize,
    shards: u32,
}

impl Step {
    /// All of them, with their names.
    fn all() -> Vec<(String, Step)> {
        let mut steps = Vec::new();
        for ids in [1, 10_000, 1_000_000, 10_000_000] {
            steps.push((format!("{ids} ids"), Step { ids, ..MIDDLE }));
        }
        for tenants in [1, 10, 100, 1_000] {
            steps.push((format!("{tenants} tenants"), Step { tenants, ..MIDDLE }));
        }
        for bytes in [200, 1_000, 5 << 10, 50 << 10] {
            steps.push((format!("{bytes} bytes"), Step { bytes, ..MIDDLE }));
        }
        for shards in [1, 2] {
            steps.push((format!("{shards} shards"), Step { shards, ..MIDDLE }));
        }
        steps
    }

    /// Events of a request.
    fn batch(self) -> usize {
        (REQUEST_BYTES / self.bytes).clamp(1, BATCH_MAX)
    }

    /// A request's events, with slots for the users' numbers.
    fn body(self, random: &mut Pcg64Mcg) -> String {
        let mut body = String::new();
        for event in 0..self.batch() as u64 {
            let tenant = event * self.tenants / self.batch() as u64;
            let padding = padding(random, self.bytes.saturating_sub(BARE_BYTES));
            body.push_str(&format!(
                "{{\"type\":\"track\",\"event\":\"Scaled\",\"tenant\":\"tenant-{tenant:04}\",\
                 \"user_id\":\"user-{SLOT}\",\"url\":\"https://shop.example/scale\",\
                 \"properties\":{{\"padding\":\"{padding}\"}}}}\n",
            ));
        }
        body
    }
}

/// Letters that do not compress to nothing.
fn padding(random: &mut Pcg64Mcg, bytes: usize) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz012345";
    let letter = |random: &mut Pcg64Mcg| char::from(letters[(random.next_u64() % 32) as usize]);
    (0..bytes).map(|_| letter(random)).collect()
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let loads = &options.loads;
    let lab = Lab::open("scale", &loads.common)?;
    let title = format!(
        "{} s a step over {CONNECTIONS} connections; unless the step says otherwise {} ids, {} \
         tenants, {} bytes an event, {} shards",
        loads.seconds, MIDDLE.ids, MIDDLE.tenants, MIDDLE.bytes, MIDDLE.shards,
    );
    let mut report = Report::new("scale", title, &COLUMNS);
    for round in loads.rounds() {
        for (side, step) in Step::all() {
            eprintln!("{side}");
            report.add(&side, round, &ours(&lab, step, loads)?);
        }
    }
    report.finish(&lab.machine, loads.common.save)
}

/// One step; its values in the order of [`COLUMNS`].
fn ours(lab: &Lab, step: Step, loads: &Loads) -> Result<[f64; 6]> {
    let shards = step.shards.to_string();
    let trial = lab.start(&[("RINGLAKE_SHARDS", &shards)])?;
    let body = step.body(&mut Pcg64Mcg::seed_from_u64(loads.seed));
    let bodies = Bodies::numbered(trial.address(), &body, step.ids);
    let mut client = Client::connect(trial.address(), bodies, CONNECTIONS)?;
    let before = trial.server.cpu_seconds()?;
    let outcome = client.run(Pace::Closed, loads.length())?;
    let stored = outcome.answered * step.batch() as u64;
    trial.count()?;
    let cpu = trial.server.cpu_seconds()? - before;
    let peak = trial.server.memory()?.peak;
    trial.end(stored..=stored)?;
    Ok([
        count_as_f64(stored) / outcome.seconds,
        megabytes(outcome.answered * body.len() as u64) / outcome.seconds,
        1e6 * cpu / count_as_f64(stored),
        megabytes(peak),
        outcome.milliseconds(99.0),
        count_as_f64(outcome.refused),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_of_its_size_and_has_its_tenants() {
        for (name, step) in Step::all() {
            let body = step.body(&mut Pcg64Mcg::seed_from_u64(1));
            assert_eq!(body.lines().count(), step.batch(), "{name}");
            let bytes = body.len() / step.batch();
            assert!(bytes.abs_diff(step.bytes) < 30, "{name}: {bytes}");
            let tenants: std::collections::BTreeSet<&str> =
                body.lines().filter_map(|line| line.split("tenant-").nth(1)?.get(..4)).collect();
            assert_eq!(tenants.len() as u64, step.tenants, "{name}");
        }
    }
}
