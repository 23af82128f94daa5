//! `ringlake import`: files of events, through the engine or a running server.
//!
//! ```text
//!  files ▶ decompress ▶ cut into pieces ▶ bounded queue ▶ one worker a shard, or a connection
//! ```
//!
//! **Guarantees.** It ends with success only when every event of every file is durable. Bad events
//! are left out, counted, and the first few reported with their place.
//!
//! A batch from quarantine is no file of events: it goes back under its old numbers, see
//! [`quarantine`].
//!
//! **Not guaranteed.** An import that breaks off has stored a part; what it says tells how much.
//! Done again it stores the rest, as far as the events have message ids that are still known.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{grouped, rate};
use crate::cli::{Import, ImportFormat};
use crate::{EXIT_FAILED, EXIT_FINE};

mod batches;
mod local;
mod pieces;
mod quarantine;
mod remote;
mod source;
mod values;

use batches::Slices;
use pieces::{Lines, Next, Piece};
use values::Values;

/// Size of a piece: large enough that a request costs nothing beside its events.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces that wait for a worker.
const QUEUE_MAX: usize = 4;
/// Bad events that are described one by one.
const REPORTED_MAX: usize = 10;

/// Runs the command.
///
/// # Errors
/// When a file cannot be read, or its events cannot be stored.
pub fn run(arguments: &Import) -> Result<u8> {
    if quarantine::are_from(arguments)? {
        return quarantine::run(&arguments.files, &arguments.place);
    }
    let began = Instant::now();
    let job = Job::new(arguments);
    let outcome = match &arguments.url {
        Some(url) => remote::run(&job, url, &arguments.key),
        None => local::run(&job, &arguments.place),
    };
    job.progress.finish_and_clear();
    let report = job.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut err = io::stderr().lock();
    for line in &report.described {
        writeln!(err, "ringlake: {line}")?;
    }
    let untold = report.rejected - report.described.len() as u64;
    if untold > 0 {
        writeln!(err, "ringlake: {} more events were left out", grouped(untold))?;
    }
    let note = outcome.with_context(|| {
        format!("the import broke off after {} events", grouped(report.accepted))
    })?;
    let elapsed = began.elapsed();
    let known = match report.duplicates {
        0 => String::new(),
        known => format!(", {} of them known before", grouped(known)),
    };
    let text = format!(
        "{} events in {:.1} s, {} events/s{known}{note}",
        grouped(report.accepted),
        elapsed.as_secs_f64(),
        rate(report.accepted, elapsed),
    );
    writeln!(io::stdout(), "{text}").context("cannot write to standard output")?;
    if report.rejected > 0 {
        writeln!(err, "ringlake: {} events were left out", grouped(report.rejected))?;
        return Ok(EXIT_FAILED);
    }
    Ok(EXIT_FINE)
}

/// One import: what is read, and what came of it.
struct Job<'a> {
    files: &'a [PathBuf],
    format: ImportFormat,
    progress: ProgressBar,
    report: Mutex<Report>,
}

/// What came of the events so far.
#[derive(Debug, Default)]
struct Report {
    accepted: u64,
    /// Of these, known by their message id and not stored again.
    duplicates: u64,
    rejected: u64,
    described: Vec<String>,
}

impl<'a> Job<'a> {
    fn new(arguments: &'a Import) -> Self {
        Self {
            files: &arguments.files,
            format: arguments.format,
            progress: progress(&arguments.files),
            report: Mutex::default(),
        }
    }

    fn accepted(&self, events: usize, duplicates: usize) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.accepted += events as u64;
        report.duplicates += duplicates as u64;
        self.progress.set_message(grouped(report.accepted));
    }

    /// Counts an event that was left out; `number` is its line, or its place among all.
    fn rejected(&self, file: &Path, number: u64, reason: impl Display) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.rejected += 1;
        if report.described.len() < REPORTED_MAX {
            let unit = match self.format {
                ImportFormat::Ndjson => "line",
                ImportFormat::Json => "event",
                ImportFormat::Arrow => "row",
            };
            report.described.push(format!("{} {unit} {number}: {reason}", file.display()));
        }
    }

    /// The number of the event at `index` of a piece, as [`Job::rejected`] wants it.
    fn number_of(&self, work: &Work, index: usize) -> u64 {
        match self.format {
            ImportFormat::Arrow => work.piece.first + index as u64,
            ImportFormat::Ndjson | ImportFormat::Json => work.piece.number_of(index),
        }
    }

    /// A piece in two of about half the size; none when it holds only one event.
    fn halves(&self, work: &Work) -> Option<(Work, Work)> {
        let (left, right) = match self.format {
            ImportFormat::Arrow => batches::split(&work.piece),
            ImportFormat::Ndjson | ImportFormat::Json => work.piece.split(),
        }?;
        let half = |piece| Work { file: work.file.clone(), piece };
        Some((half(left), half(right)))
    }

    /// Reads all files and gives their pieces to `take`, in order, until it wants no more.
    fn read(&self, piece_bytes: usize, mut take: impl FnMut(Work) -> bool) -> Result<()> {
        for file in self.files {
            let name = file.display();
            let input = source::open(file, &self.progress)
                .with_context(|| format!("cannot read {name}"))?;
            let mut cutter = match self.format {
                ImportFormat::Ndjson => Cutter::Lines(Lines::new(input, piece_bytes)),
                ImportFormat::Json => Cutter::Values(Values::new(input, piece_bytes)),
                ImportFormat::Arrow => Cutter::Slices(Slices::new(input, piece_bytes)),
            };
            loop {
                match cutter.next().with_context(|| format!("cannot read {name}"))? {
                    Next::End => break,
                    Next::TooLong(number) => {
                        let reason = format!("the event is longer than {piece_bytes} bytes");
                        self.rejected(file, number, reason);
                    }
                    Next::Piece(piece) => {
                        if !take(Work { file: file.clone(), piece }) {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// A piece and the file that it came from.
#[derive(Debug)]
struct Work {
    file: PathBuf,
    piece: Piece,
}

type Input = Box<dyn io::Read + Send>;

enum Cutter {
    Lines(Lines<Input>),
    Values(Values<Input>),
    Slices(Slices<Input>),
}

impl Cutter {
    fn next(&mut self) -> io::Result<Next> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Values(values) => values.next(),
            Self::Slices(slices) => slices.next(),
        }
    }
}

/// A bar over the bytes of the files on a terminal, nothing elsewhere.
fn progress(files: &[PathBuf]) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let size = |file: &PathBuf| {
        std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file).map(|found| found.len())
    };
    let total: Option<u64> = files.iter().map(size).sum();
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:30} {bytes} of {total_bytes}, {msg} events, {bytes_per_sec}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}, {msg} events, {bytes_per_sec}"),
    };
    bar.set_style(
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}
