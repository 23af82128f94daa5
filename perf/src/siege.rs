//! The siege case: what normal load notices of clients that hold on to all they can get.
//!
//! **Guarantees**: good traffic is an open loop, alone and then besieged, on the same server seconds
//! apart. The siege stands when the second load begins: every held connection has been opened, and one
//! that the server closes is opened again. What was acknowledged is counted by SQL at the end, so that
//! nothing hostile was stored. The server has core 0; all clients have core 1.
//!
//! **Not guaranteed**: what a flood of packets does, or one that is larger than the core it comes from:
//! the besiegers give way to the generator that is measured.
//!
//! | module | is |
//! |---|---|
//! | [`besiegers`] | the hostile clients |

mod besiegers;

use std::thread;

use anyhow::{Result, ensure};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::besiegers::Siege;
use crate::bulk::{count_as_f64, megabytes};
use crate::events;
use crate::load::{Bodies, Client, Outcome, Pace};
use crate::report::{Column, Report, number, verdict};
use crate::trial::{CORE, Lab, Loads, Trial};

/// Distinct events that are sent in turn.
const EVENTS: usize = 10_000;
/// Connections that find the maximum, and those of the open loop.
const CLOSED_CONNECTIONS: usize = 64;
const CONNECTIONS: usize = 256;
/// Percent of the maximum.
const SHARE: f64 = 50.0;
/// Files of a process besides held connections.
const OTHER_FILES: u64 = 1_000;
const P99_MAX: f64 = 2.0;
const PEAK_MAX_MB: f64 = 512.0;

const ALONE: &str = "alone";
const BESIEGED: &str = "besieged";
const RATIO: &str = "ratio";
const PEAK: &str = "peak MB";
const COLUMNS: [Column; 9] = [
    Column { name: "answered/s", decimals: 0 },
    Column { name: "p50 ms", decimals: 2 },
    Column { name: "p99 ms", decimals: 2 },
    Column { name: RATIO, decimals: 2 },
    Column { name: "refused", decimals: 0 },
    Column { name: "server cpu %", decimals: 0 },
    Column { name: PEAK, decimals: 0 },
    Column { name: "opened again", decimals: 0 },
    Column { name: "attacks/s", decimals: 0 },
];
type Values = [f64; 9];

/// `perf siege`
#[derive(Debug, Args)]
#[command(mut_arg("rounds", |arg| arg.default_value("5")))]
#[command(mut_arg("seconds", |arg| arg.default_value("30")))]
pub struct Options {
    /// Connections that are held.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(4..=9_000))]
    held: u16,
    #[command(flatten)]
    loads: Loads,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let loads = &options.loads;
    raise_files(u64::from(options.held) + OTHER_FILES)?;
    let lab = Lab::on_two_cores("siege", &loads.common)?;
    let bodies = events::without_ids(EVENTS, loads.seed)?;
    let title = format!(
        "single events at {SHARE} % of the maximum, alone and beside {} held connections and attacks; \
         {} s a load, server on core {CORE}, clients on core {}",
        options.held,
        loads.seconds,
        CORE + 1,
    );
    let mut report = Report::new("siege", title, &COLUMNS);
    for round in loads.rounds() {
        for (side, values) in ours(&lab, &bodies, options)? {
            report.add(side, round, &values);
        }
    }
    let ratio = report.median(BESIEGED, RATIO);
    let value = format!("{} times that alone", number(ratio, 2));
    report.note(verdict("p99 besieged", &value, &format!("at most {P99_MAX}"), ratio <= P99_MAX));
    let peak = report.maximum(BESIEGED, PEAK);
    let limit = format!("under {PEAK_MAX_MB} MB");
    report.note(verdict("peak resident MB", &number(peak, 0), &limit, peak < PEAK_MAX_MB));
    report.note("stored of the siege: 0, as counted after every round".to_owned());
    report.finish(&lab.machine, loads.common.save)
}

/// Lets this process, and the servers that it starts, have so many files open.
fn raise_files(wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        ensure!(
            limit.maximum.is_none_or(|maximum| maximum >= wanted),
            "{wanted} open files are needed, a process may have {:?}: ulimit -Hn, or fewer --held",
            limit.maximum,
        );
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })?;
    }
    Ok(())
}

/// One round; the values in the order of [`COLUMNS`].
fn ours(lab: &Lab, bodies: &[String], options: &Options) -> Result<[(&'static str, Values); 2]> {
    let trial = lab.start(&[])?;
    let (address, length) = (trial.address(), options.loads.length());
    let connect = |count| Client::connect(address, Bodies::in_turn(address, bodies), count);
    let most = connect(CLOSED_CONNECTIONS)?.run(Pace::Closed, length)?;
    let pace = Pace::PerSecond(most.rate() * SHARE / 100.0);
    let load = || measured(&trial, &mut connect(CONNECTIONS)?, pace, options);
    let (alone, cpu, peak) = load()?;
    let none = f64::NAN;
    let calm = values(&alone, [none, cpu, peak, none, none]);

    let siege = Siege::new(address, usize::from(options.held));
    let (besieged, stormy) = thread::scope(|scope| -> Result<_> {
        let besiegers = siege.begin(scope);
        // Connections of their own: those of before may have been idle for too long by now.
        let measured = siege.wait().and_then(|()| load());
        let told = siege.end(besiegers);
        let ((outcome, cpu, peak), told) = (measured?, told?);
        let ratio = outcome.milliseconds(99.0) / alone.milliseconds(99.0);
        let attacks = told.attacks / outcome.seconds;
        let values = values(&outcome, [ratio, cpu, peak, told.reopened, attacks]);
        Ok((outcome, values))
    })?;
    let stored = most.answered + alone.answered + besieged.answered;
    trial.end(stored..=stored)?;
    Ok([(ALONE, calm), (BESIEGED, stormy)])
}

/// One load: what it brought, the server's share of a core in percent, and its peak of memory in MB.
fn measured(
    trial: &Trial,
    client: &mut Client,
    pace: Pace,
    options: &Options,
) -> Result<(Outcome, f64, f64)> {
    // What the load before has left in the rings would be charged to this one.
    trial.flush()?;
    trial.server.forget_peak()?;
    let before = trial.server.cpu_seconds()?;
    let outcome = client.run(pace, options.loads.length())?;
    let cpu = 100.0 * (trial.server.cpu_seconds()? - before) / outcome.seconds;
    Ok((outcome, cpu, megabytes(trial.server.memory()?.peak)))
}

fn values(outcome: &Outcome, [ratio, cpu, peak, reopened, attacks]: [f64; 5]) -> Values {
    [
        outcome.rate(),
        outcome.milliseconds(50.0),
        outcome.milliseconds(99.0),
        ratio,
        count_as_f64(outcome.refused),
        cpu,
        peak,
        reopened,
        attacks,
    ]
}
