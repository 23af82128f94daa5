//! The table that is asked: generated, imported, joined, served, with hot rows on top.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use ringlake_event::generate::Generator;

use crate::crash::lake::Table;
use crate::server::{self, Server};
use crate::{bulk, http};

/// Where the generator's clock starts, in microseconds since the epoch, and its mean pace.
const START_MICROS: u64 = 1_790_834_400_000_000;
const EVENT_MICROS: u64 = 200_000;
/// Rows on top; at 32,768 they would be rolled.
const HOT: u64 = 20_000;
const HOT_BATCH: u64 = 1_000;
/// Longer than any run: hot rows are to stay hot, and files as they are.
const STAY: [(&str, &str); 2] =
    [("RINGLAKE_HOT_ROLL_AGE_MS", "86400000"), ("RINGLAKE_COMPACTION_INTERVAL_MS", "0")];

/// A table on the disk.
#[derive(Debug)]
pub struct Filled {
    /// Events in it.
    pub events: u64,
    /// Its Parquet files.
    pub files: Vec<PathBuf>,
}

impl Filled {
    /// Generates and imports `millions` of events into `data`, and joins the files.
    pub fn make(binary: &Path, data: &Path, millions: f64, seed: u64) -> Result<Filled> {
        let events = format!("{:.0}", millions * 1e6);
        eprintln!("importing {events} events");
        let mut generate = Command::new(binary)
            .args(["generate", "--events", &events, "--seed", &seed.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("the generator did not start")?;
        let lines = generate.stdout.take().context("the generator has no output")?;
        done(Command::new(binary).args(["import", "-", "--data"]).arg(data).stdin(lines))?;
        let status = generate.wait()?;
        ensure!(status.success(), "the generator ended with {status}");
        done(Command::new(binary).args(["compact", "--data"]).arg(data))?;
        Ok(Filled { events: events.parse()?, files: Table::read(data)?.files() })
    }

    /// The middle tenth of the time that the events span, in microseconds.
    pub fn middle(&self) -> (u64, u64) {
        let span = self.events * EVENT_MICROS;
        (START_MICROS + span * 45 / 100, START_MICROS + span * 55 / 100)
    }
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    Ok(())
}

/// Starts a server on the table.
pub fn serve(binary: &Path, data: &Path, threads: u32) -> Result<Server> {
    let mut command = server::command(binary, data, None);
    command.envs(STAY).env("RINGLAKE_DUCKDB_THREADS", threads.to_string());
    Server::start(command)
}

/// Sends the hot rows; how many.
pub fn heat(address: SocketAddr, seed: u64) -> Result<u64> {
    let mut generator = Generator::new(seed + 1);
    for _ in 0..HOT / HOT_BATCH {
        let mut batch = Vec::new();
        for _ in 0..HOT_BATCH {
            generator.write_event(&mut batch);
        }
        let answer = http::call(address, "POST", "/v1/events", "", std::str::from_utf8(&batch)?)?;
        ensure!(answer.status == 202, "a batch was answered {} {}", answer.status, answer.text());
    }
    bulk::client::flush(address, None)?;
    let status = http::status(address)?;
    let rows = status.pointer("/hot/rows").and_then(serde_json::Value::as_u64);
    ensure!(rows == Some(HOT), "{rows:?} rows are hot, {HOT} were sent");
    Ok(HOT)
}
