//! Where the server of a case spends its time, or where its memory comes from, as one SVG.
//!
//! Linux' `perf` is attached to every server that the case starts. `flame` samples the processor's
//! clock. `heap` samples page faults, the moments at which the process becomes larger: the server's
//! allocator is part of the binary, so that tools which put themselves in front of `malloc` see
//! nothing of it.

mod flame;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::flame::Tree;
use crate::server;

/// `perf flame` and `perf heap`
#[derive(Debug, Args)]
pub struct Options {
    /// The picture.
    #[arg(long, default_value = "profile.svg")]
    output: PathBuf,
    /// The case, with its options.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    case: Vec<String>,
}

/// What is sampled.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Time on a processor.
    Time,
    /// Pages that are touched for the first time.
    Memory,
}

impl What {
    fn event(self) -> &'static str {
        match self {
            What::Time => "cpu-clock",
            What::Memory => "page-faults",
        }
    }
}

/// Runs the case with servers that are sampled, and draws.
pub fn run(options: &Options, what: What) -> Result<()> {
    let found = Command::new("perf").arg("--version").stdout(Stdio::null()).status();
    ensure!(
        found.is_ok_and(|status| status.success()),
        "Linux' perf is not installed: apt-get install linux-perf"
    );
    let scratch = tempfile::Builder::new().prefix("perf-profile-").tempdir()?;
    let status = Command::new(std::env::current_exe()?)
        .args(&options.case)
        .env(server::SAMPLED, what.event())
        .env(server::SAMPLES, scratch.path())
        .status()?;
    ensure!(status.success(), "{} ended with {status}", options.case.join(" "));
    let mut tree = Tree::default();
    for entry in std::fs::read_dir(scratch.path())? {
        let output = Command::new("perf")
            // The names of inlined calls would take perf minutes.
            .args(["script", "--no-inline", "--fields", "ip,sym", "--input"])
            .arg(entry?.path())
            .stderr(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "perf script ended with {}", output.status);
        tree.read(&String::from_utf8_lossy(&output.stdout));
    }
    ensure!(
        tree.samples() > 0,
        "nothing was sampled: may this user sample? (kernel.perf_event_paranoid)"
    );
    let title = format!("{} of the server through {}", what.event(), options.case.join(" "));
    std::fs::write(&options.output, tree.svg(&title))
        .with_context(|| format!("cannot write {}", options.output.display()))?;
    println!("{} samples in {}", tree.samples(), options.output.display());
    Ok(())
}
