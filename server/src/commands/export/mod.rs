//! `ringlake export`: files of events in a directory, from a running server or a stopped data
//! directory.
//!
//! **Guarantees.** A file gets its name when all its bytes are there, from a server with the checksum
//! that the export says.
//!
//! **Failure.** What was broken off goes on when the same command is run again: see [`output`] and
//! [`remote`].

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use ringlake_engine::Engine;
use ringlake_engine::export::{ExportRequest, Job, Status};

use super::{close, grouped, must_exist, open, runtime};
use crate::cli::Export;
use crate::client::Client;
use crate::config::Config;
use crate::http::parameters;
use crate::{EXIT_FINE, UsageError};
use output::Output;

mod output;
mod remote;

/// Time between two looks at a job.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs the command.
///
/// # Errors
/// What the export or the output says.
pub fn run(arguments: &Export) -> Result<u8> {
    let request = request(arguments)?;
    let progress = ProgressBar::no_length();
    let style = "{msg} {wide_bar} {human_pos}/{human_len} {eta}";
    progress.set_style(ProgressStyle::with_template(style)?);
    let job = match &arguments.url {
        Some(url) => {
            let client = Client::new(url, &arguments.key)?;
            let output = Output::open(&arguments.output, url, &request)?;
            runtime()?.block_on(remote::run(client, &output, &progress))?
        }
        None => local(arguments, request, &progress)?,
    };
    progress.finish_and_clear();
    let rows = grouped(job.files.iter().map(|file| file.rows).sum());
    let bytes = grouped(job.files.iter().map(|file| file.bytes).sum());
    let (files, place) = (job.files.len(), arguments.output.display());
    println!("{rows} events in {files} files of {bytes} bytes in {place}");
    Ok(EXIT_FINE)
}

fn request(arguments: &Export) -> Result<ExportRequest, UsageError> {
    let moment = |name: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => parameters::moment(text).map(Some).ok_or_else(|| {
            UsageError(format!("{name} is `{text}`; it must be {}", parameters::MOMENT))
        }),
    };
    let (from, to) = (moment("--from", &arguments.from)?, moment("--to", &arguments.to)?);
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(UsageError("--from must be before --to".into()));
    }
    Ok(ExportRequest {
        tenant: None,
        from,
        to,
        kind: arguments.kind.clone(),
        event: arguments.event.clone(),
        columns: None,
        format: arguments.format.into(),
    })
}

/// Shows how far a job is. True when its files are there; an error when it has failed.
fn show(job: &Job, progress: &ProgressBar) -> Result<bool> {
    progress.set_message("writing");
    progress.set_length(job.rows_expected);
    progress.set_position(job.rows_done);
    match job.status {
        Status::Queued | Status::Running => Ok(false),
        Status::Done => Ok(true),
        Status::Failed => bail!("{}", job.error.as_deref().unwrap_or("the export failed")),
    }
}

fn local(arguments: &Export, request: ExportRequest, progress: &ProgressBar) -> Result<Job> {
    let mut config = Config::for_command(&arguments.place, None)?;
    must_exist(&config)?;
    // Nothing comes that could be a duplicate: the ids need not be read back.
    config.engine.dedup.ids = 0;
    let data = fs::canonicalize(&config.engine.data)?;
    let output = Output::open(&arguments.output, &data.to_string_lossy(), &request)?;
    // The way in stays open all the same: a shard without one has ended.
    let (engine, _ingests, config) = open(config)?;
    let made = make(&engine, request, &output, progress);
    close(&engine, &config)?;
    made
}

/// Makes the files and moves them to `output`. What fails is not tried again.
fn make(
    engine: &Engine,
    request: ExportRequest,
    output: &Output,
    progress: &ProgressBar,
) -> Result<Job> {
    engine.start_exports()?;
    let goes_on =
        |id: &String| engine.export(None, id).is_ok_and(|job| job.status != Status::Failed);
    let id = match output.known().filter(goes_on) {
        Some(id) => id,
        None => {
            let id = engine.create_export(request)?.id;
            output.begin(&id)?;
            id
        }
    };
    let made = take(engine, &id, output, progress);
    engine.cancel_export(None, &id)?;
    made
}

fn take(engine: &Engine, id: &str, output: &Output, progress: &ProgressBar) -> Result<Job> {
    let job = loop {
        let job = engine.export(None, id)?;
        if show(&job, progress)? {
            break job;
        }
        thread::sleep(LOOK_EVERY);
    };
    for file in &job.files {
        let (made, _) = engine.export_file(None, id, &file.name)?;
        let (partial, target) = output.places(file)?;
        // Another file system takes a copy.
        fs::rename(&made, &target)
            .or_else(|_| fs::copy(&made, &partial).and_then(|_| fs::rename(&partial, &target)))
            .with_context(|| format!("cannot write {}", target.display()))?;
    }
    output.finish(&job)?;
    Ok(job)
}
