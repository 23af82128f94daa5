//! What cases have in common: their options, what they begin with, and a server on an empty data
//! directory.
//!
//! **Guarantees**: a trial that ends well has stored what it was sent, stopped in order and left
//! nothing on the disk. Between trials the disk is synced, so that nobody pays for another's writes.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tempfile::TempDir;

use crate::bulk::client;
use crate::http;
use crate::load;
use crate::machine::Machine;
use crate::server::{self, Server};

/// The server's core in cases on two cores; what loads it takes the next one.
pub const CORE: usize = 0;
/// What every key begins with.
const KEY: &str = "rl_";

/// Options of every case.
#[derive(Debug, Args)]
pub struct Common {
    /// Where data directories and other files lie meanwhile [default: the system's temporary
    /// directory].
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keep the run under perf/runs/.
    #[arg(long)]
    pub save: bool,
}

impl Common {
    /// A directory for the files of one run.
    pub fn scratch(&self, case: &str) -> Result<TempDir> {
        let base = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        let directory = tempfile::Builder::new().prefix(&format!("perf-{case}-")).tempdir_in(&base);
        directory.with_context(|| format!("cannot write in {}", base.display()))
    }
}

/// Options of cases that repeat loads. What a case wants otherwise it says in `mut_arg`.
#[derive(Debug, Args)]
pub struct Loads {
    /// Seconds of each load; fractions are allowed.
    #[arg(long, default_value_t = 10.0, value_parser = load::seconds)]
    pub seconds: f64,
    /// How often everything is done.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seed of everything that is random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub common: Common,
}

impl Loads {
    /// Length of a load.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The rounds from 1, each announced as it begins.
    pub fn rounds(&self) -> impl Iterator<Item = u32> {
        let all = self.rounds;
        (1..=all).inspect(move |round| eprintln!("round {round} of {all}"))
    }
}

/// What a case begins with.
#[derive(Debug)]
pub struct Lab {
    /// Where it runs.
    pub machine: Machine,
    binary: PathBuf,
    scratch: TempDir,
    core: Option<usize>,
}

impl Lab {
    /// For servers and clients that share all cores.
    pub fn open(case: &str, common: &Common) -> Result<Lab> {
        let (machine, binary) = (Machine::read(), server::binary()?);
        Ok(Lab { machine, binary, scratch: common.scratch(case)?, core: None })
    }

    /// For servers on [`CORE`]; this process, and what it starts otherwise, gets the next one.
    pub fn on_two_cores(case: &str, common: &Common) -> Result<Lab> {
        let lab = Lab { core: Some(CORE), ..Lab::open(case, common)? };
        let cores = lab.machine.cores;
        ensure!(cores >= 2, "the case needs 2 cores, this machine gives {cores}");
        load::pin(CORE + 1)?;
        Ok(lab)
    }

    /// A server on an empty directory; `settings` are variables of its environment.
    pub fn start(&self, settings: &[(&str, &str)]) -> Result<Trial> {
        Trial::start(&self.binary, &self.scratch.path().join("data"), self.core, settings)
    }

    /// The same with keys, beside the one without: every request needs one there. Gives `count`
    /// write keys of a tenant.
    pub fn start_with_keys(
        &self,
        count: usize,
        settings: &[(&str, &str)],
    ) -> Result<(Trial, Vec<String>)> {
        let data = self.scratch.path().join("data-with-keys");
        let create = |scope: &[&str]| create_key(&self.binary, &data, scope);
        let admin = create(&["admin"])?;
        let write = (0..count).map(|_| create(&["write", "--tenant", "lab"]));
        let write = write.collect::<Result<_>>()?;
        let trial = Trial::start(&self.binary, &data, self.core, settings)?;
        Ok((Trial { key: Some(admin), ..trial }, write))
    }
}

/// Makes a key in the directory of a server that does not run yet.
fn create_key(binary: &Path, data: &Path, scope: &[&str]) -> Result<String> {
    let output = Command::new(binary)
        .args(["keys", "create", "--data"])
        .arg(data)
        .arg("--scope")
        .args(scope)
        .output()
        .context("`ringlake keys create` did not start")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let key = said.lines().last().filter(|line| line.starts_with(KEY));
    let key = key.with_context(|| format!("no key was made: {output:?}"))?;
    Ok(key.to_owned())
}

/// Writes of the log, each with its sync.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Writes {
    count: f64,
    seconds: f64,
}

impl Writes {
    fn read(metrics: &str) -> Result<Writes> {
        let value = |name: &str| -> Result<f64> {
            let name = format!("db_operations_latency_seconds_{name}{{operation=\"log\"}} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
            Ok(line.with_context(|| format!("the metrics have no {name}"))?.parse()?)
        };
        Ok(Writes { count: value("count")?, seconds: value("sum")? })
    }

    /// How long one took on average since `earlier`, in milliseconds.
    pub fn milliseconds_since(&self, earlier: &Writes) -> f64 {
        1e3 * (self.seconds - earlier.seconds) / (self.count - earlier.count)
    }
}

/// A server that has stored nothing yet.
#[derive(Debug)]
pub struct Trial {
    /// The process.
    pub server: Server,
    data: PathBuf,
    /// An admin key, when there are keys.
    key: Option<String>,
}

impl Trial {
    /// Starts it on `data`, which must not exist, on one core when that is named; `settings` are
    /// variables of its environment.
    pub fn start(
        binary: &Path,
        data: &Path,
        core: Option<usize>,
        settings: &[(&str, &str)],
    ) -> Result<Trial> {
        let mut command = server::command(binary, data, core);
        command.envs(settings.iter().copied());
        Ok(Trial { server: Server::start(command)?, data: data.to_owned(), key: None })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Makes everything accepted visible to SQL.
    pub fn flush(&self) -> Result<()> {
        client::flush(self.address(), self.key.as_deref())
    }

    /// Moves everything accepted to Parquet, so that nothing is left to do for it.
    pub fn roll(&self) -> Result<()> {
        client::roll(self.address(), self.key.as_deref())
    }

    /// Makes everything accepted visible to SQL and counts it there.
    pub fn count(&self) -> Result<u64> {
        self.flush()?;
        client::count(self.address(), self.key.as_deref())
    }

    /// What the log has written since the server started, by its metrics.
    pub fn log_writes(&self) -> Result<Writes> {
        let bearer = |key| format!("Authorization: Bearer {key}\r\n");
        let headers = self.key.as_ref().map(bearer).unwrap_or_default();
        let answer = http::call(self.address(), "GET", "/metrics", &headers, "")?;
        ensure!(answer.status == 200, "/metrics was answered {}", answer.status);
        Writes::read(&answer.text())
    }

    /// Ends it, when it holds as many events as it should.
    pub fn end(self, stored: RangeInclusive<u64>) -> Result<()> {
        let count = self.count()?;
        let (least, most) = (stored.start(), stored.end());
        ensure!(
            stored.contains(&count),
            "{least} to {most} events were acknowledged, {count} are there"
        );
        let status = self.server.stop()?;
        ensure!(status.success(), "the server ended with {status}");
        fs::remove_dir_all(&self.data).context("cannot remove the data directory")?;
        rustix::fs::sync();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn writes_of_the_log_are_read_from_metrics() {
        let metrics = |count, sum| {
            format!(
                "# TYPE db_operations_latency_seconds histogram\n\
                 db_operations_latency_seconds_bucket{{operation=\"log\",le=\"+Inf\"}} {count}\n\
                 db_operations_latency_seconds_sum{{operation=\"flush\"}} 9\n\
                 db_operations_latency_seconds_sum{{operation=\"log\"}} {sum}\n\
                 db_operations_latency_seconds_count{{operation=\"log\"}} {count}\n"
            )
        };
        let earlier = Writes::read(&metrics(10, 0.5)).unwrap();
        let later = Writes::read(&metrics(30, 0.6)).unwrap();
        assert!((later.milliseconds_since(&earlier) - 5.0).abs() < 1e-9);
        assert!(Writes::read("").is_err());
    }
}
