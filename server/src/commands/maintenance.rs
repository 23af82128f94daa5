//! `ringlake compact` and `ringlake vacuum`: by hand what a server does by itself.
//!
//! A server that runs on the data directory is asked to do the work, because only the owner of the
//! directory commits to the table.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::DecimalBytes;
use ringlake_engine::{CompactReport, Engine, VacuumReport, directory};
use serde::de::DeserializeOwned;

use super::{close, grouped, must_exist, open, runtime};
use crate::EXIT_FINE;
use crate::cli::Maintenance;
use crate::client::{self, Client, Outgoing};
use crate::config::Config;

/// Longest answer: a report is a few numbers.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// Runs `ringlake compact`.
///
/// # Errors
/// What kept a file from being joined.
pub fn compact(arguments: &Maintenance) -> Result<u8> {
    let (report, took) = work(arguments, "/v1/admin/compact", Engine::compact)?;
    write_line(&describe_compaction(&report, took))
}

/// Runs `ringlake vacuum`.
///
/// # Errors
/// What kept a file from being removed.
pub fn vacuum(arguments: &Maintenance) -> Result<u8> {
    let (report, _) = work(arguments, "/v1/admin/vacuum", Engine::vacuum)?;
    write_line(&describe_vacuum(&report))
}

/// Has a server do it when there is one, else does it here; says how long that took.
fn work<T: DeserializeOwned>(
    arguments: &Maintenance,
    path: &str,
    here: impl FnOnce(&Engine) -> Result<T, ringlake_engine::Error>,
) -> Result<(T, Duration)> {
    if let Some(url) = &arguments.url {
        return ask(url, arguments, path);
    }
    let config = Config::for_command(&arguments.place, None)?;
    must_exist(&config)?;
    if let Some(url) = server_of(&config) {
        return ask(&url, arguments, path);
    }
    // The way in stays open although nothing comes: a shard without one has ended.
    let (engine, _ingests, config) = open(config)?;
    let began = Instant::now();
    let report = here(&engine);
    let took = began.elapsed();
    close(&engine, &config)?;
    Ok((report?, took))
}

/// Where the server of the data directory listens, if one runs.
fn server_of(config: &Config) -> Option<String> {
    let owner = directory::owner(&config.engine.data)?;
    let (_, url) = owner.split_once(" at ")?;
    Some(url.to_owned())
}

fn ask<T: DeserializeOwned>(
    url: &str,
    arguments: &Maintenance,
    path: &str,
) -> Result<(T, Duration)> {
    let mut client = Client::new(url, &arguments.key)?;
    let outgoing = Outgoing {
        path: path.into(),
        content_type: Some("application/json"),
        ..Outgoing::default()
    };
    let began = Instant::now();
    let answer = runtime()?.block_on(async {
        let response = client.send(&outgoing).await?;
        if !response.status().is_success() {
            bail!(client::refusal(response).await);
        }
        client::read(response, ANSWER_MAX_BYTES).await
    })?;
    let report = serde_json::from_slice(&answer).context("the server's answer is not ours")?;
    Ok((report, began.elapsed()))
}

fn describe_compaction(report: &CompactReport, took: Duration) -> String {
    let live = format!("version {} has {} files", report.version, grouped(report.files as u64));
    if report.files_read == 0 {
        return format!("nothing to join; {live}");
    }
    format!(
        "joined {} files, {}, into {}, {}, in {:.1} s; {live}",
        grouped(report.files_read),
        DecimalBytes(report.bytes_read),
        grouped(report.files_written),
        DecimalBytes(report.bytes_written),
        took.as_secs_f64(),
    )
}

fn describe_vacuum(report: &VacuumReport) -> String {
    let mut removed =
        format!("removed {} files, {}", grouped(report.files), DecimalBytes(report.bytes));
    if report.expired > 0 {
        let events = grouped(report.expired);
        removed.push_str(&format!("; {events} events past retention left the table"));
    }
    match report.waiting {
        0 => removed,
        waiting => format!(
            "{removed}; {} replaced files stay for other readers for now",
            grouped(waiting as u64)
        ),
    }
}

fn write_line(line: &str) -> Result<u8> {
    writeln!(io::stdout(), "{line}").context("cannot write to standard output")?;
    Ok(EXIT_FINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reports_are_told_in_a_line() {
        let report = CompactReport {
            version: 1_002,
            files: 3,
            files_read: 1_000,
            bytes_read: 24_000_000,
            files_written: 2,
            bytes_written: 5_000_000,
        };
        assert_eq!(
            describe_compaction(&report, Duration::from_millis(1_240)),
            "joined 1,000 files, 24.00 MB, into 2, 5.00 MB, in 1.2 s; version 1002 has 3 files"
        );
        let nothing = CompactReport { version: 4, files: 1, ..CompactReport::default() };
        assert_eq!(
            describe_compaction(&nothing, Duration::ZERO),
            "nothing to join; version 4 has 1 files"
        );
        let report = VacuumReport { files: 2, bytes: 4_096, waiting: 7, expired: 0 };
        assert_eq!(
            describe_vacuum(&report),
            "removed 2 files, 4.10 kB; 7 replaced files stay for other readers for now"
        );
        let report = VacuumReport { waiting: 0, expired: 1_200, ..report };
        assert_eq!(
            describe_vacuum(&report),
            "removed 2 files, 4.10 kB; 1,200 events past retention left the table"
        );
    }
}
