//! The query case: what SQL over HTTP costs beside DuckDB alone on the same Parquet files.
//!
//! **Guarantees**: both sides read the files of the same Delta version with as many threads and as
//! much memory, in turn, round by round, and each is as often the first as the other; before
//! anything is measured their answers are compared, line by line.
//!
//! **Not guaranteed**: that they read the same rows while it is measured. Ours has hot rows on top,
//! as a running server has; DuckDB alone knows nothing of them.
//!
//! **Disk**: about 50 bytes an event, twice while files are joined.

mod alone;
mod stream;
mod table;

use std::io::Read;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;

use self::alone::Alone;
pub use self::alone::Options as AloneOptions;
pub use self::alone::serve;
use self::table::Filled;
use crate::bulk::count_as_f64;
use crate::machine::Machine;
use crate::report::{Column, Report, number, verdict};
use crate::trial::Common;
use crate::{http, server};

/// The answer of DuckDB alone from which on a ratio is judged and not a difference.
const LONG_MS: f64 = 100.0;
const RATIO_MAX: f64 = 1.15;
const ADDED_MAX_MS: f64 = 5.0;
const STREAM_RATIO_MIN: f64 = 0.7;
const FIRST_MAX_MS: f64 = 100.0;

const OURS: &str = "ringlake";
const THEIRS: &str = "duckdb";
const MS: &str = "ms";
const ROWS_RATE: &str = "rows/s";
const FIRST: &str = "first ms";
const COLUMNS: [Column; 5] = [
    Column { name: MS, decimals: 1 },
    Column { name: "rows", decimals: 0 },
    Column { name: ROWS_RATE, decimals: 0 },
    Column { name: FIRST, decimals: 1 },
    Column { name: "peak MB", decimals: 0 },
];
/// The side of the whole table as Arrow.
const ALL: &str = "all rows";

/// `perf query`
#[derive(Debug, Args)]
pub struct Options {
    /// Events in the table, in millions; fractions are allowed.
    #[arg(long, default_value_t = 20.0, value_parser = millions)]
    millions: f64,
    /// Seed of the generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(..u64::MAX))]
    seed: u64,
    /// How often each side is asked each question, in turn.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// DuckDB's threads, on both sides.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    #[command(flatten)]
    common: Common,
}

fn millions(text: &str) -> Result<f64, String> {
    let millions: f64 = text.parse().map_err(|_| format!("{text} is not a number of millions"))?;
    let sensible = (0.001..=10_000.0).contains(&millions);
    sensible.then_some(millions).ok_or_else(|| format!("{text} is not between 0.001 and 10000"))
}

/// Runs the case and prints it.
pub fn run(options: &Options) -> Result<()> {
    let machine = Machine::read();
    let binary = server::binary()?;
    let scratch = options.common.scratch("query")?;
    let data = scratch.path().join("data");
    let filled = Filled::make(&binary, &data, options.millions, options.seed)?;
    let server = table::serve(&binary, &data, options.threads)?;
    let mut alone = Alone::start(options.threads, &filled.files)?;
    let questions = questions(server.address(), &filled)?;
    for (name, sql) in &questions {
        let ours = csv(server.address(), sql)?;
        let theirs = alone.csv(sql, &scratch.path().join("answer.csv"))?;
        ensure!(ours.lines().eq(theirs.lines()), "{name}: ringlake says\n{ours}DuckDB\n{theirs}");
    }
    let hot = table::heat(server.address(), options.seed)?;

    let title = format!(
        "{} events in Parquet (files: {}), {hot} hot ones on top, DuckDB's threads: {}",
        number(count_as_f64(filled.events), 0),
        filled.files.len(),
        options.threads,
    );
    let mut report = Report::new("query", title, &COLUMNS);
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for (name, sql) in &questions {
            // Whoever goes first finds the caches cold.
            let sides = if round % 2 == 1 { [OURS, THEIRS] } else { [THEIRS, OURS] };
            for side in sides.into_iter().chain(sides.into_iter().rev()) {
                let values = match side {
                    OURS => ours(server.address(), sql)?,
                    _ => alone.rows(sql)?,
                };
                report.add(&format!("{side} {name}"), round, &values);
            }
        }
        let streamed = stream::all(&server)?;
        ensure!(streamed.rows == filled.events + hot, "{} rows were streamed", streamed.rows);
        report.add(&format!("{OURS} {ALL}"), round, &streamed.values());
        report.add(&format!("{THEIRS} {ALL}"), round, &alone.arrow("SELECT * FROM events")?);
    }
    for (name, _) in &questions {
        judge(&mut report, name);
    }
    judge_stream(&mut report);
    let status = server.stop()?;
    ensure!(status.success(), "the server ended with {status}");
    report.finish(&machine, options.common.save)
}

/// Names and statements.
fn questions(address: SocketAddr, filled: &Filled) -> Result<Vec<(&'static str, String)>> {
    let busiest = "SELECT anonymous_id FROM events WHERE anonymous_id IS NOT NULL \
                   GROUP BY anonymous_id ORDER BY count(*) DESC, anonymous_id LIMIT 1";
    let visitor = csv(address, busiest)?;
    let visitor = visitor.lines().nth(1).unwrap_or_default();
    let (from, to) = filled.middle();
    Ok(vec![
        (
            "count",
            format!(
                "SELECT count(*) AS events FROM events \
                 WHERE timestamp >= make_timestamp({from}) AND timestamp < make_timestamp({to})",
            ),
        ),
        (
            "visitors",
            "SELECT strftime(date_trunc('day', timestamp), '%Y-%m-%d') AS day, \
             count(DISTINCT coalesce(user_id, anonymous_id)) AS visitors \
             FROM events GROUP BY day ORDER BY day"
                .to_owned(),
        ),
        (
            "urls",
            "SELECT url, count(*) AS events FROM events WHERE url IS NOT NULL \
             GROUP BY url ORDER BY events DESC, url LIMIT 20"
                .to_owned(),
        ),
        (
            "history",
            format!(
                "SELECT epoch_us(timestamp) AS moment, type, event, url FROM events \
                 WHERE anonymous_id = '{visitor}' ORDER BY moment, type, event, url",
            ),
        ),
    ])
}

/// One answer as CSV.
fn csv(address: SocketAddr, sql: &str) -> Result<String> {
    let (status, mut body) = http::query(address, sql, "text/csv")?;
    let mut text = String::new();
    body.read_to_string(&mut text)?;
    ensure!(status == 200, "{sql} was answered {status} {text}");
    Ok(text)
}

/// Asks once; the values in the order of [`COLUMNS`].
fn ours(address: SocketAddr, sql: &str) -> Result<[f64; 5]> {
    let began = Instant::now();
    let text = csv(address, sql)?;
    let milliseconds = began.elapsed().as_secs_f64() * 1e3;
    let rows = text.lines().count().saturating_sub(1);
    Ok([milliseconds, count_as_f64(rows as u64), f64::NAN, f64::NAN, f64::NAN])
}

fn judge(report: &mut Report, name: &str) {
    let of = |side: &str| report.median(&format!("{side} {name}"), MS);
    let (ours, theirs) = (of(OURS), of(THEIRS));
    let note = if theirs > LONG_MS {
        let limit = format!("at most {RATIO_MAX} of DuckDB alone");
        let ratio = ours / theirs;
        verdict(&format!("{name}, ratio"), &number(ratio, 2), &limit, ratio <= RATIO_MAX)
    } else {
        let limit = format!("at most {ADDED_MAX_MS} ms more than DuckDB alone");
        let added = ours - theirs;
        verdict(&format!("{name}, added ms"), &number(added, 1), &limit, added <= ADDED_MAX_MS)
    };
    report.note(note);
}

fn judge_stream(report: &mut Report) {
    let (ours, theirs) = (format!("{OURS} {ALL}"), format!("{THEIRS} {ALL}"));
    let ratio = report.median(&ours, ROWS_RATE) / report.median(&theirs, ROWS_RATE);
    let limit = format!("at least {STREAM_RATIO_MIN} of DuckDB's export in its process");
    let holds = ratio >= STREAM_RATIO_MIN;
    report.note(verdict("all rows, ratio of rows/s", &number(ratio, 2), &limit, holds));
    let first = report.median(&ours, FIRST);
    let limit = format!("under {FIRST_MAX_MS} ms");
    let holds = first < FIRST_MAX_MS;
    report.note(verdict("all rows, first batch after ms", &number(first, 1), &limit, holds));
}
