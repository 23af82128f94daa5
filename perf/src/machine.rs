//! What the figures were measured on: processor, cores, kernel, commit, date.
//!
//! A figure without these is not a result. Everything is read from the running system; what
//! cannot be read is "unknown", because a missing detail must not lose a run.

use std::fs;
use std::process::Command;
use std::thread;

/// The machine and the state of the tree.
#[derive(Debug)]
pub struct Machine {
    /// Processor model as the kernel names it.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Kernel name and release.
    pub kernel: String,
    /// Short commit, with `-dirty` when files differ from it.
    pub commit: String,
    /// UTC day, `YYYY-MM-DD`.
    pub date: String,
}

impl Machine {
    /// Reads all of it.
    #[must_use]
    pub fn read() -> Machine {
        let here = env!("CARGO_MANIFEST_DIR");
        let commit = output("git", &["-C", here, "describe", "--always", "--dirty", "--exclude=*"]);
        Machine {
            cpu: cpu_model().unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism().map_or(0, usize::from),
            kernel: output("uname", &["-sr"]).unwrap_or_else(|| "unknown".to_owned()),
            commit: commit.unwrap_or_else(|| "unknown".to_owned()),
            date: output("date", &["-u", "+%F"]).unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// One line for the head of a table.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}, {} cores, {}, commit {}", self.cpu, self.cores, self.kernel, self.commit)
    }
}

fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
