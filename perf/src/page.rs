//! One HTML page over the saved runs: bars, latency curves, time lines, verdicts.
//!
//! **Guarantees**: the page is one file that loads nothing; every figure in it is that of a saved
//! run, which it names. The newest run of a case is shown whole, earlier ones as a line through
//! their medians.
//!
//! | module | is |
//! |---|---|
//! | [`runs`] | what lies in `perf/runs` |
//! | [`svg`] | bars and lines |

pub mod runs;
mod svg;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::runs::Run;
pub use self::svg::escaped;
use self::svg::{Bar, Scale, Series};
use crate::bulk::count_as_f64;

/// Columns that are drawn besides the rate.
const DRAWN: [&str; 6] =
    ["ratio", "events/s a core", "p50 ms", "p99 ms", "cpu us/event", "peak MB"];
/// The case whose rounds are moments.
const TIMELINE: &str = "soak";

/// `perf report`
#[derive(Debug, Args)]
pub struct Options {
    /// The page [default: perf/runs/report.html].
    #[arg(long)]
    output: Option<PathBuf>,
    /// Where the runs lie [default: perf/runs].
    #[arg(long)]
    runs: Option<PathBuf>,
}

/// Writes the page.
pub fn run(options: &Options) -> Result<()> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("runs");
    let folder = options.runs.clone().unwrap_or(ours);
    let output = options.output.clone().unwrap_or_else(|| folder.join("report.html"));
    let runs = runs::all(&folder)?;
    ensure!(!runs.is_empty(), "{} holds no runs", folder.display());
    fs::write(&output, page(&runs))
        .with_context(|| format!("cannot write {}", output.display()))?;
    println!("{} runs in {}", runs.len(), output.display());
    Ok(())
}

fn page(runs: &[Run]) -> String {
    let mut cases: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        cases.entry(&run.case).or_default().push(run);
    }
    let mut page = String::from(HEAD);
    page.push_str("<h1>The perf lab of ringlake</h1>\n<nav>");
    for case in cases.keys() {
        let _ = write!(page, "<a href=\"#{0}\">{0}</a> ", escaped(case));
    }
    page.push_str("</nav>\n");
    for (case, runs) in &cases {
        let _ = writeln!(page, "<section id=\"{0}\"><h2>{0}</h2>", escaped(case));
        if let Some(newest) = runs.last() {
            section(&mut page, newest);
        }
        history(&mut page, runs);
        page.push_str("</section>\n");
    }
    page.push_str("</main></body></html>\n");
    page
}

/// The newest run of a case.
fn section(page: &mut String, run: &Run) {
    let _ = writeln!(
        page,
        "<p>{}<br><code>{}</code><br>{}</p>",
        escaped(&run.title),
        escaped(&run.command),
        escaped(&run.machine),
    );
    if !run.verdicts.is_empty() {
        page.push_str("<ul>");
        for verdict in &run.verdicts {
            let class = if verdict.contains(", ok (") { "ok" } else { "missed" };
            let _ = write!(page, "<li class=\"{class}\">{}</li>", escaped(verdict));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("<div class=\"charts\">");
    if run.case == TIMELINE {
        for (index, column) in run.columns.iter().enumerate() {
            page.push_str(&svg::lines(column, &timeline(run, index), Scale::Linear, "window"));
        }
    } else {
        for index in drawn(run) {
            page.push_str(&svg::bars(&run.columns[index], &bars(run, index)));
        }
    }
    if !run.curves.is_empty() {
        let title = "latency by percentile, ms";
        page.push_str(&svg::lines(title, &run.curves, Scale::Percentiles, "percentile"));
    }
    page.push_str("</div>\n");
    let _ = writeln!(
        page,
        "<details><summary>{}: all of it</summary><pre>{}</pre></details>",
        escaped(&run.name),
        escaped(&run.text),
    );
}

/// The column of the rate, and those that are drawn in every case that has them.
fn drawn(run: &Run) -> Vec<usize> {
    let full = |index: &usize| run.sides().iter().all(|side| run.median(side, *index).is_some());
    let all = || 0..run.columns.len();
    let rate = all().find(|index| run.columns[*index].contains("/s") && full(index));
    let first = rate.or_else(|| all().find(full));
    let others = all().filter(|index| DRAWN.contains(&run.columns[*index].as_str()));
    first.into_iter().chain(others.filter(|index| Some(*index) != first)).collect()
}

fn bars(run: &Run, index: usize) -> Vec<Bar> {
    let bar = |side: &String| {
        let (least, most) = run.range(side, index)?;
        Some(Bar { name: side.clone(), value: run.median(side, index)?, least, most })
    };
    run.sides().iter().filter_map(bar).collect()
}

fn timeline(run: &Run, index: usize) -> Vec<Series> {
    let series = |side: &String| {
        let values = run.values(side, index);
        let points = values.iter().enumerate();
        let points = points.map(|(at, value)| (count_as_f64(at as u64 + 1), *value)).collect();
        Series { name: side.clone(), points }
    };
    run.sides().iter().map(series).collect()
}

/// All runs of a case when there are several, and their medians.
fn history(page: &mut String, runs: &[&Run]) {
    let Some(newest) = runs.last().filter(|_| runs.len() > 1) else { return };
    if let Some(index) = drawn(newest).first() {
        let column = &newest.columns[*index];
        let all: Vec<Series> =
            newest.sides().into_iter().map(|side| medians(runs, side, column)).collect();
        let title = format!("{column}, medians of all runs");
        page.push_str(&svg::lines(&title, &all, Scale::Linear, "run"));
    }
    let names: Vec<String> = runs.iter().map(|run| escaped(&run.name)).collect();
    let _ = writeln!(page, "<p class=\"small\">runs: {}</p>", names.join(", "));
}

/// One side's medians, run by run.
fn medians(runs: &[&Run], side: String, column: &str) -> Series {
    let mut points = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let index = run.columns.iter().position(|name| name == column);
        if let Some(median) = index.and_then(|index| run.median(&side, index)) {
            points.push((count_as_f64(at as u64 + 1), median));
        }
    }
    Series { name: side, points }
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ringlake: the perf lab</title>
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<style>
:root { color-scheme: light dark; --ink: #1d2530; --soft: #667080; --line: #d4d9e0; --back: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e9f0; --soft: #98a2b3; --line: #333c4a; --back: #12161c; }
}
body { background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 24px; }
nav a { margin-right: 12px; } a { color: #0072b2; }
section { border-top: 1px solid var(--line); margin-top: 32px; }
.charts { display: flex; flex-wrap: wrap; gap: 16px; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg .soft { fill: var(--soft); } svg .grid { stroke: var(--line); }
ul { list-style: none; padding: 0; } li.ok::before { content: \"\\2713  \"; color: #009e73; }
li.missed::before { content: \"\\2717  \"; color: #d55e00; }
pre { overflow-x: auto; font-size: 12px; } .small { color: var(--soft); font-size: 12px; }
</style></head><body><main>
";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use super::*;

    #[test]
    fn the_page_shows_every_kept_run_and_loads_nothing() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("runs");
        let runs = runs::all(&folder).unwrap();
        assert!(runs.iter().any(|run| run.case == "bulk"));
        let page = page(&runs);
        for run in &runs {
            assert!(page.contains(&run.name), "{}", run.name);
        }
        for outside in ["<script", "src=", "http://", "https://", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN"));
    }
}
