//! What cases have in common: their options, and a server on an empty data directory.
//!
//! **Guarantees**: a trial that ends well has stored what it was sent, stopped in order and left
//! nothing on the disk. Between trials the disk is synced, so that nobody pays for another's writes.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tempfile::TempDir;

use crate::bulk::client;
use crate::server::{self, Server};

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

/// A server that has stored nothing yet.
#[derive(Debug)]
pub struct Trial {
    /// The process.
    pub server: Server,
    data: PathBuf,
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
        Ok(Trial { server: Server::start(command)?, data: data.to_owned() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Makes everything accepted visible to SQL, and counts it there.
    pub fn count(&self) -> Result<u64> {
        client::flush(self.address())?;
        client::count(self.address())
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
