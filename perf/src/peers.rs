//! The peers case: the same events into ringlake and into ClickHouse's engine, in requests and
//! inserts of a thousand.
//!
//! **Guarantees**: both get the same lines in the same batches, in turn, round by round, into an
//! empty directory, and are counted afterwards.
//!
//! **Not guaranteed**: that they promise the same. ClickHouse's engine runs in the process that has
//! the lines and answers when a part is written, without a sync; ours takes HTTP, answers after an
//! fdatasync, and is timed until the Delta commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Args;
use ringlake_event::generate::Generator;
use serde_json::Value;

use crate::bulk::{client, count_as_f64, megabytes};
use crate::machine::Machine;
use crate::report::{Column, Report, number, verdict};
use crate::server;
use crate::trial::{Common, Trial};

/// Rows of an insert, events of a request.
const BATCH: usize = 1_000;
const CONNECTIONS: u32 = 4;
const RATIO_MIN: f64 = 2.0;

const OURS: &str = "ringlake";
const THEIRS: &str = "clickhouse";
const PER_CORE: &str = "events/s a core";
const COLUMNS: [Column; 5] = [
    Column { name: "events/s", decimals: 0 },
    Column { name: PER_CORE, decimals: 0 },
    Column { name: "seconds", decimals: 2 },
    Column { name: "cpu us/event", decimals: 2 },
    Column { name: "peak MB", decimals: 0 },
];

/// `perf peers`
#[derive(Debug, Args)]
pub struct Options {
    /// Events that each side gets, in thousands.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    thousands: u64,
    /// Seed of the generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each side runs, in turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    common: Common,
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let python = python()?;
    let machine = Machine::read();
    let binary = server::binary()?;
    let scratch = options.common.scratch("peers")?;
    let events = options.thousands * BATCH as u64;
    let batches = batches(options);
    let file = scratch.path().join("events.ndjson");
    fs::write(&file, batches.concat())?;
    let script = scratch.path().join("clickhouse.py");
    fs::write(&script, include_str!("../cases/peers/clickhouse.py"))?;

    let title = format!("{events} events of seed {}, {BATCH} a request or insert", options.seed);
    let mut report = Report::new("peers", title, &COLUMNS);
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        report.add(OURS, round, &ours(&binary, &scratch.path().join("data"), &batches, events)?);
        let directory = scratch.path().join("clickhouse");
        let inserted = Inserted::run(&python, &script, &file, &directory)?;
        ensure!(inserted.rows == events, "ClickHouse's engine has {} rows", inserted.rows);
        report.add(THEIRS, round, &inserted.values());
        fs::remove_dir_all(&directory)?;
        rustix::fs::sync();
    }
    let ratio = report.median(OURS, PER_CORE) / report.median(THEIRS, PER_CORE);
    let limit = format!("at least {RATIO_MIN} of ClickHouse's engine");
    let what = format!("ratio of medians, {PER_CORE}");
    report.note(verdict(&what, &number(ratio, 2), &limit, ratio >= RATIO_MIN));
    report.finish(&machine, options.common.save)
}

fn batches(options: &Options) -> Vec<Bytes> {
    let mut generator = Generator::new(options.seed);
    let batches = (0..options.thousands).map(|_| {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            generator.write_event(&mut batch);
        }
        Bytes::from(batch)
    });
    batches.collect()
}

/// One round of ours, until the Delta commit; in the order of [`COLUMNS`].
fn ours(binary: &Path, data: &Path, batches: &[Bytes], events: u64) -> Result<[f64; 5]> {
    let trial = Trial::start(binary, data, None, &[])?;
    let before = trial.server.cpu_seconds()?;
    let timing = client::load(trial.address(), batches, CONNECTIONS)?;
    let cpu = trial.server.cpu_seconds()? - before;
    let peak = trial.server.memory()?.peak;
    trial.end(events..=events)?;
    Ok(values(events, timing.committed.as_secs_f64(), cpu, peak))
}

/// What ClickHouse's engine did.
struct Inserted {
    rows: u64,
    seconds: f64,
    cpu_seconds: f64,
    peak_bytes: u64,
}

impl Inserted {
    fn run(python: &Path, script: &Path, file: &Path, directory: &Path) -> Result<Inserted> {
        let output = Command::new(python)
            .args([script, file, directory])
            .arg(BATCH.to_string())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("{} did not start", python.display()))?;
        ensure!(output.status.success(), "clickhouse.py ended with {}", output.status);
        let said: Value = serde_json::from_slice(&output.stdout)?;
        let of = |name: &str| said[name].as_f64().with_context(|| format!("no {name} in {said}"));
        let count =
            |name: &str| said[name].as_u64().with_context(|| format!("no {name} in {said}"));
        Ok(Inserted {
            rows: count("rows")?,
            seconds: of("seconds")?,
            cpu_seconds: of("cpu_seconds")?,
            peak_bytes: count("peak_bytes")?,
        })
    }

    fn values(&self) -> [f64; 5] {
        values(self.rows, self.seconds, self.cpu_seconds, self.peak_bytes)
    }
}

fn values(events: u64, seconds: f64, cpu_seconds: f64, peak_bytes: u64) -> [f64; 5] {
    let events = count_as_f64(events);
    let per_core = events / cpu_seconds;
    [events / seconds, per_core, seconds, 1e6 * cpu_seconds / events, megabytes(peak_bytes)]
}

/// The Python with chdb, which has an environment of its own outside the checkout.
fn python() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?;
    let environment = cache.join("ringlake/peers");
    let python = environment.join("bin/python");
    let found = Command::new(&python)
        .args([
            "-c",
            "import importlib.util, sys; sys.exit(importlib.util.find_spec('chdb') is None)",
        ])
        .status()
        .is_ok_and(|status| status.success());
    let path = environment.display();
    ensure!(found, "chdb is not installed: python3 -m venv {path} && {path}/bin/pip install chdb");
    Ok(python)
}
