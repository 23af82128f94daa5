//! The commands, one module each, and what they share.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringlake_engine::{Engine, Ingest};

use crate::cli::{Cli, Command, LogFormat, Settings};
use crate::config::Config;
use crate::logging;

mod backup;
mod config;
mod demo;
mod export;
mod generate;
mod import;
mod keys;
mod maintenance;
mod query;
mod serve;
mod verify;

/// Time for the replay of a log, for commands that cannot begin before it has ended. A terabyte
/// replays in less.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Runs one command; gives its exit code.
///
/// # Errors
/// What kept it from doing its work; a [`crate::UsageError`] when it was used wrongly.
pub fn run(cli: Cli) -> Result<u8> {
    let log = cli.log_format;
    let quietly = || logging::start(log.unwrap_or(LogFormat::Text));
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments, log),
        Command::Import(arguments) => {
            quietly()?;
            import::run(&arguments)
        }
        Command::Query(arguments) => {
            quietly()?;
            query::run(&arguments)
        }
        Command::Export(arguments) => {
            quietly()?;
            export::run(&arguments)
        }
        Command::Verify(arguments) => {
            quietly()?;
            verify::run(&arguments)
        }
        Command::Backup(arguments) => {
            quietly()?;
            backup::run(&arguments)
        }
        Command::Keys(arguments) => {
            quietly()?;
            keys::run(&arguments.action)
        }
        Command::Compact(arguments) => {
            quietly()?;
            maintenance::compact(&arguments)
        }
        Command::Vacuum(arguments) => {
            quietly()?;
            maintenance::vacuum(&arguments)
        }
        Command::Config(Settings::Show(arguments)) => config::show(&arguments, log),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Demo(arguments) => {
            quietly()?;
            demo::run(&arguments)
        }
    }
}

/// Opens the engine of a command and waits until it is ready.
fn open(config: Config) -> Result<(Engine, Vec<Ingest>, Config)> {
    let opened = Engine::open(config.engine.clone());
    let (engine, ingests) = match opened {
        Err(error @ ringlake_engine::Error::Locked { .. }) => {
            return Err(error).context("while a server runs, use --url");
        }
        other => other.with_context(|| cannot_open(&config.engine.data))?,
    };
    engine.wait_ready(REPLAY_TIMEOUT).with_context(|| cannot_open(&config.engine.data))?;
    Ok((engine, ingests, config))
}

fn cannot_open(data: &Path) -> String {
    format!("cannot open the data directory {}", data.display())
}

/// Refuses to make an empty data directory where one is expected.
fn must_exist(config: &Config) -> Result<()> {
    let data = &config.engine.data;
    if !data.is_dir() {
        bail!("there is no data directory {}", data.display());
    }
    Ok(())
}

/// Stops the engine of a command. Nothing waits for it, so it may take its time.
fn close(engine: &Engine, config: &Config) -> Result<()> {
    let report = engine.shutdown(config.shutdown_timeout.max(Duration::from_secs(60)))?;
    if !report.everything_durable {
        bail!("the log could not be written; not all events are stored");
    }
    Ok(())
}

/// A runtime for a command that speaks HTTP.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the runtime")
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Events per second, as people read it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rate for reading, far from the limits of both types"
)]
fn rate(events: u64, elapsed: Duration) -> String {
    grouped((events as f64 / elapsed.as_secs_f64().max(1e-9)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn a_rate_is_events_over_seconds() {
        assert_eq!(rate(1_000_000, Duration::from_secs(2)), "500,000");
    }
}
