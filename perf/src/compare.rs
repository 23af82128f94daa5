//! Two commits in one case, round by round in turn, with an interval for each ratio.
//!
//! **Guarantees**: both are built from a checkout of their own with the same settings, and run under
//! the same client, that of this program. The second round begins with the commit that the first one
//! ended with, and so on, so that a drift of the machine meets both. What is wrong with the command is
//! said before anything is built. The checkout and what else lies in the temporary directory is gone
//! in the end, unless a signal ends this program.
//!
//! **Not guaranteed**: that a case speaks of the change. Sides that are not ringlake are compared as
//! well: when those differ, the machine did.
//!
//! **Algorithm**: the mean of the logarithms of the rounds' ratios, and its 95 % interval by
//! Student's t.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser as _};
use serde_json::Value;

use crate::bulk::count_as_f64;
use crate::machine::Machine;
use crate::page::runs;
use crate::report::{aligned, median, number};
use crate::{Cli, report, server};

/// 97.5 % points of Student's t for 1, 2, … degrees of freedom; beyond them the last one.
const STUDENT: [f64; 30] = [
    12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
    2.12, 2.11, 2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04,
];
/// What this command sets itself.
const OURS: [&str; 2] = ["--rounds", "--save"];

/// `perf compare`
#[derive(Debug, Args)]
pub struct Options {
    /// A commit.
    before: String,
    /// The commit that is compared with it.
    after: String,
    /// How often each of them runs the case.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..))]
    rounds: u32,
    /// Behind `--`: the case, with its options.
    #[arg(last = true, required = true)]
    case: Vec<String>,
}

/// A round of a commit: side, column, value.
type Values = Vec<(String, String, f64)>;

/// Builds both, runs them in turn and prints what differs.
pub fn run(options: &Options) -> Result<()> {
    check(&options.case)?;
    let commits = [&options.before, &options.after].map(|name| resolve(name));
    let [before, after] = commits;
    let (before, after) = (before?, after?);
    ensure!(before != after, "{} and {} are the same commit", options.before, options.after);
    if !git(&["status", "--porcelain"])?.is_empty() {
        eprintln!("what is not committed is not compared");
    }
    let scratch = tempfile::Builder::new().prefix("perf-compare-").tempdir()?;
    let tree = scratch.path().join("tree");
    let name = tree.to_str().context("the temporary directory's name is not text")?;
    git(&["clone", "--quiet", "--shared", "--no-checkout", ".", name])?;
    let before = build(&before, &tree, &scratch.path().join("before"))?;
    let after = build(&after, &tree, &scratch.path().join("after"))?;

    let csv = scratch.path().join("raw.csv");
    let mut rounds: Vec<(Values, Values)> = Vec::new();
    for round in 0..options.rounds {
        let once = |name: &str, binary: &Path| {
            eprintln!("round {} of {}: {name}", round + 1, options.rounds);
            once(&options.case, binary, &csv)
        };
        if round % 2 == 0 {
            let first = once(&options.before, &before)?;
            rounds.push((first, once(&options.after, &after)?));
        } else {
            let first = once(&options.after, &after)?;
            rounds.push((once(&options.before, &before)?, first));
        }
    }
    println!(
        "before is {}, after is {}: {}",
        options.before,
        options.after,
        options.case.join(" ")
    );
    println!("{}, {} rounds", Machine::read().line(), options.rounds);
    println!("medians; ratio is after / before, from … to its 95 % interval\n");
    print!("{}", table(&rounds));
    Ok(())
}

/// Says what is wrong with a case before minutes go into building.
fn check(case: &[String]) -> Result<()> {
    for option in OURS {
        let clash = case.iter().any(|argument| argument.starts_with(option));
        ensure!(!clash, "{option} is not an option of the case here");
    }
    let command = ["perf"].into_iter().chain(case.iter().map(String::as_str));
    let measures_a_server = Cli::try_parse_from(command)?.case.has_rounds_of_a_server();
    ensure!(measures_a_server, "{} has no rounds that measure a server", case.join(" "));
    Ok(())
}

/// The short name of a commit.
fn resolve(name: &str) -> Result<String> {
    git(&["rev-parse", "--quiet", "--short", "--verify", &format!("{name}^{{commit}}")])
        .with_context(|| format!("{name} is not a commit"))
}

/// What git says in the repository of this program.
fn git(arguments: &[&str]) -> Result<String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new("git")
        .args(arguments)
        .current_dir(top)
        .stderr(Stdio::inherit())
        .output()
        .context("git did not start")?;
    ensure!(output.status.success(), "git {} ended with {}", arguments.join(" "), output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The server of a commit, built in `tree` with this program's target directory.
///
/// cargo calls a package by its place in the workspace, not by that of the checkout, and believes the
/// times of its files. Therefore the tree is new, so that nothing in it is older than what was built
/// before; it lies outside of the target directory, where cargo would look for the files of the first
/// checkout; and our packages have another profile there, so that ours are not replaced by theirs.
fn build(commit: &str, tree: &Path, copy: &Path) -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let release = program.parent().context("this program lies nowhere")?;
    let target = release.parent().context("this program lies in no target directory")?;
    eprintln!("building {commit}");
    done(Command::new("git").args(["checkout", "--quiet", "--detach", commit]), tree)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["build", "--release", "--locked", "--package", "ringlake"]);
    for package in packages(&cargo, tree)? {
        // The same code without lines of it.
        command.args(["--config", &format!("profile.release.package.{package}.debug=false")]);
    }
    // Of the dependencies nothing is built twice; the next build of cargo brings our binary back.
    done(command.arg("--target-dir").arg(target), tree)?;
    fs::copy(release.join("ringlake"), copy)?;
    Ok(copy.to_owned())
}

/// Names of the packages of the workspace in `tree`.
fn packages(cargo: &OsStr, tree: &Path) -> Result<Vec<String>> {
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(tree)
        .output()?;
    ensure!(output.status.success(), "cargo metadata ended with {}", output.status);
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("a workspace has packages")?;
    let names = packages.iter().filter_map(|package| package["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

fn done(command: &mut Command, directory: &Path) -> Result<()> {
    let status = command.current_dir(directory).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

/// One round of the case with one server.
fn once(case: &[String], binary: &Path, csv: &Path) -> Result<Values> {
    let output = Command::new(std::env::current_exe()?)
        .args(case)
        .args(["--rounds", "1"])
        .env(server::BINARY, binary)
        .env(report::CSV, csv)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} ended with {}: {said}", case.join(" "), output.status);
    let text = fs::read_to_string(csv).context("the case has no table of rounds")?;
    fs::remove_file(csv)?;
    let (columns, lines) = runs::table(&text);
    let mut values = Vec::new();
    for (side, cells) in lines {
        for (column, cell) in columns.iter().zip(cells) {
            if let Some(value) = cell.filter(|value| *value > 0.0) {
                values.push((side.clone(), column.clone(), value));
            }
        }
    }
    Ok(values)
}

fn table(rounds: &[(Values, Values)]) -> String {
    let heads = ["side", "column", "before", "after", "ratio", "from", "to", ""];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let Some((first, _)) = rounds.first() else { return String::new() };
    for (side, column, _) in first {
        let of = |values: &Values| {
            let mut found = values.iter().filter(|value| value.0 == *side && value.1 == *column);
            found.next().map(|value| value.2)
        };
        let pairs: Vec<(f64, f64)> =
            rounds.iter().filter_map(|(before, after)| Some((of(before)?, of(after)?))).collect();
        let Some((ratio, from, to)) = interval(&pairs) else { continue };
        let verdict = if from > 1.0 || to < 1.0 { "differs" } else { "no difference seen" };
        let middle = |side: fn(&(f64, f64)) -> f64| {
            number(median(&pairs.iter().map(side).collect::<Vec<f64>>()), 2)
        };
        let mut row =
            vec![side.clone(), column.clone(), middle(|pair| pair.0), middle(|pair| pair.1)];
        row.extend([ratio, from, to].map(|value| number(value, 3)));
        row.push(verdict.to_owned());
        rows.push(row);
    }
    aligned(&rows)
}

/// The mean ratio of the pairs, second by first, and its 95 % interval; of two pairs at least.
fn interval(pairs: &[(f64, f64)]) -> Option<(f64, f64, f64)> {
    let logs: Vec<f64> = pairs.iter().map(|(before, after)| (after / before).ln()).collect();
    let freedom = logs.len().checked_sub(1).filter(|freedom| *freedom > 0)?;
    let count = count_as_f64(logs.len() as u64);
    let mean = logs.iter().sum::<f64>() / count;
    let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
    let error = (squares / count_as_f64(freedom as u64) / count).sqrt();
    let reach = STUDENT[freedom.min(STUDENT.len()) - 1] * error;
    Some((mean.exp(), (mean - reach).exp(), (mean + reach).exp()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn an_interval_holds_the_ratio_and_is_as_wide_as_the_rounds_differ() {
        let (ratio, from, to) = interval(&[(100.0, 110.0), (200.0, 220.0), (50.0, 55.0)]).unwrap();
        assert!((ratio - 1.1).abs() < 1e-9 && to - from < 1e-9, "{ratio} in {from} to {to}");
        let (_, from, to) = interval(&[(100.0, 90.0), (100.0, 110.0), (100.0, 101.0)]).unwrap();
        assert!(from < 1.0 && to > 1.0, "{from} to {to}");
        assert_eq!(interval(&[(1.0, 2.0)]), None);
    }

    #[test]
    fn a_difference_is_said_and_noise_is_not() {
        let round = |rate: f64, memory: f64| {
            vec![
                ("ours".to_owned(), "events/s".to_owned(), rate),
                ("ours".to_owned(), "peak MB".to_owned(), memory),
            ]
        };
        let rounds = [
            (round(100.0, 50.0), round(120.0, 51.0)),
            (round(101.0, 52.0), round(121.0, 50.0)),
            (round(99.0, 51.0), round(119.0, 52.0)),
        ];
        let table = table(&rounds);
        let line = |column: &str| table.lines().find(|line| line.contains(column)).unwrap();
        assert!(line("events/s").ends_with("differs"), "{table}");
        assert!(line("peak MB").ends_with("no difference seen"), "{table}");
    }
}
