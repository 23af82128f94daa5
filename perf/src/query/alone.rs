//! DuckDB alone on the same files, in a process of its own that answers one question after another.
//!
//! A question is a line on standard input, an answer a line on standard output, both JSON. Time is
//! taken in that process, around the statement.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use duckdb::Connection;
use serde_json::{Value, json};

use crate::bulk::{count_as_f64, megabytes};
use crate::server::memory;

/// As the server has by default.
const MEMORY_LIMIT: &str = "1GB";

/// `perf duckdb-query`
#[derive(Debug, Args)]
pub struct Options {
    /// Threads of a statement.
    threads: u32,
    /// Parquet files, the table `events`.
    files: Vec<PathBuf>,
}

/// The process.
#[derive(Debug)]
pub struct Alone {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Alone {
    /// Starts it on the files of a table.
    pub fn start(threads: u32, files: &[PathBuf]) -> Result<Alone> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["duckdb-query", &threads.to_string()])
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("DuckDB did not start")?;
        let questions = child.stdin.take().context("DuckDB has no input")?;
        let answers = BufReader::new(child.stdout.take().context("DuckDB has no output")?);
        Ok(Alone { child, questions, answers })
    }

    /// One answer as CSV, by way of a file.
    pub fn csv(&mut self, sql: &str, file: &Path) -> Result<String> {
        let path = file.display().to_string().replace('\'', "''");
        self.ask("rows", &format!("COPY ({sql}) TO '{path}' (FORMAT csv, HEADER)"))?;
        Ok(fs::read_to_string(file)?)
    }

    /// Asks and reads all rows; in the order of the case's columns.
    pub fn rows(&mut self, sql: &str) -> Result<[f64; 5]> {
        let answer = self.ask("rows", sql)?;
        Ok([answer[0] * 1e3, answer[1], f64::NAN, f64::NAN, f64::NAN])
    }

    /// Exports as Arrow batches; the same.
    pub fn arrow(&mut self, sql: &str) -> Result<[f64; 5]> {
        let [seconds, rows, first, peak] = self.ask("arrow", sql)?;
        Ok([seconds * 1e3, rows, rows / seconds, first * 1e3, peak])
    }

    /// Seconds, rows, seconds until the first batch, most MB since the question.
    fn ask(&mut self, kind: &str, sql: &str) -> Result<[f64; 4]> {
        writeln!(self.questions, "{}", json!({ "kind": kind, "sql": sql }))?;
        self.questions.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("DuckDB did not answer {sql}: {line:?}"))?;
        let of = |name: &str| answer[name].as_f64().with_context(|| format!("{sql}: {answer}"));
        Ok([of("seconds")?, of("rows")?, of("first")?, of("peak")?])
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself: answers until its input ends.
pub fn serve(options: &Options) -> Result<()> {
    let connection = Connection::open_in_memory()?;
    let threads = options.threads;
    connection
        .execute_batch(&format!("SET threads = {threads}; SET memory_limit = '{MEMORY_LIMIT}';"))?;
    let files: Vec<String> = options
        .files
        .iter()
        .map(|file| format!("'{}'", file.display().to_string().replace('\'', "''")))
        .collect();
    ensure!(!files.is_empty(), "a table has at least one file");
    let view = format!("CREATE VIEW events AS FROM read_parquet([{}])", files.join(", "));
    connection.execute_batch(&view)?;
    for line in std::io::stdin().lines() {
        let question: Value = serde_json::from_str(&line?)?;
        let sql = question["sql"].as_str().context("a question has no statement")?;
        let answer = match question["kind"].as_str() {
            Some("rows") => rows(&connection, sql)?,
            Some("arrow") => arrow(&connection, sql)?,
            _ => bail!("no such question: {question}"),
        };
        println!("{answer}");
    }
    Ok(())
}

fn rows(connection: &Connection, sql: &str) -> Result<Value> {
    let began = Instant::now();
    let mut statement = connection.prepare(sql)?;
    let rows: usize = statement.query_arrow([])?.map(|batch| batch.num_rows()).sum();
    let seconds = began.elapsed().as_secs_f64();
    Ok(json!({ "seconds": seconds, "rows": rows, "first": seconds, "peak": 0.0 }))
}

fn arrow(connection: &Connection, sql: &str) -> Result<Value> {
    // From here on the kernel's high-water mark is that of this question.
    fs::write("/proc/self/clear_refs", "5")?;
    let began = Instant::now();
    let mut statement = connection.prepare(sql)?;
    let (mut rows, mut first) = (0_u64, None);
    for batch in statement.stream_arrow([])? {
        rows += batch?.num_rows() as u64;
        first.get_or_insert_with(|| began.elapsed().as_secs_f64());
    }
    let seconds = began.elapsed().as_secs_f64();
    let peak = memory(&fs::read_to_string("/proc/self/status")?)?.peak;
    let first = first.unwrap_or(seconds);
    let rows = count_as_f64(rows);
    Ok(json!({ "seconds": seconds, "rows": rows, "first": first, "peak": megabytes(peak) }))
}
