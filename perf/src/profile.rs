//! Where the server of a case spends its time, or where its memory comes from, as one SVG.
//!
//! Linux' `perf` is attached to every server that the case starts. `flame` samples the processor's
//! clock. `heap` samples page faults, the moments at which the process becomes larger: the server's
//! allocator is part of the binary, so that tools which put themselves in front of `malloc` see
//! nothing of it.

mod flame;

use std::fs::File;
use std::io::Write as _;
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
    /// As Linux' `perf` is told. Faults are counted out: at so many a second, those of a moment in
    /// which the process grows fast would weigh less than others.
    fn options(self) -> &'static str {
        match self {
            What::Time => "--event cpu-clock --freq 199",
            What::Memory => "--event page-faults --count 16",
        }
    }

    /// What a sample stands for.
    fn sample(self) -> &'static str {
        match self {
            What::Time => "time on a processor, 199 samples a second",
            What::Memory => "memory touched for the first time, a sample every 16 page faults",
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
    ensure!(
        !options.case.iter().any(|argument| argument == "--save"),
        "a case that is sampled is slower: its figures are not to be kept"
    );
    let cannot_write = || format!("cannot write {}", options.output.display());
    // Before the case takes its minutes.
    let mut picture = File::create(&options.output).with_context(cannot_write)?;
    let scratch = tempfile::Builder::new().prefix("perf-profile-").tempdir()?;
    let status = Command::new(std::env::current_exe()?)
        .args(&options.case)
        .env(server::SAMPLED, what.options())
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
        "nothing was sampled: does the case start a server, and may this user sample \
         (sysctl kernel.perf_event_paranoid)?"
    );
    let title = format!("{}: the server through {}", what.sample(), options.case.join(" "));
    picture.write_all(tree.svg(&title).as_bytes()).with_context(cannot_write)?;
    println!("{} samples in {}", tree.samples(), options.output.display());
    Ok(())
}
