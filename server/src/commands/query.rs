//! `ringlake query`: one query, as a table for people or as bytes for programs.
//!
//! **Guarantees.** A file named by `--output` appears only when it is complete. Behind a table and
//! behind a file a line on standard error says how much it was and how long it took; bytes for other
//! programs on standard output come without one.
//!
//! **Limits.** A table shows [`TABLE_ROWS_MAX`] rows; the other formats have no such limit and are
//! written as they arrive.

use std::fs::Permissions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::util::display::FormatOptions;
use arrow::util::pretty::pretty_format_batches_with_options;
use http_body_util::BodyExt;
use indicatif::DecimalBytes;
use ringlake_engine::query::format::{Encoder, Format};
use ringlake_engine::query::{QueryRequest, QueryStream};

use super::{close, grouped, must_exist, open, runtime};
use crate::EXIT_FINE;
use crate::cli::{Query, QueryFormat};
use crate::client::{self, Client, Outgoing};
use crate::config::Config;

/// A table is laid out as a whole, so its rows have to fit into memory, and a terminal.
pub const TABLE_ROWS_MAX: usize = 10_000;
/// Longest result that is fetched for a table.
const TABLE_BYTES_MAX: usize = 256 << 20;

/// Runs the command.
///
/// # Errors
/// What the query or its output says.
pub fn run(arguments: &Query) -> Result<u8> {
    let on_terminal = arguments.output.is_none() && io::stdout().is_terminal();
    let format = arguments.format.unwrap_or(if on_terminal {
        QueryFormat::Table
    } else {
        QueryFormat::Ndjson
    });
    let mut output = Output::open(arguments.output.as_deref())?;
    let written = match &arguments.url {
        Some(url) => runtime()?.block_on(remote(url, arguments, format, &mut output))?,
        None => local(arguments, format, &mut output)?,
    };
    output.finish()?;
    if format == QueryFormat::Table || arguments.output.is_some() {
        eprintln!("{}", written.text());
    }
    Ok(EXIT_FINE)
}

/// What has been written.
#[derive(Debug)]
struct Written {
    /// Absent when only the server knows.
    rows: Option<u64>,
    bytes: u64,
    /// From the question to the last row.
    took: Duration,
}

impl Written {
    fn text(&self) -> String {
        let seconds = self.took.as_secs_f64();
        let bytes = DecimalBytes(self.bytes);
        match self.rows {
            Some(1) => format!("1 row, {bytes}, in {seconds:.3} s"),
            Some(rows) => format!("{} rows, {bytes}, in {seconds:.3} s", grouped(rows)),
            None => format!("{bytes} in {seconds:.3} s"),
        }
    }
}

/// The format that the engine or the server encodes; none for a table.
fn encoded(format: QueryFormat) -> Option<Format> {
    match format {
        QueryFormat::Table => None,
        QueryFormat::Csv => Some(Format::Csv),
        QueryFormat::Ndjson => Some(Format::Ndjson),
        QueryFormat::Arrow => Some(Format::Arrow),
        QueryFormat::Parquet => Some(Format::Parquet),
    }
}

fn local(arguments: &Query, format: QueryFormat, output: &mut Output) -> Result<Written> {
    let mut config = Config::for_command(&arguments.place, None)?;
    must_exist(&config)?;
    // Nothing comes that could be a duplicate: the ids need not be read back.
    config.engine.dedup.ids = 0;
    // The way in stays open all the same: a shard without one has ended.
    let (engine, _ingests, config) = open(config)?;
    // What was replayed becomes visible with the next flush.
    engine.flush()?;
    let request = QueryRequest::new(arguments.sql.as_str());
    let began = Instant::now();
    let written = engine.query(request).map_err(anyhow::Error::from).and_then(|mut rows| {
        match encoded(format) {
            None => write_table(&mut rows, output),
            Some(format) => write_encoded(&mut rows, format, output),
        }
    });
    let took = began.elapsed();
    close(&engine, &config)?;
    let (rows, bytes) = written?;
    Ok(Written { rows: Some(rows), bytes, took })
}

/// Gives rows and bytes.
fn write_encoded(
    rows: &mut QueryStream,
    format: Format,
    output: &mut Output,
) -> Result<(u64, u64)> {
    let mut encoder = Encoder::new(format, rows.schema())?;
    let (mut count, mut bytes) = (0, 0);
    while let Some(batch) = rows.blocking_next() {
        let batch = batch?;
        count += batch.num_rows() as u64;
        bytes += output.write(&encoder.batch(&batch)?)?;
    }
    bytes += output.write(&encoder.finish()?)?;
    Ok((count, bytes))
}

fn write_table(rows: &mut QueryStream, output: &mut Output) -> Result<(u64, u64)> {
    let mut table = Table::new(rows.schema().clone());
    while let Some(batch) = rows.blocking_next() {
        table.add(batch?);
    }
    table.write(output)
}

async fn remote(
    url: &str,
    arguments: &Query,
    format: QueryFormat,
    output: &mut Output,
) -> Result<Written> {
    let wanted = encoded(format);
    let outgoing = Outgoing {
        method: None,
        path: "/v1/query".into(),
        body: serde_json::json!({ "sql": arguments.sql }).to_string().into(),
        content_type: Some("application/json"),
        accept: Some(wanted.unwrap_or(Format::Arrow).content_type()),
        ..Outgoing::default()
    };
    let began = Instant::now();
    let response = Client::new(url, &arguments.key)?.send(&outgoing).await?;
    if !response.status().is_success() {
        bail!(client::refusal(response).await);
    }
    if wanted.is_none() {
        let bytes = client::read(response, TABLE_BYTES_MAX).await?;
        let took = began.elapsed();
        let (rows, bytes) = table_from_stream(&bytes)?.write(output)?;
        return Ok(Written { rows: Some(rows), bytes, took });
    }
    let mut body = response.into_body();
    let mut written = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the server broke the result off")?;
        if let Ok(bytes) = frame.into_data() {
            written += output.write(&bytes)?;
        }
    }
    Ok(Written { rows: None, bytes: written, took: began.elapsed() })
}

/// Reads an Arrow IPC stream into a table.
pub fn table_from_stream(bytes: &[u8]) -> Result<Table> {
    let reader = arrow::ipc::reader::StreamReader::try_new(bytes, None)?;
    let mut table = Table::new(reader.schema());
    for batch in reader {
        table.add(batch?);
    }
    Ok(table)
}

/// The rows of a table and how many there would be.
#[derive(Debug)]
pub struct Table {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    shown: usize,
    total: usize,
}

impl Table {
    fn new(schema: SchemaRef) -> Self {
        Self { schema, batches: Vec::new(), shown: 0, total: 0 }
    }

    fn add(&mut self, batch: RecordBatch) {
        self.total += batch.num_rows();
        let room = TABLE_ROWS_MAX - self.shown;
        let kept = batch.num_rows().min(room);
        if kept > 0 {
            self.shown += kept;
            self.batches.push(batch.slice(0, kept));
        }
    }

    /// The table as text, with a line about rows that are not in it.
    pub fn text(mut self) -> Result<String> {
        let options = FormatOptions::new().with_types_info(true).with_null("null");
        if self.batches.is_empty() {
            self.batches.push(RecordBatch::new_empty(self.schema));
        }
        let mut text = pretty_format_batches_with_options(&self.batches, &options)?.to_string();
        text.push('\n');
        if self.total > self.shown {
            let (shown, total) = (grouped(self.shown as u64), grouped(self.total as u64));
            text.push_str(&format!("the first {shown} of {total} rows; --format csv writes all\n"));
        }
        Ok(text)
    }

    /// Gives the rows of the result, shown or not, and the bytes of the table.
    fn write(self, output: &mut Output) -> Result<(u64, u64)> {
        let rows = self.total as u64;
        Ok((rows, output.write(self.text()?.as_bytes())?))
    }
}

/// Where a result goes.
enum Output {
    Standard(io::StdoutLock<'static>),
    /// A file beside the wanted one, renamed at the end.
    File {
        file: tempfile::NamedTempFile,
        path: std::path::PathBuf,
    },
    /// The reader of a pipe has had enough.
    Closed,
}

impl Output {
    fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::Standard(io::stdout().lock())) };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".ringlake-query-")
            // As any other new file: the user's mask takes away what it should.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(directory);
        let file = file.with_context(|| format!("cannot write to {}", directory.display()))?;
        Ok(Self::File { file, path: path.to_owned() })
    }

    /// Gives how many bytes that were.
    fn write(&mut self, bytes: &[u8]) -> Result<u64> {
        let outcome = match self {
            Self::Standard(out) => out.write_all(bytes),
            Self::File { file, .. } => file.write_all(bytes),
            Self::Closed => Ok(()),
        };
        match (&self, outcome) {
            (Self::Standard(_), Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                *self = Self::Closed;
            }
            (_, outcome) => outcome.context("cannot write the result")?,
        }
        Ok(bytes.len() as u64)
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Standard(mut out) => match out.flush() {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(error).context("cannot write the result")
                }
                _ => Ok(()),
            },
            Self::File { file, path } => {
                let shown = path.display().to_string();
                file.persist(path).with_context(|| format!("cannot write {shown}"))?;
                Ok(())
            }
            Self::Closed => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should panic")]
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(rows: usize) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("name", DataType::Utf8, true),
        ]);
        let numbers = Int64Array::from(vec![7; rows]);
        let names = StringArray::from(vec![None::<&str>; rows]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers), Arc::new(names)]).unwrap()
    }

    #[test]
    fn a_table_shows_types_and_nulls() {
        let mut table = Table::new(batch(0).schema());
        table.add(batch(1));
        let text = table.text().unwrap();
        assert!(text.contains("Int64") && text.contains("null"), "{text}");
    }

    #[test]
    fn an_empty_table_still_shows_its_columns() {
        let text = Table::new(batch(0).schema()).text().unwrap();
        assert!(text.contains("name"), "{text}");
    }

    #[test]
    fn a_long_table_says_what_it_leaves_out() {
        let mut table = Table::new(batch(0).schema());
        for _ in 0..3 {
            table.add(batch(TABLE_ROWS_MAX / 2));
        }
        assert_eq!(table.shown, TABLE_ROWS_MAX);
        let text = table.text().unwrap();
        assert!(text.ends_with("the first 10,000 of 15,000 rows; --format csv writes all\n"));
    }

    #[test]
    fn a_file_appears_only_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.csv");
        let mut output = Output::open(Some(&path)).unwrap();
        output.write(b"a\n").unwrap();
        assert!(!path.exists());
        output.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a\n");
    }
}
