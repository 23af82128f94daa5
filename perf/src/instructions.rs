//! Instructions that an event costs in decode, ring, shard and log, beside those that the repository
//! holds.
//!
//! **Guarantees**: the work is the same each time: seeded events, one thread, a first pass that is not
//! counted, a fixed number of calls. callgrind counts what runs between the call of [`counted`] and its
//! return, so that neither the clock nor what else the machine does plays a part: two runs differ by
//! less than a percent, hash seeds, addresses and the kind of the disk included.
//!
//! **Not guaranteed**: that fewer instructions take less time. Misses of the caches, system calls and
//! waiting are not counted. Another compiler or C library counts otherwise: then nothing is judged.
//!
//! **Algorithm**: this program starts itself under `valgrind --tool=callgrind` for each piece of work,
//! which collects inside of [`counted`] only. Code that chooses by processor feature sees AVX2 at
//! most, on every machine that has it.
//!
//! | module | is |
//! |---|---|
//! | [`work`] | what is counted |

mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use self::work::Work;
use crate::bulk::count_as_f64;
use crate::report::{aligned, number};

/// Growth of one of the counts that fails, in percent.
const GROWTH_MAX: f64 = 3.0;
/// As callgrind names the function.
const COUNTED: &str = "perf::instructions::counted";
/// Of the build that CI counts: others choose other features.
const RECORD: &str = "just instructions --record";

/// `perf instructions`
#[derive(Debug, Args)]
pub struct Options {
    /// Write the counts into perf/instructions.json instead of comparing them with it.
    #[arg(long)]
    record: bool,
    /// Keep what callgrind wrote in this folder, a file for each piece of work, for
    /// `callgrind_annotate` and KCachegrind.
    #[arg(long)]
    profiles: Option<PathBuf>,
}

/// Instructions an event, by the name of the work.
type Counts = BTreeMap<String, f64>;

/// Counts, and compares or records.
pub fn run(options: &Options) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "counts of a debug build mean nothing: use --release");
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    ensure!(
        found.is_ok_and(|status| status.success()),
        "valgrind is not installed: apt-get install valgrind"
    );
    let scratch = tempfile::Builder::new().prefix("perf-instructions-").tempdir()?;
    let folder = options.profiles.as_deref().unwrap_or(scratch.path());
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let instructions = count(folder)?;
    let conditions = conditions()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    if options.record {
        let recorded = json!({ "conditions": conditions, "instructions": instructions });
        fs::write(&file, serde_json::to_string_pretty(&recorded)? + "\n")?;
        println!("recorded in {}", file.display());
        return Ok(());
    }
    let text = fs::read_to_string(&file)
        .with_context(|| format!("no counts in {}: {RECORD}", file.display()))?;
    let recorded: Value = serde_json::from_str(&text)?;
    let before = recorded["conditions"].as_str().context("the file says no conditions")?;
    let (table, grown) =
        compare(&serde_json::from_value(recorded["instructions"].clone())?, &instructions);
    println!("instructions an event; recorded with {before}\n");
    print!("{table}");
    if before != conditions {
        println!("\nnot judged, because this is {conditions}; to record anew: {RECORD}");
        return Ok(());
    }
    ensure!(
        grown.is_empty(),
        "grown by more than {GROWTH_MAX} %, or not on both sides: {}. When that is meant: {RECORD}",
        grown.join("; "),
    );
    Ok(())
}

/// `perf instructions-counted`, the process that callgrind runs.
#[derive(Debug, Args)]
pub struct Counted {
    /// Name of the work.
    work: String,
}

/// Runs all work under callgrind, whose files go into `folder`.
fn count(folder: &Path) -> Result<Counts> {
    let mut counts = Counts::new();
    for (name, _) in work::ALL {
        let file = folder.join(format!("{name}.callgrind"));
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
            .arg(format!("--toggle-collect={COUNTED}"))
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(std::env::current_exe()?)
            .args(["instructions-counted", name])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "{name} under callgrind ended with {}", output.status);
        let events: f64 = String::from_utf8(output.stdout)?.trim().parse()?;
        // More digits would say what differs between two runs.
        counts.insert(name.to_owned(), (collected(&file)? / events * 10.0).round() / 10.0);
    }
    Ok(counts)
}

/// What callgrind has collected.
fn collected(file: &Path) -> Result<f64> {
    let text = fs::read_to_string(file).context("callgrind wrote nothing")?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.context("a file of callgrind has a total")?.trim().parse()?;
    ensure!(total > 0, "callgrind did not see {COUNTED}");
    Ok(count_as_f64(total))
}

/// Does a piece of work twice, the second time to be counted, and says what to divide the count by.
pub fn be_counted(options: &Counted) -> Result<()> {
    let named = work::ALL.iter().find(|(name, _)| *name == options.work);
    let (_, prepare) = named.with_context(|| format!("no work is called {}", options.work))?;
    let Work { events, mut once } = prepare()?;
    once()?;
    counted(&mut *once)?;
    println!("{events}");
    Ok(())
}

/// What runs in here is counted; callgrind knows it by its name.
#[inline(never)]
fn counted(once: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let outcome = once();
    // A jump instead of a call would take the work out of this function.
    black_box(outcome)
}

/// What a count depends on besides the code.
fn conditions() -> Result<String> {
    let said = |program: &str, argument: &str| -> Result<String> {
        let output = Command::new(program).arg(argument).output();
        let output = output.with_context(|| format!("{program} did not start"))?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let rustc = said("rustc", "--version")?;
    let library = said("getconf", "GNU_LIBC_VERSION")?;
    #[cfg(target_arch = "x86_64")]
    let features = if std::is_x86_feature_detected!("avx2") { "with AVX2" } else { "without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let features = "";
    Ok(format!("{rustc}, {library}, {} {features}", std::env::consts::ARCH))
}

/// A line for each piece of work, and those that have grown too much or are on one side only.
fn compare(before: &Counts, now: &Counts) -> (String, Vec<String>) {
    let heads = ["work", "recorded", "now", "change", ""];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let mut grown = Vec::new();
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    for name in names {
        let of = |counts: &Counts| counts.get(name).copied().unwrap_or(f64::NAN);
        let (before, now) = (of(before), of(now));
        let change = 100.0 * (now / before - 1.0);
        let verdict = if change.is_nan() {
            "not on both sides"
        } else if change > GROWTH_MAX {
            "more"
        } else if change < -GROWTH_MAX {
            "fewer: record them, so that they stay"
        } else {
            "ok"
        };
        if change.is_nan() || change > GROWTH_MAX {
            grown.push(name.clone());
        }
        let cells = [number(before, 1), number(now, 1), format!("{change:+.2} %")];
        let mut row = vec![name.clone()];
        row.extend(cells);
        row.push(verdict.to_owned());
        rows.push(row);
    }
    (aligned(&rows), grown)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    fn counts(values: &[(&str, f64)]) -> Counts {
        values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn growth_beyond_the_bound_and_unknown_work_are_told() {
        let before = counts(&[("decode", 1_000.0), ("ring", 100.0), ("log", 50.0), ("gone", 1.0)]);
        let now = counts(&[("decode", 1_031.0), ("ring", 102.9), ("log", 40.0), ("new", 1.0)]);
        let (table, grown) = compare(&before, &now);
        assert_eq!(grown, ["decode", "gone", "new"], "{table}");
        let line = |name: &str| table.lines().find(|line| line.contains(name)).unwrap();
        assert!(line("ring").contains("+2.90 %") && line("ring").ends_with("ok"), "{table}");
        assert!(line("log").contains("-20.00 %  fewer"), "{table}");
        assert!(line("new").ends_with("not on both sides"), "{table}");
    }

    #[test]
    fn all_work_can_be_done_twice() {
        for (name, prepare) in work::ALL {
            let Work { events, mut once } = prepare().unwrap();
            assert!(events > 0, "{name}");
            once().unwrap();
            counted(&mut *once).unwrap();
        }
    }
}
