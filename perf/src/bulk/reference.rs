//! The reference of the bulk case: DuckDB's own `COPY (read_json …) TO`, sorted, zstd.
//!
//! It runs in a process of its own, so that its memory can be read and neither side inherits the
//! other's heap. Timed from before the statement to after it, in that process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use duckdb::Connection;
use serde_json::{Value, json};

use crate::server::memory;

/// A thread for each core of the machine that the figures are of.
const THREADS: u32 = 2;
/// Enough that the sort never spills: the reference is to be as fast as it can.
const MEMORY_LIMIT: &str = "4GB";

/// `perf duckdb-copy`
#[derive(Debug, Args)]
pub struct Options {
    /// NDJSON to read.
    file: PathBuf,
    /// Parquet to write.
    out: PathBuf,
}

/// What one run of the reference took.
#[derive(Debug)]
pub struct Figures {
    /// Of the statement.
    pub seconds: f64,
    /// Written.
    pub rows: u64,
    /// Most resident memory of the process.
    pub peak_bytes: u64,
}

impl Figures {
    /// In the order of the case's columns.
    pub fn values(&self) -> [f64; 6] {
        let none = f64::NAN;
        let rate = super::rate(self.rows, self.seconds);
        [rate, none, self.seconds, none, none, super::megabytes(self.peak_bytes)]
    }
}

/// Runs [`copy`] in a child process and reads its figures.
pub fn run(file: &Path, out: &Path) -> Result<Figures> {
    let output = Command::new(std::env::current_exe()?)
        .arg("duckdb-copy")
        .args([file, out])
        .stderr(Stdio::inherit())
        .output()
        .context("the reference did not start")?;
    ensure!(output.status.success(), "the reference ended with {}", output.status);
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    fs::remove_file(out)?;
    Ok(Figures {
        seconds: figures["seconds"].as_f64().context("no seconds")?,
        rows: figures["rows"].as_u64().context("no rows")?,
        peak_bytes: figures["peak_bytes"].as_u64().context("no peak")?,
    })
}

/// The statement itself; prints its figures as one JSON object.
pub fn copy(options: &Options) -> Result<()> {
    let connection = Connection::open_in_memory()?;
    connection
        .execute_batch(&format!("SET threads = {THREADS}; SET memory_limit = '{MEMORY_LIMIT}';"))?;
    let statement = statement(&options.file, &options.out);
    let start = Instant::now();
    let rows = connection.execute(&statement, [])?;
    let seconds = start.elapsed().as_secs_f64();
    let peak_bytes = memory(&fs::read_to_string("/proc/self/status")?)?.peak;
    println!("{}", json!({ "seconds": seconds, "rows": rows, "peak_bytes": peak_bytes }));
    Ok(())
}

fn statement(file: &Path, out: &Path) -> String {
    let columns = [
        ("message_id", "VARCHAR"),
        ("tenant", "VARCHAR"),
        ("type", "VARCHAR"),
        ("event", "VARCHAR"),
        ("timestamp", "TIMESTAMP"),
        ("user_id", "VARCHAR"),
        ("anonymous_id", "VARCHAR"),
        ("session_id", "VARCHAR"),
        ("url", "VARCHAR"),
        ("referrer", "VARCHAR"),
        ("user_agent", "VARCHAR"),
        ("properties", "JSON"),
        ("context", "JSON"),
    ];
    let columns: Vec<String> =
        columns.iter().map(|(name, kind)| format!("{name}: '{kind}'")).collect();
    format!(
        "COPY (SELECT * FROM read_json({}, format = 'newline_delimited', columns = {{{}}}) \
         ORDER BY tenant, timestamp) TO {} (FORMAT parquet, COMPRESSION zstd)",
        quoted(file),
        columns.join(", "),
        quoted(out),
    )
}

/// A path as an SQL string.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}
